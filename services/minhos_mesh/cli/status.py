"""Shows what runs: `status`, `ports`, `graph`, `wait`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from enum import Enum
from typing import Final

import typer
from rich.table import Table
from rich.text import Text

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.cli import graph as drawing
from minhos_mesh.cli import narrow, routing, seen, show, start
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected, running_registry
from minhos_mesh.runtime.keeper_client import keeper_state
from minhos_mesh.runtime.paths import MeshPaths

NOT_WELL: Final = 3
"""Exit code of `status` when a service is neither HEALTHY nor stopped on purpose."""


async def status(paths: MeshPaths, *, as_json: bool) -> None:
    """All services with what they use, what is wrong and what to do; ends with NOT_WELL when something is wrong."""
    async with connected(paths) as link:
        listed, health, notes = await asyncio.gather(link.services(), link.health(), routing.notes(link))
    if keeper_state(paths.data_dir) is None:
        show.err.print("the keeper is gone, so nothing restarts a service that ends: `minhos up` takes them back")
    services = seen.join(listed, health)
    if as_json:
        show.as_json(
            {
                "state": show.state_name(health.state),
                "services": [seen.service_dict(service) for service in services],
                "routes": notes,
            }
        )
    else:
        show.out.print(seen.table(services, show.out.width))
        if (faults := seen.faults(services)) is not None:
            show.out.print()
            show.out.print(faults, soft_wrap=False)
        for note in notes:
            show.out.print(f"\n{note}")
    if any(service.state not in seen.FINE for service in services):
        raise typer.Exit(NOT_WELL)


async def ports(paths: MeshPaths, service: str | None, *, as_json: bool) -> None:
    """Where each service listens, or the address of one alone, ready for a command line."""
    async with connected(paths) as link:
        listed = await link.services()
    found = {s.name: [i.address for i in s.instances if i.address] for s in listed.services}
    running = {s.name for s in listed.services if s.instances}
    if service is not None:
        if service not in found:
            raise CommandFailed(f"there is no service {service!r}: known are {', '.join(found)}")
        if not found[service]:
            why = "runs and listens nowhere" if service in running else "does not run at the moment"
            raise CommandFailed(f"{service} {why}")
        show.out.print(found[service][0])
    elif as_json:
        show.as_json({"registry": link.registry_address, "services": found})
    else:
        rows = [(name, ", ".join(addresses) or "-") for name, addresses in found.items()]
        show.out.print(show.table(("SERVICE", "ADDRESS"), rows))


class GraphForm(Enum):
    """How the graph is told."""

    TERMINAL = "terminal"
    JSON = "json"
    DOT = "dot"
    MERMAID = "mermaid"


async def graph(paths: MeshPaths, form: GraphForm) -> None:
    """Who needs whom, in the order of the start."""
    async with connected(paths) as link:
        found = await link.clients.stub(RegistryServiceStub).GetDependencyGraph(registry.GetDependencyGraphRequest())
    if form is GraphForm.JSON:
        show.as_json(show.message_dict(found))
        return
    services = drawing.services_of(found)
    match form:
        case GraphForm.DOT:
            print(drawing.dot(services))
        case GraphForm.MERMAID:
            print(drawing.mermaid(services))
        case _:
            show.out.print(drawing.terminal(services, show.out.width), crop=False, no_wrap=True, overflow="ignore")


async def wait(paths: MeshPaths, timeout_s: float) -> None:
    """Returns when every service is HEALTHY."""
    deadline = time.monotonic() + timeout_s
    await start.all_healthy(
        await _registry(paths, deadline), max(0.1, deadline - time.monotonic()), start.may_end(paths)
    )
    show.out.print("all services that should run are HEALTHY")


async def _registry(paths: MeshPaths, deadline: float) -> str:
    while True:
        try:
            return running_registry(paths)
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


REASON: Final = "REASON"
"""The column that wraps; it is left out first."""


def services_table(listed: registry.ListServicesResponse, width: int) -> Table:
    """All services as a table, for a screen that is renewed; with their reasons where there is room for them."""
    now = time.time()
    columns, rows = narrow.fitting(
        ("SERVICE", "STATE", "UPTIME", "CPU", "MEMORY", "ADDRESS", "PID", "RESTARTS", REASON),
        [_row(service, now) for service in seen.join(listed)],
        width,
        (REASON, "ADDRESS", "PID", "MEMORY", "CPU", "RESTARTS", "UPTIME"),
    )
    return show.table(columns, rows, right=("UPTIME", "CPU", "MEMORY", "PID", "RESTARTS"))


def _row(service: seen.SeenService, now: float) -> tuple[str | Text, ...]:
    return (
        service.name,
        show.state_text(service.state),
        service.uptime(now),
        show.percent(service.cpu_percent),
        show.size(service.memory_bytes),
        _joined(instance.address for instance in service.instances),
        _joined(instance.pid for instance in service.instances),
        str(service.listed.restarts),
        "; ".join(service.listed.reasons),
    )


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(text for text in texts if text != "-") or "-"
