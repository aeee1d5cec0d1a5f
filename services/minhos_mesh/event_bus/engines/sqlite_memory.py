"""How the journal's file remembers consumers, their dead letters, and what requests were answered."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any, Final

from minhos_mesh.event_bus.domain.patterns import Selection, matches_any
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    Failure,
    Lost,
    Pause,
    StoredEvent,
    TypeDefinition,
    TypeFiles,
)
from minhos_mesh.event_bus.engines.sqlite_journal import selection_condition
from minhos_mesh.runtime.storage import Connection, StorageCorrupt

_ANSWERS_KEPT_NS: Final = 2 * 86_400 * 1_000_000_000


def load_consumers(connection: Connection) -> list[ConsumerState]:
    """Every consumer, by name."""
    rows = connection.execute("SELECT name, state FROM consumer ORDER BY name")
    return [_state_from_json(_unsealed(text, name.encode(), f"consumer {name}")) for name, text in rows]


def save(connection: Connection, change: Change) -> None:
    """Writes a change in the transaction that the connection is in."""
    connection.executemany(
        "INSERT INTO consumer VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        [(state.name, _sealed(_state_to_json(state), state.name.encode())) for state in change.consumers],
    )
    connection.executemany(
        "INSERT INTO dead_letter (consumer, sequence, type, subject, stored_ns, dead_ns, failures, envelope, requeued, edited)"
        " VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (consumer, sequence) DO UPDATE SET dead_ns = excluded.dead_ns,"
        " failures = excluded.failures, envelope = excluded.envelope, requeued = excluded.requeued,"
        " edited = excluded.edited",
        [_letter_row(letter) for letter in change.dead],
    )
    connection.executemany(
        "DELETE FROM dead_letter WHERE consumer = ? AND sequence = ?",
        [(key.consumer, key.sequence) for key in change.removed_letters],
    )
    connection.executemany("DELETE FROM consumer WHERE name = ?", [(name,) for name in change.removed_consumers])
    if change.definitions:
        _save_definitions(connection, change)
    if change.answer is not None:
        _save_answer(connection, change.answer)


def load_definitions(connection: Connection) -> tuple[list[TypeDefinition], list[TypeFiles]]:
    """Every event type that was learned, and the files that hold them."""
    rows = connection.execute("SELECT type, version, digest, told FROM type_definition ORDER BY type, version")
    found = [
        TypeDefinition(*json.loads(_unsealed(told, f"{name} {version} {digest}".encode(), f"event type {name}")))
        for name, version, digest, told in rows
    ]
    return found, [TypeFiles(*row) for row in connection.execute("SELECT digest, packed FROM type_files")]


def _save_definitions(connection: Connection, change: Change) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO type_files VALUES (?, ?)", [(some.digest, some.packed) for some in change.files]
    )
    rows = []
    for each in change.definitions:
        told = json.dumps([each.type, each.version, each.payload, each.digest, each.offered_by, each.learned_ns])
        beside = f"{each.type} {each.version} {each.digest}".encode()
        rows.append((each.type, each.version, each.digest, _sealed(told, beside)))
    connection.executemany("INSERT OR REPLACE INTO type_definition VALUES (?,?,?,?)", rows)
    connection.execute("DELETE FROM type_files WHERE digest NOT IN (SELECT digest FROM type_definition)")


def list_dead_letters(connection: Connection, query: DeadLetterQuery) -> list[tuple[int, DeadLetter]]:
    """Dead letters by filter, in order of number."""
    found: list[tuple[int, DeadLetter]] = []
    after = query.after_number
    while len(found) < query.limit:
        rows = _letters(connection, query, after, query.limit - len(found))
        found += [(row[0], _letter(row)) for row in rows if matches_any(query.selection.types, row[3])]
        if not rows:
            break
        after = rows[-1][0]
    return found


def count_dead_letters(connection: Connection) -> dict[str, int]:
    """How many wait, by consumer."""
    return dict(connection.execute("SELECT consumer, count(*) FROM dead_letter WHERE requeued = 0 GROUP BY consumer"))


def answer(connection: Connection, request_id: str) -> Answer | None:
    """What was saved for a request."""
    sql = "SELECT request_id, mark, response, answered_ns FROM answer WHERE request_id = ?"
    row = connection.execute(sql, (request_id,)).fetchone()
    return None if row is None else Answer(*row)


def _save_answer(connection: Connection, given: Answer) -> None:
    row = (given.request_id, given.mark, given.response, given.time_ns)
    connection.execute("INSERT INTO answer VALUES (?,?,?,?)", row)
    connection.execute("DELETE FROM answer WHERE answered_ns < ?", (given.time_ns - _ANSWERS_KEPT_NS,))


def _letters(connection: Connection, query: DeadLetterQuery, after: int, limit: int) -> list[tuple[Any, ...]]:
    parts: list[str] = ["number > ?"]
    values: list[Any] = [after]
    if query.consumer is not None:
        parts.append("consumer = ?")
        values.append(query.consumer)
    if query.is_requeued is not None:
        parts.append("requeued = ?")
        values.append(int(query.is_requeued))
    if query.numbers is not None:
        parts.append(f"number IN ({','.join('?' * len(query.numbers))})")
        values += query.numbers
    wanted, wanted_values = selection_condition(query.selection)
    sql = (
        "SELECT number, consumer, sequence, type, subject, stored_ns, envelope, failures, dead_ns, requeued, edited"
        f" FROM dead_letter WHERE {' AND '.join([*parts, *wanted])} ORDER BY number LIMIT ?"
    )
    return connection.execute(sql, [*values, *wanted_values, limit]).fetchall()


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    what = f"dead letter {row[0]} of consumer {row[1]}"
    return DeadLetter(
        consumer=row[1],
        event=StoredEvent(*row[2:7]),
        failures=_failures_from(json.loads(_unsealed(row[7], _letter_bytes(row[1:7], row[8:]), what))),
        dead_time_ns=row[8],
        is_requeued=bool(row[9]),
        is_edited=bool(row[10]),
    )


def _letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    event = letter.event
    told = (letter.consumer, event.sequence, event.type, event.subject, event.store_time_ns)
    then = (letter.dead_time_ns, int(letter.is_requeued), int(letter.is_edited))
    failures = _sealed(json.dumps(_failures_to(letter.failures)), _letter_bytes((*told, event.envelope), then))
    return (*told, letter.dead_time_ns, failures, event.envelope, *then[1:])


def _letter_bytes(told: tuple[Any, ...], then: tuple[Any, ...]) -> bytes:
    """What a dead letter says besides its failures: consumer to envelope, and when it was dead, requeued, edited."""
    return "\0".join(map(str, (*told[:-1], *then))).encode() + bytes(told[-1])


def _sealed(text: str, beside: bytes = b"") -> str:
    """The text behind a checksum of itself and of what stands beside it."""
    return f"{zlib.crc32(text.encode(), zlib.crc32(beside)):08x} {text}"


def _unsealed(sealed: str, beside: bytes, what: str) -> str:
    """The text; what an older version wrote has no checksum. Raises StorageCorrupt when it is not what was written."""
    if sealed[:1] in ("{", "["):
        return sealed
    text = sealed[9:]
    if sealed != _sealed(text, beside):
        raise StorageCorrupt(f"journal: {what} is not what was written")
    return text


def _failures_to(failures: Iterable[Failure]) -> list[list[Any]]:
    return [[failure.time_ns, failure.member, failure.error] for failure in failures]


def _failures_from(values: list[list[Any]]) -> tuple[Failure, ...]:
    return tuple(Failure(*value) for value in values)


def _state_to_json(state: ConsumerState) -> str:
    return json.dumps(
        {
            "name": state.name,
            "types": state.selection.types,
            "subject": state.selection.subject,
            "max_attempts": state.max_attempts,
            "ack_deadline_ns": state.ack_deadline_ns,
            "position": state.position,
            "unsettled": [[sequence, _failures_to(failures)] for sequence, failures in state.unsettled],
            "redelivered": state.redelivered,
            "dead_letters": state.dead_letters,
            "pause": None if state.pause is None else [state.pause.reason, state.pause.since_ns],
            "lost": None if state.lost is None else [state.lost.first, state.lost.last, state.lost.count],
            "lost_count": state.lost_count,
            "created_ns": state.created_ns,
            "snapshot_through": state.snapshot_through,
            "accounted_through": state.accounted_through,
        }
    )


def _state_from_json(text: str) -> ConsumerState:
    value = json.loads(text)
    pause, lost = value.get("pause"), value.get("lost")
    return ConsumerState(
        name=value["name"],
        selection=Selection(tuple(value["types"]), value["subject"]),
        max_attempts=value["max_attempts"],
        ack_deadline_ns=value["ack_deadline_ns"],
        position=value["position"],
        unsettled=tuple((sequence, _failures_from(failures)) for sequence, failures in value["unsettled"]),
        redelivered=value["redelivered"],
        dead_letters=value["dead_letters"],
        pause=None if pause is None else Pause(*pause),
        lost=None if lost is None else Lost(*lost),
        lost_count=value.get("lost_count", 0),
        created_ns=value.get("created_ns", 0),
        snapshot_through=value.get("snapshot_through", 0),
        accounted_through=value.get("accounted_through", 0),
    )
