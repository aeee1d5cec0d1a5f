"""Serves market data by its two contracts: each method hears, asks the service, and says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2_grpc as ingest_grpc
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1 import market_data_provider_service_pb2_grpc as provider_grpc
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.market_data import translate
from minhos_mesh.market_data.conversation import MessageRefused, hearing
from minhos_mesh.market_data.domain.feed import PositionMismatch, ProvenanceRefused, SourceConflict
from minhos_mesh.market_data.domain.reading import Position
from minhos_mesh.market_data.live_bars import LiveBars
from minhos_mesh.market_data.reader_session import ReaderSession, SymbolUnknown
from minhos_mesh.market_data.service import MarketDataService
from minhos_mesh.market_data.source_sessions import DepthSession, SourceSession
from minhos_mesh.market_data.translate_depth import book_from_proto
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.interceptors import checks_requests_itself
from minhos_mesh.runtime.ticks import MalformedBatch, TickBatchView, view_of
from minhos_mesh.runtime.validation import check

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

    def __init__(self, service: MarketDataService, bars: LiveBars | None = None) -> None:
        """`bars` begins those of other spans than a minute; what is in memory is enough for it when there is none."""
        self._service, self._bars = service, bars or LiveBars(service.clock)

    async def GetMarketData(self, request: pb2.GetMarketDataRequest, _context: Any) -> pb2.GetMarketDataResponse:
        """Last values of one symbol."""
        symbol = request.symbol if request.HasField("symbol") else None
        live = self._service.find(symbol)
        await self._service.caught_up(live)
        return translate.market_data_to_proto(live.feed, with_depth=request.with_depth)

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
            async with hearing(session, _hear_reader(requests, session, self._bars)):
                await _write(session, context)

    async def StreamMarketData(  # type: ignore[override]
        self, request: pb2.StreamMarketDataRequest, context: Any
    ) -> None:
        """The same for one subscription."""
        with self._service.reader() as session:
            await _subscribe(session, request.subscription, "subscription", self._bars)
            await _write(session, context)


class MarketDataIngestServicer(ingest_grpc.MarketDataIngestServiceServicer):
    """Takes market data in."""

    request_readers = {"IngestTicks": translate.read_ingest_request}  # noqa: RUF012 - never changed
    """Batches are read as arrays, so a tick costs nothing before it is judged."""

    def __init__(self, service: MarketDataService) -> None:
        self._service = service

    @checks_requests_itself
    async def IngestTicks(  # type: ignore[override]
        self, requests: AsyncIterator[translate.IngestMessage], context: Any
    ) -> None:
        """The records of one source for one symbol."""
        with self._service.source() as session:
            async with hearing(session, _hear_source(requests, session)):
                await _write(session, context)

    async def IngestDepth(  # type: ignore[override]
        self, requests: AsyncIterator[ingest_pb2.IngestDepthRequest], context: Any
    ) -> None:
        """The order books of one source for one symbol."""
        with self._service.depth_source() as session:
            async with hearing(session, _hear_depth(requests, session, self._service.clock)):
                await _write(session, context)


async def _write(session: ReaderSession | SourceSession | DepthSession, context: Any) -> None:
    while messages := await session.due():
        for message in messages:
            await context.write(message)


async def _hear_reader(
    requests: AsyncIterator[pb2.SubscribeMarketDataRequest], session: ReaderSession, bars: LiveBars
) -> None:
    first = True
    async for request in requests:
        kind = request.WhichOneof("message")
        if first and kind != "subscribe":
            raise MessageRefused("message", f"`{kind}`", "`subscribe` as the first message of SubscribeMarketData")
        first = False
        if kind == "subscribe":
            await _subscribe(session, request.subscribe, "subscribe", bars)
        elif kind == "unsubscribe":
            session.unsubscribe(request.unsubscribe.symbols)
        else:
            position = request.progress.position
            session.progress(position.symbol, Position(position.epoch, position.sequence))


async def _subscribe(session: ReaderSession, subscription: pb2.MarketSubscription, field: str, bars: LiveBars) -> None:
    symbols, wants = subscription.symbols, translate.wants_from_proto(subscription)
    resume = translate.resume_from_proto(subscription.resume_after)
    async with bars.ready(session.feeds_of(symbols), wants.bar_key) as refused:
        session.subscribe(symbols, wants, resume, field=field, refused=refused)


async def _hear_depth(
    requests: AsyncIterator[ingest_pb2.IngestDepthRequest], session: DepthSession, clock: Clock
) -> None:
    async for request in requests:
        if request.HasField("open"):
            session.open(request.open.symbol, translate.source_from_proto(request.open))
        else:
            book = request.book
            session.take(book.symbol, book.provenance, book.epoch, book_from_proto(book, clock.wall_ns()))


async def _hear_source(requests: AsyncIterator[translate.IngestMessage], session: SourceSession) -> None:
    async for request in requests:
        if isinstance(request, TickBatchView):
            if not session.take_alone(request):
                await session.take(request)
            continue
        if isinstance(request, MalformedBatch):
            raise MessageRefused("batch", f"malformed ({request})", "a TickBatch with as many ticks as tick_count says")
        check(request)
        if request.HasField("open"):
            session.open(request.open.symbol, translate.source_from_proto(request.open))
        elif request.HasField("end"):
            session.end()
        else:
            await session.take(view_of(request.batch))
