"""Wires market data: configuration, clock, event bus and the two contracts that it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from minhos_mesh.market_data.announcer import BusAnnouncer
from minhos_mesh.market_data.domain.validation import Rules
from minhos_mesh.market_data.service import MarketDataService, Settings
from minhos_mesh.market_data.servicer import ERRORS, MarketDataIngestServicer, MarketDataProviderServicer
from minhos_mesh.market_data.translate import StreamEncoder
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient

CATCH_UP_S: Final = 0.5
"""Less than a question may take; the source needs some tens of milliseconds."""


def settings_of(config: MeshConfig) -> Settings:
    """What the configuration asks of market data. Raises SymbolError or InstrumentError."""
    return Settings(
        rules={symbol: Rules(tick_e9=config.spec(symbol).tick_e9) for symbol in config.symbols()},
        primary=config.primary(),
        ring_ticks=config.market_data.ring_ticks,
        max_tick_age_s=config.market_data.max_tick_age_s,
        catch_up_s=CATCH_UP_S,
    )


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the service of one mesh."""
    service = MarketDataService(settings_of(context.config), context.clock, context.conditions, StreamEncoder())
    announcer = BusAnnouncer(EventClient(context))

    async def start() -> None:
        context.tasks.start(service.keep_house(), "market-data-house")
        context.tasks.start(service.announce(announcer), "market-data-announce")

    try:
        yield ServiceParts(
            servicers=[MarketDataProviderServicer(service), MarketDataIngestServicer(service)],
            errors=ERRORS,
            start=start,
        )
    finally:
        service.close()
