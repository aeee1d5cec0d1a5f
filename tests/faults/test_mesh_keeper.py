"""`kill -9` of the keeper: its services serve on, and the next `minhos up` takes them back."""

from __future__ import annotations

import os
import signal

import pytest
from tests.e2e.running_mesh import SERVICES, Mesh, processes_of
from tests.waiting import alive, until

from minhos_mesh.runtime.keeper_client import keeper_state

pytestmark = pytest.mark.timeout(90)


def keeper_pid(mesh: Mesh) -> int:
    state = keeper_state(mesh.data_dir)
    assert state is not None
    return state.pid


def kill_keeper(mesh: Mesh) -> None:
    pid = keeper_pid(mesh)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "the keeper is gone")


@pytest.fixture
def running(mesh: Mesh) -> Mesh:
    """The mesh of this module, HEALTHY under a keeper."""
    if keeper_state(mesh.data_dir) is None:
        mesh.up()
    until(mesh.healthy, "all HEALTHY")
    return mesh


def test_services_serve_on_without_a_keeper_and_up_adopts_them_without_a_double(running: Mesh) -> None:
    before, keeper = running.pids(), keeper_pid(running)
    kill_keeper(running)
    assert {service: alive(pid) for service, pid in before.items()} == dict.fromkeys(SERVICES, True)
    assert running.healthy()
    assert "HEALTHY" in running.up()
    assert running.pids() == before
    assert keeper_pid(running) != keeper
    assert set(processes_of(running.data_dir)) == {*before.values(), keeper_pid(running)}
    assert {service.restarts for service in running.services().values()} == {0}


def test_a_new_keeper_restarts_what_it_adopted(running: Mesh) -> None:
    kill_keeper(running)
    running.up()
    before = running.pids()
    for service in ("registry", "risk_manager"):
        os.kill(before[service], signal.SIGKILL)
    until(lambda: running.healthy() and running.pids()["registry"] != before["registry"], "the registry is back", 20)
    until(lambda: running.pids()["risk_manager"] != before["risk_manager"] and running.healthy(), "and the service", 20)
    untouched = SERVICES - {"registry", "risk_manager"}
    after = running.pids()
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_a_service_that_died_while_there_was_no_keeper_is_started_by_up(running: Mesh) -> None:
    before = running.pids()
    kill_keeper(running)
    os.kill(before["ai_brain"], signal.SIGKILL)
    until(lambda: not alive(before["ai_brain"]), "the brain is gone")
    running.up()
    assert running.healthy()
    after = running.pids()
    assert after["ai_brain"] != before["ai_brain"]
    assert {name for name in SERVICES if after[name] != before[name]} == {"ai_brain"}


def test_status_without_a_keeper_shows_the_services_and_says_what_is_wrong(running: Mesh) -> None:
    kill_keeper(running)
    done = running.run("status")
    assert done.code == 0, done.said
    assert "the keeper is gone" in done.err
    assert "`minhos up`" in done.err
    assert {line.split()[0] for line in done.out.splitlines()[1:]} == SERVICES
    running.up()


def test_down_without_a_keeper_ends_the_services_in_order(running: Mesh) -> None:
    kill_keeper(running)
    said = running.down()
    assert "the mesh is down" in said
    assert said.index("trading_engine    stopped") < said.index("event_bus         stopped")
    running.assert_nothing_left()
