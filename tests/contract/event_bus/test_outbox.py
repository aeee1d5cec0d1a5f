"""What outbox and inbox promise over a real bus: with the change or not at all, in order, once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, make_event
from minhos_mesh.runtime.inbox import INBOX_SCHEMA, Inbox
from minhos_mesh.runtime.outbox import OUTBOX_SCHEMA, Outbox
from minhos_mesh.runtime.storage import Connection, Database

Bus = Any
"""See conftest."""


def event(subject: str = "s", service: str = "x", **more: Any) -> event_pb2.Event:
    payload = ServiceStarted(service=service, instance_id="x-1")
    return make_event(payload, subject=subject, source="tester", time_ns=1_790_000_000_000_000_000, **more)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for the condition, 10 seconds at the most."""
    async with asyncio.timeout(10):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "service.db", migrations=[OUTBOX_SCHEMA, INBOX_SCHEMA]) as database:
        yield database


async def listed(stub: Any) -> list[str]:
    response = await stub.ListEvents(pb.ListEventsRequest(ascending=True, page_size=1000))
    return [item.subject for item in response.events]


async def test_the_outbox_publishes_in_commit_order_across_a_restart_of_the_bus(
    database: Database, context: ServiceContext, bus: Bus, stub: Any
) -> None:
    outbox = Outbox(database, EventClient(context))
    outbox.start(context.tasks)
    for n in range(5):
        await database.write(functools.partial(outbox.add, events=[event(f"{n}a"), event(f"{n}b")]))
    await bus.stop()
    for n in range(5, 10):
        await database.write(functools.partial(outbox.add, events=[event(f"{n}a"), event(f"{n}b")]))
    await bus.start()

    async def relayed() -> bool:
        return await outbox.pending() == 0

    await until(relayed)
    assert await listed(stub) == [f"{n}{letter}" for n in range(10) for letter in "ab"]


async def test_what_an_earlier_life_left_in_the_outbox_is_published_once(
    database: Database, context: ServiceContext, stub: Any
) -> None:
    events = [event("a"), event("b")]
    client = EventClient(context)
    await client.publish(events[:1])
    await database.write(lambda c: Outbox(database, client).add(c, events))
    outbox = Outbox(database, client)
    outbox.start(context.tasks)

    async def relayed() -> bool:
        return await outbox.pending() == 0

    await until(relayed)
    assert await listed(stub) == ["a", "b"]
    await context.tasks.close()
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM outbox").fetchone()) == (0,)


async def test_events_of_a_write_that_failed_are_not_published(
    database: Database, context: ServiceContext, stub: Any
) -> None:
    outbox = Outbox(database, EventClient(context))
    outbox.start(context.tasks)

    def fail(connection: Connection) -> None:
        outbox.add(connection, [event("never")])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(fail)
    bad = event("bad")
    bad.payload.Pack(ServiceStarted(instance_id="x-1"))
    with pytest.raises(ValueError, match=r"payload\.service"):
        await database.write(lambda c: outbox.add(c, [bad]))
    await database.write(lambda c: outbox.add(c, [event("good")]))

    async def relayed() -> bool:
        return await listed(stub) == ["good"]

    await until(relayed)


async def test_an_event_that_the_bus_refuses_is_set_aside_and_blocks_nothing(
    database: Database, context: ServiceContext, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = EventClient(context)
    outbox = Outbox(database, client)
    bad = event("bad")
    bad.type = "from.the_future"
    monkeypatch.setattr("minhos_mesh.runtime.outbox.check_event", lambda _: None)
    monkeypatch.setattr("minhos_mesh.runtime.event_publisher.check_event", lambda _: None)
    await database.write(lambda c: outbox.add(c, [event("a"), bad, event("b")]))
    outbox.start(context.tasks)

    async def relayed() -> bool:
        return await listed(stub) == ["a", "b"]

    async def empty() -> bool:
        return await outbox.pending() == 0

    await until(relayed)
    await until(empty)
    assert outbox.rejected == 1
    (row,) = await database.read(
        lambda c: c.execute("SELECT type, rejected FROM outbox WHERE rejected <> ''").fetchall()
    )
    assert row[0] == "from.the_future"
    assert "EVENT_TYPE_UNKNOWN" in row[1]


async def test_the_inbox_lets_an_event_act_once(database: Database) -> None:
    inbox = Inbox("c")
    one = event()
    assert await database.write(lambda c: inbox.take(c, one)) is True
    assert await database.write(lambda c: inbox.take(c, one)) is False
    assert await database.write(lambda c: Inbox("other").take(c, one)) is True


async def test_the_inbox_forgets_a_write_that_failed(database: Database) -> None:
    inbox, one = Inbox("c"), event()

    def fail(connection: Connection) -> None:
        inbox.take(connection, one)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(fail)
    assert await database.write(lambda c: inbox.take(c, one)) is True


def take_many(inbox: Inbox, sequences: Iterable[int]) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        for sequence in sequences:
            assert inbox.take(connection, event_pb2.Event(event_id=str(sequence), sequence=sequence))

    return run


async def held(database: Database) -> list[int]:
    return await database.read(lambda c: [s for (s,) in c.execute("SELECT sequence FROM inbox ORDER BY sequence")])


async def test_the_inbox_forgets_what_is_old_by_how_many_came_since(database: Database) -> None:
    await database.write(take_many(Inbox("c", keep=100), range(0, 2_000_000, 1_000)))
    found = await held(database)
    assert found == [number * 1_000 for number in range(2_000 - len(found), 2_000)]
    assert 100 <= len(found) <= 1_100


async def test_the_inbox_of_many_short_lives_does_not_grow(database: Database) -> None:
    for life in range(20):
        await database.write(take_many(Inbox("c", keep=100), range(life * 50, life * 50 + 50)))
    assert len(await held(database)) <= 150
    assert not await database.write(lambda c: Inbox("c", keep=100).take(c, event_pb2.Event(event_id="990")))
