"""Decides what is asked of a DTC server on a connect, and when its answers are complete enough to settle every order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

from minhos_mesh.dtc import requests
from minhos_mesh.dtc.batches import Batch
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.layout import Layout
from minhos_mesh.dtc.ledger import Listing
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.reports import (
    BalanceReport,
    Definition,
    MarketOf,
    PositionReport,
    balance_report,
    definition,
    historical_fill,
    order_report,
    position_report,
)
from minhos_mesh.dtc.session import CloseReason
from minhos_mesh.dtc.tables.reference import (
    ACCOUNT_BALANCE_REQUEST,
    ACCOUNT_BALANCE_UPDATE,
    SECURITY_DEFINITION_REJECT,
    SECURITY_DEFINITION_RESPONSE,
    TRADE_ACCOUNT_RESPONSE,
    TRADE_ACCOUNTS_REQUEST,
)
from minhos_mesh.dtc.tables.trading import (
    CURRENT_POSITIONS_REQUEST,
    HISTORICAL_ORDER_FILL_RESPONSE,
    OPEN_ORDERS_REQUEST,
    ORDER_UPDATE,
    POSITION_UPDATE,
)

T = TypeVar("T")

DEADLINE_S: Final = 20.0
"""How long all answers together are waited for."""
DAY_NS: Final = 86_400_000_000_000


class SettlingFailed(Exception):
    """Expected: the server's answers do not allow to settle the orders; the text says which and why."""

    reason: CloseReason = CloseReason.PROTOCOL_BROKEN


class AccountUnknown(SettlingFailed):
    """Expected: the account that is to be traded is not at the server, which only another configuration ends."""

    reason = CloseReason.ACCOUNT_UNKNOWN


class Settling:
    """One round of questions: accounts and instruments first, then orders, fills, positions and the balance."""

    def __init__(
        self,
        *,
        first_id: int,
        account: str,
        symbols: Collection[str],
        oldest_ns: int,
        now_ns: int,
        concerned: Collection[str] | None,
        account_is_ours: bool,
        on_the_way_ns: int,
    ) -> None:
        """`oldest_ns` is when the oldest order that is not done was sent: the fills since then are asked for.

        `concerned` are the orders that the answers may settle, None for all. `first_id` is the first request id to use.
        """
        self.account = account
        self.concerned = concerned
        self.definitions: dict[str, Definition] = {}
        self.unknown_symbols: list[str] = []
        self.unreadable: list[str] = []
        """Why single answers were left out."""
        self._next_id = first_id
        self._asked_ns = now_ns
        self._days = (now_ns - min(oldest_ns, now_ns)) // DAY_NS + 2
        self._symbols = tuple(symbols)
        self._account_is_ours = account_is_ours
        self._on_the_way_ns = on_the_way_ns
        self._waiting: set[int] = set()
        self._named: dict[int, str] = {}
        self._accounts: Batch | None = None
        self._batches: dict[Layout, Batch] = {}
        self.complete = False

    @property
    def next_id(self) -> int:
        """The first request id that this round has not used."""
        return self._next_id

    def begin(self) -> list[Message]:
        """The first questions."""
        self._accounts = Batch(TRADE_ACCOUNT_RESPONSE, self._next_id)
        asked = [make(TRADE_ACCOUNTS_REQUEST, RequestID=self._take_id())]
        for symbol in self._symbols:
            self._named[self._next_id] = symbol
            self._waiting.add(self._next_id)
            asked.append(requests.define(self._take_id(), symbol))
        return asked

    def take(self, message: Message) -> list[Message] | None:
        """Takes an answer: the next questions, or None for a message that is no part of this round.

        Raises SettlingFailed.
        """
        if self._accounts is not None and self._accounts.take(message):
            return self._go_on()
        number = message.integer("RequestID") if "RequestID" in message.layout.by_name else 0
        if message.layout in {SECURITY_DEFINITION_RESPONSE, SECURITY_DEFINITION_REJECT} and number in self._waiting:
            self._waiting.discard(number)
            self._define(message, self._named[number])
            return self._go_on()
        for batch in self._batches.values():
            if batch.take(message):
                self.complete = all(each.complete for each in self._batches.values())
                if batch.refused is not None and batch.layout is not ACCOUNT_BALANCE_UPDATE:
                    raise SettlingFailed(f"the server does not list what {batch.layout.name} tells: {batch.refused}")
                return []
        return None

    def listing(self, market_of: MarketOf) -> Listing:
        """What the server has listed; single entries that mean nothing are left out and named.

        Its open orders must have been given to the ledger as they came.
        """
        positions: dict[str, int] = {}
        for found in self.positions(market_of):
            positions[found.symbol] = positions.get(found.symbol, 0) + found.quantity
        orders = (
            self._read(m, lambda each: order_report(each, market_of)) for m in self._batches[ORDER_UPDATE].messages
        )
        fills = (
            self._read(m, lambda each: historical_fill(each, market_of))
            for m in self._batches[HISTORICAL_ORDER_FILL_RESPONSE].messages
        )
        return Listing(
            open_orders=tuple(order for order in orders if order is not None),
            fills=tuple(fill for fill in fills if fill is not None),
            fills_from_ns=self._asked_ns - self._days * DAY_NS,
            asked_ns=self._asked_ns,
            positions=positions,
            on_the_way_ns=self._on_the_way_ns,
            account_is_ours=self._account_is_ours,
            reported=True,
        )

    def positions(self, market_of: MarketOf) -> tuple[PositionReport, ...]:
        """Positions that the server has listed, without flat ones."""
        messages = self._batches[POSITION_UPDATE].messages
        found = (self._read(message, lambda each: position_report(each, market_of)) for message in messages)
        return tuple(position for position in found if position is not None and position.quantity)

    def balance(self) -> BalanceReport | None:
        """The balance of the account, None when the server tells none."""
        messages = self._batches[ACCOUNT_BALANCE_UPDATE].messages
        return self._read(messages[-1], balance_report) if messages else None

    def missing(self) -> str:
        """What has not been answered yet, for people."""
        if not self._batches:
            return "its accounts and instruments"
        return ", ".join(layout.name for layout, batch in self._batches.items() if not batch.complete)

    def _go_on(self) -> list[Message]:
        """Asks for the lists once accounts and instruments are known."""
        if self._accounts is None or not self._accounts.complete or self._waiting or self._batches:
            return []
        listed = [message.text("TradeAccount") for message in self._accounts.messages]
        if self.account and self.account not in listed:
            raise AccountUnknown(f"trade account {self.account!r} is not at the server: it has {listed}")
        if not self.account and len(listed) != 1:
            raise AccountUnknown(f"the server has the trade accounts {listed}: one of them must be configured")
        self.account = self.account or listed[0]
        asked: list[Message] = []
        for layout, request in (
            (ORDER_UPDATE, OPEN_ORDERS_REQUEST),
            (HISTORICAL_ORDER_FILL_RESPONSE, None),
            (POSITION_UPDATE, CURRENT_POSITIONS_REQUEST),
            (ACCOUNT_BALANCE_UPDATE, ACCOUNT_BALANCE_REQUEST),
        ):
            self._batches[layout] = Batch(layout, self._next_id)
            number = self._take_id()
            if request is None:
                asked.append(requests.fills(number, self.account, self._days))
            else:
                asked.append(make(request, RequestID=number, TradeAccount=self.account))
        return asked

    def _define(self, message: Message, symbol: str) -> None:
        if message.layout is SECURITY_DEFINITION_REJECT:
            self.unknown_symbols.append(symbol)
            return
        found = self._read(message, definition)
        if found is not None:
            self.definitions[found.symbol or symbol] = found

    def _read(self, message: Message, read: Callable[[Message], T]) -> T | None:
        try:
            return read(message)
        except ValueUnreadable as problem:
            self.unreadable.append(f"{message.name}: {problem}")
            return None

    def _take_id(self) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        return number
