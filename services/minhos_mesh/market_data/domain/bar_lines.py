"""Decides which bars of one span are kept of a feed, and from which tick on they are all there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from minhos_mesh.runtime.bar_spans import MINUTE, BarSpan
from minhos_mesh.runtime.bars import Bar, BarBuilder
from minhos_mesh.runtime.tick_layout import TickArray, Trades
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, Sessions

BARS_KEPT = 10_000
EXCHANGE, NEVER_CLOSED = "EXCHANGE", "ALWAYS_OPEN"
"""Rules of sessions, as in the contract."""


class BarKey(NamedTuple):
    """Which bars a reader wants."""

    span: BarSpan = MINUTE
    rule: str | None = NEVER_CLOSED
    """None: always open for SIMULATED data, the sessions of the exchange for all other."""

    def sessions(self, *, simulated: bool, exchange: Sessions | None) -> Sessions:
        """The sessions that are meant; a market whose calendar is not known is always open."""
        open_always = self.rule == NEVER_CLOSED or (self.rule is None and simulated)
        return ALWAYS_OPEN if open_always or exchange is None else exchange


MINUTES = BarKey()
"""What every feed keeps."""


class BarLine:
    """Bars of one span: those that closed, numbered from 0, and the one that is being built."""

    def __init__(self, span: BarSpan, sessions: Sessions, lost_through: int = 0) -> None:
        """The first tick to come is `lost_through` + 1, and a session begins with it or before it nothing is known of it."""
        self.builder = BarBuilder(span, sessions)
        self.bars: deque[Bar] = deque()
        self.closed = 0
        """Bars closed; the newest of `bars` is number `closed` - 1."""
        self.lost_through = lost_through
        """Bars that were closed by this tick or before are no longer kept."""
        self.users: set[object] = set()
        """Who needs it; one that nobody needs is given up."""

    def begun_with(self, bars: Sequence[Bar], open_bar: Bar | None) -> None:
        """Takes what is known of the session so far."""
        self.keep(bars, 0)
        if open_bar is not None:
            self.builder.resume(open_bar)

    def add(
        self, ticks: TickArray, first_sequence: int, oldest: int, epoch: int, trades: Trades | None = None
    ) -> list[Bar]:
        """Takes ticks; `oldest` is the oldest tick that the feed holds. Returns the bars that they closed."""
        return self.keep(self.builder.add(ticks, first_sequence, epoch, trades), oldest)

    def keep(self, closed: Sequence[Bar], oldest: int) -> list[Bar]:
        """Keeps closed bars: of one minute as long as the ticks that closed them are held, of others the newest only."""
        self.bars.extend(closed)
        self.closed += len(closed)
        minutes = self.builder.span is MINUTE
        while len(self.bars) > BARS_KEPT and (not minutes or self.bars[0].closing_sequence < oldest):
            self.lost_through = self.bars.popleft().closing_sequence
        return list(closed)

    @property
    def open_bar(self) -> Bar | None:
        """The bar that is being built."""
        return self.builder.open_bar

    @property
    def oldest(self) -> int:
        """Number of the oldest bar kept."""
        return self.closed - len(self.bars)

    def number_after(self, sequence: int) -> int:
        """Number of the first bar that was closed by a tick behind `sequence`."""
        number = self.closed
        for bar in reversed(self.bars):
            if bar.closing_sequence <= sequence:
                break
            number -= 1
        return number

    def since(self, number: int) -> list[Bar]:
        """Closed bars from a number on, the oldest first; those that are no longer kept are left out."""
        start = max(0, number - self.oldest)
        return [self.bars[index] for index in range(start, len(self.bars))] if start < len(self.bars) else []

    def newest(self, count: int) -> list[Bar]:
        """Up to `count` newest closed bars, the oldest first."""
        return self.since(max(0, self.closed - count)) if count > 0 else []
