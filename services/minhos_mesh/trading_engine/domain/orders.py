"""Decides what an order is: its terms, where it comes from, its states and what counts as working."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from minhos_mesh.runtime.money import divide_half_even

MAX_QUANTITY: Final = 10_000
"""The most contracts of one order, as the contract says; whatever the limits of risk are."""


class Side(enum.Enum):
    """Which way an order trades."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """+1 for BUY, -1 for SELL."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(enum.Enum):
    """How an order wants its price."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"


class TimeInForce(enum.Enum):
    """How long an order works."""

    DAY = "DAY"
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Provenance(enum.Enum):
    """Where the market data that led to an order came from."""

    LIVE = "LIVE"
    DELAYED = "DELAYED"
    REPLAY = "REPLAY"
    SIMULATED = "SIMULATED"


class OrderState(enum.Enum):
    """Where an order stands. Why it stands there is the reason, kept apart."""

    NEW = "NEW"
    """Written down; the risk manager has not answered."""
    DENIED = "DENIED"
    """Refused before anything was sent. Terminal."""
    SUBMITTING = "SUBMITTING"
    """Approved and written down; sent, or about to be sent, to the venue."""
    WORKING = "WORKING"
    """Working at the venue, nothing filled."""
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    """Working at the venue, a part is filled."""
    PENDING_CANCEL = "PENDING_CANCEL"
    """Working at the venue; a cancel was asked for and not yet answered."""
    PENDING_REPLACE = "PENDING_REPLACE"
    """Working at the venue; new terms were asked for and not yet answered."""
    UNKNOWN = "UNKNOWN"
    """Sent, and the outcome is not known: the venue did not answer, or does not know it either. It is asked until it is."""
    FILLED = "FILLED"
    """Filled in full. Terminal."""
    CANCELED = "CANCELED"
    """Ended by a cancel; a part may be filled. Terminal."""
    REJECTED = "REJECTED"
    """Refused by the venue. Terminal."""
    EXPIRED = "EXPIRED"
    """Ended by its time in force; a part may be filled. Terminal."""

    @property
    def is_terminal(self) -> bool:
        """Whether the life of the order is over."""
        return self in _TERMINAL

    @property
    def is_working(self) -> bool:
        """Whether the venue may have the order and may fill it."""
        return self not in _TERMINAL and self is not OrderState.NEW


_TERMINAL = frozenset(
    {OrderState.DENIED, OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED}
)


class Reason(enum.Enum):
    """Why an order stands where it stands; the message of the order says the same for people."""

    NONE = "NONE"
    RISK_REFUSED = "RISK_REFUSED"
    RISK_UNAVAILABLE = "RISK_UNAVAILABLE"
    TRADING_STATE = "TRADING_STATE"
    VENUE_REJECTED = "VENUE_REJECTED"
    VENUE_NEVER_SAW = "VENUE_NEVER_SAW"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    CANCELED_BY_USER = "CANCELED_BY_USER"
    EMERGENCY_STOP = "EMERGENCY_STOP"
    TIME_IN_FORCE = "TIME_IN_FORCE"
    PROVENANCE = "PROVENANCE"
    VENUE_UNAVAILABLE = "VENUE_UNAVAILABLE"
    NOT_REDUCING = "NOT_REDUCING"
    SETTLED = "SETTLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCheck:
    """Result of one named check of the risk manager, kept with the order that it was made for."""

    code: str
    passed: bool
    observed: str
    limit: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTerms:
    """What is to be traded. Prices in 1e-9 units, None where the type has no such price; quantity in whole contracts."""

    symbol: str
    side: Side
    quantity: int
    order_type: OrderType
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None
    time_in_force: TimeInForce = TimeInForce.DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who asked for an order and on what evidence."""

    request_id: str
    actor: str
    provenance: Provenance
    decision_ns: int
    """Instant of the decision: event time in a replay, wall time otherwise."""
    signal_id: str | None = None
    reduce_only: bool = False
    emergency: bool = False
    """Sent by the emergency stop to become flat: it needs no answer from risk and passes the latch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution at the venue. `price_e9` and `commission_e9` in 1e-9 units, `quantity` in whole contracts."""

    fill_id: str
    order_id: str
    symbol: str
    side: Side
    quantity: int
    price_e9: int
    commission_e9: int
    cumulative_quantity: int
    at_ns: int
    provenance: Provenance
    venue_order_id: str = ""
    market_sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as the fold of its events; `sequence` counts them."""

    order_id: str
    terms: OrderTerms
    origin: Origin
    created_ns: int
    updated_ns: int
    state: OrderState = OrderState.NEW
    reason: Reason = Reason.NONE
    message: str = ""
    sequence: int = 1
    filled_quantity: int = 0
    filled_cost_e9: int = 0
    """Sum of price times quantity over the fills, in 1e-9 units times contracts."""
    commission_e9: int = 0
    fill_ids: tuple[str, ...] = ()
    reported_filled: int = 0
    """The filled quantity that the venue has stated; above `filled_quantity` when fills are still to come."""
    venue_order_id: str | None = None
    venue_revision: int = 0
    approval_id: str | None = None
    checks: tuple[RiskCheck, ...] = ()
    cancel_requested: bool = False
    given_up: bool = False
    """Ended here as never arrived, without a word from the venue; it lives again should it turn up there."""
    replace_request_ids: tuple[str, ...] = ()
    replace_quantity: int | None = None
    replace_limit_price_e9: int | None = None
    replace_stop_price_e9: int | None = None
    settlement_dispute: str = ""
    """What a person has settled and what the venue heard of it later, where these differ; empty otherwise."""
    first_terms: OrderTerms | None = None
    """What its request asked for, once that was replaced; None while the terms are still those."""

    @property
    def asked_terms(self) -> OrderTerms:
        """What the request that led to it asked for."""
        return self.first_terms or self.terms

    @property
    def remaining(self) -> int:
        """Contracts that may still fill; 0 once the order has ended."""
        return 0 if self.state.is_terminal else max(0, self.terms.quantity - self.filled_quantity)

    @property
    def average_price_e9(self) -> int | None:
        """Average fill price, rounded to 1e-9 half to even; None without a fill."""
        return None if self.filled_quantity == 0 else divide_half_even(self.filled_cost_e9, self.filled_quantity)

    @property
    def misses_fills(self) -> bool:
        """Whether the venue has stated more filled contracts than were booked here."""
        return self.reported_filled > self.filled_quantity
