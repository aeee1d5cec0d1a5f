"""Decides which records fall into a scheduled gap, and so are never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without records, in microseconds from the beginning of the feed."""

    after_us: int
    length_us: int
    every_us: int | None = None
    """From the beginning of one gap to that of the next; None has it once."""


def outside(gaps: Sequence[Gap], since_us: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for times (microseconds since the beginning of the feed) that lie in no gap."""
    kept = np.ones(len(since_us), np.bool_)
    for gap in gaps:
        into = since_us - gap.after_us
        if gap.every_us is not None:
            into = np.where(into >= 0, into % gap.every_us, into)
        kept &= (into < 0) | (into >= gap.length_us)
    return kept
