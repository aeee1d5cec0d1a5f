"""What the bus does when its disk is full: it says so, keeps the order of what it stores, and goes on when there is room."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.waiting import eventually

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.event_bus.domain.errors import EventConflict
from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import Appended, NewEvent
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.engines.sqlite_watch import DAMAGED, FULL, WatchedDatabase
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.event_bus.sessions import PublishSession
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.event_envelope import make_event as make_pb
from minhos_mesh.runtime.storage import StorageCorrupt, StorageError, StorageFull

MakeEvent = Callable[..., NewEvent]
LARGE = b"e" * 500_000


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
async def small(tmp_path: Path, conditions: Conditions) -> AsyncIterator[WatchedDatabase]:
    """A store whose file has room for about 200 kB more, and which commits each write by itself."""
    async with WatchedDatabase(tmp_path / "bus.db", conditions, migrations=MIGRATIONS, group_limit=1) as database:
        await database.write(lambda connection: room(connection, 50))
        yield database


def room(connection: sqlite3.Connection, pages: int) -> None:
    (count,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {count + pages}")


async def test_a_full_disk_is_said_until_something_is_stored_again(
    small: WatchedDatabase, conditions: Conditions, clock: ManualClock, make_event: MakeEvent
) -> None:
    engine = SqliteEngine(small, clock)
    with pytest.raises(StorageFull, match="the disk is full"):
        await engine.append([make_event(envelope=LARGE)])
    assert "nothing can be stored" in conditions.held()[FULL]
    await small.write(lambda connection: room(connection, 1_000))
    assert (await engine.append([make_event(envelope=LARGE)])).sequences == (1,)
    assert not conditions.held()


async def test_what_is_asked_behind_a_write_that_fails_is_not_stored_before_it(
    small: WatchedDatabase, clock: ManualClock, make_event: MakeEvent
) -> None:
    engine = SqliteEngine(small, clock)
    await engine.append([make_event()])
    first = asyncio.create_task(engine.append([make_event(envelope=LARGE)]))
    while not engine._appends._rounds or engine._appends._waiting:
        await asyncio.sleep(0)
    outcomes: list[Appended | Exception] = []
    for _ in range(5):
        engine.submit([make_event()], {}, outcomes.append)
    with pytest.raises(StorageFull):
        await first
    await eventually(lambda: len(outcomes) == 5, "what became of the batches behind it")
    assert all(isinstance(outcome, StorageError) for outcome in outcomes)
    assert (await engine.append([make_event()])).sequences == (2,)


async def test_a_refused_batch_holds_up_nobody(
    small: WatchedDatabase, clock: ManualClock, make_event: MakeEvent
) -> None:
    engine = SqliteEngine(small, clock)
    event = make_event()
    await engine.append([event])
    other = NewEvent(event.event_id, event.type, event.subject, event.source, "", b"other")
    outcomes = await asyncio.gather(engine.append([other]), engine.append([make_event()]), return_exceptions=True)
    assert isinstance(outcomes[0], EventConflict)
    assert not isinstance(outcomes[1], BaseException)


async def test_a_publish_stream_stores_nothing_behind_a_batch_that_could_not_be_stored(
    small: WatchedDatabase, clock: ManualClock
) -> None:
    async with EventBus(SqliteEngine(small, clock), clock) as bus:
        go_on = asyncio.Event()

        async def requests() -> AsyncIterator[pb.PublishStreamRequest]:
            for number in range(1, 4):
                payload = ServiceStarted(service=str(number), instance_id="i")
                event = make_pb(payload, subject="s", source="t", time_ns=10**18)
                event.metadata["padding"] = "x" * (500_000 if number == 1 else 1)
                yield pb.PublishStreamRequest(batch_id=number, events=[event])
                if number == 2:
                    await go_on.wait()

        answers = PublishSession(bus, requests()).responses()
        assert (await anext(answers)).batch_id == 0
        with pytest.raises(StorageFull):
            await anext(answers)
        go_on.set()
        assert (await bus.engine.read(0, ALL, 10)).events == ()


async def test_damage_is_said_as_a_condition(
    tmp_path: Path, conditions: Conditions, clock: ManualClock, make_event: MakeEvent
) -> None:
    path = tmp_path / "bus.db"
    async with WatchedDatabase(path, conditions, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.append([make_event()])
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("UPDATE event SET subject = 'other'")
        connection.close()
        with pytest.raises(StorageCorrupt, match="event 1"):
            await engine.read(0, ALL, 10)
    assert "event 1 does not have the bytes that were stored" in conditions.held()[DAMAGED]


async def test_a_refusal_that_several_streams_are_told_is_each_ones_own(
    small: WatchedDatabase, clock: ManualClock, make_event: MakeEvent
) -> None:
    engine = SqliteEngine(small, clock)
    found = await asyncio.gather(
        *(engine.append([make_event(envelope=LARGE)]) for _ in range(3)), return_exceptions=True
    )
    assert len({id(error) for error in found}) == 3
    assert {(type(error), str(error)) for error in found} == {(StorageFull, str(found[0]))}
