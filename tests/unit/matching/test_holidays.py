"""When no prices are to be expected: breaks, weekends and holidays, compared with the calendar of another make."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from minhos_mesh.history.calendars import sessions_over
from minhos_mesh.matching import prices_due
from minhos_mesh.matching.holidays import Holiday, holiday
from minhos_mesh.matching.session import open_for_ns, session_open

S = 1_000_000_000
HOUR = 3_600 * S
CHICAGO = ZoneInfo("America/Chicago")


def at(text: str) -> int:
    """An instant told in Chicago time, ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=CHICAGO).timestamp()) * S


@pytest.mark.parametrize(
    ("when", "hours"),
    [
        ("2026-11-22 17:00", 0),
        ("2026-11-23 15:59", 22.983),
        ("2026-11-23 16:00", None),
        ("2026-11-23 17:00", 0),
        ("2026-11-20 16:00", None),
        ("2026-11-21 12:00", None),
        ("2026-11-26 11:59", 18.983),
        ("2026-11-26 12:00", None),
        ("2026-11-26 17:30", 0.5),
        ("2026-12-24 18:00", None),
        ("2026-12-25 10:00", None),
        ("2026-12-27 18:00", 1),
        ("2027-03-25 18:00", None),
        ("2027-03-26 10:00", None),
        ("2027-03-28 18:00", 1),
        ("2027-06-18 12:00", None),
        ("2026-11-01 17:00", 0),
        ("2026-03-08 18:00", 1),
    ],
)
def test_exchange_is_open_without_a_break_since(when: str, hours: float | None) -> None:
    found = open_for_ns(at(when))
    assert found == (None if hours is None else pytest.approx(hours * HOUR, abs=2 * S, rel=1e-3))


def test_prices_are_due_once_the_session_is_long_enough_open_and_the_delay_is_over() -> None:
    opens = at("2026-11-22 17:00")
    assert not prices_due(opens + 29 * S, 30 * S)
    assert prices_due(opens + 30 * S, 30 * S)
    assert not prices_due(opens + 1_229 * S, 30 * S, 1_200 * S)
    assert prices_due(opens + 1_230 * S, 30 * S, 1_200 * S)
    closes = at("2026-11-23 16:00")
    assert not prices_due(closes, 30 * S)
    assert prices_due(closes + 1_199 * S, 30 * S, 1_200 * S), "the last prices of the session are still to come"


def test_holidays_are_those_of_the_exchange_calendar_and_juneteenth() -> None:
    first, last = date(2026, 1, 1), date(2031, 12, 31)
    start_ns, end_ns = (int(datetime.combine(day, time(), UTC).timestamp()) * S for day in (first, last))
    sessions = sessions_over("CME", start_ns, end_ns)
    differs = []
    for number in range((last - first).days):
        day = first + timedelta(days=number)
        for clock in ("08:00", "11:59", "12:00"):
            when = at(f"{day} {clock}")
            expected = session_open(when) and sessions.place(when) >= 0
            if expected != (open_for_ns(when) is not None):
                differs.append((day, clock))
    assert {day for day, _ in differs} == {
        day for day, _ in differs if (day.month, day.day) in {(6, 18), (6, 19), (6, 20)}
    }
    assert all(holiday(day) is Holiday.NOON for day, _ in differs)
    assert len({day.year for day, _ in differs}) == 6
