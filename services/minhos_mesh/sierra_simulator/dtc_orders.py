"""Decides what the simulator's DTC server remembers of an order and says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce, UpdateReason
from minhos_mesh.dtc.layout import Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables.trading import HISTORICAL_ORDER_FILL_RESPONSE, ORDER_UPDATE
from minhos_mesh.matching import Order, Side, round_half_even
from minhos_mesh.matching import OrderType as BookType
from minhos_mesh.matching import TimeInForce as BookTime
from minhos_mesh.runtime.money import E9

BOOK_TYPES = {
    OrderType.MARKET: BookType.MARKET,
    OrderType.LIMIT: BookType.LIMIT,
    OrderType.STOP: BookType.STOP,
    OrderType.STOP_LIMIT: BookType.STOP_LIMIT,
}
BOOK_TIMES = {
    TimeInForce.UNSET: BookTime.DAY,
    TimeInForce.DAY: BookTime.DAY,
    TimeInForce.GOOD_TILL_CANCELED: BookTime.GTC,
    TimeInForce.IMMEDIATE_OR_CANCEL: BookTime.IOC,
    TimeInForce.FILL_OR_KILL: BookTime.FOK,
}
DONE = frozenset({OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFill:
    """One execution."""

    execution_id: str
    server_order_id: str
    symbol: str
    account: str
    side: BuySell
    quantity: int
    price_e9: int
    time_ns: int


@dataclass(slots=True, kw_only=True)
class ServedOrder:
    """An order as the server has it."""

    number: int
    server_order_id: str
    client_order_id: str
    symbol: str
    account: str
    side: BuySell
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: int
    limit_e9: int | None
    stop_e9: int | None
    received_ns: int
    free_text: str = ""
    previous_server_order_id: str = ""
    status: OrderStatus = OrderStatus.OPEN
    filled: int = 0
    filled_value_e9: int = 0
    changed_ns: int = 0
    server_order_ids: list[str] = field(default_factory=list)
    """Every server id that it has had, the latest last."""
    fills: list[ServedFill] = field(default_factory=list)

    @property
    def book_id(self) -> str:
        """Id in the book, which stays the same when the server's id changes."""
        return str(self.number)

    def as_order(self, now_ns: int) -> Order:
        """The order for the matcher. Raises KeyError for a type or time in force that it does not have."""
        return Order(
            order_id=self.book_id,
            side=Side.BUY if self.side is BuySell.BUY else Side.SELL,
            order_type=BOOK_TYPES[self.order_type],
            time_in_force=BOOK_TIMES[self.time_in_force],
            quantity=self.quantity,
            limit_price_e9=self.limit_e9,
            stop_price_e9=self.stop_e9,
            effective_ns=now_ns,
        )

    def prices(self) -> tuple[float | None, float | None]:
        """Price1 and Price2."""
        limit, stop = shown(self.limit_e9), shown(self.stop_e9)
        if self.order_type is OrderType.STOP_LIMIT:
            return stop, limit
        return (stop, None) if self.order_type is OrderType.STOP else (limit, None)


def shown(price_e9: int | None, multiplier: Fraction = Fraction(1)) -> float | None:
    """A price as it is sent; unscaled where the instrument has a multiplier."""
    return None if price_e9 is None else float(Fraction(price_e9, E9) / multiplier)


def order_update(
    order: ServedOrder,
    reason: UpdateReason,
    *,
    multiplier: Fraction,
    text: str = "",
    status: OrderStatus | None = None,
    fill: ServedFill | None = None,
    request: tuple[int, int, int] = (0, 1, 1),
) -> Message:
    """An ORDER_UPDATE. `request` is RequestID, how many messages the answer has, and the number of this one."""
    first, second = order.prices()
    average = round_half_even(order.filled_value_e9, order.filled) if order.filled else None
    values: dict[str, Value | None] = {
        "RequestID": request[0],
        "TotalNumMessages": request[1],
        "MessageNumber": request[2],
        "Symbol": order.symbol,
        "TradeAccount": order.account,
        "ServerOrderID": order.server_order_id,
        "PreviousServerOrderID": order.previous_server_order_id,
        "ClientOrderID": order.client_order_id,
        "OrderStatus": int(order.status if status is None else status),
        "OrderUpdateReason": int(reason),
        "OrderType": int(order.order_type),
        "BuySell": int(order.side),
        "Price1": first,
        "Price2": second,
        "TimeInForce": int(order.time_in_force),
        "OrderQuantity": float(order.quantity),
        "FilledQuantity": float(order.filled),
        "RemainingQuantity": float(order.quantity - order.filled),
        "AverageFillPrice": shown(average, multiplier),
        "InfoText": text,
        "FreeFormText": order.free_text,
        "OrderReceivedDateTime": order.received_ns // 1_000_000,
        "LatestTransactionDateTime": order.changed_ns / E9,
    }
    return make(ORDER_UPDATE, **(values | _last_fill(fill, multiplier)))


def _last_fill(fill: ServedFill | None, multiplier: Fraction) -> dict[str, Value | None]:
    if fill is None:
        return {}
    return {
        "LastFillPrice": shown(fill.price_e9, multiplier),
        "LastFillQuantity": float(fill.quantity),
        "LastFillDateTime": fill.time_ns // 1_000_000,
        "LastFillExecutionID": fill.execution_id,
    }


def historical_fill(fill: ServedFill, multiplier: Fraction, request: tuple[int, int, int]) -> Message:
    """A HISTORICAL_ORDER_FILL_RESPONSE."""
    return make(
        HISTORICAL_ORDER_FILL_RESPONSE,
        RequestID=request[0],
        TotalNumberMessages=request[1],
        MessageNumber=request[2],
        Symbol=fill.symbol,
        ServerOrderID=fill.server_order_id,
        BuySell=int(fill.side),
        Price=shown(fill.price_e9, multiplier),
        DateTime=fill.time_ns // E9,
        Quantity=float(fill.quantity),
        UniqueExecutionID=fill.execution_id,
        TradeAccount=fill.account,
    )
