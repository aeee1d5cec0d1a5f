"""When the exchange trades."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.matching.session import chicago, session_open, trading_day


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("utc", "is_open"),
    [
        ("2026-11-22 22:59", False),  # Sunday 16:59 in Chicago, winter
        ("2026-11-22 23:00", True),
        ("2026-11-23 21:59", True),  # Monday
        ("2026-11-23 22:00", False),
        ("2026-11-23 23:00", True),
        ("2026-11-27 21:59", True),  # Friday
        ("2026-11-27 22:00", False),
        ("2026-11-28 12:00", False),  # Saturday
        ("2026-07-06 20:59", True),  # Monday, summer
        ("2026-07-06 21:00", False),
        ("2026-07-06 22:00", True),
    ],
)
def test_globex_week(utc: str, is_open: bool) -> None:
    assert session_open(ns(utc)) is is_open


def test_trading_day_begins_at_five_in_the_afternoon_before() -> None:
    assert trading_day(ns("2026-11-22 22:59")) == date(2026, 11, 22)
    assert trading_day(ns("2026-11-22 23:00")) == date(2026, 11, 23)


@given(st.integers(1_200_000_000, 2_000_000_000))
def test_chicago_agrees_with_the_zone_database(seconds: int) -> None:
    known = datetime.fromtimestamp(seconds, ZoneInfo("America/Chicago")).replace(tzinfo=None)
    assert chicago(seconds * 1_000_000_000) == known
