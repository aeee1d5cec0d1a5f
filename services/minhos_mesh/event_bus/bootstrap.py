"""Wires the bus: its journal, what reads and publishes, what operates it, and what forgets."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import AsyncIterator

from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.contract_service_pb2_grpc import ContractServiceStub
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.admin import EventAdmin
from minhos_mesh.event_bus.domain.retention import Limits
from minhos_mesh.event_bus.engines.opening import open_engine
from minhos_mesh.event_bus.event_types import EventTypes
from minhos_mesh.event_bus.offers import Offers
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.event_bus.retention import Retention
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.event_bus.servicer import ERRORS, EventBusServicer
from minhos_mesh.event_bus.servicer_admin import EventAdminServicer
from minhos_mesh.runtime import contracts, validation
from minhos_mesh.runtime.config_sections import EventBusSection
from minhos_mesh.runtime.context import ServiceContext, ServiceParts


@contextlib.asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Opens the journal and serves it. Raises StorageError when it cannot be used."""
    payloads = Payloads()
    contracts.event_catalogue()
    async with contextlib.AsyncExitStack() as stack:
        same = functools.partial(translate.same_content, payloads)
        engine = await stack.enter_async_context(open_engine(context, same))
        types = EventTypes(payloads, engine, _offers(context), context.clock, context.conditions)
        bus = await stack.enter_async_context(EventBus(engine, context.clock, context.conditions, types))
        validation.warm([event_pb2.Event()])
        retention = Retention(bus, limits_of(context.config.event_bus), context.clock, context.conditions)
        admin = EventAdmin(bus, retention, context.clock, context.paths.data_dir / "backup")

        async def start() -> None:
            _collect_seldom()
            context.tasks.start(retention.run(), "event_bus-retention")
            context.tasks.start(types.run(), "event_bus-types")

        servicers = [EventBusServicer(bus, context.stopping), EventAdminServicer(admin, types)]
        yield ServiceParts(servicers=servicers, errors=ERRORS, start=start)


def _collect_seldom() -> None:
    """A full collection over all that a start has made stops every publisher and reader for some 30 ms: it stays for good, and
    the few cycles that come later may wait. Events are no cycles, they go when nobody holds them.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _offers(context: ServiceContext) -> Offers | None:
    """The way to what instances offer, where there is a registry."""
    if not context.clients.reaches(ContractServiceStub):
        return None
    return Offers(context.clients.stub(ContractServiceStub))


def limits_of(section: EventBusSection) -> Limits:
    """The limits of the journal as they are configured."""

    def ns(hours: float) -> int | None:
        return int(hours * 3_600 * 1e9) if hours else None

    return Limits(
        max_age_ns=ns(section.max_age_h),
        max_bytes=section.max_mb * 1_000_000 or None,
        max_events=section.max_events_per_type or None,
        max_events_of=section.max_events_of,
        unacked_max_age_ns=ns(section.unacked_max_age_h),
        unacked_max_bytes=section.unacked_max_mb * 1_000_000 or None,
        keep_ns=int(section.keep_s * 1e9),
    )
