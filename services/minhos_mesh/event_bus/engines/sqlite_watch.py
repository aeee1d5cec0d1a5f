"""Decides what follows when the file of the journal fails: it is said, and nothing that came behind a failed write is stored.

Whoever has many writes under way, as a publisher with a stream has, sends all of them again behind the first that failed; if
the disk had taken a later one meanwhile, its events would stand in the journal before those that came first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.storage import Connection, Database, StorageCorrupt, StorageError, StorageFull, Told

T = TypeVar("T")

FULL: Final = "EVENT_DISK_FULL"
"""What is published is refused; held until something is stored again."""

DAMAGED: Final = "EVENT_JOURNAL_DAMAGED"
"""Something that is stored cannot be read as it was written, and is not served."""


class Withheld(StorageError):
    """Expected: a write that came before this one has failed, and who waited for that was not yet told."""


class WatchedDatabase(Database):
    """A Database that tells what is wrong with its file, and refuses what was asked of it before a failure was known."""

    def __init__(self, path: Path, conditions: Conditions, **options: Any) -> None:
        super().__init__(path, **options)
        self._conditions = conditions
        self._failures = 0
        """Of the writer thread."""
        self._failures_known = 0
        """Of the event loop: those that callers were told."""

    async def write(self, fn: Callable[[Connection], T], *, then: Callable[[T], None] | None = None) -> T:
        """See Database."""
        try:
            value = await super().write(self._unless_failed(fn), then=then)
        except StorageError as error:
            self._note_failed(error)
            raise
        self._conditions.clear(FULL)
        return value

    def write_soon(self, fn: Callable[[Connection], T], told: Told) -> None:
        """See Database."""

        def note(value: Any, error: Exception | None) -> None:
            if isinstance(error, StorageError):
                self._note_failed(error)
            elif error is None:
                self._conditions.clear(FULL)
            told(value, error)

        super().write_soon(self._unless_failed(fn), note)

    def _note_failed(self, error: StorageError) -> None:
        self._failures_known = self._failures  # those who came before this are all refused
        if isinstance(error, StorageFull):
            self._conditions.set(FULL, f"nothing can be stored: {error}")
        elif isinstance(error, StorageCorrupt):
            self._conditions.set(DAMAGED, str(error))

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """See Database."""
        try:
            return await super().read(fn)
        except StorageCorrupt as error:
            self._conditions.set(DAMAGED, str(error))
            raise

    def _unless_failed(self, fn: Callable[[Connection], T]) -> Callable[[Connection], T]:
        known = self._failures_known

        def run(connection: Connection) -> T:
            if known != self._failures:
                raise Withheld(f"{self.path}: not stored, for what came before it could not be stored")
            try:
                return fn(connection)
            except sqlite3.IntegrityError:
                raise
            except (sqlite3.Error, StorageError):
                self._failures += 1
                raise

        return run

    def _run_group(self, connection: Connection, jobs: Any) -> Any:
        before = self._failures
        outcomes = super()._run_group(connection, jobs)
        errors = [outcome.error for outcome in outcomes if isinstance(outcome.error, StorageError)]
        if self._failures == before and any(not isinstance(error, Withheld) for error in errors):
            self._failures += 1  # the commit failed
        return outcomes
