"""Decides which market data the simulator's DTC server sends to a client, and what it refuses as the real one does."""

from __future__ import annotations

from dataclasses import dataclass, field

from minhos_mesh.dtc.enums import AtBidOrAsk, LogonFlag, RequestAction
from minhos_mesh.dtc.layout import Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables import market as tables
from minhos_mesh.dtc.tables.depth import MARKET_DEPTH_REJECT, MARKET_DEPTH_REQUEST
from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_simulator import dtc_depth
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_orders import shown

NO_FLAGS = LogonFlag(0)
NOT_PERMITTED = "Data of this exchange is not permitted over DTC"


@dataclass(slots=True)
class Subscriptions:
    """What one client has asked for."""

    flags: LogonFlag = NO_FLAGS
    """Forms of market data that it understands, from its logon."""
    ids: dict[int, str] = field(default_factory=dict)
    """Symbol by the client's SymbolID."""
    books: dict[int, str] = field(default_factory=dict)
    """The same of order books."""
    behind: set[int] = field(default_factory=set)
    """Ids of books whose changes were left out, so that they must be told whole."""

    def id_of(self, symbol: str) -> int | None:
        """The client's id of a symbol; None when it has not asked for it."""
        return next((number for number, known in self.ids.items() if known == symbol), None)


def permitted(exchange: SimulatedExchange, symbol: str) -> bool:
    """Whether data of a symbol is served."""
    spec = exchange.spec(symbol)
    return spec is not None and spec.exchange not in exchange.settings.refused_exchanges


def asked(exchange: SimulatedExchange, mine: Subscriptions, message: Message) -> list[Message] | None:
    """The answer to a request for market data or depth; None for any other message."""
    if message.layout is MARKET_DEPTH_REQUEST:
        return _depth_asked(exchange, mine, message)
    if message.layout is not tables.MARKET_DATA_REQUEST:
        return None
    action, number, symbol = message.integer("RequestAction"), message.integer("SymbolID"), message.text("Symbol")
    if action == RequestAction.UNSUBSCRIBE:
        mine.ids.pop(number, None)
        return []
    problem = _problem(exchange, mine, number, symbol, action)
    if problem:
        return [make(tables.MARKET_DATA_REJECT, SymbolID=number, RejectText=problem)]
    if action == RequestAction.SUBSCRIBE:
        mine.ids[number] = symbol
    return [_snapshot(exchange, number, symbol)]


def _depth_asked(exchange: SimulatedExchange, mine: Subscriptions, message: Message) -> list[Message]:
    """The whole book and a subscription, or why not; asked again it is told anew."""
    action, number, symbol = message.integer("RequestAction"), message.integer("SymbolID"), message.text("Symbol")
    if action == RequestAction.UNSUBSCRIBE:
        mine.books.pop(number, None)
        return []
    problem = "" if exchange.settings.session.depth else "Market depth is not served"
    if exchange.spec(symbol) is None:
        problem = f"Symbol {symbol[:40]!r} is not known"
    elif not exchange.settings.session.market_data or not permitted(exchange, symbol):
        problem = NOT_PERMITTED
    if problem:
        return [make(MARKET_DEPTH_REJECT, SymbolID=number, RejectText=problem)]
    if action == RequestAction.SUBSCRIBE:
        mine.books[number] = symbol
    mine.behind.discard(number)
    if symbol not in exchange.books:
        mine.behind.add(number)  # it is told whole as soon as there is one
        return []
    return dtc_depth.snapshot(mine.flags, number, exchange.books[symbol])


def _problem(exchange: SimulatedExchange, mine: Subscriptions, number: int, symbol: str, action: int) -> str:
    if action not in {RequestAction.SUBSCRIBE, RequestAction.SNAPSHOT}:
        return f"RequestAction {action} is not supported"
    if exchange.spec(symbol) is None:
        return f"Symbol {symbol[:40]!r} is not known"
    if not exchange.settings.session.market_data or not permitted(exchange, symbol):
        return NOT_PERMITTED
    other = mine.id_of(symbol)
    if action == RequestAction.SUBSCRIBE and (other not in {None, number} or mine.ids.get(number, symbol) != symbol):
        return f"SymbolID {number} and Symbol {symbol!r} do not match an earlier subscription"
    return ""


def _snapshot(exchange: SimulatedExchange, number: int, symbol: str) -> Message:
    quote, trade = exchange.quote(symbol), exchange.last_trade(symbol)
    values: dict[str, Value | None] = {"SymbolID": number}
    if quote is not None:
        values |= {
            "BidPrice": shown(quote.bid_e9),
            "AskPrice": shown(quote.ask_e9),
            "BidQuantity": None if quote.bid_size is None else float(quote.bid_size),
            "AskQuantity": None if quote.ask_size is None else float(quote.ask_size),
            "BidAskDateTime": quote.time_ns / E9,
        }
    if trade is not None:
        values |= {
            "LastTradePrice": shown(trade.price_e9),
            "LastTradeVolume": float(trade.size),
            "LastTradeDateTime": trade.time_ns / E9,
        }
    return make(tables.MARKET_DATA_SNAPSHOT, **values)


def trade_message(flags: LogonFlag, number: int, trade: Trade) -> Message:
    """A trade in the form that a client understands."""
    at = {Side.BUY: AtBidOrAsk.ASK, Side.SELL: AtBidOrAsk.BID, None: AtBidOrAsk.UNSET}[trade.aggressor]
    price = shown(trade.price_e9)
    if flags & LogonFlag.TRADES_MICROSECONDS:
        return make(
            tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2,
            SymbolID=number, Price=price, Volume=trade.size, DateTime=trade.time_ns // 1000, AtBidOrAsk=int(at),
        )  # fmt: skip
    if flags & LogonFlag.UNBUNDLED_TRADES:
        return make(
            tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR,
            SymbolID=number, Price=price, Volume=trade.size, DateTime=trade.time_ns / E9, AtBidOrAsk=int(at),
        )  # fmt: skip
    return make(
        tables.MARKET_DATA_UPDATE_TRADE_COMPACT,
        SymbolID=number, Price=price, Volume=float(trade.size), DateTime=trade.time_ns // E9, AtBidOrAsk=int(at),
    )  # fmt: skip


def quote_message(flags: LogonFlag, number: int, quote: Quote) -> Message:
    """A quote in the form that a client understands."""
    sizes: dict[str, Value | None] = {
        "BidQuantity": float(quote.bid_size or 0),
        "AskQuantity": float(quote.ask_size or 0),
    }
    prices: dict[str, Value | None] = {"BidPrice": shown(quote.bid_e9), "AskPrice": shown(quote.ask_e9)}
    if flags & LogonFlag.QUOTES_MICROSECONDS:
        form, when = tables.MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS, quote.time_ns // 1000
    else:
        form, when = tables.MARKET_DATA_UPDATE_BID_ASK_COMPACT, quote.time_ns // E9
    return make(form, SymbolID=number, DateTime=when, **(prices | sizes))
