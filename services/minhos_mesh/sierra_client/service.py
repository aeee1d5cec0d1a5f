"""Decides which files of the folder are followed, and what is told about all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.errors import position_lost
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.runtime.watch import first_revision
from minhos_mesh.sierra_client.bridge_source import BridgeSource
from minhos_mesh.sierra_client.bridge_status import BridgeStatus
from minhos_mesh.sierra_client.depth_feed import DepthPart, DepthStatus
from minhos_mesh.sierra_client.domain import FeedState, Provenance
from minhos_mesh.sierra_client.dtc_view import DtcPart, DtcView
from minhos_mesh.sierra_client.feed import FeedSettings, FeedStatus, FileFeed
from minhos_mesh.sierra_client.ports import IngestPort
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.wakeups import DEFAULT_POLL_S, FolderWakeups
from minhos_mesh.sierra_files.layout import SUFFIX

HOUR_NS = 3_600_000_000_000
NO_DTC = "it needs a logon to the DTC server of the Sierra Chart that writes the files, and [dtc] names none"
"""Why nothing counts as LIVE where no DTC server is configured."""

PROVENANCE_REFUSED = "PROVENANCE_REFUSED"
"""Condition while files are declared to be what they can never be, so that waiting does not help."""

_PROBLEMS = {
    FeedState.WAITING_FOR_FILE: "FILE_MISSING",
    FeedState.DISCONNECTED: "MARKET_DATA_UNREACHABLE",
    FeedState.ERROR: "FEED_ERROR",
}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the client reads."""

    folder: Path
    symbols: Sequence[str] = ()
    """Names of the files to follow, without .scid; empty follows every .scid file of the folder as it appears."""
    follow_all: bool = True
    """False when there are no files to follow, since all symbols come from elsewhere."""
    provenance: Provenance = Provenance.SIMULATED
    history_hours: float = 48.0
    """History that is read of a LIVE or DELAYED file when it is seen for the first time."""
    poll_s: float = DEFAULT_POLL_S
    """How often a file is looked at where no change is announced."""
    use_inotify: bool = True
    instruments: Mapping[str, InstrumentSpec] = field(default_factory=lambda: DEFAULT_INSTRUMENTS)


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What the client is doing."""

    folder: Path
    feeds: tuple[FeedStatus, ...]
    bridge: BridgeStatus | None = None
    dtc: DtcView | None = None
    books: tuple[DepthStatus, ...] = ()

    @property
    def ingest_connected(self) -> bool:
        """True while market data takes what is sent, of every feed that has something to send."""
        return any(feed.connected for feed in self.feeds)


class SierraClient:
    """Follows the files from start() on, with tasks that belong to the group it is given."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        store: SourceStore,
        ingest: IngestPort,
        clock: Clock,
        tasks: OwnedTasks,
        randomness: random.Random | None = None,
        on_problems: Callable[[Mapping[str, str]], None] | None = None,
        bridge: BridgeSource | None = None,
        dtc: DtcPart | None = None,
        depth: DepthPart | None = None,
    ) -> None:
        """`on_problems` is told, after every change, what keeps ticks from flowing, by a code."""
        self.settings = settings
        self._tasks = tasks
        self._on_problems = on_problems
        self._depth = depth
        self._bridge = bridge
        if bridge is not None:
            bridge.on_change = self._notify
        self._dtc = dtc
        if dtc is not None:
            dtc.on_change = self._notify
            dtc.fall_back = self._follow
            dtc.depth_fall_back = self._follow_depth
        self._store = store
        self._ingest = ingest
        self._clock = clock
        self._random = randomness or random.Random()
        self._wakeups = FolderWakeups(settings.folder, poll_s=settings.poll_s, use_inotify=settings.use_inotify)
        self._feeds: dict[str, FileFeed] = {}
        self._refused: dict[str, FeedStatus] = {}
        self._first_revision = self._revision = first_revision(clock)
        self._told: ClientStatus | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Follows the configured files, or every data file of the folder as it appears."""
        self._wakeups.start()
        if self._depth is not None:
            self._depth.start()
        for symbol in self.settings.symbols:
            self._follow(symbol)
        if not self.settings.symbols and self.settings.follow_all:
            self._tasks.start(self._discover(), "discover")
        if self._bridge is not None:
            await self._bridge.start()
        if self._dtc is not None:
            self._dtc.start()

    def close(self) -> None:
        """Stops listening to the folder; the group's tasks must have ended."""
        self._wakeups.close()
        if self._depth is not None:
            self._depth.close()
        if self._bridge is not None:
            self._bridge.close()

    def status(self) -> ClientStatus:
        """What is followed and how far, in alphabetical order of symbol."""
        feeds = [*self._refused.values(), *(feed.status for feed in self._feeds.values())]
        bridge = None
        if self._bridge is not None:
            feeds += self._bridge.feeds()
            bridge = self._bridge.status
        if self._dtc is not None:
            feeds += self._dtc.feeds()
        ordered = tuple(sorted(feeds, key=lambda feed: (feed.symbol, feed.file)))
        books = () if self._depth is None else self._depth.status()
        if self._dtc is not None:
            books = tuple(sorted((*books, *self._dtc.books()), key=lambda each: each.symbol))
        return ClientStatus(
            self.settings.folder, ordered, bridge, None if self._dtc is None else self._dtc.view(), books
        )

    @property
    def revision(self) -> int:
        """Counts the changes of state, from a number that no earlier life of the service has reached."""
        return self._revision

    def last_price_e9(self, symbol: str) -> int | None:
        """The newest price of a canonical symbol that was read of its file; None before the first."""
        found = (feed.last_price_e9 for feed in self._feeds.values() if feed.status.symbol == symbol)
        return next(found, None)

    def check_revision(self, after: int) -> None:
        """Raises MeshError OUT_OF_RANGE for a revision that this life of the service has not told."""
        if not self._first_revision <= after <= self._revision:
            raise position_lost(after, self._first_revision, self._revision)

    def look(self) -> None:
        """Makes a revision of counters that have moved since the last one."""
        if self._told != self.status():
            self._tell()

    async def wait_change(self, after: int, timeout_s: float) -> None:
        """Returns once there is a revision behind `after`, or when the time is over."""
        changed = self._changed
        if self._revision > after:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return

    def problems(self) -> dict[str, str]:
        """What keeps ticks from flowing, a sentence by code; empty when all is well."""
        found: dict[str, str] = {} if self._bridge is None else self._bridge.problems()
        if self._dtc is not None:
            found |= self._dtc.problems()
        for feed in self.status().feeds:
            code = PROVENANCE_REFUSED if feed.refused else _PROBLEMS.get(feed.state)
            if code is not None:
                found[code] = f"{found[code]}; {feed.reason}" if code in found else feed.reason
        return found

    def _notify(self) -> None:
        if self._on_problems is not None:
            self._on_problems(self.problems())
        self._tell()

    def _tell(self) -> None:
        self._told = self.status()
        self._revision += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def _discover(self) -> None:
        """Takes up every data file of the folder as it appears."""
        wakeup = self._wakeups.wakeup()
        while True:
            for name in sorted(_data_files(self.settings.folder)):
                if name not in self._feeds and name not in self._refused:
                    self._follow(name)
            await wakeup.wait()

    def _follow(self, name: str) -> None:
        file = self.settings.folder / f"{name}{SUFFIX}"
        try:
            symbol = parse_symbol(name)
            tick_e9 = spec_for(symbol, self.settings.instruments).tick_e9
        except (SymbolError, InstrumentError) as error:
            self._refused[name] = FeedStatus(
                name, file.name, self.settings.provenance, FeedState.ERROR, f"{file.name} is not followed: {error}"
            )
            self._notify()
            return
        settings = FeedSettings(
            file, str(symbol), tick_e9, self.settings.provenance, int(self.settings.history_hours * HOUR_NS)
        )
        feed = FileFeed(
            settings,
            store=self._store,
            wakeups=self._wakeups,
            ingest=self._ingest,
            clock=self._clock,
            randomness=self._random,
            on_change=self._notify,
            live_refused=lambda: self._live_refused(str(symbol)),
            live_final=self._live_final,
        )
        if self._depth is not None:
            self._depth.follow(name, str(symbol), tick_e9, lambda: self._live_refused(str(symbol)))
        self._feeds[name] = feed
        self._tasks.start(feed.run(), f"feed {name}")
        self._notify()

    def _follow_depth(self, symbol: str) -> None:
        """Follows the `.depth` files of a symbol whose trades come another way."""
        if self._depth is not None:
            tick_e9 = spec_for(parse_symbol(symbol), self.settings.instruments).tick_e9
            self._depth.follow(symbol, symbol, tick_e9, lambda: self._live_refused(symbol))

    def _live_refused(self, symbol: str) -> str:
        return NO_DTC if self._dtc is None else self._dtc.live_refused(symbol)

    def _live_final(self) -> bool:
        """Whether what keeps files from being LIVE does not end by itself: a logon may come, a simulator stays one."""
        return self._dtc is None or self._dtc.view().simulated


def _data_files(folder: Path) -> list[str]:
    try:
        return [path.stem for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]
    except OSError:
        return []
