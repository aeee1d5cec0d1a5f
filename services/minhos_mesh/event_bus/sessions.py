"""How the two long streams live: a publisher's batches answered in order, a reader's messages both ways."""

from __future__ import annotations

import asyncio
import contextlib
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
from minhos_mesh.event_bus.intake import events_of
from minhos_mesh.event_bus.readers import Reader
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.runtime.errors import FieldViolation, MeshError
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import StorageError
from minhos_mesh.runtime.validation import shown, violations_of

BATCHES_IN_FLIGHT: Final = 256
HEARTBEAT_S: Final = 4.0
"""Below the interval that the contract promises."""

_Answer = asyncio.Task[Appended] | list[pb.EventRefusal]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A batch is refused, but perhaps only for something that the bus can still learn."""

    refused: list[translate.Refused]


class PublishSession:
    """One publish stream: batches are stored as they come, many at once, and answered in the order they were sent."""

    def __init__(self, bus: EventBus, requests: AsyncIterator[pb.PublishStreamRequest]) -> None:
        self._bus = bus
        self._requests = requests
        self._failed: StorageError | None = None
        self._answers: asyncio.Queue[tuple[pb.PublishStreamRequest, _Answer] | None] = asyncio.Queue(BATCHES_IN_FLIGHT)

    async def responses(self) -> AsyncIterator[pb.PublishStreamResponse]:
        """Answers until the publisher says it is done and everything is answered. Raises StorageError."""
        reading = asyncio.create_task(self._read(), name="event_bus-publish-read")
        try:
            yield pb.PublishStreamResponse()  # at once, so that a publisher knows that it is heard
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        answer = await self._answers.get()
                except TimeoutError:
                    yield pb.PublishStreamResponse()
                    continue
                if answer is None:
                    break
                yield await self._response(*answer)
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                answer = self._store(request)
                if isinstance(answer, Unknown):
                    answer = await self._store_learned(request, answer)
                await self._answers.put((request, answer))
        except Exception:
            await self._answers.put(None)
            raise
        # Not when this is cancelled: nobody reads the answers any more then, and there may never be room for the end.
        await self._answers.put(None)

    async def _store_learned(self, request: pb.PublishStreamRequest, unknown: Unknown) -> _Answer:
        """Stores what may be of a type that the bus is still to learn. Raises TypesUnreachable."""
        refused = unknown.refused
        if await learned(self._bus, refused):
            answer = self._store(request)
            if not isinstance(answer, Unknown):
                return answer
            refused = answer.refused
        note_refused(self._bus, refused)
        return translate.refusals_to_pb(refused)

    def _store(self, request: pb.PublishStreamRequest) -> _Answer | Unknown:
        if not request.events or not request.batch_id or len(request.events) > 1000 or len(request.expected) > 1000:
            return [_batch_refusal(violations_of(request))]
        events, refused = events_of(request, self._bus.types.payloads)
        if refused:
            if translate.may_be_learned(refused):
                return Unknown(refused)
            note_refused(self._bus, refused)
            return translate.refusals_to_pb(refused)
        try:
            expected = translate.expected_from_pb(request.expected)
        except InvalidField as error:
            return [_batch_refusal((FieldViolation(error.field, str(error), error.seen, error.allowed),))]
        storing = asyncio.create_task(self._publish(events, expected), name="event_bus-append")
        storing.add_done_callback(_seen)
        return storing

    async def _publish(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> Appended:
        """Stores a batch unless one before it could not be: the publisher sends both again, in order."""
        if self._failed is not None:
            raise self._failed
        try:
            return await publish(self._bus, events, expected)
        except StorageError as error:
            self._failed = error
            raise

    @staticmethod
    async def _response(request: pb.PublishStreamRequest, answer: _Answer) -> pb.PublishStreamResponse:
        batch_id = request.batch_id
        if isinstance(answer, list):
            return pb.PublishStreamResponse(batch_id=batch_id, refusals=answer)
        try:
            appended = await answer
        except EventConflict as error:
            return pb.PublishStreamResponse(batch_id=batch_id, refusals=translate.conflicts_to_pb(error))
        except SequenceMismatch as error:
            refusals = translate.mismatches_to_pb(error, request.expected)
            return pb.PublishStreamResponse(batch_id=batch_id, refusals=refusals)
        reached("publish.before_answer")
        return pb.PublishStreamResponse(batch_id=batch_id, sequences=appended.sequences, duplicates=appended.duplicates)


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
        async for request in self._requests:
            if request.WhichOneof("message") == "open":
                return request.open
            break
        raise InvalidField("message", "another message", "open first")

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
        raise InvalidField("message", "open", "credit, ack, nack or in_progress after the first message")


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


def _seen(storing: asyncio.Task[Appended]) -> None:
    """Of a batch behind one that ended the stream nobody asks any more what came of it."""
    if not storing.cancelled():
        storing.exception()


async def publish(bus: EventBus, events: Sequence[NewEvent], expected: Mapping[str, int]) -> Appended:
    """Stores a batch, and counts what is refused for its id. Raises EventConflict, SequenceMismatch, StorageError."""
    try:
        return await bus.publish(events, expected)
    except EventConflict as error:
        for conflict in error.conflicts:
            bus.note_refused(events[conflict.index].type)
        raise


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
