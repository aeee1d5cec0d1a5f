"""Decides how ticks become bars by time, trades or volume within sessions: tick by tick, in any pieces, or all at once.

A bar belongs to one session; no bar spans two. Bars of seconds are counted from the open of their session and end with
it; a bar of 86,400 seconds is the whole session. Bars of trades and of volume begin anew with each session. A trade is
never split: a volume bar ends with the trade that fills it and may hold more. A span without a trade has no bar, quotes
are in none. A bar is closed by the first tick, trade or quote, at or behind its end, one of trades or volume by the
trade that fills it or the first tick behind its session. Trades while the market is closed are in no bar; they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from minhos_mesh.runtime.bar_spans import DAY_SECONDS, MINUTE, BarSpan, Measure
from minhos_mesh.runtime.tick_layout import VALUES, Row, TickArray, TickFlag, TickKind, Trades, TradeSide
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, CLOSED, NS, Session, Sessions

MINUTE_NS: Final = 60 * NS
FEW: Final = 2
"""Up to so many ticks are taken one by one, which is faster and gives the same."""
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_TRADE, _BUY, _SELL, _SIZE = int(TickKind.TRADE), int(TradeSide.BUY), int(TradeSide.SELL), int(TickFlag.HAS_SIZE)
_NO_DAY: Final = date(1970, 1, 1)
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: prices in 1e-9 units, volumes in contracts, times in ns since the Unix epoch."""

    open_time_ns: int
    """Bars of seconds: beginning of the span, inclusive. Others: time of the first trade."""
    close_time_ns: int
    """Bars of seconds: end of the span, exclusive, at the latest the close of the session. Others: time of the last trade."""
    open_e9: int
    high_e9: int
    low_e9: int
    close_e9: int
    volume: int
    bid_volume: int
    """Of these, sold at the bid."""
    ask_volume: int
    """Of these, bought at the ask."""
    trades: int
    first_sequence: int
    """Bars of seconds: first tick of the span, trade or quote. Others: first trade."""
    last_sequence: int
    """Bars of seconds: last tick of the span so far. Others: last trade."""
    span: BarSpan = MINUTE
    trading_day: date = _NO_DAY
    """Day that its session counts for."""
    first_trade: int = 0
    """Sequence of the first trade in it, of generation `first_epoch`."""
    last_trade: int = 0
    """Sequence of the last trade in it, of generation `last_epoch`."""
    first_epoch: int = 0
    last_epoch: int = 0
    closing_sequence: int = 0
    """Tick that closed it, which for a full bar of trades or volume is the last in it; 0 while it is open."""
    closed: bool = False
    """Whether it can no longer change."""


@dataclass(slots=True)
class _Held:
    """What is known of the newest span; without a trade it is no bar yet."""

    begin_ns: int
    end_ns: int
    """Bars of seconds: end of the span. Others: time of the last trade."""
    first_sequence: int
    last_sequence: int
    open_e9: int = 0
    high_e9: int = 0
    low_e9: int = 0
    close_e9: int = 0
    volume: int = 0
    sold: int = 0
    bought: int = 0
    trades: int = 0
    first_trade: int = 0
    last_trade: int = 0
    first_epoch: int = 0
    last_epoch: int = 0

    def take(self, later: _Held) -> None:
        """Takes what a later piece of the same span holds."""
        self.last_sequence = later.last_sequence
        if not later.trades:
            return
        if self.trades:
            self.high_e9, self.low_e9 = max(self.high_e9, later.high_e9), min(self.low_e9, later.low_e9)
        else:
            self.open_e9, self.high_e9, self.low_e9 = later.open_e9, later.high_e9, later.low_e9
            self.first_trade, self.first_epoch = later.first_trade, later.first_epoch
        self.close_e9, self.end_ns = later.close_e9, max(self.end_ns, later.end_ns)
        self.volume += later.volume
        self.sold += later.sold
        self.bought += later.bought
        self.trades += later.trades
        self.last_trade, self.last_epoch = later.last_trade, later.last_epoch


@dataclass(slots=True)
class BarBuilder:
    """Builds the bars of one symbol from ticks in order of time, so that how they are cut changes nothing."""

    span: BarSpan = MINUTE
    sessions: Sessions = ALWAYS_OPEN
    outside: int = 0
    """Trades that came while the market was closed."""
    _held: _Held | None = field(default=None, init=False)
    _place: int = field(default=CLOSED, init=False)
    """Place of the session of what is held."""
    _session: Session = field(default=Session(_NO_DAY, 0, 0), init=False)
    _ends_ns: int = field(default=0, init=False)
    """A tick at this time or later is of another span."""

    def resume(self, bar: Bar) -> None:
        """Goes on with an open bar of the same span that was begun elsewhere. Call before the first `add`."""
        self._enter(self.sessions.place(bar.open_time_ns))
        self._ends_ns = bar.close_time_ns if self._by_time else self._session.close_ns
        self._held = _Held(
            bar.open_time_ns, bar.close_time_ns, bar.first_sequence, bar.last_sequence,
            bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trades,
            bar.first_trade, bar.last_trade, bar.first_epoch, bar.last_epoch,
        )  # fmt: skip

    @property
    def open_bar(self) -> Bar | None:
        """The bar that is being built; None before the first trade of the newest span."""
        held = self._held
        return self._bar(held, 0) if held is not None and held.trades else None

    @property
    def _by_time(self) -> bool:
        return self.span.measure is Measure.SECONDS

    def add(self, ticks: TickArray, first_sequence: int, epoch: int = 0, trades: Trades | None = None) -> list[Bar]:
        """Takes ticks of one generation whose event times do not fall; returns the bars that they closed, the oldest first.

        `trades` are their columns where they are known.
        """
        if len(ticks) <= FEW:
            rows = VALUES.iter_unpack(ticks.tobytes())
            each = [self.add_one(row, first_sequence + index, epoch) for index, row in enumerate(rows)]
            return [bar for bars in each for bar in bars]
        held = self._held
        if held is not None and self._by_time and ticks["event_time_ns"][-1] < self._ends_ns:
            held.take(_one_piece(ticks, trades or Trades.of(ticks), held, first_sequence, epoch))
            return []
        closed: list[Bar] = []
        places = self.sessions.places(ticks["event_time_ns"])
        cuts = (np.flatnonzero(places[1:] != places[:-1]) + 1).tolist()
        for begin, end in zip([0, *cuts], [*cuts, len(ticks)], strict=True):
            part, sequence, place = ticks[begin:end], first_sequence + begin, int(places[begin])
            if place == CLOSED:
                self.outside += int(np.count_nonzero(part["kind"] == _TRADE))
                closed += self._close(sequence)
            else:
                if place != self._place:
                    closed += self._close(sequence)
                    self._enter(place)
                closed += (self._add_spans if self._by_time else self._add_counted)(part, sequence, epoch)
        return closed

    def add_one(self, row: Row, sequence: int, epoch: int = 0) -> list[Bar]:
        """The same for one tick."""
        time_ns, held, traded = row[0], self._held, row[9] == _TRADE
        closed: list[Bar] = []
        if held is None or time_ns >= self._ends_ns:
            place = self.sessions.place(time_ns)
            if held is not None:
                closed = self._close(sequence)
            if place == CLOSED:
                self.outside += traded
                return closed
            if place != self._place:
                self._enter(place)
            held = None
        if not traded:
            if held is not None and self._by_time:
                held.last_sequence = sequence
            elif self._by_time:
                self._held = self._begun(time_ns, sequence)
            return closed
        if held is None:
            held = self._held = self._begun(time_ns, sequence)
        self._take_one(held, row, sequence, epoch)
        return closed + self._close(sequence) if self._is_full(held) else closed

    def _take_one(self, held: _Held, row: Row, sequence: int, epoch: int) -> None:
        time_ns, _, price, _, _, size, _, _, flags, _, side = row
        if not flags & _SIZE:
            size = 0
        if not held.trades:
            held.open_e9 = held.high_e9 = held.low_e9 = price
            held.first_trade, held.first_epoch = sequence, epoch
        elif price > held.high_e9:
            held.high_e9 = price
        elif price < held.low_e9:
            held.low_e9 = price
        held.close_e9 = price
        held.volume += size
        if side == _SELL:
            held.sold += size
        elif side == _BUY:
            held.bought += size
        held.trades += 1
        held.last_sequence = held.last_trade = sequence
        held.last_epoch = epoch
        held.end_ns = max(held.end_ns, time_ns)

    def _enter(self, place: int) -> None:
        self._place, self._session = place, self.sessions[place]

    def _begun(self, time_ns: int, sequence: int) -> _Held:
        """What is held from the first tick of a span on; the session is that of the tick."""
        begin_ns, end_ns = self._bounds(time_ns)
        self._ends_ns = end_ns if self._by_time else self._session.close_ns
        return _Held(begin_ns, end_ns, sequence, sequence)

    def _bounds(self, time_ns: int) -> tuple[int, int]:
        session = self._session
        if not self._by_time:
            return time_ns, time_ns
        if self.span.size == DAY_SECONDS:
            return session.open_ns, session.close_ns
        size_ns = self.span.size * NS
        begin_ns = time_ns - (time_ns - session.open_ns) % size_ns
        return begin_ns, min(begin_ns + size_ns, session.close_ns)

    def _is_full(self, held: _Held) -> bool:
        if self.span.measure is Measure.TRADES:
            return held.trades >= self.span.size
        return self.span.measure is Measure.VOLUME and held.volume >= self.span.size

    def _close(self, sequence: int) -> list[Bar]:
        held, self._held = self._held, None
        return [self._bar(held, sequence)] if held is not None and held.trades else []

    def _bar(self, held: _Held, closing_sequence: int) -> Bar:
        return Bar(
            open_time_ns=held.begin_ns, close_time_ns=held.end_ns, open_e9=held.open_e9, high_e9=held.high_e9,
            low_e9=held.low_e9, close_e9=held.close_e9, volume=held.volume, bid_volume=held.sold,
            ask_volume=held.bought, trades=held.trades, first_sequence=held.first_sequence,
            last_sequence=held.last_sequence, span=self.span, trading_day=self._session.day,
            first_trade=held.first_trade, last_trade=held.last_trade, first_epoch=held.first_epoch,
            last_epoch=held.last_epoch, closing_sequence=closing_sequence, closed=closing_sequence > 0,
        )  # fmt: skip

    def _add_spans(self, ticks: TickArray, first_sequence: int, epoch: int) -> list[Bar]:
        """Bars of seconds of ticks of one session."""
        closed: list[Bar] = []
        session, whole = self._session, self.span.size == DAY_SECONDS
        size_ns = session.close_ns - session.open_ns if whole else self.span.size * NS
        numbers = (ticks["event_time_ns"] - session.open_ns) // size_ns
        begins = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(numbers[1:] != numbers[:-1]) + 1))
        times = ticks["event_time_ns"][begins].tolist()
        for piece, time_ns in zip(_pieces(ticks, begins, first_sequence, epoch), times, strict=True):
            held = self._held
            if held is not None and time_ns >= self._ends_ns:
                closed += self._close(piece.first_sequence)
                held = None
            if held is None:
                held = self._held = self._begun(time_ns, piece.first_sequence)
            piece.end_ns = held.end_ns
            held.take(piece)
        return closed

    def _add_counted(self, ticks: TickArray, first_sequence: int, epoch: int) -> list[Bar]:
        """Bars of trades or volume of ticks of one session."""
        at = np.flatnonzero(ticks["kind"] == _TRADE)
        if not len(at):
            return []
        closed: list[Bar] = []
        held = self._held
        if self.span.measure is Measure.TRADES:
            numbers = ((held.trades if held is not None else 0) + np.arange(len(at))) // self.span.size
        else:
            numbers = _filled_before(_sizes(ticks)[at], self.span.size, held.volume if held is not None else 0)
        begins = at[np.concatenate((np.zeros(1, np.int64), np.flatnonzero(numbers[1:] != numbers[:-1]) + 1))]
        times = ticks["event_time_ns"]
        for piece in _pieces(ticks, begins, first_sequence, epoch):
            piece.first_sequence, piece.last_sequence = piece.first_trade, piece.last_trade
            piece.end_ns = int(times[piece.last_trade - first_sequence])
            if self._held is None:
                self._held = self._begun(int(times[piece.first_trade - first_sequence]), piece.first_trade)
            self._held.take(piece)
            if self._is_full(self._held):
                closed += self._close(piece.last_trade)
        return closed


def _sizes(ticks: TickArray) -> Ints:
    sized = (ticks["kind"] == _TRADE) & ((ticks["flags"] & _SIZE) != 0)
    return np.where(sized, ticks["size"], 0).astype(np.int64)


def _one_piece(ticks: TickArray, trades: Trades | None, held: _Held, first_sequence: int, epoch: int) -> _Held:
    """What ticks hold that all belong to the span of `held`, which is how they usually come."""
    last = first_sequence + len(ticks) - 1
    if trades is None:
        (piece,) = _pieces(ticks, np.zeros(1, np.int64), first_sequence, epoch)
        piece.end_ns = held.end_ns
        return piece
    prices, sizes, sides = trades.prices_e9[0], trades.size, trades.side
    return _Held(
        0, held.end_ns, first_sequence, last, int(prices[0]), int(prices.max()), int(prices.min()), int(prices[-1]),
        int(sizes.sum(dtype=np.int64)), int((sizes * (sides == _SELL)).sum(dtype=np.int64)),
        int((sizes * (sides == _BUY)).sum(dtype=np.int64)), len(ticks), first_sequence, last, epoch, epoch,
    )  # fmt: skip


def _pieces(ticks: TickArray, begins: Ints, first_sequence: int, epoch: int) -> list[_Held]:
    """What the ticks from each begin to the next one hold; times are for the caller to set."""
    count = len(ticks)
    ends = np.append(begins[1:], count) - 1
    trade, side, price, size = ticks["kind"] == _TRADE, ticks["side"], ticks["price_e9"], _sizes(ticks)
    index = np.arange(count)
    first_trade = np.minimum.reduceat(np.where(trade, index, count - 1), begins)
    last_trade = np.maximum.reduceat(np.where(trade, index, 0), begins)

    def summed(values: Ints) -> list[int]:
        totals: list[int] = np.add.reduceat(values, begins).tolist()
        return totals

    columns = (
        (begins + first_sequence).tolist(),
        (ends + first_sequence).tolist(),
        price[first_trade].tolist(),
        np.maximum.reduceat(np.where(trade, price, _LOWEST), begins).tolist(),
        np.minimum.reduceat(np.where(trade, price, _HIGHEST), begins).tolist(),
        price[last_trade].tolist(),
        summed(size),
        summed(np.where(side == _SELL, size, 0)),
        summed(np.where(side == _BUY, size, 0)),
        summed(trade.astype(np.int64)),
        (first_trade + first_sequence).tolist(),
        (last_trade + first_sequence).tolist(),
    )
    pieces = [_Held(0, 0, *values) for values in zip(*columns, strict=True)]
    for piece in pieces:
        piece.first_epoch = piece.last_epoch = epoch
    return pieces


def _filled_before(sizes: Ints, size: int, held: int) -> Ints:
    """For each trade how many bars of `size` contracts are full before it; `held` are in the first one already."""
    totals = np.cumsum(sizes)
    numbers = np.zeros(len(sizes), np.int64)
    wanted = size - held
    while (last := int(np.searchsorted(totals, wanted, side="left"))) < len(sizes) - 1:
        numbers[last + 1] += 1
        wanted = int(totals[last]) + size
    return np.cumsum(numbers)


def bars_of(ticks: TickArray, span: BarSpan, sessions: Sessions = ALWAYS_OPEN, first_sequence: int = 1) -> list[Bar]:
    """All bars of these ticks, the one that is still open last."""
    builder = BarBuilder(span, sessions)
    bars = builder.add(ticks, first_sequence)
    return bars if builder.open_bar is None else [*bars, builder.open_bar]


def closed_at(bar: Bar, sessions: Sessions, newest_ns: int) -> Bar:
    """The bar, closed when a tick as late as this, behind its end, is known to have come."""
    by_time = bar.span.measure is Measure.SECONDS
    end_ns = bar.close_time_ns if by_time else sessions[sessions.place(bar.open_time_ns)].close_ns
    return replace(bar, closed=True) if not bar.closed and newest_ns >= end_ns else bar
