"""Decides when the write-ahead log is folded into the journal: beside the writing, so that a publisher hardly ever waits for it.

SQLite folds the log in by itself when it is long, in the commit that made it so, which then takes as long as some fifty others.
Here a connection of its own does nearly all of it while the writer goes on; the writer does what is left over when the log is
long, and begins it anew.

A log that is written over needs half the time of one that grows, since the file system has nothing of its own to write down
then. So once the log is used at all it is given its whole length with zeros behind its end, which SQLite takes for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from minhos_mesh.runtime.storage import Connection, Database, StorageError

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")

EVERY_S: Final = 0.25
LONG_PAGES: Final = 8192
"""Length of the log at which it is begun anew; 32 MB."""
IN_USE_PAGES: Final = 512
"""Length of the log at which it is given the whole; a bus that hardly stores anything does not need the room."""
PIECE_BYTES: Final = 1024 * 1024
"""Zeros that are written at once, in the time of some ten commits."""
PLENTY: Final = 16
"""How many such logs there must be room for, so that nobody misses what this one takes beforehand."""
_FRAME_BYTES: Final = 24 + 4096
"""A page in the log, with what stands before it."""
TOO_LONG_PAGES: Final = 4 * LONG_PAGES
"""Length at which the writer folds in whatever is left, should the connection beside it not get to that."""


@contextlib.asynccontextmanager
async def folding(database: Database) -> AsyncIterator[None]:
    """Folds the log of an open database until it is left. Raises StorageError."""
    await database.write(_fold_rarely)
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"fold-{database.path.stem}")
    connection = sqlite3.connect(database.path, timeout=0, isolation_level=None, check_same_thread=False)
    task = asyncio.create_task(_Folding(database, connection, pool).run(), name="event_bus-fold")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(pool.shutdown)
        connection.close()


def _fold_rarely(connection: Connection) -> None:
    connection.execute(f"PRAGMA wal_autocheckpoint = {TOO_LONG_PAGES}")


def _fold_now(connection: Connection) -> None:
    """Has the commit of this fold in what is left, behind which the log begins anew; it is called for by a page that is written."""
    connection.execute("PRAGMA wal_autocheckpoint = 1")
    connection.execute("UPDATE head SET sequence = sequence")


class _Folding:
    """What is done beside the writing, for as long as the journal is open."""

    def __init__(self, database: Database, connection: Connection, pool: ThreadPoolExecutor) -> None:
        self._database, self._connection, self._pool = database, connection, pool
        self._log = database.path.with_name(f"{database.path.name}-wal")
        self._is_whole = False

    async def run(self) -> None:
        """Looks after the log until cancelled."""
        folded = 0
        while True:
            await asyncio.sleep(EVERY_S)
            if self._database.counters.commits == folded:
                continue
            try:
                await self._look_after()
            except (StorageError, sqlite3.Error, OSError) as error:
                _LOG.warning("%s: its log is not folded in and grows meanwhile: %s", self._database.path, error)
            folded = self._database.counters.commits

    async def _look_after(self) -> None:
        length = await self._beside(_fold, self._connection)
        if length >= LONG_PAGES:
            await self._beside(_fold, self._connection)  # what came meanwhile, so that hardly anything is left
            await self._database.write(_fold_now)
            await self._database.write(_fold_rarely)
        if length >= IN_USE_PAGES and not self._is_whole:
            self._is_whole = True
            await self._make_whole()

    async def _make_whole(self) -> None:
        """Gives the log its whole length, as far as there is room. Only the writer puts zeros behind its end, since nobody else
        knows where that is; they are brought to the disk beside it.
        """
        whole = LONG_PAGES * _FRAME_BYTES
        while await self._database.write(lambda _: _lengthened(self._log, whole)):
            await self._beside(_sync, self._log)

    async def _beside(self, call: Callable[[T], U], argument: T) -> U:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, argument)


def _lengthened(log: Path, whole: int) -> bool:
    """Puts a piece of zeros behind the end of the log; false when it is long enough, or there is no room."""
    try:
        with log.open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            room = os.fstatvfs(file.fileno())
            if room.f_bavail * room.f_frsize < PLENTY * whole:
                return False
            missing = min(PIECE_BYTES, whole - end)
            return missing > 0 and file.write(bytes(missing)) == missing
    except OSError:
        return False  # the log grows as it is needed, and who writes is told when it cannot


def _sync(log: Path) -> None:
    with log.open("rb") as file:
        os.fdatasync(file.fileno())


def _fold(connection: Connection) -> int:
    """Copies what is committed and read by nobody in an older state, waiting for nobody; gives the length of the log."""
    _, length, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(length)
