"""Decides how order books over DTC reach market data: the newest book of each symbol, at a bounded rate, tried for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from minhos_mesh.dtc.depth_updates import BookLevel, BookUpdate
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.depth_feed import PACE_S, DepthPort, DepthStatus, DepthWay, keep_sending
from minhos_mesh.sierra_client.domain import Provenance, next_epoch
from minhos_mesh.sierra_client.ports import Opening
from minhos_mesh.sierra_files.depth_book import BookView, Level

SOURCE = "dtc"
"""Where a book comes from, in the place of the name of a file."""

_LOG = get_logger("sierra_client.dtc")


class DtcDepth:
    """The order books of one connection; what the server refuses comes from `.depth` files where there are some."""

    def __init__(
        self,
        symbols: Sequence[str],
        provenance: Provenance,
        *,
        ingest: DepthPort,
        clock: Clock,
        tasks: OwnedTasks,
        randomness: random.Random | None = None,
    ) -> None:
        """`symbols` are canonical."""
        self.refused: dict[str, str] = {}
        """The server's words by canonical symbol."""
        self.fall_back: Callable[[str], None] = lambda _: None
        """Called with a symbol whose `.depth` files are to be followed instead."""
        self.live_refused: Callable[[str], str] = lambda _: ""
        """Why books of a symbol cannot count as LIVE."""
        self._provenance = provenance
        self._ingest, self._clock, self._tasks = ingest, clock, tasks
        self._random = randomness or random.Random()
        self._newest: dict[str, BookView] = {}
        self._news: dict[str, asyncio.Event] = {}
        waits = "the server has not told the whole book yet"
        self._status = {symbol: DepthStatus(symbol, file=SOURCE, reason=waits) for symbol in symbols}

    def take(self, symbol: str, update: BookUpdate) -> None:
        """Takes the book of a canonical symbol as it is now."""
        before = self._status.get(symbol)
        if before is None or symbol in self.refused:
            return
        self._newest[symbol] = BookView(update.time_ns, _levels(update.bids), _levels(update.asks))
        self._status[symbol] = replace(before, books_read=before.books_read + 1, event_time_ns=update.time_ns)
        if symbol not in self._news:
            self._news[symbol] = asyncio.Event()
            self._tasks.start(self._send(symbol), f"order book of DTC {symbol}")
        self._news[symbol].set()

    def refuse(self, symbol: str, text: str) -> None:
        """Takes the server's refusal; what it has granted before stays where it is."""
        if symbol in self._status and symbol not in self.refused and symbol not in self._news:
            self.refused[symbol] = text
            _LOG.warning("dtc.depth_refused", symbol=symbol, reason=text)
            self.fall_back(symbol)

    def status(self) -> tuple[DepthStatus, ...]:
        """What is known of each symbol that is not refused."""
        return tuple(status for symbol, status in self._status.items() if symbol not in self.refused)

    async def _send(self, symbol: str) -> None:
        epoch = next_epoch(None, self._clock.wall_ns())
        opening = Opening(f"sierra_client:{SOURCE}/{symbol}", symbol, self._provenance, epoch)
        await keep_sending(
            self._ingest,
            opening,
            lambda way: self._pump(symbol, way),
            sent=lambda: self._status[symbol].books_sent,
            say=lambda reason: self._say(symbol, reason),
            randomness=self._random,
        )

    async def _pump(self, symbol: str, way: DepthWay) -> None:
        """Sends the newest book again and again. Raises IngestLost, IngestRefused."""
        told, news = 0, self._news[symbol]
        while True:
            read = self._status[symbol].books_read
            if read == told:
                news.clear()
                await news.wait()
                continue
            told = read
            refused = self.live_refused(symbol) if self._provenance is Provenance.LIVE else ""
            self._say(symbol, refused)
            if not refused:
                await way.send(self._newest[symbol], read, self._clock.wall_ns())
                status = self._status[symbol]
                self._status[symbol] = replace(status, books_sent=status.books_sent + 1)
            await asyncio.sleep(PACE_S)

    def _say(self, symbol: str, reason: str) -> None:
        self._status[symbol] = replace(self._status[symbol], reason=reason)


def _levels(levels: Sequence[BookLevel]) -> tuple[Level, ...]:
    return tuple(Level(level.price_e9, level.quantity, level.orders) for level in levels)
