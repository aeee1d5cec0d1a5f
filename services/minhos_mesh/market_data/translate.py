"""Decides how market data is said in the contracts, and the other way round."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from minhos_api.market.v1 import history_service_pb2 as history_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1 import market_events_pb2, provenance_pb2, quote_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.market_data.domain.bar_lines import EXCHANGE, MINUTES, NEVER_CLOSED, BarKey
from minhos_mesh.market_data.domain.feed import FEW, LastQuote, Provenance, Source, SymbolFeed
from minhos_mesh.market_data.domain.reading import (
    CHUNK_TICKS,
    DepthDue,
    EpochBegan,
    LosslessRefused,
    Missed,
    Piece,
    Position,
    PositionLost,
    QuoteDue,
    SnapshotDue,
    TickRange,
    Wants,
)
from minhos_mesh.market_data.live_bars import BarsNotKnown, BarsUnavailable
from minhos_mesh.market_data.ports import Beat, Subscribed
from minhos_mesh.market_data.reader_session import SymbolUnknown
from minhos_mesh.market_data.service import Standing
from minhos_mesh.market_data.translate_depth import (
    depth_acknowledged,
    depth_opened,
    depth_source_beat,
    depth_to_proto,
)
from minhos_mesh.runtime.bar_spans import MINUTE, BarSpan, Measure
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.ticks import MalformedBatch, TickBatchView, batch_in_field, message_or_batch
from minhos_mesh.runtime.wire_time import timestamp

KEPT_S = 1.0
"""How long encoded messages are kept: readers that are in step ask for the same at the same time."""
KEPT_BYTES = 5_000_000
KEPT_MESSAGES = 4_096
"""Encoded messages that are kept for readers that want the same: of large batches some, of one tick those of many symbols."""

K = TypeVar("K")
_NONE = (TickRange(0, 0, 0), b"")
_TICKS = pb2.SubscribeMarketDataResponse.TICKS_FIELD_NUMBER
_REASONS: Mapping[type[Exception], error_reason_pb2.ErrorReason.ValueType] = {
    SymbolUnknown: error_reason_pb2.ERROR_REASON_SYMBOL_UNKNOWN,
    PositionLost: error_reason_pb2.ERROR_REASON_POSITION_LOST,
    LosslessRefused: error_reason_pb2.ERROR_REASON_PROVENANCE_REFUSED,
    BarsNotKnown: error_reason_pb2.ERROR_REASON_HISTORY_NOT_HELD,
    BarsUnavailable: error_reason_pb2.ERROR_REASON_NOT_SERVING,
}
_INTERVALS: Mapping[Measure, str] = {
    Measure.SECONDS: "interval_seconds",
    Measure.TRADES: "interval_trades",
    Measure.VOLUME: "interval_volume",
}
_RULES: Mapping[int, str | None] = {
    history_pb2.SESSION_RULE_UNSPECIFIED: None,
    history_pb2.SESSION_RULE_EXCHANGE: EXCHANGE,
    history_pb2.SESSION_RULE_ALWAYS_OPEN: NEVER_CLOSED,
}
_read_request = message_or_batch(
    ingest_pb2.IngestTicksRequest.BATCH_FIELD_NUMBER, ingest_pb2.IngestTicksRequest.FromString
)

IngestMessage = ingest_pb2.IngestTicksRequest | TickBatchView | MalformedBatch


def read_ingest_request(data: bytes) -> IngestMessage:
    """A message of a source: a batch as an array, others as messages; a malformed batch is handed on to be raised."""
    try:
        return _read_request(data)
    except MalformedBatch as malformed:
        return malformed


def source_from_proto(opened: ingest_pb2.IngestOpen) -> Source:
    """Who a source says it is."""
    return Source(opened.source, Provenance(opened.provenance), opened.epoch)


def wants_from_proto(subscription: pb2.MarketSubscription) -> Wants:
    """What a reader wants; ticks when it names no kind."""
    kinds = set(subscription.kinds) or {pb2.MARKET_DATA_KIND_TICKS}
    return Wants(
        ticks=pb2.MARKET_DATA_KIND_TICKS in kinds,
        bars=pb2.MARKET_DATA_KIND_BARS in kinds,
        quotes=pb2.MARKET_DATA_KIND_QUOTES in kinds,
        depth=pb2.MARKET_DATA_KIND_DEPTH in kinds,
        lossless=subscription.slow_reader == pb2.SLOW_READER_LOSSLESS,
        bars_back=subscription.bars_back,
        bar_key=_bar_key(subscription) if pb2.MARKET_DATA_KIND_BARS in kinds else MINUTES,
    )


def _bar_key(subscription: pb2.MarketSubscription) -> BarKey:
    """Which bars are meant; those of a minute, which every feed keeps, when nothing is said."""
    rule = _RULES[subscription.bar_sessions]
    measure = subscription.bar_span.WhichOneof("size")
    if measure is None:
        return MINUTES if rule is None else BarKey(MINUTE, rule)
    span = BarSpan(Measure(measure), getattr(subscription.bar_span, measure))
    return BarKey(MINUTE if span == MINUTE else span, rule)


def resume_from_proto(positions: Sequence[pb2.MarketPosition]) -> list[tuple[str, Position]]:
    """Positions to resume after, each with its symbol."""
    return [(position.symbol, Position(position.epoch, position.sequence)) for position in positions]


def position_to_proto(symbol: str, position: Position | None) -> pb2.MarketPosition | None:
    """A place in the ticks of a symbol; None stays unset."""
    if position is None:
        return None
    return pb2.MarketPosition(symbol=symbol, epoch=position.epoch, sequence=position.sequence)


def provenance_to_proto(provenance: Provenance | None) -> provenance_pb2.Provenance.ValueType:
    """The provenance in the contract, whose numbers are the same."""
    return provenance_pb2.Provenance.ValueType(int(provenance or 0))


def quote_to_proto(quote: LastQuote | None) -> quote_pb2.Quote | None:
    """Last values; None stays unset."""
    if quote is None:
        return None
    values = quote.values
    return quote_pb2.Quote(
        symbol=quote.symbol,
        last_price_e9=values.last_price_e9,
        last_size=values.last_size,
        bid_e9=values.bid_e9,
        ask_e9=values.ask_e9,
        bid_size=values.bid_size,
        ask_size=values.ask_size,
        event_time=timestamp(values.event_time_ns),
        sequence=values.sequence,
        epoch=quote.epoch,
        provenance=provenance_to_proto(quote.provenance),
        volume=values.volume,
    )


def bar_to_proto(feed: SymbolFeed, bar: Bar | None) -> quote_pb2.Bar | None:
    """A bar; None stays unset."""
    if bar is None:
        return None
    return quote_pb2.Bar(
        symbol=feed.symbol,
        open_time=timestamp(bar.open_time_ns),
        open_e9=bar.open_e9,
        high_e9=bar.high_e9,
        low_e9=bar.low_e9,
        close_e9=bar.close_e9,
        volume=bar.volume,
        bid_volume=bar.bid_volume,
        ask_volume=bar.ask_volume,
        trade_count=bar.trades,
        first_sequence=bar.first_sequence,
        last_sequence=bar.last_sequence,
        closed=bar.closed,
        provenance=provenance_to_proto(feed.provenance),
        epoch=feed.epoch or 0,
        close_time=timestamp(bar.close_time_ns),
        trading_day=bar.trading_day.isoformat(),
        closing_sequence=bar.closing_sequence,
        first_trade_sequence=bar.first_trade,
        last_trade_sequence=bar.last_trade,
        **{_INTERVALS[bar.span.measure]: bar.span.size},
    )


def market_data_to_proto(feed: SymbolFeed, *, with_depth: bool = False) -> pb2.GetMarketDataResponse:
    """Last values of one symbol."""
    return pb2.GetMarketDataResponse(
        symbol=feed.symbol,
        quote=quote_to_proto(feed.quote),
        bar=bar_to_proto(feed, feed.open_bar),
        depth=depth_to_proto(feed.depth) if with_depth else None,
    )


def standing_to_proto(standing: Standing) -> pb2.SymbolMarketData:
    """Last values and counters of one symbol."""
    live, feed = standing.live, standing.live.feed
    return pb2.SymbolMarketData(
        symbol=feed.symbol,
        quote=quote_to_proto(feed.quote),
        source=feed.source.name if feed.source is not None and live.owner is not None else "",
        records_read=feed.read,
        ticks_sequenced=feed.sequence,
        rejected={str(reason): count for reason, count in feed.rejected.items()},
        bars_closed=feed.bars_closed,
        ticks_per_second=standing.per_second,
        subscribers=len(live.wakers),
        books_taken=feed.depth.taken,
        books_rejected={str(reason): count for reason, count in feed.depth.rejected.items()},
    )


def updated_event(quote: LastQuote) -> market_events_pb2.MarketDataUpdated:
    """The payload of `market_data.updated`."""
    return market_events_pb2.MarketDataUpdated(quote=quote_to_proto(quote))


class _Newest(Generic[K]):
    """The newest few encoded messages."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._kept: OrderedDict[K, bytes] = OrderedDict()
        self._since: deque[float] = deque()
        """When each was made, the oldest first."""
        self._bytes = 0

    def get(self, key: K) -> bytes | None:
        """What was kept under a key."""
        return self._kept.get(key)

    def put(self, key: K, value: bytes) -> bytes:
        """Keeps a message that is not kept yet; the oldest give way."""
        now_s = self._now_s()
        self._kept[key] = value
        self._since.append(now_s)
        self._bytes += len(value)
        while self._kept and (
            self._bytes > KEPT_BYTES or len(self._kept) > KEPT_MESSAGES or now_s - self._since[0] > KEPT_S
        ):
            self._since.popleft()
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return value


class StreamEncoder:
    """Encodes each batch and each quote once, for all readers; the same bytes serve both reading RPCs."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` is a clock that only runs forward, in seconds."""
        self._batches: _Newest[tuple[str, TickRange]] = _Newest(now_s)
        self._quotes: _Newest[tuple[str, int, int]] = _Newest(now_s)
        self._books: _Newest[tuple[str, DepthDue]] = _Newest(now_s)
        self._small: dict[str, tuple[TickRange, bytes]] = {}
        """The newest small batch of each symbol: mostly its readers are in step and want just this."""
        self.batches_encoded = 0
        """Batches that were encoded and not taken from those kept."""

    def piece(self, feed: SymbolFeed, piece: Piece) -> bytes:
        """See `Encoder`."""
        if isinstance(piece, TickRange):
            return self._batch(feed, piece)
        if isinstance(piece, QuoteDue):
            key = (feed.symbol, feed.epoch or 0, piece.sequence)
            made = self._quotes.get(key)
            quote = quote_to_proto(feed.quote) if made is None else None
            return made or self._quotes.put(key, _said(pb2.SubscribeMarketDataResponse(quote=quote)))
        if isinstance(piece, DepthDue):
            book = self._books.get((feed.symbol, piece))
            said = pb2.SubscribeMarketDataResponse(depth=depth_to_proto(feed.depth)) if book is None else None
            return book or self._books.put((feed.symbol, piece), b"" if said is None else _said(said))
        if isinstance(piece, Bar):
            return _said(pb2.SubscribeMarketDataResponse(bar=bar_to_proto(feed, piece)))
        if isinstance(piece, Missed):
            gap = pb2.MarketGap(
                symbol=feed.symbol, epoch=piece.epoch, first_sequence=piece.first, last_sequence=piece.last
            )
            return _said(pb2.SubscribeMarketDataResponse(gap=gap))
        if isinstance(piece, EpochBegan):
            provenance = provenance_to_proto(piece.provenance)
            epoch = pb2.MarketEpoch(symbol=feed.symbol, epoch=piece.epoch, provenance=provenance)
            return _said(pb2.SubscribeMarketDataResponse(epoch=epoch))
        return _said(pb2.SubscribeMarketDataResponse(snapshot=_snapshot(feed, piece)))

    def _batch(self, feed: SymbolFeed, ticks: TickRange) -> bytes:
        known, small = self._small.get(feed.symbol, _NONE)
        if known == ticks:
            return small
        key = (feed.symbol, ticks)
        made = self._batches.get(key)
        if made is None:
            self.batches_encoded += 1
            parts = feed.ring.parts(ticks.first, ticks.last)
            provenance = int(feed.provenance or 0)
            made = batch_in_field(_TICKS, feed.symbol, provenance, ticks.epoch, ticks.first, *parts)
            self._batches.put(key, made)
        if ticks.last - ticks.first < FEW:
            self._small[feed.symbol] = ticks, made
        return made

    def came(self, feed: SymbolFeed, batch: TickBatchView, stamped: bytes = b"") -> None:
        """See `Encoder`: the bytes in which it came are those in which it goes, where they are all that it came in."""
        message, count = batch.in_field(_TICKS), len(batch)
        if message is None or batch.epoch != feed.epoch or not 0 < count <= CHUNK_TICKS:
            return
        ticks = TickRange(batch.epoch, batch.first_sequence, batch.first_sequence + count - 1)
        if count <= FEW:
            self._small[feed.symbol] = ticks, message[: -len(stamped)] + stamped if stamped else message
        elif self._batches.get((feed.symbol, ticks)) is None:
            self._batches.put((feed.symbol, ticks), message)

    def answer(self, answer: Subscribed) -> bytes:
        """See `Encoder`."""
        subscribed = pb2.MarketSubscribed(
            symbol=answer.symbol,
            position=position_to_proto(answer.symbol, answer.position),
            oldest=position_to_proto(answer.symbol, answer.oldest),
            newest=position_to_proto(answer.symbol, answer.newest),
            provenance=provenance_to_proto(answer.provenance if answer.newest is not None else None),
        )
        if answer.refusal is not None:
            subscribed.refused_reason = error_reason_pb2.ErrorReason.Name(_REASONS[type(answer.refusal)])
            subscribed.refused_message = str(answer.refusal)
        return _said(pb2.SubscribeMarketDataResponse(subscribed=subscribed))

    def beat(self, beat: Beat) -> bytes:
        """See `Encoder`."""
        heartbeat = pb2.MarketHeartbeat(
            send_time=timestamp(beat.wall_ns),
            newest=[
                pb2.MarketPosition(symbol=symbol, epoch=position.epoch, sequence=position.sequence)
                for symbol, position in beat.newest
            ],
            ticks_sent=beat.sent,
            ticks_missed=beat.missed,
            quotes_skipped=beat.quotes_skipped,
            books_skipped=beat.books_skipped,
        )
        return _said(pb2.SubscribeMarketDataResponse(heartbeat=heartbeat))

    def opened(self, position: int) -> bytes:
        """See `Encoder`."""
        opened = ingest_pb2.IngestOpened(through_position=position)
        return ingest_pb2.IngestTicksResponse(opened=opened).SerializeToString()

    def acknowledged(self, position: int, sequence: int, rejected: int) -> bytes:
        """See `Encoder`."""
        ack = ingest_pb2.IngestAck(through_position=position, through_sequence=sequence, rejected=rejected)
        return ingest_pb2.IngestTicksResponse(ack=ack).SerializeToString()

    def source_beat(self) -> bytes:
        """See `Encoder`."""
        return ingest_pb2.IngestTicksResponse(heartbeat=ingest_pb2.IngestHeartbeat()).SerializeToString()

    depth_opened = staticmethod(depth_opened)
    depth_acknowledged = staticmethod(depth_acknowledged)
    depth_source_beat = staticmethod(depth_source_beat)


def _said(message: pb2.SubscribeMarketDataResponse) -> bytes:
    return message.SerializeToString()


def _snapshot(feed: SymbolFeed, due: SnapshotDue) -> pb2.MarketSnapshot:
    line = feed.lines[due.bar_key]
    bars = [bar_to_proto(feed, bar) for bar in line.newest(due.bars_back)]
    return pb2.MarketSnapshot(
        symbol=feed.symbol,
        quote=quote_to_proto(feed.quote),
        bars=[bar for bar in bars if bar is not None],
        open_bar=bar_to_proto(feed, line.open_bar),
        depth=depth_to_proto(feed.depth) if due.depth else None,
    )
