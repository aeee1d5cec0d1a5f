"""A service that handles several events at once: order per subject, failures, and a clean goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.event_bus.speaking import event, stopped, until

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, Reading, TryLater

Handle = Callable[[event_pb2.Event], Any]


def reading(**more: Any) -> Reading:
    return Reading(durable="c", from_beginning=True, concurrency=4, **more)


async def publish(stub: Any, *subjects: str) -> None:
    await stub.Publish(pb.PublishRequest(events=[event(subject) for subject in subjects]))


@pytest.mark.parametrize("kind", ["durable", "ephemeral"])
async def test_subjects_are_handled_at_once_and_each_in_order(stub: Any, context: ServiceContext, kind: str) -> None:
    await publish(stub, *[f"S{number % 8}" for number in range(160)])
    seen: dict[str, list[int]] = {}
    running = most = 0

    async def handle(item: event_pb2.Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.setdefault(item.subject, []).append(item.sequence)
        running -= 1

    wanted = reading() if kind == "durable" else Reading(from_beginning=True, concurrency=4)
    subscription = EventClient(context).subscribe_types((), handle, wanted)
    await until(lambda: subscription.handled >= 160)
    assert most == 4
    assert all(sequences == sorted(set(sequences)) for sequences in seen.values())
    assert sorted(sequence for sequences in seen.values() for sequence in sequences) == list(range(1, 161))


async def test_a_handler_that_fails_holds_up_its_own_subject_only(
    stub: Any, admin: Any, context: ServiceContext
) -> None:
    await publish(stub, "A", "B", "A", "C")
    handled: list[tuple[str, int]] = []

    async def handle(item: event_pb2.Event) -> None:
        if item.sequence == 1:
            raise ValueError("never")
        handled.append((item.subject, item.sequence))

    subscription = EventClient(context).subscribe_types((), handle, reading())
    await until(lambda: len(handled) == 3)
    assert set(handled[:2]) == {("B", 2), ("C", 4)}
    assert handled[2] == ("A", 3)
    assert subscription.failed == 3
    found: list[admin_pb.DeadLetter] = []

    async def written() -> bool:
        found[:] = (await admin.ListDeadLetters(admin_pb.ListDeadLettersRequest())).dead_letters
        return bool(found)

    await until(written)
    (letter,) = found
    assert [attempt.error for attempt in letter.attempts] == ["ValueError: never"] * 3


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_handler_says_when_it_wants_its_event_again(
    stub: Any, context: ServiceContext, concurrency: int
) -> None:
    await publish(stub, "A")
    times: list[float] = []

    async def handle(_: event_pb2.Event) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise TryLater(0.4, "the venue is closed")

    wanted = Reading(durable="c", from_beginning=True, concurrency=concurrency)
    EventClient(context).subscribe_types((), handle, wanted)
    await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.4


async def test_a_service_that_stops_acknowledges_what_it_has_done_and_fails_at_nothing(
    stub: Any, admin: Any, context: ServiceContext
) -> None:
    await publish(stub, "A", "B", "C")
    done: list[str] = []

    async def handle(item: event_pb2.Event) -> None:
        if item.subject != "A":
            done.append(item.subject)
            return
        await asyncio.Event().wait()

    EventClient(context).subscribe_types((), handle, reading())
    await until(lambda: sorted(done) == ["B", "C"])
    await context.tasks.close()
    (found,) = (await admin.ListConsumers(admin_pb.ListConsumersRequest())).consumers
    assert (found.lag, found.failed, found.oldest_unacked_sequence) == (1, 0, 1)


async def test_a_slow_handler_of_one_type_holds_up_its_own_subjects_only(stub: Any, context: ServiceContext) -> None:
    released = asyncio.Event()
    fast: list[int] = []
    slow: list[int] = []

    async def handle_started(item: event_pb2.Event, _: Any) -> None:
        await released.wait()
        slow.append(item.sequence)

    async def handle_stopped(item: event_pb2.Event, _: Any) -> None:
        fast.append(item.sequence)

    handlers = {ServiceStarted: handle_started, ServiceStopped: handle_stopped}
    wanted = Reading(durable="c", from_beginning=True, concurrency_of={"service.started": 2}, credit=64)
    subscription = EventClient(context).subscribe(handlers, wanted)
    await subscription.wait_open(10)
    for _ in range(3):
        await stub.Publish(pb.PublishRequest(events=[event("A"), stopped("A"), *[stopped(f"S{n}") for n in range(8)]]))
    await until(lambda: len(fast) == 24)
    assert slow == []
    assert not {1, 2, 11, 12, 21, 22} & set(fast)
    released.set()
    await until(lambda: len(slow) == 3 and len(fast) == 27)
    assert slow == [1, 11, 21]
    assert fast[24:] == [2, 12, 22]


async def test_each_type_has_its_own_places(stub: Any, context: ServiceContext) -> None:
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    async def handle(item: event_pb2.Event) -> None:
        running[item.type] = running.get(item.type, 0) + 1
        most[item.type] = max(most.get(item.type, 0), running[item.type])
        await asyncio.sleep(0.001)
        running[item.type] -= 1

    wanted = Reading(from_beginning=True, concurrency=2, concurrency_of={"service.stopped": 5})
    for place in range(40):
        await stub.Publish(pb.PublishRequest(events=[event(f"A{place}"), stopped(f"B{place}")]))
    subscription = EventClient(context).subscribe_types((), handle, wanted)
    await until(lambda: subscription.handled == 80)
    assert most == {"service.started": 2, "service.stopped": 5}


async def test_events_that_wait_for_their_turn_are_not_delivered_again(
    stub: Any, admin: Any, context: ServiceContext
) -> None:
    await publish(stub, "A", "B", "C", "D")
    handled: list[int] = []

    async def handle(item: event_pb2.Event) -> None:
        await asyncio.sleep(0.6)
        handled.append(item.sequence)

    # Each is handled sooner than a third of the deadline, after which the reader says that the others wait.
    wanted = Reading(durable="c", from_beginning=True, concurrency_of={"service.started": 1}, ack_deadline_s=2.0)
    EventClient(context).subscribe_types((), handle, wanted)
    await until(lambda: len(handled) >= 4)
    await until(_settled(admin))
    assert sorted(handled) == [1, 2, 3, 4]


def _settled(admin: Any) -> Callable[[], Any]:
    async def settled() -> bool:
        (found,) = (await admin.ListConsumers(admin_pb.ListConsumersRequest())).consumers
        return bool(found.lag == 0 and found.failed == 0)

    return settled


async def test_what_comes_again_while_it_is_handled_is_not_handled_twice_at_once(
    stub: Any, admin: Any, context: ServiceContext
) -> None:
    await publish(stub, "A")
    running = most = 0
    released = asyncio.Event()

    async def handle(_: event_pb2.Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await released.wait()
        running -= 1

    wanted = Reading(durable="c", from_beginning=True, concurrency=4, ack_deadline_s=0.05, max_attempts=100)
    subscription = EventClient(context).subscribe_types((), handle, wanted)

    async def redelivered() -> bool:
        found = (await admin.ListConsumers(admin_pb.ListConsumersRequest())).consumers
        return bool(found and found[0].redelivered >= 2)

    await until(redelivered)
    released.set()
    await until(lambda: subscription.handled >= 1)
    assert most == 1
