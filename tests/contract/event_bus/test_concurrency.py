"""A service that handles several events at once: order per subject, failures, and a clean goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.event_bus.speaking import event, until

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
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
