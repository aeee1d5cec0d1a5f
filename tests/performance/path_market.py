"""Decides the market of the path benchmark: quiet, with one tick at the begin of each step that turns the brain over."""

from __future__ import annotations

from typing import Final

import numpy as np

from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

TICK_E9: Final = 250_000_000
MIDDLE: Final = 94_000
"""Price around which the market stands, in ticks."""
JUMP: Final = 8
"""How far the price of a turning tick is from the middle, in ticks."""
HISTORY_MINUTES: Final = 45
MINUTE_NS: Final = 60_000_000_000


def history(until_ns: int, seed: int = 1) -> TickArray:
    """Quiet minutes up to a time: ten trades each, a tick or two around the middle."""
    random = np.random.default_rng(seed)
    count = HISTORY_MINUTES * 10
    times = until_ns - HISTORY_MINUTES * MINUTE_NS + (np.arange(count) + 0.5) * (MINUTE_NS / 10)
    return trades(times.astype(np.int64), MIDDLE + random.integers(-2, 3, count))


class TurningMarket:
    """Makes ticks in order; the first one of each step jumps to the other side of the middle, the rest stay near it.

    Steps are counted from the begin of each minute, as the brain does.
    """

    def __init__(self, step_ns: int, seed: int = 2) -> None:
        self._step_ns = step_ns
        self._random = np.random.default_rng(seed)
        self._step = (0, 0)
        self._up = False

    def ticks(self, times_ns: list[int]) -> tuple[TickArray, list[int]]:
        """Ticks at these times, and the indices of those that turn the brain over."""
        times = np.array(times_ns, np.int64)
        prices = MIDDLE + self._random.integers(-1, 2, len(times))
        turning: list[int] = []
        for index, time_ns in enumerate(times_ns):
            step = time_ns // MINUTE_NS, time_ns % MINUTE_NS // self._step_ns
            if step != self._step:
                self._step, self._up = step, not self._up
                prices[index] = MIDDLE + (JUMP if self._up else -JUMP)
                turning.append(index)
        return trades(times, prices), turning


def trades(
    times_ns: np.ndarray[tuple[int], np.dtype[np.int64]], prices: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> TickArray:
    ticks = new_ticks(len(times_ns))
    ticks["event_time_ns"] = ticks["receive_time_ns"] = times_ns
    ticks["price_e9"] = ticks["ask_e9"] = prices * TICK_E9
    ticks["bid_e9"] = ticks["price_e9"] - TICK_E9
    ticks["size"] = ticks["bid_size"] = ticks["ask_size"] = 5
    ticks["flags"], ticks["kind"], ticks["side"] = 63, 1, 1
    return ticks
