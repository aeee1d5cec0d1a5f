"""Decides how market data over DTC reaches the mesh: written down as Sierra Chart would, and followed like any file of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from minhos_mesh.dtc.depth_updates import BookUpdate
from minhos_mesh.dtc.enums import BuySell, UnbundledTrade
from minhos_mesh.dtc.market_updates import MarketUpdate, QuoteUpdate, TradeUpdate
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.dtc_depth import DtcDepth
from minhos_mesh.sierra_client.dtc_view import DtcData
from minhos_mesh.sierra_client.feed import FeedSettings, FeedStatus, FileFeed
from minhos_mesh.sierra_client.ports import IngestPort
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.wakeups import FolderWakeups
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, SUFFIX, empty_records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.writer import ScidWriter

FOLDER: Final = "dtc"
"""Folder of the data folder in which trades that came over DTC are kept."""
LONGEST_FILE: Final = 2_000_000
"""Records; a longer file is begun anew at the next start, as another generation."""

_LOG = get_logger("sierra_client.dtc")
_MARKS: Final = {
    UnbundledTrade.FIRST: MARK_FIRST,
    UnbundledTrade.LAST: MARK_LAST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is asked for."""

    ticks_e9: Mapping[str, int]
    """Price step by canonical symbol."""
    names: Mapping[str, str]
    """The server's own name by canonical symbol."""
    folder: Path
    provenance: Provenance
    history_ns: int


class TradeFile:
    """The file of one symbol: its trades with the quote before each, times strictly rising."""

    def __init__(self, folder: Path, symbol: str) -> None:
        self.path = folder / f"{symbol}{SUFFIX}"
        self._writer: ScidWriter | None = None
        self._last_us = 0
        self._quote: QuoteUpdate | None = None

    def quote(self, update: QuoteUpdate) -> None:
        """Notes the quote that the next trade meets."""
        self._quote = update

    def begin(self) -> None:
        """Makes the file if it is not there, so that it can be followed before the first trade. Raises ScidError."""
        self._opened()

    def trade(self, update: TradeUpdate, receive_ns: int) -> None:
        """Appends a trade. Raises ScidError; nothing is written then."""
        writer = self._opened()
        record, quote, size = empty_records(1), self._quote, update.size or 0
        event_us = (receive_ns if update.time_ns is None else update.time_ns) // 1000 + EPOCH_SHIFT_US
        self._last_us = max(event_us, self._last_us + 1)
        record["time_us"] = self._last_us
        if update.unbundled in _MARKS:
            record["open"].view("<u4")[0] = _MARKS[update.unbundled]
        record["close"] = update.price_e9 / E9
        record["low"] = 0 if quote is None or quote.bid_e9 is None else quote.bid_e9 / E9
        record["high"] = 0 if quote is None or quote.ask_e9 is None else quote.ask_e9 / E9
        record["num_trades"] = 1
        record["total_volume"] = size
        record["ask_volume"] = size if update.aggressor is BuySell.BUY else 0
        record["bid_volume"] = size if update.aggressor is BuySell.SELL else 0
        writer.append(record)

    def close(self) -> None:
        """Gives the file back; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> ScidWriter:
        if self._writer is None:
            self._writer = self._resumed() or ScidWriter.create(self.path)
        return self._writer

    def _resumed(self) -> ScidWriter | None:
        if not self.path.exists():
            return None
        with ScidFile(self.path) as file:
            count = file.count()
            last = file.read(max(0, count - 1), 1)
        if count > LONGEST_FILE:
            return None
        self._last_us = int(last["time_us"][0]) if len(last) else 0
        return ScidWriter.resume(self.path)


class DtcMarketData:
    """Market data of one connection. A symbol that the server refused once comes from its file for the life of the process."""

    def __init__(
        self,
        settings: DataSettings,
        *,
        store: SourceStore,
        ingest: IngestPort,
        clock: Clock,
        tasks: OwnedTasks,
        randomness: random.Random | None = None,
        depth: DtcDepth | None = None,
    ) -> None:
        """`depth` takes order books; None where none are asked for."""
        self.settings = settings
        self.depth = depth
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change of state."""
        self.fall_back: Callable[[str], None] = lambda _: None
        """Called with a canonical symbol when its file is to be followed instead."""
        self.live_refused: Callable[[str], str] = lambda _: ""
        """Why ticks of a symbol cannot count as LIVE."""
        self.refused: dict[str, str] = {}
        """The server's words by canonical symbol."""
        self._clock, self._tasks = clock, tasks
        self._store, self._ingest = store, ingest
        self._random = randomness or random.Random()
        self._wakeups = FolderWakeups(settings.folder)
        self._symbols = {name: symbol for symbol, name in settings.names.items()}
        self._files = {symbol: TradeFile(settings.folder, symbol) for symbol in settings.ticks_e9}
        self._feeds: dict[str, FileFeed] = {}
        self._ticks: dict[str, int] = {}

    def start(self) -> None:
        """Makes the folder and listens to it."""
        self.settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wakeups.start()

    def close(self) -> None:
        """Gives files back; the group's tasks must have ended."""
        self._wakeups.close()
        for file in self._files.values():
            file.close()

    def take(self, update: MarketUpdate | BookUpdate) -> None:
        """Takes a trade, a quote or a book; the first trade or quote of a symbol shows that the server grants it."""
        symbol = self._symbols.get(update.symbol, "")
        if isinstance(update, BookUpdate):
            if self.depth is not None and symbol not in self.refused:
                self.depth.take(symbol, update)
            return
        file = self._files.get(symbol)
        if file is None or symbol in self.refused:
            return
        if symbol not in self._feeds:
            self._follow(symbol)
        if isinstance(update, QuoteUpdate):
            file.quote(update)
            return
        try:
            file.trade(update, self._clock.wall_ns())
            self._ticks[symbol] = self._ticks.get(symbol, 0) + 1
        except ScidError as error:
            _LOG.error("dtc.trade_not_written", symbol=symbol, problem=str(error))

    def refuse(self, not_permitted: Mapping[str, str]) -> None:
        """Takes the server's refusals, by its own names; what it has granted before stays where it is."""
        for name, text in not_permitted.items():
            symbol = self._symbols.get(name, "")
            if symbol in self._files and symbol not in self.refused and symbol not in self._feeds:
                self.refused[symbol] = text
                _LOG.warning("dtc.data_refused", symbol=symbol, reason=text)
                self.fall_back(symbol)

    def refuse_depth(self, not_permitted: Mapping[str, str]) -> None:
        """Takes the server's refusals of order books, by its own names; a symbol of no data comes from its files anyway."""
        for name, text in not_permitted.items():
            symbol = self._symbols.get(name, "")
            if self.depth is not None and symbol not in self.refused:
                self.depth.refuse(symbol, text)

    def refuse_all(self, text: str) -> None:
        """Takes the refusal of a logon that grants no market data at all."""
        self.refuse({self.settings.names[symbol]: text for symbol in self._files})

    def feeds(self) -> list[FeedStatus]:
        """How far what came has gone to market data."""
        return [feed.status for feed in self._feeds.values()]

    def last_price_e9(self, symbol: str) -> int | None:
        """The newest price of a symbol that was sent on."""
        feed = self._feeds.get(symbol)
        return None if feed is None else feed.last_price_e9

    def view(self) -> tuple[DtcData, ...]:
        """Each symbol that was asked for."""
        return tuple(self._view(symbol) for symbol in sorted(self._files))

    def _view(self, symbol: str) -> DtcData:
        if symbol in self.refused:
            return DtcData(symbol=symbol, state="NOT_PERMITTED", reason=self.refused[symbol])
        state = "GRANTED" if symbol in self._feeds else "WAITING"
        return DtcData(symbol=symbol, state=state, ticks=self._ticks.get(symbol, 0))

    def _follow(self, symbol: str) -> None:
        settings = self.settings
        try:
            self._files[symbol].begin()
        except ScidError as error:
            _LOG.error("dtc.file_not_made", symbol=symbol, problem=str(error))
        feed = FeedSettings(
            self._files[symbol].path,
            symbol,
            settings.ticks_e9[symbol],
            settings.provenance,
            settings.history_ns,
            FOLDER,
        )
        self._feeds[symbol] = FileFeed(
            feed,
            store=self._store,
            wakeups=self._wakeups,
            ingest=self._ingest,
            clock=self._clock,
            randomness=self._random,
            on_change=self._changed,
            live_refused=lambda: self.live_refused(symbol),
        )
        self._tasks.start(self._feeds[symbol].run(), f"feed of DTC {symbol}")
        self.on_change()

    def _changed(self) -> None:
        self.on_change()
