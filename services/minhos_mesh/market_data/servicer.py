"""Serves market data by its two contracts: each method hears, asks the service, and says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from minhos_api.market.v1 import market_data_ingest_service_pb2_grpc as ingest_grpc
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1 import market_data_provider_service_pb2_grpc as provider_grpc
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.market_data import translate
from minhos_mesh.market_data.conversation import hearing
from minhos_mesh.market_data.domain.feed import PositionMismatch, ProvenanceRefused, SourceConflict
from minhos_mesh.market_data.domain.reading import Position
from minhos_mesh.market_data.service import MarketDataService
from minhos_mesh.market_data.sessions import MessageRefused, ReaderSession, SourceSession, SymbolUnknown
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.ticks import MalformedBatch, TickBatchView, view_of

_INVALID = ErrorRow(
    grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_INVALID_FIELD,
    ("field", "seen", "allowed"),
    field="field",
)
_FAILED = grpc.StatusCode.FAILED_PRECONDITION
ERRORS: ErrorTable = {
    SymbolUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol", "known", "nearest")
    ),
    SourceConflict: ErrorRow(
        _FAILED, reasons.ERROR_REASON_SOURCE_CONFLICT, ("symbol", "source", "epoch", "held", "held_epoch")
    ),
    PositionMismatch: ErrorRow(_FAILED, reasons.ERROR_REASON_POSITION_MISMATCH, ("symbol", "field", "seen", "allowed")),
    ProvenanceRefused: ErrorRow(
        _FAILED,
        reasons.ERROR_REASON_PROVENANCE_REFUSED,
        ("symbol", "source", "epoch", "field", "seen", "allowed"),
    ),
    MessageRefused: _INVALID,
}


class MarketDataProviderServicer(provider_grpc.MarketDataProviderServiceServicer):
    """Gives prices."""

    def __init__(self, service: MarketDataService) -> None:
        self._service = service

    async def GetMarketData(self, request: pb2.GetMarketDataRequest, _context: Any) -> pb2.GetMarketDataResponse:
        """Last values of one symbol."""
        symbol = request.symbol if request.HasField("symbol") else None
        live = self._service.find(symbol)
        await self._service.caught_up(live)
        return translate.market_data_to_proto(live.feed)

    async def GetAllMarketData(
        self, _request: pb2.GetAllMarketDataRequest, _context: Any
    ) -> pb2.GetAllMarketDataResponse:
        """Last values of all symbols."""
        symbols = [translate.standing_to_proto(standing) for standing in self._service.standings.values()]
        return pb2.GetAllMarketDataResponse(symbols=symbols)

    async def SubscribeMarketData(  # type: ignore[override]
        self, requests: AsyncIterator[pb2.SubscribeMarketDataRequest], context: Any
    ) -> None:
        """What the reader subscribes to, as it comes."""
        with self._service.reader() as session:
            async with hearing(session, _hear_reader(requests, session)):
                await _write(session, context)

    async def StreamMarketData(  # type: ignore[override]
        self, request: pb2.StreamMarketDataRequest, context: Any
    ) -> None:
        """The same for one subscription."""
        with self._service.reader() as session:
            _subscribe(session, request.subscription, "subscription")
            await _write(session, context)


class MarketDataIngestServicer(ingest_grpc.MarketDataIngestServiceServicer):
    """Takes market data in."""

    request_readers = {"IngestTicks": translate.read_ingest_request}  # noqa: RUF012 - never changed
    """Batches are read as arrays, so a tick costs nothing before it is judged."""

    def __init__(self, service: MarketDataService) -> None:
        self._service = service

    async def IngestTicks(  # type: ignore[override]
        self, requests: AsyncIterator[translate.IngestMessage], context: Any
    ) -> None:
        """The records of one source for one symbol."""
        with self._service.source() as session:
            async with hearing(session, _hear_source(requests, session)):
                await _write(session, context)


async def _write(session: ReaderSession | SourceSession, context: Any) -> None:
    while messages := await session.due():
        for message in messages:
            await context.write(message)


async def _hear_reader(requests: AsyncIterator[pb2.SubscribeMarketDataRequest], session: ReaderSession) -> None:
    first = True
    async for request in requests:
        kind = request.WhichOneof("message")
        if first and kind != "subscribe":
            raise MessageRefused("message", f"`{kind}`", "`subscribe` as the first message of SubscribeMarketData")
        first = False
        if kind == "subscribe":
            _subscribe(session, request.subscribe, "subscribe")
        elif kind == "unsubscribe":
            session.unsubscribe(request.unsubscribe.symbols)
        else:
            position = request.progress.position
            session.progress(position.symbol, Position(position.epoch, position.sequence))


def _subscribe(session: ReaderSession, subscription: pb2.MarketSubscription, field: str) -> None:
    resume = translate.resume_from_proto(subscription.resume_after)
    session.subscribe(subscription.symbols, translate.wants_from_proto(subscription), resume, field=field)


async def _hear_source(requests: AsyncIterator[translate.IngestMessage], session: SourceSession) -> None:
    async for request in requests:
        if isinstance(request, TickBatchView):
            await session.take(request)
        elif isinstance(request, MalformedBatch):
            raise MessageRefused("batch", f"malformed ({request})", "a TickBatch with as many ticks as tick_count says")
        elif request.HasField("open"):
            session.open(request.open.symbol, translate.source_from_proto(request.open))
        elif request.HasField("end"):
            session.end()
        else:
            await session.take(view_of(request.batch))
