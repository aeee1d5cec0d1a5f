"""What can never be LIVE, and a port that another program has, are told by `minhos up` before anything is started."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from minhos_api.health.v1 import health_monitor_service_pb2 as health
from minhos_api.health.v1 import service_health_pb2 as state
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceServicer
from minhos_mesh.cli import launch, start
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.sierra_files.marker import Marker, write_marker

NQ = "NQZ26-CME"


def config(**sections: dict[str, Any]) -> MeshConfig:
    return load(None, environment={}, overrides=sections).resolved(datetime(2026, 11, 20, tzinfo=UTC))


def beside_sierra(folder: Path, provenance: str, **more: dict[str, Any]) -> MeshConfig:
    sierra: dict[str, Any] = {"folder": str(folder), "provenance": provenance}
    market: dict[str, Any] = {"symbols": [NQ]}
    sections: dict[str, dict[str, Any]] = {"feed": {"kind": "none"}, "market_data": market, "sierra_client": sierra}
    return config(**{**sections, **more})


@pytest.fixture
def paths(tmp_path: Path) -> MeshPaths:
    found = MeshPaths(tmp_path / "data")
    found.config_file.parent.mkdir(parents=True)
    return found


@pytest.mark.parametrize("provenance", ["LIVE", "DELAYED"])
def test_marked_folder_is_told_before_the_start_with_marker_and_way_out(
    tmp_path: Path, paths: MeshPaths, provenance: str
) -> None:
    write_marker(tmp_path / "files", Marker())
    chosen = beside_sierra(tmp_path / "files", provenance, dtc={"port": 11_099})
    with pytest.raises(CommandFailed) as caught:
        launch.settle(paths, chosen)
    for told in (f'is "{provenance}"', "files/SIMULATED-DATA.json", 'set provenance = "SIMULATED"'):
        assert told in str(caught.value)
    assert not paths.config_file.exists(), "nothing was begun"


def test_files_of_ones_own_simulator_are_never_live_not_even_before_its_marker_is_there(paths: MeshPaths) -> None:
    with pytest.raises(CommandFailed, match=r'those of the simulator \(feed.kind is "simulated"\)'):
        launch.settle(paths, config(sierra_client={"provenance": "LIVE"}))


def test_live_without_a_server_to_log_on_to_is_told(tmp_path: Path, paths: MeshPaths) -> None:
    with pytest.raises(CommandFailed, match=r"dtc.port is not set.*mostly dtc.port = 11099"):
        launch.settle(paths, beside_sierra(tmp_path, "LIVE"))


def test_the_simulators_own_server_makes_nothing_live(tmp_path: Path, paths: MeshPaths) -> None:
    feed = {"kind": "simulated", "dtc_port": 11_098}
    with pytest.raises(CommandFailed, match=r"dtc.port 11098 is feed.dtc_port"):
        launch.settle(paths, beside_sierra(tmp_path, "LIVE", feed=feed, dtc={"port": 11_098}))


def test_what_can_be_live_or_delayed_or_comes_from_elsewhere_is_let_through(tmp_path: Path, paths: MeshPaths) -> None:
    for chosen in (
        beside_sierra(tmp_path, "LIVE", dtc={"port": 11_099}),
        beside_sierra(tmp_path, "DELAYED"),
        beside_sierra(tmp_path, "LIVE", bridge={"address": "127.0.0.1:8765"}),
        config(),
    ):
        launch.settle(paths, chosen)
        assert paths.config_file.exists()


def test_port_of_the_simulators_server_that_is_taken_is_told_with_its_setting(paths: MeshPaths) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandFailed) as caught:
            launch.settle(paths, config(feed={"dtc_port": port}))
        for told in (f"feed.dtc_port is {port}", f"127.0.0.1:{port} is taken by another program", "set another"):
            assert told in str(caught.value)
        replayed = {"kind": "none", "dtc_port": port}
        launch.settle(paths, config(feed=replayed, market_data={"symbols": [NQ]}))
    launch.settle(paths, config(feed={"dtc_port": port}))
    launch.settle(paths, config(feed={"dtc_port": 0}))


class Monitor(HealthMonitorServiceServicer):
    """A health monitor of a mesh with one service, which has one condition."""

    def __init__(self, code: str) -> None:
        self._code = code

    async def GetMeshHealth(self, request: health.GetMeshHealthRequest, context: Any) -> health.GetMeshHealthResponse:
        reason = state.HealthReason(code=self._code, message="files are marked", action="Repair it.")
        item = state.ServiceHealth(service="sierra_client", state=state.SERVICE_STATE_DEGRADED, reasons=[reason])
        return health.GetMeshHealthResponse(services=[item])

    async def GetServiceHealth(self, request: health.GetServiceHealthRequest, context: Any) -> Any:
        raise AssertionError("nobody asks this")

    async def ListHealthChanges(self, request: health.ListHealthChangesRequest, context: Any) -> Any:
        raise AssertionError("nobody asks this")

    async def WatchHealth(
        self, request: health.WatchHealthRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health.WatchHealthResponse]:
        for revision in range(1, 1_000):
            yield health.WatchHealthResponse(revision=revision)


async def test_what_no_waiting_ends_is_told_at_once_and_not_when_the_time_is_over() -> None:
    async with MeshServer([Monitor("NO_TICKS")]) as server:
        with pytest.raises(start.NotAllHealthy, match=r"sierra_client is DEGRADED \(files are marked\)"):
            await start.all_healthy(server.address, 0.2)
    async with MeshServer([Monitor("PROVENANCE_REFUSED")]) as server:
        began = time.monotonic()
        with pytest.raises(
            start.NeverHealthy, match="sierra_client cannot become HEALTHY: files are marked\n  -> Repair"
        ):
            await start.all_healthy(server.address, 60.0)
        assert time.monotonic() - began < 30
        assert await start.all_healthy(server.address, 30.0, left_out=["sierra_client"]) < 30
