"""Programs of one's own beside the services: started, watched, several at once, replaced without a failed call, kept or not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.running_mesh import STATES, Mesh, environment, processes_of, state_of
from tests.faults.own_program import CONTRACT, METHOD
from tests.waiting import alive, until

from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_mesh.runtime.clients import bootstrap_text
from minhos_mesh.runtime.keeper_client import keeper_state

PROGRAM = Path(__file__).with_name("own_program.py")
ROUNDS = int(os.environ.get("MINHOS_TEST_ROUNDS", "3"))
CONFIG = f"""
[services.acme]
command = ["{sys.executable}", "{PROGRAM}", "serve"]
instances = 2
needs = ["state_manager"]

[services.watched]
command = ["{sys.executable}", "{PROGRAM}", "sleep"]
attaches = false
settle_s = 0.3
backoff_first_s = 0.2

[services.job]
command = ["{sys.executable}", "{PROGRAM}", "end", "0"]
attaches = false
settle_s = 5
restart = "on-failure"

[services.broken]
command = ["{sys.executable}", "{PROGRAM}", "end", "3"]
attaches = false
settle_s = 5
backoff_first_s = 0.05
backoff_max_s = 0.2
crash_loop_after = 3
"""

pytestmark = pytest.mark.timeout(120 + 10 * ROUNDS)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "minhos.toml").write_text(CONFIG.split("[services.broken]", maxsplit=1)[0], encoding="utf-8")
    made = Mesh(folder / "data")
    try:
        made.up("--config", str(folder / "minhos.toml"))
        yield made
    finally:
        made.end()


class Caller:
    """Calls the contract through xDS, in a process of its own environment, on some threads, without a pause."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.served: dict[str, int] = {}
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._call: Any = channel.unary_unary(METHOD)
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                name = self._call(b"", timeout=5, wait_for_ready=True).decode()
                self.served[name] = self.served.get(name, 0) + 1
            except grpc.RpcError as error:
                self.failed.append(str(error))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)


@pytest.fixture(scope="module")
def acme(mesh: Mesh) -> Iterator[grpc.Channel]:
    os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = bootstrap_text(mesh.registry, "test-of-programs")
    with grpc.insecure_channel(f"xds:///{CONTRACT}") as channel:
        yield channel
    del os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"]


@pytest.fixture
def caller(acme: grpc.Channel) -> Iterator[Caller]:
    made = Caller(acme)
    until(lambda: len(made.served) == 2, "both instances are called")
    yield made
    made.end()


def instances(mesh: Mesh, service: str) -> dict[str, registry_pb.Instance]:
    return {i.instance_id: i for i in mesh.services()[service].instances if i.in_rotation}


def pid_of(mesh: Mesh, service: str) -> int:
    found = keeper_state(mesh.data_dir)
    assert found is not None
    return next((info.pid for info in found.processes if info.service == service), 0)


def test_all_programs_run_or_have_done_their_job(mesh: Mesh) -> None:
    services = mesh.services()
    assert len(instances(mesh, "acme")) == 2
    assert state_of(services["watched"]) == "HEALTHY"
    assert alive(pid_of(mesh, "watched"))
    assert state_of(services["job"]) == "STOPPED"
    assert {state_of(service) for service in services.values()} <= STATES


def await_called(caller: Caller, names: set[str]) -> None:
    until(lambda: names <= set(caller.served), "the new ones are called")


def test_no_call_fails_while_a_service_of_several_instances_is_restarted(mesh: Mesh, caller: Caller) -> None:
    for _ in range(ROUNDS):
        before = set(instances(mesh, "acme"))
        said = mesh.ok("restart", "acme")
        assert "instance 2: serves" in said
        after = until(lambda: set(instances(mesh, "acme")), "the new ones serve")
        assert len(after) == 2
        assert not before & after
        await_called(caller, after)
    assert caller.failed == []


def test_an_instance_that_is_killed_is_started_again_and_no_call_fails(mesh: Mesh, caller: Caller) -> None:
    before = instances(mesh, "acme")
    victim = next(iter(before.values()))
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: victim.instance_id not in instances(mesh, "acme") and len(instances(mesh, "acme")) == 2, "two again")
    assert len(set(before) & set(instances(mesh, "acme"))) == 1
    assert caller.failed == []


def test_programs_survive_registry_and_keeper_and_are_not_started_twice(mesh: Mesh, caller: Caller) -> None:
    before = {info.instance_id: info.pid for info in keeper_state(mesh.data_dir).processes if not info.root}  # type: ignore[union-attr] # the keeper runs
    keeper = keeper_state(mesh.data_dir)
    assert keeper is not None
    os.kill(mesh.pids()["registry"], signal.SIGKILL)
    os.kill(keeper.pid, signal.SIGKILL)
    until(lambda: not alive(keeper.pid), "the keeper is gone")
    mesh.up("--config", str(mesh.data_dir.parent / "minhos.toml"))
    until(lambda: len(instances(mesh, "acme")) == 2, "both are listed again")
    after = keeper_state(mesh.data_dir)
    assert after is not None
    assert {info.instance_id: info.pid for info in after.processes if not info.root and info.service != "job"} == before
    assert caller.failed == []


def test_a_program_that_is_only_watched_is_started_again_and_can_be_stopped_and_started(mesh: Mesh) -> None:
    before = pid_of(mesh, "watched")
    os.kill(before, signal.SIGKILL)
    until(lambda: pid_of(mesh, "watched") not in (0, before), "it runs again")
    until(lambda: state_of(mesh.services()["watched"]) == "HEALTHY", "and counts as healthy")
    assert "stopped" in mesh.ok("stop", "watched").splitlines()[-1]
    assert pid_of(mesh, "watched") == 0
    assert state_of(mesh.services()["watched"]) == "STOPPED"
    assert "ready" in mesh.ok("start", "watched").splitlines()[-1]
    assert alive(pid_of(mesh, "watched"))


def test_what_fails_again_and_again_is_a_crash_loop_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "minhos.toml").write_text("[services.broken]" + CONFIG.split("[services.broken]")[1], encoding="utf-8")
    mesh = Mesh(tmp_path / "data")
    try:
        done = mesh.run("up", "--detach", "--config", str(tmp_path / "minhos.toml"))
        done.refused("broken", "ended with code 3", "after 3 failures in a row", "nothing to do")
    finally:
        mesh.end()
    assert processes_of(mesh.data_dir) == {}


def test_the_environment_of_a_program_is_the_mesh_s_and_its_own(mesh: Mesh) -> None:
    victim = next(iter(instances(mesh, "acme").values()))
    content = Path(f"/proc/{victim.pid}/environ").read_bytes().decode().split("\0")
    found = dict(line.split("=", 1) for line in content if "=" in line)
    assert found["MINHOS_REGISTRY"] == mesh.registry
    assert found["MINHOS_INSTANCE_ID"] == victim.instance_id
    assert found.get("HOME") == environment().get("HOME")
    assert "GRPC_ENABLE_FORK_SUPPORT" not in found
