"""Decides what stops the orders of the whole account beside the breaker: losses of the day, and prices that are too old."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final

from minhos_mesh.matching import session_open
from minhos_mesh.risk_manager.domain.checks import age_allowed_ns
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.limits import SECOND_NS, RiskLimits
from minhos_mesh.risk_manager.domain.question import Evidence, Provenance
from minhos_mesh.risk_manager.domain.recent import Stage
from minhos_mesh.runtime.money import format_e9

GRACE_NS: Final = 30 * SECOND_NS
"""So long after the start of the service, and after the opening of a session, the first price may take to come."""


def losses_passed(desk: RiskDesk, stage: Stage, now_ns: int) -> str | None:
    """Return the sentence that says which loss of the day lets nothing but reductions pass, None when none does.

    The amounts that were lost are left out, so that the sentence stands while prices move.
    """
    if stage.provenance is Provenance.REPLAY:
        day = desk.day(stage, now_ns)
        profit_e9, unknown = desk.own_profit(day)
    else:
        seen = desk.watch_own_loss(now_ns)
        day, profit_e9, unknown = desk.day(stage, now_ns), seen.profit_e9, seen.unknown
    if unknown is not None:
        return None
    limits, passed = desk.limits, []
    if -profit_e9 > limits.max_daily_loss_e9:
        passed.append(f"the loss of the day is above max_daily_loss, {format_e9(limits.max_daily_loss_e9)}")
    if desk.drawdown_e9(stage, day, profit_e9) > limits.max_drawdown_e9:
        passed.append(f"the fall from the day's highest is above max_drawdown, {format_e9(limits.max_drawdown_e9)}")
    return f"{' and '.join(passed)}: only what reduces a position passes" if passed else None


def is_fresh(price: Evidence | None, limits: RiskLimits, now_ns: int) -> bool:
    """Return whether an order may be based on a price, as far as its age goes."""
    if price is None or price.event_time_ns is None or price.reference_e9 is None:
        return False
    return now_ns - price.event_time_ns <= age_allowed_ns(limits, price.provenance)


def is_due(price: Evidence | None, now_ns: int) -> bool:
    """Return whether a price newer than this one should be there; never of a replay, which has a clock of its own.

    Without a price it is not known whether its market ever closes, so the hours of the exchange count.
    """
    if price is not None and price.provenance is Provenance.REPLAY:
        return False
    if price is not None and price.provenance.always_open:
        return True
    return session_open(now_ns) and session_open(now_ns - GRACE_NS)


def quiet_sentence(desk: RiskDesk, symbols: AbstractSet[str], now_ns: int) -> str | None:
    """Return the sentence that says of which symbols no order passes for want of a fresh price; None when of none."""
    told = []
    for symbol in sorted(symbols):
        price = desk.prices.get(symbol)
        if is_fresh(price, desk.limits, now_ns) or not is_due(price, now_ns):
            continue
        if price is None or price.event_time_ns is None or price.reference_e9 is None:
            told.append(f"{symbol} has no price yet")
        else:
            since = datetime.fromtimestamp(price.event_time_ns // SECOND_NS, UTC)
            told.append(
                f"{symbol} since {since:%Y-%m-%d %H:%M:%S} UTC"
                f" ({age_allowed_ns(desk.limits, price.provenance) / SECOND_NS:g} s are allowed)"
            )
    return f"no newer price: {', '.join(told)}; no order passes there, not even a closing one" if told else None
