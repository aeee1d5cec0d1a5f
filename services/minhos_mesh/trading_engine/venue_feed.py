"""Decides how the venue's news come in: one after the other, resumed after every break, each fill booked once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.domain.errors import VenueUnavailable
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import Venue, VenueInfo, VenueNews, VenuePositionLost, VenueProgress
from minhos_mesh.trading_engine.reconcile import CONDITION, Reconciler
from minhos_mesh.trading_engine.store import VenueCursor

_LOG: Final = get_logger("trading_engine.venue_feed")
_BACKOFF: Final = Backoff(first=0.05, factor=2.0, limit=1.0)


class ProgressBoard:
    """How far the venue has gone in each symbol of a replay, and who waits for it."""

    def __init__(self) -> None:
        self._through: dict[str, tuple[int, int]] = {}
        self._moved = asyncio.Event()

    def note(self, progress: VenueProgress) -> None:
        """Take in how far the venue says it has gone; another epoch begins anew."""
        epoch, through = self._through.get(progress.symbol, (progress.epoch, 0))
        if epoch != progress.epoch:
            through = 0
        self._through[progress.symbol] = (progress.epoch, max(through, progress.through))
        self._moved.set()
        self._moved = asyncio.Event()

    def reached(self, symbol: str, epoch: int, sequence: int) -> bool:
        """Tell whether the venue has gone through this tick."""
        known_epoch, through = self._through.get(symbol, (epoch, -1))
        return known_epoch == epoch and through >= sequence

    async def wait(self, symbol: str, epoch: int, sequence: int, timeout_s: float) -> bool:
        """Wait until the venue has gone through a tick; False when it has not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.reached(symbol, epoch, sequence):
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True


class VenueFeed:
    """Reads the venue's stream for ever."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        venue: Venue,
        reconciler: Reconciler,
        progress: ProgressBoard,
        conditions: Conditions,
        on_info: Callable[[VenueInfo], Awaitable[None]],
    ) -> None:
        self.info: VenueInfo | None = None
        """Who the venue is, once it has said."""
        self.reconciled = asyncio.Event()
        """Set while the stream is open and everything before it was taken in."""
        self._ledger = ledger
        self._venue = venue
        self._reconciler = reconciler
        self._progress = progress
        self._conditions = conditions
        self._on_info = on_info

    async def run(self) -> None:
        """Follow the venue until cancelled. Every connection begins with a reconciliation."""
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except VenuePositionLost:
                _LOG.warning("venue.position_lost", revision=self._ledger.cursor.revision)
                self._ledger.note_cursor(VenueCursor(revision=0, fill_id=self._ledger.cursor.fill_id))
            except VenueUnavailable as error:
                failures = 1 if self.reconciled.is_set() else failures + 1
                self._conditions.set(CONDITION, f"the venue cannot be followed: {error}")
            finally:
                self.reconciled.clear()
            await asyncio.sleep(_BACKOFF.delay(max(failures, 1)))

    async def _follow(self) -> None:
        self.info = await self._venue.info()
        await self._on_info(self.info)
        cursor = self._ledger.cursor
        revision = await self._reconciler.everything()
        after = cursor.revision if 0 < cursor.revision <= revision else revision
        self.reconciled.set()
        self._conditions.clear(CONDITION)
        async with aclosing(self._venue.watch(after)) as stream:
            async for news in stream:
                await self._take(news)

    async def _take(self, news: VenueNews) -> None:
        """Take in one message in memory; the disk follows in the same order. The revision is written with a fill."""
        if news.fill is not None:
            cursor = VenueCursor(revision=max(news.revision, self._ledger.cursor.revision), fill_id=news.fill.fill_id)
            await self._reconciler.take_fill(news.fill, cursor)
        elif news.order is not None:
            await self._reconciler.take_view(news.order, wait=False)
        elif news.snapshot is not None:
            for view in news.snapshot:
                await self._reconciler.take_view(view, wait=False)
        elif news.progress is not None:
            self._progress.note(news.progress)
        self._ledger.reach(news.revision)
