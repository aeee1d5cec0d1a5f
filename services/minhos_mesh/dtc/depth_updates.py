"""Decides what the many forms of an order book on the wire say: whole books of exact prices, or none while one is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.dtc.enums import AtBidOrAsk, DepthUpdate, FinalUpdate
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.layout import Layout
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import PriceScale, contracts, time_ns, wire_price
from minhos_mesh.dtc.tables import depth as tables

LEVELS: Final = 10
"""Levels of each side that are told."""
LARGEST_BOOK: Final = 2_000
"""Levels of one side that are held; a book that grows beyond is in doubt."""

_SNAPSHOTS: Final = frozenset({tables.MARKET_DEPTH_SNAPSHOT_LEVEL, tables.MARKET_DEPTH_SNAPSHOT_LEVEL_FLOAT})
_CHANGES: Final = frozenset(
    {
        tables.MARKET_DEPTH_UPDATE_LEVEL,
        tables.MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS,
        tables.MARKET_DEPTH_UPDATE_LEVEL_NO_TIMESTAMP,
    }
)
_UNITS: Final[Mapping[Layout, int]] = {tables.MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS: 1_000}
"""Units of time of a form that make a second; 1 for others."""


@dataclass(frozen=True, slots=True)
class BookLevel:
    """One price of one side; `orders` is 0 where the server does not count them."""

    price_e9: int
    quantity: int
    orders: int


@dataclass(frozen=True, slots=True)
class BookUpdate:
    """The book of a symbol behind a batch, the best prices first."""

    symbol: str
    time_ns: int | None
    """Event time; None when no message of the symbol has told one."""
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]


@dataclass(slots=True)
class _Book:
    """The book of one symbol as far as it is known."""

    bids: dict[int, BookLevel] = field(default_factory=dict)
    asks: dict[int, BookLevel] = field(default_factory=dict)
    time_ns: int | None = None
    begun: bool = False
    """A snapshot is coming in."""
    whole: bool = False


class DepthReader:
    """Reads the order books of one connection, by the ids under which they were asked for."""

    def __init__(self, symbols: Mapping[int, str]) -> None:
        """`symbols` by SymbolID."""
        self.symbols = dict(symbols)
        self.strangers = 0
        """Messages under an id that was never asked for."""
        self.unreadable = 0
        """Messages with a number that is no price, size or time; the book is in doubt then."""
        self.doubtful: set[int] = set()
        """Ids whose book is no longer known, so that it must be asked for again."""
        self._books: dict[int, _Book] = {}

    def forget(self) -> None:
        """Takes no book for known any more."""
        self._books.clear()
        self.doubtful.clear()

    def read(self, message: Message, scale_of: Callable[[str], PriceScale]) -> BookUpdate | None:
        """The book behind a message that ends a batch; None for any other message, and while the book is not whole."""
        if message.layout not in _SNAPSHOTS and message.layout not in _CHANGES:
            return None
        number = message.integer("SymbolID")
        symbol = self.symbols.get(number)
        if symbol is None:
            self.strangers += 1
            return None
        book = self._books.setdefault(number, _Book())
        try:
            ended = _take(book, message, scale_of(symbol))
        except ValueUnreadable:
            self.unreadable += 1
            if book.whole or book.begun:
                self.doubtful.add(number)
            self._books[number] = _Book(time_ns=book.time_ns)
            return None
        if not ended or not book.whole:
            return None
        return BookUpdate(symbol, book.time_ns, _best(book.bids.values(), -1), _best(book.asks.values(), 1))


def _take(book: _Book, message: Message, scale: PriceScale) -> bool:
    """Applies one message; whether it ends a batch. Raises ValueUnreadable."""
    book.time_ns = _time(message) or book.time_ns
    if message.layout in _SNAPSHOTS:
        return _snapshot(book, message, scale)
    if not book.whole:
        return False
    place = message.integer("FinalUpdateInBatch") if "FinalUpdateInBatch" in message.layout.by_name else 0
    _set(book, message, scale, message.integer("UpdateType"))
    return place in {FinalUpdate.UNSET, FinalUpdate.TRUE}


def _snapshot(book: _Book, message: Message, scale: PriceScale) -> bool:
    if message.layout is tables.MARKET_DEPTH_SNAPSHOT_LEVEL:
        first, last = message.flag("IsFirstMessageInBatch"), message.flag("IsLastMessageInBatch")
    else:
        place = message.integer("FinalUpdateInBatch")
        first, last = place == FinalUpdate.BEGIN_BATCH, place == FinalUpdate.TRUE
    if first or not book.begun:
        book.bids.clear()
        book.asks.clear()
        book.begun, book.whole = True, False
    if message.integer("Side") in {AtBidOrAsk.BID, AtBidOrAsk.ASK}:
        _set(book, message, scale, DepthUpdate.INSERT_UPDATE)
    if last:
        book.begun, book.whole = False, True
    return last


def _set(book: _Book, message: Message, scale: PriceScale, kind: int) -> None:
    """Puts one level into the book, or takes it out."""
    at = message.integer("Side")
    if at not in {AtBidOrAsk.BID, AtBidOrAsk.ASK}:
        raise ValueUnreadable("Side", at, "1 (bid) or 2 (ask)")
    price = wire_price(message.number("Price"), scale, "Price")
    if price is None or not price.on_grid:
        raise ValueUnreadable("Price", message.value("Price"), "a whole number of ticks")
    quantity = contracts(message.number("Quantity"), "Quantity") or 0
    if quantity < 0 or kind not in {DepthUpdate.INSERT_UPDATE, DepthUpdate.DELETE}:
        raise ValueUnreadable("UpdateType", kind, "1 (insert or update) or 2 (delete), of no negative quantity")
    side = book.bids if at == AtBidOrAsk.BID else book.asks
    if kind == DepthUpdate.DELETE or quantity == 0:
        side.pop(price.price_e9, None)
        return
    if price.price_e9 not in side and len(side) >= LARGEST_BOOK:
        raise ValueUnreadable("Price", message.value("Price"), f"at most {LARGEST_BOOK} levels of one side")
    side[price.price_e9] = BookLevel(price.price_e9, quantity, message.integer("NumOrders"))


def _time(message: Message) -> int | None:
    raw = message.value("DateTime") if "DateTime" in message.layout.by_name else None
    if raw is None or isinstance(raw, str):
        return None
    return time_ns(raw, "DateTime", per_second=_UNITS.get(message.layout, 1))


def _best(levels: Iterable[BookLevel], sign: int) -> tuple[BookLevel, ...]:
    return tuple(sorted(levels, key=lambda level: sign * level.price_e9)[:LEVELS])
