"""Decides how an order, its cancel and its change are said to a DTC server, and what is asked on every connect."""

from __future__ import annotations

from minhos_mesh.dtc.enums import OrderType, RequestAction, TimeInForce
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.dtc.prices import price_to_wire
from minhos_mesh.dtc.tables.depth import MARKET_DEPTH_REQUEST
from minhos_mesh.dtc.tables.market import MARKET_DATA_REQUEST
from minhos_mesh.dtc.tables.reference import (
    SECURITY_DEFINITION_FOR_SYMBOL_REQUEST,
)
from minhos_mesh.dtc.tables.trading import (
    CANCEL_ORDER,
    CANCEL_REPLACE_ORDER,
    HISTORICAL_ORDER_FILLS_REQUEST,
    SUBMIT_NEW_SINGLE_ORDER,
)

LONGEST_CLIENT_ID = 31
"""Bytes of the longest client order id that every encoding carries."""


def submit(order: TrackedOrder, *, automated: bool = True) -> Message:
    """A new order. Raises MessageUnencodable, when it is encoded, for an id longer than 31 bytes."""
    first, second = wire_prices(order.order_type, order.limit_price_e9, order.stop_price_e9)
    return make(
        SUBMIT_NEW_SINGLE_ORDER,
        Symbol=order.symbol,
        TradeAccount=order.account,
        ClientOrderID=order.client_order_id,
        OrderType=int(order.order_type),
        BuySell=int(order.side),
        Price1=first or 0.0,
        Price2=second or 0.0,
        Quantity=float(order.quantity),
        TimeInForce=int(order.time_in_force),
        IsAutomatedOrder=int(automated),
    )


def cancel(order: TrackedOrder) -> Message:
    """Cancels an order; the server finds it by its own id and compares ours. Raises ValueError while it has no id."""
    return make(
        CANCEL_ORDER,
        ServerOrderID=_server_id(order),
        ClientOrderID=order.client_order_id,
        TradeAccount=order.account,
    )


def replace(
    order: TrackedOrder,
    *,
    quantity: int | None = None,
    limit_price_e9: int | None = None,
    stop_price_e9: int | None = None,
) -> Message:
    """Changes an order; `quantity` is the new total with what is filled. Raises ValueError while it has no server id."""
    if order.order_type is OrderType.STOP_LIMIT:
        first, second = stop_price_e9, limit_price_e9
    else:
        first, second = limit_price_e9 if limit_price_e9 is not None else stop_price_e9, None
    return make(
        CANCEL_REPLACE_ORDER,
        ServerOrderID=_server_id(order),
        ClientOrderID=order.client_order_id,
        TradeAccount=order.account,
        Price1=price_to_wire(first) or 0.0,
        Price2=price_to_wire(second) or 0.0,
        Price1IsSet=int(first is not None),
        Price2IsSet=int(second is not None),
        Quantity=float(quantity or 0),
        TimeInForce=int(TimeInForce.UNSET),
    )


def wire_prices(
    order_type: OrderType, limit_price_e9: int | None, stop_price_e9: int | None
) -> tuple[float | None, float | None]:
    """Price1 and Price2 of an order: the limit or the stop, and the limit of a stop that has both."""
    if order_type is OrderType.STOP_LIMIT:
        return price_to_wire(stop_price_e9), price_to_wire(limit_price_e9)
    return price_to_wire(stop_price_e9 if order_type is OrderType.STOP else limit_price_e9), None


def fills(request_id: int, account: str, days: int, server_order_id: str = "") -> Message:
    """Asks for fills, of one order when its server id is given. A real server wants the account named."""
    return make(
        HISTORICAL_ORDER_FILLS_REQUEST,
        RequestID=request_id,
        ServerOrderID=server_order_id,
        NumberOfDays=days,
        TradeAccount=account,
    )


def define(request_id: int, symbol: str) -> Message:
    """Asks what an instrument is."""
    return make(SECURITY_DEFINITION_FOR_SYMBOL_REQUEST, RequestID=request_id, Symbol=symbol)


def subscribe(symbol_id: int, symbol: str, action: RequestAction = RequestAction.SUBSCRIBE) -> Message:
    """Asks for market data of a symbol under an id of ours, or no longer."""
    return make(MARKET_DATA_REQUEST, RequestAction=int(action), SymbolID=symbol_id, Symbol=symbol)


def subscribe_depth(symbol_id: int, symbol: str, levels: int) -> Message:
    """Asks for the order book of a symbol under an id of ours; asked again it tells the whole book anew."""
    action = int(RequestAction.SUBSCRIBE)
    return make(MARKET_DEPTH_REQUEST, RequestAction=action, SymbolID=symbol_id, Symbol=symbol, NumLevels=levels)


def _server_id(order: TrackedOrder) -> str:
    if not order.server_order_id:
        raise ValueError(f"order {order.client_order_id} has no id of the server yet")
    return order.server_order_id
