"""Decides how bars of any span begin in the middle of a session: with what is in memory, else with what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np

from minhos_mesh.history.calendars import calendar_of
from minhos_mesh.history.worker import bar_told
from minhos_mesh.market_data.domain.bar_lines import BARS_KEPT, EXCHANGE, MINUTES, NEVER_CLOSED, BarKey, BarLine
from minhos_mesh.market_data.domain.feed import Provenance, SymbolFeed
from minhos_mesh.market_data.history_workers import HistoryFailed, HistoryUnavailable, HistoryWorkers, TooManyQuestions
from minhos_mesh.market_data.recorder import Recorder
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.symbols import parse_symbol
from minhos_mesh.runtime.tick_layout import TICK
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, CLOSED, NS, ListedSessions, Session, Sessions

LINES_MOST: Final = 32
"""Spans of one symbol that are built at the same time, those of a minute not counted."""
STEP_TICKS: Final = 16_384
"""So many ticks are taken before others get their turn."""
ATTEMPTS: Final = 5
FIRST_NS: Final = 946_684_800 * NS
"""Sessions of a replay, and of a source that has not said anything yet, are known from the year 2000 on."""
AROUND_NS: Final = 400 * 86_400 * NS
"""Sessions of all others are known so long before their newest tick, and all so far ahead of the present."""


class BarsNotKnown(LookupError):
    """Expected: ticks of the present session are neither in memory nor in the history, so its bars cannot be told."""


class BarsUnavailable(Exception):
    """Expected: bars cannot be begun now; ask again."""


@dataclass(slots=True)
class LiveBars:
    """Begins bars of the spans that readers ask for. Without recorder and workers it knows what is in memory only."""

    clock: Clock
    recorder: Recorder | None = None
    workers: HistoryWorkers | None = None
    _calendars: dict[str, tuple[int, Sessions]] = field(default_factory=dict)
    """By exchange, with the time from which on the sessions are known."""

    @asynccontextmanager
    async def ready(self, feeds: Sequence[SymbolFeed], key: BarKey) -> AsyncIterator[Mapping[str, Exception]]:
        """Within the block the feeds build these bars; gives, by symbol, why one of them does not."""
        if key == MINUTES:
            yield {}
            return
        pin, refused = object(), dict[str, Exception]()
        try:
            for feed in feeds:
                try:
                    await self._begin(feed, key, pin)
                except (BarsNotKnown, BarsUnavailable) as refusal:
                    refused[feed.symbol] = refusal
            yield refused
        finally:
            for feed in feeds:
                if (line := feed.lines.get(key)) is not None:
                    line.users.discard(pin)
                    feed.give_up_lines()

    async def _begin(self, feed: SymbolFeed, key: BarKey, pin: object) -> None:
        if len(feed.lines) > LINES_MOST and key not in feed.lines:
            raise BarsUnavailable(f"bars of {LINES_MOST} spans of {feed.symbol} are being built, which is the most")
        await self._know_calendar(feed, key)
        for _ in range(ATTEMPTS):
            line = feed.lines.get(key) or await self._made(feed, key)
            if line is not None:
                line.users.add(pin)
                return
        raise BarsUnavailable(f"ticks of {feed.symbol} come faster than its bars of {key.span} can be begun")

    async def _made(self, feed: SymbolFeed, key: BarKey) -> BarLine | None:
        """A line that has been told all ticks; None when the feed has moved on too far meanwhile."""
        sessions, epoch = feed.sessions(key), feed.epoch
        if epoch is None or feed.sequence == 0:
            line, at = BarLine(key.span, sessions), 1
        else:
            place = sessions.place(feed.last.event_time_ns)
            if place == CLOSED:
                line, at = BarLine(key.span, sessions, feed.sequence), feed.sequence + 1
            elif (first := _first_of(feed, sessions[place])) is not None:
                line, at = BarLine(key.span, sessions, first - 1), first
            else:
                line, at = await self._from_store(feed, key, sessions, sessions[place])
        if not await _caught_up(feed, line, epoch, at):
            return None
        if key not in feed.lines:
            feed.begin_line(key, line)
        return feed.lines[key]

    async def _from_store(
        self, feed: SymbolFeed, key: BarKey, sessions: Sessions, session: Session
    ) -> tuple[BarLine, int]:
        through, provenance = feed.sequence, feed.provenance
        if self.recorder is None or provenance is None:
            raise BarsNotKnown(
                f"ticks of {feed.symbol} since {session.day} began are no longer in memory, and not recorded"
            )
        self.recorder.flush(feed)
        await self.recorder.written()
        told = await self._ask(
            "session_bars", symbol=feed.symbol, provenance=provenance.name, fed=None, epoch=feed.epoch, through=through,
            session=[session.day.isoformat(), session.open_ns, session.close_ns], span=str(key.span), most=BARS_KEPT,
        )  # fmt: skip
        bars: list[Bar] = [bar_told(bar) for piece in told for bar in piece.get("bars", ())]
        line = BarLine(key.span, sessions, told[-1]["lost_through"])
        open_bar = told[-1]["open_bar"]
        line.begun_with(bars, None if open_bar is None else bar_told(open_bar))
        return line, through + 1

    async def _know_calendar(self, feed: SymbolFeed, key: BarKey) -> None:
        by_rule = key.rule == EXCHANGE or (key.rule is None and feed.provenance is not Provenance.SIMULATED)
        if key.rule == NEVER_CLOSED or not by_rule or feed.exchange is not None:
            return
        exchange = parse_symbol(feed.symbol).exchange
        if calendar_of(exchange) is None:
            feed.exchange = ALWAYS_OPEN
            return
        now_ns, told_once = self.clock.wall_ns(), feed.provenance in {Provenance.LIVE, Provenance.DELAYED}
        first_ns = min(now_ns, feed.last.event_time_ns) - AROUND_NS if told_once and feed.sequence else FIRST_NS
        if (known := self._calendars.get(exchange)) is None or known[0] > first_ns:
            known = self._calendars[exchange] = first_ns, await self._calendar(exchange, first_ns, now_ns + AROUND_NS)
        feed.exchange = known[1]

    async def _calendar(self, exchange: str, first_ns: int, last_ns: int) -> Sessions:
        told = (await self._ask("calendar", exchange=exchange, first_ns=first_ns, last_ns=last_ns))[0]["sessions"]
        return ListedSessions([Session(date.fromisoformat(day), opens, closes) for day, opens, closes in told])

    async def _ask(self, ask: str, **question: Any) -> list[Mapping[str, Any]]:
        if self.workers is None:
            raise BarsUnavailable("history is not served here")
        try:
            async with self.workers.asking(ask, **question) as pieces:
                return [piece async for piece in pieces if isinstance(piece, Mapping)]
        except HistoryFailed as failed:
            if failed.kind == "NotHeld":
                raise BarsNotKnown(str(failed)) from None
            raise BarsUnavailable(str(failed)) from None
        except (TooManyQuestions, HistoryUnavailable) as failed:
            raise BarsUnavailable(str(failed)) from None


def _first_of(feed: SymbolFeed, session: Session) -> int | None:
    """The first tick of the session, when all of it is in memory."""
    ring = feed.ring
    times = np.frombuffer(ring.wire(ring.oldest, ring.newest), TICK)["event_time_ns"]
    if ring.oldest > 1 and int(times[0]) >= session.open_ns:
        return None
    return ring.oldest + int(np.searchsorted(times, session.open_ns))


async def _caught_up(feed: SymbolFeed, line: BarLine, epoch: int | None, at: int) -> bool:
    """Tells the line all ticks from `at` on; False when some of them are no longer in memory, or of another epoch."""
    while feed.epoch == epoch and at >= feed.ring.oldest:
        newest = feed.ring.newest
        if at > newest:
            return True
        last = min(newest, at + STEP_TICKS - 1)
        line.add(np.frombuffer(feed.ring.wire(at, last), TICK), at, feed.ring.oldest, epoch or 0)
        at = last + 1
        if at <= newest:
            await asyncio.sleep(0)
    return False
