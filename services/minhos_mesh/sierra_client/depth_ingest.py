"""Decides how order books travel to market data: one two-way stream per symbol, one book under way, the newest next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import depth_pb2, provenance_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as pb2
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.ingest import failure_of
from minhos_mesh.sierra_client.ports import IngestLost, IngestRefused, Opening
from minhos_mesh.sierra_files.depth_book import BookView, Level

METHOD: Final = "/minhos_api.market.v1.MarketDataIngestService/IngestDepth"
ANSWER_S: Final = 10.0
"""Within this a book is acknowledged or a heartbeat comes; else the stream is taken for dead."""

LEVELS: Final = 10
"""Levels of each side that are sent."""


class DepthLink:
    """An open way for the books of one symbol."""

    def __init__(self, call: Any, opening: Opening) -> None:
        self._call = call
        self._opening = opening

    async def send(self, book: BookView, sequence: int, receive_ns: int) -> None:
        """Sends a book and waits until it was taken. Raises IngestLost, IngestRefused."""
        message = depth_pb2.Depth(
            symbol=self._opening.symbol,
            bids=_levels(book.bids),
            asks=_levels(book.asks),
            event_time=_time(book.time_ns),
            receive_time=_time(receive_ns),
            sequence=sequence,
            epoch=self._opening.epoch,
            provenance=_provenance(self._opening.provenance),
        )
        await self._write(pb2.IngestDepthRequest(book=message))
        while True:
            answer = await self.read()
            if answer.HasField("ack") and answer.ack.through_sequence >= sequence:
                return

    async def read(self) -> pb2.IngestDepthResponse:
        """The next answer. Raises IngestLost, IngestRefused."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._call.read()
        except TimeoutError:
            raise IngestLost(f"market data said nothing for {ANSWER_S:g} s") from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await self._lost(error) from None
        if not isinstance(answer, pb2.IngestDepthResponse):
            raise await self._lost(None)
        return answer

    async def begin(self) -> None:
        """Introduces the source. Raises IngestLost, IngestRefused."""
        opening = self._opening
        opened = pb2.IngestOpen(
            source=opening.source,
            symbol=opening.symbol,
            provenance=_provenance(opening.provenance),
            epoch=opening.epoch,
        )
        await self._write(pb2.IngestDepthRequest(open=opened))
        while not (await self.read()).HasField("opened"):
            continue

    async def _write(self, request: pb2.IngestDepthRequest) -> None:
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await self._lost(error) from None

    async def _lost(self, error: Exception | None) -> IngestLost | IngestRefused:
        if isinstance(error, grpc.aio.AioRpcError):
            return failure_of(error)
        self._call.cancel()
        return IngestLost("market data closed the stream of books")


class GrpcDepthIngest:
    """The way to market data over a gRPC channel, which stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._method = channel.stream_stream(
            METHOD,
            request_serializer=pb2.IngestDepthRequest.SerializeToString,
            response_deserializer=pb2.IngestDepthResponse.FromString,
        )

    @asynccontextmanager
    async def connect(self, opening: Opening) -> AsyncIterator[DepthLink]:
        """Opens a stream. Raises IngestLost, IngestRefused."""
        call = self._method(wait_for_ready=True)
        try:
            link = DepthLink(call, opening)
            await link.begin()
            yield link
        finally:
            call.cancel()


def _levels(levels: tuple[Level, ...]) -> list[depth_pb2.DepthLevel]:
    return [
        depth_pb2.DepthLevel(price_e9=level.price_e9, size=level.quantity, order_count=level.num_orders or None)
        for level in levels[:LEVELS]
    ]


def _provenance(provenance: Provenance) -> provenance_pb2.Provenance.ValueType:
    return provenance_pb2.Provenance.Value(f"PROVENANCE_{provenance.value}")


def _time(time_ns: int | None) -> Timestamp | None:
    return None if time_ns is None else timestamp(time_ns)
