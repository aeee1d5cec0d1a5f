"""Decides how bars are built: by event time from trades, closed by the first tick of a later span, batch by batch or at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from minhos_mesh.runtime.tick_layout import RECORD, TickArray, TickFlag, TickKind, TradeSide

MINUTE_NS = 60_000_000_000
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_TRADE, _BUY, _SELL, _SIZE = int(TickKind.TRADE), int(TradeSide.BUY), int(TradeSide.SELL), int(TickFlag.HAS_SIZE)
Ints = npt.NDArray[np.int64]


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
        self._span: Bar | None = None

    def resume(self, bar: Bar) -> None:
        """Goes on with a bar that was begun elsewhere. Call before the first `add`."""
        self._span = bar

    @property
    def open_bar(self) -> Bar | None:
        """The bar that is being built; None before the first trade of the newest span."""
        return self._span if self._span is not None and self._span.trades else None

    def add(self, ticks: TickArray, first_sequence: int) -> list[Bar]:
        """Takes ticks whose event times do not fall; returns the bars that they closed, the oldest first."""
        if len(ticks) <= 2:
            rows = RECORD.iter_unpack(ticks.tobytes())
            spans = [_span_of_one(row, first_sequence + index, self._interval_ns) for index, row in enumerate(rows)]
        else:
            spans = _spans(ticks, first_sequence, self._interval_ns)
        closed: list[Bar] = []
        for span in spans:
            current = self._span
            if current is None or current.open_time_ns != span.open_time_ns:
                if current is not None and current.trades:
                    closed.append(current)
                self._span = span
            else:
                self._span = _joined(current, span)
        return closed


def _joined(early: Bar, late: Bar) -> Bar:
    if not late.trades:
        return replace(early, last_sequence=late.last_sequence)
    if not early.trades:
        return replace(late, first_sequence=early.first_sequence)
    return Bar(
        early.open_time_ns,
        early.open_e9,
        max(early.high_e9, late.high_e9),
        min(early.low_e9, late.low_e9),
        late.close_e9,
        early.volume + late.volume,
        early.bid_volume + late.bid_volume,
        early.ask_volume + late.ask_volume,
        early.trades + late.trades,
        early.first_sequence,
        late.last_sequence,
        early.interval_ns,
    )


def _span_of_one(row: tuple[int, ...], sequence: int, interval_ns: int) -> Bar:
    start = row[3] - row[3] % interval_ns
    if row[21] != _TRADE:
        return Bar(start, 0, 0, 0, 0, 0, 0, 0, 0, sequence, sequence, interval_ns)
    price, size, side = row[7], row[13] if row[19] & _SIZE else 0, row[23]
    sold, bought = size if side == _SELL else 0, size if side == _BUY else 0
    return Bar(start, price, price, price, price, size, sold, bought, 1, sequence, sequence, interval_ns)


def _spans(ticks: TickArray, first_sequence: int, interval_ns: int) -> list[Bar]:
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
        [interval_ns] * len(begins),
    )
    return [Bar(*values) for values in zip(*columns, strict=True)]
