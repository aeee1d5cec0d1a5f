"""Decides when the breaker trips, and that only a person with a reason resets it."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.risk_manager.domain.errors import BreakerNotTripped, InvalidField
from minhos_mesh.risk_manager.domain.limits import RiskLimits, breaker_loss_e9
from minhos_mesh.risk_manager.domain.words import utc_text
from minhos_mesh.runtime.money import format_e9

AUTOMATIC = "risk_manager"
"""Who trips it when the loss of the day does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A latch that lets nothing but reductions pass."""

    tripped: bool = False
    reason: str = ""
    tripped_by: str = ""
    trip_ns: int | None = None


def trip(breaker: Breaker, actor: str, reason: str, now_ns: int) -> Breaker:
    """Return the tripped breaker; one that is tripped keeps its first reason. Raises InvalidField."""
    _require(actor, reason)
    if breaker.tripped:
        return breaker
    return Breaker(tripped=True, reason=reason, tripped_by=actor, trip_ns=now_ns)


def reset(breaker: Breaker, actor: str, reason: str) -> Breaker:
    """Return the breaker without the latch. Raises BreakerNotTripped, InvalidField."""
    _require(actor, reason)
    if actor == AUTOMATIC:
        raise InvalidField("actor", repr(actor), "a person")
    if not breaker.tripped:
        raise BreakerNotTripped
    return Breaker()


def loss_trips(limits: RiskLimits, profit_today_e9: int) -> str | None:
    """Return the reason to trip when the loss of the day goes beyond 120 % of its limit, else None."""
    if -profit_today_e9 <= breaker_loss_e9(limits):
        return None
    lost, allowed = format_e9(-profit_today_e9), format_e9(limits.max_daily_loss_e9)
    return f"the loss of the day is {lost}, more than 120 % of its limit {allowed}"


def sentence(breaker: Breaker) -> str:
    """Return the sentence that says why, since when and by whom a breaker is tripped."""
    return f"the breaker is tripped since {utc_text(breaker.trip_ns or 0)} by {breaker.tripped_by}: {breaker.reason}"


def _require(actor: str, reason: str) -> None:
    if not actor.strip():
        raise InvalidField("actor", "empty", "the name of a person or service")
    if not reason.strip():
        raise InvalidField("reason", "empty", "a sentence that says why")
