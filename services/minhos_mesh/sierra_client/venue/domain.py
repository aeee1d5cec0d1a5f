"""Decides what the venue tells of an order at a DTC server, what each fill is called, and under which id the server has it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.enums import OrderType as WireType
from minhos_mesh.dtc.enums import TimeInForce as WireTime
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.dtc.requests import LONGEST_CLIENT_ID
from minhos_mesh.matching import Order, OrderType, Side, TimeInForce, check_order, round_half_even
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.money import E9, check_scale, check_tick, format_e9
from minhos_mesh.sierra_client.venue.errors import InvalidField

LARGEST_QUANTITY = 10_000
LARGEST_PRICE_E9 = 1_000_000 * E9
SHORT_PREFIX = "mh."
"""Begins ids that were made shorter, so that none of them is that of another order."""


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
        return self in {OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED}


class OrderReason(IntEnum):
    """Why an order ended other than by being filled; numbers are those of the contract."""

    UNSPECIFIED = 0
    REQUESTED = 1
    FOK_UNFILLED = 4
    IOC_REST = 5
    REDUCE_ONLY = 7
    OTHER = 10


WOULD_GROW = "It may only reduce a position and would open or turn one."

WIRE_TYPES = {
    OrderType.MARKET: WireType.MARKET,
    OrderType.LIMIT: WireType.LIMIT,
    OrderType.STOP: WireType.STOP,
    OrderType.STOP_LIMIT: WireType.STOP_LIMIT,
}
WIRE_TIMES = {
    TimeInForce.DAY: WireTime.DAY,
    TimeInForce.GTC: WireTime.GOOD_TILL_CANCELED,
    TimeInForce.IOC: WireTime.IMMEDIATE_OR_CANCEL,
    TimeInForce.FOK: WireTime.FILL_OR_KILL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order asks for; prices in 1e-9 units."""

    symbol: str
    """Canonical."""
    side: Side
    order_type: OrderType
    quantity: int
    time_in_force: TimeInForce
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An order as it was asked for, and what was asked of it since."""

    client_order_id: str
    number: int
    """From 1, in the order in which orders were taken."""
    dtc_id: str
    """Id under which the server has it, at most 31 bytes."""
    terms: Terms
    provenance: int
    reduce_only: bool
    create_ns: int
    cancel: OrderReason = OrderReason.UNSPECIFIED
    """Why a cancel was asked for, REQUESTED or REDUCE_ONLY; UNSPECIFIED while none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """An order as the venue has it."""

    asked: Asked
    terms: Terms
    """As the server has them now."""
    state: OrderState
    reason: OrderReason
    message: str
    filled_quantity: int
    filled_value_e9: int
    """Sum of price times contracts filled."""
    fills: int
    update_ns: int
    revision: int

    @property
    def client_order_id(self) -> str:
        """Id that the client gave."""
        return self.asked.client_order_id

    @property
    def venue_order_id(self) -> str:
        """Id that people find at the server as its ClientOrderID; it stays the same when the server's own id changes."""
        return f"dtc:{self.asked.dtc_id}"

    @property
    def average_price_e9(self) -> int | None:
        """Average fill price, rounded half to even; None when nothing is filled."""
        return round_half_even(self.filled_value_e9, self.filled_quantity) if self.filled_quantity else None

    @property
    def leaves_quantity(self) -> int:
        """Contracts that may still be filled."""
        return 0 if self.state.done else max(0, self.terms.quantity - self.filled_quantity)


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


Change = OrderRecord | FillRecord
"""What watchers are told, each with its own revision."""


def dtc_id_of(client_order_id: str) -> str:
    """The id under which the server gets an order: the client's own where it fits, else one made from it, always the same."""
    if len(client_order_id.encode()) <= LONGEST_CLIENT_ID and not client_order_id.startswith(SHORT_PREFIX):
        return client_order_id
    digest = hashlib.blake2s(client_order_id.encode(), digest_size=16).digest()
    return SHORT_PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()


def check_terms(terms: Terms, spec: InstrumentSpec, reference_e9: int | None, path: str = "terms.") -> None:
    """Raises MoneyError for a price off the scale or the tick, InvalidField for whatever else is wrong with the form."""
    if not 1 <= terms.quantity <= LARGEST_QUANTITY:
        raise InvalidField(f"{path}quantity", str(terms.quantity), f"1 to {LARGEST_QUANTITY} contracts")
    for name, price_e9 in (("limit_price_e9", terms.limit_price_e9), ("stop_price_e9", terms.stop_price_e9)):
        if price_e9 is None:
            continue
        if price_e9 <= 0:
            raise InvalidField(f"{path}{name}", format_e9(price_e9), "a price above 0")
        check_scale(price_e9, field=f"{path}{name}", tick_e9=spec.tick_e9, reference_e9=reference_e9)
        check_tick(price_e9, spec.tick_e9, field=f"{path}{name}")
        if price_e9 > LARGEST_PRICE_E9:
            raise InvalidField(f"{path}{name}", format_e9(price_e9), f"at most {format_e9(LARGEST_PRICE_E9)}")
    for violation in check_order(_as_order(terms), spec.tick_e9):
        raise InvalidField(f"{path}{violation.field}", violation.seen, violation.allowed)


def check_change(terms: Terms, limit_price_e9: int | None, stop_price_e9: int | None) -> None:
    """Refuses what DTC cannot say of a stop-limit order: there its limit follows the stop at the same distance.

    Raises InvalidField.
    """
    stop_e9, limit_e9 = terms.stop_price_e9, terms.limit_price_e9
    if limit_price_e9 is None or stop_e9 is None or limit_e9 is None:
        return
    distance_e9 = limit_e9 - stop_e9
    if limit_price_e9 != (stop_e9 if stop_price_e9 is None else stop_price_e9) + distance_e9:
        allowed = f"the stop price and {format_e9(distance_e9)}: at a DTC server the limit follows it at its distance"
        raise InvalidField("limit_price_e9", format_e9(limit_price_e9), allowed)


def tracked_of(asked: Asked, symbol: str, account: str, now_ns: int) -> TrackedOrder:
    """The order as it is sent, under the server's own name of the symbol."""
    terms = asked.terms
    return TrackedOrder(
        client_order_id=asked.dtc_id,
        symbol=symbol,
        side=BuySell.BUY if terms.side is Side.BUY else BuySell.SELL,
        order_type=WIRE_TYPES[terms.order_type],
        quantity=terms.quantity,
        time_in_force=WIRE_TIMES[terms.time_in_force],
        limit_price_e9=terms.limit_price_e9,
        stop_price_e9=terms.stop_price_e9,
        account=account,
        submitted_ns=now_ns,
    )


def record_of(asked: Asked, tracked: TrackedOrder, *, fills: int, update_ns: int) -> OrderRecord:
    """The order as it stands with its first `fills` executions; its revision is 0 until it is told."""
    booked = tracked.fills[:fills]
    filled = sum(fill.quantity for fill in booked)
    state = _state(asked, tracked, filled) if fills == len(tracked.fills) else OrderState.WORKING
    reason, message = _why(asked, tracked, state)
    terms = replace(
        asked.terms,
        quantity=tracked.quantity,
        limit_price_e9=tracked.limit_price_e9,
        stop_price_e9=tracked.stop_price_e9,
    )
    return OrderRecord(
        asked=asked,
        terms=terms,
        state=state,
        reason=reason,
        message=message,
        filled_quantity=filled,
        filled_value_e9=sum(fill.price_e9 * fill.quantity for fill in booked),
        fills=fills,
        update_ns=update_ns,
        revision=0,
    )


def fills_behind(asked: Asked, tracked: TrackedOrder, known: int) -> Iterator[tuple[int, FillReport, int]]:
    """Executions behind the first `known`: the number of each from 1, itself, and contracts filled up to it."""
    cumulative = sum(fill.quantity for fill in tracked.fills[:known])
    for number, fill in enumerate(tracked.fills[known:], start=known + 1):
        cumulative += fill.quantity
        yield number, fill, cumulative


def refused_record(asked: Asked, message: str) -> OrderRecord:
    """An order that was never sent, because it may only reduce a position and would not."""
    return OrderRecord(
        asked=asked,
        terms=asked.terms,
        state=OrderState.REJECTED,
        reason=OrderReason.REDUCE_ONLY,
        message=message,
        filled_quantity=0,
        filled_value_e9=0,
        fills=0,
        update_ns=asked.create_ns,
        revision=0,
    )


def alike(one: OrderRecord, other: OrderRecord) -> bool:
    """Whether two records tell the same but for when."""
    return one == replace(other, update_ns=one.update_ns, revision=one.revision)


def _as_order(terms: Terms) -> Order:
    return Order(
        order_id="order",
        side=terms.side,
        order_type=terms.order_type,
        time_in_force=terms.time_in_force,
        quantity=terms.quantity,
        limit_price_e9=terms.limit_price_e9,
        stop_price_e9=terms.stop_price_e9,
    )


def _state(asked: Asked, tracked: TrackedOrder, filled: int) -> OrderState:
    if tracked.state is Tracked.SUBMITTED:
        return OrderState.PENDING
    if tracked.state in {Tracked.WORKING, Tracked.PARTIALLY_FILLED}:
        waits = asked.terms.order_type in {OrderType.STOP, OrderType.STOP_LIMIT} and not filled
        return OrderState.PENDING if waits else OrderState.WORKING
    return OrderState[tracked.state.name]


def _why(asked: Asked, tracked: TrackedOrder, state: OrderState) -> tuple[OrderReason, str]:
    if state is OrderState.UNKNOWN:
        return OrderReason.UNSPECIFIED, tracked.text
    if state is OrderState.REJECTED:
        return OrderReason.OTHER, tracked.text or "The server refused it without a reason."
    if state is not OrderState.CANCELED:
        return OrderReason.UNSPECIFIED, ""
    if asked.cancel is OrderReason.REDUCE_ONLY:
        return OrderReason.REDUCE_ONLY, WOULD_GROW
    if asked.cancel is OrderReason.REQUESTED:
        return OrderReason.REQUESTED, "Its client cancelled it."
    if asked.terms.time_in_force is TimeInForce.FOK:
        return OrderReason.FOK_UNFILLED, "It was to be filled at once and whole (FOK), and could not be."
    if asked.terms.time_in_force is TimeInForce.IOC:
        return OrderReason.IOC_REST, "It was to be filled at once (IOC), and this is what was left."
    return OrderReason.OTHER, tracked.text or "The server cancelled it without a reason."
