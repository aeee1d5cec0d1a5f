"""A tripped breaker is seen where people look, outlives the mesh without keeping it down, and is reset by a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.running_mesh import Mesh, started
from tests.waiting import until

from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_mesh.cli.status import NOT_WELL

pytestmark = pytest.mark.timeout(120)


def test_breaker_is_seen_over_a_restart_of_the_mesh_and_reset_by_a_person(tmp_path: Path) -> None:
    with started(tmp_path / "data") as mesh:
        mesh.run("risk", "reset", "--reason", "a test").refused("nothing to reset: the breaker is not tripped")
        assert "loss of the day" in mesh.ok("risk")
        request = pb.TripBreakerRequest(request_id="t-1", actor="ann", reason="strange fills")
        mesh.stub(RiskManagerServiceStub).TripBreaker(request)
        until(lambda: mesh.run("status").code == NOT_WELL, "the status tells the breaker")
        _assert_told(mesh)
        mesh.ok("down")
        said = mesh.run("up", "--detach")
        assert (said.code, "all services but risk_manager are HEALTHY" in said.out) == (0, True), said.said
        assert "by ann: strange fills" in said.err
        _assert_told(mesh)
        assert "was tripped since" in mesh.ok("risk", "reset", "--reason", "understood")
        until(mesh.healthy, "all HEALTHY")
        assert "BREAKER" not in mesh.ok("mode")


def _assert_told(mesh: Mesh) -> None:
    status = mesh.run("status").said
    assert "by ann: strange fills" in status
    assert "minhos risk reset --reason" in status
    for command in (("mode",), ("resume",), ("risk",)):
        assert "only what reduces a position passes" in mesh.ok(*command)
    assert mesh.json("risk")["breaker"]["tripped"] is True
