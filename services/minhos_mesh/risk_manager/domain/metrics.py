"""Decides what of the state of risk is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.daily import bounded_e9, unrealized_e9
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.exposure import value_e9
from minhos_mesh.risk_manager.domain.limits import RiskLimits
from minhos_mesh.risk_manager.domain.recent import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What the risk manager sees; money in 1e-9 units."""

    exposure_e9: int
    realized_today_e9: int
    unrealized_e9: int | None
    drawdown_e9: int
    positions: Mapping[str, int]
    breaker: Breaker
    open_reservations: int
    reserved: Mapping[str, int]
    checks: int
    refusals: int
    refusals_by_check: Mapping[str, int]
    limits: RiskLimits
    limits_version: int


def measure(desk: RiskDesk, stage: Stage, now_ns: int) -> Metrics:
    """Return what the desk sees at a moment, by the published facts and the prices known here."""
    view = desk.projection.view()
    open_e9, unknown = unrealized_e9(view, desk.price_of, desk.multiplier_of)
    values = [
        value_e9(symbol, abs(held.quantity), held, desk.price_of, desk.multiplier_of(symbol))
        for symbol, held in view.positions.items()
    ]
    reserved: dict[str, int] = {}
    reservations = desk.reservations.open(now_ns)
    for reservation in reservations:
        reserved[reservation.symbol] = reserved.get(reservation.symbol, 0) + reservation.quantity
    day = desk.day(stage, now_ns)
    realized_e9 = desk.projection.realized_on_e9(day)
    return Metrics(
        exposure_e9=bounded_e9(sum(value for value in values if value is not None)),
        realized_today_e9=bounded_e9(realized_e9),
        unrealized_e9=bounded_e9(open_e9) if unknown is None else None,
        drawdown_e9=bounded_e9(desk.drawdown_e9(stage, day, realized_e9 + open_e9)),
        positions={symbol: held.quantity for symbol, held in view.positions.items()},
        breaker=desk.breaker,
        open_reservations=len(reservations),
        reserved=reserved,
        checks=desk.tally.checks,
        refusals=desk.tally.refusals,
        refusals_by_check=dict(desk.tally.by_check),
        limits=desk.limits,
        limits_version=desk.limits_version,
    )
