"""Decides what the risk manager itself knows of the account, from the events of orders and trades alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from minhos_mesh.matching import Side, trading_day
from minhos_mesh.risk_manager.domain.question import AccountView, Held


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFact:
    """How an order stands after a change."""

    order_id: str
    symbol: str
    side: Side
    leaves_quantity: int
    live: bool
    """Approved and not done: its contracts may still be filled."""
    done: bool
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFact:
    """What a fill did: the position behind it and the money that it realized."""

    fill_id: str
    symbol: str
    held: Held
    realized_e9: int
    """Before commission, 1e-9 units."""
    commission_e9: int
    version: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class LiveOrder:
    """Contracts that an order may still add."""

    order_id: str
    symbol: str
    side: Side
    quantity: int
    version: int


@dataclass(slots=True)
class Projection:
    """Positions, live orders and the profit of the day; the same events in the same order give the same state."""

    positions: dict[str, Held] = field(default_factory=dict)
    position_versions: dict[str, int] = field(default_factory=dict)
    live_orders: dict[str, LiveOrder] = field(default_factory=dict)
    version: int = 0
    day: date | None = None
    realized_today_e9: int = 0

    def book_trade(self, fact: TradeFact) -> None:
        """Take in a trade; one that is older than what is known of its symbol changes nothing."""
        if fact.version <= self.position_versions.get(fact.symbol, 0):
            return
        self.begin_day(trading_day(fact.time_ns))
        self.realized_today_e9 += fact.realized_e9 - fact.commission_e9
        self.position_versions[fact.symbol] = fact.version
        self.version = max(self.version, fact.version)
        if fact.held.quantity == 0:
            self.positions.pop(fact.symbol, None)
        else:
            self.positions[fact.symbol] = fact.held

    def book_order(self, fact: OrderFact) -> None:
        """Take in a change of an order; an older version of it changes nothing."""
        known = self.live_orders.get(fact.order_id)
        if known is not None and known.version >= fact.version:
            return
        if fact.live and fact.leaves_quantity > 0:
            self.live_orders[fact.order_id] = LiveOrder(
                fact.order_id, fact.symbol, fact.side, fact.leaves_quantity, fact.version
            )
        else:
            self.live_orders.pop(fact.order_id, None)

    def begin_day(self, day: date) -> None:
        """Forget the profit of an earlier day."""
        if self.day is None or day > self.day:
            self.day, self.realized_today_e9 = day, 0

    def view(self) -> AccountView:
        """Return the account as it is known here."""
        buy, sell = working_by_symbol(self.live_orders.values())
        return AccountView(
            positions=dict(self.positions),
            working_buy=buy,
            working_sell=sell,
            realized_today_e9=self.realized_today_e9,
            version=self.version,
            working_order_ids=frozenset(self.live_orders),
        )


def working_by_symbol(orders: Iterable[LiveOrder]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the contracts that would be bought and sold, per symbol."""
    buy: dict[str, int] = {}
    sell: dict[str, int] = {}
    for order in orders:
        side = buy if order.side is Side.BUY else sell
        side[order.symbol] = side.get(order.symbol, 0) + order.quantity
    return buy, sell


def contradiction(asker: AccountView, known: Projection) -> str | None:
    """Say how an asker's view contradicts the published facts, or None.

    An asker that knows of more fills than have arrived here contradicts nothing: those events are on their way.
    """
    if asker.version < known.version:
        return f"the asker is at version {asker.version}, facts up to version {known.version} were published"
    if asker.version > known.version:
        return None
    for symbol in sorted({*asker.positions, *known.positions}):
        theirs = asker.positions.get(symbol, Held()).quantity
        ours = known.positions.get(symbol, Held()).quantity
        if theirs != ours:
            return (
                f"at version {asker.version} the asker holds {theirs} of {symbol}, by the published facts it is {ours}"
            )
    return None
