"""Decides how each event changes an order: our own steps must be possible, the venue's facts always win."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minhos_mesh.trading_engine.domain.errors import ImpossibleTransition, OrderIsClosed
from minhos_mesh.trading_engine.domain.order_events import (
    CancelRefused,
    CancelRequested,
    Denied,
    FillReported,
    NotAtVenue,
    OrderCreated,
    OrderEvent,
    OutcomeUnknown,
    ReplaceRefused,
    ReplaceRequested,
    RiskApproved,
    VenueReported,
)
from minhos_mesh.trading_engine.domain.orders import Order, OrderState, OrderTerms, Reason

S = OrderState
_AT_VENUE = frozenset({S.WORKING, S.PARTIALLY_FILLED, S.PENDING_CANCEL, S.PENDING_REPLACE})
_UNANSWERED = frozenset({S.NEW, S.SUBMITTING, S.UNKNOWN})
_ENDED_BY_VENUE = frozenset({S.CANCELED, S.REJECTED, S.EXPIRED})
_BUT = "; not known: "
"""Between who wanted a cancel and why it is not known what became of the order."""


def create(event: OrderCreated) -> Order:
    """Give the order that begins with this event."""
    return Order(
        order_id=event.order_id,
        terms=event.terms,
        origin=event.origin,
        created_ns=event.at_ns,
        updated_ns=event.at_ns,
    )


def apply(order: Order, event: OrderEvent) -> Order:
    """Give the order after an event; the very same object when the event says nothing new.

    Raises ImpossibleTransition or OrderIsClosed for a step of our own that the state forbids. What the venue reports
    never raises: repeated, late and reordered facts are absorbed by fill id, revision and cumulative quantity.
    """
    changed = _step(order, event)
    if changed is order:
        return order
    return replace(changed, sequence=order.sequence + 1, updated_ns=max(order.updated_ns, event.at_ns))


def _step(order: Order, event: OrderEvent) -> Order:
    match event:
        case FillReported():
            return _fill(order, event)
        case VenueReported():
            return _report(order, event)
        case RiskApproved() | Denied():
            return _decided(order, event)
        case CancelRequested():
            return _cancel(order, event)
        case CancelRefused():
            return _refused(order, S.PENDING_CANCEL, f"the venue refused the cancel: {event.message}")
        case ReplaceRequested():
            return _ask_replace(order, event)
        case ReplaceRefused():
            return _refused(order, S.PENDING_REPLACE, f"the venue refused the change: {event.message}")
        case OutcomeUnknown():
            if order.state is not S.SUBMITTING:
                return order
            return _doubted(order, event.message)
        case NotAtVenue():
            return _not_at_venue(order, event)
        case OrderCreated():
            raise ImpossibleTransition(order.order_id, order.state.value, "OrderCreated")


def replay(events: list[OrderEvent]) -> Order:
    """Fold a whole history into the order. The first event must be OrderCreated, else ImpossibleTransition."""
    first = events[0]
    if not isinstance(first, OrderCreated):
        raise ImpossibleTransition("", "nothing", type(first).__name__)
    order = create(first)
    for event in events[1:]:
        order = apply(order, event)
    return order


def _decided(order: Order, event: RiskApproved | Denied) -> Order:
    if order.state is not S.NEW:
        raise ImpossibleTransition(order.order_id, order.state.value, type(event).__name__)
    if isinstance(event, RiskApproved):
        return replace(order, state=S.SUBMITTING, approval_id=event.approval_id, checks=event.checks)
    return replace(order, state=S.DENIED, reason=event.reason, message=event.message, checks=event.checks)


def _cancel(order: Order, event: CancelRequested) -> Order:
    if order.state.is_terminal:
        raise OrderIsClosed(order.order_id, order.state.value, "cancel")
    told: dict[str, Any] = {"cancel_requested": True}
    if not order.cancel_requested:  # who wanted it first is what is told
        told |= {"reason": event.reason, "message": f"cancelled by {event.actor}"}
    if order.state is S.NEW:
        return replace(order, state=S.CANCELED, **told)
    if order.state in (S.SUBMITTING, S.UNKNOWN):
        if order.state is S.UNKNOWN and "message" in told:
            told["message"] += f"{_BUT}{order.message}"
        return order if order.cancel_requested else replace(order, **told)
    if order.state is S.PENDING_CANCEL:
        return order
    return replace(order, state=S.PENDING_CANCEL, **told)


def _ask_replace(order: Order, event: ReplaceRequested) -> Order:
    if order.state.is_terminal:
        raise OrderIsClosed(order.order_id, order.state.value, "replace")
    if order.state not in (S.WORKING, S.PARTIALLY_FILLED):
        raise ImpossibleTransition(order.order_id, order.state.value, "replace")
    return replace(
        order,
        state=S.PENDING_REPLACE,
        reason=Reason.NONE,
        message="",
        replace_request_ids=(*order.replace_request_ids, event.request_id),
        replace_quantity=event.quantity,
        replace_limit_price_e9=event.limit_price_e9,
        replace_stop_price_e9=event.stop_price_e9,
    )


def _refused(order: Order, pending: OrderState, message: str) -> Order:
    if order.state is not pending:
        return order
    return replace(_working(order), reason=Reason.VENUE_REJECTED, message=message, cancel_requested=False)


def _not_at_venue(order: Order, event: NotAtVenue) -> Order:
    if order.state.is_terminal or order.state is S.NEW:
        return order
    never_there = order.state in _UNANSWERED and order.filled_quantity == 0
    state = S.REJECTED if never_there and not order.cancel_requested else S.CANCELED
    return replace(order, state=state, reason=event.reason, message=event.message, given_up=True)


def _fill(order: Order, event: FillReported) -> Order:
    fill = event.fill
    if fill.fill_id in order.fill_ids:
        return order
    filled = order.filled_quantity + fill.quantity
    booked = replace(
        order,
        filled_quantity=filled,
        filled_cost_e9=order.filled_cost_e9 + fill.price_e9 * fill.quantity,
        commission_e9=order.commission_e9 + fill.commission_e9,
        fill_ids=(*order.fill_ids, fill.fill_id),
        venue_order_id=order.venue_order_id or fill.venue_order_id or None,
        reported_filled=max(order.reported_filled, filled),
    )
    if filled >= order.terms.quantity:
        over = filled - order.terms.quantity
        message = f"filled {over} more than ordered" if over else ""
        return replace(booked, state=S.FILLED, reason=Reason.NONE, message=message)
    if order.state in (S.CANCELED, S.EXPIRED, S.PENDING_CANCEL, S.PENDING_REPLACE):
        return booked
    return replace(booked, state=S.PARTIALLY_FILLED, reason=Reason.NONE, message="")


def _report(order: Order, event: VenueReported) -> Order:
    if event.state is S.SUBMITTING:  # sent on and not answered says nothing new
        return order
    stale = event.revision != 0 and event.revision <= order.venue_revision
    if not stale and event.settlement_dispute != order.settlement_dispute:
        order = replace(order, settlement_dispute=event.settlement_dispute, venue_revision=event.revision)
    if order.state is S.FILLED:
        return order
    seen = _seen(order, event)
    if stale:
        return seen
    if order.state.is_terminal and not _turned_up(order):
        return seen
    if event.state is S.UNKNOWN:
        return _doubted(_with_terms(seen, event), event.message)
    if event.state in _ENDED_BY_VENUE:
        return _end(seen, event)
    if order.state in _UNANSWERED or _turned_up(order):
        return _working(_with_terms(seen, event))
    return _still_working(order, seen, event)


def _seen(order: Order, event: VenueReported) -> Order:
    """Note what a report says about identity, revision and filled quantity; the same object when that is nothing new."""
    news: dict[str, Any] = {}
    if event.revision > order.venue_revision:
        news["venue_revision"] = event.revision
    if event.filled_quantity > order.reported_filled:
        news["reported_filled"] = event.filled_quantity
    if event.venue_order_id is not None and order.venue_order_id is None:
        news["venue_order_id"] = event.venue_order_id
    return replace(order, **news) if news else order


def _end(order: Order, event: VenueReported) -> Order:
    state = event.state
    if state is S.REJECTED and max(order.filled_quantity, event.filled_quantity) > 0:
        state = S.CANCELED
    reason, message = event.reason, event.message
    if state is S.CANCELED and order.cancel_requested and order.reason is not Reason.NONE:
        reason, message = order.reason, _wish(order) or message
    return replace(_with_terms(order, event), state=state, reason=reason, message=message, given_up=False)


def _still_working(order: Order, seen: Order, event: VenueReported) -> Order:
    after = _with_terms(seen, event)
    complete = after.filled_quantity >= after.terms.quantity
    if complete or (order.state is S.PENDING_REPLACE and _terms_match_request(order, after.terms)):
        return _working(after)
    return after


def _terms_match_request(order: Order, terms: OrderTerms) -> bool:
    """Whether the venue's terms are the ones that were asked for."""
    wanted = (order.replace_quantity, order.replace_limit_price_e9, order.replace_stop_price_e9)
    held = (terms.quantity, terms.limit_price_e9, terms.stop_price_e9)
    return all(want is None or want == have for want, have in zip(wanted, held, strict=True))


def _with_terms(order: Order, event: VenueReported) -> Order:
    terms = order.terms
    news: dict[str, Any] = {
        name: told
        for name in ("quantity", "limit_price_e9", "stop_price_e9")
        if (told := getattr(event, name)) is not None and told != getattr(terms, name)
    }
    if not news:
        return order
    return replace(order, terms=replace(terms, **news), first_terms=order.asked_terms)


def _working(order: Order) -> Order:
    """Put an order back to work: working or partially filled, by what was booked; filled when nothing is left."""
    if order.filled_quantity >= order.terms.quantity:
        state = S.FILLED
    else:
        state = S.PARTIALLY_FILLED if order.filled_quantity else S.WORKING
    wanted = order.cancel_requested
    return replace(
        order,
        state=state,
        reason=order.reason if wanted else Reason.NONE,
        message=_wish(order) if wanted else "",
        given_up=False,
        replace_quantity=None,
        replace_limit_price_e9=None,
        replace_stop_price_e9=None,
    )


def _doubted(order: Order, message: str) -> Order:
    """An order of which it is not known what became of it; who wanted it cancelled stays told."""
    reason = Reason.OUTCOME_UNKNOWN
    if order.cancel_requested and order.reason is not Reason.NONE:
        reason, message = order.reason, f"{_wish(order)}{_BUT}{message}"
    if (order.state, order.reason, order.message) == (S.UNKNOWN, reason, message):
        return order
    return replace(order, state=S.UNKNOWN, reason=reason, message=message, given_up=False)


def _wish(order: Order) -> str:
    """Who wanted the order cancelled, without what was not known of it meanwhile."""
    return order.message.partition(_BUT)[0]


def _turned_up(order: Order) -> bool:
    """Whether the order had been given up as never arrived, without a word from the venue."""
    return order.state in (S.REJECTED, S.CANCELED) and order.given_up
