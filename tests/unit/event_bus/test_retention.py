"""What is forgotten and what is kept: by age, size and number, never unseen by those who still need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.event_bus import retention as module
from minhos_mesh.event_bus.domain.errors import PositionLost
from minhos_mesh.event_bus.domain.latest import Gap, GapCause
from minhos_mesh.event_bus.domain.patterns import ALL, selection
from minhos_mesh.event_bus.domain.records import Change, DeadLetterQuery, NewEvent, TypeCount
from minhos_mesh.event_bus.domain.retention import Limits, Marks, Need, floors, steps, waits_for
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.readers import Reader, SlowReaderPolicy
from minhos_mesh.event_bus.retention import Retention
from minhos_mesh.event_bus.service import Durable, EventBus, Start
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.storage import Database, StorageError

MakeEvent = Callable[..., NewEvent]
KEEP = SlowReaderPolicy.KEEP_ALL_WITH_GAP
BEGINNING = Start(beginning=True)
HOUR = 3_600 * 10**9


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)


def retention(bus: EventBus, clock: ManualClock, **limits: object) -> tuple[Retention, Conditions]:
    conditions = Conditions()
    return Retention(bus, Limits(**limits), clock, conditions), conditions  # type: ignore[arg-type] # by keyword


async def held(bus: EventBus) -> list[int]:
    return [event.sequence for event in (await bus.engine.read(0, ALL, 10_000)).events]


async def got(reader: Reader, count: int) -> list[int]:
    sequences: list[int] = []
    while len(sequences) < count:
        output = await reader.next_output(5)
        assert output is not None, f"only {sequences} came"
        sequences += [each.event.sequence for each in output.events]
    return sequences


# The rules.

COUNTS = (TypeCount("a.b", 100, 0, 100, 1000), TypeCount("c.d", 50, 0, 50, 500))


def test_what_a_consumer_needs_is_the_floor_of_the_types_that_it_reads() -> None:
    assert floors(COUNTS, [Need("x", ("a.*",), 30), Need("y", ("a.b",), 10)]) == {"a.b": 10}
    assert floors(COUNTS, [Need("x", (), 30)]) == {"a.b": 30, "c.d": 30}


def test_without_limits_nothing_goes() -> None:
    assert steps(COUNTS, Limits(), Marks(90, 90, 100), {}) == []


def test_each_type_keeps_its_own_number() -> None:
    limits = Limits(max_events=80, max_events_of={"c.d": 10})
    found = steps(COUNTS, limits, Marks(0, 0, 151), {})
    assert [(dict(step.through), step.events) for step in found] == [({"a.b": 150}, 20), ({"c.d": 150}, 40)]


def test_a_consumer_is_named_when_it_holds_something_back() -> None:
    marks = Marks(60, 0, 151)
    needs = [Need("slow", ("a.b",), 10), Need("quick", ("a.b",), 140)]
    assert waits_for(COUNTS, Limits(max_age_ns=1), marks, needs) == ["slow"]
    assert waits_for(COUNTS, Limits(max_age_ns=None), marks, needs) == []


@given(
    aged=st.integers(0, 200),
    young=st.integers(1, 151),
    first=st.integers(1, 151),
    max_bytes=st.integers(0, 2000),
    max_events=st.integers(1, 200),
)
def test_no_soft_limit_ever_reaches_what_is_needed_or_too_young(
    aged: int, young: int, first: int, max_bytes: int, max_events: int
) -> None:
    limits = Limits(max_age_ns=1, max_bytes=max_bytes, max_events=max_events)
    for step in steps(COUNTS, limits, Marks(aged, 0, young), {"a.b": first}):
        assert not step.takes_unacked
        assert step.through.get("a.b", 0) < first
        assert all(last < young for last in step.through.values())


# On a journal.


async def test_old_events_go_and_the_journal_says_what_it_holds(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    await bus.publish([make_event() for _ in range(600)])
    clock.advance(3_600)
    await bus.publish([make_event() for _ in range(5)])
    keeper, _ = retention(bus, clock, max_age_ns=HOUR // 2)
    await keeper.round()
    assert await held(bus) == [601, 602, 603, 604, 605]
    assert (bus.bounds.oldest, bus.bounds.newest) == (601, 605)
    assert (keeper.report().removed, keeper.report().taken) == (600, 0)
    with pytest.raises(PositionLost, match="the journal holds 601 to 605"):
        await bus.open_ephemeral(ALL, Start(after_sequence=10), 10, KEEP)


async def test_the_last_events_of_each_type_are_kept_and_nothing_else_is_touched(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    for _ in range(10):
        await bus.publish([make_event("a.b"), make_event("c.d")])
    clock.advance(1)
    keeper, _ = retention(bus, clock, max_events_of={"a.b": 2})
    await keeper.round()
    assert await held(bus) == [*range(2, 17, 2), 17, 18, 19, 20]
    reader = await bus.open_ephemeral(selection(["c.d"]), Start(after_sequence=1), 100, KEEP)
    assert await got(reader, 10) == list(range(2, 21, 2))
    with pytest.raises(PositionLost):
        await bus.open_ephemeral(selection(["a.*"]), Start(after_sequence=1), 100, KEEP)


async def test_size_is_kept_below_its_limit(bus: EventBus, make_event: MakeEvent, clock: ManualClock) -> None:
    for _ in range(20):
        await bus.publish([make_event(envelope=b"x" * 100)])
    clock.advance(1)
    keeper, _ = retention(bus, clock, max_bytes=1000)
    await keeper.round()
    assert await held(bus) == list(range(11, 21))


async def test_nothing_young_goes_so_that_a_repetition_is_noticed(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    event = make_event()
    await bus.publish([event])
    keeper, _ = retention(bus, clock, max_events=1, max_bytes=1, keep_ns=120 * 10**9)
    await bus.publish([make_event(), make_event()])
    clock.advance(100)
    await keeper.round()
    assert (await bus.publish([event])).duplicates == 1
    clock.advance(30)
    await keeper.round()
    assert 1 not in await held(bus)


async def test_a_clock_that_is_set_forward_makes_nothing_old_that_was_stored_just_now(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, _ = retention(bus, clock, max_events=1, keep_ns=120 * 10**9)
    event = make_event()
    await bus.publish([event, make_event()])
    real = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: real() + 5 * HOUR)
    clock.advance(10)
    await keeper.round()
    assert (await bus.publish([event])).duplicates == 1
    clock.advance(121)
    await keeper.round()
    assert await held(bus) == [2]


async def test_a_clock_that_was_set_forward_before_a_start_makes_nothing_old_either(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = make_event()
    await bus.publish([event, make_event()])
    real = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: real() + 5 * HOUR)
    keeper, _ = retention(bus, clock, max_events=1, keep_ns=120 * 10**9)
    clock.advance(100)
    await keeper.round()
    assert (await bus.publish([event])).duplicates == 1
    clock.advance(30)
    await keeper.round()
    assert await held(bus) == [2]


async def test_what_a_durable_consumer_has_not_acknowledged_is_kept_and_that_is_said(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    reader = await bus.open_durable(selection(["a.b"]), BEGINNING, 100, Durable("slow", "m"))
    await bus.publish([make_event("a.b" if n % 2 else "c.d", f"S{n}") for n in range(10)])
    assert await got(reader, 5) == [2, 4, 6, 8, 10]
    reader.ack([2, 4, 8])
    clock.advance(7_200)
    keeper, conditions = retention(bus, clock, max_age_ns=HOUR)
    await keeper.round()
    assert await held(bus) == [6, 8, 10]
    assert keeper.report().held_back_by == ("slow",)
    assert "slow" in conditions.held()[module.HELD_BACK]
    reader.ack([6, 10])
    await keeper.round()
    assert await held(bus) == []
    assert not conditions.held()
    assert bus.bounds.newest == 10
    assert (await bus.publish([make_event()])).sequences == (11,)


async def test_beyond_the_hard_limit_a_consumer_loses_events_and_is_told_exactly(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    reader = await bus.open_durable(selection(["a.b"]), BEGINNING, 1, Durable("slow", "m"))
    await bus.publish([make_event("a.b") for _ in range(6)] + [make_event("c.d")])
    assert await got(reader, 1) == [1]
    clock.advance(7_200)
    await bus.publish([make_event("a.b")])
    keeper, conditions = retention(bus, clock, max_age_ns=HOUR // 2, unacked_max_age_ns=HOUR)
    await keeper.round()
    assert keeper.report().taken == 6
    assert conditions.held()[module.TAKEN].endswith("slow 6 events up to 6")
    output = await reader.next_output(5)
    assert output is not None
    assert output.gap == Gap(1, 6, 6, GapCause.RETENTION)
    reader.ack([1])  # late: it was handled, and is gone
    reader.grant(5)
    assert await got(reader, 1) == [8]
    reader.ack([8])
    await keeper.round()
    assert not conditions.held()
    assert bus.consumers["slow"].machine.lost_count == 6


async def test_a_consumer_that_was_away_is_told_when_it_comes_back_even_after_a_restart(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    clock = ManualClock()

    async def life(work: Callable[[EventBus], object]) -> None:
        async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, clock)
            await engine.start()
            async with EventBus(engine, clock) as bus:
                await work(bus)  # type: ignore[misc] # an async function

    async def lose(bus: EventBus) -> None:
        reader = await bus.open_durable(ALL, BEGINNING, 1, Durable("c", "m"))
        bus.close_reader(reader, clean=True)
        await bus.publish([make_event() for _ in range(5)])
        clock.advance(7_200)
        keeper, _ = retention(bus, clock, unacked_max_age_ns=HOUR)
        await keeper.round()

    async def told(bus: EventBus) -> None:
        reader = await bus.open_durable(ALL, BEGINNING, 10, Durable("c", "m"))
        output = await reader.next_output(5)
        assert output is not None
        assert output.gap == Gap(1, 5, 5, GapCause.RETENTION)
        bus.close_reader(reader, clean=True)

    async def told_again_until_it_goes_on(bus: EventBus) -> None:
        await told(bus)
        reader = await bus.open_durable(ALL, BEGINNING, 10, Durable("c", "m"))
        await bus.publish([make_event()])
        assert await got(reader, 1) == [6]
        reader.ack([6])

    async def no_more(bus: EventBus) -> None:
        reader = await bus.open_durable(ALL, BEGINNING, 10, Durable("c", "m"))
        assert await reader.next_output(0.02) is None
        assert bus.consumers["c"].machine.lost_count == 5

    for part in (lose, told, told_again_until_it_goes_on, no_more):
        await life(part)


async def test_a_crash_between_removal_and_its_note_is_found_at_the_next_start(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    clock = ManualClock()
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        bus = EventBus(engine, clock)
        await bus.open_durable(ALL, BEGINNING, 1, Durable("c", "m"))
        await bus.publish([make_event("a.b") for _ in range(5)])
        await engine.trim({"a.b": 3}, 100)
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        async with EventBus(engine, clock) as bus:
            reader = await bus.open_durable(ALL, BEGINNING, 10, Durable("c", "m"))
            output = await reader.next_output(5)
            assert output is not None
            assert output.gap == Gap(1, 3, 0, GapCause.RETENTION)
            assert await got(reader, 2) == [4, 5]


async def test_a_dead_letter_is_on_disk_before_its_event_goes(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    reader = await bus.open_durable(ALL, BEGINNING, 100, Durable("c", "m", max_attempts=1))
    await bus.publish([make_event(), make_event(subject="other")])
    assert await got(reader, 2) == [1, 2]
    clock.advance(1)
    reader.nack(1, "it failed", None)
    keeper, _ = retention(bus, clock, max_events=1)
    await keeper.round()
    assert await held(bus) == [2]
    (state,) = await bus.engine.load_consumers()
    assert [sequence for sequence, _ in state.unsettled] == [2]
    ((_, letter),) = await bus.engine.list_dead_letters(DeadLetterQuery())
    assert (letter.event.sequence, letter.failures[0].error) == (1, "it failed")


async def test_nothing_goes_while_what_consumers_settled_cannot_be_written(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await bus.open_durable(ALL, BEGINNING, 100, Durable("c", "m"))
    await bus.publish([make_event(), make_event()])
    assert await got(reader, 2) == [1, 2]

    async def refuse(change: Change) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(bus.engine, "save", refuse)
    clock.advance(1)
    reader.ack([1, 2])
    keeper, _ = retention(bus, clock, max_events=1)
    await keeper.round()
    assert await held(bus) == [1, 2]
    monkeypatch.undo()
    await keeper.round()
    assert await held(bus) == [2]


async def test_an_ephemeral_reader_is_told_exactly_what_went_before_it_came_there(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    reader = await bus.open_ephemeral(selection(["a.b"]), BEGINNING, 2, KEEP)
    await bus.publish([make_event("a.b" if n % 2 else "c.d") for n in range(20)])
    assert await got(reader, 2) == [2, 4]
    clock.advance(7_200)
    keeper, _ = retention(bus, clock, max_events=3)
    await keeper.round()
    reader.grant(100)
    output = await reader.next_output(5)
    assert output is not None
    assert output.gap == Gap(6, 14, 5, GapCause.RETENTION)
    assert await got(reader, 3) == [16, 18, 20]


async def test_readers_and_removal_together_account_for_every_event(
    bus: EventBus, engine: SqliteEngine, make_event: MakeEvent, clock: ManualClock
) -> None:
    """Every matching event is delivered or counted in a gap, whatever the order in which reads and removals meet."""
    await bus.publish([make_event(f"a.t{n % 3}", f"S{n % 7}") for n in range(900)])
    clock.advance(7_200)
    readers = [await bus.open_ephemeral(ALL, BEGINNING, 100_000, KEEP) for _ in range(3)]
    engine._recent.clear()

    async def read_all(reader: Reader) -> tuple[list[int], int]:
        seen: list[int] = []
        skipped = 0
        while (output := await reader.next_output(0.3)) is not None:
            seen += [each.event.sequence for each in output.events]
            skipped += output.gap.skipped if output.gap else 0
        return seen, skipped

    async def remove() -> None:
        keeper, _ = retention(bus, clock, max_events=60)
        await keeper.round()

    *results, _ = await asyncio.gather(*(read_all(reader) for reader in readers), remove())
    for result in results:
        assert result is not None
        seen, skipped = result
        assert seen == sorted(set(seen))
        assert len(seen) + skipped == 900


async def test_the_newest_of_each_subject_and_expectations_follow_what_is_held(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    await bus.publish([make_event(subject="NQ"), make_event(subject="ES")])
    clock.advance(7_200)
    await bus.publish([make_event(subject="ES")])
    keeper, _ = retention(bus, clock, max_age_ns=HOUR)
    await keeper.round()
    reader = await bus.open_ephemeral(ALL, Start(latest_per_subject=True), 10, KEEP)
    assert await got(reader, 1) == [3]
    assert (await bus.publish([make_event(subject="NQ")], {"NQ": 0})).sequences == (4,)


async def test_a_journal_whose_newest_events_were_removed_opens(tmp_path: Path, make_event: MakeEvent) -> None:
    clock = ManualClock()
    for sequences in ((1, 2), (3, 4)):
        async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, clock)
            await engine.start()
            assert engine.bounds.oldest == sequences[0]
            appended: Sequence[int] = (await engine.append([make_event(), make_event()])).sequences
            assert appended == sequences
            await engine.trim({"trade.executed": sequences[1]}, 10)
            assert engine.bounds.oldest == sequences[1] + 1
