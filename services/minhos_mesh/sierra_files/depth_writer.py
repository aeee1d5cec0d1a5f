"""Decides how .depth files grow as Sierra Chart writes them: one for each day in UTC, in a folder beside the .scid files."""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.depth import write_depth_header
from minhos_mesh.sierra_files.depth_layout import DEPTH_HEADER_SIZE, DEPTH_RECORD, DEPTH_RECORD_SIZE, DEPTH_SUFFIX
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US
from minhos_mesh.sierra_files.told_errors import told_errors

DEPTH_FOLDER: Final = "MarketDepthData"
"""Folder of the .depth files, beside the .scid files."""


def depth_path(folder: Path, symbol: str, day: date) -> Path:
    """The file of one symbol and day; `folder` holds the .scid files."""
    return folder / DEPTH_FOLDER / f"{symbol}.{day.isoformat()}{DEPTH_SUFFIX}"


class DepthWriter:
    """Appends commands to the files of one symbol; nothing but this object may write to them."""

    def __init__(self, folder: Path, symbol: str, *, keep_days: int) -> None:
        """Files of this symbol that are older than `keep_days` are removed when a day begins."""
        self._folder = folder
        self._symbol = symbol
        self._keep_days = keep_days
        self._descriptor = -1
        self._day: date | None = None
        self.count = 0
        """Commands written since this object was made."""

    @property
    def path(self) -> Path | None:
        """The file of the day that is written; None before the first."""
        return None if self._day is None else depth_path(self._folder, self._symbol, self._day)

    def day_of(self, time_us: int) -> date:
        """Day in UTC of a time in microseconds since Sierra's epoch."""
        return datetime.fromtimestamp((time_us - EPOCH_SHIFT_US) // 1_000_000, UTC).date()

    def begins_day(self, time_us: int) -> bool:
        """True when commands of this time go into another file than those before, so that it must begin with the whole book."""
        return self.day_of(time_us) != self._day

    def append(self, records: NDArray[Any]) -> None:
        """Writes commands of one day behind the last one, all or none. Raises ScidError."""
        if records.dtype != DEPTH_RECORD:
            raise ValueError(f"records have layout {records.dtype}: expected {DEPTH_RECORD}")
        if not len(records):
            return
        day = self.day_of(int(records["time_us"][0]))
        path = depth_path(self._folder, self._symbol, day)
        with told_errors(path, "written"):
            if day != self._day or self._descriptor < 0:
                self._open(path, day)
            size = os.fstat(self._descriptor).st_size
            try:
                _write_all(self._descriptor, np.ascontiguousarray(records).tobytes())
            except OSError:
                os.ftruncate(self._descriptor, size)
                raise
        self.count += len(records)

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, path: Path, day: date) -> None:
        self.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            whole = DEPTH_HEADER_SIZE + max(0, size - DEPTH_HEADER_SIZE) // DEPTH_RECORD_SIZE * DEPTH_RECORD_SIZE
            if size < DEPTH_HEADER_SIZE:
                os.ftruncate(descriptor, 0)
                _write_all(descriptor, write_depth_header())
            elif size != whole:
                os.ftruncate(descriptor, whole)  # A half command that a killed writer left.
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._day = descriptor, day
        self._remove_before(day - timedelta(days=self._keep_days - 1))

    def _remove_before(self, oldest: date) -> None:
        name = re.compile(rf"{re.escape(self._symbol)}\.(\d{{4}}-\d\d-\d\d){re.escape(DEPTH_SUFFIX)}")
        for path in (self._folder / DEPTH_FOLDER).iterdir():
            match = name.fullmatch(path.name)
            if match is not None and match.group(1) < oldest.isoformat():
                path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
