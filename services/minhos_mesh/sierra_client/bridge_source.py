"""Decides how the bridge is a source of market data: connected for ever, its changes written down, and followed like any file."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.bridge_changes import LastPrices
from minhos_mesh.sierra_client.bridge_http import OPEN_S, BridgeLost, open_bridge
from minhos_mesh.sierra_client.bridge_journal import BridgeJournal
from minhos_mesh.sierra_client.bridge_link import POLL_S, REST_PER_QUESTION_S, SILENT_S, TRIED_AGAIN_S, BridgeLink
from minhos_mesh.sierra_client.bridge_quotes import BridgeQuote, Refusal, Refused, read_quote
from minhos_mesh.sierra_client.bridge_status import PROBLEMS, BridgeState, BridgeStatus, Way
from minhos_mesh.sierra_client.domain import Provenance, backoff_s
from minhos_mesh.sierra_client.feed import FeedSettings, FeedStatus, FileFeed
from minhos_mesh.sierra_client.ports import IngestPort
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.wakeups import FolderWakeups
from minhos_mesh.sierra_files.header import ScidError

_LOG = get_logger("sierra_client.bridge")

FOLDER: Final = "bridge"
"""Folder of the data folder in which ticks of the bridge are kept."""

KNOWN_FOR_S: Final = 5.0
"""How exact the time of a tick is at the worst, or two and a half times the pause between two questions where that is more:
a change that took longer to be noticed is no tick.
"""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """Where the bridge is and what is wanted of it."""

    address: str
    """`host:port`."""
    ticks_e9: Mapping[str, int]
    """Price step by canonical symbol of what is wanted."""
    folder: Path
    """Where its ticks are kept."""
    provenance: Provenance = Provenance.SIMULATED
    """Never LIVE: nothing that it says shows how old a price is."""
    history_ns: int = 48 * 3_600_000_000_000
    poll_s: float = POLL_S
    silent_s: float = SILENT_S
    tried_again_s: float = TRIED_AGAIN_S
    open_s: float = OPEN_S
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0


@dataclass(slots=True)
class _Counts:
    quotes: int = 0
    ticks: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class BridgeSource:
    """Reads one bridge from start() on, with tasks that belong to the group it is given."""

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        store: SourceStore,
        ingest: IngestPort,
        clock: Clock,
        tasks: OwnedTasks,
        randomness: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change of state."""
        self._clock = clock
        self._tasks = tasks
        self._random = randomness or random.Random()
        self._wakeups = FolderWakeups(settings.folder)
        self._journals = {symbol: BridgeJournal(settings.folder, symbol) for symbol in settings.ticks_e9}
        self._feeds = [
            FileFeed(
                FeedSettings(
                    self._journals[symbol].path, symbol, tick_e9, settings.provenance, settings.history_ns, FOLDER
                ),
                store=store,
                wakeups=self._wakeups,
                ingest=ingest,
                clock=clock,
                randomness=self._random,
                on_change=self._changed,
            )
            for symbol, tick_e9 in settings.ticks_e9.items()
        ]
        pause_s = max(settings.poll_s, REST_PER_QUESTION_S * len(settings.ticks_e9))
        self._prices = LastPrices(max(KNOWN_FOR_S, 2.5 * pause_s))
        self._counts = _Counts()
        self._status = BridgeStatus(settings.address, settings.provenance)

    async def start(self) -> None:
        """Begins to read the bridge and to follow what is written of it."""
        self.settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wakeups.start()
        self._tasks.start(self._run(), "bridge")
        for feed in self._feeds:
            self._tasks.start(feed.run(), f"feed of the bridge {feed.status.symbol}")

    def close(self) -> None:
        """Gives files back; the group's tasks must have ended."""
        self._wakeups.close()
        for journal in self._journals.values():
            journal.close()

    @property
    def status(self) -> BridgeStatus:
        """What is known of the bridge now."""
        counts = self._counts
        return replace(
            self._status,
            quotes_read=counts.quotes,
            ticks_written=counts.ticks,
            refused=dict(sorted(counts.refused.items())),
        )

    def feeds(self) -> list[FeedStatus]:
        """How far what was written of it has gone to market data."""
        return [feed.status for feed in self._feeds]

    def problems(self) -> dict[str, str]:
        """What keeps its prices from coming, a sentence by code."""
        code = PROBLEMS.get(self._status.state)
        return {} if code is None else {code: f"bridge {self.settings.address}: {self._status.reason}"}

    def on_quote(self, value: object) -> bool:
        """Takes what should be a quote: a tick when its price has changed since the last look."""
        try:
            quote = read_quote(value, self.settings.ticks_e9)
        except Refused as refused:
            self.on_refused(refused.refusal)
            return False
        now_ns = self._clock.wall_ns()
        self._counts.quotes += 1
        if quote.dialect != self._status.dialect:
            self._status = replace(self._status, dialect=quote.dialect)
        self._status = replace(self._status, quote_time_ns=now_ns)
        if self._prices.is_tick(quote, self._clock.monotonic()):
            self._write(quote, now_ns)
        return True

    def on_refused(self, refusal: Refusal) -> None:
        """Counts what was left out."""
        self._counts.refused[refusal] += 1

    def on_way(self, way: Way) -> None:
        """Prices come."""
        if self._status.state is BridgeState.ERROR:
            return
        self._state(BridgeState.POLLING if way is Way.POLLING else BridgeState.STREAMING, "", way)

    def on_silence(self, reason: str) -> None:
        """The bridge answers, and no price comes."""
        self._state(BridgeState.SILENT, reason, self._status.way)

    async def _run(self) -> None:
        settings, failures = self.settings, 0
        while True:
            quotes = self._counts.quotes
            try:
                for journal in self._journals.values():
                    journal.open()
                async with open_bridge(settings.address, settings.open_s) as http:
                    link = BridgeLink(
                        http, tuple(settings.ticks_e9), self, self._clock, poll_s=settings.poll_s,
                        silent_s=settings.silent_s, tried_again_s=settings.tried_again_s,
                    )  # fmt: skip
                    await self._meet(link)
                    await link.run(self._status.way or Way.LIVE_DATA)
            except BridgeLost as lost:
                self._state(BridgeState.DISCONNECTED, str(lost), self._status.way)
            except (ScidError, OSError) as error:
                self._state(BridgeState.ERROR, str(error), self._status.way)
            failures = 1 if self._counts.quotes > quotes else failures + 1
            await asyncio.sleep(
                backoff_s(failures, self._random, first_s=settings.first_pause_s, longest_s=settings.longest_pause_s)
            )
            self._status = replace(self._status, reconnects=self._status.reconnects + 1)

    async def _meet(self, link: BridgeLink) -> None:
        met = await link.introduce()
        self._status = replace(
            self._status,
            version=met.version,
            symbols_offered=met.symbols,
            trade_status=met.trade_status,
            trade_status_reason=met.trade_status_reason,
        )
        missing = [symbol for symbol in self.settings.ticks_e9 if met.symbols and symbol not in met.symbols]
        told = f"it has no {', '.join(missing)}" if missing else "no price has come yet"
        self._state(BridgeState.SILENT, f"connected; {told}", self._status.way)

    def _write(self, quote: BridgeQuote, now_ns: int) -> None:
        try:
            self._journals[quote.symbol].write(quote, now_ns)
        except ScidError as error:
            self._state(BridgeState.ERROR, str(error), self._status.way)
            return
        self._counts.ticks += 1
        if self._status.state is BridgeState.ERROR:
            self._state(BridgeState.SILENT, "written again; the next price is awaited", self._status.way)

    def _state(self, state: BridgeState, reason: str, way: Way | None) -> None:
        if (self._status.state, self._status.reason, self._status.way) == (state, reason, way):
            return
        self._status = replace(self._status, state=state, reason=reason, way=way)
        _LOG.info("bridge.state", state=state.value, reason=reason, way="" if way is None else way.value)
        self._changed()

    def _changed(self) -> None:
        self.on_change()
