"""Decides what is new in a growing .scid file, and when it is no longer the file that was being read."""

from __future__ import annotations

from minhos_mesh.sierra_client.domain import Identity
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import last_is_final

_INT63 = 2**63 - 1


class GenerationLost(Exception):
    """Expected: the file was replaced, truncated or deleted; what follows belongs to another generation."""


class ScidTail:
    """Reads an open file from an index on, whole records only, each once."""

    def __init__(self, file: ScidFile, *, hold_last_bar: bool) -> None:
        """`hold_last_bar`: do not deliver a bar at the end of the file, which the writer may still rewrite."""
        self._file = file
        self._hold_last_bar = hold_last_bar
        self._index = 0
        self._before: bytes = b""

    @property
    def index(self) -> int:
        """Index of the next record to be read."""
        return self._index

    def identity(self) -> Identity:
        """What the file is now."""
        first = self._file.read(0, 1)
        return Identity(self._file.device & _INT63, self._file.inode & _INT63, first.tobytes() if len(first) else None)

    def count(self) -> int:
        """Whole records in the file now."""
        return self._file.count()

    def seek(self, index: int) -> None:
        """Continues at an index. Raises GenerationLost when the file does not reach it."""
        self._before = self._key_before(index)
        self._index = index

    def read(self, limit: int) -> Records:
        """At most `limit` new records; empty when there are none. Raises GenerationLost."""
        overlap = 1 if self._index else 0
        found = self._file.read(self._index - overlap, limit + overlap)
        if overlap:
            if not len(found):
                raise GenerationLost(self._short(self._index))
            if found["time_us"][:1].tobytes() != self._before:
                raise GenerationLost(f"{self._file.path} was rewritten: record {self._index - 1} is another one now")
            found = found[1:]
        if self._hold_last_bar and 0 < len(found) < limit and not last_is_final(found):
            found = found[:-1]
        if len(found):
            self._index += len(found)
            self._before = found["time_us"][-1:].tobytes()
        else:
            self._check_path()
        return found

    def _key_before(self, index: int) -> bytes:
        if index == 0:
            return b""
        found = self._file.read(index - 1, 1)
        if not len(found):
            raise GenerationLost(self._short(index))
        return found["time_us"].tobytes()

    def _short(self, wanted: int) -> str:
        return f"{self._file.path} was truncated: it holds {self._file.count()} records, {wanted} were read"

    def _check_path(self) -> None:
        try:
            status = self._file.path.stat()
        except FileNotFoundError:
            raise GenerationLost(f"{self._file.path} was deleted") from None
        except PermissionError:
            return  # What is open stays readable; whether it was replaced is not known, so nothing is claimed.
        if (status.st_dev, status.st_ino) != (self._file.device, self._file.inode):
            raise GenerationLost(f"{self._file.path} was replaced by another file")
        if self._file.count_of(status.st_size) < self._index:
            raise GenerationLost(self._short(self._index))
