"""Decides how the whole account changes with each event: orders, working exposure, positions, performance, the day."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minhos_mesh.trading_engine.domain.errors import UnknownOrder
from minhos_mesh.trading_engine.domain.order_events import FillReported, OrderCreated, OrderEvent
from minhos_mesh.trading_engine.domain.order_machine import apply, create
from minhos_mesh.trading_engine.domain.orders import Fill, Order, Provenance, Side
from minhos_mesh.trading_engine.domain.performance import Performance, add_booking
from minhos_mesh.trading_engine.domain.positions import Booking, Position, book_fill
from minhos_mesh.trading_engine.domain.signals import Exposure

_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChange:
    """One event applied: the order after it, and what it did to the position when it was a fill."""

    order: Order
    event: OrderEvent
    booking: Booking | None = None


class Account:
    """The orders and positions in memory; every change goes through `add` or `apply` and is returned to be written.

    Orders that have ended are kept up to `closed_kept`, so that late facts about them are recognised at once.
    """

    def __init__(self, multipliers_e9: Mapping[str, int], *, closed_kept: int = 5000) -> None:
        self.orders: dict[str, Order] = {}
        self.positions: dict[str, Position] = {}
        self.performance = Performance()
        self.version = 0
        self._multipliers_e9 = multipliers_e9
        self._closed: OrderedDict[str, Order] = OrderedDict()
        self._closed_kept = closed_kept
        self._working: dict[tuple[str, Side], int] = {}
        self._provenance: dict[str, Provenance] = {}
        self._day = -1
        self._day_net_e9 = 0

    @staticmethod
    def draft(event: OrderCreated) -> Order:
        """Give the order that an event begins, without taking it in."""
        return create(event)

    def get(self, order_id: str) -> Order | None:
        """Give an order that is held in memory."""
        return self.orders.get(order_id) or self._closed.get(order_id)

    def add(self, event: OrderCreated) -> OrderChange:
        """Take in a new order."""
        order = create(event)
        self._put(None, order)
        return OrderChange(order=order, event=event)

    def restore(self, order: Order) -> None:
        """Take in an order from the store as it is."""
        self._put(self.get(order.order_id), order)

    def restore_fill(self, fill: Fill) -> None:
        """Book a fill from the store into positions and performance, without its order."""
        self._book(fill)

    def apply(self, order_id: str, event: OrderEvent) -> OrderChange | None:
        """Apply an event; None when it says nothing new. Raises UnknownOrder and what the order machine raises."""
        before = self.get(order_id)
        if before is None:
            raise UnknownOrder(order_id)
        after = apply(before, event)
        if after is before:
            return None
        booking = self._book(event.fill) if isinstance(event, FillReported) else None
        self._put(before, after)
        return OrderChange(order=after, event=event, booking=booking)

    def exposure(self, symbol: str) -> Exposure:
        """Give the position of a symbol and the contracts that work on either side."""
        position = self.positions.get(symbol)
        return Exposure(
            position=0 if position is None else position.quantity,
            buying=self._working.get((symbol, Side.BUY), 0),
            selling=self._working.get((symbol, Side.SELL), 0),
        )

    def working_orders(self) -> Iterable[Order]:
        """Give the orders that the venue may fill, the oldest first."""
        return [order for order in self.orders.values() if order.state.is_working]

    def working_by_side(self, side: Side) -> dict[str, int]:
        """Give the contracts of working orders on one side, by symbol, without zeros."""
        return {symbol: count for (symbol, its_side), count in self._working.items() if its_side is side and count}

    def provenance(self, symbol: str) -> Provenance | None:
        """Give the provenance of the last fill in a symbol; None without one."""
        return self._provenance.get(symbol)

    def net_today_e9(self, now_ns: int) -> int:
        """Give what was realized on the UTC day of `now_ns` less commission, in 1e-9 of the currency."""
        return self._day_net_e9 if now_ns // _DAY_NS == self._day else 0

    def _book(self, fill: Fill) -> Booking:
        before = self.positions.get(fill.symbol) or Position(
            symbol=fill.symbol, multiplier_e9=self._multipliers_e9[fill.symbol]
        )
        self.version += 1
        booking = book_fill(before, fill, version=self.version)
        self.positions[fill.symbol] = booking.position
        self.performance = add_booking(self.performance, booking)
        self._provenance[fill.symbol] = fill.provenance
        day = fill.at_ns // _DAY_NS
        if day > self._day:
            self._day, self._day_net_e9 = day, 0
        if day == self._day:
            self._day_net_e9 += booking.realized_e9 - fill.commission_e9
        return booking

    def _put(self, before: Order | None, after: Order) -> None:
        for order, sign in ((before, -1), (after, 1)):
            if order is not None and order.state.is_working:
                key = (order.terms.symbol, order.terms.side)
                self._working[key] = self._working.get(key, 0) + sign * order.remaining
        if not after.state.is_terminal:
            self._closed.pop(after.order_id, None)
            self.orders[after.order_id] = after
            return
        self.orders.pop(after.order_id, None)
        self._closed[after.order_id] = after
        while len(self._closed) > self._closed_kept:
            self._closed.popitem(last=False)
