"""Decides what a day is, the profit of the day, and the fall from its highest point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from minhos_mesh.risk_manager.domain.question import AccountView
from minhos_mesh.runtime.money import E9, INT64_MAX


def day_of(time_ns: int) -> date:
    """Return the UTC day of an instant: the day of every limit, of profit and of drawdown."""
    return datetime.fromtimestamp(time_ns // E9, UTC).date()


def bounded_e9(value_e9: int) -> int:
    """Return the nearest value that an int64 holds: money beyond it is shown and kept as the largest there is."""
    return max(-INT64_MAX, min(value_e9, INT64_MAX))


@dataclass(frozen=True, slots=True)
class DayPeak:
    """Highest profit of a day so far, 1e-9 units; a day begins at 0."""

    day: date
    peak_e9: int = 0

    def after(self, day: date, profit_e9: int) -> DayPeak:
        """Return the peak after one more observation."""
        profit_e9 = bounded_e9(profit_e9)
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
        price_e9, factor = price(symbol), multiplier(symbol) or held.multiplier
        if price_e9 is not None and factor is not None:
            total += (held.quantity * price_e9 - held.cost_e9) * factor
        elif held.unrealized_e9 is not None:
            total += held.unrealized_e9
        else:
            unknown = unknown or symbol
    return total, unknown
