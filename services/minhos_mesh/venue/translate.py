"""Decides how the messages of a venue's contract and the values of a venue become each other."""

from __future__ import annotations

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import fill_pb2, position_pb2
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.matching import Position
from minhos_mesh.runtime.money import E9, INT64_MAX
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.venue.domain.orders import Confirmation, FillRecord, Outcome, SettledFill, Settlement, Submission
from minhos_mesh.venue.domain.views import AccountView, OrderView, PositionView, ProgressRecord, Update, VenueStatus
from minhos_mesh.venue.order_wire import SIDES_PB, terms_from_proto, terms_to_proto

_OUTCOMES = {
    "filled": Outcome.FILLED,
    "canceled": Outcome.CANCELED,
    "never_arrived": Outcome.NEVER_ARRIVED,
}


def submission_from_proto(request: pb.SubmitOrderRequest) -> Submission:
    """An order to be taken."""
    return Submission(
        client_order_id=request.client_order_id,
        terms=terms_from_proto(request.terms),
        provenance=int(request.provenance),
        reduce_only=request.reduce_only,
        decision_ns=request.decision_time.ToNanoseconds() if request.HasField("decision_time") else None,
    )


def settlement_from_proto(request: pb.SettleUnknownOrderRequest) -> Settlement:
    """The word of a person on an order, which the contract's rules let through."""
    fills = tuple(
        SettledFill(
            quantity=fill.quantity,
            price_e9=fill.price_e9,
            time_ns=fill.fill_time.ToNanoseconds() if fill.HasField("fill_time") else None,
        )
        for fill in request.filled.fills
    )
    return Settlement(
        request_id=request.request_id,
        client_order_id=request.client_order_id,
        outcome=_OUTCOMES[request.WhichOneof("outcome") or ""],
        fills=fills,
        actor=request.actor,
        reason=request.reason,
    )


def confirmation_from_proto(request: pb.ConfirmSettlementRequest) -> Confirmation:
    """The word of a person that the books stay as they are."""
    return Confirmation(
        request_id=request.request_id,
        client_order_id=request.client_order_id,
        actor=request.actor,
        reason=request.reason,
    )


def order_to_proto(order: OrderView) -> pb.VenueOrder:
    """An order as it stands."""
    code, message = order.why
    return pb.VenueOrder(
        client_order_id=order.client_order_id,
        venue_order_id=order.venue_order_id,
        terms=terms_to_proto(order.terms),
        state=pb.VenueOrderState.ValueType(int(order.state)),
        reason_message=message,
        reason_code=pb.VenueOrderReason.ValueType(int(code)),
        reduce_only=order.reduce_only,
        unanswered=order.unanswered,
        settlement_dispute=order.dispute,
        filled_quantity=order.filled_quantity,
        average_price_e9=order.average_price_e9,
        create_time=timestamp(order.create_ns),
        update_time=timestamp(order.update_ns),
        revision=order.revision,
    )


def fill_to_proto(fill: FillRecord) -> fill_pb2.Fill:
    """An execution."""
    return fill_pb2.Fill(
        fill_id=fill.fill_id,
        order_id=fill.client_order_id,
        venue_order_id=fill.venue_order_id,
        symbol=fill.symbol,
        side=SIDES_PB[fill.side],
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        fill_time=timestamp(fill.time_ns),
        provenance=provenance_pb2.Provenance.ValueType(fill.provenance),
        market_sequence=fill.market_sequence,
    )


def position_to_proto(view: PositionView) -> position_pb2.Position:
    """A position; what fills know of it beyond the venue's word stands beside that."""
    held = view.held
    ours = held.position if held is not None else Position()
    return position_pb2.Position(
        symbol=view.symbol,
        quantity=view.quantity,
        cost_e9=_fit(view.cost_e9),
        average_price_e9=view.average_price_e9,
        realized_pnl_e9=_fit(ours.realized_pnl_e9),
        commission_e9=_fit(ours.commission_e9),
        unrealized_pnl_e9=None if view.unrealized_e9 is None else _fit(view.unrealized_e9),
        multiplier_e9=view.multiplier * E9,
        update_time=timestamp(held.update_ns) if held is not None else None,
        version=held.fills if held is not None else 0,
    )


def account_to_proto(account: AccountView) -> pb.GetAccountResponse:
    """The account."""
    return pb.GetAccountResponse(
        account_id=account.account_id,
        currency=account.currency,
        cash_e9=_fit(account.cash_e9),
        equity_e9=_fit(account.equity_e9),
        commission_e9=_fit(account.commission_e9),
        live=account.live,
    )


def update_to_proto(revision: int, update: Update) -> pb.WatchOrdersResponse:
    """One message of a watch."""
    if update is None:
        return pb.WatchOrdersResponse(heartbeat=pb.VenueHeartbeat(), revision=revision)
    if isinstance(update, FillRecord):
        return pb.WatchOrdersResponse(fill=fill_to_proto(update), revision=revision)
    if isinstance(update, ProgressRecord):
        progress = pb.VenueMarketProgress(
            symbol=update.symbol, epoch=update.epoch, through_sequence=update.through_sequence
        )
        return pb.WatchOrdersResponse(market_progress=progress, revision=revision)
    if isinstance(update, tuple):
        snapshot = pb.VenueSnapshot(orders=[order_to_proto(order) for order in update])
        return pb.WatchOrdersResponse(snapshot=snapshot, revision=revision)
    return pb.WatchOrdersResponse(order=order_to_proto(update), revision=revision)


def status_to_proto(status: VenueStatus) -> pb.GetVenueStatusResponse:
    """Whether orders are taken, and on what data."""
    return pb.GetVenueStatusResponse(
        venue=status.venue,
        accepting=status.accepting,
        reason=status.reason,
        live=status.live,
        provenance={s: provenance_pb2.Provenance.ValueType(value) for s, value in status.provenance.items()},
        open_orders=status.open_orders,
    )


def _fit(value: int) -> int:
    """The nearest number that the contract's 64 bits hold."""
    return max(-INT64_MAX - 1, min(INT64_MAX, value))
