"""Decides how a benchmark runs a mesh: by the command line that everyone uses, in a data folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.keeper_client import keeper_state
from minhos_mesh.runtime.paths import MeshPaths, registry_address

UP_S: Final = 60.0
DOWN_S: Final = 60.0
MINHOS: Final = str(Path(sys.executable).with_name("minhos"))


class MeshFailed(Exception):
    """Expected when the mesh is broken: a command of it failed; the text is what it said."""


@dataclass(slots=True)
class RunningMesh:
    """A mesh that is up."""

    paths: MeshPaths
    up_s: float
    """How long `minhos up --detach` took, from nothing to all HEALTHY."""

    def pids(self) -> list[int]:
        """Processes of the mesh, the keeper included. Raises MeshFailed."""
        state = keeper_state(self.paths.data_dir)
        if state is None:
            raise MeshFailed("the keeper of the mesh is gone")
        return [state.pid, *(child.pid for child in psutil.Process(state.pid).children(recursive=True))]

    def pss_mb(self) -> float:
        """Memory of all processes, MB; what several share counts once."""
        return sum(pss_mb(pid) for pid in self.pids())

    async def service(self, name: str) -> registry.Service:
        """A service as the registry sees it. Raises StopIteration for a wrong name."""
        return next(service for service in await self._services() if service.name == name)

    async def addresses(self) -> dict[str, str]:
        """Address by contract."""
        return {
            contract: service.instances[0].address
            for service in await self._services()
            if service.instances
            for contract in service.contracts
        }

    async def stop(self, service: str) -> None:
        """Stops one service for good."""
        clients = Clients(registry=registry_address(self.paths))
        try:
            stub = clients.stub(SupervisorServiceStub)
            async for _ in stub.StopService(supervisor.StopServiceRequest(service=service), timeout=DOWN_S):
                pass
        finally:
            await clients.close()

    async def _services(self) -> list[registry.Service]:
        clients = Clients(registry=registry_address(self.paths))
        try:
            listed = await clients.stub(RegistryServiceStub).ListServices(registry.ListServicesRequest(), timeout=5.0)
        finally:
            await clients.close()
        return list(listed.services)


def pss_mb(pid: int) -> float:
    """Proportional set size of one process, MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise MeshFailed(f"/proc/{pid}/smaps_rollup has no line Pss")


def own_mb(pid: int) -> float:
    """Memory of one process's own, MB (10^6 bytes): what it shares with others weighs more when those end. Raises MeshFailed."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise MeshFailed(f"/proc/{pid}/status has no line RssAnon")


async def serves(address: str) -> bool:
    """Whether a server says SERVING."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _minhos(*arguments: str, timeout_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        MINHOS, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise MeshFailed(f"minhos {arguments[0]} did not end within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise MeshFailed(f"minhos {' '.join(arguments)} ended with {process.returncode}:\n{said.decode()}")


@contextlib.asynccontextmanager
async def running_mesh(data_dir: Path, config: str = "") -> AsyncIterator[RunningMesh]:
    """A mesh in a fresh data folder; `config` is the text of its configuration file. Raises MeshFailed."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    file = data_dir.with_suffix(".toml")
    file.write_text(config, encoding="utf-8")
    folder = ("--data-dir", str(data_dir))
    begun = time.perf_counter()
    try:
        await _minhos("up", "--detach", *folder, "--config", str(file), timeout_s=UP_S)
        yield RunningMesh(MeshPaths(data_dir), time.perf_counter() - begun)
    finally:
        if keeper_state(data_dir) is not None:
            await _minhos("down", *folder, timeout_s=DOWN_S)
