"""Decides the profit of the day and the fall from its highest point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from minhos_mesh.risk_manager.domain.question import AccountView


@dataclass(frozen=True, slots=True)
class DayPeak:
    """Highest profit of a trading day so far, 1e-9 units; a day begins at 0."""

    day: date
    peak_e9: int = 0

    def after(self, day: date, profit_e9: int) -> DayPeak:
        """Return the peak after one more observation."""
        if day != self.day:
            return DayPeak(day, max(profit_e9, 0))
        return self if profit_e9 <= self.peak_e9 else DayPeak(day, profit_e9)

    def drawdown_e9(self, day: date, profit_e9: int) -> int:
        """Return how far a profit is below the highest one of its day."""
        peak_e9 = self.peak_e9 if day == self.day else 0
        return max(peak_e9 - profit_e9, 0)


def unrealized_e9(
    view: AccountView, price: Callable[[str], int | None], multiplier: Callable[[str], int | None]
) -> tuple[int, str | None]:
    """Return the open profit of all positions, and the first symbol whose profit is not known (its profit is left out)."""
    total, unknown = 0, None
    for symbol, held in sorted(view.positions.items()):
        if held.quantity == 0:
            continue
        price_e9, factor = price(symbol), held.multiplier if held.multiplier is not None else multiplier(symbol)
        if price_e9 is not None and factor is not None:
            total += (held.quantity * price_e9 - held.cost_e9) * factor
        elif held.unrealized_e9 is not None:
            total += held.unrealized_e9
        else:
            unknown = unknown or symbol
    return total, unknown
