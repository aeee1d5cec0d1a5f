"""Decides how orders are named to people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from minhos_mesh.trading_engine.domain.orders import Order

NAMED: Final = 3
"""How many orders are named; the rest is counted."""


def named(orders: Sequence[Order], note: Callable[[Order], str] = lambda _: "") -> str:
    """The first orders by side, quantity, symbol and id, each with its note where there is one, and how many more there are."""
    told = []
    for each in orders[:NAMED]:
        said = note(each)
        name = f"{each.terms.side.value} {each.terms.quantity} {each.terms.symbol} ({each.order_id})"
        told.append(f"{name}: {said}" if said else name)
    rest = len(orders) - len(told)
    return "; ".join([*told, *([f"{rest} more orders" if rest > 1 else "1 more order"] if rest else [])])
