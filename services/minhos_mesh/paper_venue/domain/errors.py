"""What a client of the venue can do wrong, each with the values that its message shows."""

from __future__ import annotations


class VenueError(Exception):
    """Root of the errors that a client can act on."""


class InvalidField(VenueError):
    """Expected: a field of a request cannot be used."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field} is {seen}; allowed is {allowed}")
        self.field = field
        self.seen = seen
        self.allowed = allowed


class SymbolUnknown(VenueError):
    """Expected: the venue has no market of that symbol."""

    def __init__(self, symbol: str, known: tuple[str, ...]) -> None:
        super().__init__(f"symbol {symbol!r} is not traded here; known are {', '.join(known) or 'none'}")
        self.symbol = symbol
        self.known = ", ".join(known)


class OrderUnknown(VenueError):
    """Expected: the venue never took an order of that id."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id!r} was never taken by this venue")
        self.order_id = order_id


class OrderDone(VenueError):
    """Expected: the order can no longer change, or not to that."""

    def __init__(self, order_id: str, state: str, wanted: str) -> None:
        super().__init__(f"order {order_id!r} is {state}: cannot {wanted}")
        self.order_id = order_id
        self.state = state
        self.wanted = wanted


class RequestConflict(VenueError):
    """Expected: an id came before with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"id {request_id!r} came before with other content")
        self.request_id = request_id


class ProvenanceRefused(VenueError):
    """Expected: the order claims to rest on LIVE data while this venue's market is not."""

    def __init__(self, seen: str, market: str) -> None:
        super().__init__(f"the order rests on {seen} data, the market of this venue is {market}")
        self.seen = seen
        self.because = f"the market of this venue is {market}"


class VenueClosing(VenueError):
    """Expected while stopping: no order is taken any more."""

    def __init__(self) -> None:
        super().__init__("the venue is going down; ask again when it is back")
        self.service = "paper_venue"
        self.state = "STOPPING"
