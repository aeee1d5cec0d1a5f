"""Sessions of Globex over the ends of summer time and over holidays, and the bars that follow from them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from minhos_mesh.history.calendars import calendar_of, sessions_over
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import bars_of
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, CLOSED, NS, ListedSessions

CHICAGO = ZoneInfo("America/Chicago")
HOUR_NS = 3_600 * NS


def ns(*local: int) -> int:
    """A time in Chicago."""
    return int(datetime(*local, tzinfo=CHICAGO).timestamp()) * NS  # type: ignore[arg-type,misc] # year to minute


def listed(first: date, last: date) -> ListedSessions:
    bounds = (int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS for day in (first, last))
    sessions = sessions_over("CME", *bounds)
    assert isinstance(sessions, ListedSessions)
    return sessions


@pytest.fixture(scope="module")
def years() -> ListedSessions:
    return listed(date(2024, 1, 1), date(2026, 12, 31))


def test_every_session_opens_at_five_in_the_evening_of_chicago_in_summer_and_winter(years: ListedSessions) -> None:
    for place in range(len(years)):
        session = years[place]
        opens, closes = (datetime.fromtimestamp(t // NS, CHICAGO) for t in (session.open_ns, session.close_ns))
        assert (opens.hour, opens.minute, opens.date()) == (17, 0, session.day - timedelta(days=1)), session.day
        assert closes.date() == session.day
        assert closes.hour in {12, 13, 17}, session.day


@pytest.mark.parametrize(
    ("closed", "why"),
    [
        ((2024, 3, 29, 10), "Good Friday"),
        ((2025, 12, 25, 10), "Christmas"),
        ((2026, 1, 1, 10), "New Year"),
        ((2026, 11, 7, 12), "a Saturday"),
        ((2026, 11, 8, 12), "a Sunday before the evening"),
    ],
)
def test_on_holidays_and_at_the_weekend_the_market_is_closed(
    years: ListedSessions, closed: tuple[int, ...], why: str
) -> None:
    assert years.place(ns(*closed)) == CLOSED, why


@pytest.mark.parametrize("sunday", [date(2026, 3, 8), date(2026, 11, 1)], ids=["spring", "autumn"])
def test_bars_are_counted_from_the_open_over_the_end_of_summer_time(years: ListedSessions, sunday: date) -> None:
    begin = ns(sunday.year, sunday.month, sunday.day, 0) - 3 * 24 * HOUR_NS
    times = range(begin, begin + 7 * 24 * HOUR_NS, HOUR_NS // 2)
    bars = bars_of(_trades(list(times)), parse_span("4h"), years)
    starts = [datetime.fromtimestamp(bar.open_time_ns // NS, CHICAGO) for bar in bars]
    assert {start.hour for start in starts} == {17, 21, 1, 5, 9, 13}
    assert {bar.close_time_ns - bar.open_time_ns for bar in bars} == {4 * HOUR_NS}
    days = bars_of(_trades(list(times)), parse_span("1d"), years)
    whole = [bar for bar in days if bar.trades == 48]
    assert len(whole) >= 4
    assert all(bar.trading_day.weekday() < 5 for bar in days)


def test_a_day_that_ends_early_ends_its_bars(years: ListedSessions) -> None:
    early = next(years[n] for n in range(len(years)) if years[n].close_ns - years[n].open_ns < 23 * HOUR_NS)
    times = list(range(early.open_ns, early.close_ns + 3 * HOUR_NS, HOUR_NS // 4))
    bars = [bar for bar in bars_of(_trades(times), parse_span("3h"), years) if bar.trading_day == early.day]
    assert bars[-1].close_time_ns == early.close_ns
    (day,) = [bar for bar in bars_of(_trades(times), parse_span("1d"), years) if bar.trading_day == early.day]
    assert (day.open_time_ns, day.close_time_ns, day.closed) == (early.open_ns, early.close_ns, True)


def test_an_exchange_without_a_calendar_is_always_open() -> None:
    assert calendar_of("CGI") is None
    assert sessions_over("CGI", 0, NS) is ALWAYS_OPEN


def _trades(times_ns: list[int]) -> TickArray:
    ticks = new_ticks(len(times_ns))
    ticks["event_time_ns"], ticks["price_e9"], ticks["size"] = times_ns, NS, 1
    ticks["flags"], ticks["kind"] = 3, 1
    return ticks
