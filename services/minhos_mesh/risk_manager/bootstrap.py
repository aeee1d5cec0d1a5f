"""Wires the risk manager: its store with inbox and outbox, limits from the configuration, facts, prices and the state."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.limits import RiskLimits
from minhos_mesh.risk_manager.feed import OutboxAnnouncer, follow_account, follow_prices, follow_state
from minhos_mesh.risk_manager.service import RiskManager
from minhos_mesh.risk_manager.servicer import ERRORS, RiskManagerServicer
from minhos_mesh.risk_manager.store import MIGRATIONS
from minhos_mesh.risk_manager.watch import StopsWatch
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.market import MarketClient
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.state import StateFollower
from minhos_mesh.runtime.storage import Database

STATE_WAIT_S: Final = 5.0
"""How long the start waits for the first state; without it the service refuses what is no reduction, DEGRADED."""


def desk_of(config: MeshConfig) -> RiskDesk:
    """The state of risk that the configuration asks for, before anything has happened."""
    section = config.risk
    limits = RiskLimits(
        max_order_quantity=section.max_order_quantity,
        max_position=section.max_position,
        max_open_positions=section.max_open_positions,
        max_exposure_e9=section.max_exposure,
        max_daily_loss_e9=section.max_daily_loss,
        max_drawdown_e9=section.max_drawdown,
        price_collar_ticks=section.price_collar_ticks,
        max_price_age_ns=round(section.max_price_age_s * 1e9),
        max_orders_per_minute=section.max_orders_per_minute,
    )
    return RiskDesk(
        limits=limits,
        limits_version=0,
        breaker=Breaker(),
        specs=config.specs(),
        approval_ns=round(section.approval_s * 1e9),
        replay=config.replay(),
    )


async def watch_disk(risk: RiskManager) -> None:
    """Fail when the disk did, so that the process ends and starts again from what is on it."""
    await risk.failed


@contextlib.asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Build the risk manager of one mesh. Raises StorageError when its file cannot be used."""
    config = context.config
    path = context.paths.store_file(context.service)
    async with Database(path, migrations=MIGRATIONS, guard=context.fence()) as database:
        events = EventClient(context)
        outbox = Outbox(database, events)
        announcer = OutboxAnnouncer(events, outbox)
        desk = desk_of(config)
        risk = RiskManager(desk, database, announcer, context.clock, context.conditions, replay=config.replay())
        await risk.recover()
        watch = StopsWatch(desk, config.symbols(), context.clock, context.conditions, risk.look_at_losses)

        async def start() -> None:
            context.tasks.start(watch_disk(risk), "risk-disk")
            outbox.start(context.tasks)
            follow_account(risk, events)
            context.tasks.start(follow_prices(risk, MarketClient(context), config.symbols()), "risk-market")
            context.tasks.start(watch.run(), "risk-stops")
            state = StateFollower(context)
            follow_state(risk, state)
            with contextlib.suppress(TimeoutError):  # the follower's condition tells it
                await state.wait_first(STATE_WAIT_S)

        yield ServiceParts(servicers=[RiskManagerServicer(risk)], errors=ERRORS, start=start, drain=risk.close)
