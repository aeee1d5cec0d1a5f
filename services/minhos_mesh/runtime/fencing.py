"""Decides whose writes a store takes: those of the process that opened it last, checked inside every write transaction.

Who may own a store shows the fencing token of its lease when it opens it. The file keeps the highest token it was opened
with; a lower one cannot open it any more, and a process that opened it before finds itself replaced at its next write, also
when it was frozen meanwhile. No lock is held, so nobody who is frozen or dead can stand in the way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minhos_mesh.runtime.storage import Connection, StorageError

_TABLE = """
CREATE TABLE IF NOT EXISTS store_owner (
    id INTEGER PRIMARY KEY CHECK (id = 1), token INTEGER NOT NULL, instance TEXT NOT NULL
)
"""


class FencedOut(StorageError):
    """Unexpected: another process owns the store; nothing of the refused write is on disk."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")


def _ignore(_error: FencedOut) -> None:
    """For stores of which nobody wants to be told."""


@dataclass(slots=True)
class Fence:
    """The right of one process to write to one store; given to `Database` as its guard."""

    instance_id: str
    """Who owns it, for people."""
    token: int | None
    """Fencing token of the lease; None where no registry grants one: then the last to open the store owns it."""
    on_lost: Callable[[FencedOut], None] = _ignore
    """Told, in the thread that writes, that another process owns the store by now."""
    _taken: int = field(default=0, init=False)

    def take(self, connection: Connection) -> None:
        """Takes the store over, in a transaction of its own. Raises FencedOut when it was opened with a higher token."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_TABLE)
            newest, holder = _owner(connection) or (0, "")
            token = newest + 1 if self.token is None else self.token
            if token <= newest:
                raise FencedOut(_name(connection), f"token {token} cannot open it, {holder} did with token {newest}")
            connection.execute("INSERT OR REPLACE INTO store_owner VALUES (1, ?, ?)", (token, self.instance_id))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._taken = token

    def check(self, connection: Connection) -> None:
        """Called inside each write transaction. Raises FencedOut, and tells it, when another process took the store."""
        newest, holder = _owner(connection) or (0, "nobody")
        if newest != self._taken:
            error = FencedOut(
                _name(connection), f"{holder} owns it with token {newest}, this process had {self._taken}"
            )
            self.on_lost(error)
            raise error


def newest_token(path: Path) -> int | None:
    """The highest token that a store was opened with; None when it was never opened so, or cannot be read now."""
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.Error:
        return None
    try:
        found = _owner(connection)
    except sqlite3.Error:
        return None
    finally:
        connection.close()
    return found[0] if found is not None else None


def _owner(connection: Connection) -> tuple[int, str] | None:
    row = connection.execute("SELECT token, instance FROM store_owner WHERE id = 1").fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def _name(connection: Connection) -> str:
    return str(connection.execute("PRAGMA database_list").fetchone()[2])
