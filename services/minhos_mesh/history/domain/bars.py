"""Decides how trades become bars by time, trades or volume within sessions: the same in one piece and in any pieces.

A bar belongs to one session; no bar spans two. Bars of seconds are counted from the open of their session and end with
it; a bar of 86,400 seconds is the whole session. Bars of trades and of volume begin anew with each session. A trade is
never split: a volume bar ends with the trade that fills it and may hold more. A span without a trade has no bar. Trades
while the market was closed are in no bar; they are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from minhos_mesh.history.domain.sessions import NS, Session, Sessions
from minhos_mesh.history.domain.spans import DAY_SECONDS, BarSpan, Measure
from minhos_mesh.runtime.tick_layout import TickArray, TickFlag, TickKind, TradeSide

Ints = npt.NDArray[np.int64]
Epochs = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades as columns of equal length, in order of time."""

    time_ns: Ints
    price_e9: Ints
    size: Ints
    """Contracts; 0 where the source gives none."""
    sold: Ints
    """Of these, sold at the bid."""
    bought: Ints
    """Of these, bought at the ask."""
    epoch: Epochs
    sequence: Ints

    @classmethod
    def of(cls, ticks: TickArray, epoch: int, first_sequence: int) -> Self:
        """The trades among a contiguous run of ticks; quotes are no trades."""
        at = np.flatnonzero(ticks["kind"] == int(TickKind.TRADE))
        size = np.where(ticks["flags"][at] & int(TickFlag.HAS_SIZE), ticks["size"][at], 0).astype(np.int64)
        side = ticks["side"][at]
        return cls(
            ticks["event_time_ns"][at].astype(np.int64),
            ticks["price_e9"][at].astype(np.int64),
            size,
            np.where(side == int(TradeSide.SELL), size, 0),
            np.where(side == int(TradeSide.BUY), size, 0),
            np.full(len(at), epoch, np.uint64),
            at.astype(np.int64) + first_sequence,
        )

    def __len__(self) -> int:
        return len(self.time_ns)

    def part(self, where: slice | npt.NDArray[np.bool_]) -> Trades:
        """Some of them."""
        return Trades(
            self.time_ns[where], self.price_e9[where], self.size[where], self.sold[where], self.bought[where],
            self.epoch[where], self.sequence[where],
        )  # fmt: skip


@dataclass(slots=True)
class HistoryBar:
    """One bar: prices in 1e-9 units, volumes in contracts, times in ns since the Unix epoch."""

    session: Session
    number: int
    """Place among the bars of its session; a span without a trade takes a number too."""
    open_time_ns: int
    """Bars of seconds: beginning of the span. Others: time of the first trade."""
    close_time_ns: int
    """Bars of seconds: end of the span, exclusive, at the latest the close of the session. Others: time of the last trade."""
    open_e9: int
    high_e9: int
    low_e9: int
    close_e9: int
    volume: int
    bid_volume: int
    ask_volume: int
    trades: int
    first_epoch: int
    first_sequence: int
    """The first trade in it."""
    last_epoch: int
    last_sequence: int
    """The last trade in it."""
    closed: bool = False
    """Whether it can no longer change: it is full, or a trade of a later bar has come."""

    def take(self, later: HistoryBar) -> None:
        """Takes what a later piece of the same bar holds."""
        self.high_e9, self.low_e9 = max(self.high_e9, later.high_e9), min(self.low_e9, later.low_e9)
        self.close_e9, self.close_time_ns = later.close_e9, max(self.close_time_ns, later.close_time_ns)
        self.volume += later.volume
        self.bid_volume += later.bid_volume
        self.ask_volume += later.ask_volume
        self.trades += later.trades
        self.last_epoch, self.last_sequence = later.last_epoch, later.last_sequence


@dataclass(slots=True)
class BarMaker:
    """Makes bars of trades that come in order of time, in pieces of any size."""

    span: BarSpan
    sessions: Sessions
    outside: int = 0
    """Trades that came while the market was closed."""
    open_bar: HistoryBar | None = None
    """The bar that is not closed yet; it changes when more trades come."""
    _place: int = field(default=-1, init=False)
    """Place of the newest session with a trade."""
    _full: int = field(default=0, init=False)
    """Bars of trades or volume in that session that are full."""

    def add(self, trades: Trades) -> Iterator[HistoryBar]:
        """Takes trades; yields the bars that they closed, the oldest first. Read it to its end."""
        places = self.sessions.places(trades.time_ns)
        inside = places >= 0
        if not inside.all():
            self.outside += int(np.count_nonzero(~inside))
            trades, places = trades.part(inside), places[inside]
        if not len(trades):
            return
        cuts = np.flatnonzero(places[1:] != places[:-1]) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(places)], strict=True):
            yield from self._in_session(int(places[begin]), trades.part(slice(begin, end)))

    def _in_session(self, place: int, trades: Trades) -> Iterator[HistoryBar]:
        if place != self._place:
            self._place, self._full = place, 0
            yield from self._close()
        numbers = self._numbers(self.sessions[place], trades)
        starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(numbers[1:] != numbers[:-1]) + 1))
        for bar in self._pieces(self.sessions[place], trades, numbers, starts):
            if self.open_bar is not None and self.open_bar.number != bar.number:
                yield from self._close()
            if self.open_bar is None:
                self.open_bar = bar
            else:
                self.open_bar.take(bar)
            if self._is_full(self.open_bar):
                self._full += 1
                yield from self._close()

    def _close(self) -> Iterator[HistoryBar]:
        if self.open_bar is not None:
            bar, self.open_bar = self.open_bar, None
            bar.closed = True
            yield bar

    def _is_full(self, bar: HistoryBar) -> bool:
        if self.span.measure is Measure.TRADES:
            return bar.trades >= self.span.size
        return self.span.measure is Measure.VOLUME and bar.volume >= self.span.size

    def _numbers(self, session: Session, trades: Trades) -> Ints:
        """Number of the bar of each trade within its session."""
        if self.span.measure is Measure.SECONDS:
            if self.span.size == DAY_SECONDS:
                return np.zeros(len(trades), np.int64)
            numbers: Ints = (trades.time_ns - session.open_ns) // (self.span.size * NS)
            return numbers
        if self.span.measure is Measure.TRADES:
            held = 0 if self.open_bar is None else self.open_bar.trades
            return self._full + (held + np.arange(len(trades), dtype=np.int64)) // self.span.size
        return self._full + _filled_before(
            trades.size, self.span.size, 0 if self.open_bar is None else self.open_bar.volume
        )

    def _pieces(self, session: Session, trades: Trades, numbers: Ints, starts: Ints) -> Iterator[HistoryBar]:
        ends = np.append(starts[1:], len(trades)) - 1
        high = np.maximum.reduceat(trades.price_e9, starts).tolist()
        low = np.minimum.reduceat(trades.price_e9, starts).tolist()
        sums = [np.add.reduceat(each, starts).tolist() for each in (trades.size, trades.sold, trades.bought)]
        for index, (first, last) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            number = int(numbers[first])
            begin_ns, end_ns = self._bounds(session, number, int(trades.time_ns[first]), int(trades.time_ns[last]))
            yield HistoryBar(
                session, number, begin_ns, end_ns,
                int(trades.price_e9[first]), high[index], low[index], int(trades.price_e9[last]),
                sums[0][index], sums[1][index], sums[2][index], last - first + 1,
                int(trades.epoch[first]), int(trades.sequence[first]),
                int(trades.epoch[last]), int(trades.sequence[last]),
            )  # fmt: skip

    def _bounds(self, session: Session, number: int, first_ns: int, last_ns: int) -> tuple[int, int]:
        if self.span.measure is not Measure.SECONDS:
            return first_ns, last_ns
        if self.span.size == DAY_SECONDS:
            return session.open_ns, session.close_ns
        begin_ns = session.open_ns + number * self.span.size * NS
        return begin_ns, min(begin_ns + self.span.size * NS, session.close_ns)


def _filled_before(sizes: Ints, size: int, held: int) -> Ints:
    """For each trade how many bars of `size` contracts are full before it; `held` are in the first one already."""
    totals = np.cumsum(sizes)
    numbers = np.zeros(len(sizes), np.int64)
    at, wanted = 0, size - held
    while (last := int(np.searchsorted(totals, wanted, side="left"))) < len(sizes) - 1:
        numbers[last + 1] += 1
        at = last
        wanted = int(totals[at]) + size
    return np.cumsum(numbers)


def bars_of(trades: Trades, span: BarSpan, sessions: Sessions) -> list[HistoryBar]:
    """All bars of these trades, the one that is still open last."""
    maker = BarMaker(span, sessions)
    bars = list(maker.add(trades))
    return bars if maker.open_bar is None else [*bars, maker.open_bar]
