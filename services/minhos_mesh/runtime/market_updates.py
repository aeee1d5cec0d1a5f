"""What a reader of market data is given: typed values instead of messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import depth_pb2, quote_pb2
from minhos_api.market.v1 import history_service_pb2 as history_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_mesh.runtime.bar_spans import BarSpan, Measure
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.ticks import TickBatchView


class Position(NamedTuple):
    """A place in the ticks of a symbol: the last one read. Epoch 0 means the one that is current."""

    epoch: int
    sequence: int


FROM_START = Position(0, 0)
"""Resume after it to read the current epoch from its first tick."""


@dataclass(frozen=True, slots=True)
class BarsOf:
    """Which bars a reader wants."""

    span: BarSpan
    always_open: bool | None = None
    """True: days in UTC are sessions; False: those of the exchange; None: days for SIMULATED data, else the exchange's."""

    def say(self, wanted: pb2.MarketSubscription) -> None:
        """Says it in the contract."""
        setattr(wanted.bar_span, str(self.span.measure), self.span.size)
        if self.always_open is not None:
            wanted.bar_sessions = (
                history_pb2.SESSION_RULE_ALWAYS_OPEN if self.always_open else history_pb2.SESSION_RULE_EXCHANGE
            )


@dataclass(frozen=True, slots=True)
class MarketQuote:
    """Last values: prices in 1e-9 units, sizes in contracts, time in ns since the epoch; absent is None."""

    symbol: str
    epoch: int
    sequence: int
    """The tick that brought the newest of them."""
    provenance: int
    """Value of the contract's enum Provenance."""
    event_time_ns: int
    last_price_e9: int | None
    last_size: int | None
    bid_e9: int | None
    ask_e9: int | None
    bid_size: int | None
    ask_size: int | None
    volume: int
    """Contracts traded since the epoch began."""


@dataclass(frozen=True, slots=True)
class BarClosed:
    """A bar that will not change; it comes after the ticks up to the one that closed it (`closing_sequence`)."""

    symbol: str
    epoch: int
    provenance: int
    bar: Bar

    @property
    def closing_sequence(self) -> int:
        """The tick that closed it: the first one of a later span, or the trade that filled it."""
        return self.bar.closing_sequence


class DepthLevel(NamedTuple):
    """One price of one side of an order book: 1e-9 units, contracts, orders where the source says."""

    price_e9: int
    size: int
    orders: int | None


@dataclass(frozen=True, slots=True)
class MarketDepth:
    """An order book, whole: it replaces the one before. Times in ns since the epoch, absent is None."""

    symbol: str
    epoch: int
    """Generation of the source of books, which is not the one of the ticks."""
    sequence: int
    """Number of the book; numbers in between are books that were passed over."""
    provenance: int
    """Value of the contract's enum Provenance."""
    event_time_ns: int | None
    receive_time_ns: int
    bids: tuple[DepthLevel, ...]
    """The highest first, at most ten."""
    asks: tuple[DepthLevel, ...]
    """The lowest first, at most ten."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a symbol stands when reading begins; everything after `position` comes as updates."""

    symbol: str
    position: Position | None
    """None before the first tick."""
    provenance: int
    """0 before the first tick."""
    quote: MarketQuote | None
    bars: tuple[Bar, ...]
    """Closed bars, the oldest first."""
    open_bar: Bar | None
    depth: MarketDepth | None = None
    """The newest order book, where it is read and there is one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Ticks first..last of an epoch that this reader will not get."""

    symbol: str
    epoch: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class EpochChanged:
    """The source began anew: sequences start at 1, nothing of before may be continued."""

    symbol: str
    epoch: int
    provenance: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The stream lives and nothing was due."""

    time_ns: int
    newest: Mapping[str, Position]
    """Newest position of each symbol."""
    ticks_sent: int
    ticks_missed: int
    quotes_skipped: int = 0
    """Changes of last values that were passed over for newer ones."""
    books_skipped: int = 0
    """Order books that were passed over for newer ones."""


MarketUpdate = TickBatchView | BarClosed | MarketQuote | MarketDepth | Snapshot | Gap | EpochChanged | Heartbeat


def time_ns(time: Timestamp) -> int:
    """A time in ns since the Unix epoch."""
    return time.seconds * 1_000_000_000 + time.nanos


def position_of(message: pb2.MarketPosition) -> Position:
    """A place in the ticks of a symbol."""
    return Position(message.epoch, message.sequence)


def quote_of(message: quote_pb2.Quote) -> MarketQuote:
    """Last values."""
    return MarketQuote(
        symbol=message.symbol,
        epoch=message.epoch,
        sequence=message.sequence,
        provenance=message.provenance,
        event_time_ns=time_ns(message.event_time),
        last_price_e9=message.last_price_e9 if message.HasField("last_price_e9") else None,
        last_size=message.last_size if message.HasField("last_size") else None,
        bid_e9=message.bid_e9 if message.HasField("bid_e9") else None,
        ask_e9=message.ask_e9 if message.HasField("ask_e9") else None,
        bid_size=message.bid_size if message.HasField("bid_size") else None,
        ask_size=message.ask_size if message.HasField("ask_size") else None,
        volume=message.volume,
    )


def bar_of(message: quote_pb2.Bar) -> Bar:
    """One bar."""
    return Bar(
        open_time_ns=time_ns(message.open_time),
        close_time_ns=time_ns(message.close_time),
        open_e9=message.open_e9,
        high_e9=message.high_e9,
        low_e9=message.low_e9,
        close_e9=message.close_e9,
        volume=message.volume,
        bid_volume=message.bid_volume,
        ask_volume=message.ask_volume,
        trades=message.trade_count,
        first_sequence=message.first_sequence,
        last_sequence=message.last_sequence,
        span=span_of(message),
        trading_day=date.fromisoformat(message.trading_day),
        first_trade=message.first_trade_sequence,
        last_trade=message.last_trade_sequence,
        first_epoch=message.epoch,
        last_epoch=message.epoch,
        closing_sequence=message.closing_sequence,
        closed=message.closed,
    )


def span_of(message: quote_pb2.Bar) -> BarSpan:
    """What a bar spans."""
    if message.interval_seconds:
        return BarSpan(Measure.SECONDS, message.interval_seconds)
    if message.interval_trades:
        return BarSpan(Measure.TRADES, message.interval_trades)
    return BarSpan(Measure.VOLUME, message.interval_volume)


def depth_of(message: depth_pb2.Depth) -> MarketDepth:
    """An order book."""
    return MarketDepth(
        symbol=message.symbol,
        epoch=message.epoch,
        sequence=message.sequence,
        provenance=message.provenance,
        event_time_ns=time_ns(message.event_time) if message.HasField("event_time") else None,
        receive_time_ns=time_ns(message.receive_time),
        bids=tuple(map(_level_of, message.bids)),
        asks=tuple(map(_level_of, message.asks)),
    )


def _level_of(message: depth_pb2.DepthLevel) -> DepthLevel:
    orders = message.order_count if message.HasField("order_count") else None
    return DepthLevel(message.price_e9, message.size, orders)


def snapshot_of(message: pb2.MarketSnapshot) -> Snapshot:
    """Where a symbol stands."""
    quote = quote_of(message.quote) if message.HasField("quote") else None
    return Snapshot(
        symbol=message.symbol,
        position=Position(quote.epoch, quote.sequence) if quote is not None else None,
        provenance=quote.provenance if quote is not None else 0,
        quote=quote,
        bars=tuple(bar_of(bar) for bar in message.bars),
        open_bar=bar_of(message.open_bar) if message.HasField("open_bar") else None,
        depth=depth_of(message.depth) if message.HasField("depth") else None,
    )


def update_of(message: pb2.SubscribeMarketDataResponse) -> MarketUpdate | None:
    """An update that is not a batch of ticks; None for an answer to a subscription and for what is not known here."""
    kind = message.WhichOneof("message")
    if kind == "bar":
        bar = message.bar
        return BarClosed(bar.symbol, bar.epoch, bar.provenance, bar_of(bar))
    if kind == "quote":
        return quote_of(message.quote)
    if kind == "depth":
        return depth_of(message.depth)
    if kind == "snapshot":
        return snapshot_of(message.snapshot)
    if kind == "gap":
        gap = message.gap
        return Gap(gap.symbol, gap.epoch, gap.first_sequence, gap.last_sequence)
    if kind == "epoch":
        return EpochChanged(message.epoch.symbol, message.epoch.epoch, message.epoch.provenance)
    if kind == "heartbeat":
        beat = message.heartbeat
        newest = {position.symbol: position_of(position) for position in beat.newest}
        return Heartbeat(
            time_ns(beat.send_time),
            newest,
            beat.ticks_sent,
            beat.ticks_missed,
            beat.quotes_skipped,
            beat.books_skipped,
        )
    return None
