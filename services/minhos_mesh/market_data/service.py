"""Decides which symbols there are, what is asked of them at once, and what happens every second beside the ticks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.feed import Provenance, SymbolFeed
from minhos_mesh.market_data.live_feed import LiveFeed, Recording
from minhos_mesh.market_data.ports import Announcer, Encoder
from minhos_mesh.market_data.reader_session import ReaderSession, SymbolUnknown
from minhos_mesh.market_data.source_sessions import DepthSession, SourceSession
from minhos_mesh.matching.session import prices_due
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol

NO_TICKS = "NO_TICKS"
DELAY_NS = 20 * 60 * 1_000_000_000
"""How much later than it happens a tick of DELAYED data may come."""
REPLAY_WAITS = "REPLAY_WAITS"
MISSED_NS = 2_000_000_000
"""A price from this long before the start or later is the present one."""
ALWAYS_OPEN = frozenset({Provenance.SIMULATED})


@dataclass(frozen=True, slots=True)
class Settings:
    """What market data is configured to do."""

    rules: Mapping[str, Rules]
    """Rules of every canonical symbol of this mesh."""
    primary: str
    """Symbol that is meant when a request names none."""
    ring_ticks: int = 262_144
    """Ticks held per symbol."""
    max_tick_age_s: float = 300.0
    """DEGRADED when no tick came for this long in an open session."""
    replay_readers: int = 2
    """A replay waits for so many lossless readers (brain and venue) before it overwrites what is held."""
    grace_s: float = 10.0
    """How long the source of a replay waits for a lossless reader that has gone."""
    catch_up_s: float = 0.0
    """For so long after the start a question waits for the source to send what was missed, rather than hear of old prices."""


@dataclass(slots=True)
class Standing:
    """A symbol and its counters."""

    live: LiveFeed
    per_second: int = 0
    """Records that came during the last full second."""
    read_before: int = 0
    announced: int = 0
    """Sequence of the last values that were announced last."""


class MarketDataService:
    """Market data of one mesh: sources put ticks in, readers take them out, each at its own pace."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        conditions: Conditions,
        encoder: Encoder,
        recording: Recording | None = None,
    ) -> None:
        self._settings, self._clock, self._conditions, self._encoder = settings, clock, conditions, encoder
        self.standings = {
            symbol: Standing(
                LiveFeed(
                    SymbolFeed(symbol, rules, settings.ring_ticks),
                    clock,
                    replay_readers=settings.replay_readers,
                    grace_s=settings.grace_s,
                    recording=recording,
                )
            )
            for symbol, rules in sorted(settings.rules.items())
        }
        self._feeds = {symbol: standing.live for symbol, standing in self.standings.items()}
        self._began_s, self._began_ns = clock.monotonic(), clock.wall_ns()
        self._readers: set[ReaderSession] = set()
        self._sources: set[SourceSession | DepthSession] = set()

    @property
    def clock(self) -> Clock:
        """Where its time comes from."""
        return self._clock

    def find(self, symbol: str | None) -> LiveFeed:
        """The feed of a symbol or of one of its aliases; the primary one for None. Raises SymbolUnknown."""
        if symbol is None:
            return self._feeds[self._settings.primary]
        live = self._feeds.get(symbol)
        if live is None:
            with contextlib.suppress(SymbolError):
                live = self._feeds.get(str(parse_symbol(symbol)))
        if live is None:
            raise SymbolUnknown(symbol, list(self._feeds))
        return live

    async def caught_up(self, live: LiveFeed) -> None:
        """Returns when a symbol has its present price again after a start, or when that was waited for long enough."""
        left = self._began_s + self._settings.catch_up_s - self._clock.monotonic()
        if left <= 0 or self._is_current(live):
            return
        ticked = asyncio.Event()
        live.wakers.add(ticked.set)
        try:
            async with asyncio.timeout(left):
                while not self._is_current(live):
                    ticked.clear()
                    await ticked.wait()
        except TimeoutError:
            return
        finally:
            live.wakers.discard(ticked.set)

    def _is_current(self, live: LiveFeed) -> bool:
        feed = live.feed
        if feed.quote is None:
            return False
        return feed.provenance is Provenance.REPLAY or feed.last.event_time_ns >= self._began_ns - MISSED_NS

    def subscribers(self, symbol: str) -> int:
        """Streams that read a symbol."""
        return len(self._feeds[symbol].wakers)

    @contextmanager
    def reader(self) -> Iterator[ReaderSession]:
        """A session for one reader's stream."""
        session = ReaderSession(self._feeds, self.find, self._clock, self._encoder)
        self._readers.add(session)
        try:
            yield session
        finally:
            self._readers.discard(session)
            session.close()

    @contextmanager
    def depth_source(self) -> Iterator[DepthSession]:
        """A session for the stream of one source of order books."""
        session = DepthSession(lambda symbol: self.find(symbol).depth, self._encoder)
        self._sources.add(session)
        try:
            yield session
        finally:
            self._sources.discard(session)
            session.close()

    @contextmanager
    def source(self) -> Iterator[SourceSession]:
        """A session for one source's stream."""
        session = SourceSession(self.find, self._encoder)
        self._sources.add(session)
        try:
            yield session
        finally:
            self._sources.discard(session)
            session.close()

    async def seconds(self) -> AsyncIterator[None]:
        """One item a second, for as long as it is asked."""
        due = self._clock.monotonic()
        while True:
            due = max(due + 1.0, self._clock.monotonic())
            await self._clock.sleep_until(due)
            yield

    async def keep_house(self) -> None:
        """Counts rates, gives signs of life to silent streams and looks whether ticks come. Runs until cancelled."""
        async for _ in self.seconds():
            for standing in self.standings.values():
                feed = standing.live.feed
                standing.per_second = max(0, feed.read - standing.read_before)
                standing.read_before = feed.read
            for session in (*self._readers, *self._sources):
                session.second_passed()
            self.look_for_ticks()
            self.look_for_readers()

    def look_for_ticks(self) -> None:
        """Holds the condition NO_TICKS while a symbol in an open session has had no tick for too long."""
        limit = self._settings.max_tick_age_s
        ages = {symbol: live.silent_for() for symbol, live in self._feeds.items()}
        silent = [
            f"{symbol} for {age:.0f} s"
            for symbol, age in ages.items()
            if age >= limit and self._ticks_are_due(self._feeds[symbol])
        ]
        if silent:
            self._conditions.set(NO_TICKS, f"no tick of {', '.join(silent)} in an open session")
        else:
            self._conditions.clear(NO_TICKS)

    def look_for_readers(self) -> None:
        """Holds the condition REPLAY_WAITS while a replay cannot go on because a lossless reader has not come yet."""
        waiting = [
            f"{symbol} at sequence {live.feed.sequence} for {live.readers_missing} more lossless readers"
            for symbol, live in self._feeds.items()
            if live.readers_missing
        ]
        if waiting:
            self._conditions.set(REPLAY_WAITS, f"the replay waits: {', '.join(waiting)}")
        else:
            self._conditions.clear(REPLAY_WAITS)

    def _ticks_are_due(self, live: LiveFeed) -> bool:
        provenance = live.feed.provenance
        if provenance is Provenance.REPLAY or live.ended:
            return False
        if provenance is None or provenance in ALWAYS_OPEN:
            return True
        within_ns = round(self._settings.max_tick_age_s * 1e9)
        return prices_due(self._clock.wall_ns(), within_ns, DELAY_NS if provenance is Provenance.DELAYED else 0)

    async def announce(self, announcer: Announcer) -> None:
        """Tells the mesh the last values that changed, at most once a second and symbol; not those of a replay."""
        async for _ in self.seconds():
            quotes = []
            for standing in self.standings.values():
                quote = standing.live.feed.quote
                if quote is None or quote.provenance is Provenance.REPLAY:
                    continue
                if quote.values.sequence != standing.announced:
                    standing.announced = quote.values.sequence
                    quotes.append(quote)
            if quotes:
                await announcer.announce(quotes)

    def close(self) -> None:
        """Forgets what was to happen later."""
        for live in self._feeds.values():
            live.shut()
