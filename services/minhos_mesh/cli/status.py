"""Shows what runs: `status`, `ports`, `graph`, `wait`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rich.text import Text
from rich.tree import Tree

from minhos_api.mesh.v1.contract_options_pb2 import DEPENDENCY_KIND_OPTIONAL
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.cli import show, start
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected, running_registry
from minhos_mesh.runtime.keeper_client import keeper_state
from minhos_mesh.runtime.paths import MeshPaths


async def status(paths: MeshPaths, *, as_json: bool) -> None:
    """All services with state, address, age and what is wrong."""
    async with connected(paths) as link:
        listed = await link.services()
    if keeper_state(paths.data_dir) is None:
        show.err.print("the keeper is gone, so nothing restarts a service that ends: `minhos up` takes them back")
    if as_json:
        show.as_json({"services": [service_dict(service) for service in listed.services]})
        return
    show.out.print(services_table(listed))


async def ports(paths: MeshPaths, service: str | None, *, as_json: bool) -> None:
    """Where each service listens, or the address of one alone, ready for a command line."""
    async with connected(paths) as link:
        listed = await link.services()
    found = {s.name: [i.address for i in s.instances] for s in listed.services}
    if service is not None:
        if service not in found:
            raise CommandFailed(f"there is no service {service!r}: known are {', '.join(found)}")
        if not found[service]:
            raise CommandFailed(f"{service} does not run at the moment")
        show.out.print(found[service][0])
    elif as_json:
        show.as_json({"registry": link.registry_address, "services": found})
    else:
        rows = [(name, ", ".join(addresses) or "-") for name, addresses in found.items()]
        show.out.print(show.table(("SERVICE", "ADDRESS"), rows))


async def graph(paths: MeshPaths, *, as_json: bool) -> None:
    """Who needs whom, level by level."""
    async with connected(paths) as link:
        found = await link.clients.stub(RegistryServiceStub).GetDependencyGraph(registry.GetDependencyGraphRequest())
    if as_json:
        show.as_json(show.message_dict(found))
        return
    show.out.print(graph_tree(found), crop=False, no_wrap=True, overflow="ignore")


async def wait(paths: MeshPaths, timeout_s: float) -> None:
    """Returns when every service is HEALTHY."""
    deadline = time.monotonic() + timeout_s
    await start.all_healthy(await _registry(paths, deadline), max(0.1, deadline - time.monotonic()))
    show.out.print("all services are HEALTHY")


async def _registry(paths: MeshPaths, deadline: float) -> str:
    while True:
        try:
            return running_registry(paths)
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


def service_dict(service: registry.Service) -> dict[str, Any]:
    """One service as `status --json` has it."""
    return {
        "name": service.name,
        "state": show.state_name(service.state),
        "reasons": list(service.reasons),
        "instances": [
            {
                "id": instance.instance_id,
                "address": instance.address,
                "pid": show.optional(instance, "pid"),
                "in_rotation": instance.in_rotation,
                "fencing_token": instance.fencing_token,
            }
            for instance in service.instances
        ],
        "contracts": list(service.contracts),
        "depends_on": list(service.depends_on_services),
        "restarts": service.restarts,
        "errors": list(service.errors),
    }


def services_table(listed: registry.ListServicesResponse) -> Any:
    """All services as a table."""
    return show.table(
        ("SERVICE", "STATE", "UPTIME", "ADDRESS", "PID", "RESTARTS", "REASON"),
        [_row(service) for service in listed.services],
        right=("UPTIME", "PID", "RESTARTS"),
    )


def _row(service: registry.Service) -> tuple[str | Text, ...]:
    running = list(service.instances)
    began = service.start_time.seconds if service.HasField("start_time") else 0
    return (
        service.name,
        show.state_text(show.state_name(service.state)),
        start.uptime(began),
        ", ".join(instance.address for instance in running) or "-",
        ", ".join(str(instance.pid) for instance in running if instance.HasField("pid")) or "-",
        str(service.restarts),
        "; ".join(service.reasons),
    )


def graph_tree(found: registry.GetDependencyGraphResponse) -> Tree:
    """Levels of the start, each service with what it needs."""
    needs: dict[str, list[str]] = {}
    for edge in found.edges:
        optional = " (optional)" if edge.kind == DEPENDENCY_KIND_OPTIONAL else ""
        name = f"{edge.to_service}{optional}"
        if name not in needs.setdefault(edge.from_service, []):
            needs[edge.from_service].append(name)
    tree = Tree("start order")
    for level in sorted({node.level for node in found.nodes}):
        branch = tree.add(f"level {level}")
        for node in sorted((n for n in found.nodes if n.level == level), key=lambda n: n.name):
            state = show.state_name(node.state)
            line = Text.assemble((node.name, show.COLOURS.get(state, "")), f"  {state.lower()}")
            if needs.get(node.name):
                line.append(f"  needs {', '.join(needs[node.name])}", style="dim")
            branch.add(line)
    return tree
