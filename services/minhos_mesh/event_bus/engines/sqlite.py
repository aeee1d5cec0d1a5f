"""The journal in one SQLite file: contiguous sequences, a checksum per event, the newest events kept in memory too."""

from __future__ import annotations

import json
import operator
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.event_bus.domain.errors import Conflict, EventConflict
from minhos_mesh.event_bus.domain.patterns import Selection, matches_any
from minhos_mesh.event_bus.domain.records import (
    Appended,
    Bounds,
    ConsumerState,
    DeadLetter,
    EventQuery,
    Failure,
    NewEvent,
    Page,
    StoredEvent,
    TypeCount,
)
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.storage import Connection, Database, StorageCorrupt

MIGRATIONS: Final = (
    """
    CREATE TABLE event (
        sequence INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        type TEXT NOT NULL,
        subject TEXT NOT NULL,
        source TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        stored_ns INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        envelope BLOB NOT NULL
    );
    CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, stored_ns INTEGER NOT NULL);
    INSERT INTO head VALUES (1, 0, 0);
    CREATE TABLE type_count (type TEXT PRIMARY KEY, published INTEGER NOT NULL, newest_ns INTEGER NOT NULL);
    CREATE TABLE consumer (name TEXT PRIMARY KEY, state TEXT NOT NULL);
    CREATE TABLE dead_letter (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        consumer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        type TEXT NOT NULL,
        subject TEXT NOT NULL,
        stored_ns INTEGER NOT NULL,
        dead_ns INTEGER NOT NULL,
        failures TEXT NOT NULL,
        envelope BLOB NOT NULL,
        UNIQUE (consumer, sequence)
    );
    """,
)

RECENT_EVENTS: Final = 8192
"""Newest events kept in memory, so that readers who keep up cause no reading from disk."""

RECENT_BYTES: Final = 16 * 1024 * 1024
SCAN_LIMIT: Final = 50_000
"""Events that one question looks through at the most, so that a rare type does not hold a reader thread."""

SameContent = Callable[[bytes, bytes], bool]
"""Whether the envelopes of two events of one id tell the same."""

_ROWS_PER_INSERT: Final = 64
_COLUMNS: Final = "sequence, type, subject, stored_ns, envelope, checksum"


@dataclass(frozen=True, slots=True)
class _Committed:
    appended: Appended
    events: tuple[StoredEvent, ...]


class SqliteEngine:
    """Engine on a Database that was opened with MIGRATIONS. Call `start` once before anything else."""

    def __init__(self, database: Database, clock: Clock, same: SameContent = operator.eq) -> None:
        """`same` says whether two envelopes tell the same; it is asked only when an id comes again."""
        self._database = database
        self._same = same
        self._clock = clock
        self._recent: list[StoredEvent] = []
        self._recent_bytes = 0
        self._oldest = 1
        self._newest = 0
        self._listeners: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Reads where the journal stands. Raises StorageCorrupt when its head and its events disagree."""
        head, oldest, newest = await self._database.read(_read_bounds)
        if newest is not None and head != newest:
            raise StorageCorrupt(f"{self._database.path}: the journal's head is {head}, its newest event {newest}")
        self._oldest, self._newest = head + 1 if oldest is None else oldest, head

    async def append(self, events: Sequence[NewEvent]) -> Appended:
        """See Engine."""
        committed = await self._database.write(
            lambda c: _append(c, events, self._clock.wall_ns(), self._same), then=self._remember
        )
        return committed.appended

    def on_append(self, listener: Callable[[], None]) -> None:
        """See Engine."""
        self._listeners.append(listener)

    @property
    def bounds(self) -> Bounds:
        """See Engine."""
        return Bounds(self._oldest, self._newest)

    def recent(self, after: int, limit: int) -> Sequence[StoredEvent] | None:
        """See Engine."""
        if after >= self._newest:
            return ()
        first = self._newest - len(self._recent) + 1
        if after + 1 < first:
            return None
        return self._recent[after + 1 - first : after + 1 - first + limit]

    async def read(self, after: int, selection: Selection, limit: int) -> Page:
        """See Engine."""
        query = EventQuery(selection=selection, after_sequence=after, ascending=True, limit=limit)
        return await self.list_events(query)

    async def fetch(self, sequences: Sequence[int]) -> list[StoredEvent]:
        """See Engine."""
        return await self._database.read(lambda connection: _fetch(connection, sequences))

    async def list_events(self, query: EventQuery) -> Page:
        """See Engine."""
        return await self._database.read(lambda connection: _list(connection, query))

    async def first_stored_at(self, time_ns: int) -> int:
        """See Engine."""
        return await self._database.read(lambda connection: _first_stored_at(connection, time_ns))

    async def count(self, after: int, selection: Selection) -> int:
        """See Engine."""
        if after >= self._newest:
            return 0
        return await self._database.read(lambda connection: _count(connection, after, selection))

    async def type_counts(self) -> list[TypeCount]:
        """See Engine."""
        sql = "SELECT type, published, newest_ns FROM type_count ORDER BY type"
        return await self._database.read(lambda c: [TypeCount(*row) for row in c.execute(sql)])

    async def load_consumers(self) -> list[ConsumerState]:
        """See Engine."""
        sql = "SELECT state FROM consumer ORDER BY name"
        return await self._database.read(lambda c: [_consumer_from_json(text) for (text,) in c.execute(sql)])

    async def save_consumers(self, states: Sequence[ConsumerState], dead: Sequence[DeadLetter]) -> None:
        """See Engine."""
        await self._database.write(lambda connection: _save_consumers(connection, states, dead))

    async def list_dead_letters(self, consumer: str | None, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """See Engine."""
        return await self._database.read(lambda connection: _list_dead(connection, consumer, after, limit))

    def _remember(self, committed: _Committed) -> None:
        """Takes what was committed, in commit order, into memory and tells the listeners."""
        if not committed.events:
            return
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


def _read_bounds(connection: Connection) -> tuple[int, int | None, int | None]:
    (head,) = connection.execute("SELECT sequence FROM head").fetchone()
    (oldest,) = connection.execute("SELECT min(sequence) FROM event").fetchone()
    (newest,) = connection.execute("SELECT max(sequence) FROM event").fetchone()
    return head, oldest, newest


def _append(connection: Connection, events: Sequence[NewEvent], now_ns: int, same: SameContent) -> _Committed:
    head, newest_ns = connection.execute("SELECT sequence, stored_ns FROM head").fetchone()
    stored_ns = max(now_ns, newest_ns)
    known = _known(connection, [event.event_id for event in events])
    sequences: list[int] = []
    new: list[tuple[NewEvent, StoredEvent]] = []
    conflicts: list[Conflict] = []
    for index, event in enumerate(events):
        stored = known.get(event.event_id)
        if stored is None:
            stored = known[event.event_id] = head + len(new) + 1, event.envelope
            new.append((event, StoredEvent(stored[0], event.type, event.subject, stored_ns, event.envelope)))
        elif not same(stored[1], event.envelope):
            conflicts.append(Conflict(index, str(uuid.UUID(bytes=event.event_id)), stored[0]))
        sequences.append(stored[0])
    if conflicts:
        raise EventConflict(conflicts)
    if new:
        _insert(connection, new)
        connection.execute("UPDATE head SET sequence = ?, stored_ns = ?", (head + len(new), stored_ns))
        _count_types(connection, [stored.type for _, stored in new], stored_ns)
    return _Committed(Appended(tuple(sequences), len(events) - len(new)), tuple(stored for _, stored in new))


def _known(connection: Connection, ids: list[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Sequence and envelope of those that are stored already."""
    marks = ",".join("?" * len(ids))
    rows = connection.execute(f"SELECT id, sequence, envelope FROM event WHERE id IN ({marks})", ids)
    return {event_id: (sequence, envelope) for event_id, sequence, envelope in rows}


def _insert(connection: Connection, new: list[tuple[NewEvent, StoredEvent]]) -> None:
    for start in range(0, len(new), _ROWS_PER_INSERT):
        rows = new[start : start + _ROWS_PER_INSERT]
        values: list[Any] = []
        for event, stored in rows:
            values += (
                stored.sequence,
                event.event_id,
                event.type,
                event.subject,
                event.source,
                event.correlation_id,
                stored.store_time_ns,
                _checksum(stored.sequence, event.envelope),
                event.envelope,
            )
        connection.execute(f"INSERT INTO event VALUES {','.join(['(?,?,?,?,?,?,?,?,?)'] * len(rows))}", values)


def _count_types(connection: Connection, types: list[str], stored_ns: int) -> None:
    for event_type in set(types):
        connection.execute(
            "INSERT INTO type_count VALUES (?, ?, ?) ON CONFLICT (type) DO UPDATE"
            " SET published = published + excluded.published, newest_ns = excluded.newest_ns",
            (event_type, types.count(event_type), stored_ns),
        )


def _checksum(sequence: int, envelope: bytes) -> int:
    return zlib.crc32(envelope, sequence & 0xFFFFFFFF)


def _stored(row: tuple[int, str, str, int, bytes, int]) -> StoredEvent:
    sequence, event_type, subject, stored_ns, envelope, checksum = row
    if _checksum(sequence, envelope) != checksum:
        raise StorageCorrupt(f"journal: event {sequence} does not have the bytes that were stored")
    return StoredEvent(sequence, event_type, subject, stored_ns, envelope)


def _condition(query: EventQuery) -> tuple[str, list[Any]]:
    """The SQL condition for a query; for patterns with wildcards it lets more pass than the pattern does."""
    parts, values = _selection_condition(query.selection)
    for column, wanted in (("source", query.source), ("correlation_id", query.correlation_id)):
        if wanted is not None:
            parts.append(f"{column} = ?")
            values.append(wanted)
    if query.since_ns is not None:
        parts.append("stored_ns >= ?")
        values.append(query.since_ns)
    if query.before_ns is not None:
        parts.append("stored_ns < ?")
        values.append(query.before_ns)
    return " AND ".join(["sequence BETWEEN ? AND ?", *parts]), values


def _selection_condition(selection: Selection) -> tuple[list[str], list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    if selection.types:
        parts.append("(" + " OR ".join(["type GLOB ?"] * len(selection.types)) + ")")
        values += [pattern.removesuffix(">") + "*" if pattern.endswith(">") else pattern for pattern in selection.types]
    if selection.subject is not None:
        parts.append("subject = ?")
        values.append(selection.subject)
    return parts, values


def _list(connection: Connection, query: EventQuery) -> Page:
    (newest,) = connection.execute("SELECT sequence FROM head").fetchone()
    low = query.after_sequence + 1
    high = newest if query.before_sequence is None else min(newest, query.before_sequence - 1)
    if query.ascending:
        high = min(high, low + SCAN_LIMIT - 1)
    else:
        low = max(low, high - SCAN_LIMIT + 1)
    condition, values = _condition(query)
    order = "ASC" if query.ascending else "DESC"
    sql = f"SELECT {_COLUMNS} FROM event WHERE {condition} ORDER BY sequence {order} LIMIT ?"
    rows = connection.execute(sql, [low, high, *values, query.limit]).fetchall()
    if len(rows) == query.limit:
        through = rows[-1][0]
    else:
        through = max(high, query.after_sequence) if query.ascending else low
    return Page(tuple(_stored(row) for row in rows if matches_any(query.selection.types, row[1])), through)


def _fetch(connection: Connection, sequences: Sequence[int]) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    for start in range(0, len(sequences), 500):
        some = sequences[start : start + 500]
        marks = ",".join("?" * len(some))
        sql = f"SELECT {_COLUMNS} FROM event WHERE sequence IN ({marks}) ORDER BY sequence"
        found += [_stored(row) for row in connection.execute(sql, some)]
    return found


def _count(connection: Connection, after: int, selection: Selection) -> int:
    parts, values = _selection_condition(selection)
    condition = " AND ".join(["sequence > ?", *parts])
    sql = f"SELECT type, count(*) FROM event WHERE {condition} GROUP BY type"
    rows = connection.execute(sql, [after, *values])
    return sum(number for event_type, number in rows if matches_any(selection.types, event_type))


def _first_stored_at(connection: Connection, time_ns: int) -> int:
    """Halves the range of sequences, for store times never go back."""
    head, oldest, _ = _read_bounds(connection)
    low, high = head + 1 if oldest is None else oldest, head + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute("SELECT stored_ns FROM event WHERE sequence >= ? LIMIT 1", (middle,)).fetchone()
        if row is not None and row[0] < time_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _save_consumers(connection: Connection, states: Iterable[ConsumerState], dead: Iterable[DeadLetter]) -> None:
    connection.executemany(
        "INSERT INTO consumer VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        [(state.name, _consumer_to_json(state)) for state in states],
    )
    connection.executemany(
        "INSERT INTO dead_letter (consumer, sequence, type, subject, stored_ns, dead_ns, failures, envelope)"
        " VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (consumer, sequence) DO UPDATE"
        " SET dead_ns = excluded.dead_ns, failures = excluded.failures",
        [
            (
                letter.consumer,
                letter.event.sequence,
                letter.event.type,
                letter.event.subject,
                letter.event.store_time_ns,
                letter.dead_time_ns,
                _failures_to_json(letter.failures),
                letter.event.envelope,
            )
            for letter in dead
        ],
    )


def _list_dead(connection: Connection, consumer: str | None, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
    condition, values = ("", []) if consumer is None else ("AND consumer = ?", [consumer])
    rows = connection.execute(
        "SELECT number, consumer, sequence, type, subject, stored_ns, envelope, failures, dead_ns FROM dead_letter"
        f" WHERE number > ? {condition} ORDER BY number LIMIT ?",
        [after, *values, limit],
    )
    return [
        (row[0], DeadLetter(row[1], StoredEvent(*row[2:7]), _failures_from(json.loads(row[7])), row[8])) for row in rows
    ]


def _failures_to_json(failures: Iterable[Failure]) -> str:
    return json.dumps([[failure.time_ns, failure.member, failure.error] for failure in failures])


def _failures_from(values: list[list[Any]]) -> tuple[Failure, ...]:
    return tuple(Failure(*value) for value in values)


def _consumer_to_json(state: ConsumerState) -> str:
    return json.dumps(
        {
            "name": state.name,
            "types": state.selection.types,
            "subject": state.selection.subject,
            "max_attempts": state.max_attempts,
            "ack_deadline_ns": state.ack_deadline_ns,
            "position": state.position,
            "unsettled": [
                [sequence, [[failure.time_ns, failure.member, failure.error] for failure in failures]]
                for sequence, failures in state.unsettled
            ],
            "redelivered": state.redelivered,
            "dead_letters": state.dead_letters,
        }
    )


def _consumer_from_json(text: str) -> ConsumerState:
    value = json.loads(text)
    return ConsumerState(
        name=value["name"],
        selection=Selection(tuple(value["types"]), value["subject"]),
        max_attempts=value["max_attempts"],
        ack_deadline_ns=value["ack_deadline_ns"],
        position=value["position"],
        unsettled=tuple((sequence, _failures_from(failures)) for sequence, failures in value["unsettled"]),
        redelivered=value["redelivered"],
        dead_letters=value["dead_letters"],
    )
