"""Wires the registry: its store, leases, discovery, supervision and health, on one fixed port."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from google.protobuf import descriptor_pb2

from minhos_mesh.registry import translate
from minhos_mesh.registry.ads import AggregatedDiscovery
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Condition, Serving
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.supervision import SupervisionPolicy
from minhos_mesh.registry.envoy import EnvoyMessages
from minhos_mesh.registry.health_servicer import HealthMonitorServicer
from minhos_mesh.registry.liveness import Liveness
from minhos_mesh.registry.log_tail import LogTails
from minhos_mesh.registry.mesh_services import EVERYWHERE, planned_services, specs_of
from minhos_mesh.registry.monitor import HealthMonitor
from minhos_mesh.registry.outbox import Outbox
from minhos_mesh.registry.plan import make_plan
from minhos_mesh.registry.procfs import connects, start_ticks
from minhos_mesh.registry.publisher import EventPublisher
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.service import FactMakers, Registry
from minhos_mesh.registry.servicer import ERRORS, RegistryServicer
from minhos_mesh.registry.store import MIGRATIONS, InstanceRecord, RegistryStore
from minhos_mesh.registry.supervisor import Supervisor
from minhos_mesh.registry.supervisor_servicer import SupervisorServicer
from minhos_mesh.registry.unit_notes import UnitNotes
from minhos_mesh.registry.wishes import StoredWishes
from minhos_mesh.registry.xds_resources import build_resources
from minhos_mesh.runtime.attach import PROGRAM_VERSION, versions
from minhos_mesh.runtime.catalogue import REGISTRY
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.contracts import all_contracts, descriptor_set
from minhos_mesh.runtime.keeper_client import AsyncKeeperClient
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.storage import Database

PROBE_S: Final = 0.3
"""How long an instance of an earlier life may take to accept a connection."""


@dataclass(slots=True)
class _Parts:
    registry: Registry
    discovery: AggregatedDiscovery
    supervisor: Supervisor
    publisher: EventPublisher


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the registry of one data folder; what an earlier life left is loaded and probed when it is entered."""
    database = Database(context.paths.store_file(REGISTRY), migrations=MIGRATIONS)
    async with database, AsyncExitStack() as supervision:
        parts = _wire(context, database)
        await parts.registry.recover(_still_there)

        async def start() -> None:
            context.tasks.start(parts.registry.keep_time(), "registry-time")
            context.tasks.start(parts.publisher.run(), "registry-publisher")
            parts.discovery.open()
            await supervision.enter_async_context(parts.supervisor)
            context.tasks.start(_liveness(context, parts).run(), "registry-liveness")

        async def drain() -> None:
            await supervision.aclose()
            parts.registry.close()
            parts.discovery.close()

        def bound(address: str) -> None:
            _note_address(context.paths, address)
            parts.registry.add_self(_own_instance(context, address))

        settings = context.config.registry
        yield ServiceParts(
            servicers=[
                RegistryServicer(parts.registry, heartbeat_s=settings.heartbeat_s),
                SupervisorServicer(parts.supervisor),
                HealthMonitorServicer(parts.registry),
            ],
            errors=ERRORS,
            start=start,
            drain=drain,
            port=fixed_port(context),
            handlers=[parts.discovery.handler()],
            attach=False,
            bound=bound,
        )


def _liveness(context: ServiceContext, parts: _Parts) -> Liveness:
    deadline_s = context.config.registry.liveness_deadline_s
    return Liveness(parts.registry.instances.of_service, parts.supervisor, context.clock, deadline_s=deadline_s)


def fixed_port(context: ServiceContext) -> int:
    """The port of the registry: the configured one, else the one of an earlier life of this mesh, else any."""
    if context.config.mesh.port:
        return context.config.mesh.port
    try:
        address = json.loads(context.paths.mesh_file.read_text(encoding="utf-8"))["address"]
        return int(str(address).rpartition(":")[2])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _wire(context: ServiceContext, database: Database) -> _Parts:
    settings, clock = context.config.registry, context.clock
    messages = EnvoyMessages.from_file()
    discovery = AggregatedDiscovery(
        messages,
        generation=f"{clock.wall_ns() // 1_000_000}",
        on_withheld=lambda withheld: _note_withheld(context, withheld),
    )
    store, outbox, board = RegistryStore(database), Outbox(database), ReadinessBoard()
    specs = specs_of(planned_services(context.config))
    registry = Registry(
        store=store,
        outbox=outbox,
        clock=clock,
        contracts=_mesh_contracts(),
        specs=specs,
        facts=FactMakers(translate.health_facts, translate.started_fact, translate.stopped_fact),
        publish=lambda view: discovery.publish(build_resources(messages, view)),
        board=board,
        tasks=context.tasks,
        settled=discovery.settled,
        lease_seconds=settings.lease_s,
        own_service=REGISTRY,
    )
    own_key = InstanceKey(REGISTRY, context.instance_id)
    context.conditions.listen(
        lambda: registry.instances.note(own_key, 0, conditions=_conditions(context.conditions.held()))
    )
    HealthMonitor(registry, context.tasks, check_s=settings.check_s, own_key=own_key)
    supervisor = Supervisor(
        plan=make_plan(specs),
        processes=AsyncKeeperClient(context.paths.data_dir),
        readiness=board,
        wishes=StoredWishes(store),
        logs=LogTails(context.paths.data_dir),
        clock=clock,
        policy=SupervisionPolicy(ready_deadline=settings.ready_deadline_s, stop_deadline=settings.stop_deadline_s),
        external=(REGISTRY,),
        on_change=UnitNotes(registry).note,
    )
    return _Parts(registry, discovery, supervisor, EventPublisher(registry, outbox, REGISTRY))


def _mesh_contracts() -> Mapping[str, ContractShape]:
    known = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set(all_contracts()))
    return translate.shapes_of(known)


async def _still_there(record: InstanceRecord) -> bool:
    """Whether an instance of an earlier life may still serve: not when its process or its port is certainly gone.

    The port alone proves nothing, since another program may have it by now.
    """
    known = record.pid is not None and record.process_started is not None
    if known and start_ticks(record.pid or 0) != record.process_started:
        return False
    return await connects(record.host, record.port, PROBE_S) is not False


def _own_instance(context: ServiceContext, address: str) -> Present:
    host, _, port = address.rpartition(":")
    specs = specs_of((REGISTRY,))
    return Present(
        key=InstanceKey(REGISTRY, context.instance_id),
        host=host,
        port=int(port),
        contracts=tuple(sorted((*specs[0].serves, EVERYWHERE))),
        lease_id="",
        token=0,
        version=PROGRAM_VERSION,
        versions=versions(),
        attached_ns=context.clock.wall_ns(),
        pid=os.getpid(),
        serving=Serving.SERVING,
        ever_ready=True,
    )


def _note_withheld(context: ServiceContext, withheld: Mapping[str, tuple[str, ...]]) -> None:
    """A client that does not take what it is told works with an older view of the mesh; people should see that."""
    if not withheld:
        context.conditions.clear("DISCOVERY_REFUSED")
        return
    told = "; ".join(f"{client} does not take {', '.join(names)}" for client, names in sorted(withheld.items()))
    context.conditions.set("DISCOVERY_REFUSED", told)


def _conditions(held: Mapping[str, str]) -> tuple[Condition, ...]:
    return tuple(Condition(code, text) for code, text in sorted(held.items()))


def _note_address(paths: MeshPaths, address: str) -> None:
    """Names the registry's address for everyone who looks for this mesh; replaced in one step."""
    new = paths.mesh_file.with_suffix(".new")
    new.write_text(json.dumps({"address": address, "pid": os.getpid()}) + "\n", encoding="utf-8")
    new.replace(paths.mesh_file)
