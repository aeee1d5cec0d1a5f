"""How limits are typed, changed one by one, and told, against a risk manager over loopback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from typer.testing import CliRunner

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_limits_pb2 import RiskLimits
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceServicer
from minhos_mesh.cli import risk_limits
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.main import app
from minhos_mesh.cli.mesh import Link
from minhos_mesh.cli.risk_limits import Wanted
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

E9 = 1_000_000_000
CONTRACT = "minhos_api.risk.v1.RiskManagerService"


class Mismatch(Exception):
    """Expected: the version is another one by now."""


class Risk(RiskManagerServiceServicer):
    """A risk manager that only has limits."""

    def __init__(self) -> None:
        self.limits = RiskLimits(
            max_order_quantity=5, max_position=5, max_open_positions=3, max_exposure_e9=5_000_000 * E9,
            max_daily_loss_e9=5_000 * E9, max_drawdown_e9=10_000 * E9, price_collar_ticks=400,
            max_price_age=Duration(seconds=10), max_orders_per_minute=60, trading_enabled=True,
        )  # fmt: skip
        self.version = 4
        self.asked: list[pb.SetRiskLimitsRequest] = []
        self.changed_elsewhere = False

    async def unasked(self, request: Any, context: Any) -> Any:
        """What no command of limits calls."""
        raise AssertionError(f"not expected: {request}")

    CheckTrade = GetRiskMetrics = CalculatePositionSize = TripBreaker = ResetBreaker = unasked

    async def WatchRisk(self, request: pb.WatchRiskRequest, context: Any) -> AsyncIterator[pb.WatchRiskResponse]:
        yield await self.unasked(request, context)

    async def GetRiskLimits(self, request: pb.GetRiskLimitsRequest, context: Any) -> pb.GetRiskLimitsResponse:
        return pb.GetRiskLimitsResponse(limits=self.limits, version=self.version)

    async def SetRiskLimits(self, request: pb.SetRiskLimitsRequest, context: Any) -> pb.SetRiskLimitsResponse:
        if self.changed_elsewhere or request.expected_version != self.version:
            raise Mismatch("the version is another one")
        self.asked.append(request)
        self.limits, self.version = request.limits, self.version + 1
        return pb.SetRiskLimitsResponse(limits=self.limits, version=self.version)


ERRORS: ErrorTable = {Mismatch: ErrorRow(grpc.StatusCode.ABORTED, reasons.ERROR_REASON_VERSION_MISMATCH)}


@pytest.fixture
async def risk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Risk]:
    made = Risk()
    async with MeshServer([made], errors=ERRORS) as server:

        @contextlib.asynccontextmanager
        async def connected(paths: MeshPaths, *_: str, **__: str) -> AsyncIterator[Link]:
            clients = Clients({CONTRACT: server.address})
            yield Link(paths, "", clients, frozenset({CONTRACT}))
            await clients.close()

        monkeypatch.setattr(risk_limits, "connected", connected)
        yield made


async def test_only_what_is_named_changes_and_what_it_was_is_told(
    risk: Risk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = RiskLimits()
    before.CopyFrom(risk.limits)
    wanted = Wanted(max_daily_loss="7500.50", max_position=3, max_price_age=12.5, trading_enabled=False)
    await risk_limits.change(MeshPaths(tmp_path), wanted, "a calm day", as_json=False)
    (asked,) = risk.asked
    before.max_daily_loss_e9, before.max_position, before.trading_enabled = 7_500_500_000_000, 3, False
    before.max_price_age.FromMilliseconds(12_500)
    assert asked.limits == before
    assert (asked.expected_version, asked.reason, bool(asked.actor)) == (4, "a calm day", True)
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["max_daily_loss", "7500.50", "was", "5000.00"] in said
    assert ["max_price_age", "12.5", "s", "was", "10", "s"] in said
    assert ["trading_enabled", "false", "was", "true"] in said
    assert ["max_open_positions", "3"] in said


async def test_without_an_option_limits_are_shown_and_nothing_is_changed(
    risk: Risk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await risk_limits.change(MeshPaths(tmp_path), Wanted(), "", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["limits"]["max_daily_loss_e9"], risk.asked) == (4, str(5_000 * E9), [])


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted(max_daily_loss="12x"), "--max-daily-loss: is not a decimal number"),
        (Wanted(max_exposure="0"), "--max-exposure is 0.00: allowed is above 0, at most 1000000000.00"),
        (Wanted(max_drawdown="-5"), "--max-drawdown is -5.00: allowed"),
        (Wanted(max_price_age=0.0), "--max-price-age is 0: allowed is a number of seconds above 0"),
        (Wanted(max_price_age=float("nan")), "--max-price-age is nan: allowed"),
        (Wanted(max_open_positions=10**12), "--max-open-positions is 1000000000000: that is more"),
    ],
)
async def test_a_limit_that_cannot_be_is_told_by_its_option_and_nothing_is_asked(
    risk: Risk, tmp_path: Path, wanted: Wanted, told: str
) -> None:
    with pytest.raises(CommandFailed) as caught:
        await risk_limits.change(MeshPaths(tmp_path), wanted, "a test", as_json=False)
    assert str(caught.value).startswith(told)
    assert risk.asked == []


async def test_limits_that_somebody_else_changed_meanwhile_are_left_alone(risk: Risk, tmp_path: Path) -> None:
    risk.changed_elsewhere = True
    with pytest.raises(CommandFailed, match="somebody else changed the limits at the same moment"):
        await risk_limits.change(MeshPaths(tmp_path), Wanted(max_position=1), "a test", as_json=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-position", "3"], "minhos: --reason is missing"),
        (["--reason", "why not"], "minhos: --reason 'why not' is given and no limit is"),
    ],
)
def test_reason_and_limits_go_together(tmp_path: Path, options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["risk", "limits", *options, "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.output.startswith(told)) == (1, True), result.output
