"""Decides how what a DTC server tells changes an order of ours: each fill once, in any order, and nothing invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce, UpdateReason
from minhos_mesh.dtc.reports import FillReport, OrderReport
from minhos_mesh.dtc.settled import beyond, contracts, disagreement, whole

SETTLED: Final = "settled:"
"""Begins the ids of executions that a person has told."""


class OrderState(Enum):
    """Where an order of ours stands."""

    SUBMITTED = "SUBMITTED"
    """Sent, and not answered yet."""
    WORKING = "WORKING"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"
    """What became of it is not known until the server has listed its orders and fills."""

    @property
    def done(self) -> bool:
        """True when it no longer works; a fill that is told late is booked all the same."""
        return self in {OrderState.FILLED, OrderState.CANCELED, OrderState.REJECTED}


class UpdateKind(Enum):
    """What happened to an order."""

    ACCEPTED = "ACCEPTED"
    FILLED = "FILLED"
    """One execution; whether the order is complete stands in its state."""
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    REPLACED = "REPLACED"
    CANCEL_REFUSED = "CANCEL_REFUSED"
    REPLACE_REFUSED = "REPLACE_REFUSED"
    BECAME_UNKNOWN = "BECAME_UNKNOWN"
    FILLS_MISSING = "FILLS_MISSING"
    """The server counts more contracts as filled than it has told of; its list of fills must be asked for."""
    CONTRADICTION = "CONTRADICTION"
    """Two things that the server said cannot both be true."""
    TURNED_UP = "TURNED_UP"
    """It works at the server, though a person has settled it as ended: it must be cancelled."""
    DISPUTED = "DISPUTED"
    """The server has told otherwise of it than a person has settled, or that has ended; the order says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedOrder:
    """An order of ours; prices in 1e-9 units, quantities in contracts."""

    client_order_id: str
    symbol: str
    side: BuySell
    order_type: OrderType
    quantity: int
    time_in_force: TimeInForce = TimeInForce.DAY
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None
    account: str = ""
    submitted_ns: int = 0
    lost_ns: int = 0
    """When the connection broke before it was answered; 0 when that has not happened."""
    state: OrderState = OrderState.SUBMITTED
    text: str = ""
    """Why it is in this state, for people; empty when that needs no words."""
    server_order_ids: tuple[str, ...] = ()
    """Every id that the server has given it, the latest last."""
    fills: tuple[FillReport, ...] = ()
    """Executions, each once, in the order in which they were told."""
    claimed_quantity: int = 0
    """The most contracts that the server has counted as filled."""
    settled: bool = False
    """Whether it was ended by the word of a person, since the server did not tell what became of it."""
    heard: tuple[FillReport, ...] = ()
    """Executions that the server has told since then; booked is of them only what goes beyond the word of the person."""
    final_quantity: int | None = None
    """How many contracts of them there were in the end by the server's count; None while it has not said."""
    disputed: str = ""
    """What the person and the server have told, where these differ; empty when they agree, and once a person has confirmed it."""
    confirmed: str = ""
    """The dispute that a person has confirmed."""

    @property
    def server_order_id(self) -> str:
        """The id by which the server knows it now; empty while it has none."""
        return self.server_order_ids[-1] if self.server_order_ids else ""

    @property
    def filled_quantity(self) -> int:
        """Contracts of the fills that were told."""
        return sum(fill.quantity for fill in self.fills)

    @property
    def settled_fills(self) -> tuple[FillReport, ...]:
        """Executions that a person has told."""
        return tuple(fill for fill in self.fills if fill.execution_id.startswith(SETTLED))

    @property
    def heard_booked(self) -> tuple[FillReport, ...]:
        """What was booked of the executions that the server has told since a person had settled the order."""
        heard = {fill.execution_id for fill in self.heard}
        return tuple(fill for fill in self.fills if whole(fill.execution_id) in heard)

    @property
    def told_by_server(self) -> tuple[FillReport, ...]:
        """Executions that the server has told, booked or not."""
        heard = {fill.execution_id for fill in self.heard}
        before = (
            f for f in self.fills if not f.execution_id.startswith(SETTLED) and whole(f.execution_id) not in heard
        )
        return (*before, *self.heard)

    @property
    def missing_quantity(self) -> int:
        """Contracts that the server counts as filled and has not told of."""
        return max(0, self.claimed_quantity - self.filled_quantity)


@dataclass(frozen=True, slots=True)
class VenueUpdate:
    """One change that whoever placed the order must hear of."""

    kind: UpdateKind
    order: TrackedOrder
    """As it stands after the change."""
    fill: FillReport | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """An order after a report, and what is to be told of it; nothing when the report was old or said nothing new."""

    order: TrackedOrder
    updates: tuple[VenueUpdate, ...] = ()


_ALIVE = frozenset(
    {
        OrderStatus.PENDING_OPEN,
        OrderStatus.PENDING_CHILD,
        OrderStatus.OPEN,
        OrderStatus.PENDING_CANCEL_REPLACE,
        OrderStatus.PENDING_CANCEL,
        OrderStatus.PARTIALLY_FILLED,
    }
)
_FINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED})
_REFUSED = {
    UpdateReason.CANCEL_REJECTED: UpdateKind.CANCEL_REFUSED,
    UpdateReason.CANCEL_REPLACE_REJECTED: UpdateKind.REPLACE_REFUSED,
}


def apply(order: TrackedOrder, report: OrderReport) -> Applied:
    """Takes one report about an order. The same report again, and one that is older than what is known, change nothing."""
    told: list[VenueUpdate] = []
    before = order.claimed_quantity
    order = _claim(_learn_ids(order, report), report)
    if report.fill is not None:
        booked = _book_reported(order, report, report.fill)
        order = booked.order
        told += booked.updates
    if report.reason in _REFUSED:
        told.append(VenueUpdate(_REFUSED[report.reason], order, text=report.text))
        order = _after_refusal(order, report, told)
    elif report.status is OrderStatus.REJECTED:
        order = _rejected(order, report, told)
    elif report.status is OrderStatus.CANCELED:
        order = _canceled(order, report.text, told)
    elif report.status in _ALIVE or report.status is OrderStatus.FILLED:
        order = _alive(order, report, told)
    if order.settled and report.reason not in _REFUSED and report.status in _FINAL:
        judged = judge(order, _final(order, report))
        order = judged.order
        told += judged.updates
    if order.claimed_quantity > before and order.missing_quantity:
        text = f"{order.missing_quantity} contracts are filled of which nothing was told"
        told.append(VenueUpdate(UpdateKind.FILLS_MISSING, order, text=text))
    return Applied(order, tuple(replace(update, order=order) for update in told))


def book(order: TrackedOrder, fill: FillReport) -> Applied:
    """Takes one execution, whenever it comes; the same one again changes nothing.

    What the server tells of an order that a person has settled is booked only as far as it goes beyond their word.
    """
    known = next((known for known in (*order.heard, *order.fills) if known.execution_id == fill.execution_id), None)
    if known is not None:
        same = (known.quantity, known.price_e9) == (fill.quantity, fill.price_e9)
        text = f"execution {fill.execution_id} was told with another quantity or price before"
        return Applied(order) if same else Applied(order, (VenueUpdate(UpdateKind.CONTRADICTION, order, fill, text),))
    return _hear(order, fill) if order.settled and not fill.execution_id.startswith(SETTLED) else _book(order, fill)


def _hear(order: TrackedOrder, fill: FillReport) -> Applied:
    """Takes an execution that the server tells of an order that a person has settled."""
    order, told = replace(order, heard=(*order.heard, fill)), list[VenueUpdate]()
    for extra in beyond(order.settled_fills, order.heard, order.heard_booked):
        booked = _book(order, extra)
        order = booked.order
        told += booked.updates
    judged = judge(order)
    return Applied(judged.order, (*told, *judged.updates))


def judge(order: TrackedOrder, final: int | None = None) -> Applied:
    """Compares the word of a person with what the server tells; `final` is how many contracts it has told in all, once it has."""
    order = replace(order, final_quantity=order.final_quantity if final is None else final)
    text = disagreement(order.settled_fills, order.heard, order.final_quantity, order.heard_booked)
    return dispute(order, text)


def dispute(order: TrackedOrder, text: str) -> Applied:
    """Notes what differs, or with an empty text that nothing does; what a person has confirmed is not told again."""
    text = "" if text == order.confirmed else text
    if text == order.disputed:
        return Applied(order)
    order = replace(order, disputed=text)
    return Applied(order, (VenueUpdate(UpdateKind.DISPUTED, order, text=text),))


def confirm(order: TrackedOrder) -> Applied:
    """Ends a dispute by the word of a person: what is booked stays as it is."""
    order = replace(order, confirmed=order.disputed, disputed="")
    return Applied(order, (VenueUpdate(UpdateKind.DISPUTED, order),))


def _final(order: TrackedOrder, report: OrderReport) -> int | None:
    """Contracts that were filled since a person has settled an order that has ended at the server; None where it leaves that out."""
    counted = report.filled_quantity
    if counted is None and report.status is not OrderStatus.CANCELED:
        counted = order.quantity if report.status is OrderStatus.FILLED else 0
    before = contracts(order.told_by_server) - contracts(order.heard)
    return None if counted is None else max(0, counted - before)


def _book(order: TrackedOrder, fill: FillReport) -> Applied:
    order = replace(order, fills=(*order.fills, fill))
    filled = order.filled_quantity
    if filled >= order.quantity:
        order = replace(order, state=OrderState.FILLED, text="")
    elif not order.state.done:
        order = replace(order, state=OrderState.PARTIALLY_FILLED, text="")
    told = [VenueUpdate(UpdateKind.FILLED, order, fill)]
    if filled > order.quantity:
        text = f"{filled} contracts are filled of an order of {order.quantity}"
        told.append(VenueUpdate(UpdateKind.CONTRADICTION, order, fill, text))
    if not fill.on_grid:
        text = f"execution {fill.execution_id} has a price that is no whole number of ticks"
        told.append(VenueUpdate(UpdateKind.CONTRADICTION, order, fill, text))
    return Applied(order, tuple(told))


def lose(order: TrackedOrder, text: str, now_ns: int) -> Applied:
    """The connection broke: an order that was sent and never answered may or may not have arrived."""
    if order.state is not OrderState.SUBMITTED:
        return Applied(order)
    order = replace(order, state=OrderState.UNKNOWN, text=text, lost_ns=now_ns)
    return Applied(order, (VenueUpdate(UpdateKind.BECAME_UNKNOWN, order, text=text),))


def end(order: TrackedOrder, state: OrderState, text: str) -> Applied:
    """Ends an order that the server no longer has; fills were booked before."""
    if order.state.done:
        return Applied(order)
    order = replace(order, state=state, text=text)
    kinds = {OrderState.CANCELED: UpdateKind.CANCELED, OrderState.REJECTED: UpdateKind.REJECTED}
    return Applied(order, (VenueUpdate(kinds.get(state, UpdateKind.BECAME_UNKNOWN), order, text=text),))


def settle(order: TrackedOrder, fills: Sequence[FillReport], state: OrderState, text: str) -> Applied:
    """Ends an order by the word of a person: books fills that the server has not told, and ends what is left of it."""
    order, told = replace(order, settled=True), list[VenueUpdate]()
    for fill in fills:
        booked = book(order, fill)
        order = booked.order
        told += booked.updates
    ended = end(order, state, text)
    return Applied(ended.order, tuple(replace(update, order=ended.order) for update in (*told, *ended.updates)))


def _learn_ids(order: TrackedOrder, report: OrderReport) -> TrackedOrder:
    ids = order.server_order_ids
    for server_id in (report.previous_server_order_id, report.server_order_id):
        if server_id and server_id not in ids:
            ids = (*ids, server_id)
    return order if ids == order.server_order_ids else replace(order, server_order_ids=ids)


def _after_refusal(order: TrackedOrder, report: OrderReport, told: list[VenueUpdate]) -> TrackedOrder:
    """A refused cancel or replace: the status says where the order itself stands, and 9 that the server has no such."""
    if order.state.done:
        return order
    if report.status is OrderStatus.CANCELED:
        return _canceled(order, report.text, told)
    if report.status is OrderStatus.REJECTED:
        text = f"the server does not know the order: {report.text}"
        order = replace(order, state=OrderState.UNKNOWN, text=text)
        told.append(VenueUpdate(UpdateKind.BECAME_UNKNOWN, order, text=text))
    elif report.status in _ALIVE:
        return _alive(order, report, told)
    return order


def _rejected(order: TrackedOrder, report: OrderReport, told: list[VenueUpdate]) -> TrackedOrder:
    if order.state.done:
        return order
    if order.fills:
        told.append(VenueUpdate(UpdateKind.CONTRADICTION, order, text="an order with fills was rejected"))
        return _canceled(order, report.text, told)
    order = replace(order, state=OrderState.REJECTED, text=report.text)
    told.append(VenueUpdate(UpdateKind.REJECTED, order, text=report.text))
    return order


def _canceled(order: TrackedOrder, text: str, told: list[VenueUpdate]) -> TrackedOrder:
    if order.state.done:
        return order
    order = replace(order, state=OrderState.CANCELED, text=text)
    told.append(VenueUpdate(UpdateKind.CANCELED, order, text=text))
    return order


def _alive(order: TrackedOrder, report: OrderReport, told: list[VenueUpdate]) -> TrackedOrder:
    if order.state.done:
        if order.settled and report.status in _ALIVE and report.status is not OrderStatus.PENDING_CANCEL:
            text = f"it was settled as {order.state.value} ({order.text or 'filled'}), and works at the server"
            told.append(VenueUpdate(UpdateKind.TURNED_UP, order, text=text))
        return order
    if order.state in {OrderState.SUBMITTED, OrderState.UNKNOWN}:
        state = OrderState.PARTIALLY_FILLED if order.fills else OrderState.WORKING
        order = replace(order, state=state, text="")
        told.append(VenueUpdate(UpdateKind.ACCEPTED, order))
    restated = report.reason is UpdateReason.OPEN_ORDERS_REQUEST_RESPONSE
    if report.reason is UpdateReason.CANCEL_REPLACE_COMPLETE or restated:
        changed = _with_terms(order, report)
        if changed != order or not restated:
            order = changed
            told.append(VenueUpdate(UpdateKind.REPLACED, order))
    return order


def _with_terms(order: TrackedOrder, report: OrderReport) -> TrackedOrder:
    """The order as the server has it; a person may have changed it there."""
    order = replace(
        order,
        quantity=report.quantity or order.quantity,
        limit_price_e9=order.limit_price_e9 if report.limit_price_e9 is None else report.limit_price_e9,
        stop_price_e9=order.stop_price_e9 if report.stop_price_e9 is None else report.stop_price_e9,
    )
    if order.fills and order.filled_quantity >= order.quantity:
        return replace(order, state=OrderState.FILLED, text="")
    return order


def _claim(order: TrackedOrder, report: OrderReport) -> TrackedOrder:
    """Notes how much the server counts as filled, with the execution that it tells of."""
    claimed = report.filled_quantity or 0
    if report.status is OrderStatus.FILLED and report.reason not in _REFUSED:
        claimed = max(claimed, order.quantity)
    return order if claimed <= order.claimed_quantity else replace(order, claimed_quantity=claimed)


def _book_reported(order: TrackedOrder, report: OrderReport, fill: FillReport) -> Applied:
    """Books an execution unless the server's own count leaves no room for it: then it was told under another id."""
    known = any(known.execution_id == fill.execution_id for known in (*order.fills, *order.heard))
    told = contracts(order.told_by_server)
    if known or report.filled_quantity is None or order.claimed_quantity - told >= fill.quantity:
        return book(order, fill)
    text = (
        f"execution {fill.execution_id} of {fill.quantity} contracts is not booked: "
        f"the server counts {order.claimed_quantity} as filled, and {told} were told"
    )
    return Applied(order, (VenueUpdate(UpdateKind.CONTRADICTION, order, fill, text),))
