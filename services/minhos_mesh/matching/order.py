"""Decides what an order is, which of its fields belong together, and what the book remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from minhos_mesh.runtime.money import format_e9


class Side(IntEnum):
    """The sign of an order: buying adds to a position, selling takes from it."""

    BUY = 1
    SELL = -1


class OrderType(Enum):
    """What an order waits for before it takes, and the worst price it accepts."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"


class TimeInForce(Enum):
    """How long what is not filled stays alive."""

    DAY = "DAY"
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Phase(Enum):
    """Where a living order is."""

    PENDING = "PENDING"
    """Accepted, and not in effect before its effective time."""
    HELD = "HELD"
    """A stop whose trigger has not been seen."""
    TAKING = "TAKING"
    """In effect at the market or at its limit, not yet resting (a market order stays here until it is filled)."""
    RESTING = "RESTING"
    """A limit order that waits in the queue at its own price."""


LIMITED = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
STOPPED = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
IMMEDIATE = frozenset({TimeInForce.IOC, TimeInForce.FOK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants done; prices in 1e-9 units, quantity in whole contracts."""

    order_id: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: int
    limit_price_e9: int | None = None
    stop_price_e9: int | None = None
    effective_ns: int = 0
    """First instant at which the order can meet the market, in the clock of the quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingOrder:
    """An order that is alive in a book."""

    order: Order
    phase: Phase
    priority: int
    """Smaller came first; given by the book, lost when the price changes or the quantity grows."""
    filled_quantity: int = 0
    queue_ahead: int | None = None
    """Contracts before this order at its price; None while nobody has shown that price."""

    @property
    def leaves_quantity(self) -> int:
        """Contracts that are still to be filled."""
        return self.order.quantity - self.filled_quantity

    def filled(self, quantity: int) -> WorkingOrder:
        """Return the order after `quantity` more contracts."""
        return replace(self, filled_quantity=self.filled_quantity + quantity)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: what was seen, and what is allowed, both as text for people."""

    field: str
    seen: str
    allowed: str


def check_order(order: Order, tick_e9: int) -> tuple[Violation, ...]:
    """Return everything that is wrong with the form of an order on a grid of `tick_e9` (empty when it is well formed)."""
    found: list[Violation] = []
    if order.quantity <= 0:
        found.append(Violation("quantity", str(order.quantity), "1 or more contracts"))
    limited, stopped = order.order_type in LIMITED, order.order_type in STOPPED
    found.extend(_check_price("limit_price_e9", order.limit_price_e9, limited, order.order_type, tick_e9))
    found.extend(_check_price("stop_price_e9", order.stop_price_e9, stopped, order.order_type, tick_e9))
    if stopped and order.time_in_force in IMMEDIATE:
        allowed = f"DAY or GTC, since the order is {order.order_type.value}"
        found.append(Violation("time_in_force", order.time_in_force.value, allowed))
    return tuple(found)


def _check_price(
    field: str, price_e9: int | None, needed: bool, order_type: OrderType, tick_e9: int
) -> tuple[Violation, ...]:
    if needed and price_e9 is None:
        return (Violation(field, "absent", f"a price, since the order is {order_type.value}"),)
    if price_e9 is None:
        return ()
    if not needed:
        return (Violation(field, format_e9(price_e9), f"absent, since the order is {order_type.value}"),)
    if price_e9 % tick_e9 != 0:
        return (Violation(field, format_e9(price_e9), f"a multiple of the tick {format_e9(tick_e9)}"),)
    return ()
