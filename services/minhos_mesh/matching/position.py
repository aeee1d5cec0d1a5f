"""Decides how fills become a position and realized profit, in exact integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minhos_mesh.matching.order import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A net position in one instrument; quantity is signed, money in 1e-9 of the currency."""

    quantity: int = 0
    cost_e9: int = 0
    """Sum of price x contracts of what is open, signed as the quantity, in 1e-9 points (without multiplier)."""
    realized_pnl_e9: int = 0
    """Profit of what was closed, with multiplier, without commission."""
    commission_e9: int = 0

    @property
    def average_price_e9(self) -> int | None:
        """Return the average entry price, rounded half to even, or None when flat."""
        return None if self.quantity == 0 else round_half_even(self.cost_e9, self.quantity)

    def unrealized_pnl_e9(self, price_e9: int, multiplier: int) -> int:
        """Return the profit that closing at `price_e9` would realize, before commission."""
        return (self.quantity * price_e9 - self.cost_e9) * multiplier


def apply_fill(
    position: Position, side: Side, quantity: int, price_e9: int, multiplier: int, commission_e9: int = 0
) -> Position:
    """Return the position after a fill.

    Closing k of n contracts takes floor(cost x k / n), counted without sign, out of the cost; what the floor leaves
    stays in the cost, so that realized and open profit together are always exactly the money that moved.
    """
    held = abs(position.quantity)
    closing = min(quantity, held) if position.quantity * int(side) < 0 else 0
    freed = -int(side) * (abs(position.cost_e9) * closing // held) if closing else 0
    # Closing sells a long (+price, positive cost) or buys back a short (-price, negative cost): one formula for both.
    realized = -int(side) * closing * price_e9 - freed
    return replace(
        position,
        quantity=position.quantity + int(side) * quantity,
        cost_e9=position.cost_e9 - freed + int(side) * (quantity - closing) * price_e9,
        realized_pnl_e9=position.realized_pnl_e9 + realized * multiplier,
        commission_e9=position.commission_e9 + commission_e9,
    )


def round_half_even(numerator: int, denominator: int) -> int:
    """Divide exactly and round to the nearest whole number, ties to the even one."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    whole, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1):
        return whole + 1
    return whole
