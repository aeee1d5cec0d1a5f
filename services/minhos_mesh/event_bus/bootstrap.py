"""Wires the bus: its journal in one SQLite file of the data folder, durable down to the disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.event_bus.servicer import ERRORS, EventBusServicer
from minhos_mesh.runtime import contracts, validation
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.storage import Database


@contextlib.asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Opens the journal and serves it. Raises StorageError when the file cannot be used."""
    path = context.paths.store_file(context.service)
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, context.clock, translate.same_content)
        await engine.start()
        async with EventBus(engine, context.clock) as bus:
            contracts.event_catalogue()
            validation.warm([event_pb2.Event()])
            yield ServiceParts(servicers=[EventBusServicer(bus, context.stopping)], errors=ERRORS)
