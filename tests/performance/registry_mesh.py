"""Measures what callers of a whole mesh notice when its registry is killed, and when each service is restarted on purpose.

The caller is stock gRPC with `xds:///` in a process of its own; its calls wait for the service, as the contracts say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from tests.performance.mesh_run import MeshFailed, RunningMesh, running_mesh
from tests.performance.registry_rotation import Failed, Piped
from tests.performance.results import Metric, Reach, Settings

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.paths import registry_address

_CALLER: Final = Path(__file__).parents[1] / "contract" / "discovery" / "caller.py"
READS: Final = {
    "event_bus": "minhos_api.events.v1.EventBusService/ListEvents",
    "state_manager": "minhos_api.state.v1.StateManagerService/GetState",
    "market_data": "minhos_api.market.v1.MarketDataProviderService/GetAllMarketData",
    "sierra_simulator": "minhos_api.sierra.v1.SierraSimulatorService/GetStatus",
    "sierra_client": "minhos_api.sierra.v1.SierraClientService/GetStatus",
    "paper_venue": "minhos_api.venue.v1.VenueService/GetVenueStatus",
    "risk_manager": "minhos_api.risk.v1.RiskManagerService/GetRiskMetrics",
    "ai_brain": "minhos_api.brain.v1.AIBrainService/ListSignals",
    "trading_engine": "minhos_api.trading.v1.TradingEngineService/GetPositions",
}
"""A question for each service that takes an empty request."""
CALL_S: Final = 5.0
"""Deadline of a call."""
RESTART_S: Final = 30.0
PAUSE_S: Final = 0.001
WORKERS: Final = 4


KILLS: Final = 3
"""Kills of the registry in one mesh: where it ends again and again it comes back later each time, which is not measured here."""


async def deaths(settings: Settings) -> Sequence[Metric]:
    """SIGKILL of the registry under load, and a planned restart of each service under load."""
    killed = await _registry_killed(settings)
    async with _called_mesh(settings.folder / "restarts") as (mesh, caller):
        return [*killed, *await _restarts(mesh, caller, settings)]


@contextlib.asynccontextmanager
async def _called_mesh(data_dir: Path) -> AsyncIterator[tuple[RunningMesh, Piped]]:
    async with running_mesh(data_dir) as mesh:
        caller = await _caller(mesh)
        try:
            yield mesh, caller
        finally:
            caller.process.kill()
            await caller.process.wait()


async def _caller(mesh: RunningMesh) -> Piped:
    address = registry_address(mesh.paths)
    assert address is not None, "the mesh is up"
    command = (sys.executable, str(_CALLER), address, "local")
    pipe = asyncio.subprocess.PIPE
    caller = Piped(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
    await caller.read()
    return caller


async def _load(caller: Piped, service: str) -> None:
    path = f"/{READS[service]}"
    await caller.ask("call", path=path, timeout=CALL_S, wait=True)
    await caller.ask("start", path=path, timeout=CALL_S, wait=True, workers=WORKERS, pause=PAUSE_S)
    await asyncio.sleep(0.2)


async def _registry_killed(settings: Settings) -> list[Metric]:
    failed: list[float] = []
    known: list[float] = []
    while len(failed) < settings.rounds:
        async with _called_mesh(settings.folder / f"killed-{len(failed)}") as (mesh, caller):
            for _ in range(min(KILLS, settings.rounds - len(failed))):
                calls, seconds = await _kill(mesh, caller)
                failed.append(float(calls))
                known.append(seconds)
                settings.say(f"round {len(failed)}: {calls} calls failed, all known after {seconds:.2f} s")
    return [
        Metric("registry killed under load: failed calls", "calls", failed, reach=Reach(1.0)),
        Metric("registry killed: until it knows all again", "s", known),
    ]


async def _kill(mesh: RunningMesh, caller: Piped) -> tuple[int, float]:
    before = await _serving(mesh)
    pid = (await mesh.service("registry")).instances[0].pid
    await _load(caller, "risk_manager")
    instant = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    seconds = await _known_again(mesh, before, pid)
    return Failed(await caller.ask("stop"), instant).calls, seconds


async def _restarts(mesh: RunningMesh, caller: Piped, settings: Settings) -> list[Metric]:
    metrics = []
    for service in READS:
        failed, longest = [], []
        for _ in range(settings.rounds):
            await _load(caller, service)
            instant = time.monotonic()
            await _restart(mesh, service)
            await asyncio.sleep(0.2)
            report = await caller.ask("stop")
            failed.append(float(Failed(report, instant).calls))
            longest.append(1_000 * report["longest"])
        settings.say(f"{service}: {sum(failed):g} calls failed in {len(failed)} restarts")
        metrics.append(Metric(f"planned restart of {service}: failed calls", "calls", failed, reach=Reach(1.0)))
        metrics.append(Metric(f"planned restart of {service}: longest call", "ms", longest))
    return metrics


async def _restart(mesh: RunningMesh, service: str) -> None:
    clients = Clients(registry=registry_address(mesh.paths))
    try:
        stub: Any = clients.stub(SupervisorServiceStub)
        async for _ in stub.RestartService(supervisor.RestartServiceRequest(service=service), timeout=RESTART_S):
            pass
    finally:
        await clients.close()


async def _serving(mesh: RunningMesh) -> dict[str, int]:
    """Pid of every serving instance by its id, the registry's left out."""
    address = registry_address(mesh.paths)
    async with grpc.aio.insecure_channel(str(address)) as channel:
        stub: Any = RegistryServiceStub(channel)
        listed = await stub.ListServices(registry.ListServicesRequest(), timeout=1.0)
    return {
        instance.instance_id: instance.pid
        for service in listed.services
        if service.name != "registry"
        for instance in service.instances
        if instance.in_rotation
    }


async def _known_again(mesh: RunningMesh, before: dict[str, int], dead: int) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < RESTART_S:
        try:
            if await _serving(mesh) == before and (await mesh.service("registry")).instances[0].pid != dead:
                return time.monotonic() - begun
        except (grpc.aio.AioRpcError, IndexError):
            pass
        await asyncio.sleep(0.005)
    raise MeshFailed(f"the registry did not know all services again within {RESTART_S:g} s")


DEATHS: Final = (deaths,)
