"""Decides what the simulator's DTC server answers to questions about orders, fills, positions, accounts and instruments."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.dtc.enums import SecurityType, UpdateReason
from minhos_mesh.dtc.layout import Layout, Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables import reference as ref
from minhos_mesh.dtc.tables import trading
from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_orders import historical_fill, order_update, shown

DAY_NS = 86_400 * E9


def answer(exchange: SimulatedExchange, message: Message, now_ns: int) -> list[Message] | None:
    """The whole answer to a question; None for a message that is none of these."""
    found = _ANSWERS.get(message.layout)
    return None if found is None else found(exchange, message, now_ns)


def changes(exchange: SimulatedExchange) -> list[Message]:
    """Positions and balances that fills have changed since this was last asked for, to be told to everybody."""
    held = sorted(exchange.traded)
    found = [_position(exchange, account, symbol, {"Unsolicited": 1}) for account, symbol in held]
    accounts = sorted({account for account, _ in exchange.traded})
    found.extend(_balance(exchange, account, {"Unsolicited": 1}) for account in accounts)
    exchange.traded.clear()
    return found


def _open_orders(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    request, server_id = message.integer("RequestID"), message.text("ServerOrderID")
    account = message.text("TradeAccount")
    listed = [
        order
        for order in exchange.open_orders()
        if (not account or order.account == account)
        and (message.flag("RequestAllOrders") or not server_id or exchange.orders.get(server_id) is order)
    ]
    if not listed:
        return [make(trading.ORDER_UPDATE, RequestID=request, TotalNumMessages=1, MessageNumber=1, NoOrders=1)]
    return [
        order_update(
            order,
            UpdateReason.OPEN_ORDERS_REQUEST_RESPONSE,
            multiplier=exchange.settings.price_multiplier,
            request=(request, len(listed), number),
        )
        for number, order in enumerate(listed, start=1)
    ]


def _fills(exchange: SimulatedExchange, message: Message, now_ns: int) -> list[Message]:
    request, account = message.integer("RequestID"), message.text("TradeAccount")
    if not account:
        return [make(trading.HISTORICAL_ORDER_FILLS_REJECT, RequestID=request, RejectText="TradeAccount is not set")]
    days, server_id = message.integer("NumberOfDays"), message.text("ServerOrderID")
    since_ns = now_ns - days * DAY_NS if days > 0 else 0
    listed = [
        fill
        for fill in exchange.fills
        if fill.account == account and fill.time_ns >= since_ns and server_id in {"", fill.server_order_id}
    ]
    if not listed:
        empty: dict[str, Value | None] = {"TotalNumberMessages": 1, "MessageNumber": 1, "NoOrderFills": 1}
        return [make(trading.HISTORICAL_ORDER_FILL_RESPONSE, RequestID=request, **empty)]
    multiplier = exchange.settings.price_multiplier
    return [
        historical_fill(fill, multiplier, (request, len(listed), number)) for number, fill in enumerate(listed, start=1)
    ]


def _positions(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    request, account = message.integer("RequestID"), message.text("TradeAccount")
    held = sorted(key for key in exchange.positions if account in {"", key[0]})
    if not held:
        empty: dict[str, Value | None] = {"TotalNumberMessages": 1, "MessageNumber": 1, "NoPositions": 1}
        return [make(trading.POSITION_UPDATE, RequestID=request, **empty)]
    return [
        _position(exchange, *key, {"RequestID": request, "TotalNumberMessages": len(held), "MessageNumber": number})
        for number, key in enumerate(held, start=1)
    ]


def _accounts(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    accounts = exchange.settings.accounts
    return [
        make(
            ref.TRADE_ACCOUNT_RESPONSE,
            RequestID=message.integer("RequestID"),
            TotalNumberMessages=len(accounts),
            MessageNumber=number,
            TradeAccount=account,
        )
        for number, account in enumerate(accounts, start=1)
    ]


def _balances(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    request, account = message.integer("RequestID"), message.text("TradeAccount")
    accounts = [known for known in exchange.settings.accounts if account in {"", known}]
    if not accounts:
        text = f"TradeAccount {account!r} is not known"
        return [make(ref.ACCOUNT_BALANCE_REJECT, RequestID=request, RejectText=text)]
    return [
        _balance(exchange, known, {"RequestID": request, "TotalNumberMessages": len(accounts), "MessageNumber": number})
        for number, known in enumerate(accounts, start=1)
    ]


def _definition(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    request, symbol = message.integer("RequestID"), message.text("Symbol")
    spec = exchange.spec(symbol)
    if spec is None:
        text = f"Symbol {symbol[:40]!r} is not known"
        return [make(ref.SECURITY_DEFINITION_REJECT, RequestID=request, RejectText=text)]
    kind = SecurityType.FUTURES if spec.tradeable else SecurityType.INDEX
    multiplier = exchange.settings.price_multiplier
    return [
        make(
            ref.SECURITY_DEFINITION_RESPONSE,
            RequestID=request,
            Symbol=symbol,
            Exchange=spec.exchange,
            SecurityType=int(kind),
            Description=spec.description,
            MinPriceIncrement=spec.tick_e9 / E9,
            PriceDisplayFormat=2,
            CurrencyValuePerIncrement=spec.tick_e9 * spec.multiplier / E9,
            IsFinalMessage=1,
            HasMarketDepthData=0,
            DisplayPriceMultiplier=float(multiplier),
            Currency=spec.currency,
            ContractSize=float(spec.multiplier),
        )
    ]


def _symbols(exchange: SimulatedExchange, message: Message, now_ns: int) -> list[Message]:
    request = message.integer("RequestID")
    if not exchange.symbols:
        return [make(ref.SECURITY_DEFINITION_REJECT, RequestID=request, RejectText="no symbol is known")]
    asked = ref.SECURITY_DEFINITION_FOR_SYMBOL_REQUEST
    found = [
        message
        for symbol in exchange.symbols
        for message in _definition(exchange, make(asked, RequestID=request, Symbol=symbol), now_ns)
    ]
    last = found[-1].values
    return [make(each.layout, **(dict(each.values) | {"IsFinalMessage": 0})) for each in found[:-1]] + [
        make(ref.SECURITY_DEFINITION_RESPONSE, **last)
    ]


def _exchanges(exchange: SimulatedExchange, message: Message, _: int) -> list[Message]:
    names = sorted({spec.exchange for symbol in exchange.symbols if (spec := exchange.spec(symbol))}) or [""]
    return [
        make(
            ref.EXCHANGE_LIST_RESPONSE,
            RequestID=message.integer("RequestID"),
            Exchange=name,
            IsFinalMessage=int(name == names[-1]),
        )
        for name in names
    ]


def _position(exchange: SimulatedExchange, account: str, symbol: str, values: dict[str, Value | None]) -> Message:
    position = exchange.position(account, symbol)
    return make(
        trading.POSITION_UPDATE,
        Symbol=symbol,
        TradeAccount=account,
        Quantity=float(position.quantity),
        AveragePrice=shown(position.average_price_e9, exchange.settings.price_multiplier) or 0.0,
        **values,
    )


def _balance(exchange: SimulatedExchange, account: str, values: dict[str, Value | None]) -> Message:
    held = [position for (owner, _), position in exchange.positions.items() if owner == account]
    cash_e9 = exchange.settings.cash_e9 + sum(each.realized_pnl_e9 - each.commission_e9 for each in held)
    return make(
        ref.ACCOUNT_BALANCE_UPDATE,
        TradeAccount=account,
        AccountCurrency="USD",
        CashBalance=cash_e9 / E9,
        BalanceAvailableForNewPositions=cash_e9 / E9,
        **values,
    )


_ANSWERS: dict[Layout, Callable[[SimulatedExchange, Message, int], list[Message]]] = {
    trading.OPEN_ORDERS_REQUEST: _open_orders,
    trading.HISTORICAL_ORDER_FILLS_REQUEST: _fills,
    trading.CURRENT_POSITIONS_REQUEST: _positions,
    ref.TRADE_ACCOUNTS_REQUEST: _accounts,
    ref.ACCOUNT_BALANCE_REQUEST: _balances,
    ref.SECURITY_DEFINITION_FOR_SYMBOL_REQUEST: _definition,
    ref.SYMBOLS_FOR_EXCHANGE_REQUEST: _symbols,
    ref.SYMBOL_SEARCH_REQUEST: _symbols,
    ref.EXCHANGE_LIST_REQUEST: _exchanges,
}
