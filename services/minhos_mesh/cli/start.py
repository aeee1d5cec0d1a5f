"""Decides how a mesh comes up and goes down: keeper, registry, then all services in the order of their contracts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import grpc

from minhos_api.health.v1 import health_monitor_service_pb2 as health
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.health.v1.service_health_pb2 import (
    SERVICE_STATE_DEGRADED,
    SERVICE_STATE_HEALTHY,
    SERVICE_STATE_STOPPED,
    ServiceHealth,
)
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor
from minhos_api.registry.v1.registry_service_pb2 import ListServicesRequest
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub
from minhos_mesh.cli import loop
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.ignition import orphans
from minhos_mesh.cli.mesh import NotRunning
from minhos_mesh.cli.show import age, state_name
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.catalogue import REGISTRY
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load_saved
from minhos_mesh.runtime.keeper_client import KeeperClient, KeeperUnavailable, keeper_state, start_keeper
from minhos_mesh.runtime.log_tail import LogTails
from minhos_mesh.runtime.paths import MeshPaths, registry_address

REGISTRY_S: Final = 15.0
"""How long the registry may take until it answers."""
ANSWER_S: Final = 3.0
"""How long a registry that is being started again may take to answer before the mesh is ended without it."""
SAID_LINES: Final = 6
NOT_WANTED: Final = "NOT_WANTED"
"""Why a service is STOPPED that nobody asked for: it stays so, and is no fault."""
LATCHED: Final = frozenset(
    {"BREAKER_TRIPPED", "DTC_DATA_NOT_PERMITTED", "DTC_SETTLED_OTHERWISE", "LOSS_LIMIT_PASSED", "SETTLED_OTHERWISE"}
)
"""Conditions that a person ends by a command to a mesh that runs, or the next day, and what it serves well with for ever: `minhos up` does not wait for their end."""
DOUBTFUL: Final = frozenset({"DTC_ORDERS_UNKNOWN", "DTC_POSITION_DIFFERS", "FOREIGN_ORDER", "ORDERS_UNKNOWN"})
"""Conditions that mostly end by themselves, and else by what a person does while the mesh runs: `minhos up` waits DOUBT_S for their end."""
DOUBT_S: Final = 10.0
HOPELESS: Final = frozenset(
    {
        "DTC_NOT_LET_IN",
        "DTC_SERVER_CHANGED",
        "DTC_SYMBOL_UNKNOWN",
        "DTC_TRADING_REFUSED",
        "PROVENANCE_REFUSED",
        "VENUE_CHANGED",
    }
)
"""Conditions that no waiting ends, only another configuration here or at the server: who waits for HEALTHY is told at once."""
STOP_S: Final = 60.0
"""How long the whole mesh may take to end."""
SETTLE_S: Final = 10.0
"""How long the services of the mesh may take to be HEALTHY once every start was tried."""
_NOT_STARTED: Final = "ERROR_REASON_START_TIMEOUT"
_POLL_S: Final = 0.005

Say = Callable[[str], None]
"""Where a line of progress goes."""


async def registry_ready(paths: MeshPaths) -> str:
    """Waits until the registry answers; returns its address. Raises CommandFailed with what it said."""
    deadline = time.monotonic() + REGISTRY_S
    last = "it has not answered yet"
    while time.monotonic() < deadline:
        address = registry_address(paths)
        if address is not None:
            clients = Clients(registry=address)
            try:
                await clients.stub(RegistryServiceStub).ListServices(
                    ListServicesRequest(), timeout=1.0, wait_for_ready=False
                )
            except grpc.aio.AioRpcError as error:
                last = error.details() or error.code().name
            else:
                return address
            finally:
                await clients.close()
        if keeper_state(paths.data_dir) is None:
            break
        await asyncio.sleep(_POLL_S)
    lines = dict.fromkeys(
        LogTails(paths.data_dir, lines=SAID_LINES).read(REGISTRY)
    )  # it may have failed again and again
    said = "\n".join(f"  {line}" for line in lines)
    log = f"its log: {paths.log_file(REGISTRY)}"
    raise CommandFailed(
        f"the registry did not come up ({last}); {log}{f', which ends with{chr(10)}{said}' if said else ''}"
    )


async def start_all(address: str, say: Say) -> None:
    """Starts all services and tells each step."""
    clients = Clients(registry=address)
    try:
        stub = clients.stub(SupervisorServiceStub)
        async for answer in stub.StartAll(supervisor.StartAllRequest()):
            say(progress_line(answer.progress))
    finally:
        await clients.close()


def may_end(paths: MeshPaths) -> frozenset[str]:
    """Services that may have ended by themselves: those whose configuration does not start them again then."""
    services = load_saved(paths.config_file).services
    return frozenset(name for name, section in services.items() if section.restart != "always")


def own_programs(paths: MeshPaths) -> frozenset[str]:
    """Services that are programs of the person whose mesh it is, and no part of the mesh itself."""
    services = load_saved(paths.config_file).services
    return frozenset(name for name, section in services.items() if section.command)


class NotAllHealthy(CommandFailed):
    """Expected: not everything has become HEALTHY in time. `unhealthy` tells the state of each that has not."""

    def __init__(self, timeout_s: float, unhealthy: Mapping[str, str]) -> None:
        told = "; ".join(f"{service} is {state}" for service, state in sorted(unhealthy.items()))
        super().__init__(f"not everything is HEALTHY after {timeout_s:.3g} s: {told}")
        self.unhealthy = dict(unhealthy)


class NeverHealthy(CommandFailed):
    """Expected: a service says that no waiting makes it HEALTHY; the message says what to do."""


async def bring_up(address: str, paths: MeshPaths, timeout_s: float, say: Say) -> dict[str, str]:
    """Starts all services and waits until those of the mesh itself are HEALTHY; returns the state of own programs that are not.

    Raises AioRpcError or CommandFailed when a service of the mesh itself is not.
    """
    programs, ended = own_programs(paths), may_end(paths)
    try:
        await start_all(address, say)
    except grpc.aio.AioRpcError as error:
        if not programs or errors.read(error).reason != _NOT_STARTED:
            raise
        try:
            await all_healthy(address, SETTLE_S, ended, programs, latched_too=True)
        except NotAllHealthy:
            raise error from None
        return await _states(address, ended)
    try:
        await all_healthy(address, timeout_s, ended, latched_too=True)
    except NotAllHealthy as error:
        if not programs.issuperset(error.unhealthy):
            raise
        return error.unhealthy
    return {}


async def _states(address: str, ended: Collection[str]) -> dict[str, str]:
    clients = Clients(registry=address)
    try:
        return await _not_healthy(clients, ended)
    finally:
        await clients.close()


async def latched(address: str) -> dict[str, str]:
    """What a person has to end, by service: the sentence of each condition and what to do."""
    clients = Clients(registry=address)
    try:
        mesh = await clients.stub(HealthMonitorServiceStub).GetMeshHealth(health.GetMeshHealthRequest())
    finally:
        await clients.close()
    return {
        item.service: "\n".join(f"{reason.message}\n  -> {reason.action}" for reason in item.reasons)
        for item in mesh.services
        if only_latched(item)
    }


def only_latched(item: ServiceHealth, latched: Collection[str] = LATCHED | DOUBTFUL) -> bool:
    """Whether a service serves, and nothing is wrong with it but what a person has to end."""
    return (
        item.state == SERVICE_STATE_DEGRADED
        and len(item.reasons) > 0
        and all(reason.code in latched for reason in item.reasons)
    )


async def all_healthy(
    address: str,
    timeout_s: float,
    ended: Collection[str] = (),
    left_out: Collection[str] = (),
    *,
    latched_too: bool = False,
) -> float:
    """Waits until every service is HEALTHY, or STOPPED where it is in `ended` or on purpose; returns how long it took.

    Raises NotAllHealthy naming those that are not, at once when one of them has a condition of HOPELESS. Those in `left_out` may be as they are, and with `latched_too` those that
    only conditions of LATCHED, or after DOUBT_S of DOUBTFUL, keep from being HEALTHY.
    """
    began = time.monotonic()
    clients = Clients(registry=address)
    unhealthy: dict[str, str] = {"the mesh": "nothing was heard of it"}
    try:
        async with asyncio.timeout(timeout_s):
            async for answer in clients.stub(HealthMonitorServiceStub).WatchHealth(health.WatchHealthRequest()):
                doubted = time.monotonic() - began >= DOUBT_S
                passed = (LATCHED | DOUBTFUL if doubted else LATCHED) if latched_too else frozenset()
                found = await _not_healthy(clients, ended, left_out, passed)
                unhealthy = {service: state for service, state in found.items() if service not in left_out}
                if not unhealthy and answer.revision >= 0:
                    return time.monotonic() - began
    except TimeoutError:
        if latched_too and await _only_doubtful(clients, ended, left_out):
            return time.monotonic() - began
    finally:
        await clients.close()
    raise NotAllHealthy(timeout_s, unhealthy)


async def _only_doubtful(clients: Clients, ended: Collection[str], left_out: Collection[str]) -> bool:
    """Whether nothing but what a person has to end keeps the mesh from being HEALTHY, as far as the registry says."""
    try:
        found = await _not_healthy(clients, ended, left_out)
    except grpc.aio.AioRpcError:
        return False
    return not found.keys() - set(left_out)


async def _not_healthy(
    clients: Clients,
    ended: Collection[str],
    left_out: Collection[str] = (),
    latched: Collection[str] = LATCHED | DOUBTFUL,
) -> dict[str, str]:
    mesh = await clients.stub(HealthMonitorServiceStub).GetMeshHealth(health.GetMeshHealthRequest())
    if all(item.state == SERVICE_STATE_STOPPED for item in mesh.services if item.service != REGISTRY):
        return {"every service": "STOPPED; `minhos up` starts them"}
    found = {
        item.service: item
        for item in mesh.services
        if item.state != SERVICE_STATE_HEALTHY
        and not (item.state == SERVICE_STATE_STOPPED and _may_rest(item, ended))
        and not only_latched(item, latched)
    }
    for service, item in found.items():
        for reason in item.reasons:
            if reason.code in HOPELESS and service not in left_out:
                raise NeverHealthy(f"{service} cannot become HEALTHY: {reason.message}\n  -> {reason.action}")
    return {
        service: " ".join([state_name(item.state), *(f"({reason.message})" for reason in item.reasons)])
        for service, item in found.items()
    }


def _may_rest(item: ServiceHealth, ended: Collection[str]) -> bool:
    return item.service in ended or any(reason.code == NOT_WANTED for reason in item.reasons)


async def stop_all(address: str, say: Say) -> None:
    """Stops all services but the registry and tells each step."""
    clients = Clients(registry=address)
    try:
        await clients.stub(RegistryServiceStub).ListServices(ListServicesRequest(), timeout=ANSWER_S)
        stub = clients.stub(SupervisorServiceStub)
        async for answer in stub.StopAll(supervisor.StopAllRequest(), timeout=STOP_S):
            say(progress_line(answer.progress))
    finally:
        await clients.close()


def shut_down(paths: MeshPaths, say: Say) -> None:
    """Ends the mesh whole, in reverse order while the registry answers, and without it otherwise. Raises NotRunning."""
    if keeper_state(paths.data_dir) is None:
        if not orphans(paths):
            raise NotRunning(paths.data_dir)
        say("the keeper is gone and services are left: starting it to end them")
        start_keeper(paths.data_dir, paths.config_file)
    address = registry_address(paths)
    if address is not None:
        try:
            loop.run(stop_all(address, say))
        except grpc.aio.AioRpcError as error:
            say(f"the registry could not end the services in order ({error.details()}): the keeper ends them")
    try:
        KeeperClient(paths.data_dir).shutdown()
    except KeeperUnavailable:
        if keeper_state(paths.data_dir) is not None:
            raise


def progress_line(progress: supervisor.SupervisionProgress) -> str:
    """One step for people."""
    phase = supervisor.SupervisionProgress.Phase.Name(progress.phase).removeprefix("PHASE_").lower()
    seconds = progress.elapsed.ToTimedelta().total_seconds()
    note = f"  {progress.message}" if progress.message else ""
    return f"{seconds:7.2f} s  {progress.service:<17} {phase:<9}{note}"


def uptime(start_seconds: float) -> str:
    """How long something has been running."""
    return age(time.time() - start_seconds) if start_seconds else "-"
