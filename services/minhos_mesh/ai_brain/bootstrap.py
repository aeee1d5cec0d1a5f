"""Builds the AI brain from its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.ai_brain.feed import BrainFeed
from minhos_mesh.ai_brain.journal import SignalJournal
from minhos_mesh.ai_brain.service import Brain, Teller
from minhos_mesh.ai_brain.servicer import ERRORS, AIBrainServicer
from minhos_mesh.ai_brain.teller import EventTeller
from minhos_mesh.ai_brain.translate import signal_to_proto
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.market import MarketClient
from minhos_mesh.runtime.memory import READER_BYTES, keep_freed_memory

PRIME_S: Final = 10.0
"""How long the first word of market data is waited for."""

RECALL_S: Final = 3.0
"""How long the start waits for the signals of before; without them the brain goes on, degraded."""


@contextlib.asynccontextmanager
async def build(context: ServiceContext, *, teller: Teller | None = None) -> AsyncIterator[ServiceParts]:
    """Wires the brain to market data and the event bus."""
    keep_freed_memory(READER_BYTES)
    config = context.config
    section, replay = config.brain, config.replay()
    thresholds = tuple(sorted((section.min_confidence, config.engine.auto_threshold)))
    brain = Brain(
        {symbol: config.spec(symbol).tick_e9 for symbol in config.symbols()},
        primary=config.primary(),
        periods=Periods(
            fast=section.fast_bars,
            slow=section.slow_bars,
            rsi=section.rsi_bars,
            volatility=section.volatility_bars,
            volume=section.volume_bars,
            pattern=section.slow_bars,
        ),
        thresholds=thresholds,
        max_price_age_s=section.max_price_age_s,
        replay=replay,
        clock=context.clock,
        teller=teller or EventTeller(EventClient(context)),
        say=signal_to_proto,
        step_ns=round(section.step_s * 1e9),
    )
    feed = BrainFeed(MarketClient(context), brain, config.symbols(), replay=replay)

    journal = SignalJournal(context, brain, thresholds)

    async def start() -> None:
        recalled = context.tasks.start(journal.recall(), "signals-of-before")
        await asyncio.wait({recalled}, timeout=RECALL_S)
        primed = asyncio.Event()
        context.tasks.start(feed.run(primed.set), "market-data")
        if not replay:
            async with asyncio.timeout(PRIME_S):
                await primed.wait()

    yield ServiceParts(servicers=[AIBrainServicer(brain)], errors=ERRORS, start=start)
    brain.signals.close()
