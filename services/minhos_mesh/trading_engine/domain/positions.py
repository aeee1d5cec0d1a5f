"""Decides what a position is worth: netting by average cost in exact integers, flips through zero, realized P&L."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minhos_mesh.runtime.money import divide_half_even, multiply_e9
from minhos_mesh.trading_engine.domain.orders import Fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The net position in a symbol; `quantity` in contracts, negative when short.

    `cost_e9` is the sum of entry price times contracts that are open, signed as the quantity, so no average is ever
    rounded and carried on. `closed_points_e9` is what was won, in points times contracts; money comes from it by one
    multiplication with the multiplier.
    """

    symbol: str
    multiplier_e9: int
    quantity: int = 0
    cost_e9: int = 0
    closed_points_e9: int = 0
    commission_e9: int = 0
    version: int = 0
    """Number of fills of the account up to the last one of this position."""
    updated_ns: int = 0

    @property
    def average_price_e9(self) -> int | None:
        """Average entry price, rounded to 1e-9 half to even; None when flat."""
        return None if self.quantity == 0 else divide_half_even(self.cost_e9, self.quantity)

    @property
    def realized_e9(self) -> int:
        """Realized P&L before commission, in 1e-9 of the currency."""
        return multiply_e9(self.closed_points_e9, self.multiplier_e9)

    def unrealized_e9(self, price_e9: int | None) -> int | None:
        """P&L of the open contracts at a price, in 1e-9 of the currency; 0 when flat, None without a price."""
        if self.quantity == 0:
            return 0
        if price_e9 is None:
            return None
        return multiply_e9(self.quantity * price_e9 - self.cost_e9, self.multiplier_e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What one fill did: the position after it, and how it splits into closing and opening."""

    fill: Fill
    position: Position
    ended_trade: bool
    """Whether the position was brought to flat, or through it to the other side."""
    realized_e9: int
    """Change of realized P&L before commission."""
    closing_commission_e9: int
    opening_commission_e9: int


def book_fill(position: Position, fill: Fill, *, version: int) -> Booking:
    """Book one fill; `version` is the number of fills of the account including it.

    Closing k of n contracts takes floor(cost x k / n), counted without sign, out of the cost; what the floor leaves
    stays in the cost, so nothing is lost: whenever the position is flat, realized P&L is exactly sales minus purchases.
    """
    sign = fill.side.sign
    held = abs(position.quantity)
    closing = min(held, fill.quantity) if position.quantity * sign < 0 else 0
    freed_e9 = -sign * (abs(position.cost_e9) * closing // held) if closing else 0
    after = replace(
        position,
        quantity=position.quantity + sign * fill.quantity,
        cost_e9=position.cost_e9 - freed_e9 + sign * (fill.quantity - closing) * fill.price_e9,
        closed_points_e9=position.closed_points_e9 - sign * closing * fill.price_e9 - freed_e9,
        commission_e9=position.commission_e9 + fill.commission_e9,
        version=version,
        updated_ns=max(position.updated_ns, fill.at_ns),
    )
    closing_commission_e9 = fill.commission_e9 * closing // fill.quantity
    return Booking(
        fill=fill,
        position=after,
        ended_trade=held > 0 and closing == held,
        realized_e9=after.realized_e9 - position.realized_e9,
        closing_commission_e9=closing_commission_e9,
        opening_commission_e9=fill.commission_e9 - closing_commission_e9,
    )
