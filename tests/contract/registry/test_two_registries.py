"""Two registries in processes of their own over one etcd: each sees what attaches at the other, and one may be killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from tests.contract.registry.etcd_server import EtcdServer

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.paths import MeshPaths

SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
GET_STATUS = f"/{SIMULATOR}/GetStatus"
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
DEADLINE_S = 20.0
RUN = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"
HERE = Path(__file__).parent


class OneOfTwo:
    """A registry that can be killed and started again."""

    def __init__(self, folder: Path, endpoint: str, name: str) -> None:
        self.paths, self.name = MeshPaths(folder / name), name
        self.paths.create()
        settings = {"store": "etcd", "endpoints": [endpoint], "prefix": "test/two"}
        config = configuration.load(None, environment={}, overrides={"registry": settings})
        configuration.save(config.resolved(datetime.now(UTC)), self.paths.config_file)
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def spawn(self) -> None:
        command = [sys.executable, "-c", RUN, "registry", f"registry-{self.name}", str(self.paths.data_dir)]
        self.process = subprocess.Popen(command, env={**os.environ, "GRPC_VERBOSITY": "NONE"})

    async def up(self) -> None:
        self.spawn()
        await eventually(self._bound, f"{self.name} is bound")

    def _bound(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.paths.log_file("registry").read_text()[-2000:]
        try:
            said = json.loads(self.paths.mesh_file.read_text())
        except (OSError, ValueError):
            return False
        self.address = said["address"]
        return bool(said["pid"] == self.process.pid)

    def peers(self) -> list[str]:
        told = json.loads(self.paths.mesh_file.read_text())["peers"]
        return [str(peer) for peer in told]

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    async def instances(self) -> dict[str, pb.Instance]:
        """Those of the simulator, by id."""
        async with grpc.aio.insecure_channel(self.address, options=OWN_CONNECTION) as channel:
            stub = rpc.RegistryServiceStub(channel)
            found = await stub.Resolve(pb.ResolveRequest(name=SIMULATOR), timeout=5, wait_for_ready=True)
        return {instance.instance_id: instance for instance in found.instances}

    async def in_rotation(self) -> set[str]:
        return {name for name, instance in (await self.instances()).items() if instance.in_rotation}


async def eventually(condition: Any, what: str, deadline_s: float = DEADLINE_S) -> Any:
    end = asyncio.get_running_loop().time() + deadline_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture
def a_and_b(tmp_path: Path, etcd: EtcdServer) -> Iterator[tuple[OneOfTwo, OneOfTwo]]:
    both = OneOfTwo(tmp_path, etcd.endpoint, "a"), OneOfTwo(tmp_path, etcd.endpoint, "b")
    yield both
    for one in both:
        one.kill()


async def test_one_registry_is_killed_and_the_other_carries_on(a_and_b: Any, processes: Any) -> None:
    a, b = a_and_b
    await asyncio.gather(a.up(), b.up())
    await eventually(lambda: a.peers() == [b.address] and b.peers() == [a.address], "they know each other")
    for number in (1, 2, 3):
        processes.service(str(a.paths.data_dir), "sierra_simulator", f"sim-{number}", SIMULATOR)
    local = processes.service(str(b.paths.data_dir), "sierra_simulator", "sim-b", SIMULATOR)
    everybody = {"sim-1", "sim-2", "sim-3", "sim-b"}
    for one in (a, b):
        await eventually(lambda one=one: _equal(one.in_rotation(), everybody), f"all in rotation at {one.name}")
    before = await b.instances()
    assert len({instance.fencing_token for instance in before.values()}) == 4
    assert _told(before) == _told(await a.instances())

    client = processes.caller(b.address)
    await client.ask("until", path=GET_STATUS, wanted="sim-1", limit=5)
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=True)
    a.kill()

    async def moved() -> bool:
        now = await b.instances()
        return all(now[n].fencing_token > before[n].fencing_token for n in ("sim-1", "sim-2", "sim-3"))

    await eventually(moved, "the instances of a have come to b")
    assert await b.in_rotation() == everybody
    local.kill()
    await eventually(lambda: _equal(b.in_rotation(), everybody - {"sim-b"}), "b watches over what it has")
    report = await client.ask("stop")
    failed = {who: count for who, count in report["by"].items() if not who.startswith("sim-")}
    assert not failed, failed

    await a.up()
    await eventually(lambda: _equal(a.in_rotation(), everybody - {"sim-b"}), "a sees them again")
    after = await b.instances()
    assert {n: i.fencing_token for n, i in (await a.instances()).items() if i.in_rotation} == {
        n: i.fencing_token for n, i in after.items() if i.in_rotation
    }
    b.kill()
    await eventually(lambda: _all_newer(a, after), "they come home when b is gone")


async def test_a_registry_that_is_started_again_soon_keeps_its_instances(a_and_b: Any, processes: Any) -> None:
    a, b = a_and_b
    await asyncio.gather(a.up(), b.up())
    processes.service(str(a.paths.data_dir), "sierra_simulator", "sim-1", SIMULATOR)
    await eventually(lambda: _equal(b.in_rotation(), {"sim-1"}), "in rotation at b")
    (before,) = (await b.instances()).values()
    client = processes.caller(b.address)
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=False)
    a.kill()
    await a.up()

    async def attached_again() -> bool:
        (now,) = (await b.instances()).values()
        return bool(now.fencing_token > before.fencing_token and now.in_rotation)

    await eventually(attached_again, "attached at a again")
    report = await client.ask("stop")
    assert set(report["by"]) == {"sim-1"}, report["by"]


async def test_a_stock_client_takes_the_other_control_plane_for_what_it_does_not_know(
    a_and_b: Any, processes: Any
) -> None:
    a, b = a_and_b
    await asyncio.gather(a.up(), b.up())
    processes.service(str(b.paths.data_dir), "sierra_simulator", "sim-b", SIMULATOR)
    await eventually(lambda: _equal(a.in_rotation(), {"sim-b"}), "in rotation at a")
    client = processes.caller(a.address, b.address)
    a.kill()
    found = await client.ask("until", path=GET_STATUS, wanted="sim-b", limit=10)
    assert found["at"] is not None, found


async def test_an_offer_at_one_registry_is_judged_by_those_who_are_attached_at_the_other(a_and_b: Any) -> None:
    a, b = a_and_b
    await asyncio.gather(a.up(), b.up())
    async with (
        grpc.aio.insecure_channel(a.address, options=OWN_CONNECTION) as to_a,
        grpc.aio.insecure_channel(b.address, options=OWN_CONNECTION) as to_b,
    ):
        at_a: Any = rpc.RegistryServiceStub(to_a)
        at_b: Any = rpc.RegistryServiceStub(to_b)
        needs = [options.Dependency(contract=PARTS, kind=options.DEPENDENCY_KIND_REQUIRED)]
        dependent = at_a.Attach(wait_for_ready=True)
        hello = _hello("dependent", "bench.d.v1.DependentService", _built("Count", "Ask"), depends_on=needs)
        await dependent.write(pb.AttachRequest(hello=hello))
        assert (await dependent.read()).HasField("granted")
        tried = itertools.count(1)

        async def refused() -> str | None:
            await dependent.write(pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True)))
            offer = at_b.Attach(wait_for_ready=True)
            hello = _hello("parts", PARTS, _built("Count"), instance_id=f"parts-{next(tried)}")
            await offer.write(pb.AttachRequest(hello=hello))
            try:
                await offer.read()
            except grpc.aio.AioRpcError as error:
                return error.details()
            await offer.write(pb.AttachRequest(goodbye=pb.AttachGoodbye(reason="b has not heard of the dependent yet")))
            offer.cancel()
            return None

        told = await eventually(refused, "the offer is refused")
        assert told.endswith("it does not serve Ask; harmed: dependent/dependent-1"), told
        dependent.cancel()


async def test_an_etcd_that_is_away_lets_nobody_in_and_takes_nobody_out(
    a_and_b: Any, etcd: EtcdServer, processes: Any
) -> None:
    a, _b = a_and_b
    await a.up()
    processes.service(str(a.paths.data_dir), "sierra_simulator", "sim-1", SIMULATOR)
    await eventually(lambda: _equal(a.in_rotation(), {"sim-1"}), "in rotation")
    client = processes.caller(a.address)
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=False)
    etcd.stop()
    processes.service(str(a.paths.data_dir), "sierra_simulator", "sim-2", SIMULATOR)

    async def told() -> bool:
        async with grpc.aio.insecure_channel(a.address, options=OWN_CONNECTION) as channel:
            stub: Any = rpc.RegistryServiceStub(channel)
            listed = await stub.ListServices(pb.ListServicesRequest(), timeout=5)
        (own,) = [service for service in listed.services if service.name == "registry"]
        return any("etcd" in reason for reason in own.reasons)

    await eventually(told, "the registry says that its store is away")
    async with grpc.aio.insecure_channel(a.address, options=OWN_CONNECTION) as channel:
        stub: Any = rpc.RegistryServiceStub(channel)
        call = stub.Attach()
        hello = _hello("parts", PARTS, _built("Count"))
        await call.write(pb.AttachRequest(hello=hello))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    refused = errors.read(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "ERROR_REASON_DEPENDENCY_UNAVAILABLE")
    assert await a.in_rotation() == {"sim-1"}
    etcd.start()
    await eventually(lambda: _equal(a.in_rotation(), {"sim-1", "sim-2"}), "the one that waited is let in")
    report = await client.ask("stop")
    assert set(report["by"]) <= {"sim-1", "sim-2"}, report["by"]


async def test_a_registry_without_its_etcd_says_so(tmp_path: Path) -> None:
    one = OneOfTwo(tmp_path, "127.0.0.1:9", "a")
    command = [sys.executable, "-c", RUN, "registry", "registry-a", str(one.paths.data_dir)]
    ended = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert ended.returncode == 3
    assert ended.stderr.startswith(
        "registry: registry.store is 'etcd' and none of registry.endpoints (127.0.0.1:9) can be used:"
        " etcd did not answer"
    ), ended.stderr
    assert "Traceback" not in ended.stderr


PARTS = "bench.p.v1.PartsService"


def _built(*methods: str) -> bytes:
    """A descriptor set of a contract with these methods, and of one that needs it."""
    files = descriptor_pb2.FileDescriptorSet()
    for name, service, offered in (("p", "PartsService", methods), ("d", "DependentService", ("Do",))):
        file = files.file.add(name=f"bench/{name}/v1/service.proto", package=f"bench.{name}.v1", syntax="proto3")
        made = file.service.add(name=service)
        for method in offered:
            file.message_type.add(name=f"{method}Request")
            file.message_type.add(name=f"{method}Response")
            kinds = {
                "input_type": f".{file.package}.{method}Request",
                "output_type": f".{file.package}.{method}Response",
            }
            made.method.add(name=method, **kinds)
    return files.SerializeToString()


def _hello(service: str, contract: str, built: bytes, *, instance_id: str = "", **fields: Any) -> pb.AttachHello:
    return pb.AttachHello(
        service=service,
        instance_id=instance_id or f"{service}-1",
        address="127.0.0.1:9",
        version="1",
        contracts=[contract],
        descriptor_set=built,
        **fields,
    )


async def _equal(found: Any, wanted: set[str]) -> bool:
    return bool(await found == wanted)


async def _all_newer(one: OneOfTwo, before: dict[str, pb.Instance]) -> bool:
    now = await one.instances()
    names = [name for name, instance in before.items() if instance.in_rotation]
    return all(name in now and now[name].fencing_token > before[name].fencing_token for name in names)


def _told(instances: dict[str, pb.Instance]) -> dict[str, tuple[Any, ...]]:
    """What both registries must tell; heartbeats and measurements only the one has that an instance is attached to."""
    return {
        name: (i.service, i.address, i.fencing_token, i.pid, i.version, dict(i.versions), i.attach_time.ToNanoseconds())
        for name, i in instances.items()
    }
