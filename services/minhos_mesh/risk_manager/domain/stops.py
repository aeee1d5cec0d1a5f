"""Decides what stops the orders of the whole account beside the breaker: losses of the day, and prices that are too old."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from minhos_mesh.matching import prices_due
from minhos_mesh.risk_manager.domain.checks import DELAY_ALLOWED_NS, age_allowed_ns
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.limits import SECOND_NS, RiskLimits
from minhos_mesh.risk_manager.domain.metrics import Metrics
from minhos_mesh.risk_manager.domain.question import Evidence, Provenance
from minhos_mesh.risk_manager.domain.recent import Stage
from minhos_mesh.risk_manager.domain.words import utc_text
from minhos_mesh.runtime.money import format_e9

GRACE_NS: Final = 30 * SECOND_NS
"""So long after the start of the service, and after the opening of a session, the first price may take to come."""


def losses_passed(desk: RiskDesk, stage: Stage, seen: Metrics) -> str | None:
    """Return the sentence that says which loss of the day lets nothing but reductions pass, None when none does.

    The amounts that were lost are left out, so that the sentence stands while prices move.
    """
    late = None if stage.provenance is Provenance.REPLAY else desk.held_at_late_price()
    if seen.unrealized_e9 is None or late is not None:
        return None
    limits, passed = seen.limits, []
    if -(seen.realized_today_e9 + seen.unrealized_e9) > limits.max_daily_loss_e9:
        passed.append(f"the loss of the day is above max_daily_loss, {format_e9(limits.max_daily_loss_e9)}")
    if seen.drawdown_e9 > limits.max_drawdown_e9:
        passed.append(f"the fall from the day's highest is above max_drawdown, {format_e9(limits.max_drawdown_e9)}")
    return f"{' and '.join(passed)}: only what reduces a position passes" if passed else None


def is_fresh(price: Evidence | None, limits: RiskLimits, now_ns: int) -> bool:
    """Return whether an order may be based on a price, as far as its age goes."""
    if price is None or price.event_time_ns is None or price.reference_e9 is None:
        return False
    return now_ns - price.event_time_ns <= age_allowed_ns(limits, price.provenance)


def is_due(price: Evidence | None, now_ns: int) -> bool:
    """Return whether a price newer than this one should be there; never of a replay, which has a clock of its own.

    Without a price it is not known whether its market ever closes, so the hours of the exchange count, with its holidays.
    """
    if price is not None and price.provenance is Provenance.REPLAY:
        return False
    if price is not None and price.provenance.always_open:
        return True
    delayed = price is not None and price.provenance is Provenance.DELAYED
    return prices_due(now_ns, GRACE_NS, DELAY_ALLOWED_NS if delayed else 0)


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
            told.append(
                f"{symbol} since {utc_text(price.event_time_ns)}"
                f" ({age_allowed_ns(desk.limits, price.provenance) / SECOND_NS:g} s are allowed)"
            )
    return f"no newer price: {', '.join(told)}; no order passes there, not even a closing one" if told else None
