"""How limits, their use and what stops orders are told, and what a reset says, against a risk manager over loopback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from minhos_api.health.v1.service_health_pb2 import (
    SERVICE_STATE_DEGRADED,
    SERVICE_STATE_UNHEALTHY,
    HealthReason,
    ServiceHealth,
)
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_limits_pb2 import RiskLimits
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceServicer
from minhos_mesh.cli import risk_view, risk_work, start
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.main import app
from minhos_mesh.cli.mesh import Link
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

E9 = 1_000_000_000
CONTRACT = "minhos_api.risk.v1.RiskManagerService"
TRIPPED = pb.Breaker(
    tripped=True, reason="strange fills", tripped_by="ann", trip_time=Timestamp(seconds=1_790_000_000)
)  # 2026-09-21 14:13:20 UTC


def metrics(**more: Any) -> pb.RiskMetrics:
    limits = RiskLimits(
        max_order_quantity=5,
        max_position=5,
        max_open_positions=3,
        max_exposure_e9=5_000_000 * E9,
        max_daily_loss_e9=1_000 * E9,
        max_drawdown_e9=2_000 * E9,
        price_collar_ticks=1_000,
        max_price_age=Duration(seconds=15),
        max_orders_per_minute=10,
        trading_enabled=True,
    )
    return pb.RiskMetrics(limits=limits, limits_version=1, **{"unrealized_e9": 0, **more})


class NotTripped(Exception):
    """Expected: nothing to reset."""


class Risk(RiskManagerServiceServicer):
    """A risk manager that only shows metrics, and resets its breaker."""

    def __init__(self) -> None:
        self.metrics = metrics()
        self.asked: list[pb.ResetBreakerRequest] = []
        self.reset_elsewhere = False

    async def unasked(self, request: Any, context: Any) -> Any:
        """What no command of risk calls."""
        raise AssertionError(f"not expected: {request}")

    CheckTrade = SetRiskLimits = GetRiskLimits = CalculatePositionSize = TripBreaker = unasked

    async def WatchRisk(self, request: pb.WatchRiskRequest, context: Any) -> AsyncIterator[pb.WatchRiskResponse]:
        yield await self.unasked(request, context)

    async def GetRiskMetrics(self, request: pb.GetRiskMetricsRequest, context: Any) -> pb.GetRiskMetricsResponse:
        return pb.GetRiskMetricsResponse(metrics=self.metrics)

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Any) -> pb.ResetBreakerResponse:
        if self.reset_elsewhere:
            raise NotTripped("the breaker is not tripped")
        self.asked.append(request)
        self.metrics.breaker.Clear()
        return pb.ResetBreakerResponse(breaker=self.metrics.breaker)


ERRORS: ErrorTable = {
    NotTripped: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT),
}


@pytest.fixture
async def risk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Risk]:
    made = Risk()
    async with MeshServer([made], errors=ERRORS) as server:

        @contextlib.asynccontextmanager
        async def connected(paths: MeshPaths, *_: str, **__: str) -> AsyncIterator[Link]:
            clients = Clients({CONTRACT: server.address})
            yield Link(paths, "", clients, frozenset({CONTRACT}))
            await clients.close()

        monkeypatch.setattr(risk_work, "connected", connected)
        yield made


def test_nothing_stops_orders_while_limits_leave_room() -> None:
    full = metrics(realized_today_e9=-1_000 * E9, drawdown_e9=2_000 * E9)
    assert risk_view.stops(full) == []
    assert ("loss of the day", "1000.00", "1000.00", "breaker trips beyond 120 %") in risk_view.rows(full)


def test_each_thing_that_stops_orders_is_told_in_a_sentence() -> None:
    seen = metrics(realized_today_e9=-900 * E9, unrealized_e9=-101 * E9, drawdown_e9=2_001 * E9, breaker=TRIPPED)
    seen.limits.trading_enabled = False
    breaker, loss, drawdown, disabled = risk_view.stops(seen)
    assert breaker == (
        "BREAKER tripped since 2026-09-21 14:13:20 UTC by ann: strange fills:"
        " only what reduces a position passes until `minhos risk reset --reason WHY`"
    )
    assert loss.startswith("DAILY LOSS 1001.00 of 1000.00: only what reduces")
    assert drawdown.startswith("DRAWDOWN 2001.00 of 2000.00: only what reduces")
    assert disabled.startswith("TRADING DISABLED")


def test_profit_is_a_dash_while_a_price_is_missing() -> None:
    seen = metrics(realized_today_e9=-2_000 * E9)
    seen.ClearField("unrealized_e9")
    assert risk_view.profit_text(seen).startswith("profit of the day - (realized -2000.00, open -)")
    assert not any(stop.startswith("DAILY LOSS") for stop in risk_view.stops(seen))


def test_position_counts_what_is_held_and_approved() -> None:
    rows = risk_view.rows(metrics(positions={"NQZ26-CME": -2, "ESZ26-CME": 0}, reserved={"NQZ26-CME": 1}))
    assert ("position NQZ26-CME", "-2", "5", "contracts, 1 more are approved") in rows
    assert ("open positions", "1", "3", "symbols") in rows


async def test_risk_shows_limits_and_stops(risk: Risk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await risk_work.show_risk(MeshPaths(tmp_path), as_json=False)
    said = capsys.readouterr().out
    assert "loss of the day" in said
    assert "the breaker is not tripped, and the limits of the account leave room" in said
    risk.metrics.breaker.CopyFrom(TRIPPED)
    await risk_work.show_risk(MeshPaths(tmp_path), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["breaker"]["reason"], told["limits"]["max_daily_loss_e9"]) == ("strange fills", str(1_000 * E9))
    assert [stop.partition(" ")[0] for stop in told["stops"]] == ["BREAKER"]


async def test_reset_says_what_was_reset(risk: Risk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    risk.metrics.breaker.CopyFrom(TRIPPED)
    await risk_work.reset(MeshPaths(tmp_path), "understood", as_json=False)
    (asked,) = risk.asked
    assert (asked.reason, asked.request_id[:4], bool(asked.actor)) == ("understood", "cli-", True)
    said = capsys.readouterr().out
    assert "the breaker is reset; it was tripped since 2026-09-21 14:13:20 UTC by ann: strange fills" in said
    assert "trips again" not in said


async def test_reset_warns_that_it_trips_again_while_the_loss_is_beyond(
    risk: Risk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    risk.metrics = metrics(breaker=TRIPPED, realized_today_e9=-1_201 * E9)
    await risk_work.reset(MeshPaths(tmp_path), "understood", as_json=False)
    said = capsys.readouterr().out
    assert "DAILY LOSS 1201.00 of 1000.00" in said
    assert "the breaker trips again" in said


async def test_reset_of_what_is_not_tripped_says_so_and_what_stops_orders_instead(risk: Risk, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^nothing to reset: the breaker is not tripped$"):
        await risk_work.reset(MeshPaths(tmp_path), "understood", as_json=False)
    risk.metrics = metrics(drawdown_e9=2_001 * E9)
    with pytest.raises(CommandFailed, match="not tripped; what stops orders is: DRAWDOWN"):
        await risk_work.reset(MeshPaths(tmp_path), "understood", as_json=False)
    assert risk.asked == []


async def test_reset_that_somebody_else_was_faster_with_is_told_the_same(risk: Risk, tmp_path: Path) -> None:
    risk.metrics.breaker.CopyFrom(TRIPPED)
    risk.reset_elsewhere = True
    with pytest.raises(CommandFailed, match="nothing to reset"):
        await risk_work.reset(MeshPaths(tmp_path), "understood", as_json=False)


def test_reset_without_a_reason_is_told_before_the_mesh_is_asked(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["risk", "reset", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.output.startswith("minhos: --reason is missing")) == (1, True)


async def test_what_stops_orders_is_not_asked_of_a_risk_manager_that_is_not_there(tmp_path: Path) -> None:
    clients = Clients({CONTRACT: "127.0.0.1:1"})
    assert await risk_view.stops_now(Link(MeshPaths(tmp_path), "", clients)) == []
    await clients.close()


def test_start_does_not_wait_for_what_only_a_person_ends() -> None:
    breaker, bus = HealthReason(code="BREAKER_TRIPPED"), HealthReason(code="EVENT_BUS_AWAY")
    assert start.only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED, reasons=[breaker]))
    assert not start.only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED, reasons=[breaker, bus]))
    assert not start.only_latched(ServiceHealth(state=SERVICE_STATE_UNHEALTHY, reasons=[breaker]))
    assert not start.only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED))
