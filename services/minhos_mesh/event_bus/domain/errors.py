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

    def __init__(self, asked: int, oldest: int, newest: int) -> None:
        super().__init__(f"start.after_sequence is {asked}: the journal holds {oldest} to {newest}")
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


class TypeUnknown(BusError):
    """Expected: a reader asks for a type without wildcard that is not in the catalogue, so that nothing would ever come."""

    def __init__(self, field: str, event_type: str, nearest: str | None) -> None:
        hint = f"; was {nearest} meant?" if nearest else ""
        super().__init__(f"{field} is {event_type!r}, which is not in the catalogue{hint}")
        self.field, self.type, self.nearest = field, event_type, nearest


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
