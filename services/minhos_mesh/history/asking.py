"""Decides how a question about history is answered from the store: bars in pages, ticks in order, what is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from minhos_mesh.history.archive import Archive, best_series
from minhos_mesh.history.calendars import sessions_over
from minhos_mesh.history.domain.bars import BarMaker, HistoryBar, Trades
from minhos_mesh.history.domain.generations import Run
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.domain.sessions import Sessions, always_open
from minhos_mesh.history.domain.spans import BarSpan
from minhos_mesh.history.places import HistoryPlaces

FIRST_NS: Final = 0
END_NS: Final = 2**63 - 1
FOR_EVER: Final = 2**31


class SessionRule(StrEnum):
    """Which sessions divide the time of bars."""

    EXCHANGE = "EXCHANGE"
    ALWAYS_OPEN = "ALWAYS_OPEN"


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Where the next page of bars begins."""

    session_open_ns: int
    bars: int
    """Bars of that session that were told already."""


@dataclass(frozen=True, slots=True)
class BarsWanted:
    """A question for bars."""

    span: BarSpan
    exchange: str
    """Exchange whose calendar is meant."""
    start_ns: int = FIRST_NS
    end_ns: int = END_NS
    rule: SessionRule | None = None
    """None: always open for SIMULATED data, the exchange's calendar for all other."""
    limit: int = FOR_EVER
    bookmark: Bookmark | None = None


@dataclass(slots=True)
class BarsFound:
    """A page of bars."""

    series: Series
    rule: SessionRule
    bars: list[HistoryBar] = field(default_factory=list)
    outside: int = 0
    """Trades that came while the market was closed, among those that were read."""
    next: Bookmark | None = None


@dataclass(frozen=True, slots=True)
class DayHeld:
    """What is held of one series on one UTC day; times in ns since the Unix epoch."""

    series: Series
    day: date
    ticks: int
    first_ns: int
    last_ns: int
    runs: tuple[Run, ...]
    file_bytes: int | None
    """None while all of it is in the journal."""


def series_for(places: HistoryPlaces, symbol: str, provenance: str | None, fed: str | None) -> Series:
    """The series that a question means. Raises NotHeld."""
    return best_series(places.series(), symbol, provenance, fed)


def days_held(places: HistoryPlaces, wanted: Callable[[Series], bool] = lambda _series: True) -> list[DayHeld]:
    """What is held, in order of symbol, provenance and day."""
    found = []
    for series in sorted(filter(wanted, places.series()), key=lambda each: (each.symbol, each.provenance)):
        for day in Archive(places, series).days:
            first_ns = min(run.first_ns for run in day.runs)
            last_ns = max(run.last_ns for run in day.runs)
            size = None if day.packed is None else day.packed.size_bytes
            found.append(DayHeld(series, day.day, day.ticks, first_ns, last_ns, day.runs, size))
    return found


def bars(places: HistoryPlaces, series: Series, wanted: BarsWanted) -> BarsFound:
    """Bars that begin in the time asked for, one page of them."""
    simulated = series.provenance == "SIMULATED"
    rule = wanted.rule or (SessionRule.ALWAYS_OPEN if simulated else SessionRule.EXCHANGE)
    found = BarsFound(series, rule)
    archive = Archive(places, series)
    times = [(run.first_ns, run.last_ns) for run in archive.runs()]
    first_ns = max(min(first for first, _ in times), wanted.start_ns)
    last_ns = min(max(last for _, last in times), wanted.end_ns - 1)
    if first_ns > last_ns:
        return found
    sessions = _sessions(rule, wanted.exchange, first_ns, last_ns)
    begin = sessions.at_or_after(first_ns)
    if begin is None:
        return found
    from_ns = min(begin.open_ns, first_ns) if wanted.bookmark is None else wanted.bookmark.session_open_ns
    last = sessions.at_or_after(last_ns)
    maker = BarMaker(wanted.span, sessions)
    chunks = archive.times(from_ns, END_NS if last is None else last.close_ns)
    for bar, ordinal in _counted(maker, (Trades.of(c.ticks, c.epoch, c.first_sequence) for c in chunks)):
        if bar.open_time_ns >= wanted.end_ns:
            break
        if bar.open_time_ns < wanted.start_ns or _is_told(bar, ordinal, wanted.bookmark):
            continue
        if len(found.bars) == wanted.limit:
            found.next = Bookmark(bar.session.open_ns, ordinal)
            break
        found.bars.append(bar)
    found.outside = maker.outside
    return found


def _sessions(rule: SessionRule, exchange: str, first_ns: int, last_ns: int) -> Sessions:
    if rule is SessionRule.ALWAYS_OPEN:
        return always_open(first_ns, last_ns)
    return sessions_over(exchange, first_ns, last_ns)


def _counted(maker: BarMaker, pieces: Iterator[Trades]) -> Iterator[tuple[HistoryBar, int]]:
    """Each bar with its place among the bars of its session; the one that is still open comes last."""
    session_ns, ordinal = -1, 0
    for bar in _made(maker, pieces):
        ordinal = ordinal + 1 if bar.session.open_ns == session_ns else 0
        session_ns = bar.session.open_ns
        yield bar, ordinal


def _made(maker: BarMaker, pieces: Iterator[Trades]) -> Iterator[HistoryBar]:
    for trades in pieces:
        yield from maker.add(trades)
    if maker.open_bar is not None:
        yield maker.open_bar


def _is_told(bar: HistoryBar, ordinal: int, bookmark: Bookmark | None) -> bool:
    return bookmark is not None and bar.session.open_ns == bookmark.session_open_ns and ordinal < bookmark.bars
