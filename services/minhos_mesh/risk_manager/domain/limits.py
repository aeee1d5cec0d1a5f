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
    system_state: str
    """Name of the state of the system, for example `ONLINE`."""

    @property
    def running(self) -> bool:
        """Return whether the system is in a state in which positions may grow."""
        return self.system_state in ("ONLINE", "DEGRADED")


MOST_MONEY_E9 = 1_000_000_000 * E9

_MOST = {
    "max_order_quantity": 10_000,
    "max_position": 100_000,
    "max_open_positions": 1_000,
    "max_exposure_e9": MOST_MONEY_E9,
    "max_daily_loss_e9": MOST_MONEY_E9,
    "max_drawdown_e9": MOST_MONEY_E9,
    "price_collar_ticks": 1_000_000,
    "max_price_age_ns": 86_400 * SECOND_NS,
    "max_orders_per_minute": 100_000,
}
_SHOWN = {"max_price_age_ns": "max_price_age"}
"""Names of the contract that are not the names here."""


def check_limits(limits: RiskLimits) -> RiskLimits:
    """Return the limits, or raise InvalidField for one that would allow nothing or is beyond all reason."""
    for name, most in _MOST.items():
        value = getattr(limits, name)
        shown = f"limits.{_SHOWN.get(name, name)}"
        if value < 1:
            raise InvalidField(shown, _told(name, value), "above 0; switch trading off with trading_enabled")
        if value > most:
            raise InvalidField(shown, _told(name, value), f"at most {_told(name, most)}")
    return limits


def _told(name: str, value: int) -> str:
    if name.endswith("_ns"):
        return f"{format_e9(value, at_least=0)} s"
    return format_e9(value) if name.endswith("_e9") else str(value)


BREAKER_PERCENT = 120
"""Loss of the day, in percent of its limit, at which the breaker trips."""


def breaker_loss_e9(limits: RiskLimits) -> int:
    """Return the loss of the day at which the breaker trips."""
    return limits.max_daily_loss_e9 * BREAKER_PERCENT // 100
