"""Wires the paper venue: its store, its rules from the configuration, the market and the engine's progress."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from minhos_mesh.matching import MatchingRules
from minhos_mesh.paper_venue.domain.exchange import Exchange
from minhos_mesh.paper_venue.feed import MarketFeed, follow_engine
from minhos_mesh.paper_venue.service import PaperVenue
from minhos_mesh.paper_venue.store import MIGRATIONS
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.market import MarketClient
from minhos_mesh.runtime.memory import READER_BYTES, keep_freed_memory
from minhos_mesh.runtime.storage import Database
from minhos_mesh.venue.error_table import ERRORS
from minhos_mesh.venue.servicer import VenueServicer

TIME_STEP_S = 1.0
"""How often sessions are looked at when no tick comes."""


def exchange_of(config: MeshConfig) -> Exchange:
    """The venue that the configuration asks for, empty. Raises SymbolError or InstrumentError."""
    section = config.paper_venue
    rules = MatchingRules(
        max_quote_age_ns=round(section.max_quote_age_s * 1e9),
        slippage_ticks=section.slippage_ticks,
        commission_per_contract_e9=section.commission,
    )
    specs = {symbol: config.spec(symbol) for symbol in config.symbols() if config.spec(symbol).tradeable}
    return Exchange(specs, rules, initial_cash_e9=section.initial_cash, latency_ns=section.latency_ms * 1_000_000)


async def keep_time(venue: PaperVenue, clock: Clock) -> None:
    """Let time pass for the venue until cancelled."""
    while True:
        await clock.sleep_until(clock.monotonic() + TIME_STEP_S)
        await venue.on_time()


async def watch_disk(venue: PaperVenue) -> None:
    """Fail when the disk did, so that the process ends and starts again from what is on it."""
    await venue.failed


@contextlib.asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Build the venue of one mesh. Raises StorageError when its file cannot be used."""
    keep_freed_memory(READER_BYTES)
    config = context.config
    path = context.paths.store_file(context.service)
    async with Database(path, migrations=MIGRATIONS, guard=context.fence()) as database:
        exchange = exchange_of(config)
        venue = PaperVenue(exchange, database, context.clock)
        await venue.recover()
        feed = MarketFeed(venue, MarketClient(context), tuple(exchange.markets), replay=config.replay())
        events = EventClient(context)

        async def start() -> None:
            context.tasks.start(watch_disk(venue), "venue-disk")
            context.tasks.start(keep_time(venue, context.clock), "venue-time")
            context.tasks.start(feed.run(), "venue-market")
            if config.replay():
                venue.report = feed.report
                follow_engine(venue, events)

        async def drain() -> None:
            venue.close()

        yield ServiceParts(servicers=[VenueServicer(venue)], errors=ERRORS, start=start, drain=drain)
