"""What can be wrong with a question to the state manager; each is expected and carries what its message shows."""

from __future__ import annotations


class StateError(Exception):
    """Root of everything the state manager refuses."""


class FieldInvalid(StateError):
    """Expected: a field of a request breaks a rule."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field} is {seen}: allowed is {allowed}")
        self.field, self.seen, self.allowed = field, seen, allowed


class StateConflict(StateError):
    """Expected: the change would break a safety rule in the state that holds; the message says what to do first."""

    def __init__(self, wanted: str, state: str, because: str) -> None:
        super().__init__(f"{wanted} is refused while {state}: {because}")
        self.wanted, self.state, self.because = wanted, state, because


class VersionMismatch(StateError):
    """Expected: somebody else changed the state meanwhile."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(
            f"expected_version is {expected}, the current one is {current}: read the state again and repeat"
        )
        self.expected, self.current = expected, current


class RequestConflict(StateError):
    """Expected: the request id was used for another change."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} was used for another change: make a new id")
        self.field, self.request_id = "request_id", request_id


class FillUnusable(StateError):
    """Unexpected: a fill event that cannot be booked; its text says why."""
