"""Decides how a service's events reach the bus: one long stream, many batches in flight, all of them sent again after a break."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from minhos_api.events.v1 import event_bus_service_pb2, event_pb2
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.event_envelope import check_event
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.streams import read

BATCHES_IN_FLIGHT: Final = 256
SILENCE_S: Final = 15.0
"""Three heartbeats of the bus; a stream that is silent for so long is opened again."""

STREAM_LOST: Final = (grpc.RpcError, grpc.aio.BaseError, TimeoutError, asyncio.InvalidStateError)
"""What reading or writing a long stream raises when it has ended and is to be opened again."""

CONDITION: Final = "EVENT_BUS_AWAY"

_LOG: Final = get_logger("runtime.events")
_BACKOFF: Final = Backoff(first=0.05, factor=2.0, limit=1.0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the bus refused one event: its index in the batch, the name of the ErrorReason, and a sentence."""

    index: int
    reason: str
    message: str


class EventsRefused(Exception):
    """Unexpected: the bus refused a batch whole; `refusals` says which events are to blame."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(f"event {refusal.index}: {refusal.message}" for refusal in refusals))
        self.refusals = tuple(refusals)


class EventsUnacknowledged(Exception):
    """Expected while the bus is away: it is not known whether the events are stored; publish the same events again."""


@dataclass(slots=True)
class _Batch:
    request: event_bus_service_pb2.PublishStreamRequest
    answer: asyncio.Future[list[int]]


class Publisher:
    """Publishes over one stream. `run` is its background task; `publish` may be called before it is connected."""

    def __init__(self, stub: Any, conditions: Conditions | None = None) -> None:
        self._stub = stub
        self._conditions = conditions
        self._room = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._open: dict[int, _Batch] = {}
        self._unsent: list[int] = []
        self._wake = asyncio.Event()
        self._last_id = 0

    async def publish(
        self, events: Sequence[event_pb2.Event], *, timeout_s: float | None, checked: bool = False
    ) -> list[int]:
        """Returns the sequences once the events are on disk, all or none; calls keep their order.

        Raises EventInvalid before anything is sent, EventsRefused, and EventsUnacknowledged after `timeout_s` (None
        waits for as long as it takes).
        """
        if not events:
            return []
        if not checked:
            for event in events:
                check_event(event)
        try:
            async with asyncio.timeout(timeout_s):
                await self._room.acquire()
                return await asyncio.shield(self._enqueue(events))
        except TimeoutError:
            raise EventsUnacknowledged(f"the event bus did not answer within {timeout_s:g} s") from None

    def _enqueue(self, events: Sequence[event_pb2.Event]) -> asyncio.Future[list[int]]:
        self._last_id += 1
        request = event_bus_service_pb2.PublishStreamRequest(batch_id=self._last_id, events=events)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(self._answered)
        self._open[self._last_id] = _Batch(request, answer)
        self._unsent.append(self._last_id)
        self._wake.set()
        return answer

    def _answered(self, answer: asyncio.Future[list[int]]) -> None:
        self._room.release()
        if not answer.cancelled():
            answer.exception()  # marks it as seen: its caller may have given up waiting

    async def run(self) -> None:
        """Keeps the stream open until cancelled."""
        failures = 0
        while True:
            self._unsent = list(self._open)
            call = self._stub.PublishStream(wait_for_ready=True)
            sender = asyncio.create_task(self._send(call), name="events-send")
            try:
                await self._receive(call)
                failures = 0
            except STREAM_LOST as error:
                failures += 1
                self._note_away(error)
            finally:
                sender.cancel()
                call.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            await asyncio.sleep(_BACKOFF.delay(max(failures, 1)))

    async def _send(self, call: Any) -> None:
        while True:
            self._wake.clear()
            unsent, self._unsent = self._unsent, []
            for batch_id in unsent:
                await call.write(self._open[batch_id].request)
            if not self._unsent:
                await self._wake.wait()

    async def _receive(self, call: Any) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                response = await read(call)
            if response is grpc.aio.EOF:
                return
            if self._conditions is not None:
                self._conditions.clear(CONDITION)
            batch = self._open.pop(response.batch_id, None)
            if batch is None or batch.answer.done():
                continue
            if response.refusals:
                refusals = [Refusal(item.index, item.reason, item.message) for item in response.refusals]
                batch.answer.set_exception(EventsRefused(refusals))
            else:
                batch.answer.set_result(list(response.sequences))

    def _note_away(self, error: BaseException) -> None:
        code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
        _LOG.warning("events.publish_stream_lost", code=code, unanswered=len(self._open))
        if self._conditions is not None:
            waiting = f", {len(self._open)} batches wait" if self._open else ""
            self._conditions.set(CONDITION, f"the event bus cannot be reached{waiting}")
