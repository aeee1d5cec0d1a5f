"""How events are written to and read from the journal's file: contiguous sequences, a checksum per event, bounded scans."""

from __future__ import annotations

import functools
import itertools
import sqlite3
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.event_bus.domain.errors import BusError, Conflict, EventConflict, Mismatch, SequenceMismatch
from minhos_mesh.event_bus.domain.patterns import Selection, matches_any
from minhos_mesh.event_bus.domain.records import (
    Appended,
    EventQuery,
    NewEvent,
    Page,
    RemovedEvent,
    StoredEvent,
    TypeCount,
)
from minhos_mesh.runtime.storage import Connection, StorageCorrupt

SCAN_LIMIT: Final = 50_000
"""Events that one question looks through at the most, so that a rare type does not hold a reader thread."""

TAIL_EVENTS: Final = 4096
"""Newest events that are looked at when the journal is opened: those that a crash or a failing disk would harm first."""

_FOUND_BY_ID: Final = (
    "SELECT count(*) FROM event AS one CROSS JOIN event AS other INDEXED BY sqlite_autoindex_event_1"
    " ON other.id = one.id AND other.sequence = one.sequence WHERE one.sequence >= ?"
)

SameContent = Callable[[bytes, bytes], bool]
"""Whether the envelopes of two events of one id tell the same."""

_ROWS_PER_INSERT: Final = 64
_COLUMNS: Final = "sequence, type, subject, stored_ns, envelope, checksum"
_WHOLE_ROW: Final = 1 << 32
"""Mark of a checksum over everything that is served; one without it, of an older journal, covers sequence and envelope."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a batch led to: the answer, and the events that are new."""

    appended: Appended
    events: tuple[StoredEvent, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are stored all or none, and what their publisher takes to be newest, by subject."""

    events: Sequence[NewEvent]
    expected: Mapping[str, int]


Outcome = Committed | BusError
"""What a batch led to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the journal stands: newest sequence ever given, oldest and newest held, and the horizon of each type."""

    head: int
    oldest: int | None
    newest: int | None
    horizons: dict[str, int]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Events that may be removed, how far the journal was looked through for them, and their envelopes' bytes by type."""

    events: tuple[RemovedEvent, ...]
    looked_through: int
    bytes: dict[str, int]


def standing(connection: Connection) -> Standing:
    """Reads where the journal stands."""
    (head,) = connection.execute("SELECT sequence FROM head").fetchone()
    (oldest,) = connection.execute("SELECT min(sequence) FROM event").fetchone()
    (newest,) = connection.execute("SELECT max(sequence) FROM event").fetchone()
    horizons = dict(connection.execute("SELECT type, horizon FROM type_count WHERE horizon > 0"))
    return Standing(head, oldest, newest, horizons)


def check_tail(connection: Connection, found: Standing) -> None:
    """Reads the newest events as they are read when they are served. Raises StorageCorrupt when one is not what was stored,
    is missing, or is not found by its id.
    """
    first = max(found.head - TAIL_EVENTS, *found.horizons.values(), 0) + 1
    rows = connection.execute(f"SELECT {_COLUMNS} FROM event WHERE sequence >= ? ORDER BY sequence", (first,))
    held = [_stored(row).sequence for row in rows]
    (by_id,) = connection.execute(_FOUND_BY_ID, (first,)).fetchone()
    if held != list(range(first, found.head + 1)) or by_id != len(held):
        raise StorageCorrupt(f"journal: of the events from {first} to {found.head} some are missing")


# Writing.


def append(
    connection: Connection, events: Sequence[NewEvent], expected: Mapping[str, int], now_ns: int, same: SameContent
) -> Committed:
    """Stores what is new of a batch. Raises EventConflict, SequenceMismatch."""
    stage = _Stage(connection, events, now_ns, same)
    committed = stage.place(events)
    _require_expected(connection, {stored.subject for stored in committed.events}, expected)
    stage.write(connection)
    return committed


def append_all(connection: Connection, batches: Sequence[Batch], now_ns: int, same: SameContent) -> list[Outcome]:
    """As `append` for one batch after the other, with a few statements for all; a batch that is refused gives its error.

    A batch that expects something is looked at when those before it are written.
    """
    outcomes: list[Outcome] = []
    for expects, group in itertools.groupby(batches, key=lambda batch: bool(batch.expected)):
        some = list(group)
        if expects:
            outcomes += [_one(connection, batch, now_ns, same) for batch in some]
        else:
            outcomes += _together(connection, some, now_ns, same)
    return outcomes


def _together(connection: Connection, batches: Sequence[Batch], now_ns: int, same: SameContent) -> list[Outcome]:
    """Takes all ids to be new, as nearly all are: that of one that is not is found when it is written, and all begins anew."""
    stage = _Stage(connection, (), now_ns, same)
    outcomes = [stage.tried(batch) for batch in batches]
    try:
        stage.write(connection)
    except sqlite3.IntegrityError:
        connection.execute("DELETE FROM event WHERE sequence > (SELECT sequence FROM head)")
        stage = _Stage(connection, [event for batch in batches for event in batch.events], now_ns, same)
        outcomes = [stage.tried(batch) for batch in batches]
        stage.write(connection)
    return outcomes


def _one(connection: Connection, batch: Batch, now_ns: int, same: SameContent) -> Outcome:
    """Nothing is written before it is known that nothing is refused."""
    try:
        return append(connection, batch.events, batch.expected, now_ns, same)
    except BusError as error:
        return error


class _Stage:
    """Events on their way into the journal: each has its place, nothing is written."""

    def __init__(self, connection: Connection, events: Iterable[NewEvent], now_ns: int, same: SameContent) -> None:
        """`events` are those of which it is looked up whether their ids are known."""
        self._head, newest_ns = connection.execute("SELECT sequence, stored_ns FROM head").fetchone()
        self._stored_ns = max(now_ns, newest_ns)
        self._known = _known(connection, [event.event_id for event in events])
        self._same = same
        self._new: list[tuple[NewEvent, StoredEvent]] = []

    def tried(self, batch: Batch) -> Outcome:
        """As `place`, with the error as a value."""
        try:
            return self.place(batch.events)
        except BusError as error:
            return error

    def place(self, events: Sequence[NewEvent]) -> Committed:
        """Gives a batch its places. Raises EventConflict, and takes none of them then."""
        sequences: list[int] = []
        conflicts: list[Conflict] = []
        known, new, begun, stored_ns = self._known, self._new, len(self._new), self._stored_ns
        following = self._head + begun + 1
        for index, event in enumerate(events):
            stored = known.get(event.event_id)
            if stored is None:
                known[event.event_id] = following, event.envelope
                sequences.append(following)
                new.append((event, StoredEvent(following, event.type, event.subject, stored_ns, event.envelope)))
                following += 1
                continue
            if not self._same(stored[1], event.envelope):
                conflicts.append(Conflict(index, str(uuid.UUID(bytes=event.event_id)), stored[0]))
            sequences.append(stored[0])
        added = new[begun:]
        if conflicts:
            del new[begun:]
            for event, _ in added:
                del known[event.event_id]
            raise EventConflict(conflicts)
        return Committed(Appended(tuple(sequences), len(events) - len(added)), tuple(stored for _, stored in added))

    def write(self, connection: Connection) -> None:
        """Writes what has a place."""
        new = self._new
        if not new:
            return
        _insert(connection, new)
        connection.execute("UPDATE head SET sequence = ?, stored_ns = ?", (self._head + len(new), self._stored_ns))
        _note_types(connection, [stored for _, stored in new], self._stored_ns)


def _known(connection: Connection, ids: list[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Sequence and envelope of those that are stored already."""
    if not ids:
        return {}
    marks = ",".join("?" * len(ids))
    rows = connection.execute(f"SELECT id, sequence, envelope FROM event WHERE id IN ({marks})", ids)
    return {event_id: (sequence, envelope) for event_id, sequence, envelope in rows}


def _require_expected(connection: Connection, subjects: set[str], expected: Mapping[str, int]) -> None:
    mismatches: list[Mismatch] = []
    for subject, sequence in expected.items():
        if subject in subjects:
            (newest,) = connection.execute("SELECT max(sequence) FROM latest WHERE subject = ?", (subject,)).fetchone()
            if (newest or 0) != sequence:
                mismatches.append(Mismatch(subject, sequence, newest or 0))
    if mismatches:
        raise SequenceMismatch(mismatches)


def _insert(connection: Connection, new: list[tuple[NewEvent, StoredEvent]]) -> None:
    for start in range(0, len(new), _ROWS_PER_INSERT):
        rows = new[start : start + _ROWS_PER_INSERT]
        values: list[Any] = []
        for (event_id, kind, subject, source, correlation_id, envelope), stored in rows:
            place, stored_ns, checksum = stored.sequence, stored.store_time_ns, _checksum(stored)
            values += (place, event_id, kind, subject, source, correlation_id, stored_ns, checksum, envelope)
        connection.execute(_insertion(len(rows)), values)


@functools.cache
def _insertion(rows: int) -> str:
    return f"INSERT INTO event VALUES {','.join(['(?,?,?,?,?,?,?,?,?)'] * rows)}"


def _note_types(connection: Connection, new: list[StoredEvent], stored_ns: int) -> None:
    """Keeps the counts of each type, and where the newest event of each type and subject is."""
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    latest: dict[tuple[str, str], int] = {}
    for sequence, kind, subject, _, envelope in new:
        counts[kind] = counts.get(kind, 0) + 1
        sizes[kind] = sizes.get(kind, 0) + len(envelope)
        latest[subject, kind] = sequence
    for kind, count in counts.items():
        connection.execute(
            "INSERT INTO type_count (type, published, newest_ns, held, held_bytes) VALUES (?1, ?2, ?3, ?2, ?4)"
            " ON CONFLICT (type) DO UPDATE SET published = published + ?2, newest_ns = ?3, held = held + ?2,"
            " held_bytes = held_bytes + ?4",
            (kind, count, stored_ns, sizes[kind]),
        )
    rows = [(subject, kind, sequence) for (subject, kind), sequence in latest.items()]
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        some = rows[start : start + _ROWS_PER_INSERT]
        connection.execute(_newest(len(some)), [value for row in some for value in row])


@functools.cache
def _newest(rows: int) -> str:
    return (
        f"INSERT INTO latest VALUES {','.join(['(?,?,?)'] * rows)}"
        " ON CONFLICT (subject, type) DO UPDATE SET sequence = excluded.sequence"
    )


def _checksum(event: StoredEvent) -> int:
    row = f"{event.sequence}\0{event.type}\0{event.subject}\0{event.store_time_ns}\0".encode()
    return _WHOLE_ROW | zlib.crc32(event.envelope, zlib.crc32(row))


# Reading.


def list_events(connection: Connection, query: EventQuery) -> Page:
    """One page by filter, from a bounded part of the journal."""
    (newest,) = connection.execute("SELECT sequence FROM head").fetchone()
    (oldest,) = connection.execute("SELECT min(sequence) FROM event").fetchone()
    low = max(query.after_sequence + 1, newest + 1 if oldest is None else oldest)
    high = newest if query.before_sequence is None else min(newest, query.before_sequence - 1)
    if query.event_ids:
        pass  # found by their index, however far apart
    elif query.ascending:
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


def fetch(connection: Connection, sequences: Sequence[int]) -> list[StoredEvent]:
    """These events, as far as they are held, in order."""
    found: list[StoredEvent] = []
    ordered = sorted(sequences)
    for start in range(0, len(ordered), 500):
        some = ordered[start : start + 500]
        marks = ",".join("?" * len(some))
        sql = f"SELECT {_COLUMNS} FROM event WHERE sequence IN ({marks}) ORDER BY sequence"
        found += [_stored(row) for row in connection.execute(sql, some)]
    return found


def latest(connection: Connection, selection: Selection, after: int, through: int, limit: int) -> Page:
    """The newest event of each matching type and subject, as far as it lies between the two sequences."""
    parts, values = selection_condition(selection)
    condition = " AND ".join(["sequence > ?", "sequence <= ?", *parts])
    sql = f"SELECT sequence, type FROM latest WHERE {condition} ORDER BY sequence LIMIT ?"
    rows = connection.execute(sql, [after, through, *values, limit]).fetchall()
    wanted = [sequence for sequence, event_type in rows if matches_any(selection.types, event_type)]
    return Page(tuple(fetch(connection, wanted)), rows[-1][0] if len(rows) == limit else through)


def count(connection: Connection, after: int, selection: Selection, through: int | None = None) -> int:
    """How many events behind a sequence match, up to another one."""
    parts, values = selection_condition(selection)
    condition = " AND ".join(["sequence > ?", "sequence <= ?", *parts])
    sql = f"SELECT type, count(*) FROM event WHERE {condition} GROUP BY type"
    rows = connection.execute(sql, [after, (1 << 62) if through is None else through, *values])
    return sum(number for event_type, number in rows if matches_any(selection.types, event_type))


def type_counts(connection: Connection) -> list[TypeCount]:
    """What is known of each type, by type."""
    sql = "SELECT type, published, newest_ns, held, held_bytes FROM type_count ORDER BY type"
    return [TypeCount(*row) for row in connection.execute(sql)]


def first_stored_at(connection: Connection, time_ns: int) -> int:
    """Halves the range of sequences, for store times never go back."""
    found = standing(connection)
    low, high = found.head + 1 if found.oldest is None else found.oldest, found.head + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute("SELECT stored_ns FROM event WHERE sequence >= ? LIMIT 1", (middle,)).fetchone()
        if row is not None and row[0] < time_ns:
            low = middle + 1
        else:
            high = middle
    row = connection.execute("SELECT sequence FROM event WHERE sequence >= ? LIMIT 1", (low,)).fetchone()
    return found.head + 1 if row is None else int(row[0])


def _stored(row: tuple[int, str, str, int, bytes, int]) -> StoredEvent:
    sequence, event_type, subject, stored_ns, envelope, checksum = row
    event = StoredEvent(sequence, event_type, subject, stored_ns, envelope)
    expected = _checksum(event) if checksum & _WHOLE_ROW else zlib.crc32(envelope, sequence & 0xFFFFFFFF)
    if expected != checksum:
        raise StorageCorrupt(f"journal: event {sequence} does not have the bytes that were stored")
    return event


def _condition(query: EventQuery) -> tuple[str, list[Any]]:
    """The SQL condition for a query; for patterns with wildcards it lets more pass than the pattern does."""
    parts, values = selection_condition(query.selection)
    for column, wanted in (("source", query.source), ("correlation_id", query.correlation_id)):
        if wanted is not None:
            parts.append(f"{column} = ?")
            values.append(wanted)
    if query.event_ids:
        parts.append(f"id IN ({','.join('?' * len(query.event_ids))})")
        values += query.event_ids
    if query.since_ns is not None:
        parts.append("stored_ns >= ?")
        values.append(query.since_ns)
    if query.before_ns is not None:
        parts.append("stored_ns < ?")
        values.append(query.before_ns)
    return " AND ".join(["sequence BETWEEN ? AND ?", *parts]), values


def selection_condition(selection: Selection) -> tuple[list[str], list[Any]]:
    """The SQL conditions on the columns type and subject; wildcards let more pass than they should."""
    parts: list[str] = []
    values: list[Any] = []
    if selection.types:
        parts.append("(" + " OR ".join(["type GLOB ?"] * len(selection.types)) + ")")
        values += [pattern.removesuffix(">") + "*" if pattern.endswith(">") else pattern for pattern in selection.types]
    if selection.subject is not None:
        parts.append("subject = ?")
        values.append(selection.subject)
    return parts, values


# Removing.


def candidates(connection: Connection, through: Mapping[str, int], after: int, limit: int) -> Candidates:
    """The oldest events behind a sequence that may be removed, from a bounded part of the journal."""
    stop = max(through.values(), default=0)
    rows = connection.execute(
        "SELECT sequence, type, subject, length(envelope) FROM event WHERE sequence > ? AND sequence <= ?"
        " ORDER BY sequence LIMIT ?",
        (after, stop, SCAN_LIMIT),
    )
    found: list[RemovedEvent] = []
    sizes: Counter[str] = Counter()
    seen = 0
    looked = after
    for sequence, event_type, subject, size in rows:
        if sequence <= through.get(event_type, 0):
            if len(found) == limit:
                return Candidates(tuple(found), looked, sizes)
            found.append(RemovedEvent(sequence, event_type, subject))
            sizes[event_type] += size
        looked = sequence
        seen += 1
    return Candidates(tuple(found), looked if seen == SCAN_LIMIT else stop, sizes)


def remove(connection: Connection, found: Candidates) -> None:
    """Removes these events and moves the horizons of their types, in the transaction that the connection is in."""
    connection.executemany("DELETE FROM event WHERE sequence = ?", [(event.sequence,) for event in found.events])
    connection.executemany(
        "DELETE FROM latest WHERE subject = ? AND type = ? AND sequence = ?",
        [(event.subject, event.type, event.sequence) for event in found.events],
    )
    counts = Counter(event.type for event in found.events)
    connection.executemany(
        "UPDATE type_count SET held = held - ?, held_bytes = held_bytes - ?, horizon = max(horizon, ?) WHERE type = ?",
        [(counts[name], found.bytes[name], horizon, name) for name, horizon in horizons_of(found.events).items()],
    )


def horizons_of(removed: Iterable[RemovedEvent]) -> dict[str, int]:
    """The highest sequence of each type among events that are in order."""
    return {event.type: event.sequence for event in removed}
