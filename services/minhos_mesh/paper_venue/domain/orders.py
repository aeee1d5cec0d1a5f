"""Decides what the venue remembers of an order and a fill, and how events of the matcher change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from minhos_mesh.matching import (
    Fill,
    Order,
    OrderType,
    OrderUpdate,
    Phase,
    Side,
    TimeInForce,
    UpdateKind,
    round_half_even,
)


class OrderState(IntEnum):
    """Where an order stands; numbers are those of the contract."""

    PENDING = 1
    WORKING = 2
    FILLED = 3
    CANCELED = 4
    REJECTED = 5
    EXPIRED = 6

    @property
    def done(self) -> bool:
        """Return whether nothing can change any more."""
        return self not in (OrderState.PENDING, OrderState.WORKING)


class OrderReason(IntEnum):
    """Why an order ended other than by being filled; numbers are those of the contract."""

    UNSPECIFIED = 0
    REQUESTED = 1
    MARKET_CLOSED = 2
    NO_FRESH_QUOTE = 3
    FOK_UNFILLED = 4
    IOC_REST = 5
    TIME_IN_FORCE = 6
    REDUCE_ONLY = 7
    PROVENANCE = 8
    INVALID_TERMS = 9
    OTHER = 10


REDUCE_ONLY_WOULD_INCREASE = "REDUCE_ONLY_WOULD_INCREASE"

_REASONS = {
    "": (OrderReason.UNSPECIFIED, ""),
    "REQUESTED": (OrderReason.REQUESTED, "Its client cancelled it."),
    "SESSION_CLOSED": (OrderReason.MARKET_CLOSED, "The session is closed."),
    "SESSION_ENDED": (OrderReason.TIME_IN_FORCE, "It was for the day, and the session ended."),
    "NO_FRESH_QUOTE": (OrderReason.NO_FRESH_QUOTE, "There is no quote, or none fresh enough to fill against."),
    REDUCE_ONLY_WOULD_INCREASE: (OrderReason.REDUCE_ONLY, "It may only reduce a position and would open or turn one."),
}
"""What the words of the matcher mean; whatever else it says is OTHER."""

_ENDED = {
    UpdateKind.CANCELED: OrderState.CANCELED,
    UpdateKind.REJECTED: OrderState.REJECTED,
    UpdateKind.EXPIRED: OrderState.EXPIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order asks for; prices in 1e-9 units."""

    symbol: str
    side: Side
    order_type: OrderType
    quantity: int
    time_in_force: TimeInForce
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None

    def as_order(self, order_id: str, effective_ns: int) -> Order:
        """Return the order for the matcher."""
        return Order(
            order_id=order_id,
            side=self.side,
            order_type=self.order_type,
            time_in_force=self.time_in_force,
            quantity=self.quantity,
            limit_price_e9=self.limit_price_e9,
            stop_price_e9=self.stop_price_e9,
            effective_ns=effective_ns,
        )


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
        """Id that the venue gives: the same in every life of the venue, since it comes from the client's."""
        return f"paper-{self.client_order_id}"

    @property
    def why(self) -> tuple[OrderReason, str]:
        """Return why the order ended, for programs and for people; UNSPECIFIED while it lives or when it was filled."""
        if self.reason == "NOT_FILLED_AT_ONCE":
            if self.terms.time_in_force is TimeInForce.FOK:
                return OrderReason.FOK_UNFILLED, "It was to be filled at once and whole (FOK), and could not be."
            return OrderReason.IOC_REST, "It was to be filled at once (IOC), and this is what was left."
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRecord:
    """One execution."""

    fill_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: int
    cumulative_quantity: int
    price_e9: int
    commission_e9: int
    time_ns: int
    provenance: int
    market_sequence: int | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRecord:
    """How far the venue has gone in the market of a symbol, in a replay."""

    symbol: str
    epoch: int
    through_sequence: int
    revision: int


Change = OrderRecord | FillRecord | ProgressRecord
"""What watchers are told, each with its own revision."""
