"""Decides what the many forms of a trade and a quote on the wire say, in exact prices, times and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.dtc.enums import AtBidOrAsk, BuySell, UnbundledTrade
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.layout import Layout
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import PriceScale, contracts, time_ns, wire_price
from minhos_mesh.dtc.tables import market as tables


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeUpdate:
    """A trade between others, or the newest price of what is not traded, as of an index: then without a size."""

    symbol: str
    time_ns: int | None
    """Event time; None when neither this message nor an earlier one of the symbol has one."""
    price_e9: int
    on_grid: bool
    size: int | None
    aggressor: BuySell
    """Who took; UNSET when the server does not say."""
    unbundled: UnbundledTrade


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteUpdate:
    """The best prices; a side that is not quoted is None."""

    symbol: str
    time_ns: int | None
    bid_e9: int | None
    ask_e9: int | None
    bid_size: int | None
    ask_size: int | None


MarketUpdate = TradeUpdate | QuoteUpdate

_SECONDS: Final = 1
_MICROSECONDS: Final = 1_000_000

_TRADES: Final[Mapping[Layout, int]] = {
    tables.MARKET_DATA_UPDATE_TRADE: _SECONDS,
    tables.MARKET_DATA_UPDATE_TRADE_COMPACT: _SECONDS,
    tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR: _SECONDS,
    tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2: _MICROSECONDS,
    tables.MARKET_DATA_UPDATE_TRADE_NO_TIMESTAMP: _SECONDS,
}
"""The forms of a trade and how many units of their time make a second."""

_QUOTES: Final[Mapping[Layout, int]] = {
    tables.MARKET_DATA_UPDATE_BID_ASK: _SECONDS,
    tables.MARKET_DATA_UPDATE_BID_ASK_COMPACT: _SECONDS,
    tables.MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS: _MICROSECONDS,
    tables.MARKET_DATA_UPDATE_BID_ASK_NO_TIMESTAMP: _SECONDS,
}
"""The forms of a quote likewise."""

_AGGRESSORS: Final = {AtBidOrAsk.BID: BuySell.SELL, AtBidOrAsk.ASK: BuySell.BUY}


@dataclass(slots=True)
class MarketReader:
    """Reads the market data of one connection, by the ids under which it was asked for."""

    symbols: dict[int, str] = field(default_factory=dict)
    """Symbol by SymbolID."""
    strangers: int = 0
    """Messages under an id that was never asked for."""
    unreadable: int = 0
    """Messages with a number that is no price, size or time; they are left out."""
    _times: dict[int, int] = field(default_factory=dict)

    def read(self, message: Message, scale_of: Callable[[str], PriceScale]) -> MarketUpdate | None:
        """The update in a message; None for any other message, and for one that cannot be read, which is counted."""
        trades, quotes = _TRADES.get(message.layout), _QUOTES.get(message.layout)
        snapshot, price_alone = message.layout is tables.MARKET_DATA_SNAPSHOT, _price_alone(message)
        if trades is None and quotes is None and not snapshot and not price_alone:
            return None
        number = message.integer("SymbolID")
        symbol = self.symbols.get(number)
        if symbol is None:
            self.strangers += 1
            return None
        try:
            scale = scale_of(symbol)
            if trades is not None:
                return _trade(message, symbol, scale, self._time(number, message, "DateTime", trades))
            if price_alone:
                return _last_price(message, symbol, scale, self._time(number, message, "LastTradeDateTime", _SECONDS))
            name = "BidAskDateTime" if snapshot else "DateTime"
            return _quote(message, symbol, scale, self._time(number, message, name, quotes or _SECONDS))
        except ValueUnreadable:
            self.unreadable += 1
            return None

    def _time(self, number: int, message: Message, name: str, per_second: int) -> int | None:
        """The time of a message; one that has none is of the time of the message before it."""
        raw = message.value(name) if name in message.layout.by_name else None
        found = None if raw is None or isinstance(raw, str) else time_ns(raw, name, per_second=per_second)
        if found is None:
            return self._times.get(number)
        self._times[number] = found
        return found


def _trade(message: Message, symbol: str, scale: PriceScale, when: int | None) -> TradeUpdate:
    price = wire_price(message.number("Price"), scale, "Price")
    if price is None or price.price_e9 == 0:
        raise ValueUnreadable("Price", message.value("Price"), "a price, in a trade")
    size = contracts(message.number("Volume"), "Volume")
    unbundled = message.integer("UnbundledTradeIndicator") if _has(message, "UnbundledTradeIndicator") else 0
    at = message.integer("AtBidOrAsk")
    return TradeUpdate(
        symbol=symbol,
        time_ns=when,
        price_e9=price.price_e9,
        on_grid=price.on_grid,
        size=size or None,
        aggressor=_AGGRESSORS[AtBidOrAsk(at)] if at in _AGGRESSORS else BuySell.UNSET,
        unbundled=UnbundledTrade(unbundled) if unbundled in set(UnbundledTrade) else UnbundledTrade.NONE,
    )


def _price_alone(message: Message) -> bool:
    """Whether a message tells a last price without a volume; one with a volume repeats a trade that is told by itself."""
    if message.layout is not tables.MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT:
        return False
    return bool(message.value("LastTradePrice")) and not message.value("LastTradeVolume")


def _last_price(message: Message, symbol: str, scale: PriceScale, when: int | None) -> TradeUpdate:
    price = wire_price(message.number("LastTradePrice"), scale, "LastTradePrice")
    if price is None or price.price_e9 == 0:
        raise ValueUnreadable("LastTradePrice", message.value("LastTradePrice"), "a price")
    return TradeUpdate(
        symbol=symbol, time_ns=when, price_e9=price.price_e9, on_grid=price.on_grid, size=None,
        aggressor=BuySell.UNSET, unbundled=UnbundledTrade.NONE,
    )  # fmt: skip


def _quote(message: Message, symbol: str, scale: PriceScale, when: int | None) -> QuoteUpdate:
    prices = [wire_price(message.number(name), scale, name) for name in ("BidPrice", "AskPrice")]
    bid_e9, ask_e9 = (None if price is None or price.price_e9 == 0 else price.price_e9 for price in prices)
    bid_size, ask_size = (contracts(message.number(name), name) for name in ("BidQuantity", "AskQuantity"))
    return QuoteUpdate(
        symbol=symbol,
        time_ns=when,
        bid_e9=bid_e9,
        ask_e9=ask_e9,
        bid_size=None if bid_e9 is None else bid_size,
        ask_size=None if ask_e9 is None else ask_size,
    )


def _has(message: Message, name: str) -> bool:
    return name in message.layout.by_name
