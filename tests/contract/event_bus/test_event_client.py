"""What services get from their event client: order, resume, and failures that stay where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.event_bus.readers import Reader
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, EventsRefused, EventsUnacknowledged, Gap, Reading, make_event

Bus = Any
"""See conftest."""


def event(subject: str = "s", service: str = "x", **more: Any) -> event_pb2.Event:
    payload = ServiceStarted(service=service, instance_id="x-1")
    return make_event(payload, subject=subject, source="tester", time_ns=1_790_000_000_000_000_000, **more)


def stopped(subject: str = "s") -> event_pb2.Event:
    return make_event(ServiceStopped(service="x", instance_id="x-1"), subject=subject, source="other", time_ns=10**18)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for the condition, 10 seconds at the most."""
    async with asyncio.timeout(10):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)


async def test_a_handler_is_given_the_event_and_its_payload(context: ServiceContext) -> None:
    client = EventClient(context)
    seen: list[tuple[int, str]] = []

    async def on_started(item: event_pb2.Event, payload: ServiceStarted) -> None:
        seen.append((item.sequence, payload.service))

    subscription = client.subscribe({ServiceStarted: on_started}, Reading(durable="c"))
    await subscription.wait_open(5)
    assert await client.publish([event(service="one"), stopped(), event(service="two")]) == [1, 2, 3]
    await until(lambda: len(seen) == 2)
    assert seen == [(1, "one"), (3, "two")]


async def test_a_failing_handler_affects_nothing_else(context: ServiceContext, stub: Any, admin: Any) -> None:
    client = EventClient(context)
    seen: list[tuple[str, str]] = []

    async def handle(item: event_pb2.Event, payload: ServiceStarted) -> None:
        seen.append((item.subject, payload.service))
        if payload.service == "bad":
            raise ValueError("no such thing")

    subscription = client.subscribe({ServiceStarted: handle}, Reading(durable="c", max_attempts=2))
    await subscription.wait_open(5)
    await client.publish([event("a", "bad"), event("a", "after"), event("b", "other")])

    async def dead() -> bool:
        (consumer,) = (await admin.GetStats(admin_pb.GetStatsRequest())).consumers
        return (consumer.dead_letters, consumer.lag) == (1, 0)

    await until(dead)
    assert [service for subject, service in seen if subject == "a"] == ["bad", "bad", "after"]
    assert ("b", "other") in seen
    assert (subscription.failed, subscription.handled) == (2, 2)


async def test_publishing_goes_on_by_itself_when_the_bus_comes_back(context: ServiceContext, bus: Bus) -> None:
    client = EventClient(context)
    assert await client.publish([event()]) == [1]
    await bus.stop()
    waiting = [asyncio.create_task(client.publish([event()], timeout_s=None)) for _ in range(20)]
    await asyncio.sleep(0)
    with pytest.raises(EventsUnacknowledged):
        await client.publish([event()], timeout_s=0.05)
    assert "EVENT_BUS_AWAY" in context.conditions.held()
    await bus.start()
    async with asyncio.timeout(10):
        sequences = [sequence for task in waiting for sequence in await task]
    assert sequences == list(range(2, 22))
    assert context.conditions.held() == {}


@pytest.mark.parametrize("name", [None, "c"])
async def test_a_subscription_misses_nothing_while_the_bus_restarts(
    context: ServiceContext, bus: Bus, name: str | None
) -> None:
    client = EventClient(context)
    seen: list[int] = []

    async def handle(item: event_pb2.Event) -> None:
        seen.append(item.sequence)

    subscription = client.subscribe_types(["service.>"], handle, Reading(durable=name))
    await subscription.wait_open(5)
    await client.publish([event()])
    await until(lambda: bool(seen))
    await bus.stop()
    await bus.start()
    await client.publish([event(f"s{n}") for n in range(5)])
    await until(lambda: len(set(seen)) == 6)
    assert sorted(set(seen)) == [1, 2, 3, 4, 5, 6]


async def test_a_position_of_another_journal_is_told_as_a_gap(context: ServiceContext) -> None:
    client = EventClient(context)
    gaps: list[Gap] = []
    seen: list[int] = []

    async def handle(item: event_pb2.Event) -> None:
        seen.append(item.sequence)

    await client.publish([event()])
    client.subscribe_types([], handle, Reading(after_sequence=77, on_gap=gaps.append))
    await until(lambda: seen == [1])
    assert gaps == [Gap(77, 0, 0)]


async def test_a_service_that_ends_in_order_costs_no_attempt(context: ServiceContext, stub: Any, admin: Any) -> None:
    client = EventClient(context)
    begun = asyncio.Event()

    async def handle(item: event_pb2.Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    subscription = client.subscribe_types([], handle, Reading(durable="c"))
    await subscription.wait_open(5)
    await client.publish([event()])
    await begun.wait()
    await context.tasks.close()

    async def left() -> bool:
        (consumer,) = (await admin.GetStats(admin_pb.GetStatsRequest())).consumers
        return (consumer.members, consumer.in_flight, consumer.lag) == (0, 0, 1)

    await until(left)
    assert (await admin.GetStats(admin_pb.GetStatsRequest())).failed == 0


async def test_a_reader_that_waits_for_events_says_goodbye_when_it_ends(
    context: ServiceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[bool] = []
    close_reader = EventBus.close_reader

    def recorded(bus: EventBus, reader: Reader, *, clean: bool) -> None:
        ends.append(clean)
        close_reader(bus, reader, clean=clean)

    async def handle(_: event_pb2.Event) -> None: ...

    monkeypatch.setattr(EventBus, "close_reader", recorded)
    subscription = EventClient(context).subscribe_types([], handle, Reading(durable="c"))
    await subscription.wait_open(5)
    await context.tasks.close()
    await until(lambda: ends == [True])


async def test_a_reader_that_ends_acknowledges_what_it_has_handled(
    context: ServiceContext, stub: Any, admin: Any
) -> None:
    client = EventClient(context)
    seen: list[int] = []

    async def handle(item: event_pb2.Event) -> None:
        seen.append(item.sequence)
        if item.sequence == 3:
            await asyncio.Event().wait()

    subscription = client.subscribe_types([], handle, Reading(durable="c"))
    await subscription.wait_open(5)
    await client.publish([event(f"s{n}") for n in range(5)])
    await until(lambda: seen == [1, 2, 3])
    await context.tasks.close()

    async def freed() -> bool:
        (consumer,) = (await admin.GetStats(admin_pb.GetStatsRequest())).consumers
        return (consumer.members, consumer.in_flight, consumer.lag) == (0, 0, 3)

    await until(freed)
    assert (await admin.GetStats(admin_pb.GetStatsRequest())).failed == 0


async def test_a_call_of_a_handler_that_is_cancelled_is_its_failure_and_not_the_end(
    context: ServiceContext, stub: Any, admin: Any
) -> None:
    client = EventClient(context)
    attempts: list[int] = []

    async def handle(item: event_pb2.Event) -> None:
        attempts.append(item.sequence)
        if len(attempts) == 1:
            raise asyncio.CancelledError

    subscription = client.subscribe_types([], handle, Reading(durable="c"))
    await subscription.wait_open(5)
    await client.publish([event()])
    await until(lambda: attempts == [1, 1])
    assert (subscription.failed, (await admin.GetStats(admin_pb.GetStatsRequest())).failed) == (1, 1)


async def test_a_refused_batch_names_the_event(context: ServiceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minhos_mesh.runtime.event_publisher.check_event", lambda _: None)
    bad = event()
    bad.type = "from.the_future"
    with pytest.raises(EventsRefused) as caught:
        await EventClient(context).publish([event(), bad])
    assert [refusal.index for refusal in caught.value.refusals] == [1]
