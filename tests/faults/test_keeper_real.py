from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from tests.waiting import alive, until

from minhos_api.registry.v1 import registry_service_pb2, registry_service_pb2_grpc
from minhos_api.registry.v1 import supervisor_service_pb2 as pb
from minhos_api.registry.v1 import supervisor_service_pb2_grpc as rpc
from minhos_mesh.runtime import config
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.keeper_client import KeeperClient, KeeperError, KeeperUnavailable, PendingKeeper, start_keeper
from minhos_mesh.runtime.keeper_protocol import KeeperPaths
from minhos_mesh.runtime.paths import MeshPaths

DEADLINE_S = 30.0

pytestmark = pytest.mark.timeout(180)


class Mesh:
    """A whole mesh of real services in one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.paths = MeshPaths(data_dir)
        self.paths.create()
        config.save(config.load(None, environment={}).resolved(datetime.now(UTC)), self.paths.config_file)
        self.client = KeeperClient(data_dir)
        self.seen: set[int] = set()

    def start_keeper(self) -> int:
        pid = start_keeper(self.paths.data_dir).pid
        self.seen.add(pid)
        return pid

    def channel(self) -> grpc.Channel:
        until(self.paths.mesh_file.exists, "the registry has an address")
        return grpc.insecure_channel(json.loads(self.paths.mesh_file.read_text())["address"])

    def start_all(self) -> dict[str, float]:
        """Starts everything; returns when each service was ready, seconds from the call."""
        with self.channel() as channel:
            calls = rpc.SupervisorServiceStub(channel).StartAll(
                pb.StartAllRequest(), timeout=2 * DEADLINE_S, wait_for_ready=True
            )
            steps = [answer.progress for answer in calls]
        self.pids()
        ready = [step for step in steps if step.phase == pb.SupervisionProgress.PHASE_READY]
        return {step.service: step.elapsed.ToTimedelta().total_seconds() for step in ready}

    def pids(self) -> dict[str, int]:
        found = {info.service: info.pid for info in self.client.list().processes}
        self.seen |= set(found.values())
        return found

    def instances(self) -> dict[str, str]:
        """The ready instance of each service, as the registry tells."""
        with self.channel() as channel:
            stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
            answer = stub.ListServices(
                registry_service_pb2.ListServicesRequest(), timeout=DEADLINE_S, wait_for_ready=True
            )
        return {service.name: instance.address for service in answer.services for instance in service.instances}

    def end(self) -> None:
        with contextlib.suppress(KeeperError):
            self.pids()
            self.client.shutdown(deadline_s=5)
        for pid in self.seen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path / "data")
    yield made
    made.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh that runs, for tests that leave all its services running."""
    made = Mesh(tmp_path_factory.mktemp("running") / "data")
    try:
        made.start_keeper()
        made.start_all()
        yield made
    finally:
        made.end()


def test_the_preload_leaves_no_thread_and_no_descriptor() -> None:
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "def count(what): return len(list(Path('/proc/self', what).iterdir()))\n"
        "from minhos_mesh.node.command import load_common\n"
        "from minhos_mesh.node.preload import preload\n"
        "from minhos_mesh.runtime import catalogue\n"
        "before = count('fd')\n"
        "load_common()\n"
        "for service in catalogue.service_names(): preload(catalogue.bootstrap_module(service))\n"
        "print(count('task'), count('fd') - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout == "1 0\n"


@pytest.mark.parametrize("held", [False, True])
def test_a_start_that_is_given_up_leaves_no_keeper(mesh: Mesh, held: bool) -> None:
    pending = PendingKeeper(mesh.paths.data_dir, held=held)
    pending.cancel()
    with pytest.raises(KeeperUnavailable):
        mesh.client.list()
    mesh.seen.add(mesh.start_keeper())


def test_all_services_run_and_end_without_a_trace(mesh: Mesh) -> None:
    keeper = mesh.start_keeper()
    ready = mesh.start_all()
    assert set(ready) | {"registry"} == set(service_names())
    pids = mesh.pids()
    assert set(pids) == set(service_names())
    assert all(os.getsid(pid) == pid for pid in pids.values())
    for service in service_names():
        assert KeeperPaths(mesh.paths.data_dir).service_stderr_log(service).read_text() == ""
    mesh.client.shutdown()
    assert not [pid for pid in (*pids.values(), keeper) if alive(pid)]
    with pytest.raises(KeeperUnavailable):
        mesh.client.list()


def test_services_outlive_the_keeper_and_the_registry_and_are_taken_back(mesh: Mesh) -> None:
    keeper = mesh.start_keeper()
    mesh.start_all()
    before, places = mesh.pids(), mesh.instances()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not alive(keeper), "the keeper is gone")
    assert all(alive(pid) for pid in before.values())
    os.kill(before["registry"], signal.SIGKILL)
    assert mesh.start_keeper() != keeper
    until(lambda: mesh.pids().get("registry", before["registry"]) != before["registry"], "a new registry runs")
    until(lambda: {**mesh.instances(), "registry": ""} == {**places, "registry": ""}, "all are back in the list")
    others = {name: pid for name, pid in before.items() if name != "registry"}
    assert {name: pid for name, pid in mesh.pids().items() if name != "registry"} == others


@pytest.mark.parametrize("service", [name for name in service_names() if name != "registry"])
def test_a_killed_service_is_back_and_no_other_was_touched(running: Mesh, service: str) -> None:
    mesh, before = running, running.pids()
    os.kill(before[service], signal.SIGKILL)
    until(lambda: mesh.pids().get(service, before[service]) != before[service], f"a new {service} runs")
    after = mesh.pids()
    assert {name: pid for name, pid in after.items() if name != service} == {
        name: pid for name, pid in before.items() if name != service
    }
    mesh.start_all()
    assert mesh.pids() == after
