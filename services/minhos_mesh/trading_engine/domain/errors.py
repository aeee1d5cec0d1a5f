"""Decides how the engine says no: one small exception per condition, each with what a caller needs to act on it."""

from __future__ import annotations

from dataclasses import dataclass


class TradingError(Exception):
    """Root of what the engine raises; `metadata` repeats values of the message for programs, each as an attribute too."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        for name, value in metadata.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that cannot be used, and why, in words for people."""

    field: str
    description: str
    scale_meant_e9: int | None = None
    """The price that was probably meant, when the scale is wrong."""
    tick_e9: int | None = None
    """The tick that was missed, when the price is off it."""
    seen: str = ""
    """What was given, as the description shows it."""
    allowed: str = ""
    """What would be taken, as the description shows it."""


class InvalidOrder(TradingError):
    """Expected: an order cannot be used as given. Holds every violation found."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class UnknownSymbol(TradingError):
    """Expected: no instrument of that name is configured."""

    def __init__(self, symbol: str, known: tuple[str, ...]) -> None:
        names = ", ".join(sorted(known))
        super().__init__(f"symbol {symbol} is not known here, known are {names}", symbol=symbol, known=names)


class UnknownOrder(TradingError):
    """Expected: no order has this id."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id} is not known", order_id=order_id)


class UnknownRequest(TradingError):
    """Expected: no order was made of this request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"no order was made of request {request_id}", request_id=request_id)


class OrderIsClosed(TradingError):
    """Expected: the order has ended and cannot change."""

    def __init__(self, order_id: str, state: str, wanted: str) -> None:
        super().__init__(
            f"order {order_id} has ended as {state}: {wanted} is not possible",
            order_id=order_id,
            state=state,
            wanted=wanted,
        )


class ImpossibleTransition(TradingError):
    """Expected when a caller asks for it: the order's state does not allow this step now."""

    def __init__(self, order_id: str, state: str, wanted: str) -> None:
        super().__init__(
            f"order {order_id} is {state}: {wanted} is not possible now",
            order_id=order_id,
            state=state,
            wanted=wanted,
        )


class RequestIdReused(TradingError):
    """Expected: the same request id came with different content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id} was used before with other content", request_id=request_id)


class TradingHalted(TradingError):
    """Expected: trading control does not let this through. Cancels always pass."""


class NotReducing(TradingError):
    """Expected: a reduce-only order would do more than reduce; says the quantity and what is allowed."""


class VersionMismatch(TradingError):
    """Expected: a decision was made from another version of trading control than the current one."""

    def __init__(self, expected: int, current: int) -> None:
        text = f"expected version {expected}, the current one is {current}: read again and decide anew"
        super().__init__(text, expected=str(expected), current=str(current))


class SignalOutOfTime(TradingError):
    """Expected: a signal, or the quote that it stands on, is too old or in the future."""


class EmergencyStopped(TradingError):
    """Expected: the emergency stop is latched."""


class StateConflict(TradingError):
    """Expected: a change needs a state that does not hold."""

    def __init__(self, wanted: str, state: str, because: str) -> None:
        super().__init__(
            f"{wanted} is not possible: {because}, and the state is {state}",
            wanted=wanted,
            state=state,
            because=because,
        )


class ActorMissing(TradingError):
    """Expected: a person and a reason are needed."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field}: must say who asks and why, and is empty", field=field)
        self.field = field


class WrongProvenance(TradingError):
    """Expected: the data that led to an order is not what this venue takes orders on."""


class AutomaticModeForbidden(TradingError):
    """Expected: this venue and this data do not allow the automatic mode without a person's word."""


class StorageFailed(TradingError):
    """Unexpected: the disk did not take a step, so nothing new is accepted until a restart."""


class RiskRefused(TradingError):
    """Expected: the risk manager refused a change; `checks` are the names of those that failed."""

    def __init__(self, message: str, checks: tuple[str, ...]) -> None:
        super().__init__(message, checks=", ".join(checks))


class RiskUnavailable(TradingError):
    """Expected: the risk manager did not answer. Nothing is traded."""


class RiskConflict(TradingError):
    """Unexpected: the risk manager knows the id of a question with other content."""


class StateUnavailable(TradingError):
    """Expected: the state manager has not been heard, so what it decides about is not known."""


class VenueUnavailable(TradingError):
    """Expected: the venue did not answer, the outcome of the request is not known."""


class VenueChanged(TradingError):
    """Expected: orders or positions are open at another venue than the one to trade at."""


class MarketDataUnavailable(TradingError):
    """Expected: no quote can be had for the order's evidence."""
