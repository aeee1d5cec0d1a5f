"""A service that lives and does not react: it is killed before another opens its store, by itself and on a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime

import pytest
from tests import waiting
from tests.e2e.running_mesh import Mesh, started
from tests.waiting import alive, until

SETTINGS = {"MINHOS_REGISTRY__LIVENESS_DEADLINE_S": "2", "MINHOS_REGISTRY__STOP_DEADLINE_S": "1.5"}

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with started(tmp_path_factory.mktemp("frozen") / "data", settings=SETTINGS) as made:
        yield made


def freeze(mesh: Mesh, service: str) -> int:
    until(mesh.healthy, "all HEALTHY")
    pid = mesh.pids()[service]
    waiting.freeze(pid)
    return pid


def killed_at(mesh: Mesh, pid: int) -> datetime:
    """When the keeper was about to kill a process, which stood still and never did anything again."""
    return next(
        datetime.fromisoformat(entry["timestamp"])
        for entry in mesh.log_entries("keeper")
        if entry["event"] == "signalling" and (entry["pid"], entry["signal"]) == (pid, signal.SIGKILL)
    )


def granted_at(mesh: Mesh, service: str) -> datetime:
    """When the newest process of a service got its lease, before which it opens nothing."""
    times = [entry["timestamp"] for entry in mesh.log_entries(service) if entry["event"] == "attach.granted"]
    return datetime.fromisoformat(times[-1])


def test_a_frozen_owner_is_killed_before_its_successor_owns_anything(mesh: Mesh) -> None:
    frozen = freeze(mesh, "risk_manager")
    until(lambda: mesh.pids().get("risk_manager", frozen) != frozen and mesh.healthy(), "another one serves")
    assert not alive(frozen)
    assert killed_at(mesh, frozen) < granted_at(mesh, "risk_manager")


def test_the_restart_of_a_frozen_owner_kills_it_and_hands_over(mesh: Mesh) -> None:
    frozen = freeze(mesh, "state_manager")
    said = mesh.ok("restart", "state_manager")
    assert f"process {frozen} was killed" in said
    assert "ready" in said.splitlines()[-1]
    assert not alive(frozen)
    assert killed_at(mesh, frozen) < granted_at(mesh, "state_manager")
    until(mesh.healthy, "all HEALTHY")
