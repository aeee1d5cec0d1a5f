"""Decides what the venue tells of an order at a DTC server, what each fill is called, and under which id the server has it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.enums import OrderType as WireType
from minhos_mesh.dtc.enums import TimeInForce as WireTime
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.dtc.requests import LONGEST_CLIENT_ID
from minhos_mesh.matching import OrderType, Side, TimeInForce, round_half_even
from minhos_mesh.runtime.money import format_e9
from minhos_mesh.venue.domain.errors import InvalidField
from minhos_mesh.venue.domain.orders import (
    AT_ONCE,
    CANCELED_BY_CLIENT,
    WOULD_GROW,
    FillRecord,
    OrderReason,
    OrderState,
    Terms,
)

SHORT_PREFIX = "mh."
"""Begins ids that were made shorter, so that none of them is that of another order."""


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
    unanswered: bool = False
    """Sent, and the server has not answered."""
    dispute: str = ""
    """What a person has settled and what the server has told since, where these differ; empty otherwise."""

    @property
    def client_order_id(self) -> str:
        """Id that the client gave."""
        return self.asked.client_order_id

    @property
    def venue_order_id(self) -> str:
        """Id that people find at the server as its ClientOrderID; it stays the same when the server's own id changes."""
        return f"dtc:{self.asked.dtc_id}"

    @property
    def why(self) -> tuple[OrderReason, str]:
        """Why it ended, or is UNKNOWN, for programs and for people."""
        return self.reason, self.message

    @property
    def reduce_only(self) -> bool:
        """Whether it may only reduce a position."""
        return self.asked.reduce_only

    @property
    def create_ns(self) -> int:
        """When it was taken."""
        return self.asked.create_ns

    @property
    def average_price_e9(self) -> int | None:
        """Average fill price, rounded half to even; None when nothing is filled."""
        return round_half_even(self.filled_value_e9, self.filled_quantity) if self.filled_quantity else None

    @property
    def leaves_quantity(self) -> int:
        """Contracts that may still be filled."""
        return 0 if self.state.done else max(0, self.terms.quantity - self.filled_quantity)


Change = OrderRecord | FillRecord
"""What watchers are told, each with its own revision."""


def dtc_id_of(client_order_id: str) -> str:
    """The id under which the server gets an order: the client's own where it fits, else one made from it, always the same."""
    if len(client_order_id.encode()) <= LONGEST_CLIENT_ID and not client_order_id.startswith(SHORT_PREFIX):
        return client_order_id
    digest = hashlib.blake2s(client_order_id.encode(), digest_size=16).digest()
    return SHORT_PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()


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
        unanswered=tracked.state is Tracked.SUBMITTED,
        dispute=tracked.disputed,
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


def _state(asked: Asked, tracked: TrackedOrder, filled: int) -> OrderState:
    if tracked.state is Tracked.SUBMITTED:
        return OrderState.PENDING
    if tracked.state in {Tracked.WORKING, Tracked.PARTIALLY_FILLED}:
        waits = asked.terms.order_type in {OrderType.STOP, OrderType.STOP_LIMIT} and not filled
        return OrderState.PENDING if waits else OrderState.WORKING
    return OrderState[tracked.state.name]


def _why(asked: Asked, tracked: TrackedOrder, state: OrderState) -> tuple[OrderReason, str]:
    if tracked.settled and state in {OrderState.REJECTED, OrderState.CANCELED}:
        return OrderReason.SETTLED, tracked.text
    if state is OrderState.UNKNOWN:
        return OrderReason.UNSPECIFIED, tracked.text
    if state is OrderState.REJECTED:
        return OrderReason.OTHER, tracked.text or "The server refused it without a reason."
    if state is not OrderState.CANCELED:
        return OrderReason.UNSPECIFIED, ""
    if asked.cancel is OrderReason.REDUCE_ONLY:
        return OrderReason.REDUCE_ONLY, WOULD_GROW
    if asked.cancel is OrderReason.REQUESTED:
        return OrderReason.REQUESTED, CANCELED_BY_CLIENT
    otherwise = OrderReason.OTHER, tracked.text or "The server cancelled it without a reason."
    return AT_ONCE.get(asked.terms.time_in_force, otherwise)
