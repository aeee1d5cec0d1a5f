"""Decides what an account would hold at worst if everything that may be filled were filled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minhos_mesh.matching import Side
from minhos_mesh.risk_manager.domain.projection import LiveOrder
from minhos_mesh.risk_manager.domain.question import AccountView, Held
from minhos_mesh.venue.domain.orders import Terms


@dataclass(frozen=True, slots=True)
class Reach:
    """The most contracts that could be held long and short of one symbol (short is 0 or negative)."""

    held: int
    long: int
    short: int

    @property
    def widest(self) -> int:
        """Return the larger side, without sign."""
        return max(self.long, -self.short)


def reach_by_symbol(
    view: AccountView, extra: Iterable[LiveOrder], terms: Terms | None, counted: int = 0
) -> dict[str, Reach]:
    """Return how far each symbol can reach with working orders, orders the view does not count, and the order itself.

    `counted` are contracts of the order that the view counts already, as working ones or as held ones.
    """
    buy, sell = dict(view.working_buy), dict(view.working_sell)
    for order in extra:
        side = buy if order.side is Side.BUY else sell
        side[order.symbol] = side.get(order.symbol, 0) + order.quantity
    if terms is not None:
        side = buy if terms.side is Side.BUY else sell
        side[terms.symbol] = max(side.get(terms.symbol, 0) + terms.quantity - counted, 0)
    reach: dict[str, Reach] = {}
    for symbol in sorted({*view.positions, *buy, *sell}):
        held = view.positions.get(symbol, Held()).quantity
        reach[symbol] = Reach(held, max(held + buy.get(symbol, 0), 0), min(held - sell.get(symbol, 0), 0))
    return reach


def only_reduces(view: AccountView, extra: Iterable[LiveOrder], terms: Terms, counted: int = 0) -> bool:
    """Return whether the order, with all others on its side filled before it, still only closes what is held."""
    held = view.positions.get(terms.symbol, Held()).quantity
    if held * int(terms.side) >= 0:
        return False
    reach = reach_by_symbol(view, extra, terms, counted)[terms.symbol]
    return reach.short >= 0 if held > 0 else reach.long <= 0


def value_e9(
    symbol: str, contracts: int, held: Held, price: Callable[[str], int | None], multiplier: int | None
) -> int | None:
    """Return the value of contracts at the known price, else at their own average; None when neither is known."""
    if contracts == 0:
        return 0
    price_e9 = price(symbol)
    if price_e9 is None and held.quantity != 0:
        price_e9 = held.cost_e9 // held.quantity
    factor = multiplier if multiplier is not None else held.multiplier
    if price_e9 is None or factor is None:
        return None
    return contracts * abs(price_e9) * factor
