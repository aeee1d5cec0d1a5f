"""Decides which records are parts of one trade that the exchange reported in parts, by the marks at its ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.layout import MARK_FIRST, MARK_LAST, Records, open_bits


@dataclass(frozen=True, slots=True)
class Bundles:
    """Unbundled trades of a run of records, by the indices of their ends."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    """Indices of the first and the last part of each complete trade, both included."""
    unmatched: int
    """Marks without their other end: damage, or a trade that is cut by the ends of the run."""

    def __len__(self) -> int:
        return len(self.first)

    def sizes(self) -> NDArray[np.int64]:
        """Parts of each trade."""
        return self.last - self.first + 1

    def volumes(self, records: Records) -> NDArray[np.int64]:
        """Contracts of each trade as a whole."""
        total = np.concatenate(([0], np.cumsum(records["total_volume"], dtype=np.int64)))
        volumes: NDArray[np.int64] = total[self.last + 1] - total[self.first]
        return volumes


def bundles(records: Records) -> Bundles:
    """Finds the trades that begin with a first mark and end with the last mark that comes next."""
    bits = open_bits(records)
    at = np.flatnonzero((bits == MARK_FIRST) | (bits == MARK_LAST)).astype(np.int64)
    begins = bits[at] == MARK_FIRST
    paired = begins[:-1] & ~begins[1:]
    first, last = at[:-1][paired], at[1:][paired]
    return Bundles(first, last, len(at) - 2 * len(first))
