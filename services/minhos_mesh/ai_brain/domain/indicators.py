"""Decides which numbers are kept about the bars of one symbol, each in constant time per bar or price."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from talipp.indicators import RSI, SMA, StdDev

E9: Final = 1_000_000_000
_KEPT: Final = 512
"""Values that an indicator keeps at least; older ones are let go."""


@dataclass(frozen=True, slots=True)
class Periods:
    """Bars that each indicator looks back."""

    fast: int = 5
    slow: int = 20
    rsi: int = 14
    volatility: int = 20
    volume: int = 20
    pattern: int = 20

    @property
    def needed(self) -> int:
        """Closed bars without which nothing is said."""
        return max(self.slow, self.rsi + 1, self.volatility + 1, self.volume, self.pattern)


@dataclass(frozen=True, slots=True)
class Span:
    """What an indicator takes from one bar: prices in 1e-9 units, contracts."""

    high_e9: int
    low_e9: int
    close_e9: int
    volume: int


@dataclass(frozen=True, slots=True)
class Readings:
    """The indicators with the newest price as the close of the open bar."""

    fast: float
    """Fast moving average of closes, points."""
    slow: float
    """Slow moving average of closes, points."""
    rsi: float
    """Relative strength index, 0 to 100 (Wilder, New Concepts in Technical Trading Systems, 1978)."""
    deviation: float
    """Standard deviation of the changes from close to close, points."""
    usual_deviation: float
    """The same over all that is kept."""
    volume: int
    """Contracts of the newest closed bar."""
    usual_volume: float
    """Mean contracts of a bar."""
    highest_e9: int
    """Highest price of the last bars, without the open one."""
    lowest_e9: int
    """Lowest price of the last bars, without the open one."""
    swing_e9: int
    """Mean range of a bar, 1e-9 units."""
    price_e9: int
    """Newest price."""


class Indicators:
    """Takes closed bars and, between them, the newest price of the open one."""

    def __init__(self, periods: Periods) -> None:
        self.periods = periods
        self.bars = 0
        self._kept = max(_KEPT, periods.needed + 2)
        self._fast, self._slow = SMA(periods.fast), SMA(periods.slow)
        self._rsi = RSI(periods.rsi)
        self._deviation = StdDev(periods.volatility)
        self._deviations: deque[float] = deque(maxlen=_KEPT)
        self._spans: deque[Span] = deque(maxlen=max(periods.pattern, periods.volume))
        self._open = False

    @property
    def ready(self) -> bool:
        """Whether there are enough closed bars."""
        return self.bars >= self.periods.needed

    def close_bar(self, span: Span) -> None:
        """Takes a bar that will not change any more."""
        self._put(span.close_e9)
        self._open = False
        self._spans.append(span)
        self.bars += 1
        if len(self._deviation) and self._deviation[-1] is not None:
            self._deviations.append(float(self._deviation[-1]))
        for indicator in (self._fast, self._slow, self._rsi, self._deviation):
            if len(indicator) > 2 * self._kept:
                indicator.purge_oldest(self._kept)

    def read(self, price_e9: int) -> Readings:
        """The indicators with this price as the close of the open bar. Call only when `ready`."""
        self._put(price_e9)
        spans = self._spans
        recent = list(spans)[-self.periods.pattern :]
        volumes = [span.volume for span in list(spans)[-self.periods.volume :]]
        deviations = self._deviations
        return Readings(
            fast=float(self._fast[-1]),
            slow=float(self._slow[-1]),
            rsi=float(self._rsi[-1]),
            deviation=float(self._deviation[-1] or 0.0),
            usual_deviation=sum(deviations) / len(deviations) if deviations else 0.0,
            volume=spans[-1].volume,
            usual_volume=sum(volumes) / len(volumes),
            highest_e9=max(span.high_e9 for span in recent),
            lowest_e9=min(span.low_e9 for span in recent),
            swing_e9=sum(span.high_e9 - span.low_e9 for span in recent) // len(recent),
            price_e9=price_e9,
        )

    def levels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lows and highs of the last bars that are below, or above, both neighbours; candidates for support and resistance."""
        spans = list(self._spans)
        middle = range(1, len(spans) - 1)
        lows = (spans[i].low_e9 for i in middle if spans[i].low_e9 < min(spans[i - 1].low_e9, spans[i + 1].low_e9))
        highs = (spans[i].high_e9 for i in middle if spans[i].high_e9 > max(spans[i - 1].high_e9, spans[i + 1].high_e9))
        return tuple(lows), tuple(highs)

    def _put(self, price_e9: int) -> None:
        """Makes `price_e9` the close of the open bar, which begins with its first price."""
        points = price_e9 / E9
        averages = (self._fast, self._slow, self._rsi)
        if self._open:
            for indicator in averages:
                indicator.update(points)
            if self._has_change:
                self._deviation.update(points - self._before)
            return
        self._has_change = self.bars > 0
        if self._has_change:
            self._before = self._spans[-1].close_e9 / E9
            self._deviation.add(points - self._before)
        for indicator in averages:
            indicator.add(points)
        self._open = True

    _before = 0.0
    _has_change = False
