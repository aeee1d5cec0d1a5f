"""What can be wrong with a question to the bus; each is expected and carries as attributes what its message shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BusError(Exception):
    """Root of everything the bus refuses."""


class InvalidField(BusError):
    """Expected: a field breaks a rule."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field} is {seen!r}: allowed is {allowed}")
        self.field, self.seen, self.allowed = field, seen, allowed


class PositionLost(BusError):
    """Expected: the start of a subscription is no longer held, or was never reached by this journal."""

    def __init__(self, field: str, asked: int, oldest: int, newest: int) -> None:
        """`field` is where the caller asked for it."""
        super().__init__(f"{field} is {asked}: the journal holds {oldest} to {newest}")
        self.asked, self.oldest, self.newest = asked, oldest, newest


class ConsumerConflict(BusError):
    """Expected: the consumer is remembered with another selection, or the member is connected already."""

    def __init__(
        self,
        message: str,
        consumer: str,
        member: str | None = None,
        types: str | None = None,
        subject: str | None = None,
    ) -> None:
        super().__init__(message)
        self.consumer, self.member, self.types, self.subject = consumer, member, types, subject


class NotDelivered(BusError):
    """Expected: an acknowledgement names an event that this reader was never given."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"sequence {sequence} was not delivered to this reader")
        self.sequence = sequence


class LimitReached(BusError):
    """Expected: more is asked for than one may have."""

    def __init__(self, limit: str, seen: int, allowed: int) -> None:
        super().__init__(f"{limit}: {seen} asked, {allowed} allowed")
        self.limit, self.seen, self.allowed = limit, seen, allowed


class ConsumerUnknown(BusError):
    """Expected: no durable consumer has that name."""

    def __init__(self, consumer: str, nearest: str | None, known: Sequence[str]) -> None:
        hint = (
            f"; was {nearest} meant?" if nearest else f"; known are {', '.join(known)}" if known else "; there is none"
        )
        super().__init__(f"there is no consumer {consumer!r}{hint}")
        self.consumer, self.nearest, self.known = consumer, nearest, ", ".join(known)


class DeadLetterUnknown(BusError):
    """Expected: no dead letter of that number waits."""

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no dead letter {number} that waits")
        self.number = number


class StateConflict(BusError):
    """Expected: what is asked for does not go with how things stand."""

    def __init__(self, wanted: str, state: str, because: str | None = None) -> None:
        super().__init__(f"{wanted}: {state}{f'; {because}' if because else ''}")
        self.wanted, self.state, self.because = wanted, state, because


class RequestConflict(BusError):
    """Expected: the request id came before with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id is {request_id!r}, which came before with other content: make a new one")
        self.field, self.request_id = "request_id", request_id


class TypeUnknown(BusError):
    """Expected: a reader asks for a pattern that no event type matches, so that nothing would ever come."""

    def __init__(self, field: str, event_type: str, nearest: str | None) -> None:
        hint = f"; was {nearest} meant?" if nearest else ""
        which = "matches no type of" if set(event_type) & {"*", ">"} else "is not in"
        super().__init__(f"{field} is {event_type!r}, which {which} the catalogue{hint}")
        self.field, self.type, self.nearest = field, event_type, nearest


class EventTypeMissing(BusError):
    """Expected: an event type, or a version of it, is asked for that is not known."""

    def __init__(self, event_type: str, version: int, versions: Sequence[str]) -> None:
        what = f"event type {event_type!r}" + (f" in version {version}" if versions else "")
        hint = f"; known are versions {', '.join(versions)}" if versions else ""
        super().__init__(f"there is no {what}{hint}")
        self.type = event_type


class TypesUnreachable(BusError):
    """Expected while the registry is away: it cannot be asked for event types that the bus does not know."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the registry, which may know more event types, does not answer ({code}): send it again")
        self.service = "registry"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One event of a batch whose id is stored with other content: its index, the id, and the sequence of the stored one."""

    index: int
    event_id: str
    sequence: int

    def __str__(self) -> str:
        return (
            f"events[{self.index}].event_id is {self.event_id!r}, which is stored as sequence {self.sequence} with"
            " another type, subject, source or payload: make a new id"
        )


class EventConflict(BusError):
    """Expected: events of a batch came before under the same id with other content; nothing of the batch is stored."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__("; ".join(str(conflict) for conflict in conflicts))
        self.conflicts = tuple(conflicts)
        first = conflicts[0]
        self.field, self.event_id, self.sequence = f"events[{first.index}].event_id", first.event_id, first.sequence


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A subject whose newest event is not the expected one; 0 stands for none."""

    subject: str
    expected: int
    current: int

    def __str__(self) -> str:
        return (
            f"expected: the newest event of subject {self.subject!r} is {self.current or 'none'},"
            f" not {self.expected or 'none'}: read it and decide again"
        )


class SequenceMismatch(BusError):
    """Expected: somebody else published to a subject meanwhile; nothing of the batch is stored."""

    def __init__(self, mismatches: Sequence[Mismatch]) -> None:
        super().__init__("; ".join(str(mismatch) for mismatch in mismatches))
        self.mismatches = tuple(mismatches)
        first = mismatches[0]
        self.subject, self.expected, self.current = first.subject, first.expected, first.current
