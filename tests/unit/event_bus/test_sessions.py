"""How a long stream ends: whatever moment its call is cut at, nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.event_bus import sessions
from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.reports import RetentionReport, stats
from minhos_mesh.event_bus.service import Durable, EventBus, Start
from minhos_mesh.event_bus.sessions import BATCHES_IN_FLIGHT, PublishSession, SubscribeSession
from minhos_mesh.runtime.event_envelope import make_event as make_pb

MakeEvent = Callable[..., NewEvent]
TURNS = 12
"""Turns of the event loop that a goodbye takes at the most."""


class Talk:
    """A durable reader by hand, up to its goodbye."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []
        self.leaves = asyncio.Event()

    async def requests(self) -> AsyncIterator[pb.SubscribeRequest]:
        durable = pb.DurableReader(name="c", member="one")
        yield pb.SubscribeRequest(open=pb.SubscribeOpen(credit=10, durable=durable))
        await self.leaves.wait()

    async def hold(self, bus: EventBus) -> None:
        async for answer in SubscribeSession(bus, self.requests(), asyncio.Event()).responses():
            assert isinstance(answer, pb.SubscribeResponse), "nothing is delivered here"
            self.answers.append(answer.WhichOneof("message"))

    async def heard(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.answers) < count:
                await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(TURNS))
async def test_a_reader_whose_call_is_cut_while_it_leaves_is_gone(
    bus: EventBus, make_event: MakeEvent, turns: int
) -> None:
    talk = Talk()
    call = asyncio.create_task(talk.hold(bus))
    await talk.heard(1)
    talk.leaves.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=5)
    await bus.publish([make_event()])
    (consumer,) = (await stats(bus, RetentionReport())).consumers
    assert (consumer.members, consumer.in_flight, consumer.lag) == ((), 0, 1)
    reader = await bus.open_durable(ALL, Start(), 10, Durable("c", "two"))
    output = await reader.next_output(5)
    assert output is not None
    assert [(each.event.sequence, each.attempt) for each in output.events] == [(1, 1)]


async def test_a_goodbye_is_over_before_the_last_turn_that_is_tried(bus: EventBus) -> None:
    talk = Talk()
    call = asyncio.create_task(talk.hold(bus))
    await talk.heard(1)
    talk.leaves.set()
    for _ in range(TURNS - 1):
        await asyncio.sleep(0)
    assert call.done()
    assert talk.answers == ["opened", "heartbeat"]


async def test_what_is_stored_while_a_reader_leaves_is_not_given_to_it(bus: EventBus, make_event: MakeEvent) -> None:
    leaving = await bus.open_durable(ALL, Start(), 10, Durable("c", "one"))
    staying = await bus.open_durable(ALL, Start(), 10, Durable("c", "two"))
    leaving.interrupt()
    await bus.publish([make_event(subject=f"S{n}") for n in range(4)])
    assert await leaving.next_output(0) is None
    output = await staying.next_output(5)
    assert output is not None
    assert len(output.events) == 4


async def test_what_was_not_sent_to_a_vanished_reader_counts_as_no_attempt(
    bus: EventBus, make_event: MakeEvent
) -> None:
    reader = await bus.open_durable(ALL, Start(), 10, Durable("c", "one"))
    await bus.publish([make_event()])
    bus.close_reader(reader, clean=False)
    assert (await stats(bus, RetentionReport())).failed == 0


async def test_a_publisher_that_vanishes_with_every_place_taken_leaves_nothing_behind(bus: EventBus) -> None:
    async def requests() -> AsyncIterator[pb.PublishStreamRequest]:
        for number in range(2 * BATCHES_IN_FLIGHT):
            yield pb.PublishStreamRequest(batch_id=number + 1)

    responses = PublishSession(bus, requests()).responses()
    async with asyncio.timeout(5):
        await anext(responses)
        for _ in range(4):
            await asyncio.sleep(0)
        await responses.aclose()  # type: ignore[attr-defined] # an async generator, promised as an iterator only


async def test_a_publish_stream_that_is_silent_is_told_that_it_is_heard(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HEARTBEAT_S", 0.01)
    ended = asyncio.Event()

    async def requests() -> AsyncIterator[pb.PublishStreamRequest]:
        await ended.wait()
        yield pb.PublishStreamRequest(batch_id=1)

    answers: list[int] = []
    async with asyncio.timeout(10):
        async for answer in PublishSession(bus, requests()).responses():
            answers.append(answer.batch_id)
            if len(answers) == 4:
                ended.set()
    assert answers[:4] == [0, 0, 0, 0]
    assert (answers[-1], set(answers[:-1])) == (1, {0})


async def test_answers_come_in_the_order_of_their_batches_whatever_became_of_them(bus: EventBus) -> None:
    def batch(number: int, **wrong: str) -> pb.PublishStreamRequest:
        payload = ServiceStarted(service=str(number), instance_id="i")
        event = make_pb(payload, subject="s", source=wrong.get("source", "t"), time_ns=1)
        return pb.PublishStreamRequest(batch_id=number, events=[event])

    async def requests() -> AsyncIterator[pb.PublishStreamRequest]:
        for number in range(1, 2 * BATCHES_IN_FLIGHT + 1):
            yield batch(number, source="") if number % 3 == 0 else batch(number)

    async with asyncio.timeout(20):
        found = [answer async for answer in PublishSession(bus, requests()).responses() if answer.batch_id]
    assert [answer.batch_id for answer in found] == list(range(1, 2 * BATCHES_IN_FLIGHT + 1))
    assert [bool(answer.refusals) for answer in found] == [answer.batch_id % 3 == 0 for answer in found]
    stored = [answer.sequences[0] for answer in found if answer.sequences]
    assert stored == list(range(1, len(stored) + 1))
