"""Decides how a mesh comes up and goes down: keeper, registry, then all services in the order of their contracts."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from minhos_api.health.v1 import health_monitor_service_pb2 as health
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.health.v1.service_health_pb2 import SERVICE_STATE_HEALTHY, SERVICE_STATE_STOPPED
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor
from minhos_api.registry.v1.registry_service_pb2 import ListServicesRequest
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub
from minhos_mesh.cli.mesh import CommandFailed, NotRunning
from minhos_mesh.cli.show import age, state_name
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.host import registry_address
from minhos_mesh.runtime.keeper_client import KeeperClient, KeeperUnavailable, keeper_state, start_keeper
from minhos_mesh.runtime.keeper_protocol import KeeperPaths
from minhos_mesh.runtime.paths import MeshPaths

REGISTRY_S: Final = 15.0
"""How long the registry may take until it answers."""
STOP_S: Final = 60.0
"""How long the whole mesh may take to end."""
_POLL_S: Final = 0.005

Say = Callable[[str], None]
"""Where a line of progress goes."""


@dataclass(frozen=True, slots=True)
class FeedChoice:
    """What the options of `minhos up` say about the feed; None leaves the configuration as it is."""

    kind: str | None = None
    file: Path | None = None
    speed: str | None = None

    def overrides(self) -> dict[str, Any]:
        """The same as the configuration would have it."""
        feed: dict[str, Any] = {}
        if self.kind is not None:
            feed["kind"] = self.kind
        if self.file is not None:
            feed["file"] = str(self.file.expanduser().absolute())
            feed.setdefault("kind", "replay")
        if self.speed is not None:
            feed["speed"] = self.speed
        return {"feed": feed} if feed else {}


def resolve(config_file: Path | None, feed: FeedChoice) -> MeshConfig:
    """The configuration of a new start. Raises ConfigError."""
    found = config_file if config_file is not None else Path("minhos.toml")
    path = found if config_file is not None or found.exists() else None
    config = configuration.load(path, overrides=feed.overrides())
    return config.resolved(datetime.now(UTC))


def launch(paths: MeshPaths, config: MeshConfig) -> None:
    """Starts the keeper, which starts the registry. Raises CommandFailed when a mesh already runs or its port is taken."""
    running = keeper_state(paths.data_dir)
    if running is not None:
        raise CommandFailed(
            f"a mesh already runs in {paths.data_dir} (keeper pid {running.pid}):"
            " `minhos status` shows it, `minhos down` ends it"
        )
    paths.create()
    configuration.save(config, paths.config_file)
    if not _orphans(paths):
        _check_port(paths, config)
    start_keeper(paths.data_dir, paths.config_file)


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
    raise CommandFailed(
        f"the registry did not come up ({last}); its log: {paths.log_file('registry')}\n{_crash(paths)}"
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


async def all_healthy(address: str, timeout_s: float) -> float:
    """Waits until every service is HEALTHY; returns how long it took. Raises CommandFailed naming those that are not."""
    began = time.monotonic()
    clients = Clients(registry=address)
    unhealthy: dict[str, str] = {"the mesh": "nothing was heard of it"}
    try:
        async with asyncio.timeout(timeout_s):
            async for answer in clients.stub(HealthMonitorServiceStub).WatchHealth(health.WatchHealthRequest()):
                unhealthy = await _not_healthy(clients)
                if not unhealthy and answer.revision >= 0:
                    return time.monotonic() - began
    except TimeoutError:
        pass
    finally:
        await clients.close()
    told = "; ".join(f"{service} is {state}" for service, state in sorted(unhealthy.items()))
    raise CommandFailed(f"not everything is HEALTHY after {timeout_s:g} s: {told}")


async def _not_healthy(clients: Clients) -> dict[str, str]:
    mesh = await clients.stub(HealthMonitorServiceStub).GetMeshHealth(health.GetMeshHealthRequest())
    return {
        item.service: " ".join([state_name(item.state), *(f"({reason.message})" for reason in item.reasons)])
        for item in mesh.services
        if item.state not in (SERVICE_STATE_HEALTHY, SERVICE_STATE_STOPPED)
    }


async def stop_all(address: str, say: Say) -> None:
    """Stops all services but the registry and tells each step."""
    clients = Clients(registry=address)
    try:
        stub = clients.stub(SupervisorServiceStub)
        async for answer in stub.StopAll(supervisor.StopAllRequest(), timeout=STOP_S):
            say(progress_line(answer.progress))
    finally:
        await clients.close()


def shut_down(paths: MeshPaths, say: Say) -> None:
    """Ends the mesh whole, in reverse order while the registry answers, and without it otherwise. Raises NotRunning."""
    if keeper_state(paths.data_dir) is None:
        if not _orphans(paths):
            raise NotRunning(paths.data_dir)
        say("the keeper is gone and services are left: starting it to end them")
        start_keeper(paths.data_dir, paths.config_file)
    address = registry_address(paths)
    if address is not None:
        try:
            asyncio.run(stop_all(address, say))
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


def _orphans(paths: MeshPaths) -> bool:
    """Whether processes of an earlier keeper still run."""
    record = KeeperPaths(paths.data_dir).record
    try:
        processes = json.loads(record.read_text(encoding="utf-8")).get("processes", [])
    except (OSError, ValueError, AttributeError):
        return False
    return any(Path(f"/proc/{item.get('pid')}").exists() for item in processes if isinstance(item, dict))


def _check_port(paths: MeshPaths, config: MeshConfig) -> None:
    known = registry_address(paths)
    host, _, port = known.rpartition(":") if known else (config.mesh.bind, "", str(config.mesh.port))
    if config.mesh.port and int(port) != config.mesh.port:
        raise CommandFailed(
            f"mesh.port is {config.mesh.port}, and the mesh in {paths.data_dir} has had {port} since its first start:"
            " clients know it by that; use another --data-dir"
        )
    if int(port) == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise CommandFailed(
                f"the registry's port {host}:{port} is taken by another program ({error.strerror}):"
                f" end that program, or use another --data-dir"
            ) from None


def _crash(paths: MeshPaths) -> str:
    log = paths.log_dir / "registry.stderr.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-10:])
