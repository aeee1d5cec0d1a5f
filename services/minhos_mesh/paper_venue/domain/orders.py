"""Decides what the venue remembers of an order and a fill, and how events of the matcher change it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minhos_mesh.matching import Fill, OrderUpdate, Phase, TimeInForce, UpdateKind, round_half_even
from minhos_mesh.venue.domain.orders import (
    AT_ONCE,
    CANCELED_BY_CLIENT,
    WOULD_GROW,
    FillRecord,
    OrderReason,
    OrderState,
    Terms,
)
from minhos_mesh.venue.domain.views import ProgressRecord

VENUE = "paper"
"""Name of this venue."""
REDUCE_ONLY_WOULD_INCREASE = "REDUCE_ONLY_WOULD_INCREASE"

_REASONS = {
    "": (OrderReason.UNSPECIFIED, ""),
    "REQUESTED": (OrderReason.REQUESTED, CANCELED_BY_CLIENT),
    "SESSION_CLOSED": (OrderReason.MARKET_CLOSED, "The session is closed."),
    "SESSION_ENDED": (OrderReason.TIME_IN_FORCE, "It was for the day, and the session ended."),
    "NO_FRESH_QUOTE": (OrderReason.NO_FRESH_QUOTE, "There is no quote, or none fresh enough to fill against."),
    REDUCE_ONLY_WOULD_INCREASE: (OrderReason.REDUCE_ONLY, WOULD_GROW),
}
"""What the words of the matcher mean; whatever else it says is OTHER."""

_ENDED = {
    UpdateKind.CANCELED: OrderState.CANCELED,
    UpdateKind.REJECTED: OrderState.REJECTED,
    UpdateKind.EXPIRED: OrderState.EXPIRED,
}


def venue_order_id(client_order_id: str) -> str:
    """The id that the venue gives an order: the same in every life of the venue, since it comes from the client's."""
    return f"{VENUE}-{client_order_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """An order as the venue has it."""

    client_order_id: str
    number: int
    """From 1, in the order in which orders were taken."""
    asked: Terms
    """What was asked for first; the same client id with other terms is a conflict."""
    terms: Terms
    provenance: int
    reduce_only: bool
    state: OrderState
    reason: str
    filled_quantity: int
    filled_value_e9: int
    """Sum of price times contracts filled."""
    fills: int
    effective_ns: int
    phase: Phase
    priority: int
    create_ns: int
    update_ns: int
    revision: int

    @property
    def venue_order_id(self) -> str:
        """Id that the venue gives."""
        return venue_order_id(self.client_order_id)

    @property
    def unanswered(self) -> bool:
        """Never: nobody else has to answer."""
        return False

    @property
    def dispute(self) -> str:
        """Never one: nobody settles orders of this venue."""
        return ""

    @property
    def why(self) -> tuple[OrderReason, str]:
        """Return why the order ended, for programs and for people; UNSPECIFIED while it lives or when it was filled."""
        if self.reason == "NOT_FILLED_AT_ONCE":
            return AT_ONCE.get(self.terms.time_in_force, AT_ONCE[TimeInForce.IOC])
        return _REASONS.get(self.reason, (OrderReason.OTHER, self.reason))

    @property
    def average_price_e9(self) -> int | None:
        """Average fill price, rounded half to even; None when nothing is filled."""
        return round_half_even(self.filled_value_e9, self.filled_quantity) if self.filled_quantity else None

    def updated(self, update: OrderUpdate, time_ns: int) -> OrderRecord:
        """Return the order after an event that is not a fill."""
        state = _ENDED.get(update.kind, self.state)
        return replace(self, state=state, reason=update.reason if state.done else "", update_ns=time_ns)

    def filled_by(self, fill: Fill, time_ns: int) -> OrderRecord:
        """Return the order after a fill."""
        return replace(
            self,
            state=OrderState.FILLED if fill.leaves_quantity == 0 else OrderState.WORKING,
            filled_quantity=fill.cumulative_quantity,
            filled_value_e9=self.filled_value_e9 + fill.price_e9 * fill.quantity,
            fills=self.fills + 1,
            update_ns=time_ns,
        )


Change = OrderRecord | FillRecord | ProgressRecord
"""What watchers are told, each with its own revision."""
