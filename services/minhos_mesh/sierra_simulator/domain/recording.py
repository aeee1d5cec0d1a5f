"""Decides what a recording is when it is played several times: each pass whole weeks later, so that times rise and weekdays stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from minhos_mesh.sierra_files.layout import Records, empty_records
from minhos_mesh.sierra_simulator.domain.gaps import Gap, outside

WEEK_US: Final = 7 * 86_400 * 1_000_000
_NEWER_TIMES_BELOW: Final = 1 << 58


class RecordingRefused(ValueError):
    """Expected: a recording cannot be played as it is wanted; the text says why."""


class Recording:
    """Records of all passes, without those that fall into scheduled gaps."""

    def __init__(self, records: Records, *, passes: int = 1, gaps: Sequence[Gap] = ()) -> None:
        """`passes` 0 is for ever. Raises RecordingRefused."""
        if (passes != 1 or gaps) and len(records) and int(records["time_us"].max()) >= _NEWER_TIMES_BELOW:
            raise RecordingRefused("its times are of a version before 2150: they can be played once, without gaps")
        kept = records[outside(gaps, records["time_us"] - records["time_us"][0])] if gaps and len(records) else records
        if len(records) and not len(kept):
            raise RecordingRefused(f"all of its {len(records)} records fall into the gaps")
        self._records = kept
        self.length = len(kept)
        """Records of one pass."""
        self.left_out = len(records) - len(kept)
        """Records of one pass that fall into gaps."""
        self.passes = passes
        """How often it is played; 0 is for ever."""
        span_us = int(kept["time_us"][-1]) - int(kept["time_us"][0]) if self.length else 0
        self._shift_us = (span_us // WEEK_US + 1) * WEEK_US

    @property
    def total(self) -> int | None:
        """Records of all passes; None when they never end."""
        return self.length * self.passes if self.passes else None

    def read(self, index: int, count: int) -> Records:
        """Records from an index on, at most `count`, all of one pass; none behind the end."""
        if not self.length or (self.total is not None and index >= self.total):
            return empty_records(0)
        number, at = divmod(index, self.length)
        found: Records = np.array(self._records[at : at + count])
        found["time_us"] += number * self._shift_us
        return found

    def time_us(self, index: int) -> int:
        """Time of a record, in microseconds since Sierra's epoch; of the last one for an index behind the end."""
        last = self.length - 1 if self.total is None else self.total - 1
        number, at = divmod(index if self.total is None else min(index, last), self.length)
        return int(self._records["time_us"][at]) + number * self._shift_us

    def begins_pass(self, index: int) -> bool:
        """True for the first record of a pass."""
        return index % self.length == 0
