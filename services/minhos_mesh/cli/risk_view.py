"""Decides how limits, their use, and what stops orders are told."""

from __future__ import annotations

from typing import Final

import grpc

from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.mesh import Link

RESET: Final = "`minhos risk reset --reason WHY`"
"""How a person lets orders pass again."""


async def stops_now(link: Link) -> list[str]:
    """What the risk manager lets pass no more; nothing when it cannot be asked within a second."""
    if "minhos_api.risk.v1.RiskManagerService" not in link.contracts:
        return []
    try:
        return stops(await metrics_of(link))
    except grpc.aio.AioRpcError:
        return ["the risk manager does not answer, and no answer means that no order passes: `minhos status` says why"]


async def metrics_of(link: Link) -> pb.RiskMetrics:
    """What the risk manager sees now. Raises AioRpcError when it does not answer within the second of its contract."""
    answer = await link.clients.stub(RiskManagerServiceStub).GetRiskMetrics(pb.GetRiskMetricsRequest())
    return answer.metrics


def stops(metrics: pb.RiskMetrics) -> list[str]:
    """Everything of the account for which only reductions pass, one sentence each; empty when limits leave room."""
    limits, profit_e9 = metrics.limits, profit_e9_of(metrics)
    found: list[str] = []
    if metrics.breaker.tripped:
        found.append(f"BREAKER {tripped(metrics.breaker)}: only what reduces a position passes until {RESET}")
    if profit_e9 is not None and -profit_e9 > limits.max_daily_loss_e9:
        allowed = show.money(limits.max_daily_loss_e9)
        found.append(
            f"DAILY LOSS {show.money(-profit_e9)} of {allowed}: only what reduces a position passes until 00:00 UTC"
        )
    if metrics.drawdown_e9 > limits.max_drawdown_e9:
        fall, allowed = show.money(metrics.drawdown_e9), show.money(limits.max_drawdown_e9)
        found.append(
            f"DRAWDOWN {fall} of {allowed}: only what reduces a position passes until it recovers, or 00:00 UTC"
        )
    if not limits.trading_enabled:
        found.append("TRADING DISABLED by the limits: only what reduces a position passes")
    return found


def rows(metrics: pb.RiskMetrics) -> list[tuple[str, ...]]:
    """Each limit with what is used of it."""
    limits, profit_e9 = metrics.limits, profit_e9_of(metrics)
    loss = None if profit_e9 is None else max(-profit_e9, 0)
    held = {symbol: quantity for symbol, quantity in sorted(metrics.positions.items()) if quantity}
    symbols = sorted(held.keys() | metrics.reserved.keys()) or ["any symbol"]
    found = [
        ("loss of the day", show.money(loss), show.money(limits.max_daily_loss_e9), "breaker trips beyond 120 %"),
        ("drawdown", show.money(metrics.drawdown_e9), show.money(limits.max_drawdown_e9), "from the day's highest"),
        ("exposure", show.money(metrics.exposure_e9), show.money(limits.max_exposure_e9), ""),
        ("open positions", str(len(held)), str(limits.max_open_positions), "symbols"),
    ]
    for symbol in symbols:
        reserved = metrics.reserved.get(symbol, 0)
        note = f"contracts, {reserved} more are approved" if reserved else "contracts"
        found.append((f"position {symbol}", str(held.get(symbol, 0)), str(limits.max_position), note))
    return [
        *found,
        ("one order", "-", str(limits.max_order_quantity), "contracts"),
        ("orders in 60 s", "-", str(limits.max_orders_per_minute), ""),
        ("price collar", "-", str(limits.price_collar_ticks), "ticks from the last price"),
        ("age of a price", "-", f"{limits.max_price_age.ToNanoseconds() / 1e9:g} s", ""),
    ]


def profit_text(metrics: pb.RiskMetrics) -> str:
    """The profit of the day, and the version of the limits."""
    total, open_e9 = profit_e9_of(metrics), show.optional(metrics, "unrealized_e9")
    parts = f"realized {show.money(metrics.realized_today_e9)}, open {show.money(open_e9)}"
    return f"profit of the day {show.money(total)} ({parts}); limits version {metrics.limits_version}"


def profit_e9_of(metrics: pb.RiskMetrics) -> int | None:
    """Profit of the day, 1e-9 units; None while a price of what is held is missing."""
    open_e9: int | None = show.optional(metrics, "unrealized_e9")
    return None if open_e9 is None else metrics.realized_today_e9 + open_e9


def refusals_text(metrics: pb.RiskMetrics) -> str:
    """How often each check refused an order, in brackets; empty when none did."""
    told = ", ".join(f"{name} {count}" for name, count in sorted(metrics.refusals_by_check.items()))
    return f" ({told})" if told else ""


def tripped(breaker: pb.Breaker) -> str:
    """Since when a breaker is tripped, by whom and why."""
    since = f"{show.when(breaker.trip_time):%Y-%m-%d %H:%M:%S} UTC"
    return f"tripped since {since} by {breaker.tripped_by}: {breaker.reason.rstrip('.')}"


def print_stops(found: list[str]) -> None:
    """One line for each thing that stops orders."""
    for text in found:
        show.out.print(text, style="bold red", markup=False)
