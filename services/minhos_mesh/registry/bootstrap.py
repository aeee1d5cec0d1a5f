"""Wires the registry: its store, leases, discovery, supervision and health, on one fixed port."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.registry import translate
from minhos_mesh.registry.attach_limits import Bounds
from minhos_mesh.registry.contract_directory import ContractDirectory
from minhos_mesh.registry.contract_gate import ContractGate
from minhos_mesh.registry.contract_servicer import CONTRACT_ERRORS, ContractServicer
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Condition, Serving
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.supervision import Unit
from minhos_mesh.registry.facts import FactMakers
from minhos_mesh.registry.free_memory import FreeMemory
from minhos_mesh.registry.health_servicer import HealthMonitorServicer
from minhos_mesh.registry.last_addresses import LastAddresses
from minhos_mesh.registry.launches import rules_of
from minhos_mesh.registry.liveness import Liveness
from minhos_mesh.registry.mesh_addresses import MeshAddresses, port_before
from minhos_mesh.registry.mesh_services import EVERYWHERE, planned_services, specs_of
from minhos_mesh.registry.monitor import HealthMonitor
from minhos_mesh.registry.neighbours import MeshNeighbours
from minhos_mesh.registry.offered_events import OfferedEvents
from minhos_mesh.registry.outbox import Outbox
from minhos_mesh.registry.plan import make_plan
from minhos_mesh.registry.procfs import connects, start_ticks, started_ns
from minhos_mesh.registry.publisher import EventPublisher
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.resource_use import ResourceSampler
from minhos_mesh.registry.route_control import RouteControl
from minhos_mesh.registry.route_servicer import ROUTE_ERRORS, RouteServicer
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.servicer import ERRORS, RegistryServicer
from minhos_mesh.registry.store import InstanceRecord, RegistryStore
from minhos_mesh.registry.stores.choice import open_store
from minhos_mesh.registry.stores.local import MIGRATIONS
from minhos_mesh.registry.supervisor import Supervisor
from minhos_mesh.registry.supervisor_servicer import SupervisorServicer
from minhos_mesh.registry.traffic import Traffic
from minhos_mesh.registry.unit_notes import UnitNotes
from minhos_mesh.registry.wishes import StoredWishes
from minhos_mesh.runtime.attach import PROGRAM_VERSION, versions
from minhos_mesh.runtime.catalogue import REGISTRY
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.contracts import whole_set
from minhos_mesh.runtime.keeper_beat import keep_beating
from minhos_mesh.runtime.keeper_client import AsyncKeeperClient
from minhos_mesh.runtime.log_tail import LogTails
from minhos_mesh.runtime.storage import Database

PROBE_S: Final = 0.3
"""How long an instance of an earlier life may take to accept a connection."""


@dataclass(slots=True)
class _Parts:
    registry: Registry
    gate: ContractGate
    traffic: Traffic
    clock: Clock
    supervisor: Supervisor
    publisher: EventPublisher
    sampler: ResourceSampler


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the registry of one data folder; what an earlier life left is loaded and probed when it is entered."""
    database = Database(context.paths.store_file(REGISTRY), migrations=MIGRATIONS)
    async with database, open_store(context.config.registry, database) as store, AsyncExitStack() as supervision:
        parts = _wire(context, database, store)
        addresses = MeshAddresses(context.paths, context.config.registry.peers)
        await parts.traffic.routes.load(parts.registry.changed)
        await parts.registry.recover(_still_there)

        async def start() -> None:
            _collect_seldom()
            context.tasks.start(_beats(context, parts), "registry-beats")
            neighbours = MeshNeighbours(parts.registry, context.conditions, addresses.others_are)
            context.tasks.start(store.follow(neighbours), "registry-store")
            await store.announce(addresses.own)
            context.tasks.start(parts.registry.keep_time(), "registry-time")
            context.tasks.start(parts.publisher.run(), "registry-publisher")
            context.tasks.start(parts.sampler.run(), "registry-resources")
            context.tasks.start(FreeMemory(context.clock).run(), "registry-memory")
            parts.traffic.discovery.open()
            await supervision.enter_async_context(parts.supervisor)
            context.tasks.start(_liveness(context, parts).run(), "registry-liveness")

        async def drain() -> None:
            await supervision.aclose()
            await parts.registry.end_in_order()
            parts.registry.close()
            parts.traffic.discovery.close()

        def bound(address: str) -> None:
            addresses.own_is(address)
            parts.registry.add_unleased(_own_instance(context, address))

        settings = context.config.registry
        yield ServiceParts(
            servicers=[
                RegistryServicer(parts.registry, heartbeat_s=settings.heartbeat_s),
                SupervisorServicer(parts.supervisor),
                HealthMonitorServicer(parts.registry),
                RouteServicer(_route_control(parts)),
                ContractServicer(ContractDirectory(parts.registry, parts.gate), OfferedEvents(parts.gate)),
            ],
            errors={**ERRORS, **ROUTE_ERRORS, **CONTRACT_ERRORS},
            start=start,
            drain=drain,
            port=context.config.mesh.port or port_before(context.paths),
            handlers=[parts.traffic.discovery.handler()],
            attach=False,
            bound=bound,
        )


def _collect_seldom() -> None:
    """A full collection over a thousand instances would stop all heartbeats for a fifth of a second: what is here now
    stays for good, and the few cycles that come later may wait.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _liveness(context: ServiceContext, parts: _Parts) -> Liveness:
    def deadline_s(service: str) -> float:
        return parts.supervisor.policy_of(service).liveness_deadline

    return Liveness(parts.registry.instances.of_service, parts.supervisor, context.clock, deadline_s=deadline_s)


def _beats(context: ServiceContext, parts: _Parts) -> Coroutine[Any, Any, None]:
    """The registry has nobody but its keeper to watch over it."""
    silence_s = parts.supervisor.policy_of(REGISTRY).liveness_deadline
    return keep_beating(AsyncKeeperClient(context.paths.data_dir), context.instance_id, silence_s, context.clock)


def _route_control(parts: _Parts) -> RouteControl:
    return RouteControl(parts.registry, parts.traffic.routes, parts.clock, parts.traffic.discovery.settled)


def _wire(context: ServiceContext, database: Database, store: RegistryStore) -> _Parts:
    settings, clock = context.config.registry, context.clock
    outbox, board = Outbox(database), ReadinessBoard()
    traffic = Traffic(store.documents, context.conditions, clock, context.config.routing)
    planned = planned_services(context.config)
    specs, rules = specs_of(planned, context.config), rules_of(context.config, context.paths)
    gate = ContractGate(resolve(whole_set()), PROGRAM_VERSION)
    registry = Registry(
        store=store,
        outbox=outbox,
        clock=clock,
        contracts=translate.shapes_of(gate.mesh),
        shapes=translate.shapes_of,
        gate=gate,
        specs=specs,
        facts=FactMakers(translate.health_facts, translate.started_fact, translate.stopped_fact),
        publish=traffic.publish,
        routes=traffic.routes.rules,
        board=board,
        tasks=context.tasks,
        settled=traffic.discovery.settled,
        lease_seconds=settings.lease_s,
        own_service=REGISTRY,
        bounds=Bounds(settings.max_instances_of_service, settings.max_silent_streams),
    )
    registry.on_arrival(LastAddresses(context.paths, planned).note)
    own_key = InstanceKey(REGISTRY, context.instance_id)
    context.conditions.listen(
        lambda: registry.instances.note(own_key, 0, conditions=_conditions(context.conditions.held()))
    )
    sampler = ResourceSampler(registry.instances.present.values, clock)
    registry.uses = sampler.uses
    HealthMonitor(registry, context.tasks, check_s=settings.check_s, own_key=own_key)
    notes = UnitNotes(registry, lambda service: rules.policies[service].watched_only is not None)

    def on_change(unit: Unit) -> None:
        notes.note(unit)
        registry.turns.look()

    supervisor = Supervisor(
        plan=make_plan(specs),
        processes=AsyncKeeperClient(context.paths.data_dir),
        readiness=board,
        wishes=StoredWishes(store),
        logs=LogTails(context.paths.data_dir),
        clock=clock,
        policies=rules.policies,
        instances=rules.instances,
        launches=rules.launches,
        external=(REGISTRY,),
        attached=lambda service: any(not present.gone for present in registry.instances.of_service(service)),
        on_change=on_change,
    )
    registry.turns.processes = supervisor.instances_with_process
    return _Parts(registry, gate, traffic, clock, supervisor, EventPublisher(registry, outbox, REGISTRY), sampler)


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
    ticks = start_ticks(os.getpid())
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
        process_started=ticks,
        started_ns=None if ticks is None else started_ns(ticks),
        serving=Serving.SERVING,
        ever_ready=True,
    )


def _conditions(held: Mapping[str, str]) -> tuple[Condition, ...]:
    return tuple(Condition(code, text) for code, text in sorted(held.items()))
