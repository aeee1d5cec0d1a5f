"""Decides how the contract's messages and the venue's values become each other."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.matching import OrderType, Side, TimeInForce
from minhos_mesh.paper_venue.domain.exchange import Account, PositionView, Submission
from minhos_mesh.paper_venue.domain.orders import Change, FillRecord, OrderRecord, OrderState, ProgressRecord, Terms
from minhos_mesh.runtime.money import E9

VENUE = "paper"
ACCOUNT_ID = "paper"
CURRENCY = "USD"

_SIDES = {order_terms_pb2.SIDE_BUY: Side.BUY, order_terms_pb2.SIDE_SELL: Side.SELL}
_TYPES = {
    order_terms_pb2.ORDER_TYPE_MARKET: OrderType.MARKET,
    order_terms_pb2.ORDER_TYPE_LIMIT: OrderType.LIMIT,
    order_terms_pb2.ORDER_TYPE_STOP: OrderType.STOP,
    order_terms_pb2.ORDER_TYPE_STOP_LIMIT: OrderType.STOP_LIMIT,
}
_TIFS = {
    order_terms_pb2.TIME_IN_FORCE_DAY: TimeInForce.DAY,
    order_terms_pb2.TIME_IN_FORCE_GTC: TimeInForce.GTC,
    order_terms_pb2.TIME_IN_FORCE_IOC: TimeInForce.IOC,
    order_terms_pb2.TIME_IN_FORCE_FOK: TimeInForce.FOK,
}
_SIDES_PB = {side: value for value, side in _SIDES.items()}
_TYPES_PB = {kind: value for value, kind in _TYPES.items()}
_TIFS_PB = {tif: value for value, tif in _TIFS.items()}
_STATES_PB = {
    OrderState.PENDING: pb.VENUE_ORDER_STATE_PENDING,
    OrderState.WORKING: pb.VENUE_ORDER_STATE_WORKING,
    OrderState.FILLED: pb.VENUE_ORDER_STATE_FILLED,
    OrderState.CANCELED: pb.VENUE_ORDER_STATE_CANCELED,
    OrderState.REJECTED: pb.VENUE_ORDER_STATE_REJECTED,
    OrderState.EXPIRED: pb.VENUE_ORDER_STATE_EXPIRED,
}


def timestamp(time_ns: int) -> Timestamp:
    """Nanoseconds since the Unix epoch as a Timestamp."""
    seconds, nanos = divmod(time_ns, E9)
    return Timestamp(seconds=seconds, nanos=nanos)


def terms_from_proto(terms: order_terms_pb2.OrderTerms) -> Terms:
    """Terms of an order that the contract's rules let through; a time in force that is unset is DAY."""
    return Terms(
        symbol=terms.symbol,
        side=_SIDES[terms.side],
        order_type=_TYPES[terms.type],
        quantity=terms.quantity,
        time_in_force=_TIFS.get(terms.time_in_force, TimeInForce.DAY),
        limit_price_e9=terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
        stop_price_e9=terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
    )


def terms_to_proto(terms: Terms) -> order_terms_pb2.OrderTerms:
    """Terms of an order."""
    return order_terms_pb2.OrderTerms(
        symbol=terms.symbol,
        side=_SIDES_PB[terms.side],
        type=_TYPES_PB[terms.order_type],
        quantity=terms.quantity,
        time_in_force=_TIFS_PB[terms.time_in_force],
        limit_price_e9=terms.limit_price_e9,
        stop_price_e9=terms.stop_price_e9,
    )


def submission_from_proto(request: pb.SubmitOrderRequest) -> Submission:
    """An order to be taken."""
    return Submission(
        client_order_id=request.client_order_id,
        terms=terms_from_proto(request.terms),
        provenance=int(request.provenance),
        reduce_only=request.reduce_only,
        decision_ns=request.decision_time.ToNanoseconds() if request.HasField("decision_time") else None,
    )


def order_to_proto(record: OrderRecord) -> pb.VenueOrder:
    """An order as it stands."""
    code, message = record.why
    return pb.VenueOrder(
        client_order_id=record.client_order_id,
        venue_order_id=record.venue_order_id,
        terms=terms_to_proto(record.terms),
        state=_STATES_PB[record.state],
        reason_message=message,
        reason_code=pb.VenueOrderReason.ValueType(int(code)),
        reduce_only=record.reduce_only,
        filled_quantity=record.filled_quantity,
        average_price_e9=record.average_price_e9,
        create_time=timestamp(record.create_ns),
        update_time=timestamp(record.update_ns),
        revision=record.revision,
    )


def fill_to_proto(fill: FillRecord) -> fill_pb2.Fill:
    """An execution."""
    return fill_pb2.Fill(
        fill_id=fill.fill_id,
        order_id=fill.client_order_id,
        venue_order_id=f"paper-{fill.client_order_id}",
        symbol=fill.symbol,
        side=_SIDES_PB[fill.side],
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        fill_time=timestamp(fill.time_ns),
        provenance=provenance_pb2.Provenance.ValueType(fill.provenance),
        market_sequence=fill.market_sequence,
    )


def position_to_proto(view: PositionView) -> position_pb2.Position:
    """A position at the last price."""
    position = view.held.position
    return position_pb2.Position(
        symbol=view.symbol,
        quantity=position.quantity,
        cost_e9=position.cost_e9,
        average_price_e9=position.average_price_e9,
        realized_pnl_e9=position.realized_pnl_e9,
        commission_e9=position.commission_e9,
        unrealized_pnl_e9=view.unrealized_e9,
        multiplier_e9=view.multiplier * E9,
        update_time=timestamp(view.held.update_ns),
        version=view.held.fills,
    )


def account_to_proto(account: Account) -> pb.GetAccountResponse:
    """The paper account."""
    return pb.GetAccountResponse(
        account_id=ACCOUNT_ID,
        currency=CURRENCY,
        cash_e9=account.cash_e9,
        equity_e9=account.equity_e9,
        commission_e9=account.commission_e9,
        live=False,
    )


def update_to_proto(revision: int, update: tuple[OrderRecord, ...] | Change | None) -> pb.WatchOrdersResponse:
    """One message of a watch."""
    if update is None:
        return pb.WatchOrdersResponse(heartbeat=pb.VenueHeartbeat(), revision=revision)
    if isinstance(update, OrderRecord):
        return pb.WatchOrdersResponse(order=order_to_proto(update), revision=revision)
    if isinstance(update, FillRecord):
        return pb.WatchOrdersResponse(fill=fill_to_proto(update), revision=revision)
    if isinstance(update, ProgressRecord):
        progress = pb.VenueMarketProgress(
            symbol=update.symbol, epoch=update.epoch, through_sequence=update.through_sequence
        )
        return pb.WatchOrdersResponse(market_progress=progress, revision=revision)
    snapshot = pb.VenueSnapshot(orders=[order_to_proto(record) for record in update])
    return pb.WatchOrdersResponse(snapshot=snapshot, revision=revision)


def status_to_proto(
    accepting: bool, reason: str, provenance: dict[str, int], open_orders: int
) -> pb.GetVenueStatusResponse:
    """Whether orders are taken, and on what data."""
    return pb.GetVenueStatusResponse(
        venue=VENUE,
        accepting=accepting,
        reason=reason,
        live=False,
        provenance={s: provenance_pb2.Provenance.ValueType(value) for s, value in provenance.items()},
        open_orders=open_orders,
    )
