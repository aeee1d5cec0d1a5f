"""What can be wrong with a question to the bus; each is expected and carries as attributes what its message shows."""

from __future__ import annotations


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
    """Expected: the consumer is open with other patterns, or the member is connected already."""

    def __init__(self, message: str, consumer: str, member: str | None = None, types: str | None = None) -> None:
        super().__init__(message)
        self.consumer, self.member, self.types = consumer, member, types


class NotDelivered(BusError):
    """Expected: an acknowledgement names an event that this reader was never given."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"sequence {sequence} was not delivered to this reader")
        self.sequence = sequence


class PageTokenInvalid(BusError):
    """Expected: a page token was not made for this request."""

    def __init__(self, field: str = "page_token") -> None:
        super().__init__(f"{field} was not made by this bus for this request: ask for the first page again")
        self.field = field
