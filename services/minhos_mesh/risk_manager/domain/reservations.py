"""Decides which approvals hold exposure, so that two questions at once cannot pass one limit."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.matching import Side
from minhos_mesh.risk_manager.domain.projection import LiveOrder, OrderFact
from minhos_mesh.risk_manager.domain.question import AccountView


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Contracts held for an approved order until its events use or release them, or until it expires."""

    approval_id: str
    order_id: str
    symbol: str
    side: Side
    quantity: int
    """Contracts of the whole order."""
    account_version: int
    """Version of the asker's view when it was given; a later view of the same asker contains the order."""
    expire_ns: int
    added: int = 0
    """Of a replacement, the contracts that the order did not have before: whoever counts the working order lacks them."""


class ReservationBook:
    """The approvals that are open, by order."""

    def __init__(self) -> None:
        self._by_order: dict[str, Reservation] = {}

    def __len__(self) -> int:
        return len(self._by_order)

    def hold(self, reservation: Reservation) -> None:
        """Hold the contracts of an approval."""
        self._by_order[reservation.order_id] = reservation

    def see(self, fact: OrderFact) -> None:
        """Release what an order's event shows to be used (it is live, as approved) or not needed (it is done)."""
        if self.released_by(fact):
            self._by_order.pop(fact.order_id, None)

    def released_by(self, fact: OrderFact) -> bool:
        """Return whether an order's event releases its approval; a replacement is used once the order has its quantity."""
        held = self._by_order.get(fact.order_id)
        if held is None:
            return False
        return fact.done or (
            fact.live and (held.added == 0 or fact.leaves_quantity + fact.filled_quantity == held.quantity)
        )

    def see_fill(self, order_id: str) -> None:
        """Release the approval of an order that was filled: its events tell the rest. A replacement is still to come."""
        if self.released_by_fill(order_id):
            self._by_order.pop(order_id, None)

    def released_by_fill(self, order_id: str) -> bool:
        """Return whether a fill of an order releases its approval."""
        held = self._by_order.get(order_id)
        return held is not None and held.added == 0

    def expire(self, now_ns: int) -> tuple[Reservation, ...]:
        """Drop and return what has expired at `now_ns`."""
        gone = tuple(r for r in self._by_order.values() if r.expire_ns <= now_ns)
        for reservation in gone:
            del self._by_order[reservation.order_id]
        return gone

    def open(self, now_ns: int) -> tuple[Reservation, ...]:
        """Return the approvals that are open at `now_ns`, oldest first."""
        return tuple(r for r in self._by_order.values() if r.expire_ns > now_ns)


def unseen_orders(
    view: AccountView,
    reservations: tuple[Reservation, ...],
    live: tuple[LiveOrder, ...],
    known_version: int,
    order_id: str,
) -> tuple[LiveOrder, ...]:
    """Return the orders that count beside what the asker's view counts already.

    What is superseded: approvals that were given on an older view (the asker writes an approved order down before it
    asks again), and live orders known here while the asker knows of fills that are not. An order that is counted as it
    works lacks what an approved replacement adds to it.
    """
    counted = {*view.working_order_ids, order_id}
    held = {
        r.order_id: LiveOrder(r.order_id, r.symbol, r.side, r.quantity, 0)
        for r in reservations
        if r.order_id not in counted and r.account_version >= view.version
    }
    lacking = set(view.working_order_ids)
    if view.version <= known_version:
        working = {o.order_id: o for o in live if o.order_id not in counted}
        held.update(working)
        lacking.update(working)
    growing = tuple(
        LiveOrder(r.order_id, r.symbol, r.side, r.added, 0)
        for r in reservations
        if r.added > 0 and r.order_id != order_id and r.order_id in lacking
    )
    return (*held.values(), *growing)
