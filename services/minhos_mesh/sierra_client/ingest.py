"""Decides how ticks travel to market data: one two-way stream per source, watched for life, closed when it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from minhos_api.market.v1 import market_data_ingest_service_pb2 as pb2
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.ahead import Ahead
from minhos_mesh.runtime.ticks import bytes_or_message
from minhos_mesh.sierra_client.ports import IngestLink, IngestLost, IngestRefused, Opening
from minhos_mesh.sierra_client.translate import batch_request, end_request, open_request
from minhos_mesh.sierra_files.ticks import TickColumns

CONTRACT = "minhos_api.market.v1.MarketDataIngestService"
METHOD = f"/{CONTRACT}/IngestTicks"

OPEN_DEADLINE_S = 5.0
"""Within this the first answer must come."""

SILENCE_S = 10.0
"""A stream that says nothing for so long, not even a heartbeat, is taken for dead."""

_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_REOPENED = ("ERROR_REASON_POSITION_MISMATCH", "ERROR_REASON_SOURCE_CONFLICT")

_Call = grpc.aio.StreamStreamCall[Any, pb2.IngestTicksResponse]


class GrpcIngest:
    """The way to market data over a gRPC channel."""

    def __init__(
        self, channel: grpc.aio.Channel, *, open_deadline_s: float = OPEN_DEADLINE_S, silence_s: float = SILENCE_S
    ) -> None:
        """Uses a channel that leads to MarketDataIngestService; it stays the caller's."""
        self._open_deadline_s = open_deadline_s
        self._silence_s = silence_s
        self._method = channel.stream_stream(
            METHOD, request_serializer=bytes_or_message, response_deserializer=pb2.IngestTicksResponse.FromString
        )

    @asynccontextmanager
    async def connect(self, opening: Opening, wake: Callable[[], None]) -> AsyncIterator[IngestLink]:
        """Opens a stream and learns from which position market data wants to read."""
        call: _Call = self._method(wait_for_ready=True)
        try:
            position = await self._opened(call, opening)
            link = _GrpcLink(call, opening, position, wake)
            reader = asyncio.get_running_loop().create_task(link.read_answers(self._silence_s), name="ingest answers")
            try:
                yield link
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        finally:
            call.cancel()

    async def _opened(self, call: _Call, opening: Opening) -> int:
        try:
            async with asyncio.timeout(self._open_deadline_s):
                await call.write(open_request(opening))
                answer = await call.read()
        except TimeoutError:
            raise IngestLost(f"market data did not answer within {self._open_deadline_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        except asyncio.InvalidStateError:
            raise await _failure_behind(call) from None
        if not isinstance(answer, pb2.IngestTicksResponse):
            raise IngestLost("market data closed the stream before it answered")
        if answer.WhichOneof("message") != "opened":
            raise IngestLost(f"market data answered {answer.WhichOneof('message')} where `opened` was due")
        return answer.opened.through_position


class _GrpcLink:
    """One open stream."""

    def __init__(self, call: _Call, opening: Opening, position: int, wake: Callable[[], None]) -> None:
        self._call = call
        self._opening = opening
        self._wake = wake
        self._wake_at: int | None = None
        self._failure: IngestLost | IngestRefused | None = None
        self.acknowledged = position
        self._ahead = Ahead()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def wake_at(self, position: int) -> None:
        self._wake_at = position
        if self.acknowledged >= position:
            self._wake_at = None

    async def send(self, columns: TickColumns, first_position: int, receive_ns: int | None) -> None:
        if self._ahead.full:
            await self._ahead.room()
        self._ahead.sent(first_position + len(columns) - 1, len(columns))
        await self._write(batch_request(self._opening, columns, first_position, receive_ns))

    async def end(self, through_position: int) -> None:
        await self._write(end_request(through_position))

    async def read_answers(self, silence_s: float) -> None:
        """Takes acknowledgements until the stream ends, then says why and cancels what still waits to be written."""
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    answer = await self._call.read()
                if not isinstance(answer, pb2.IngestTicksResponse):
                    raise IngestLost("market data closed the stream")
                if answer.HasField("ack"):
                    self._acknowledge(answer.ack.through_position)
        except TimeoutError:
            self._failure = IngestLost(f"market data said nothing for {silence_s:g} s")
        except grpc.aio.AioRpcError as error:
            self._failure = failure_of(error)
        except asyncio.InvalidStateError:
            self._failure = await _failure_behind(self._call)
        except IngestLost as lost:
            self._failure = lost
        self._call.cancel()
        self._ahead.end()
        self._wake()

    def _acknowledge(self, position: int) -> None:
        self.acknowledged = max(self.acknowledged, position)
        self._ahead.taken(position)
        if self._wake_at is not None and self.acknowledged >= self._wake_at:
            self._wake_at = None
            self._wake()

    async def _write(self, request: bytes | pb2.IngestTicksRequest) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._failure or failure_of(error) from None
        except asyncio.InvalidStateError:
            raise self._failure or await _failure_behind(self._call) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._failure is None or (task is not None and task.cancelling()):
                raise
            raise self._failure from None


async def _failure_behind(call: _Call) -> IngestLost | IngestRefused:
    """Why a call that takes no more messages has ended."""
    return _failure(await call.code(), await call.details() or "")


def failure_of(error: grpc.aio.AioRpcError) -> IngestLost | IngestRefused:
    """What the end of a stream means: the way is lost, or market data does not take the source."""
    if errors.read(error).reason in _REOPENED:
        return IngestLost(f"market data asks to begin again: {error.details()}")
    return _failure(error.code(), error.details() or "")


def _failure(code: grpc.StatusCode, details: str) -> IngestLost | IngestRefused:
    if code in _REFUSALS:
        return IngestRefused(f"market data refuses the source ({code.name}): {details}")
    return IngestLost(f"market data cannot be reached ({code.name}): {details}")
