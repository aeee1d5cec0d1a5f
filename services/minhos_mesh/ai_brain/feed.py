"""Brings market data to the brain: primed from bars of the past, or in a replay from the very first tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minhos_api.brain.v1 import signal_pb2
from minhos_mesh.ai_brain.service import Brain
from minhos_mesh.runtime.market import (
    FROM_START,
    EpochChanged,
    Gap,
    MarketClient,
    MarketSubscription,
    SlowReader,
    Snapshot,
    TickBatchView,
)

BARS_BACK: Final = 1_500
"""Closed bars that the brain is primed with: a day of minutes and a little more."""


class BrainFeed:
    """Reads all symbols for one brain."""

    def __init__(
        self, market: MarketClient, brain: Brain[signal_pb2.Signal], symbols: tuple[str, ...], *, replay: bool
    ) -> None:
        self._market, self._brain, self._symbols, self._replay = market, brain, symbols, replay

    async def run(self, ready: Callable[[], None]) -> None:
        """Reads until cancelled; `ready` is called when the way to market data stands."""
        subscription = self._subscribe()
        waiting = set(self._symbols)
        async with subscription:
            async for update in subscription:
                if isinstance(update, TickBatchView):
                    await self._take(subscription, update)
                elif isinstance(update, Snapshot):
                    self._prime(update)
                elif isinstance(update, Gap):
                    self._brain.gap(update.symbol)
                elif isinstance(update, EpochChanged):
                    self._brain.begin(update.symbol, update.epoch, update.provenance)
                waiting.discard(getattr(update, "symbol", ""))
                if not waiting or self._replay:
                    ready()

    def _subscribe(self) -> MarketSubscription:
        if self._replay:
            start = dict.fromkeys(self._symbols, FROM_START)
            return self._market.subscribe(
                self._symbols, policy=SlowReader.LOSSLESS, resume=start, reports_progress=True
            )
        return self._market.subscribe(self._symbols, bars_back=BARS_BACK)

    async def _take(self, subscription: MarketSubscription, batch: TickBatchView) -> None:
        await self._brain.add(batch.symbol, batch.epoch, batch.provenance, batch.ticks, batch.first_sequence)
        if self._replay:
            await subscription.progress(batch.symbol, batch.last_sequence)

    def _prime(self, snapshot: Snapshot) -> None:
        if snapshot.position is None or snapshot.quote is None:
            return
        self._brain.prime(
            snapshot.symbol,
            snapshot.position.epoch,
            snapshot.provenance,
            snapshot.position.sequence,
            snapshot.quote.event_time_ns,
            snapshot.bars,
            snapshot.open_bar,
        )
