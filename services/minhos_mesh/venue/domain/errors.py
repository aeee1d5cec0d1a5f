"""What a client of a venue can do wrong, and what stands behind the venue can, each with the values that its message shows."""

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
    """Expected: the symbol is not traded at this venue."""

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
    """Expected: the order is in a state in which it cannot change, or not to that, or the change was refused."""

    def __init__(self, order_id: str, state: str, wanted: str, because: str = "") -> None:
        super().__init__(f"order {order_id!r} is {state}: cannot {wanted}" + (f"; {because}" if because else ""))
        self.order_id = order_id
        self.state = state
        self.wanted = wanted


class RequestConflict(VenueError):
    """Expected: an id came before with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"id {request_id!r} came before with other content")
        self.request_id = request_id


class ProvenanceRefused(VenueError):
    """Expected: the data that led to an order is not what this venue may be traded on."""

    def __init__(self, seen: str, because: str) -> None:
        super().__init__(f"the order rests on {seen} data: {because}")
        self.seen = seen
        self.because = because


class VenueNotReady(VenueError):
    """Expected: nothing can be sent now, and nothing of the request was. `behind` is what the venue stands before."""

    def __init__(self, venue: str, behind: str, state: str, because: str) -> None:
        super().__init__(f"{behind} cannot be traded on now ({state}): {because}")
        self.venue = venue
        self.state = state
        self.because = because


class OutcomeUnknown(VenueError):
    """Expected: a request was sent on and was not answered in time."""

    def __init__(self, order_id: str, wanted: str) -> None:
        super().__init__(
            f"the server has not answered yet: whether order {order_id!r} was changed ({wanted}) is not known"
        )
        self.order_id = order_id


class VenueClosing(VenueError):
    """Expected while stopping: no order is taken any more."""

    def __init__(self, service: str) -> None:
        super().__init__("the venue is going down; ask again when it is back")
        self.service = service
        self.state = "STOPPING"
