"""Decides how the contract's messages and the values of the venue become each other."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.matching import OrderType, Position, Side, TimeInForce
from minhos_mesh.runtime.money import E9, INT64_MAX
from minhos_mesh.sierra_client.venue.domain import Change, FillRecord, OrderRecord, Terms
from minhos_mesh.sierra_client.venue.errors import VENUE
from minhos_mesh.sierra_client.venue.views import Account, PositionView, Submission

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


def timestamp(time_ns: int) -> Timestamp:
    """Nanoseconds since the Unix epoch as a Timestamp."""
    seconds, nanos = divmod(time_ns, E9)
    return Timestamp(seconds=seconds, nanos=nanos)


def submission_from_proto(request: pb.SubmitOrderRequest) -> Submission:
    """An order to be taken, which the contract's rules let through; a time in force that is unset is DAY."""
    terms = request.terms
    return Submission(
        client_order_id=request.client_order_id,
        terms=Terms(
            symbol=terms.symbol,
            side=_SIDES[terms.side],
            order_type=_TYPES[terms.type],
            quantity=terms.quantity,
            time_in_force=_TIFS.get(terms.time_in_force, TimeInForce.DAY),
            limit_price_e9=terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
            stop_price_e9=terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
        ),
        provenance=int(request.provenance),
        reduce_only=request.reduce_only,
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


def order_to_proto(record: OrderRecord) -> pb.VenueOrder:
    """An order as it stands."""
    return pb.VenueOrder(
        client_order_id=record.client_order_id,
        venue_order_id=record.venue_order_id,
        terms=terms_to_proto(record.terms),
        state=pb.VenueOrderState.ValueType(int(record.state)),
        reason_message=record.message,
        reason_code=pb.VenueOrderReason.ValueType(int(record.reason)),
        reduce_only=record.asked.reduce_only,
        filled_quantity=record.filled_quantity,
        average_price_e9=record.average_price_e9,
        create_time=timestamp(record.asked.create_ns),
        update_time=timestamp(record.update_ns),
        revision=record.revision,
    )


def fill_to_proto(fill: FillRecord) -> fill_pb2.Fill:
    """An execution."""
    return fill_pb2.Fill(
        fill_id=fill.fill_id,
        order_id=fill.client_order_id,
        venue_order_id=fill.venue_order_id,
        symbol=fill.symbol,
        side=_SIDES_PB[fill.side],
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        fill_time=timestamp(fill.time_ns),
        provenance=provenance_pb2.Provenance.ValueType(fill.provenance),
    )


def position_to_proto(view: PositionView) -> position_pb2.Position:
    """A position; what our own fills know of it beyond the server's word stands beside that."""
    held = view.held
    ours = held.position if held is not None else Position()
    return position_pb2.Position(
        symbol=view.symbol,
        quantity=view.quantity,
        cost_e9=_fit(view.cost_e9),
        average_price_e9=view.average_price_e9,
        realized_pnl_e9=_fit(ours.realized_pnl_e9),
        commission_e9=_fit(ours.commission_e9),
        multiplier_e9=view.multiplier * E9,
        update_time=timestamp(held.update_ns) if held is not None else None,
        version=held.fills if held is not None else 0,
    )


def account_to_proto(account: Account) -> pb.GetAccountResponse:
    """The account."""
    return pb.GetAccountResponse(
        account_id=account.name,
        currency=account.currency,
        cash_e9=_fit(account.cash_e9),
        equity_e9=_fit(account.equity_e9),
        commission_e9=_fit(account.commission_e9),
        live=account.live,
    )


def update_to_proto(revision: int, update: tuple[OrderRecord, ...] | Change | None) -> pb.WatchOrdersResponse:
    """One message of a watch."""
    if update is None:
        return pb.WatchOrdersResponse(heartbeat=pb.VenueHeartbeat(), revision=revision)
    if isinstance(update, OrderRecord):
        return pb.WatchOrdersResponse(order=order_to_proto(update), revision=revision)
    if isinstance(update, FillRecord):
        return pb.WatchOrdersResponse(fill=fill_to_proto(update), revision=revision)
    snapshot = pb.VenueSnapshot(orders=[order_to_proto(record) for record in update])
    return pb.WatchOrdersResponse(snapshot=snapshot, revision=revision)


def status_to_proto(
    accepting: bool, reason: str, live: bool, provenance: dict[str, int], open_orders: int
) -> pb.GetVenueStatusResponse:
    """Whether orders are taken, and on what data."""
    return pb.GetVenueStatusResponse(
        venue=VENUE,
        accepting=accepting,
        reason=reason,
        live=live,
        provenance={s: provenance_pb2.Provenance.ValueType(value) for s, value in provenance.items()},
        open_orders=open_orders,
    )


def _fit(value: int) -> int:
    """The nearest number that the contract's 64 bits hold."""
    return max(-INT64_MAX - 1, min(INT64_MAX, value))
