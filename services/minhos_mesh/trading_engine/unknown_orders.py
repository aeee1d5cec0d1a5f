"""Decides what people are told while it is not known what became of orders: a condition that names them and says why."""

from __future__ import annotations

from typing import Final

from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.trading_engine.domain.orders import Order, OrderState
from minhos_mesh.trading_engine.ledger import Ledger

CONDITION: Final = "ORDERS_UNKNOWN"
_TOLD: Final = 3
"""How many orders are named."""


class UnknownOrders:
    """Holds the condition as long as an order is UNKNOWN."""

    def __init__(self, ledger: Ledger, conditions: Conditions) -> None:
        self._conditions = conditions
        self._orders: dict[str, Order] = {}
        for order in ledger.account.orders.values():
            self._take(order)
        ledger.on_order(self._take)

    def _take(self, order: Order) -> None:
        """Look at an order after its change; nothing is done for one that was known and is."""
        if order.state is OrderState.UNKNOWN:
            self._orders[order.order_id] = order
        elif self._orders.pop(order.order_id, None) is None:
            return
        self._tell()

    def _tell(self) -> None:
        if not self._orders:
            self._conditions.clear(CONDITION)
            return
        named = [
            f"{each.terms.side.value} {each.terms.quantity} {each.terms.symbol} ({each.order_id}): {each.message}"
            for each in list(self._orders.values())[:_TOLD]
        ]
        rest = len(self._orders) - len(named)
        more = [f"and {rest} more"] if rest else []
        count = "1 order" if len(self._orders) == 1 else f"{len(self._orders)} orders"
        self._conditions.set(CONDITION, f"what became of {count} is not known: {'; '.join([*named, *more])}")
