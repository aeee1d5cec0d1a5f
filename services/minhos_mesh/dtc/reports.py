"""Decides what messages about orders, fills, positions, accounts and instruments say, in exact numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import TypeVar

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce, UpdateReason
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import (
    PriceScale,
    contracts,
    exact_multiplier,
    fill_price,
    money_e9,
    tick_of,
    time_ns,
    wire_price,
)

E = TypeVar("E", bound=IntEnum)

_FILLED = frozenset({UpdateReason.ORDER_FILLED, UpdateReason.ORDER_FILLED_PARTIALLY})


@dataclass(frozen=True, slots=True)
class Market:
    """What must be known of an instrument to read its prices."""

    scale: PriceScale
    reference_e9: int | None = None
    """A recent price, by which a fill price without the multiplier is recognised."""


MarketOf = Callable[[str], Market]
"""The market of a symbol of the server. Raises ValueUnreadable for one that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillReport:
    """One execution."""

    execution_id: str
    """Id of the server; made from the rest where it gives none."""
    server_order_id: str
    symbol: str
    side: BuySell
    quantity: int
    price_e9: int
    on_grid: bool
    """False when the price is no whole number of ticks, which an execution should be."""
    time_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """One ORDER_UPDATE."""

    status: OrderStatus
    reason: UpdateReason
    server_order_id: str
    previous_server_order_id: str
    client_order_id: str
    """Empty where the server leaves it out, which it may do for most reasons."""
    symbol: str
    account: str
    side: BuySell
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: int | None
    filled_quantity: int | None
    limit_price_e9: int | None
    stop_price_e9: int | None
    fill: FillReport | None
    """The execution that this update tells of; None when it tells of none."""
    text: str
    time_ns: int | None
    """When the server last did something to the order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionReport:
    """A position as the server has it."""

    symbol: str
    account: str
    quantity: int
    """Negative when short."""
    average_price_e9: int | None
    unsolicited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceReport:
    """A balance as the server has it; money in 1e-9 units of its currency."""

    account: str
    currency: str
    cash_e9: int | None
    available_e9: int | None
    open_profit_e9: int | None
    trading_disabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An instrument as the server has it."""

    symbol: str
    description: str
    currency: str
    tick_e9: int | None
    """None when the server does not say."""
    multiplier: Fraction
    """Factor by which unscaled prices become those that people see."""
    value_per_tick_e9: int | None

    def scale(self, tick_e9: int) -> PriceScale:
        """How its prices stand on the wire; `tick_e9` is used where the server does not say."""
        return PriceScale(self.tick_e9 or tick_e9, self.multiplier)


def order_report(message: Message, market_of: MarketOf) -> OrderReport:
    """Reads an ORDER_UPDATE. Raises ValueUnreadable; what it told is then not known, and the order must be asked for."""
    reason = _enum(UpdateReason, message, "OrderUpdateReason")
    symbol = message.text("Symbol")
    market = market_of(symbol)
    order_type = _enum(OrderType, message, "OrderType")
    first = _price(message, "Price1", market)
    stopped = order_type in {OrderType.STOP, OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED}
    filled = contracts(message.number("FilledQuantity"), "FilledQuantity")
    return OrderReport(
        status=_enum(OrderStatus, message, "OrderStatus"),
        reason=reason,
        server_order_id=message.text("ServerOrderID"),
        previous_server_order_id=message.text("PreviousServerOrderID"),
        client_order_id=message.text("ClientOrderID"),
        symbol=symbol,
        account=message.text("TradeAccount"),
        side=_enum(BuySell, message, "BuySell"),
        order_type=order_type,
        time_in_force=_enum(TimeInForce, message, "TimeInForce"),
        quantity=contracts(message.number("OrderQuantity"), "OrderQuantity"),
        filled_quantity=filled,
        limit_price_e9=_price(message, "Price2", market)
        if order_type is OrderType.STOP_LIMIT
        else _unless(stopped, first),
        stop_price_e9=first if stopped else None,
        fill=_last_fill(message, market, filled) if reason in _FILLED else None,
        text=message.text("InfoText"),
        time_ns=time_ns(message.number("LatestTransactionDateTime") or 0.0, "LatestTransactionDateTime"),
    )


def historical_fill(message: Message, market_of: MarketOf) -> FillReport:
    """Reads a HISTORICAL_ORDER_FILL_RESPONSE. Raises ValueUnreadable."""
    market = market_of(message.text("Symbol"))
    quantity = contracts(message.number("Quantity"), "Quantity")
    price = fill_price(message.number("Price"), market.scale, "Price", market.reference_e9)
    when = time_ns(message.integer("DateTime"), "DateTime")
    if not quantity or quantity < 0 or price is None:
        raise ValueUnreadable("Quantity", quantity, "1 or more contracts, with a price")
    server_id = message.text("ServerOrderID")
    return FillReport(
        execution_id=message.text("UniqueExecutionID") or f"{server_id}/{when}/{quantity}/{price.price_e9}",
        server_order_id=server_id,
        symbol=message.text("Symbol"),
        side=_enum(BuySell, message, "BuySell"),
        quantity=quantity,
        price_e9=price.price_e9,
        on_grid=price.on_grid,
        time_ns=when,
    )


def position_report(message: Message, market_of: MarketOf) -> PositionReport | None:
    """Reads a POSITION_UPDATE; None when it says that there are no positions. Raises ValueUnreadable."""
    if message.flag("NoPositions"):
        return None
    market = market_of(message.text("Symbol"))
    quantity = contracts(message.number("Quantity"), "Quantity") or 0
    price = (
        fill_price(message.number("AveragePrice"), market.scale, "AveragePrice", market.reference_e9)
        if quantity
        else None
    )
    return PositionReport(
        symbol=message.text("Symbol"),
        account=message.text("TradeAccount"),
        quantity=quantity,
        average_price_e9=None if price is None else price.price_e9,
        unsolicited=message.flag("Unsolicited"),
    )


def balance_report(message: Message) -> BalanceReport | None:
    """Reads an ACCOUNT_BALANCE_UPDATE; None when it says that there is none. Raises ValueUnreadable."""
    if message.flag("NoAccountBalances"):
        return None
    return BalanceReport(
        account=message.text("TradeAccount"),
        currency=message.text("AccountCurrency"),
        cash_e9=money_e9(message.number("CashBalance"), "CashBalance"),
        available_e9=money_e9(message.number("BalanceAvailableForNewPositions"), "BalanceAvailableForNewPositions"),
        open_profit_e9=money_e9(message.number("OpenPositionsProfitLoss"), "OpenPositionsProfitLoss"),
        trading_disabled=message.flag("TradingIsDisabled"),
    )


def definition(message: Message) -> Definition:
    """Reads a SECURITY_DEFINITION_RESPONSE. Raises ValueUnreadable for a multiplier that is none."""
    multiplier = exact_multiplier(message.number("DisplayPriceMultiplier"))
    value = message.number("CurrencyValuePerIncrement")
    return Definition(
        symbol=message.text("Symbol"),
        description=message.text("Description"),
        currency=message.text("Currency"),
        tick_e9=tick_of(message.number("MinPriceIncrement")),
        multiplier=multiplier,
        value_per_tick_e9=tick_of(value),
    )


def _last_fill(message: Message, market: Market, filled: int | None) -> FillReport:
    quantity = contracts(message.number("LastFillQuantity"), "LastFillQuantity")
    price = fill_price(message.number("LastFillPrice"), market.scale, "LastFillPrice", market.reference_e9)
    if quantity is None or quantity < 1 or price is None:
        raise ValueUnreadable(
            "LastFillQuantity", quantity, "1 or more contracts, with a price, in the update of a fill"
        )
    server_id = message.text("ServerOrderID")
    return FillReport(
        execution_id=message.text("LastFillExecutionID") or f"{server_id}/{filled}/{quantity}/{price.price_e9}",
        server_order_id=server_id,
        symbol=message.text("Symbol"),
        side=_enum(BuySell, message, "BuySell"),
        quantity=quantity,
        price_e9=price.price_e9,
        on_grid=price.on_grid,
        time_ns=time_ns(message.integer("LastFillDateTime"), "LastFillDateTime", per_second=1000),
    )


def _price(message: Message, member: str, market: Market) -> int | None:
    found = wire_price(message.number(member), market.scale, member)
    return None if found is None or found.price_e9 == 0 else found.price_e9


def _unless(condition: bool, value: int | None) -> int | None:
    return None if condition else value


def _enum(kind: type[E], message: Message, name: str) -> E:
    try:
        return kind(message.integer(name))
    except ValueError:
        raise ValueUnreadable(name, message.integer(name), f"one of {[int(value) for value in kind]}") from None
