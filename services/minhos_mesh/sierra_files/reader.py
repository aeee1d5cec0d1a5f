"""Decides how whole records are taken from an open .scid file, and never a half one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import numpy as np

from minhos_mesh.sierra_files.header import ScidError, ScidHeader, parse_header
from minhos_mesh.sierra_files.layout import (
    EPOCH_SHIFT_US,
    HEADER_SIZE,
    RECORD,
    RECORD_SIZE,
    Records,
    offset_of,
    records_in,
)
from minhos_mesh.sierra_files.told_errors import told_errors

CHUNK_RECORDS: Final = 1 << 18
"""Records of a piece when a file is read in pieces: 10 MB."""

_PIECE: Final = 1 << 26
"""Bytes asked for at once; one call of the system gives at most 2 GB, files are larger."""


class ScidFile:
    """One open .scid file, which another process may be growing; closes its descriptor on close()."""

    def __init__(self, path: Path) -> None:
        """Opens and checks a file. Raises a ScidError that names the file and what was seen."""
        self.path = path
        self._descriptor = _open(path)
        try:
            self.header: ScidHeader = parse_header(os.pread(self._descriptor, HEADER_SIZE, 0), str(path))
        except BaseException:
            os.close(self._descriptor)
            raise
        status = os.fstat(self._descriptor)
        self.device = status.st_dev
        self.inode = status.st_ino

    def size(self) -> int:
        """Size in bytes now."""
        return os.fstat(self._descriptor).st_size

    def count(self) -> int:
        """Whole records in the file now."""
        return self.count_of(self.size())

    def count_of(self, size: int) -> int:
        """Whole records that a file with this header and of this size has."""
        return records_in(size, self.header.size)

    def read(self, index: int, limit: int) -> Records:
        """At most `limit` whole records from `index` on; empty when there is none (yet).

        A file that is truncated meanwhile gives those that were read before. Raises ScidError when the disk fails.
        """
        found = np.empty(max(0, min(limit, self.count() - index)), RECORD)
        got = self._fill(found.view(np.uint8).data, offset_of(index, self.header.size))
        return found[: got // RECORD_SIZE]

    def chunks(self, records: int = CHUNK_RECORDS) -> Iterator[Records]:
        """All records up to where the file ends when it is reached, in pieces, in bounded memory."""
        index = 0
        while len(found := self.read(index, records)):
            yield found
            index += len(found)

    def _fill(self, view: memoryview, offset: int) -> int:
        done = 0
        try:
            while done < len(view):
                got = os.preadv(self._descriptor, [view[done : done + _PIECE]], offset + done)
                if got == 0:
                    break
                done += got
        except OSError as error:
            raise ScidError(f"{self.path} cannot be read at byte {offset + done}: {error.strerror}") from error
        return done

    def first_index_at(self, time_ns: int) -> int:
        """Index of the first record at or after a time, by bisection on disk; the count when all are earlier."""
        wanted = -(-time_ns // 1000) + EPOCH_SHIFT_US
        low, high = 0, self.count()
        while low < high:
            middle = (low + high) // 2
            found = self.read(middle, 1)
            if len(found) and int(found["time_us"][0]) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_scid(path: Path) -> Records:
    """All whole records of a file, 40 bytes of memory each. Raises a ScidError that names the file and what was seen."""
    with ScidFile(path) as file:
        return file.read(0, file.count())


def _open(path: Path) -> int:
    with told_errors(path, "opened"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not path.is_file():
        os.close(descriptor)
        raise ScidError(f"{path} is a folder or a device, expected a .scid file")
    return descriptor
