"""What the journal holds: events as the bytes they came in, with the few values the bus itself looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minhos_mesh.event_bus.domain.patterns import ALL, Selection

MAX_EVENT_BYTES = 1024 * 1024
"""Largest encoded event that is accepted."""


class NewEvent(NamedTuple):
    """An event as it came: `envelope` is the encoded event without sequence and store time."""

    event_id: bytes
    type: str
    subject: str
    source: str
    correlation_id: str
    envelope: bytes


class StoredEvent(NamedTuple):
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
    """Oldest and newest sequence held; (1, 0) when nothing was ever stored, (n + 1, n) when nothing is held any more."""

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
    event_ids: tuple[bytes, ...] = ()
    """Only these; all when empty."""
    ascending: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TypeCount:
    """One type: how many events were ever stored and when the newest was (ns), how many are held and their envelopes' bytes."""

    type: str
    published: int
    newest_ns: int
    held: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class RemovedEvent:
    """What is known of an event that was removed from the journal."""

    sequence: int
    type: str
    subject: str


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was removed, in order of sequence, how many bytes of envelopes that were, and whether there is more to remove."""

    removed: tuple[RemovedEvent, ...]
    bytes: int
    more: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed: when (ns since the Unix epoch), at which member, and what it said."""

    time_ns: int
    member: str
    error: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that one consumer could not handle in any attempt, with every attempt, those before a requeue too.

    `is_requeued` while it is being delivered again: then it waits for its acknowledgement, which removes it.
    """

    consumer: str
    event: StoredEvent
    failures: tuple[Failure, ...]
    dead_time_ns: int
    is_requeued: bool = False
    is_edited: bool = False
    """Whether a person gave it another payload; `event` has it."""


@dataclass(frozen=True, slots=True)
class DeadLetterQuery:
    """Which dead letters to list, behind a number; None does not filter, empty `numbers` stand for none."""

    consumer: str | None = None
    selection: Selection = ALL
    numbers: tuple[int, ...] | None = None
    is_requeued: bool | None = False
    after_number: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Lost:
    """Events that retention took from a consumer before it had them: between which sequences, and how many matched."""

    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Why and since when (ns since the Unix epoch) a consumer gets nothing."""

    reason: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What is remembered of a durable consumer.

    Everything up to `position` was handed to the consumer or did not match; of that, `unsettled` is not yet
    acknowledged, each with the attempts that failed since it was (re)queued. `lost` is not yet told to any reader.
    """

    name: str
    selection: Selection
    max_attempts: int
    ack_deadline_ns: int
    position: int
    unsettled: tuple[tuple[int, tuple[Failure, ...]], ...] = ()
    redelivered: int = 0
    dead_letters: int = 0
    """How many events ever became dead letters."""
    pause: Pause | None = None
    lost: Lost | None = None
    lost_count: int = 0
    """How many events retention ever took from it."""
    created_ns: int = 0
    snapshot_through: int = 0
    """Up to here it gets only the newest event of each type and subject; of no meaning once `position` is there."""
    accounted_through: int = 0
    """What retention removed up to here is in `lost_count`, as far as it was taken from this consumer."""


@dataclass(frozen=True, slots=True)
class LetterKey:
    """What a dead letter is known by: there is one for each consumer and sequence."""

    consumer: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered: `mark` tells its content, so that the same id with other content is noticed."""

    request_id: str
    mark: str
    response: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class TypeDefinition:
    """An event type in one version that is not of this program: which message carries it, and who brought it."""

    type: str
    version: int
    payload: str
    """Full name of the message."""
    digest: str
    """Name of the files that hold it."""
    offered_by: str
    """The service whose instance offered it."""
    learned_ns: int


@dataclass(frozen=True, slots=True)
class TypeFiles:
    """Descriptors of payloads, packed, with the files that they import; the digest is that of what is packed."""

    digest: str
    packed: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One change of what is remembered of consumers, dead letters and event types.

    A consumer or letter that is both written and removed is removed.
    """

    consumers: Sequence[ConsumerState] = ()
    dead: Sequence[DeadLetter] = ()
    removed_letters: Sequence[LetterKey] = ()
    removed_consumers: Sequence[str] = ()
    """Their dead letters stay."""
    answer: Answer | None = None
    definitions: Sequence[TypeDefinition] = ()
    """Each takes the place of that of the same type and version."""
    files: Sequence[TypeFiles] = ()


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the journal: its size, and the newest event in it."""

    bytes: int
    newest: int
