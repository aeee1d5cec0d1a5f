"""Decides how bars are built: by event time from trades, closed by the first tick of a later span, batch by batch or at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minhos_mesh.runtime.tick_layout import RECORD, TickArray, TickFlag, TickKind, TradeSide

MINUTE_NS = 60_000_000_000
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_TRADE, _BUY, _SELL, _SIZE = int(TickKind.TRADE), int(TradeSide.BUY), int(TradeSide.SELL), int(TickFlag.HAS_SIZE)
_TRADES, _LAST = 8, 10
Ints = npt.NDArray[np.int64]
_Span = list[int]
"""What is known of one span, in the order of the fields of `Bar`; a span without a trade is no bar yet."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of event time: prices in 1e-9 units, volumes in contracts; the span lasts `interval_ns`."""

    open_time_ns: int
    """Beginning of the span, inclusive."""
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
    """First tick of the span, trade or quote."""
    last_sequence: int
    """Last tick of the span so far; of a closed bar, the one before the tick that closed it."""
    interval_ns: int = MINUTE_NS


class BarBuilder:
    """Builds the bars of one symbol from its accepted ticks, in order of sequence.

    A span has a bar when it has a trade. A span ends with the first tick, trade or quote, of a later one, so what
    comes out depends on the ticks alone and never on how they were cut into batches.
    """

    def __init__(self, interval_ns: int = MINUTE_NS) -> None:
        self._interval_ns = interval_ns
        self._span: _Span | None = None

    def resume(self, bar: Bar) -> None:
        """Goes on with a bar that was begun elsewhere. Call before the first `add`."""
        self._span = [
            bar.open_time_ns,
            bar.open_e9,
            bar.high_e9,
            bar.low_e9,
            bar.close_e9,
            bar.volume,
            bar.bid_volume,
            bar.ask_volume,
            bar.trades,
            bar.first_sequence,
            bar.last_sequence,
        ]

    @property
    def open_bar(self) -> Bar | None:
        """The bar that is being built; None before the first trade of the newest span."""
        span = self._span
        return Bar(*(*span, self._interval_ns)) if span is not None and span[_TRADES] else None

    def add(self, ticks: TickArray, first_sequence: int) -> list[Bar]:
        """Takes ticks whose event times do not fall; returns the bars that they closed, the oldest first."""
        if len(ticks) <= 2:
            rows = RECORD.iter_unpack(ticks.tobytes())
            one_by_one = [self.add_one(row, first_sequence + index) for index, row in enumerate(rows)]
            return [bar for bar in one_by_one if bar is not None]
        spans = _spans(ticks, first_sequence, self._interval_ns)
        return [bar for bar in map(self._add_span, spans) if bar is not None]

    def add_one(self, row: tuple[int, ...], sequence: int) -> Bar | None:
        """The same for one tick as a record of the wire; returns the bar that it closed."""
        start = row[3] - row[3] % self._interval_ns
        if row[21] != _TRADE:
            return self._add_span([start, 0, 0, 0, 0, 0, 0, 0, 0, sequence, sequence])
        price, size, side = row[7], row[13] if row[19] & _SIZE else 0, row[23]
        span = self._span
        if span is not None and span[0] == start and span[_TRADES]:
            span[_LAST] = sequence
            if price > span[2]:
                span[2] = price
            elif price < span[3]:
                span[3] = price
            span[4] = price
            span[5] += size
            if side == _SELL:
                span[6] += size
            elif side == _BUY:
                span[7] += size
            span[_TRADES] += 1
            return None
        sold, bought = size if side == _SELL else 0, size if side == _BUY else 0
        return self._add_span([start, price, price, price, price, size, sold, bought, 1, sequence, sequence])

    def _add_span(self, late: _Span) -> Bar | None:
        early = self._span
        if early is None or early[0] != late[0]:
            closed, self._span = self.open_bar, late
            return closed
        early[_LAST] = late[_LAST]
        if late[_TRADES]:
            if early[_TRADES]:
                early[2] = max(early[2], late[2])
                early[3] = min(early[3], late[3])
            else:
                early[1:4] = late[1:4]
            early[4] = late[4]
            for sum_of in (5, 6, 7, _TRADES):
                early[sum_of] += late[sum_of]
        return None


def _spans(ticks: TickArray, first_sequence: int, interval_ns: int) -> list[_Span]:
    count = len(ticks)
    starts_ns = ticks["event_time_ns"] // interval_ns
    begins = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(starts_ns[1:] != starts_ns[:-1]) + 1))
    ends = np.append(begins[1:], count) - 1
    trade, side, price = ticks["kind"] == _TRADE, ticks["side"], ticks["price_e9"]
    size = np.where(trade & ((ticks["flags"] & _SIZE) != 0), ticks["size"], 0).astype(np.int64)
    index = np.arange(count)
    first_trade = np.minimum.reduceat(np.where(trade, index, count - 1), begins)
    last_trade = np.maximum.reduceat(np.where(trade, index, 0), begins)

    def summed(values: Ints) -> list[int]:
        totals: list[int] = np.add.reduceat(values, begins).tolist()
        return totals

    columns = (
        (starts_ns[begins] * interval_ns).tolist(),
        price[first_trade].tolist(),
        np.maximum.reduceat(np.where(trade, price, _LOWEST), begins).tolist(),
        np.minimum.reduceat(np.where(trade, price, _HIGHEST), begins).tolist(),
        price[last_trade].tolist(),
        summed(size),
        summed(np.where(side == _SELL, size, 0)),
        summed(np.where(side == _BUY, size, 0)),
        summed(trade.astype(np.int64)),
        (begins + first_sequence).tolist(),
        (ends + first_sequence).tolist(),
    )
    return [list(values) for values in zip(*columns, strict=True)]
