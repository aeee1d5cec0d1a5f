"""Decides when the write-ahead log is folded into the journal: beside the writing, so that a publisher hardly ever waits for it.

SQLite folds the log in by itself when it is long, in the commit that made it so, which then takes as long as some fifty others.
Here a connection of its own does nearly all of it while the writer goes on; the writer does what is left over when the log is
long, and begins it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from minhos_mesh.runtime.storage import Connection, Database, StorageError

_LOG: Final = logging.getLogger(__name__)

EVERY_S: Final = 0.25
LONG_PAGES: Final = 8192
"""Length of the log at which it is begun anew; 32 MB."""
TOO_LONG_PAGES: Final = 4 * LONG_PAGES
"""Length at which the writer folds in whatever is left, should the connection beside it not get to that."""


@contextlib.asynccontextmanager
async def folding(database: Database) -> AsyncIterator[None]:
    """Folds the log of an open database until it is left. Raises StorageError."""
    await database.write(_fold_rarely)
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"fold-{database.path.stem}")
    connection = sqlite3.connect(database.path, timeout=0, isolation_level=None, check_same_thread=False)
    task = asyncio.create_task(_fold_often(database, connection, pool), name="event_bus-fold")
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


async def _fold_often(database: Database, connection: Connection, pool: ThreadPoolExecutor) -> None:
    loop, folded = asyncio.get_running_loop(), 0
    while True:
        await asyncio.sleep(EVERY_S)
        if database.counters.commits == folded:
            continue
        try:
            if await loop.run_in_executor(pool, _fold, connection) >= LONG_PAGES:
                await loop.run_in_executor(
                    pool, _fold, connection
                )  # what came meanwhile, so that hardly anything is left
                await database.write(_fold_now)
                await database.write(_fold_rarely)
        except (StorageError, sqlite3.Error) as error:
            _LOG.warning("%s: its log is not folded in and grows meanwhile: %s", database.path, error)
        folded = database.counters.commits


def _fold(connection: Connection) -> int:
    """Copies what is committed and read by nobody in an older state, waiting for nobody; gives the length of the log."""
    _, length, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(length)
