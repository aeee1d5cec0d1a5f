"""Measures how long a registry and its keeper take to bring up many processes: the mesh, fifty programs, fifty gRPC services."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
from tests.performance.bare import bare_servers
from tests.performance.many_keeper import PREFIX
from tests.performance.mesh_run import MeshFailed, running_mesh
from tests.performance.results import Metric, Reach, Settings

from minhos_api.health.v1 import health_monitor_service_pb2 as health
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.health.v1.service_health_pb2 import SERVICE_STATE_HEALTHY
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.keeper_client import AsyncKeeperClient, KeeperClient, KeeperUnavailable
from minhos_mesh.runtime.keeper_protocol import SpawnRequest
from minhos_mesh.runtime.paths import MeshPaths, registry_address

MANY: Final = 50
"""Processes beside the keeper, the registry among them."""
MOST_ROUNDS: Final = 5
UP_S: Final = 60.0
_CHILD: Final = Path(__file__).with_name("many_keeper.py")


async def startup(settings: Settings) -> Sequence[Metric]:
    """The mesh as it is, the mesh with programs beside it up to fifty, and fifty forked gRPC services; each beside bare servers."""
    mesh, programs, services = [], [], []
    few, many = [], []
    for number in range(min(settings.rounds, MOST_ROUNDS) + 1):
        mesh.append(await _mesh(settings.folder / f"startup-{number}", 0))
        programs.append(await _mesh(settings.folder / f"programs-{number}", MANY - len(service_names())))
        services.append(await _forked(settings.folder / f"services-{number}"))
        few.append(await _bare(len(service_names())))
        many.append(await _bare(MANY))
        settings.say(
            f"{f'round {number}' if number else 'warm up'}: mesh {mesh[-1]:.2f} s, with programs {programs[-1]:.2f} s,"
            f" {MANY} services {services[-1]:.2f} s; bare {few[-1]:.2f} s and {many[-1]:.2f} s"
        )
    count = len(service_names())
    reach = Reach(5.0)
    return [
        Metric(f"mesh of {count}: nothing to HEALTHY", "s", mesh[1:], f"{count} bare grpc.aio servers", few[1:], reach),
        Metric(
            f"mesh of {count} and {MANY - count} programs: nothing to HEALTHY", "s", programs[1:],
            f"{MANY} bare grpc.aio servers", many[1:], reach,
        ),
        Metric(
            f"{MANY} gRPC services: nothing to HEALTHY", "s", services[1:],
            f"{MANY} bare grpc.aio servers", many[1:], reach,
        ),
    ]  # fmt: skip


async def _mesh(folder: Path, programs: int) -> float:
    """Seconds of `minhos up --detach`, with so many programs that only run."""
    tables = [
        f'[services.program_{n}]\ncommand = ["sleep", "600"]\nattaches = false\nsettle_s = 0.05\n'
        for n in range(1, programs + 1)
    ]
    async with running_mesh(folder, "".join(tables)) as mesh:
        return mesh.up_s


async def _bare(count: int) -> float:
    """Seconds until so many plainly spawned servers have answered."""
    begun = time.perf_counter()
    async with bare_servers(count):
        return time.perf_counter() - begun


async def _forked(folder: Path) -> float:
    """Seconds from nothing until the registry calls all forked services HEALTHY."""
    paths = MeshPaths(folder)
    paths.create()
    configuration.save(configuration.load(None, environment={}).resolved(datetime.now(UTC)), paths.config_file)
    begun = time.perf_counter()
    async with _keeper(paths):
        client = AsyncKeeperClient(paths.data_dir)
        address = await _registry(paths)
        names = [f"{PREFIX}{number}" for number in range(1, MANY)]
        await asyncio.gather(*(client.spawn(SpawnRequest(name, f"{name}-1")) for name in names))
        await _healthy(address, {*names, "registry"})
        return time.perf_counter() - begun


@contextlib.asynccontextmanager
async def _keeper(paths: MeshPaths) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(_CHILD), str(paths.data_dir), str(MANY))
    try:
        yield
    finally:
        try:
            await asyncio.to_thread(KeeperClient(paths.data_dir).shutdown, deadline_s=UP_S)
        except KeeperUnavailable:
            process.terminate()
        await asyncio.wait_for(process.wait(), UP_S)


async def _registry(paths: MeshPaths) -> str:
    """Address of the registry once it answers."""
    end = time.monotonic() + UP_S
    while time.monotonic() < end:
        address = registry_address(paths)
        if address is not None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await _states(address)
                return address
        await asyncio.sleep(0.005)
    raise MeshFailed("the registry did not come up")


async def _healthy(address: str, names: set[str]) -> None:
    end = time.monotonic() + UP_S
    missing = names
    while time.monotonic() < end:
        states = await _states(address)
        missing = {name for name in names if states.get(name) != SERVICE_STATE_HEALTHY}
        if not missing:
            return
        await asyncio.sleep(0.01)
    raise MeshFailed(f"not HEALTHY after {UP_S:g} s: {', '.join(sorted(missing))}")


async def _states(address: str) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = HealthMonitorServiceStub(channel)
        answer = await stub.GetMeshHealth(health.GetMeshHealthRequest(), timeout=5.0)
    return {service.service: service.state for service in answer.services}
