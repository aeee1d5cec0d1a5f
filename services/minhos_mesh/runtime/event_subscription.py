"""Decides how a service reads events: from where, one after the other, answered when handled, going on after every break."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.contracts import event_of
from minhos_mesh.runtime.errors import read as read_error
from minhos_mesh.runtime.event_lanes import Lanes
from minhos_mesh.runtime.event_publisher import SILENCE_S, STREAM_LOST
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.streams import cancelled_from_outside, cut, read

_LOG: Final = get_logger("runtime.events")
_BACKOFF: Final = Backoff(first=0.05, factor=2.0, limit=1.0)
_LONGEST_ERROR: Final = 2000
_LONGEST_DELAY_S: Final = 3600.0
_GOODBYE_S: Final = 0.5
_ACK_DEADLINE_S: Final = 30.0
"""What the bus takes where none is named."""
_POSITION_LOST: Final = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_POSITION_LOST)

EventHandler = Callable[[event_pb2.Event], Awaitable[None]]
PayloadHandler = Callable[[event_pb2.Event, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that this reader does not get; `skipped` is how many matched, 0 when that is not known."""

    first_sequence: int
    last_sequence: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a subscription wants; see SubscribeOpen of the contract.

    Ephemeral unless `durable` names a consumer; then `member` must be unique among its members. `start` counts at the
    very first opening only: later ones go on behind what was handled. `latest_per_subject` is for ephemeral readers.
    With a `concurrency` of 1 one event is handled after the other, in the order of the bus. With more, so many of each type are
    handled at once, each type by itself and of one subject always one after the other; `concurrency_of` says it for single
    types. A slow handler holds up nobody else as long as `credit`, and the 1,024 events that the bus looks ahead, are not all its.
    """

    types: tuple[str, ...] = ()
    subject: str | None = None
    durable: str | None = None
    member: str = ""
    from_beginning: bool = False
    after_sequence: int | None = None
    latest_per_subject: bool = False
    max_attempts: int = 0
    ack_deadline_s: float | None = None
    credit: int = 256
    concurrency: int = 1
    concurrency_of: Mapping[str, int] = field(default_factory=dict)
    on_gap: Callable[[Gap], None] | None = None


class TryLater(Exception):
    """Raised by a handler that wants its event again no sooner than after a while; it counts as an attempt."""

    def __init__(self, delay_s: float, because: str = "") -> None:
        super().__init__(because)
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a handler raised, as it is told to the bus."""

    error: str
    delay_s: float | None = None


def by_payload(handlers: Mapping[type[Message], PayloadHandler]) -> tuple[tuple[str, ...], EventHandler]:
    """The event types of these payload classes, and one handler that unpacks and calls the right function.

    Raises TypeError for a class that is not the payload of an event type.
    """
    functions: dict[str, tuple[type[Message], PayloadHandler]] = {}
    for kind, function in handlers.items():
        contract = event_of(kind.DESCRIPTOR)
        if contract is None:
            raise TypeError(f"{kind.DESCRIPTOR.full_name} is not the payload of an event type")
        functions[contract.type] = kind, function

    async def handle(event: event_pb2.Event) -> None:
        kind, function = functions[event.type]
        if event.payload.TypeName() != kind.DESCRIPTOR.full_name:
            raise TypeError(
                f"{event.type} version {event.version} carries {event.payload.TypeName()} and no {kind.__name__}"
            )
        await function(event, kind.FromString(event.payload.value))

    return tuple(sorted(functions)), handle


class _At(enum.Enum):
    """What a stream is doing right now."""

    OPENING = enum.auto()
    READING = enum.auto()
    HANDLING = enum.auto()
    ANSWERING = enum.auto()


class Subscription:
    """One reader. `run` is its background task; `handled` counts events whose handler returned."""

    def __init__(self, stub: Any, reading: Reading, handle: EventHandler) -> None:
        self.opened = asyncio.Event()
        self.position: int | None = reading.after_sequence
        self.handled = 0
        self.failed = 0
        self._stub = stub
        self._reading = reading
        self._handle = handle
        self._from_beginning = reading.from_beginning
        self._owed = 0
        self._at = _At.OPENING
        self._leaving = False
        self._lanes: Lanes | None = None

    async def wait_open(self, timeout_s: float) -> None:
        """Returns once the bus has accepted the subscription. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self.opened.wait()

    async def run(self) -> None:
        """Reads until cancelled. A handler that raises affects neither the stream nor other events."""
        failures = 0
        while True:
            call = self._stub.Subscribe(wait_for_ready=True)
            # A task of its own, for gRPC cancels a call when the one who waits for its next message is cancelled.
            stream = asyncio.create_task(self._stream(call), name="events-stream")
            try:
                await asyncio.shield(stream)
                failures = 0
            except STREAM_LOST as error:
                failures = 1 if self.opened.is_set() else failures + 1
                self._note_lost(error)
            except asyncio.CancelledError:
                await self._leave(call, stream)
                raise
            finally:
                self.opened.clear()
                call.cancel()
                stream.cancel()
                await asyncio.gather(stream, return_exceptions=True)
            await asyncio.sleep(_BACKOFF.delay(max(failures, 1)))

    async def _stream(self, call: Any) -> None:
        """One stream from its opening to its end."""
        self._at = _At.OPENING
        try:
            await call.write(self._open_request())
            if self._reading.concurrency > 1 or self._reading.concurrency_of:
                await self._read_at_once(call)
            else:
                await self._read(call)
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            raise cut() from None

    async def _read_at_once(self, call: Any) -> None:
        """Reads, handles and answers side by side; whichever cannot go on ends all."""
        reading = self._reading
        deadline_s = reading.ack_deadline_s or _ACK_DEADLINE_S
        durable = reading.durable is not None
        lanes = self._lanes = Lanes(self._nack_of, self._places, durable=durable, waits_s=deadline_s / 3)
        tasks = [
            asyncio.create_task(self._read(call), name="events-read"),
            asyncio.create_task(lanes.answer(call, reading.credit), name="events-answer"),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await lanes.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._lanes = None
            if not durable and lanes.position is not None:
                self.position = lanes.position

    def _places(self, event_type: str) -> int:
        return self._reading.concurrency_of.get(event_type, self._reading.concurrency)

    async def _nack_of(self, item: bus_pb2.DeliveredEvent) -> bus_pb2.SubscribeNack | None:
        failed = await self._handled(item.event, item.attempt)
        return None if failed is None else _nack(item.event, failed)

    async def _leave(self, call: Any, stream: asyncio.Task[None]) -> None:
        """Ends the stream as a durable reader that leaves: it acknowledges what it has handled, the rest counts as no attempt."""
        if self._reading.durable is None or self._at is _At.OPENING:
            return
        self._leaving = True
        try:
            async with asyncio.timeout(_GOODBYE_S):
                if self._lanes is not None:
                    await self._lanes.stop()
                    await self._lanes.flush(call)
                    await call.done_writing()
                elif self._at is _At.HANDLING:
                    stream.cancel()  # ends the handler alone, see `_deliver`
                elif self._at is _At.READING:
                    await call.done_writing()
                await stream
        except (*STREAM_LOST, asyncio.CancelledError):
            return  # the bus is away or slow; it takes the reader for vanished, which costs one attempt

    async def _read(self, call: Any) -> None:
        self._owed = 0
        while True:
            if self._leaving and self._lanes is None:
                await call.done_writing()
            self._at = _At.READING
            async with asyncio.timeout(SILENCE_S):
                response = await read(call)
            self._at = _At.ANSWERING
            if response is grpc.aio.EOF:
                return
            if self._leaving:
                continue
            kind = response.WhichOneof("message")
            if kind == "delivery":
                await self._deliver(call, response.delivery.events)
            elif kind == "opened":
                if self.position is None:
                    self.position = response.opened.after_sequence
                self.opened.set()
            elif kind == "gap":
                self._tell_gap(Gap(response.gap.first_sequence, response.gap.last_sequence, response.gap.skipped))

    async def _deliver(self, call: Any, delivered: Sequence[bus_pb2.DeliveredEvent]) -> None:
        """Handles one message. After a failure the rest of that subject in it is left: the bus sends it again behind."""
        if self._lanes is not None:
            self._lanes.put(delivered)
            return
        done = await self._one_by_one(call, delivered)
        if done:
            await call.write(bus_pb2.SubscribeRequest(ack=bus_pb2.SubscribeAck(sequences=done)))
        if self._leaving:
            return
        self._owed += len(delivered)
        if self._owed * 2 >= self._reading.credit:
            await call.write(bus_pb2.SubscribeRequest(credit=bus_pb2.SubscribeCredit(count=self._owed)))
            self._owed = 0

    async def _one_by_one(self, call: Any, delivered: Sequence[bus_pb2.DeliveredEvent]) -> list[int]:
        """Handles one event after the other; gives what is to be acknowledged."""
        done: list[int] = []
        left: set[str] = set()
        for item in delivered:
            event = item.event
            if event.subject in left:
                continue
            self._at = _At.HANDLING
            try:
                failed = await self._handled(event, item.attempt)
            except asyncio.CancelledError:
                if not self._goes_on():
                    raise
                break
            finally:
                self._at = _At.ANSWERING
            if self._reading.durable is None:
                self.position = event.sequence
            elif failed is None:
                done.append(event.sequence)
            else:
                left.add(event.subject)
                await call.write(bus_pb2.SubscribeRequest(nack=_nack(event, failed)))
            if self._leaving:
                break
        return done

    async def _handled(self, event: event_pb2.Event, attempt: int) -> _Failed | None:
        try:
            await self._handle(event)
        except (Exception, asyncio.CancelledError) as error:
            # Whatever a handler raises is told to the bus and logged, a call of its own that was cancelled too.
            if cancelled_from_outside():
                raise asyncio.CancelledError from error  # what it raises on its way out is no failure
            self.failed += 1
            _LOG.error(
                "events.handler_failed",
                type=event.type,
                sequence=event.sequence,
                event_id=event.event_id,
                attempt=attempt,
                exc_info=error,
            )
            return _Failed(f"{type(error).__name__}: {error}", error.delay_s if isinstance(error, TryLater) else None)
        self.handled += 1
        return None

    def _goes_on(self) -> bool:
        """Whether a cancellation was meant for the handler alone, since the reader leaves; then it is over."""
        task = asyncio.current_task()
        if not self._leaving or task is None:
            return False
        task.uncancel()
        return True

    def _open_request(self) -> bus_pb2.SubscribeRequest:
        reading = self._reading
        opening = bus_pb2.SubscribeOpen(types=reading.types, subject=reading.subject, credit=reading.credit)
        if self.position is not None:
            opening.start.after_sequence = self.position
        elif self._from_beginning:
            opening.start.beginning = True
        if reading.durable is None:
            policy = bus_pb2.SLOW_READER_POLICY_KEEP_ALL_WITH_GAP
            if reading.latest_per_subject:
                policy = bus_pb2.SLOW_READER_POLICY_LATEST_PER_SUBJECT
            opening.ephemeral.slow_reader_policy = policy
        else:
            opening.durable.name, opening.durable.member = reading.durable, reading.member
            opening.durable.replace_selection = True  # the name is the service's own, and what it needs grows with it
            opening.durable.max_attempts = reading.max_attempts
            if reading.ack_deadline_s is not None:
                opening.durable.ack_deadline.FromNanoseconds(int(reading.ack_deadline_s * 1e9))
        return bus_pb2.SubscribeRequest(open=opening)

    def _tell_gap(self, gap: Gap) -> None:
        _LOG.warning("events.gap", first=gap.first_sequence, last=gap.last_sequence, skipped=gap.skipped)
        if self._reading.on_gap is not None:
            self._reading.on_gap(gap)

    def _note_lost(self, error: BaseException) -> None:
        if not isinstance(error, grpc.RpcError):
            _LOG.warning("events.subscription_lost", types=self._reading.types, because=type(error).__name__)
            return
        told = read_error(error)
        _LOG.warning(
            "events.subscription_lost",
            types=self._reading.types,
            code=told.code.name,
            reason=told.reason,
            because=told.message,
        )
        if told.reason == _POSITION_LOST:
            self._tell_gap(Gap(self.position or 0, 0, 0))
            self.position, self._from_beginning = None, True


def _nack(event: event_pb2.Event, failed: _Failed) -> bus_pb2.SubscribeNack:
    nack = bus_pb2.SubscribeNack(sequence=event.sequence, error=failed.error[:_LONGEST_ERROR])
    if failed.delay_s is not None:
        nack.delay.FromNanoseconds(int(max(0.0, min(failed.delay_s, _LONGEST_DELAY_S)) * 1e9))
    return nack
