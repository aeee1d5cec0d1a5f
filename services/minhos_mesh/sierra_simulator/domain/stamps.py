"""Decides the times of simulated records: milliseconds, with a counter in the microseconds of trades that share one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stamp_like_sierra(times_us: NDArray[np.int64], after_us: int) -> NDArray[np.int64]:
    """Strictly rising stamps for times in order, all later than `after_us` (microseconds of any epoch).

    Each is its millisecond, or the one of the record before when that has gone further, plus 0, 1, 2, ...
    """
    if not len(times_us):
        return times_us
    count = len(times_us)
    floor = times_us // 1000 * 1000
    rank = np.arange(count, dtype=np.int64)
    stamps: NDArray[np.int64] = np.maximum.accumulate(np.maximum(floor, after_us + 1) - rank) + rank
    return stamps
