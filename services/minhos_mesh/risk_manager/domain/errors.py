"""What can be wrong with a question to the risk manager, each with the values that its message shows."""

from __future__ import annotations


class RiskError(Exception):
    """Root of the errors that a caller can act on."""


class InvalidField(RiskError):
    """Expected: a field of a request cannot be used."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field} is {seen}; allowed is {allowed}")
        self.field = field
        self.seen = seen
        self.allowed = allowed


class RequestConflict(RiskError):
    """Expected: the request id came before with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id!r} came before with other content")
        self.request_id = request_id


class VersionMismatch(RiskError):
    """Expected: somebody else changed the limits in the meantime."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"the limits are at version {current}, not {expected}: read them again and repeat")
        self.expected = expected
        self.current = current


class BreakerNotTripped(RiskError):
    """Expected: a breaker that is not tripped cannot be reset."""

    def __init__(self) -> None:
        super().__init__("the breaker is not tripped, so there is nothing to reset")
        self.wanted = "reset breaker"
        self.state = "NOT_TRIPPED"


class SymbolUnknown(RiskError):
    """Expected: no instrument of that symbol can be traded."""

    def __init__(self, symbol: str, why: str) -> None:
        super().__init__(f"symbol {symbol!r}: {why}")
        self.symbol = symbol
