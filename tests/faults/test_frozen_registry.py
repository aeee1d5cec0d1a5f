"""A registry that lives and does not react, and a keeper that is gone: what is replaced by itself, and what commands say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests import waiting
from tests.e2e.running_mesh import SERVICES, Mesh, environment, started
from tests.waiting import alive, until

from minhos_mesh.runtime.keeper_client import keeper_state

FIRST_CALL = Path(__file__).with_name("first_call_child.py")
COMMAND_ENDS_S = 25
"""A command that waits for nobody has ended by then on any machine; one that waits for the registry would not have."""
SETTINGS = {"MINHOS_REGISTRY__LIVENESS_DEADLINE_S": "4", "MINHOS_REGISTRY__STOP_DEADLINE_S": "1"}

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with started(tmp_path_factory.mktemp("frozen") / "data", settings=SETTINGS) as made:
        yield made


def keeper_pid(mesh: Mesh) -> int:
    state = keeper_state(mesh.data_dir)
    assert state is not None
    return state.pid


def registry_pid(mesh: Mesh) -> int | None:
    state = keeper_state(mesh.data_dir)
    return next((info.pid for info in state.processes if info.root), None) if state is not None else None


def freeze(mesh: Mesh) -> int:
    until(mesh.healthy, "all HEALTHY")
    pid = mesh.pids()["registry"]
    waiting.freeze(pid)
    return pid


def silent_killed(mesh: Mesh) -> list[int]:
    return [entry["pid"] for entry in mesh.log_entries("keeper") if entry["event"] == "silent_killed"]


def test_a_frozen_registry_is_replaced_by_the_keeper_and_nothing_else_is_touched(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY")
    before = mesh.pids()
    frozen = freeze(mesh)
    until(lambda: registry_pid(mesh) not in (None, frozen), "another registry runs")
    until(mesh.healthy, "all HEALTHY")
    assert not alive(frozen)
    after = mesh.pids()
    assert {name for name in SERVICES if after[name] != before[name]} == {"registry"}
    assert silent_killed(mesh) == [frozen]


def test_the_restart_of_a_frozen_registry_kills_it(mesh: Mesh) -> None:
    frozen = freeze(mesh)
    said = mesh.ok("restart", "registry")
    # On a busy machine the keeper may have noticed the silence before the command had waited for its second.
    assert f"process {frozen} did not end within 1 s and was killed" in said or frozen in silent_killed(mesh)
    assert "ready" in said.splitlines()[-1]
    assert not alive(frozen)


def test_a_first_call_to_a_service_succeeds_while_the_registry_is_frozen(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY")
    client = subprocess.Popen(
        [sys.executable, str(FIRST_CALL), mesh.registry],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "connected\n"
        frozen = freeze(mesh)
        print("call", file=client.stdin, flush=True)
        assert client.stdout.readline() == "answered\n"
        assert registry_pid(mesh) == frozen
        until(lambda: registry_pid(mesh) not in (None, frozen), "another registry runs")
        client.stdin.close()
        assert client.wait(timeout=20) == 0
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def assert_asked_directly(mesh: Mesh, engine: str, command: str, answer: str) -> None:
    """A command that makes nothing riskier reaches the engine, and says how."""
    began = time.monotonic()
    done = mesh.run(command)
    assert done.code == 0, done.said
    assert answer in done.out
    assert f"trading_engine is asked at its last known address, {engine}" in done.err
    assert time.monotonic() - began < COMMAND_ENDS_S


def test_without_keeper_and_registry_each_command_says_what_is_wrong_and_what_to_do(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY")
    keeper = keeper_pid(mesh)
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not alive(keeper), "the keeper is gone")
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda command: mesh.run(command, "ai_brain"), ("stop", "restart", "start")):
            done.refused("no keeper answers", "`minhos up`")
    engine = mesh.addresses()["trading_engine"]
    frozen = freeze(mesh)
    told = ("the registry does not answer; the services serve on, and `minhos up` brings it back",)
    with ThreadPoolExecutor() as pool:
        status, resumed = pool.submit(mesh.run, "status"), pool.submit(mesh.run, "resume")
        placed = pool.submit(mesh.run, "order", "place", "buy", "1")
        canceled = pool.submit(mesh.run, "order", "cancel", "no-such-order")
        halted = pool.submit(assert_asked_directly, mesh, engine, "halt", "state HALTED")
        listed = pool.submit(assert_asked_directly, mesh, engine, "orders", "ORDER")
        status.result().refused(*told)
        placed.result().refused("the order was not sent: ", *told)
        canceled.result().refused("last known address", "no-such-order")
        resumed.result().refused("the registry does not answer")
        halted.result()
        listed.result()
    os.kill(frozen, signal.SIGKILL)
    until(lambda: not alive(frozen), "the registry is gone")
    assert_asked_directly(mesh, engine, "emergency-stop", "EMERGENCY STOP by")
    mesh.up()
    until(lambda: registry_pid(mesh) not in (None, frozen), "another registry runs")
    until(mesh.healthy, "all HEALTHY")


def test_a_program_that_cannot_run_is_named_and_the_mesh_stays_up(tmp_path: Path) -> None:
    (tmp_path / "minhos.toml").write_text(
        '[services.bad]\ncommand = ["/nope"]\nbackoff_first_s = 0.05\nbackoff_max_s = 0.1\ncrash_loop_after = 2\n',
        encoding="utf-8",
    )
    own = Mesh(tmp_path / "data")
    try:
        done = own.run("up", "--detach", "--config", str(tmp_path / "minhos.toml"))
        assert done.code == 3, done.said
        assert "bad is UNHEALTHY" in done.err
        assert "cannot execute /nope" in done.err
        assert "stays up" in done.err.splitlines()[-2] + done.err.splitlines()[-1]
        until(lambda: set(own.pids()) >= SERVICES, "the others run")
    finally:
        own.end()
