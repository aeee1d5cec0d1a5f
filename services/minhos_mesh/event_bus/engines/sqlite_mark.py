"""Decides how a journal's file is found to have lost its end: a mark beside it says how far it was when that was acknowledged.

SQLite takes a write-ahead log up to the first frame that is damaged and passes over the rest without a word, and an emptied
file for a new one. The mark is written behind each commit and needs no waiting for the disk: it may be behind the journal, never
ahead of it. A journal gets a number of its own when it is opened without the mark that belongs to it, so one that was restored
from a backup, be it the same one again, is not compared with the mark of the former one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Final

from minhos_mesh.runtime.storage import StorageCorrupt, StorageError

_LOG: Final = logging.getLogger(__name__)

_FORM: Final = struct.Struct(">8siQ")
_MAGIC: Final = b"MHMARK01"
_CHECK: Final = struct.Struct(">I")
_BUSY_S: Final = 5.0


class TailMark:
    """The mark of one journal file. `verify` before the file is opened, `begin` once it is, `close` at the end."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.path = journal.with_name(f"{journal.name}-mark")
        self._descriptor: int | None = None
        self._number = 0

    @property
    def number(self) -> int:
        """The journal that it belongs to; 0 for none. Known after `verify`."""
        return self._number

    def verify(self) -> None:
        """Raises StorageCorrupt when the journal ends before what was acknowledged; the files stay as they are."""
        marked = self._read()
        if marked is None:
            return
        number, acknowledged = marked
        self._number = number
        if not self._journal.exists() or not self._journal.stat().st_size:
            raise StorageCorrupt(self._told("the journal is gone", acknowledged))
        try:
            found = _standing(self._journal)
        except sqlite3.Error:
            return  # opening it says what is wrong with it
        if found is None:
            raise StorageCorrupt(self._told("the journal is empty", acknowledged))
        if found[0] == number and found[1] < acknowledged:
            raise StorageCorrupt(self._told(f"the journal ends with event {found[1]}", acknowledged))

    def begin(self, number: int, newest: int) -> None:
        """Goes on from where the journal stands. Raises StorageError when the mark cannot be written."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._number = number
            self._write(self._descriptor, newest)
        except OSError as error:
            self.close()
            raise StorageError(f"{self.path}: {error}") from error

    def move(self, newest: int) -> None:
        """The journal is on disk up to this event."""
        if self._descriptor is None:
            return
        try:
            self._write(self._descriptor, newest)
        except OSError as error:
            _LOG.error("%s cannot be written and stays behind: %s", self.path, error)
            self.close()

    def close(self) -> None:
        """Gives back its file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, descriptor: int, newest: int) -> None:
        body = _FORM.pack(_MAGIC, self._number, newest)
        os.pwrite(descriptor, body + _CHECK.pack(zlib.crc32(body)), 0)

    def _read(self) -> tuple[int, int] | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        body, check = content[: _FORM.size], content[_FORM.size :]
        if len(content) != _FORM.size + _CHECK.size or _CHECK.unpack(check)[0] != zlib.crc32(body):
            if content:
                _LOG.warning("%s is damaged: whether the journal lost its end cannot be told", self.path)
            return None
        _, number, newest = _FORM.unpack(body)
        return number, newest

    def _told(self, what: str, acknowledged: int) -> str:
        return (
            f"{self._journal}: {what}, acknowledged was event {acknowledged}: what lies between is lost. Restore it from a"
            f" backup, or remove {self.path} to go on with what there is"
        )


def _standing(journal: Path) -> tuple[int, int] | None:
    """Number and newest event of a journal, read without changing a file; None when it holds no journal."""
    connection = sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'head'").fetchone() is None:
            return None
        (number,) = connection.execute("PRAGMA application_id").fetchone()
        row = connection.execute("SELECT sequence FROM head").fetchone()
        return None if row is None else (number, row[0])
    finally:
        connection.close()
