"""Decides what the risk manager itself knows of the account, from the events of orders and trades alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date

from minhos_mesh.matching import Side
from minhos_mesh.risk_manager.domain.daily import day_of
from minhos_mesh.risk_manager.domain.question import AccountView, Held
from minhos_mesh.runtime.money import format_e9


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
    filled_quantity: int = 0


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
    filled_quantity: int = 0


@dataclass(slots=True)
class Projection:
    """Positions, live orders and the profit of the day; the same events in the same order give the same state."""

    positions: dict[str, Held] = field(default_factory=dict)
    position_versions: dict[str, int] = field(default_factory=dict)
    live_orders: dict[str, LiveOrder] = field(default_factory=dict)
    version: int = 0
    day: date | None = None
    realized_today_e9: int = 0

    def copy(self) -> Projection:
        """Return the same state, to be changed apart from this one."""
        return replace(
            self,
            positions=dict(self.positions),
            position_versions=dict(self.position_versions),
            live_orders=dict(self.live_orders),
        )

    def book_trade(self, fact: TradeFact) -> None:
        """Take in a trade; one that is older than what is known of its symbol changes nothing."""
        if fact.version <= self.position_versions.get(fact.symbol, 0):
            return
        day = day_of(fact.time_ns)
        if self.day is None or day > self.day:
            self.day, self.realized_today_e9 = day, 0
        if day == self.day:
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
                fact.order_id, fact.symbol, fact.side, fact.leaves_quantity, fact.version, fact.filled_quantity
            )
        else:
            self.live_orders.pop(fact.order_id, None)

    def realized_on_e9(self, day: date) -> int:
        """Return what was realized on a day less commission; that of an earlier day is over."""
        return self.realized_today_e9 if self.day is None or day <= self.day else 0

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
    """Say how an asker's view contradicts the published facts, or None: it is older, or holds something else at the same version.

    An asker that knows of more fills than have arrived here contradicts nothing: those events are on their way.
    """
    if asker.version < known.version:
        return f"the asker is at version {asker.version}, facts up to version {known.version} were published"
    if asker.version > known.version:
        return None
    for symbol in sorted({*asker.positions, *known.positions}):
        theirs = asker.positions.get(symbol, Held())
        ours = known.positions.get(symbol, Held())
        if (theirs.quantity, theirs.cost_e9) != (ours.quantity, ours.cost_e9):
            return f"at version {asker.version} the asker holds {_shown(theirs)} of {symbol}, by the published facts it is {_shown(ours)}"
    return None


def _shown(held: Held) -> str:
    """Contracts, and their cost, which is 1e-9 units of price times contracts."""
    return f"{held.quantity} at a cost of {format_e9(held.cost_e9)}" if held.quantity or held.cost_e9 else "0"
