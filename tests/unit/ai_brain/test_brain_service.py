from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from minhos_mesh.ai_brain.domain.decide import Told, band
from minhos_mesh.ai_brain.domain.findings import Action, InsufficientData, StalePrice
from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.ai_brain.service import (
    PROGRESS_TICKS,
    AnalysisRecord,
    Brain,
    Fact,
    PastSignal,
    Progressed,
    SignalRecord,
    UnknownSymbol,
)
from minhos_mesh.runtime.bars import Bar, BarBuilder
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.tick_layout import TickArray

NQ, ES = "NQZ26-CME", "ESZ26-CME"
BANDS = (0.5, 0.75)
SIMULATED, REPLAY = 4, 3

Walk = Callable[..., TickArray]


@dataclass
class Journal:
    """Keeps what was told; while it is shut it tells nobody."""

    facts: list[Fact] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def tell(self, facts: Sequence[Fact]) -> None:
        await self.open.wait()
        self.facts += facts

    def signals(self) -> list[SignalRecord]:
        return [fact for fact in self.facts if isinstance(fact, SignalRecord)]


def brain(journal: Journal, *, replay: bool = False, wall_ns: int = 0) -> Brain[SignalRecord]:
    return Brain(
        {NQ: 250_000_000, ES: 250_000_000},
        primary=NQ,
        periods=Periods(fast=2, slow=4, rsi=3, volatility=3, volume=3, pattern=4),
        thresholds=BANDS,
        max_price_age_s=60.0,
        replay=replay,
        clock=ManualClock(wall_ns),
        teller=journal,
        say=lambda record: record,
    )


def ids(journal: Journal) -> list[str]:
    return [record.signal_id for record in journal.signals()]


async def test_a_replay_tells_the_same_ids_again_after_a_restart_whatever_the_batches(walk: Walk) -> None:
    ticks = walk(9_000, seed=2)
    first, second = Journal(), Journal()
    await brain(first, replay=True).add(NQ, 7, REPLAY, ticks, 1)
    restarted = brain(second, replay=True)
    restarted.recall([PastSignal(record, 7, Told(Action.BUY, 2)) for record in first.signals()])
    for begin in range(0, 9_000, 700):
        await restarted.add(NQ, 7, REPLAY, ticks[begin : begin + 700], begin + 1)
    assert len(ids(first)) > 20
    assert ids(second) == ids(first)
    assert len(set(ids(first))) == len(ids(first))
    assert [record.signal_id for record in restarted.held] == ids(first)


async def test_progress_of_a_replay_comes_behind_the_signals_it_closes(walk: Walk) -> None:
    journal = Journal()
    await brain(journal, replay=True).add(NQ, 7, REPLAY, walk(9_000, seed=2), 1)
    progress = [fact.through_sequence for fact in journal.facts if isinstance(fact, Progressed)]
    assert progress == [*range(PROGRESS_TICKS, 9_000, PROGRESS_TICKS), 9_000]
    through = 0
    for fact in journal.facts:
        if isinstance(fact, SignalRecord):
            assert fact.timed.sequence > through
        elif isinstance(fact, Progressed):
            assert all(record.timed.sequence <= fact.through_sequence for record in _before(journal, fact))
            through = fact.through_sequence


def _before(journal: Journal, fact: Fact) -> list[SignalRecord]:
    return [one for one in journal.facts[: journal.facts.index(fact)] if isinstance(one, SignalRecord)]


async def test_history_that_comes_as_ticks_tells_nothing_that_is_no_longer_news(walk: Walk) -> None:
    ticks = walk(6_000, seed=2)
    journal = Journal()
    now_ns = int(ticks["event_time_ns"][-1])
    await brain(journal, wall_ns=now_ns).add(NQ, 7, SIMULATED, ticks, 1)
    assert all(record.timed.event_time_ns >= now_ns - 60_000_000_000 for record in journal.signals())
    late = Journal()
    made = brain(late, wall_ns=now_ns + 3_600_000_000_000)
    await made.add(NQ, 7, SIMULATED, ticks, 1)
    assert late.facts == []
    with pytest.raises(StalePrice, match=r"3600\.0 s old: at most 60 s"):
        made.generate(NQ)
    with pytest.raises(StalePrice):
        made.view(NQ)


async def test_an_analysis_is_told_at_the_close_of_a_bar_and_not_in_a_replay(walk: Walk) -> None:
    ticks = walk(300, seed=2)
    journal, replayed = Journal(), Journal()
    live = brain(journal, wall_ns=int(ticks["event_time_ns"][-1]))
    for index in range(len(ticks)):
        await live.add(NQ, 7, SIMULATED, ticks[index : index + 1], index + 1)
    await brain(replayed, replay=True).add(NQ, 7, REPLAY, ticks, 1)
    told = [fact for fact in journal.facts if isinstance(fact, AnalysisRecord)]
    assert 1 <= len(told) <= 2
    assert not any(isinstance(fact, AnalysisRecord) for fact in replayed.facts)


def primed_with(made: Brain[SignalRecord], ticks: TickArray, epoch: int) -> None:
    builder = BarBuilder()
    bars: list[Bar] = builder.add(ticks, 1)
    made.prime(NQ, epoch, SIMULATED, len(ticks), int(ticks["event_time_ns"][-1]), bars, builder.open_bar)


async def test_a_restart_tells_nothing_again_in_its_epoch_and_everything_in_a_new_one(walk: Walk) -> None:
    ticks = walk(2_001, seed=6, drift=1.0)
    past, news, now_ns = ticks[:2_000], ticks[2_000:], int(ticks["event_time_ns"][-1])
    first = Journal()
    before = brain(first, wall_ns=now_ns)
    primed_with(before, past, 7)
    await before.add(NQ, 7, SIMULATED, news, 2_001)
    (record,) = first.signals()
    decision = record.timed.decision
    stood = PastSignal(record, 7, Told(decision.action, band(decision.confidence, BANDS)))
    for epoch, again in ((7, False), (8, True)):
        second = Journal()
        after = brain(second, wall_ns=now_ns)
        after.recall([stood])
        assert after.current(NQ) == record
        primed_with(after, past, epoch)
        await after.add(NQ, epoch, SIMULATED, news, 2_001)
        assert (len(second.signals()) == 1) is again


async def test_signals_of_before_stand_in_front_of_those_of_now_without_doubles(walk: Walk) -> None:
    journal = Journal()
    made = brain(journal, replay=True)
    await made.add(NQ, 7, REPLAY, walk(6_000, seed=2), 1)
    told = journal.signals()
    late = brain(Journal(), replay=True)
    late.held.extend(told[5:])
    late.recall([PastSignal(record, 7, Told(Action.BUY, 1)) for record in told[:8]])
    assert list(late.held) == told


async def test_what_is_not_stored_is_not_shown(walk: Walk) -> None:
    journal = Journal()
    journal.open.clear()
    made = brain(journal, replay=True)
    adding = asyncio.create_task(made.add(NQ, 7, REPLAY, walk(4_000, seed=2), 1))
    await asyncio.sleep(0)
    assert made.counters[NQ].ticks == PROGRESS_TICKS
    assert (len(made.held), made.current(NQ), made.counters[NQ].told_sequence) == (0, None, 0)
    journal.open.set()
    await adding
    assert (len(made.held), made.counters[NQ].told_sequence) == (len(journal.signals()), 4_000)


async def test_others_run_between_the_parts_of_a_history_that_is_told_to_nobody(walk: Walk) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await brain(Journal()).add(NQ, 7, SIMULATED, walk(8 * PROGRESS_TICKS, seed=2), 1)
    running.cancel()
    assert turns >= 7


async def test_a_new_epoch_begins_with_nothing(walk: Walk) -> None:
    made = brain(Journal(), replay=True)
    await made.add(NQ, 7, REPLAY, walk(2_000), 1)
    made.gap(NQ)
    assert (made.counters[NQ].gaps, made.bars(NQ) > 10) == (1, True)
    made.generate(None)
    await made.add(NQ, 8, REPLAY, walk(3), 1)
    assert (made.counters[NQ].epoch, made.counters[NQ].gaps, made.counters[NQ].ticks, made.bars(NQ)) == (8, 0, 3, 0)
    with pytest.raises(InsufficientData):
        made.generate(NQ)


async def test_symbols_do_not_know_of_each_other(walk: Walk) -> None:
    journal, alone = Journal(), Journal()
    made = brain(journal, replay=True)
    await made.add(NQ, 7, REPLAY, walk(3_000, seed=1), 1)
    await made.add(ES, 7, REPLAY, walk(3_000, seed=2), 1)
    await brain(alone, replay=True).add(ES, 7, REPLAY, walk(3_000, seed=2), 1)
    assert [name for name in ids(journal) if name.startswith(ES)] == ids(alone)
    with pytest.raises(UnknownSymbol, match="'CLZ26-NYM' is not configured: known are ESZ26-CME, NQZ26-CME"):
        made.current("CLZ26-NYM")
