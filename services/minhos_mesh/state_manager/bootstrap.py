"""Wires the state manager: one SQLite file down to the disk, a durable consumer of the bus, and the state of the first start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient, Reading, Subscription
from minhos_mesh.runtime.inbox import Inbox
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.storage import Database, Durability
from minhos_mesh.state_manager.domain.state import State
from minhos_mesh.state_manager.inbound import CONSUMER, Inbound
from minhos_mesh.state_manager.outbound import OutboxAnnouncer
from minhos_mesh.state_manager.service import StateManager
from minhos_mesh.state_manager.servicer import ERRORS, StateManagerServicer
from minhos_mesh.state_manager.store import MIGRATIONS

ATTEMPTS: Final = 100
"""How often a fact is tried: a projection must not lose one because the service died over it a few times."""
BUS_WAIT_S: Final = 5.0
"""How long the start waits for the bus before the service serves without it, DEGRADED."""
BUS_AWAY: Final = "EVENT_BUS_AWAY"


def initial_state(config: MeshConfig) -> State:
    """The state of the very first start."""
    engine = config.engine
    return State(auto_threshold=engine.auto_threshold, order_quantity=engine.order_quantity)


def auto_trade_configured(config: MeshConfig) -> bool:
    """Whether the machine may trade by itself from the first start: FULL_AUTO, and only on data that is not LIVE."""
    return config.engine.mode in {"auto", "FULL_AUTO"} and config.sierra_client.provenance != "LIVE"


@contextlib.asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Opens the store and serves the state. Raises StorageError when the file cannot be used."""
    path, config = context.paths.store_file(context.service), context.config
    async with Database(path, migrations=MIGRATIONS, durability=Durability.FULL, guard=context.fence()) as database:
        events = EventClient(context)
        outbox = Outbox(database, events)
        announcer = OutboxAnnouncer(outbox, events)
        manager = await StateManager.open(database, initial_state(config), announcer, context.clock, context.conditions)
        inbound = Inbound(manager, Inbox(CONSUMER))

        async def begin(subscription: Subscription) -> None:
            await subscription.opened.wait()
            await manager.go_online(auto_trade=auto_trade_configured(config))
            context.conditions.clear(BUS_AWAY)

        async def start() -> None:
            outbox.start(context.tasks)
            reading = Reading(durable=CONSUMER, from_beginning=True, max_attempts=ATTEMPTS)
            subscription = events.subscribe(inbound.handlers(), reading)
            beginning = context.tasks.start(begin(subscription), "state-begin")
            done, _ = await asyncio.wait({beginning}, timeout=BUS_WAIT_S)
            if not done:
                context.conditions.set(BUS_AWAY, "the event bus has not taken the subscription yet: nothing is heard")

        try:
            yield ServiceParts(servicers=[StateManagerServicer(manager)], errors=ERRORS, start=start)
        finally:
            manager.close()
