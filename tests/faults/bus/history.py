"""What publishers, readers and whoever disturbs them write down of a run, as values without a wire or a clock."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minhos_mesh.event_bus.domain.patterns import matches_any


class Outcome(enum.Enum):
    """What a publisher knows of an event that it sent."""

    ACKED = "acked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Content:
    """What makes an event the one that was published; `note` stands in its payload."""

    event_id: str
    type: str
    subject: str
    note: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One event sent once, from `began` to `ended` (s); `place` counts what its publisher made, in order."""

    began: float
    ended: float
    publisher: str
    place: int
    content: Content
    outcome: Outcome
    sequence: int | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """One event as the journal holds it."""

    sequence: int
    content: Content
    store_ns: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that came to a reader; a session is one connection of one member."""

    at: float
    reader: str
    member: str
    session: int
    kept: Kept
    attempt: int = 1
    requeued: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """A member acknowledged."""

    at: float
    consumer: str
    session: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Nack:
    """A member said that it failed."""

    at: float
    consumer: str
    session: int
    sequence: int
    subject: str
    error: str


@dataclass(frozen=True, slots=True)
class Left:
    """A session ended, by the member or by the bus; `clean` when the member said goodbye and was answered."""

    at: float
    reader: str
    session: int
    clean: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A session began behind a sequence; `latest` when it is told only the newest of each type and subject."""

    at: float
    reader: str
    session: int
    after: int
    types: tuple[str, ...] = ()
    latest: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A reader was told that it does not get something; `skipped` is 0 when the bus cannot count it."""

    at: float
    reader: str
    session: int
    first: int
    last: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was done to the bus, its disk or its servers. `stops` when readers lose their sessions by it."""

    at: float
    kind: str
    stops: bool = True


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, with the errors of all its attempts."""

    consumer: str
    kept: Kept
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a durable consumer was opened."""

    types: tuple[str, ...] = ()
    max_attempts: int = 3
    after: int = 0

    def wants(self, event_type: str) -> bool:
        """Whether events of this type come to it."""
        return matches_any(self.types, event_type)


@dataclass(slots=True)
class History:
    """A whole run. What stands at the end (`journal`, `letters`, `removed_through`) is read when all is quiet."""

    attempts: list[Attempt] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    nacks: list[Nack] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    replays: list[list[Kept]] = field(default_factory=list)
    """What readers from the beginning got, each up to what was newest when it opened."""
    consumers: dict[str, Rules] = field(default_factory=dict)
    journal: list[Kept] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    removed_through: int = 0
    """No event with a higher sequence was removed by retention."""

    _stamp: float = 0.0

    def now(self) -> float:
        """The time (s) for what is written down next; no two things have the same."""
        self._stamp = max(time.monotonic(), self._stamp + 1e-7)
        return self._stamp

    def known(self) -> dict[int, Content]:
        """By sequence every event that anybody knows to be stored."""
        found = {item.kept.sequence: item.kept.content for item in self.deliveries}
        found |= {a.sequence: a.content for a in self.attempts if a.outcome is Outcome.ACKED and a.sequence is not None}
        return found | {kept.sequence: kept.content for kept in self.journal}


def by_reader(deliveries: Iterable[Delivery]) -> Mapping[str, list[Delivery]]:
    """The deliveries of each reader, in order."""
    found: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.reader, []).append(delivery)
    return found
