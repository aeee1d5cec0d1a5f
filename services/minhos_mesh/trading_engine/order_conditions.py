"""Decides what people are told of orders that need a look: unknown ones, and settled ones of which the venue heard otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.trading_engine.domain.orders import Order, OrderState
from minhos_mesh.trading_engine.domain.told import named
from minhos_mesh.trading_engine.ledger import Ledger

UNKNOWN: Final = "ORDERS_UNKNOWN"
SETTLED_OTHERWISE: Final = "SETTLED_OTHERWISE"


class OrderConditions:
    """Holds a condition as long as an order is UNKNOWN, and one as long as a settlement is in dispute."""

    def __init__(self, ledger: Ledger, conditions: Conditions, disputed: Iterable[Order]) -> None:
        """`disputed` are orders whose settlement was in dispute at the start, which may have ended long ago."""
        self._watches = (
            _Watch(conditions, UNKNOWN, lambda order: order.state is OrderState.UNKNOWN, _unknown),
            _Watch(conditions, SETTLED_OTHERWISE, lambda order: bool(order.settlement_dispute), _disputed),
        )
        for order in (*ledger.account.orders.values(), *disputed):
            self._take(order)
        ledger.on_order(self._take)

    def _take(self, order: Order) -> None:
        for watch in self._watches:
            watch.take(order)


class _Watch:
    """One condition and the orders that it is about."""

    def __init__(
        self,
        conditions: Conditions,
        code: str,
        concerns: Callable[[Order], bool],
        sentence: Callable[[Sequence[Order]], str],
    ) -> None:
        self._conditions, self._code, self._concerns, self._sentence = conditions, code, concerns, sentence
        self._orders: dict[str, Order] = {}

    def take(self, order: Order) -> None:
        """Look at an order after its change; nothing is done for one that was of no concern and is of none."""
        if self._concerns(order):
            self._orders[order.order_id] = order
        elif self._orders.pop(order.order_id, None) is None:
            return
        if self._orders:
            self._conditions.set(self._code, self._sentence(tuple(self._orders.values())))
        else:
            self._conditions.clear(self._code)


def _unknown(orders: Sequence[Order]) -> str:
    count = "1 order" if len(orders) == 1 else f"{len(orders)} orders"
    return f"what became of {count} is not known: {named(orders, lambda order: order.message)}"


def _disputed(orders: Sequence[Order]) -> str:
    return f"the venue tells otherwise than was settled of {named(orders, lambda order: order.settlement_dispute)}"
