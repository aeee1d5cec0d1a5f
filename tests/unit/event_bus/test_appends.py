"""Batches that are stored in one transaction are judged each for itself, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import eventually

from minhos_mesh.event_bus.domain.errors import EventConflict, SequenceMismatch
from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import Appended, NewEvent
from minhos_mesh.event_bus.engines import sqlite_appends, sqlite_journal
from minhos_mesh.event_bus.engines.sqlite import SqliteEngine
from minhos_mesh.runtime.storage import StorageError

MakeEvent = Callable[..., NewEvent]


async def at_once(engine: SqliteEngine, *batches: Any) -> list[Any]:
    """What became of batches that all wait when the writer comes; a pair has its expectation."""
    calls = [engine.append(*batch) if isinstance(batch, tuple) else engine.append(batch) for batch in batches]
    async with asyncio.timeout(10):
        return await asyncio.gather(*calls, return_exceptions=True)


async def test_batches_at_once_share_a_commit_and_keep_their_order(engine: SqliteEngine, make_event: MakeEvent) -> None:
    before = engine._database.counters.commits
    found = await at_once(engine, *([make_event()] for _ in range(100)))
    assert [each.sequences for each in found] == [(number,) for number in range(1, 101)]
    assert engine._database.counters.commits - before <= 2


async def test_a_refused_batch_leaves_no_hole_among_its_neighbours(engine: SqliteEngine, make_event: MakeEvent) -> None:
    known = make_event()
    other = NewEvent(known.event_id, known.type, known.subject, known.source, "", b"other")
    first, second, third = [make_event(), known], [make_event(), other, make_event()], [make_event()]
    found = await at_once(engine, first, second, third)
    assert (found[0], found[2]) == (Appended((1, 2), 0), Appended((3,), 0))
    assert isinstance(found[1], EventConflict)
    assert [(each.index, each.sequence) for each in found[1].conflicts] == [(1, 2)]
    assert len((await engine.read(0, ALL, 10)).events) == 3


async def test_an_event_of_a_refused_batch_may_come_in_a_later_one(engine: SqliteEngine, make_event: MakeEvent) -> None:
    known, fresh = make_event(), make_event()
    other = NewEvent(known.event_id, known.type, known.subject, known.source, "", b"other")
    found = await at_once(engine, [known], [fresh, other], [fresh])
    assert isinstance(found[1], EventConflict)
    assert found[2] == Appended((2,), 0)


async def test_an_id_twice_at_once_is_stored_once(engine: SqliteEngine, make_event: MakeEvent) -> None:
    event = make_event()
    assert await at_once(engine, [event], [event, event]) == [Appended((1,), 0), Appended((1, 1), 2)]


async def test_an_expectation_sees_what_waits_before_it_and_not_what_waits_behind(
    engine: SqliteEngine, make_event: MakeEvent
) -> None:
    found = await at_once(
        engine,
        [make_event(subject="A")],
        ([make_event(subject="A")], {"A": 1}),
        ([make_event(subject="A")], {"A": 1}),
        [make_event(subject="A")],
        ([make_event(subject="A")], {"A": 3}),
    )
    assert isinstance(found[2], SequenceMismatch)
    assert [each.sequences for each in found if isinstance(each, Appended)] == [(1,), (2,), (3,), (4,)]


async def test_what_the_disk_refuses_is_refused_for_everyone_and_the_next_goes_on(
    engine: SqliteEngine, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("full")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite_journal, "_insert", full)
        found = await at_once(engine, [make_event()], [make_event()])
    assert [str(each) for each in found] == ["full", "full"]
    assert await at_once(engine, [make_event()]) == [Appended((1,), 0)]


async def test_more_than_a_transaction_takes_is_stored_in_several(
    engine: SqliteEngine, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_appends, "TOGETHER", 3)
    found = await at_once(engine, *([make_event(), make_event()] for _ in range(20)))
    assert [each.sequences for each in found] == [(n, n + 1) for n in range(1, 40, 2)]


async def test_a_publisher_that_gives_up_holds_up_nobody(engine: SqliteEngine, make_event: MakeEvent) -> None:
    calls = [asyncio.create_task(engine.append([make_event()])) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [Appended((2,), 0), Appended((3,), 0)]


async def test_an_id_that_is_stored_is_found_among_many_that_are_new(
    engine: SqliteEngine, make_event: MakeEvent
) -> None:
    known = make_event()
    await engine.append([known])
    many = [make_event() for _ in range(300)]
    found = await at_once(engine, many[:150], [*many[150:], known], [make_event()])
    assert found[0].sequences == tuple(range(2, 152))
    assert (found[1].sequences[-1], found[1].duplicates) == (1, 1)
    assert found[2].sequences == (302,)
    assert [event.sequence for event in (await engine.read(0, ALL, 1000)).events] == list(range(1, 303))


async def test_who_comes_when_a_failure_is_known_is_not_refused_for_it(
    engine: SqliteEngine, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("full")

    told: list[Appended | Exception] = []

    def first(outcome: Appended | Exception) -> None:
        told.append(outcome)
        monkeypatch.undo()

    monkeypatch.setattr(sqlite_journal, "_insert", full)
    engine.submit([make_event()], {}, first)
    while engine._appends._waiting:
        await asyncio.sleep(0)
    engine.submit([make_event()], {}, told.append)
    await eventually(lambda: len(told) == 2, "both have their answer")
    assert str(told[0]) == "full"
    # The second came before the failure was known, or behind it.
    stored = int(isinstance(told[1], Appended))
    assert stored or str(told[1]) == "full"
    assert (await engine.append([make_event()])).sequences == (1 + stored,)
