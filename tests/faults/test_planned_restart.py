"""`minhos restart SERVICE` under load: not one call fails, for any service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.running_mesh import SERVICES, Mesh, environment, state_of
from tests.faults.mesh_client import MeshClient
from tests.waiting import alive, until

from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.runtime.keeper_client import keeper_state

ROUNDS = int(os.environ.get("MINHOS_TEST_ROUNDS", "2"))
"""Restarts of each service; the published figures are of 20."""
CHILD = Path(__file__).with_name("restart_load_child.py")

pytestmark = pytest.mark.timeout(60 + 20 * ROUNDS)


class Load:
    """A process that calls one service all the time."""

    def __init__(self, mesh: Mesh, service: str, symbol: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), mesh.registry, service, symbol],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
        )  # fmt: skip

    def seen(self) -> dict[str, Any]:
        """What came of its calls since the last time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(timeout=20) == 0
        finally:
            self._process.kill()
            self._process.stdout.close()


@pytest.fixture(scope="module")
def symbol(mesh: Mesh) -> str:
    answer = mesh.stub(MarketDataProviderServiceStub).GetMarketData(market_pb.GetMarketDataRequest())
    return str(answer.symbol)


@pytest.fixture
def load(mesh: Mesh, symbol: str) -> Iterator[Callable[[str], Load]]:
    made: list[Load] = []

    def begin(service: str) -> Load:
        made.append(Load(mesh, service, symbol))
        until(lambda: made[-1].seen()["all_run"], "each call of the load ended well once")
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_call_fails_while_a_service_is_restarted_on_purpose(
    mesh: Mesh, load: Callable[[str], Load], service: str
) -> None:
    until(mesh.healthy, "all HEALTHY before the restart")
    running, others = load(service), {name: pid for name, pid in mesh.pids().items() if name != service}
    running.seen()
    failed: list[str] = []
    slowest, calls = 0.0, 0
    for _ in range(ROUNDS):
        before = mesh.pids()[service]
        said = mesh.ok("restart", service)
        assert "ready" in said.splitlines()[-1], said
        after = mesh.pids()[service]
        assert after != before
        assert not alive(before)
        until(mesh.healthy, "all HEALTHY again")
        seen = running.seen()
        failed += seen["failed"]
        slowest, calls = max(slowest, seen["slowest_ms"]), calls + seen["calls"]
    print(f"{service}: {ROUNDS} restarts, {calls} calls, {len(failed)} failed, slowest {slowest:.0f} ms")
    assert failed == []
    assert {name: pid for name, pid in mesh.pids().items() if name != service} == others
    assert mesh.services()[service].restarts == 0


def answers(mesh: Mesh) -> bool:
    try:
        return bool(mesh.services())
    except grpc.RpcError:
        return False


def kill_registry(mesh: Mesh) -> None:
    before = mesh.pids()["registry"]
    os.kill(before, signal.SIGKILL)
    until(lambda: mesh.healthy() and mesh.pids()["registry"] != before, "the registry is back and knows all")


def test_no_call_fails_while_the_registry_is_killed_and_comes_back(mesh: Mesh, load: Callable[[str], Load]) -> None:
    until(mesh.healthy, "all HEALTHY before the kill")
    loads = [load("event_bus"), load("trading_engine")]
    before = {name: pid for name, pid in mesh.pids().items() if name != "registry"}
    for _ in range(min(ROUNDS, 4)):  # the keeper waits longer after each
        kill_registry(mesh)
        assert {name: pid for name, pid in mesh.pids().items() if name != "registry"} == before
    assert [one.seen()["failed"] for one in loads] == [[], []]


def test_no_call_fails_while_registry_and_keeper_are_killed_and_up_takes_all_back(
    mesh: Mesh, load: Callable[[str], Load]
) -> None:
    until(mesh.healthy, "all HEALTHY before the kill")
    running, before, keeper = load("state_manager"), mesh.pids(), keeper_state(mesh.data_dir)
    assert keeper is not None
    for pid in (keeper.pid, before["registry"]):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(keeper.pid) and not alive(before["registry"]), "both are gone")
    mesh.up()
    after = mesh.pids()
    assert {name: after[name] for name in SERVICES - {"registry"}} == {
        name: before[name] for name in SERVICES - {"registry"}
    }
    assert running.seen()["failed"] == []
    again = keeper_state(mesh.data_dir)
    assert again is not None
    assert sorted(info.service for info in again.processes) == sorted(SERVICES), "nothing runs twice"


def test_a_registry_killed_in_the_middle_of_a_planned_restart_leaves_one_process(
    mesh: Mesh, load: Callable[[str], Load]
) -> None:
    until(mesh.healthy, "all HEALTHY before the restart")
    running, before = load("state_manager"), mesh.pids()
    with subprocess.Popen(
        mesh.command("restart", "state_manager"), env=environment(), cwd=mesh.home(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as restarting:  # fmt: skip
        assert restarting.stdout is not None
        restarting.stdout.readline()
        os.kill(before["registry"], signal.SIGKILL)
        restarting.communicate(timeout=60)
    until(lambda: mesh.healthy() and mesh.pids()["registry"] != before["registry"], "all are back")

    def processes() -> list[str]:
        state = keeper_state(mesh.data_dir)
        return [] if state is None else sorted(info.service for info in state.processes)

    until(lambda: processes() == sorted(SERVICES), "each runs once")
    until(mesh.healthy, "all HEALTHY")
    running.seen()
    until(lambda: running.seen()["calls"], "calls are answered")


def test_streams_are_resumed_over_planned_restarts_without_a_gap_or_a_failed_call(mesh: Mesh, symbol: str) -> None:
    until(mesh.healthy, "all HEALTHY before the restarts")
    client = MeshClient(mesh, symbol)
    try:
        until(lambda: client.beyond(dict.fromkeys(client.count(), 0)), "the client reads, trades and publishes")
        for service in ("market_data", "event_bus", "trading_engine"):
            mesh.ok("restart", service)
            done = client.count()
            until(lambda done=done: client.beyond(done), "ticks, orders and events go on")  # type: ignore[misc] # bound now
        client.finish()
    finally:
        client.close()
    assert client.told("failed") == []
    assert client.told("gap") == []
    ticks = client.told("ticks")
    assert len({batch["epoch"] for batch in ticks}) == 1
    assert [after["first"] - before["last"] for before, after in pairwise(ticks)] == [1] * (len(ticks) - 1)


def test_what_a_person_stopped_stays_stopped_until_a_person_starts_it(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY before the stop")
    assert mesh.ok("stop", "ai_brain").splitlines()[-1].endswith("stopped    stopped")
    registry = mesh.pids()["registry"]
    os.kill(registry, signal.SIGKILL)
    until(lambda: answers(mesh) and mesh.pids()["registry"] != registry, "the registry is back")
    assert state_of(mesh.services()["ai_brain"]) == "STOPPED"
    assert "ready" in mesh.ok("start", "ai_brain").splitlines()[-1]
    until(mesh.healthy, "all HEALTHY")


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
def test_a_service_that_there_is_not_is_told_with_those_that_there_are(mesh: Mesh, command: str) -> None:
    mesh.run(command, "risk_manger").refused("there is no service 'risk_manger'", "was risk_manager meant?", "known:")


def test_the_registry_alone_is_neither_started_nor_stopped(mesh: Mesh) -> None:
    mesh.run("stop", "registry").refused("registry is kept by the keeper", "stop the whole mesh")
