"""Decides when the simulated market trends, rests or turns wild, and how strongly it moves while it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Regime:
    """How the market behaves for some minutes; moves are relative, in units of 1e-4 (basis points)."""

    name: str
    drift_bp: float
    """Mean move per minute."""
    sigma_bp: float
    """Standard deviation of the move per square root of a minute."""
    mean_minutes: float
    """Mean length, beyond the shortest one."""
    wide: float
    """Probability of a spread wider than one tick."""
    heavy: float
    """Probability of a large trade."""


CALM = Regime("calm", 0.0, 1.0, 2.0, 0.08, 0.04)
UP = Regime("up", 2.4, 1.5, 5.0, 0.12, 0.08)
DOWN = Regime("down", -2.4, 1.5, 5.0, 0.14, 0.08)
WILD = Regime("wild", 0.0, 3.6, 2.0, 0.35, 0.14)
REGIMES = (CALM, UP, DOWN, WILD)

_SHORTEST_MINUTES = 2.0
_TREND_BEFORE_LIVE_US = 9 * MINUTE_US
_TREND_INTO_LIVE_US = 4 * MINUTE_US
_NEXT = {
    CALM: (0.0, 0.4, 0.4, 0.2),
    UP: (0.25, 0.0, 0.55, 0.2),
    DOWN: (0.25, 0.55, 0.0, 0.2),
    WILD: (0.2, 0.4, 0.4, 0.0),
}


class RegimeSchedule:
    """Which regime holds at which time; the same for the same seed, however it is asked."""

    def __init__(self, seed: tuple[int, ...], start_us: int, live_us: int) -> None:
        """`live_us`: when the live part begins; a trend is under way then, so that there is something to see."""
        self._random = np.random.default_rng(seed)
        self._trend_from_us = max(start_us, live_us - _TREND_BEFORE_LIVE_US)
        self._trend_to_us = live_us + _TREND_INTO_LIVE_US
        self._starts: list[int] = []
        self._kinds: list[int] = []
        self._end_us = start_us
        self._trend_done = False

    def at(self, times_us: NDArray[np.int64]) -> NDArray[np.intp]:
        """Indices into REGIMES for times that lie at or after the start."""
        while len(times_us) and self._end_us <= int(times_us[-1]):
            self._extend()
        spans = np.searchsorted(np.asarray(self._starts, np.int64), times_us, side="right") - 1
        return np.asarray(self._kinds, np.intp)[np.maximum(spans, 0)]

    def _extend(self) -> None:
        previous = REGIMES[self._kinds[-1]] if self._kinds else CALM
        if not self._trend_done and self._end_us >= self._trend_from_us:
            kind = REGIMES.index(UP if self._random.random() < 0.5 else DOWN)
            end_us = max(self._trend_to_us, self._end_us + MINUTE_US)
            self._trend_done = True
        else:
            kind = int(self._random.choice(len(REGIMES), p=_NEXT[previous]))
            minutes = _SHORTEST_MINUTES + self._random.exponential(REGIMES[kind].mean_minutes)
            end_us = self._end_us + int(minutes * MINUTE_US)
            if not self._trend_done:
                end_us = min(end_us, max(self._trend_from_us, self._end_us + 1))
        self._starts.append(self._end_us)
        self._kinds.append(kind)
        self._end_us = end_us
