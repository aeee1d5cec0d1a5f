"""Decides how a command finds the mesh of a data folder and its services, and what it says when there is none."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import typer

from minhos_api.health.v1 import health_monitor_service_pb2 as health
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.cli import loop, show
from minhos_mesh.cli.failure import CommandFailed, fail
from minhos_mesh.cli.ignition import orphans
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.config import ConfigError
from minhos_mesh.runtime.keeper_client import KeeperError, keeper_state
from minhos_mesh.runtime.last_listing import LastListing
from minhos_mesh.runtime.paths import MeshPaths, registry_address

T = TypeVar("T")

ANSWER_S: Final = 5.0
"""How long the registry may take to answer a command."""
PATIENCE_S: Final = 1.5
"""How long it may take where the command can do without it."""

_NO_ROUTE: Final = "No matching route"
"""How gRPC says that the registry knows nobody who serves a contract."""


class NotRunning(CommandFailed):
    """Expected: no mesh runs in this data folder."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"no mesh runs in {data_dir}: `minhos up` starts one")


class RegistrySilent(CommandFailed):
    """Expected: the registry of a running mesh is gone or frozen, so that nothing can be asked of the mesh."""

    def __init__(self, paths: MeshPaths, consequence: str = "") -> None:
        back = (
            "`minhos up` brings it back"
            if keeper_state(paths.data_dir) is None
            else "the keeper starts it again by itself within seconds, `minhos restart registry` at once"
        )
        told = f"{consequence}: " if consequence else ""
        super().__init__(f"{told}the registry does not answer; the services serve on, and {back}")


_SILENT: Final = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def unreachable(error: grpc.RpcError) -> bool:
    """Whether a call found nobody who answered, which leaves open what became of it."""
    told = errors.read(error)
    return told.code in _SILENT and not told.reason


@dataclass(frozen=True, slots=True)
class Link:
    """An open way to the services of a running mesh."""

    paths: MeshPaths
    registry_address: str
    clients: Clients
    contracts: frozenset[str] = frozenset()
    """Contracts that are served at an address known now; any other waits for somebody to serve it."""

    async def services(self) -> registry.ListServicesResponse:
        """All services as the registry sees them."""
        return await self.clients.stub(RegistryServiceStub).ListServices(
            registry.ListServicesRequest(), timeout=ANSWER_S
        )

    async def health(self) -> health.GetMeshHealthResponse:
        """The health of all services."""
        return await self.clients.stub(HealthMonitorServiceStub).GetMeshHealth(
            health.GetMeshHealthRequest(), timeout=ANSWER_S
        )


def running_registry(paths: MeshPaths) -> str:
    """Address of the registry. Raises NotRunning."""
    address = registry_address(paths)
    if address is None or (keeper_state(paths.data_dir) is None and not orphans(paths)):
        raise NotRunning(paths.data_dir)
    return address


@contextlib.asynccontextmanager
async def connected(paths: MeshPaths, consequence: str = "", without_registry: str = "") -> AsyncIterator[Link]:
    """A way to the services, each called at its own address, or through the registry when it has none now.

    While the registry is silent, the service `without_registry` is called where it listened last, and that is said.
    Raises NotRunning, and RegistrySilent with the `consequence` for what was to be done.
    """
    address = running_registry(paths)
    bootstrap_xds(address, "minhos-command")
    try:
        targets = await _targets(address, PATIENCE_S if without_registry else ANSWER_S)
    except grpc.aio.AioRpcError as error:
        if not unreachable(error):
            raise
        targets = _last_targets(paths, without_registry, "the registry does not answer")
        if not targets:
            raise RegistrySilent(paths, consequence) from None
    clients = Clients(targets, registry=address)
    try:
        yield Link(paths, address, clients, frozenset(targets))
    finally:
        await clients.close()


async def _targets(address: str, timeout_s: float) -> dict[str, str]:
    """Where each contract is served, as the registry says."""
    clients = Clients(registry=address)
    try:
        stub = clients.stub(RegistryServiceStub)
        listed = await stub.ListServices(registry.ListServicesRequest(), timeout=timeout_s)
    finally:
        await clients.close()
    return {
        contract: instance.address
        for service in listed.services
        for instance in service.instances
        if instance.address
        for contract in service.contracts
    }


def _last_targets(paths: MeshPaths, service: str, why: str) -> dict[str, str]:
    """Where the contracts of a service were served last, when that very process still runs; else nothing."""
    found = LastListing(paths).find(service) if service else None
    if found is None:
        return {}
    show.err.print(f"{why}: {service} is asked at its last known address, {found.address} (process {found.pid})")
    return dict.fromkeys(found.contracts, found.address)


def execute(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command to its end; what goes wrong becomes one clear message and exit code 1."""
    try:
        return loop.run(work)
    except (CommandFailed, ConfigError, KeeperError) as error:
        fail(str(error))
    except grpc.aio.AioRpcError as error:
        fail(describe(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def describe(error: grpc.RpcError) -> str:
    """A failed call in one sentence, with every field that was wrong."""
    told = errors.read(error)
    if told.reason:
        return f"{told.message}  [{told.reason.removeprefix('ERROR_REASON_')}]"
    if _NO_ROUTE in told.message:
        return "the service does not run at the moment: `minhos status` says why"
    if told.code is grpc.StatusCode.UNAVAILABLE:
        return f"the service cannot be reached: {told.message}"
    return f"{told.code.name}: {told.message}"
