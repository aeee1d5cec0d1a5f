"""What every engine promises; each engine runs through all of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from minhos_mesh.event_bus.domain.patterns import ALL, selection
from minhos_mesh.event_bus.domain.records import (
    Bounds,
    ConsumerState,
    DeadLetter,
    EventQuery,
    Failure,
    NewEvent,
    StoredEvent,
)
from minhos_mesh.event_bus.engines import sqlite
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import Database, StorageCorrupt

MakeEvent = Callable[..., NewEvent]


async def test_sequences_are_contiguous_from_one(engine: SqliteEngine, make_event: MakeEvent) -> None:
    assert engine.bounds == Bounds(1, 0)
    assert (await engine.append([make_event(), make_event()])).sequences == (1, 2)
    assert (await engine.append([make_event()])).sequences == (3,)
    assert engine.bounds == Bounds(1, 3)


async def test_the_same_id_gives_the_first_sequence_in_one_batch_and_across(
    engine: SqliteEngine, make_event: MakeEvent
) -> None:
    one, two = make_event(), make_event()
    appended = await engine.append([one, one, two])
    assert (appended.sequences, appended.duplicates) == ((1, 1, 2), 1)
    appended = await engine.append([two, make_event(), one])
    assert (appended.sequences, appended.duplicates) == ((2, 3, 1), 2)
    assert engine.bounds.newest == 3


async def test_concurrent_appends_never_share_or_skip_a_sequence(engine: SqliteEngine, make_event: MakeEvent) -> None:
    appended = await asyncio.gather(*(engine.append([make_event() for _ in range(3)]) for _ in range(100)))
    assert sorted(sequence for item in appended for sequence in item.sequences) == list(range(1, 301))
    recent = engine.recent(0, 1000)
    assert recent is not None
    assert [event.sequence for event in recent] == list(range(1, 301))


async def test_large_batches_are_stored_whole(engine: SqliteEngine, make_event: MakeEvent) -> None:
    assert (await engine.append([make_event() for _ in range(1000)])).sequences == tuple(range(1, 1001))
    assert len((await engine.read(0, ALL, 2000)).events) == 1000


async def test_a_cancelled_publisher_leaves_no_hole_for_readers(engine: SqliteEngine, make_event: MakeEvent) -> None:
    task = asyncio.create_task(engine.append([make_event()]))
    await asyncio.sleep(0)
    task.cancel()
    await engine.append([make_event()])
    recent = engine.recent(0, 10)
    assert recent is not None
    assert [event.sequence for event in recent] == [1, 2]


async def test_listeners_hear_of_events_that_can_be_read(engine: SqliteEngine, make_event: MakeEvent) -> None:
    heard: list[int] = []
    engine.on_append(lambda: heard.append(engine.bounds.newest))
    await engine.append([make_event(), make_event()])
    assert heard == [2]


async def test_reading_filters_and_says_how_far_it_looked(engine: SqliteEngine, make_event: MakeEvent) -> None:
    types = ["trade.executed", "order.updated", "trade.executed.late", "trade.executed", "order.updated"]
    await engine.append([make_event(event_type, f"S{index}") for index, event_type in enumerate(types)])
    page = await engine.read(0, selection(["trade.*"]), 10)
    assert ([event.sequence for event in page.events], page.through) == ([1, 4], 5)
    page = await engine.read(0, selection(["trade.>"]), 2)
    assert ([event.sequence for event in page.events], page.through) == ([1, 3], 3)
    page = await engine.read(3, selection(["order.*"], "S4"), 10)
    assert ([event.sequence for event in page.events], page.through) == ([5], 5)
    assert await engine.count(1, selection(["trade.*"])) == 1
    assert await engine.count(0, selection(["trade.>"])) == 3


async def test_a_scan_is_bounded_and_goes_on(
    engine: SqliteEngine, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCAN_LIMIT", 10)
    await engine.append([make_event() for _ in range(25)] + [make_event("order.updated")])
    page = await engine.read(0, selection(["order.updated"]), 5)
    assert (page.events, page.through) == ((), 10)
    page = await engine.read(20, selection(["order.updated"]), 5)
    assert ([event.sequence for event in page.events], page.through) == ([26], 26)


async def test_listing_takes_every_filter(engine: SqliteEngine, make_event: MakeEvent, clock: ManualClock) -> None:
    start = clock.wall_ns()
    await engine.append([make_event(source="a", correlation_id="x")])
    clock.advance(1)
    await engine.append([make_event(source="b", correlation_id="x"), make_event(source="a")])
    second = clock.wall_ns()

    async def listed(query: EventQuery) -> list[int]:
        return [event.sequence for event in (await engine.list_events(query)).events]

    assert await listed(EventQuery()) == [3, 2, 1]
    assert await listed(EventQuery(ascending=True, limit=2)) == [1, 2]
    assert await listed(EventQuery(source="a")) == [3, 1]
    assert await listed(EventQuery(correlation_id="x")) == [2, 1]
    assert await listed(EventQuery(after_sequence=1, before_sequence=3)) == [2]
    assert await listed(EventQuery(since_ns=second)) == [3, 2]
    assert await listed(EventQuery(since_ns=start, before_ns=second)) == [1]


async def test_a_time_leads_to_the_first_event_stored_then(
    engine: SqliteEngine, make_event: MakeEvent, clock: ManualClock
) -> None:
    start = clock.wall_ns()
    assert await engine.first_stored_at(start) == 1
    for _ in range(9):
        await engine.append([make_event()])
        clock.advance(1)
    assert await engine.first_stored_at(start) == 1
    assert await engine.first_stored_at(start + 3_000_000_000) == 4
    assert await engine.first_stored_at(start + 3_000_000_001) == 5
    assert await engine.first_stored_at(start + 100_000_000_000) == 10


async def test_store_times_never_go_back(tmp_path: Path, make_event: MakeEvent) -> None:
    later, earlier = ManualClock(wall_ns=2_000), ManualClock(wall_ns=1_000)
    times: list[int] = []
    for clock in (later, earlier):
        async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, clock)
            await engine.start()
            await engine.append([make_event()])
            times = [event.store_time_ns for event in (await engine.read(0, ALL, 10)).events]
    assert times == [2_000, 2_000]


async def test_counts_per_type_survive_reopening(tmp_path: Path, make_event: MakeEvent, clock: ManualClock) -> None:
    for newest in (0, 3):
        async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, clock)
            await engine.start()
            assert engine.bounds == Bounds(1, newest)
            await engine.append([make_event("a.b"), make_event("a.b"), make_event("c.d")])
            found = {count.type: (count.published, count.newest_ns) for count in await engine.type_counts()}
            assert found["a.b"] == ((newest + 3) * 2 // 3, clock.wall_ns())


async def test_memory_holds_only_the_newest(
    engine: SqliteEngine, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RECENT_EVENTS", 10)
    for _ in range(25):
        await engine.append([make_event()])
    assert engine.recent(0, 5) is None
    recent = engine.recent(20, 3)
    assert recent is not None
    assert [event.sequence for event in recent] == [21, 22, 23]
    assert engine.recent(25, 3) == ()
    assert [event.sequence for event in await engine.fetch([2, 99, 1])] == [1, 2]


async def test_consumers_and_dead_letters_are_remembered(tmp_path: Path, clock: ManualClock) -> None:
    failure = Failure(5, "m", "broken")
    state = ConsumerState("c", selection(["a.*"], "NQ"), 3, 30, 17, ((4, ()), (9, (failure,))), 2, 1)
    letter = DeadLetter("c", StoredEvent(3, "a.b", "NQ", 1, b"bytes"), (failure, failure), 99)
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.save_consumers([state], [letter])
        await engine.save_consumers([state], [letter])
    async with Database(tmp_path / "a.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        assert await engine.load_consumers() == [state]
        assert await engine.list_dead_letters("c", 0, 10) == [(1, letter)]
        assert await engine.list_dead_letters("other", 0, 10) == []
        assert await engine.list_dead_letters(None, 1, 10) == []


async def test_a_changed_event_is_never_served_as_good(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock
) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.append([make_event(), make_event()])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE event SET envelope = x'00' WHERE sequence = 2")
    connection.close()
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        with pytest.raises(StorageCorrupt, match="event 2"):
            await engine.read(0, ALL, 10)


async def test_a_journal_without_its_end_is_not_opened(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock
) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        await SqliteEngine(database, clock).append([make_event(), make_event()])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM event WHERE sequence = 2")
    connection.close()
    async with Database(path, migrations=MIGRATIONS) as database:
        with pytest.raises(StorageCorrupt, match="head is 2, its newest event 1"):
            await SqliteEngine(database, clock).start()
