"""Wires market data: configuration, clock, event bus, history and the four contracts that it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.market_data.announcer import BusAnnouncer
from minhos_mesh.market_data.history import History
from minhos_mesh.market_data.history_workers import HistoryWorkers
from minhos_mesh.market_data.live_bars import LiveBars
from minhos_mesh.market_data.recorder import Recorder
from minhos_mesh.market_data.recording import keep_recording
from minhos_mesh.market_data.service import MarketDataService, Settings
from minhos_mesh.market_data.servicer import ERRORS, MarketDataIngestServicer, MarketDataProviderServicer
from minhos_mesh.market_data.servicer_history import HISTORY_ERRORS, HistoryServicer
from minhos_mesh.market_data.servicer_instruments import INSTRUMENT_ERRORS, InstrumentServicer
from minhos_mesh.market_data.translate import StreamEncoder
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.memory import SERVER_BYTES, keep_freed_memory

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
    keep_freed_memory(SERVER_BYTES)
    config, places = context.config, HistoryPlaces(context.paths.history_dir)
    recorder = Recorder(places, config.market_data.record, context.conditions)
    service = MarketDataService(
        settings_of(config), context.clock, context.conditions, StreamEncoder(context.clock.monotonic), recorder
    )
    workers = HistoryWorkers(places.root)
    history = History(service, recorder, workers)
    announcer = BusAnnouncer(EventClient(context))

    async def start() -> None:
        context.tasks.start(service.keep_house(), "market-data-house")
        context.tasks.start(service.announce(announcer), "market-data-announce")
        keep_days = config.market_data.keep_invented_days
        context.tasks.start(keep_recording(service, recorder, workers, keep_days=keep_days), "market-data-history")

    try:
        yield ServiceParts(
            servicers=[
                MarketDataProviderServicer(service, LiveBars(context.clock, recorder, workers)),
                MarketDataIngestServicer(service),
                HistoryServicer(history),
                InstrumentServicer(config.specs(), config.primary(), context.clock),
            ],
            errors={**ERRORS, **HISTORY_ERRORS, **INSTRUMENT_ERRORS},
            start=start,
        )
    finally:
        service.close()
        for standing in service.standings.values():
            recorder.flush(standing.live.feed)
        recorder.close()
        await workers.close()
