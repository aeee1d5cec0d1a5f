"""Decides what is new in a growing .depth file, where reading may begin, and when it is no longer the file that was read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.depth import check_depth_header
from minhos_mesh.sierra_files.depth_layout import (
    DEPTH_HEADER_SIZE,
    DEPTH_RECORD,
    DEPTH_RECORD_SIZE,
    DEPTH_SUFFIX,
    DepthCommand,
)
from minhos_mesh.sierra_files.told_errors import told_errors

CHUNK: Final = 4096
"""Most commands that are read at once."""

SEARCHED: Final = 32_768
"""Commands in which the last clear is looked for at once."""


class DepthLost(Exception):
    """Expected: the file was replaced, truncated or deleted; it is opened again."""


class DepthTail:
    """An open .depth file; whole commands only, each once."""

    def __init__(self, path: Path) -> None:
        """Opens the file and stands at the last command that clears the book, at its end where there is none.

        Raises ScidMissing, ScidIncomplete, ScidMalformed or ScidError.
        """
        self.path = path
        with told_errors(path, "opened"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with told_errors(path, "read"):
                self._header_size = check_depth_header(os.pread(self._descriptor, DEPTH_HEADER_SIZE, 0), str(path))
                self._status = os.fstat(self._descriptor)
                self._index = self._last_clear()
        except BaseException:
            self.close()
            raise

    def read(self) -> NDArray[Any]:
        """New commands, at most CHUNK; none when there are none. Raises DepthLost, ScidError."""
        with told_errors(self.path, "read"):
            found = self._records(self._index, CHUNK)
            self._index += len(found)
            if not len(found):
                self._check()
        return found

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _records(self, index: int, limit: int) -> NDArray[Any]:
        data = os.pread(self._descriptor, limit * DEPTH_RECORD_SIZE, self._header_size + index * DEPTH_RECORD_SIZE)
        return np.frombuffer(data, DEPTH_RECORD, count=len(data) // DEPTH_RECORD_SIZE)

    def _count(self) -> int:
        return max(0, os.fstat(self._descriptor).st_size - self._header_size) // DEPTH_RECORD_SIZE

    def _last_clear(self) -> int:
        count = end = self._count()
        while end > 0:
            first = max(0, end - SEARCHED)
            commands = self._records(first, end - first)["command"]
            clears = np.flatnonzero(commands == DepthCommand.CLEAR_BOOK)
            if clears.size:
                return first + int(clears[-1])
            end = first
        return count

    def _check(self) -> None:
        if self._count() < self._index:
            raise DepthLost(f"{self.path} was truncated")
        try:
            now = self.path.stat()
        except FileNotFoundError:
            raise DepthLost(f"{self.path} was deleted") from None
        if (now.st_dev, now.st_ino) != (self._status.st_dev, self._status.st_ino):
            raise DepthLost(f"{self.path} was replaced by another file")


def newest_depth_file(folder: Path, name: str) -> Path | None:
    """The file of the newest day of a symbol, by its name; None when there is none. `folder` holds the .depth files."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return None
    mine = sorted(each for each in names if each.startswith(f"{name}.") and each.endswith(DEPTH_SUFFIX))
    return folder / mine[-1] if mine else None
