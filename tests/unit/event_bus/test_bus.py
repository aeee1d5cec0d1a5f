"""What readers of the bus get: from where they asked, in order, told what they miss, going on after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import eventually

from minhos_mesh.event_bus import consumers
from minhos_mesh.event_bus.domain.errors import ConsumerConflict, PositionLost
from minhos_mesh.event_bus.domain.latest import Gap
from minhos_mesh.event_bus.domain.patterns import ALL, selection
from minhos_mesh.event_bus.domain.records import Change, ConsumerState, DeadLetterQuery, EventQuery, NewEvent
from minhos_mesh.event_bus.engines import sqlite
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.readers import Reader, SlowReaderPolicy
from minhos_mesh.event_bus.reports import RetentionReport, stats
from minhos_mesh.event_bus.service import CONSUMERS_AHEAD, Durable, EventBus, Start
from minhos_mesh.runtime.clock import ManualClock, SystemClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.storage import Database

MakeEvent = Callable[..., NewEvent]
KEEP = SlowReaderPolicy.KEEP_ALL_WITH_GAP
LATEST = SlowReaderPolicy.LATEST_PER_SUBJECT
BEGINNING = Start(beginning=True)


async def got(reader: Reader, count: int) -> list[int]:
    """The sequences of the next events, as many as asked for."""
    sequences: list[int] = []
    while len(sequences) < count:
        output = await reader.next_output(5)
        assert output is not None, f"only {sequences} came"
        sequences += [each.event.sequence for each in output.events]
    return sequences


async def nothing(reader: Reader) -> bool:
    return await reader.next_output(0.02) is None


async def test_a_reader_from_now_gets_what_comes(bus: EventBus, make_event: MakeEvent) -> None:
    await bus.publish([make_event()])
    reader = await bus.open_ephemeral(ALL, Start(), 10, KEEP)
    assert (reader.after_sequence, reader.newest_sequence) == (1, 1)
    assert await nothing(reader)
    await bus.publish([make_event(), make_event()])
    assert await got(reader, 2) == [2, 3]


async def test_a_reader_may_begin_anywhere(bus: EventBus, make_event: MakeEvent, clock: ManualClock) -> None:
    await bus.publish([make_event(), make_event()])
    clock.advance(1)
    await bus.publish([make_event()])
    for start, expected in (
        (BEGINNING, [1, 2, 3]),
        (Start(after_sequence=1), [2, 3]),
        (Start(time_ns=clock.wall_ns()), [3]),
    ):
        reader = await bus.open_ephemeral(ALL, start, 10, KEEP)
        assert await got(reader, len(expected)) == expected
        assert await nothing(reader)


async def test_a_start_that_the_journal_does_not_hold_is_refused(bus: EventBus, make_event: MakeEvent) -> None:
    await bus.publish([make_event()])
    with pytest.raises(PositionLost, match="is 7: the journal holds 1 to 1"):
        await bus.open_ephemeral(ALL, Start(after_sequence=7), 10, KEEP)


async def test_credit_bounds_an_ephemeral_reader(bus: EventBus, make_event: MakeEvent) -> None:
    reader = await bus.open_ephemeral(ALL, BEGINNING, 2, KEEP)
    await bus.publish([make_event() for _ in range(5)])
    assert await got(reader, 2) == [1, 2]
    assert await nothing(reader)
    reader.grant(2)
    assert await got(reader, 2) == [3, 4]


async def test_a_reader_gets_only_what_it_asked_for(bus: EventBus, make_event: MakeEvent) -> None:
    reader = await bus.open_ephemeral(selection(["trade.*"], "ES"), BEGINNING, 10, KEEP)
    await bus.publish([make_event(), make_event("order.updated", "ES"), make_event("trade.executed", "ES")])
    assert await got(reader, 1) == [3]
    assert await nothing(reader)


async def test_a_slow_reader_of_the_newest_is_told_what_it_missed(bus: EventBus, make_event: MakeEvent) -> None:
    reader = await bus.open_ephemeral(ALL, Start(), 1, LATEST)
    await bus.publish([make_event() for _ in range(100)] + [make_event(subject="ES")])
    output = await reader.next_output(5)
    assert output is not None
    assert ([each.event.sequence for each in output.events], output.gap) == ([100], Gap(1, 99, 99))
    reader.grant(5)
    assert await got(reader, 1) == [101]


async def test_reading_goes_from_disk_to_memory_without_a_seam(
    bus: EventBus, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RECENT_EVENTS", 50)
    for _ in range(10):
        await bus.publish([make_event(subject=f"S{n}") for n in range(30)])
    reader = await bus.open_ephemeral(ALL, BEGINNING, 10_000, KEEP)
    durable = await bus.open_durable(ALL, BEGINNING, 10_000, Durable("c", "m"))
    assert await got(reader, 300) == list(range(1, 301))
    remaining = set(range(1, 301))
    while remaining:
        output = await durable.next_output(5)
        assert output is not None
        sequences = [each.event.sequence for each in output.events]
        durable.ack(sequences)
        remaining -= set(sequences)


async def test_a_large_backlog_comes_in_bounded_messages(bus: EventBus, make_event: MakeEvent) -> None:
    await bus.publish([make_event(envelope=b"x" * 200_000) for _ in range(6)])
    reader = await bus.open_ephemeral(ALL, BEGINNING, 100, KEEP)
    output = await reader.next_output(5)
    assert output is not None
    assert [each.event.sequence for each in output.events] == [1, 2]
    assert await got(reader, 4) == [3, 4, 5, 6]


async def test_a_durable_reader_goes_on_where_it_was(tmp_path: Path, make_event: MakeEvent) -> None:
    async def run(expected: list[int], acked: list[int], publish: int) -> None:
        async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, SystemClock())
            await engine.start()
            async with EventBus(engine, SystemClock()) as bus:
                reader = await bus.open_durable(selection(["trade.*"]), Start(), 100, Durable("c", "m"))
                await bus.publish([make_event(subject=f"S{n}") for n in range(publish)])
                assert sorted(await got(reader, len(expected))) == expected
                reader.ack(acked)
                bus.close_reader(reader, clean=True)

    await run([1, 2, 3], [1, 3], 3)
    await run([2, 4], [], 1)
    await run([2, 4], [2, 4], 0)
    await run([5], [5], 1)


async def test_a_new_durable_reader_loses_nothing_between_opening_and_a_restart(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    clock = SystemClock()
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        await EventBus(engine, clock).open_durable(ALL, Start(), 1, Durable("c", "m"))
        await engine.append([make_event()])
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        async with EventBus(engine, clock) as bus:
            reader = await bus.open_durable(ALL, Start(), 1, Durable("c", "m"))
            assert await got(reader, 1) == [1]


async def test_a_failing_event_is_tried_again_and_ends_as_a_dead_letter(
    engine: SqliteEngine, make_event: MakeEvent
) -> None:
    async with EventBus(engine, SystemClock()) as bus:
        reader = await bus.open_durable(ALL, Start(), 100, Durable("c", "m", max_attempts=2))
        await bus.publish([make_event(), make_event()])
        assert await got(reader, 2) == [1, 2]
        reader.nack(1, "first", None)
        output = await reader.next_output(5)
        assert output is not None
        assert [(each.event.sequence, each.attempt) for each in output.events] == [(1, 2), (2, 1)]
        reader.nack(1, "second", None)
        assert await got(reader, 1) == [2]
        reader.ack([2])
        told = await stats(bus, RetentionReport())
        assert (told.failed, told.consumers[0].dead_letters, told.consumers[0].lag) == (2, 1, 0)
    ((_, letter),) = await engine.list_dead_letters(DeadLetterQuery(consumer="c"))
    assert [failure.error for failure in letter.failures] == ["first", "second"]


async def test_a_dead_letter_by_a_deadline_that_a_commit_notices_is_written_down(
    bus: EventBus, make_event: MakeEvent, clock: ManualClock
) -> None:
    durable = Durable("c", "m", max_attempts=1, ack_deadline_ns=10**9)
    reader = await bus.open_durable(ALL, Start(), 100, durable)
    await bus.publish([make_event()])
    assert await reader.next_output(5) is not None
    clock.advance(2)
    await bus.publish([make_event(subject="other")])
    assert await bus.memory.flush()
    ((_, letter),) = await bus.engine.list_dead_letters(DeadLetterQuery())
    assert letter.failures[0].error == "no answer within 1 s"


async def test_other_patterns_are_refused_and_taken_over_on_demand_while_nobody_reads(
    bus: EventBus, make_event: MakeEvent
) -> None:
    reader = await bus.open_durable(selection(["trade.*"]), Start(), 10, Durable("c", "m"))
    await bus.publish([make_event()])
    with pytest.raises(ConsumerConflict, match=r"open with other patterns: trade\.\*"):
        await bus.open_durable(selection(["order.*"]), Start(), 10, Durable("c", "n", replace_selection=True))
    with pytest.raises(ConsumerConflict, match="connected already"):
        await bus.open_durable(selection(["trade.*"]), Start(), 10, Durable("c", "m"))
    bus.close_reader(reader, clean=False)
    with pytest.raises(ConsumerConflict, match=r"remembered with other patterns: trade\.\*"):
        await bus.open_durable(selection(["order.*"]), Start(), 10, Durable("c", "n"))
    with pytest.raises(ConsumerConflict, match="remembered with other patterns"):
        await bus.open_durable(selection(["trade.*"], "NQ"), Start(), 10, Durable("c", "n"))
    reader = await bus.open_durable(selection(["order.*"]), Start(), 10, Durable("c", "n", replace_selection=True))
    await bus.publish([make_event("order.updated")])
    assert await got(reader, 1) == [2]


async def test_two_members_share_and_a_vanished_ones_work_goes_to_the_other(
    engine: SqliteEngine, make_event: MakeEvent
) -> None:
    async with EventBus(engine, SystemClock()) as bus:
        one = await bus.open_durable(ALL, Start(), 100, Durable("c", "one"))
        two = await bus.open_durable(ALL, Start(), 100, Durable("c", "two"))
        await bus.publish([make_event(subject=f"S{n}") for n in range(10)])
        first, second = await got(one, 5), await got(two, 5)
        assert sorted(first + second) == list(range(1, 11))
        two.ack(second)
        bus.close_reader(one, clean=False)
        assert sorted(await got(two, 5)) == sorted(first)


async def test_a_dead_letter_is_kept_though_the_next_member_comes_at_once(
    bus: EventBus, engine: SqliteEngine, make_event: MakeEvent
) -> None:
    reader = await bus.open_durable(ALL, Start(), 10, Durable("c", "one", max_attempts=1))
    await bus.publish([make_event()])
    assert await got(reader, 1) == [1]
    reader.nack(1, "broken", None)
    bus.close_reader(reader, clean=True)
    await bus.open_durable(ALL, Start(), 10, Durable("c", "two", max_attempts=1))
    told = await stats(bus, RetentionReport())
    assert (told.failed, told.consumers[0].dead_letters) == (1, 1)
    async with asyncio.timeout(5):
        while [
            letter.event.sequence for _, letter in await engine.list_dead_letters(DeadLetterQuery(consumer="c"))
        ] != [1]:
            await asyncio.sleep(0.005)


async def test_lag_counts_what_was_not_read_yet(bus: EventBus, make_event: MakeEvent) -> None:
    reader = await bus.open_durable(selection(["trade.*"]), Start(), 1, Durable("c", "m"))
    bus.close_reader(reader, clean=True)
    await bus.publish([make_event("order.updated"), make_event(), make_event()])
    (report,) = (await stats(bus, RetentionReport())).consumers
    assert (report.lag, report.members, report.in_flight) == (2, (), 0)
    assert report.oldest is not None
    assert report.oldest.sequence == 2


@pytest.mark.parametrize("ascending", [True, False])
async def test_pages_cover_all_events_once(bus: EventBus, make_event: MakeEvent, ascending: bool) -> None:
    await bus.publish([make_event("a.b" if n % 3 else "c.d") for n in range(50)])
    query = EventQuery(selection=selection(["a.*"]), ascending=ascending, limit=7)
    seen: list[int] = []
    while True:
        events, position = await bus.list_events(query)
        seen += [event.sequence for event in events]
        if position is None:
            break
        after, before = (position, None) if ascending else (0, position)
        query = EventQuery(query.selection, after_sequence=after, before_sequence=before, ascending=ascending, limit=7)
    expected = [n + 1 for n in range(50) if n % 3]
    assert seen == (expected if ascending else expected[::-1])


async def test_a_consumer_ahead_of_a_journal_that_lost_its_end_goes_back_and_is_told(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    conditions = Conditions()
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, SystemClock())
        await engine.start()
        await engine.append([make_event(), make_event()])
        await engine.save(Change(consumers=[ConsumerState("c", ALL, 3, 10**9, 7, ((2, ()), (6, ())))]))
        async with EventBus(engine, SystemClock(), conditions) as bus:
            assert "ends with event 2, but c had 7" in conditions.held()[CONSUMERS_AHEAD]
            reader = await bus.open_durable(ALL, Start(), 10, Durable("c", "m"))
            output = await reader.next_output(5)
            assert output is not None
            assert output.gap is not None
            assert (output.gap.first, output.gap.last) == (3, 7)
            await bus.publish([make_event()])
            assert await got(reader, 1) == [2]
            reader.ack([2])
            assert await got(reader, 1) == [3]


@pytest.mark.parametrize("ascending", [True, False])
async def test_pages_go_on_while_the_journal_forgets_and_give_nothing_twice(
    bus: EventBus, make_event: MakeEvent, ascending: bool
) -> None:
    await bus.publish([make_event() for _ in range(30)])
    seen: list[int] = []
    position: int | None = 0 if ascending else 31
    while position is not None:
        if len(seen) == 5:
            await bus.engine.trim({"trade.executed": 14}, 100)
            await bus.publish([make_event()])
        after, before = (position, None) if ascending else (0, position)
        query = EventQuery(after_sequence=after, before_sequence=before, ascending=ascending, limit=5)
        page, position = await bus.list_events(query)
        seen += [event.sequence for event in page]
    assert seen == sorted(set(seen), reverse=not ascending)
    assert set(range(15, 31)) <= set(seen)


@pytest.mark.parametrize("policy", [KEEP, LATEST])
async def test_a_reader_whose_credit_is_used_up_is_left_alone_until_it_has_more(
    bus: EventBus, make_event: MakeEvent, policy: SlowReaderPolicy
) -> None:
    reader = await bus.open_ephemeral(ALL, BEGINNING, 1, policy)
    await bus.publish([make_event()])
    assert await got(reader, 1) == [1]
    (stuck,) = bus.readers
    waiting = asyncio.create_task(reader.next_output(60))
    await asyncio.sleep(0)
    for _ in range(3):
        await bus.publish([make_event()])
    assert not stuck.wakeup.is_set()
    assert not waiting.done()
    reader.grant(10)
    output = await asyncio.wait_for(waiting, 5)
    assert output is not None
    assert [each.event.sequence for each in output.events] == ([2, 3, 4] if policy is KEEP else [4])


async def test_a_durable_reader_that_is_stuck_sets_no_timer_for_each_event(
    bus: EventBus, make_event: MakeEvent
) -> None:
    reader = await bus.open_durable(ALL, BEGINNING, 1, Durable("c", "one"))
    await bus.publish([make_event()])
    await got(reader, 1)
    timer = bus.consumers["c"]._timer
    assert timer is not None
    for _ in range(3):
        await bus.publish([make_event()])
    assert bus.consumers["c"]._timer is timer


async def test_what_is_acknowledged_while_that_is_written_is_written_soon_behind_it(
    bus: EventBus, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "RETRY_DELAY_S", 600)
    reader = await bus.open_durable(ALL, BEGINNING, 10, Durable("c", "one"))
    await bus.publish([make_event(), make_event()])
    assert await got(reader, 2) == [1, 2]
    reader.ack([1])
    writing = asyncio.create_task(bus.memory.flush())
    await asyncio.sleep(0)
    reader.ack([2])
    await writing

    async def is_written() -> bool:
        (state,) = await bus.engine.load_consumers()
        return not state.unsettled

    await eventually(is_written, "the second acknowledgement is on disk")
