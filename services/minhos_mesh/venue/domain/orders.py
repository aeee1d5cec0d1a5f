"""Decides what an order, a fill and the word of a person on an order are at any venue, and which terms can be taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from minhos_mesh.matching import Order, OrderType, Side, TimeInForce, check_order
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import E9, check_scale, check_tick, format_e9
from minhos_mesh.venue.domain.errors import InvalidField, RequestConflict

LIVE, DELAYED, REPLAY, SIMULATED = 1, 2, 3, 4
"""Provenances as the contract numbers them."""
PROVENANCE_NAMES: Final = {LIVE: "LIVE", DELAYED: "DELAYED", REPLAY: "REPLAY", SIMULATED: "SIMULATED"}

LARGEST_QUANTITY: Final = 10_000
LARGEST_PRICE_E9: Final = 1_000_000 * E9


class OrderState(IntEnum):
    """Where an order stands; numbers are those of the contract."""

    PENDING = 1
    WORKING = 2
    FILLED = 3
    CANCELED = 4
    REJECTED = 5
    EXPIRED = 6
    UNKNOWN = 7

    @property
    def done(self) -> bool:
        """Whether it no longer works, for certain."""
        return self in _DONE


_DONE: Final = frozenset({OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED})


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
    SETTLED = 11


WOULD_GROW: Final = "It may only reduce a position and would open or turn one."
CANCELED_BY_CLIENT: Final = "Its client cancelled it."
AT_ONCE: Final = {
    TimeInForce.FOK: (
        OrderReason.FOK_UNFILLED,
        "It was to be filled at once and whole (FOK), and could not be.",
    ),
    TimeInForce.IOC: (OrderReason.IOC_REST, "It was to be filled at once (IOC), and this is what was left."),
}
"""Why orders end that were to be filled at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order asks for; prices in 1e-9 units."""

    symbol: str
    """Canonical."""
    side: Side
    order_type: OrderType
    quantity: int
    time_in_force: TimeInForce = TimeInForce.DAY
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None

    def as_order(self, order_id: str, effective_ns: int) -> Order:
        """The order for the matcher."""
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
class Submission:
    """An order that somebody wants taken."""

    client_order_id: str
    terms: Terms
    provenance: int
    reduce_only: bool = False
    decision_ns: int | None = None
    """Instant of the decision; None when it was not told."""

    def check_same(self, terms: Terms, reduce_only: bool) -> None:
        """Refuses an id that came before with other content. Raises RequestConflict."""
        if (self.terms, self.reduce_only) != (terms, reduce_only):
            raise RequestConflict(self.client_order_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRecord:
    """One execution."""

    fill_id: str
    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    quantity: int
    cumulative_quantity: int
    price_e9: int
    commission_e9: int
    time_ns: int
    provenance: int
    revision: int
    market_sequence: int | None = None
    """Sequence of the tick that it was filled against; None at a real venue."""


class Outcome(Enum):
    """What a person says became of an order."""

    FILLED = "filled"
    CANCELED = "canceled"
    NEVER_ARRIVED = "never arrived"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledFill:
    """A fill that a person has looked up; `time_ns` None when it was not told."""

    quantity: int
    price_e9: int
    time_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The word of a person on an order of which the venue does not know what became of it."""

    request_id: str
    client_order_id: str
    outcome: Outcome
    fills: tuple[SettledFill, ...]
    """Fills that the venue has not told, with FILLED only."""
    actor: str
    reason: str

    @property
    def quantity(self) -> int:
        """Contracts of the fills."""
        return sum(fill.quantity for fill in self.fills)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The word of a person that the books stay as settled, whatever the venue heard later."""

    request_id: str
    client_order_id: str
    actor: str
    reason: str


def check_terms(terms: Terms, spec: InstrumentSpec, reference_e9: int | None, path: str = "terms.") -> None:
    """Raises MoneyError for a price off the scale or the tick, InvalidField for whatever else is wrong with the form.

    `path` is where the fields stand in the request; `reference_e9` is a recent price, where one is known.
    """
    if not 1 <= terms.quantity <= LARGEST_QUANTITY:
        raise InvalidField(f"{path}quantity", str(terms.quantity), f"1 to {LARGEST_QUANTITY} contracts")
    for name, price_e9 in (("limit_price_e9", terms.limit_price_e9), ("stop_price_e9", terms.stop_price_e9)):
        if price_e9 is not None:
            check_price(price_e9, f"{path}{name}", spec, reference_e9)
    for violation in check_order(terms.as_order("order", 0), spec.tick_e9):
        raise InvalidField(f"{path}{violation.field}", violation.seen, violation.allowed)


def check_price(price_e9: int, field: str, spec: InstrumentSpec, reference_e9: int | None) -> None:
    """Raises MoneyError for a price off the scale or the tick, InvalidField for one that is none."""
    if price_e9 <= 0:
        raise InvalidField(field, format_e9(price_e9), "a price above 0")
    check_scale(price_e9, field=field, tick_e9=spec.tick_e9, reference_e9=reference_e9)
    check_tick(price_e9, spec.tick_e9, field=field)
    if price_e9 > LARGEST_PRICE_E9:
        raise InvalidField(field, format_e9(price_e9), f"at most {format_e9(LARGEST_PRICE_E9)}")
