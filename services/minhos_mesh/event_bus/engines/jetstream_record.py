"""Decides what one record of the replicated log holds: facts, not requests, so that whoever applies them decides nothing.

A record is the group of changes that one commit makes. Its body is a length, a JSON text and the bytes of the envelopes
behind one another; its chain is a digest of the body and of the chain of the record before it, so that two logs with the
same chain at one place hold the same records up to there.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import functools
import hashlib
import json
import struct
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from minhos_mesh.event_bus.domain.records import Change, NewEvent, RemovedEvent
from minhos_mesh.runtime.storage import StorageCorrupt

T = TypeVar("T")

FORMAT: Final = "1"
"""Version of the layout; a record of a version that is not known is not guessed at."""

NO_CHAIN: Final = ""
"""Chain of a log without records."""

_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Opened:
    """A bus took the log over: nobody who came before may write to it any more."""

    token: int
    instance: str


@dataclass(frozen=True, slots=True)
class Appended:
    """New events in order with contiguous sequences from `first`, all of one store time."""

    first: int
    stored_ns: int
    events: tuple[NewEvent, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A change of what is remembered of consumers and dead letters."""

    change: Change


@dataclass(frozen=True, slots=True)
class Removed:
    """Events that retention took, with the bytes of their envelopes by type."""

    events: tuple[RemovedEvent, ...]
    bytes: dict[str, int]


Fact = Opened | Appended | Saved | Removed


@dataclass(frozen=True, slots=True)
class Record:
    """One commit: who wrote it, under which id, its facts, its chain, and the newest sequence behind it."""

    owner: str
    record_id: str
    chain: str
    newest: int
    facts: tuple[Fact, ...]


def chained(before: str, body: bytes) -> str:
    """Chain of a record with this body behind a record with that chain."""
    return hashlib.blake2b(body, digest_size=16, key=before.encode()).hexdigest()


def encode(facts: Sequence[Fact]) -> bytes:
    """The body of a record."""
    blobs: list[bytes] = []
    text = json.dumps([_fact_to_json(fact, blobs) for fact in facts], separators=(",", ":")).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *blobs))


def decode(body: bytes) -> tuple[Fact, ...]:
    """The facts of a body. Raises StorageCorrupt when it is none."""
    try:
        (length,) = _LENGTH.unpack_from(body)
        values = json.loads(body[_LENGTH.size : _LENGTH.size + length])
        blobs = _Blobs(body, _LENGTH.size + length)
        return tuple(_fact_from_json(value, blobs) for value in values)
    except (struct.error, ValueError, KeyError, IndexError, TypeError) as error:
        raise StorageCorrupt(f"a record of the log cannot be read: {error}") from error


class _Blobs:
    """Takes the bytes behind the text piece by piece."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body, self._at = body, start

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._body):
            raise ValueError("it ends in the middle of an event")
        piece, self._at = self._body[self._at : end], end
        return piece


def _fact_to_json(fact: Fact, blobs: list[bytes]) -> dict[str, Any]:
    match fact:
        case Opened():
            return {"opened": [fact.token, fact.instance]}
        case Appended():
            blobs += [event.envelope for event in fact.events]
            rows = [
                [e.event_id.hex(), e.type, e.subject, e.source, e.correlation_id, len(e.envelope)] for e in fact.events
            ]
            return {"appended": [fact.first, fact.stored_ns, rows]}
        case Saved():
            return {"saved": pack(fact.change)}
        case Removed():
            return {"removed": [[[e.sequence, e.type, e.subject] for e in fact.events], fact.bytes]}


def _fact_from_json(value: dict[str, Any], blobs: _Blobs) -> Fact:
    ((kind, content),) = value.items()
    match kind:
        case "opened":
            return Opened(*content)
        case "appended":
            first, stored_ns, rows = content
            return Appended(first, stored_ns, tuple(_event(row, blobs) for row in rows))
        case "saved":
            return Saved(unpack(Change, content))
        case "removed":
            events, sizes = content
            return Removed(tuple(RemovedEvent(*event) for event in events), sizes)
        case _:
            raise ValueError(f"it holds a fact {kind!r} that this version of the program does not know")


def _event(row: list[Any], blobs: _Blobs) -> NewEvent:
    event_id, event_type, subject, source, correlation_id, length = row
    return NewEvent(bytes.fromhex(event_id), event_type, subject, source, correlation_id, blobs.take(length))


def pack(value: Any) -> Any:
    """A dataclass or named tuple of plain values as JSON takes it; bytes become base64, fields keep their names."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if dataclasses.is_dataclass(value):
        return {field.name: pack(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_fields"):
        return {name: pack(item) for name, item in zip(value._fields, value, strict=True)}
    return [pack(item) for item in value]


def unpack(kind: type[T], value: Any) -> T:
    """What `pack` made. Fields that are not known are left out, fields that are missing have their defaults."""
    return typing.cast("T", _unpack(kind, value))


def _unpack(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind is bytes:
        return base64.b64decode(value)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = _hints(typing.cast("type", kind))
        return typing.cast("type", kind)(**{k: _unpack(hints[k], item) for k, item in value.items() if k in hints})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _unpack(next(argument for argument in arguments if argument is not types.NoneType), value)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return tuple(_unpack(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin in (tuple, collections.abc.Sequence):
        return tuple(_unpack(arguments[0], item) for item in value)
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
