"""What the journal holds: events as the bytes they came in, with the few values the bus itself looks at."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.event_bus.domain.patterns import ALL, Selection

MAX_EVENT_BYTES = 1024 * 1024
"""Largest encoded event that is accepted."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as it came: `envelope` is the encoded event without sequence and store time."""

    event_id: bytes
    type: str
    subject: str
    source: str
    correlation_id: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place: sequences are contiguous from 1, store times (ns) never go back."""

    sequence: int
    type: str
    subject: str
    store_time_ns: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch stands: one sequence per event, and how many were stored before."""

    sequences: tuple[int, ...]
    duplicates: int


@dataclass(frozen=True, slots=True)
class Page:
    """Matching events, and the sequence up to which the journal was looked through (down to, when descending)."""

    events: tuple[StoredEvent, ...]
    through: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Oldest and newest sequence held; (1, 0) when the journal is empty."""

    oldest: int
    newest: int


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which stored events to list; times are store times in ns since the Unix epoch, `before` is exclusive."""

    selection: Selection = ALL
    source: str | None = None
    correlation_id: str | None = None
    after_sequence: int = 0
    before_sequence: int | None = None
    since_ns: int | None = None
    before_ns: int | None = None
    ascending: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TypeCount:
    """How many events of one type were ever stored, and when the newest was."""

    type: str
    published: int
    newest_ns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed: when (ns since the Unix epoch), at which member, and what it said."""

    time_ns: int
    member: str
    error: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that one consumer could not handle in any attempt."""

    consumer: str
    event: StoredEvent
    failures: tuple[Failure, ...]
    dead_time_ns: int


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What is remembered of a durable consumer.

    Everything up to `position` was handed to the consumer or did not match; of that, `unsettled` is not yet
    acknowledged, each with the attempts that failed so far.
    """

    name: str
    selection: Selection
    max_attempts: int
    ack_deadline_ns: int
    position: int
    unsettled: tuple[tuple[int, tuple[Failure, ...]], ...] = ()
    redelivered: int = 0
    dead_letters: int = 0
