"""Decides what limits an account has, which are sensible, and what holds on a fresh installation."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.risk_manager.domain.errors import InvalidField
from minhos_mesh.runtime.money import E9, format_e9

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskLimits:
    """Limits of one account; money in 1e-9 units of its currency, quantities in contracts."""

    max_order_quantity: int = 5
    max_position: int = 5
    """Contracts of one symbol in one direction, with working orders and reservations."""
    max_open_positions: int = 3
    max_exposure_e9: int = 5_000_000 * E9
    """Value of all positions with multiplier (5 contracts of NQ at 25,000 are 2.5 million)."""
    max_daily_loss_e9: int = 1_000 * E9
    max_drawdown_e9: int = 2_000 * E9
    price_collar_ticks: int = 1_000
    max_price_age_ns: int = 15 * SECOND_NS
    max_orders_per_minute: int = 10
    trading_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What the state of the system lets through, as its owner told it last."""

    trading_enabled: bool
    risk_enabled: bool
    """Off means that no limit holds, so that nothing but a reduction may pass."""


_LEAST_ONE = (
    "max_order_quantity",
    "max_position",
    "max_open_positions",
    "max_exposure_e9",
    "max_daily_loss_e9",
    "max_drawdown_e9",
    "price_collar_ticks",
    "max_price_age_ns",
    "max_orders_per_minute",
)


def check_limits(limits: RiskLimits) -> RiskLimits:
    """Return the limits, or raise InvalidField for one that would allow nothing or contradicts another."""
    for name in _LEAST_ONE:
        value = getattr(limits, name)
        if value < 1:
            seen = f"{format_e9(value)}" if name.endswith("_e9") else str(value)
            raise InvalidField(f"limits.{name}", seen, "above 0; switch trading off with trading_enabled")
    return limits


BREAKER_PERCENT = 120
"""Loss of the day, in percent of its limit, at which the breaker trips."""


def breaker_loss_e9(limits: RiskLimits) -> int:
    """Return the loss of the day at which the breaker trips."""
    return limits.max_daily_loss_e9 * BREAKER_PERCENT // 100
