"""How the two long streams live: a publisher's batches answered in order, a reader's messages both ways."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.domain.errors import EventConflict, InvalidField, SequenceMismatch, TypesUnreachable
from minhos_mesh.event_bus.domain.records import Appended, NewEvent
from minhos_mesh.event_bus.encoding import delivery
from minhos_mesh.event_bus.intake import events_of, keeps_its_form
from minhos_mesh.event_bus.readers import Reader
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.runtime.errors import FieldViolation, MeshError
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import StorageError
from minhos_mesh.runtime.validation import shown, violations_of

BATCHES_IN_FLIGHT: Final = 256
HEARTBEAT_S: Final = 4.0
"""Below the interval that the contract promises."""


@dataclass(slots=True)
class _Batch:
    """One batch of a stream, and what became of it."""

    request: pb.PublishStreamRequest
    events: Sequence[NewEvent] = ()
    outcome: Appended | Exception | Sequence[pb.EventRefusal] | None = None
    """None while it is on its way to the disk."""


class PublishSession:
    """One publish stream: batches are stored as they come, many at once, and answered in the order they were sent."""

    def __init__(self, bus: EventBus, requests: AsyncIterator[pb.PublishStreamRequest]) -> None:
        self._bus = bus
        self._requests = requests
        self._failed: StorageError | None = None
        self._batches: deque[_Batch] = deque()
        """Not answered yet, in the order in which they came."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        """Whether nothing more comes."""

    async def responses(self) -> AsyncIterator[pb.PublishStreamResponse]:
        """Answers until the publisher says it is done and everything is answered. Raises StorageError."""
        reading = asyncio.create_task(self._read(), name="event_bus-publish-read")
        beat = Heartbeat(HEARTBEAT_S, self._news)
        try:
            yield pb.PublishStreamResponse()  # at once, so that a publisher knows that it is heard
            while True:
                while self._batches and self._batches[0].outcome is not None:
                    batch = self._batches.popleft()
                    self._room.set()
                    yield self._response(batch)
                    beat.postpone()
                if self._ended and not self._batches:
                    break
                self._news.clear()
                await self._news.wait()
                if beat.is_due():
                    yield pb.PublishStreamResponse()
            await reading
        finally:
            beat.end()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                refused = self._take(request)
                if refused:
                    await self._take_learned(request, refused)
                while len(self._batches) >= BATCHES_IN_FLIGHT:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._news.set()

    def _take(self, request: pb.PublishStreamRequest) -> list[translate.Refused]:
        """Has a batch stored or refused; one that is refused, but perhaps for something that the bus can still learn, is left
        where it is, with what is wrong with it.
        """
        if not keeps_its_form(request):
            self._answer(request, [_batch_refusal(violations_of(request))])
            return []
        events, refused = events_of(request, self._bus.types.payloads)
        if refused:
            if not translate.may_be_learned(refused):
                self._refuse(request, refused)
                return []
            return refused
        try:
            expected = translate.expected_from_pb(request.expected) if request.expected else {}
        except InvalidField as error:
            violation = FieldViolation(error.field, str(error), error.seen, error.allowed)
            self._answer(request, [_batch_refusal((violation,))])
            return []
        self._store(_Batch(request, events), expected)
        return []

    async def _take_learned(self, request: pb.PublishStreamRequest, refused: list[translate.Refused]) -> None:
        """Has a batch stored that may be of a type that the bus is still to learn. Raises TypesUnreachable."""
        if await learned(self._bus, refused):
            refused = self._take(request)
        if refused:
            self._refuse(request, refused)

    def _refuse(self, request: pb.PublishStreamRequest, refused: Sequence[translate.Refused]) -> None:
        note_refused(self._bus, refused)
        self._answer(request, translate.refusals_to_pb(refused))

    def _answer(self, request: pb.PublishStreamRequest, refusals: Sequence[pb.EventRefusal]) -> None:
        """Answers a batch at once, behind those before it."""
        self._batches.append(_Batch(request, outcome=refusals))
        self._news.set()

    def _store(self, batch: _Batch, expected: Mapping[str, int]) -> None:
        """Stores a batch unless one before it could not be: the publisher sends both again, in order."""
        self._batches.append(batch)
        if self._failed is not None:
            self._settle(batch, self._failed)
        else:
            self._bus.submit(batch.events, expected, functools.partial(self._settle, batch))

    def _settle(self, batch: _Batch, outcome: Appended | Exception) -> None:
        """A batch is on disk, or it is known why not."""
        if isinstance(outcome, StorageError):
            self._failed = outcome
        elif isinstance(outcome, EventConflict):
            note_conflicts(self._bus, batch.events, outcome)
        batch.outcome = outcome
        if batch is self._batches[0]:
            self._news.set()

    @staticmethod
    def _response(batch: _Batch) -> pb.PublishStreamResponse:
        outcome, batch_id = batch.outcome, batch.request.batch_id
        if isinstance(outcome, Appended):
            reached("publish.before_answer")
            return pb.PublishStreamResponse(
                batch_id=batch_id, sequences=outcome.sequences, duplicates=outcome.duplicates
            )
        if isinstance(outcome, EventConflict):
            return pb.PublishStreamResponse(batch_id=batch_id, refusals=translate.conflicts_to_pb(outcome))
        if isinstance(outcome, SequenceMismatch):
            refusals = translate.mismatches_to_pb(outcome, batch.request.expected)
            return pb.PublishStreamResponse(batch_id=batch_id, refusals=refusals)
        if isinstance(outcome, Exception):
            raise outcome
        return pb.PublishStreamResponse(batch_id=batch_id, refusals=outcome)


class Heartbeat:
    """Wakes a stream that has said nothing for long; what it says meanwhile costs no timer of its own."""

    def __init__(self, every_s: float, wake: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._every_s, self._wake = every_s, wake
        self._at = self._loop.time() + every_s
        self._timer = self._loop.call_at(self._at, self._look)

    def postpone(self) -> None:
        """Something was said."""
        self._at = self._loop.time() + self._every_s

    def is_due(self) -> bool:
        """Whether nothing was said for that long; if so it counts as said now."""
        due = self._loop.time() >= self._at
        if due:
            self.postpone()
        return due

    def end(self) -> None:
        """Wakes nobody any more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() >= self._at:
            self._wake.set()
            self._timer = self._loop.call_later(self._every_s, self._look)
        else:
            self._timer = self._loop.call_at(self._at, self._look)


class SubscribeSession:
    """One subscription: what the reader says is heard while events go out."""

    def __init__(self, bus: EventBus, requests: AsyncIterator[pb.SubscribeRequest], stopping: asyncio.Event) -> None:
        self._bus = bus
        self._requests = requests
        self._stopping = stopping

    async def responses(self) -> AsyncIterator[pb.SubscribeResponse | bytes]:
        """Delivers until the reader leaves; deliveries are encoded already. Raises BusError."""
        opening = await self._first()
        reader = await self._open(opening)
        said_goodbye = False
        listening = asyncio.create_task(self._listen(reader, opening), name="event_bus-subscribe-listen")
        try:
            yield pb.SubscribeResponse(
                opened=pb.SubscribeOpened(after_sequence=reader.after_sequence, newest_sequence=reader.newest_sequence)
            )
            while not self._over(listening, opening):
                output = await reader.next_output(HEARTBEAT_S)
                if output is not None:
                    if output.gap is not None:
                        yield translate.gap_to_pb(output.gap)
                    if output.events:
                        yield delivery(output.events)
                    self._bus.note_delivered(len(output.events))
                elif not self._over(listening, opening):
                    yield self._heartbeat()
            # The requests of a reader that vanished end as those of one that says goodbye; only the latter can be told more.
            yield self._heartbeat()
            said_goodbye = True
        finally:
            listening.cancel()
            # Before anything is awaited: a call that is cancelled meanwhile would leave its reader connected for ever.
            self._bus.close_reader(reader, clean=said_goodbye or self._stopping.is_set())
            await asyncio.gather(listening, return_exceptions=True)

    def _heartbeat(self) -> pb.SubscribeResponse:
        return pb.SubscribeResponse(heartbeat=pb.SubscribeHeartbeat(newest_sequence=self._bus.bounds.newest))

    async def _first(self) -> pb.SubscribeOpen:
        seen = "nothing"
        async for request in self._requests:
            seen = request.WhichOneof("message") or "nothing"
            if seen == "open":
                return request.open
            break
        raise InvalidField("message", seen, "open as the first one, credit, ack, nack or in_progress behind it")

    async def _open(self, opening: pb.SubscribeOpen) -> Reader:
        wanted = translate.selection_from_pb(opening, await known_types(self._bus, opening.types))
        start = translate.start_from_pb(opening.start)
        if opening.WhichOneof("reader") == "durable":
            return await self._bus.open_durable(
                wanted, start, opening.credit, translate.durable_from_pb(opening.durable)
            )
        policy = translate.policy_from_pb(opening.ephemeral)
        return await self._bus.open_ephemeral(wanted, start, opening.credit, policy)

    async def _listen(self, reader: Reader, opening: pb.SubscribeOpen) -> None:
        try:
            async for request in self._requests:
                _apply(reader, request)
            if opening.WhichOneof("reader") == "durable":
                reader.interrupt()
        except Exception:
            reader.interrupt()
            raise

    @staticmethod
    def _over(listening: asyncio.Task[None], opening: pb.SubscribeOpen) -> bool:
        """Says whether the reader left; one that is not remembered may stop talking and listen on. Raises what went wrong."""
        if not listening.done():
            return False
        listening.result()
        return opening.WhichOneof("reader") == "durable"


def _apply(reader: Reader, request: pb.SubscribeRequest) -> None:
    kind = request.WhichOneof("message")
    if kind == "credit":
        reader.grant(request.credit.count)
    elif kind == "ack":
        reader.ack(request.ack.sequences)
    elif kind == "nack":
        nack = request.nack
        delay_ns = translate.duration_ns(nack.delay) if nack.HasField("delay") else None
        reader.nack(nack.sequence, nack.error, delay_ns)
    elif kind == "in_progress":
        reader.extend(request.in_progress.sequences)
    else:
        raise InvalidField("message", kind or "nothing", "credit, ack, nack or in_progress behind the first one")


async def read_events(
    bus: EventBus, events: Sequence[event_pb2.Event]
) -> tuple[list[NewEvent], list[translate.Refused]]:
    """The events of a batch, and those that are refused, learning what can be learned. Raises TypesUnreachable."""
    new, refused = translate.events_from_pb(events, bus.types.payloads)
    if refused and translate.may_be_learned(refused) and await learned(bus, refused):
        new, refused = translate.events_from_pb(events, bus.types.payloads)
    return new, refused


async def learned(bus: EventBus, refused: Sequence[translate.Refused]) -> bool:
    """Learns what instances offer; false when that is not possible and would hardly help. Raises TypesUnreachable."""
    try:
        await bus.types.learn()
    except TypesUnreachable:
        if translate.are_unknown(refused):
            raise
        return False
    return True


def note_refused(bus: EventBus, refused: Sequence[translate.Refused]) -> None:
    """Counts what is refused."""
    for item in refused:
        bus.note_refused(item.event_type)


async def known_types(bus: EventBus, wanted: Sequence[str], stored: Sequence[str] = ()) -> Collection[str]:
    """All types that can be asked for; when a pattern matches none of them, with what instances have offered since."""
    names = {*bus.types.payloads.names(), *stored}
    if translate.all_match(wanted, names):
        return names
    with contextlib.suppress(TypesUnreachable):
        await bus.types.learn()
    return {*bus.types.payloads.names(), *stored}


async def publish(bus: EventBus, events: Sequence[NewEvent], expected: Mapping[str, int]) -> Appended:
    """Stores a batch, and counts what is refused for its id. Raises EventConflict, SequenceMismatch, StorageError."""
    try:
        return await bus.publish(events, expected)
    except EventConflict as error:
        note_conflicts(bus, events, error)
        raise


def note_conflicts(bus: EventBus, events: Sequence[NewEvent], error: EventConflict) -> None:
    """Counts what is refused for its id."""
    for conflict in error.conflicts:
        bus.note_refused(events[conflict.index].type)


def _batch_refusal(violations: tuple[FieldViolation, ...]) -> pb.EventRefusal:
    return pb.EventRefusal(
        reason=error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_INVALID_FIELD),
        message="; ".join(violation.description for violation in violations),
        metadata=shown(violations[0]),
    )


def refused_whole(refused: list[translate.Refused]) -> MeshError:
    """The error of a unary publish: the first refusal's reason, everyone's violations."""
    first = refused[0]
    return MeshError(
        grpc.StatusCode.INVALID_ARGUMENT,
        first.reason,
        "; ".join(item.message for item in refused),
        metadata=first.metadata,
        violations=[violation for item in refused for violation in item.violations],
    )
