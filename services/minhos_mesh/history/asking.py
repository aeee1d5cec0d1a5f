"""Decides how a question about history is answered from the store: bars in pages, ticks in order, what is held."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from minhos_mesh.history.archive import Archive, Chunk, best_series
from minhos_mesh.history.calendars import sessions_over
from minhos_mesh.history.daily import read_held
from minhos_mesh.history.domain.generations import Run
from minhos_mesh.history.domain.series import NotHeld, Series
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.runtime.bar_spans import DAY_SECONDS, BarSpan, Measure
from minhos_mesh.runtime.bars import Bar, BarBuilder, closed_at
from minhos_mesh.runtime.trading_sessions import (
    ALWAYS_OPEN,
    DAY_NS,
    AlwaysOpen,
    ListedSessions,
    Session,
    day_start_ns,
)
from minhos_mesh.sierra_files.daily import DailyBar

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
    bars: list[Bar] = field(default_factory=list)
    outside: int = 0
    """Trades of the time asked for, as far as this page reads it, that came while the market was closed."""
    next: Bookmark | None = None
    daily: dict[date, DailyBar] = field(default_factory=dict)
    """The days whose bars are those of an imported file, not of ticks."""


@dataclass(frozen=True, slots=True)
class SessionSoFar:
    """The bars of one session up to a tick."""

    bars: list[Bar]
    """Closed ones, the newest of them."""
    open_bar: Bar | None
    lost_through: int
    """Bars that were closed by this tick or before are not among them."""


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
    """Bars that begin in the time asked for, one page of them.

    Bars of a day are those of the ticks, and of days without a tick those that were imported as daily bars.
    """
    simulated = series.provenance == "SIMULATED"
    rule = wanted.rule or (SessionRule.ALWAYS_OPEN if simulated else SessionRule.EXCHANGE)
    found = BarsFound(series, rule)
    for bar, opened_ns, ordinal in _with_days(_of_ticks(places, found, wanted), places, found, wanted):
        if bar.open_time_ns >= wanted.end_ns:
            break
        if bar.open_time_ns < wanted.start_ns or _is_told(opened_ns, ordinal, wanted.bookmark):
            continue
        if len(found.bars) == wanted.limit:
            found.next = Bookmark(opened_ns, ordinal)
            break
        found.bars.append(bar)
    return found


Placed = tuple[Bar, int, int]
"""A bar, the open of its session, and its place among the bars of it."""


def _of_ticks(places: HistoryPlaces, found: BarsFound, wanted: BarsWanted) -> Iterator[Placed]:
    archive = Archive(places, found.series)
    times = [(run.first_ns, run.last_ns) for run in archive.runs()]
    if not times:
        return
    first_ns = max(min(first for first, _ in times), wanted.start_ns)
    last_ns = min(max(last for _, last in times), wanted.end_ns - 1)
    if first_ns > last_ns:
        return
    sessions = _sessions(found.rule, wanted.exchange, first_ns, last_ns)
    begin, last = sessions.at_or_after(first_ns), sessions.at_or_after(last_ns)
    if begin is None:
        return
    from_ns = min(begin.open_ns, first_ns)
    if wanted.bookmark is not None:
        from_ns = max(from_ns, wanted.bookmark.session_open_ns)
    builder, newest_ns = BarBuilder(wanted.span, sessions), max(last for _, last in times)
    end_ns = wanted.end_ns  # where it lies between sessions, what came behind it is none of those outside
    if last is not None and last.open_ns < end_ns:
        end_ns = last.close_ns
    chunks = archive.times(from_ns, end_ns)
    for bar, opened_ns, ordinal in _counted(builder, sessions, chunks):
        found.outside = builder.outside
        yield closed_at(bar, sessions, newest_ns), opened_ns, ordinal
    found.outside = builder.outside


def _with_days(
    ticked: Iterator[Placed], places: HistoryPlaces, found: BarsFound, wanted: BarsWanted
) -> Iterator[Placed]:
    """Puts daily bars of files where no tick is held; a bar of a day is one of its session, which has no other."""
    whole_days = wanted.span.measure is Measure.SECONDS and wanted.span.size == DAY_SECONDS
    days = list(read_held(places, found.series).bars) if whole_days else []
    if not days:
        yield from ticked
        return
    first_ns, last_ns = day_start_ns(days[0].day), day_start_ns(days[-1].day) + DAY_NS
    sessions = _sessions(found.rule, wanted.exchange, first_ns, last_ns)
    listed = [sessions[place] for place in range(len(sessions))] if isinstance(sessions, ListedSessions) else []
    known = {session.day: session for session in listed}
    from_ns = 0 if wanted.bookmark is None else wanted.bookmark.session_open_ns
    of_file = [_day_bar(day, known.get(day.day)) for day in days]
    left = deque(one for one in zip(of_file, days, strict=True) if one[0].open_time_ns >= from_ns)
    for placed in ticked:
        while left and left[0][1].day < placed[0].trading_day:
            yield _told_day(left.popleft(), found)
        while left and left[0][1].day == placed[0].trading_day:
            left.popleft()
        yield placed
    while left:
        yield _told_day(left.popleft(), found)


def _told_day(one: tuple[Bar, DailyBar], found: BarsFound) -> Placed:
    bar, day = one
    found.daily[day.day] = day
    return bar, bar.open_time_ns, 0


def _day_bar(day: DailyBar, session: Session | None) -> Bar:
    open_ns = day_start_ns(day.day)
    return Bar(
        open_time_ns=open_ns if session is None else session.open_ns,
        close_time_ns=open_ns + DAY_NS if session is None else session.close_ns,
        open_e9=day.open_e9, high_e9=day.high_e9, low_e9=day.low_e9, close_e9=day.close_e9, volume=day.volume or 0,
        bid_volume=0, ask_volume=0, trades=0, first_sequence=0, last_sequence=0,
        span=BarSpan(Measure.SECONDS, DAY_SECONDS), trading_day=day.day, closed=True,
    )  # fmt: skip


def session_so_far(
    archive: Archive, span: BarSpan, session: Session, epoch: int, through: int, most: int
) -> SessionSoFar:
    """The bars that the ticks of a generation make in a session, up to a sequence. Raises NotHeld when any is missing."""
    builder, closed, before = BarBuilder(span, ListedSessions([session])), list[Bar](), -1
    lost_through = 0
    for chunk in archive.since(epoch, session.open_ns, through):
        if before < 0:
            before = lost_through = chunk.first_sequence - 1
            if before and archive.held(epoch).missing(before, before):
                break
        if chunk.first_sequence != before + 1:
            break
        closed += builder.add(chunk.ticks, chunk.first_sequence, epoch)
        before = chunk.first_sequence + len(chunk.ticks) - 1
        if len(closed) > most:
            lost_through = closed[-most - 1].closing_sequence
            closed = closed[-most:]
    if before != through:
        raise NotHeld(
            f"the ticks of {archive.series} since {session.day} began are not all held: those behind {max(before, 0)} of"
            f" epoch {epoch} are missing"
        )
    return SessionSoFar(closed, builder.open_bar, lost_through)


def _sessions(rule: SessionRule, exchange: str, first_ns: int, last_ns: int) -> AlwaysOpen | ListedSessions:
    return ALWAYS_OPEN if rule is SessionRule.ALWAYS_OPEN else sessions_over(exchange, first_ns, last_ns)


def _counted(
    builder: BarBuilder, sessions: AlwaysOpen | ListedSessions, chunks: Iterator[Chunk]
) -> Iterator[tuple[Bar, int, int]]:
    """Each bar, the open of its session and its place among the bars of it; the one that is still open comes last."""
    session_ns, ordinal = -1, 0
    for bar in _made(builder, chunks):
        opened_ns = sessions[sessions.place(bar.open_time_ns)].open_ns
        ordinal = ordinal + 1 if opened_ns == session_ns else 0
        session_ns = opened_ns
        yield bar, opened_ns, ordinal


def _made(builder: BarBuilder, chunks: Iterator[Chunk]) -> Iterator[Bar]:
    for chunk in chunks:
        yield from builder.add(chunk.ticks, chunk.first_sequence, chunk.epoch)
    if builder.open_bar is not None:
        yield builder.open_bar


def _is_told(opened_ns: int, ordinal: int, bookmark: Bookmark | None) -> bool:
    return bookmark is not None and opened_ns == bookmark.session_open_ns and ordinal < bookmark.bars
