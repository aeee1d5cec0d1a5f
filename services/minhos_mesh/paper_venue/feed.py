"""Decides how the market reaches the venue: as it comes, or in a replay held back tick by tick for the engine."""

from __future__ import annotations

from minhos_api.trading.v1 import trading_events_pb2
from minhos_mesh.paper_venue.service import PaperVenue
from minhos_mesh.runtime.events import EventClient, Reading
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.market import (
    FROM_START,
    EpochChanged,
    Gap,
    MarketClient,
    MarketKind,
    MarketSubscription,
    MarketUpdate,
    Position,
    SlowReader,
    Snapshot,
    TickBatchView,
)

_LOG = get_logger("paper_venue.feed")


class MarketFeed:
    """The reader of market data of one venue."""

    def __init__(self, venue: PaperVenue, client: MarketClient, symbols: tuple[str, ...], *, replay: bool) -> None:
        self._venue = venue
        self._client = client
        self._symbols = symbols
        self._replay = replay
        self._subscription: MarketSubscription | None = None

    async def run(self) -> None:
        """Read until cancelled. Raises SubscriptionRefused when market data does not give a symbol in this way."""
        async with self._subscribe() as subscription:
            self._subscription = subscription
            async for update in subscription:
                await self._take(update)

    def _subscribe(self) -> MarketSubscription:
        if not self._replay:
            return self._client.subscribe(self._symbols, {MarketKind.TICKS}, SlowReader.GAP)
        places = {symbol: self._venue.place(symbol) for symbol in self._symbols}
        resume = {symbol: Position(*place) if place is not None else FROM_START for symbol, place in places.items()}
        return self._client.subscribe(
            self._symbols, {MarketKind.TICKS}, SlowReader.LOSSLESS, resume=resume, reports_progress=True
        )

    async def _take(self, update: MarketUpdate) -> None:
        if isinstance(update, TickBatchView):
            await self._venue.on_batch(update)
        elif isinstance(update, EpochChanged):
            self._venue.on_epoch(update.symbol, update.epoch, update.provenance)
        elif isinstance(update, Snapshot):
            quote = update.quote
            if quote is not None and not self._replay:
                self._venue.on_snapshot(
                    update.symbol,
                    quote.epoch,
                    quote.provenance,
                    quote.sequence,
                    quote.event_time_ns,
                    (quote.bid_e9, quote.ask_e9, quote.bid_size, quote.ask_size),
                )
        elif isinstance(update, Gap):
            _LOG.warning(
                "venue.gap",
                symbol=update.symbol,
                epoch=update.epoch,
                first=update.first_sequence,
                last=update.last_sequence,
            )

    async def report(self, symbol: str, sequence: int) -> None:
        """Tell market data that all ticks up to here are done with, so that a replay may go on."""
        if self._subscription is not None:
            await self._subscription.progress(symbol, sequence)


def follow_engine(venue: PaperVenue, events: EventClient) -> None:
    """Go on in a replay as the engine says; the newest word of each symbol says everything, also after a restart."""

    async def progressed(_: object, payload: trading_events_pb2.TradingProgressed) -> None:
        await venue.on_progress(payload.symbol, payload.epoch, payload.through_sequence)

    reading = Reading(latest_per_subject=True, from_beginning=True)
    events.subscribe({trading_events_pb2.TradingProgressed: progressed}, reading)
