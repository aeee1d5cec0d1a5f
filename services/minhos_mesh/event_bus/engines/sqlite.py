"""The journal in one SQLite file: its newest events are kept in memory too, so that readers who keep up need no disk."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Appended,
    Backup,
    Bounds,
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    EventQuery,
    NewEvent,
    Page,
    StoredEvent,
    Trimmed,
    TypeCount,
    TypeDefinition,
    TypeFiles,
)
from minhos_mesh.event_bus.engines import sqlite_journal as journal
from minhos_mesh.event_bus.engines import sqlite_memory as memory
from minhos_mesh.event_bus.engines.interface import Told
from minhos_mesh.event_bus.engines.sqlite_appends import Appends, settle
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.event_bus.engines.sqlite_mark import TailMark
from minhos_mesh.event_bus.engines.sqlite_schema import MIGRATIONS
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import Connection, Database, StorageCorrupt, StorageError

__all__ = ["MIGRATIONS", "SqliteEngine"]

RECENT_EVENTS: Final = 8192
"""Newest events kept in memory, so that readers who keep up cause no reading from disk."""

RECENT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed, and the oldest event that is still held."""

    found: journal.Candidates
    oldest: int | None


class SqliteEngine:
    """Engine on a Database that was opened with MIGRATIONS. Call `start` once before anything else."""

    def __init__(
        self, database: Database, clock: Clock, same: SameContent = operator.eq, mark: TailMark | None = None
    ) -> None:
        """`same` says whether two envelopes tell the same; it is asked only when an id comes again. `mark` was verified."""
        self._database = database
        self._mark = mark
        self._same = same
        self._clock = clock
        self._recent: list[StoredEvent] = []
        self._recent_bytes = 0
        self._oldest = 1
        self._newest = 0
        self._horizons: dict[str, int] = {}
        self._holes_through = 0
        self._looked_through: dict[str, int] = {}
        self._listeners: list[Callable[[], None]] = []
        self._appends = Appends(database, clock, same, self._remember)

    async def start(self) -> None:
        """Reads where the journal stands. Raises StorageCorrupt when its head and its events disagree, or its newest events
        are not those that were stored.
        """
        found = await self._database.read(journal.standing)
        self._holes_through = max(found.horizons.values(), default=0)
        last = max(found.newest or 0, self._holes_through)
        if found.head != last:
            raise StorageCorrupt(f"{self._database.path}: the journal's head is {found.head}, its newest event {last}")
        await self._database.read(lambda connection: journal.check_tail(connection, found))
        self._oldest, self._newest = found.head + 1 if found.oldest is None else found.oldest, found.head
        self._horizons = found.horizons
        if self._mark is not None:
            number = await self._database.read(lambda c: c.execute("PRAGMA application_id").fetchone()[0])
            if not number or number != self._mark.number:
                number = 1 + secrets.randbelow(2**31 - 1)
                await self._database.write(lambda c: c.execute(f"PRAGMA application_id = {number}"))
            self._mark.begin(number, self._newest)

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> Appended:
        """See Engine."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._appends.submit(events, expected or {}, functools.partial(settle, future))
        return await future

    def submit(self, events: Sequence[NewEvent], expected: Mapping[str, int], told: Told) -> None:
        """See Engine."""
        self._appends.submit(events, expected, told)

    def on_append(self, listener: Callable[[], None]) -> None:
        """See Engine."""
        self._listeners.append(listener)

    @property
    def bounds(self) -> Bounds:
        """See Engine."""
        return Bounds(self._oldest, self._newest)

    @property
    def horizons(self) -> Mapping[str, int]:
        """See Engine."""
        return self._horizons

    def recent(self, after: int, limit: int) -> Sequence[StoredEvent] | None:
        """See Engine."""
        if after >= self._newest:
            return ()
        first = self._newest - len(self._recent) + 1
        if after + 1 < first or after < self._holes_through:
            return None
        return self._recent[after + 1 - first : after + 1 - first + limit]

    async def read(self, after: int, selection: Selection, limit: int) -> Page:
        """See Engine."""
        query = EventQuery(selection=selection, after_sequence=after, ascending=True, limit=limit)
        return await self.list_events(query)

    async def fetch(self, sequences: Sequence[int]) -> list[StoredEvent]:
        """See Engine."""
        return await self._database.read(lambda connection: journal.fetch(connection, sequences))

    async def latest(self, selection: Selection, after: int, through: int, limit: int) -> Page:
        """See Engine."""
        return await self._database.read(lambda c: journal.latest(c, selection, after, through, limit))

    async def list_events(self, query: EventQuery) -> Page:
        """See Engine."""
        return await self._database.read(lambda connection: journal.list_events(connection, query))

    async def first_stored_at(self, time_ns: int) -> int:
        """See Engine."""
        return await self._database.read(lambda connection: journal.first_stored_at(connection, time_ns))

    async def count(self, after: int, selection: Selection, through: int | None = None) -> int:
        """See Engine."""
        if after >= (self._newest if through is None else through):
            return 0
        return await self._database.read(lambda connection: journal.count(connection, after, selection, through))

    async def type_counts(self) -> list[TypeCount]:
        """See Engine."""
        return await self._database.read(journal.type_counts)

    async def trim(self, through: Mapping[str, int], limit: int) -> Trimmed:
        """See Engine. What may go is looked for by a reader, so that publishing waits only for the removal itself."""
        wanted = {name: last for name, last in through.items() if last > self._looked_through.get(name, 0)}
        if not wanted:
            return Trimmed((), 0, more=False)
        after = min(self._looked_through.get(name, 0) for name in wanted)
        found = await self._database.read(lambda c: journal.candidates(c, wanted, after, limit))
        if found.events:
            await self._drop(found)
        for name, last in wanted.items():
            self._looked_through[name] = max(self._looked_through.get(name, 0), min(found.looked_through, last))
        more = found.looked_through < max(wanted.values())
        return Trimmed(found.events, sum(found.bytes.values()), more)

    async def _drop(self, found: journal.Candidates) -> None:
        await self._database.write(lambda connection: remove(connection, found), then=self._forget_removed)

    async def load_consumers(self) -> list[ConsumerState]:
        """See Engine."""
        return await self._database.read(memory.load_consumers)

    async def load_definitions(self) -> tuple[list[TypeDefinition], list[TypeFiles]]:
        """See Engine."""
        return await self._database.read(memory.load_definitions)

    async def save(self, change: Change) -> None:
        """See Engine."""
        await self._database.write(lambda connection: save(connection, change))
        note_saved(change)

    async def list_dead_letters(self, query: DeadLetterQuery) -> list[tuple[int, DeadLetter]]:
        """See Engine."""
        return await self._database.read(lambda connection: memory.list_dead_letters(connection, query))

    async def count_dead_letters(self) -> dict[str, int]:
        """See Engine."""
        return await self._database.read(memory.count_dead_letters)

    async def answer(self, request_id: str) -> Answer | None:
        """See Engine."""
        return await self._database.read(lambda connection: memory.answer(connection, request_id))

    async def backup(self, path: Path) -> Backup:
        """See Engine. The copy is an ordinary journal file; a mesh that is down goes on from it when it lies in its place."""
        return await self._database.read(functools.partial(_backup, path))

    def _remember(self, committed: journal.Committed) -> None:
        """Takes what was committed, in commit order, into memory and tells the listeners."""
        if not committed.events:
            return
        if self._mark is not None:
            self._mark.move(committed.events[-1].sequence)
        self._recent.extend(committed.events)
        self._recent_bytes += sum(len(event.envelope) for event in committed.events)
        self._newest = committed.events[-1].sequence
        if len(self._recent) > 2 * RECENT_EVENTS or self._recent_bytes > 2 * RECENT_BYTES:
            self._forget()
        for listener in self._listeners:
            listener()

    def _forget(self) -> None:
        kept, size = 0, 0
        for event in reversed(self._recent):
            size += len(event.envelope)
            if kept == RECENT_EVENTS or (size > RECENT_BYTES and kept):
                size -= len(event.envelope)
                break
            kept += 1
        self._recent = self._recent[-kept:]
        self._recent_bytes = size

    def _forget_removed(self, removed: Removal) -> None:
        reached("retention.after_commit")
        self._horizons |= journal.horizons_of(removed.found.events)
        self._holes_through = max(self._horizons.values())
        self._oldest = self._newest + 1 if removed.oldest is None else removed.oldest


def remove(connection: Connection, found: journal.Candidates) -> Removal:
    """Removes these events in the transaction that the connection is in."""
    journal.remove(connection, found)
    (oldest,) = connection.execute("SELECT min(sequence) FROM event").fetchone()
    reached("retention.before_commit")
    return Removal(found, oldest)


def save(connection: Connection, change: Change) -> None:
    """Writes a change of what is remembered in the transaction that the connection is in."""
    memory.save(connection, change)
    if change.consumers:
        reached("consumer.before_commit")
    if change.dead:
        reached("dead_letter.before_commit")


def note_saved(change: Change) -> None:
    """The change is committed."""
    if change.consumers:
        reached("consumer.after_commit")
    if change.dead:
        reached("dead_letter.after_commit")


def _backup(path: Path, connection: Connection) -> Backup:
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    (newest,) = connection.execute("SELECT sequence FROM head").fetchone()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = sqlite3.connect(partial)
        try:
            connection.backup(target)
            # Another journal than this one, see TailMark.
            target.execute(f"PRAGMA application_id = {secrets.randbelow(2**31)}")
            target.execute("PRAGMA journal_mode = DELETE")
        finally:
            target.close()
        size = _sync(partial)
        os.link(partial, path)
        _sync(path.parent)
    except FileExistsError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the backup could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Backup(size, newest)


def _sync(path: Path) -> int:
    """Puts a file or folder on the disk and gives its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
