"""What a reader of market data is given: typed values instead of messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1 import quote_pb2
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.ticks import TickBatchView


class Position(NamedTuple):
    """A place in the ticks of a symbol: the last one read. Epoch 0 means the one that is current."""

    epoch: int
    sequence: int


FROM_START = Position(0, 0)
"""Resume after it to read the current epoch from its first tick."""


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
        """The tick that closed it, the first one of a later span."""
        return self.bar.last_sequence + 1


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


MarketUpdate = TickBatchView | BarClosed | MarketQuote | Snapshot | Gap | EpochChanged | Heartbeat


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
        interval_ns=message.interval_seconds * 1_000_000_000,
    )


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
    )


def update_of(message: pb2.SubscribeMarketDataResponse) -> MarketUpdate | None:
    """An update that is not a batch of ticks; None for an answer to a subscription and for what is not known here."""
    kind = message.WhichOneof("message")
    if kind == "bar":
        bar = message.bar
        return BarClosed(bar.symbol, bar.epoch, bar.provenance, bar_of(bar))
    if kind == "quote":
        return quote_of(message.quote)
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
        return Heartbeat(time_ns(beat.send_time), newest, beat.ticks_sent, beat.ticks_missed)
    return None
