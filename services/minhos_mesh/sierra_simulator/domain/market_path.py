"""Decides how a simulated market moves between any two times: the same for all its products, and much the same for all markets."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_simulator.domain.regimes import MINUTE_US, REGIMES, RegimeSchedule

STEP_US: Final = 200_000
STEPS_PER_MINUTE: Final = MINUTE_US // STEP_US
STEPS: Final = 10 * STEPS_PER_MINUTE
SPAN_US: Final = STEPS * STEP_US
"""What is drawn at once."""
SHARED: Final = 0.9
"""Correlation of each market with what moves all of them."""

_KEPT: Final = 4
_DRIFT = np.array([regime.drift_bp for regime in REGIMES]) * 1e-4
_SIGMA = np.array([regime.sigma_bp for regime in REGIMES]) * 1e-4


class MarketPath:
    """Relative moves of one market. They hang on seed and absolute time alone, however and by whom they are asked."""

    def __init__(self, seed: int, market: str, schedule: RegimeSchedule) -> None:
        """`schedule` tells drift and strength at each time; markets that begin together have the same."""
        self._seed = seed
        self._own = zlib.crc32(market.encode())
        self._schedule = schedule
        self._spans: dict[int, NDArray[np.float64]] = {}

    def moves(self, from_us: int, times_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Moves of the logarithm of the price from one time to each of later ones, in order."""
        if not len(times_us):
            return np.zeros(0)
        first, last = from_us // SPAN_US, int(times_us[-1]) // SPAN_US
        steps = np.concatenate([self._span(number) for number in range(first, last + 1)])
        levels = np.concatenate(([0.0], np.cumsum(steps)))
        at = np.concatenate(([from_us], times_us)) - first * SPAN_US
        at_levels = np.interp(at / STEP_US, np.arange(len(levels)), levels)
        found: NDArray[np.float64] = at_levels[1:] - at_levels[0]
        return found

    def _span(self, number: int) -> NDArray[np.float64]:
        if number not in self._spans:
            while len(self._spans) >= _KEPT:
                self._spans.pop(next(iter(self._spans)))
            self._spans[number] = self._drawn(number)
        return self._spans[number]

    def _drawn(self, number: int) -> NDArray[np.float64]:
        shared = np.random.default_rng((self._seed, 4, number)).standard_normal(STEPS)
        own = np.random.default_rng((self._seed, 5, number, self._own)).standard_normal(STEPS)
        kinds = self._schedule.at(number * SPAN_US + STEP_US * np.arange(STEPS, dtype=np.int64))
        noise = SHARED * shared + np.sqrt(1 - SHARED**2) * own
        steps: NDArray[np.float64] = (_DRIFT / STEPS_PER_MINUTE)[kinds]
        steps += (_SIGMA / np.sqrt(STEPS_PER_MINUTE))[kinds] * noise
        return steps
