"""Decides on which trading days the Globex exchanges of the United States stay closed or close at noon, by rules without a calendar file.

They are the days of the CMES calendar of exchange_calendars, and Juneteenth, which that leaves out; days of mourning are not known in advance.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import Enum
from functools import lru_cache
from typing import Final

_DAY: Final = timedelta(days=1)
_MONDAY, _THURSDAY, _FRIDAY, _SATURDAY, _SUNDAY = 0, 3, 4, 5, 6


class Holiday(Enum):
    """How a trading day is cut short."""

    CLOSED = "CLOSED"
    NOON = "NOON"
    """Trading ends at 12:00 in Chicago."""


def holiday(day: date) -> Holiday | None:
    """How a trading day is cut short; None for an ordinary one."""
    return _of_year(day.year).get(day)


@lru_cache(maxsize=8)
def _of_year(year: int) -> dict[date, Holiday]:
    first, christmas = date(year, 1, 1), date(year, 12, 25)
    thanksgiving = _nth(year, 11, _THURSDAY, 4)
    noon = [
        _nth(year, 1, _MONDAY, 3),
        _nth(year, 2, _MONDAY, 3),
        _nth(year, 6, _MONDAY, 1) - 7 * _DAY,
        _nearest_workday(date(year, 6, 19)),
        _nearest_workday(date(year, 7, 4)),
        _nth(year, 9, _MONDAY, 1),
        thanksgiving,
        thanksgiving + _DAY,
    ]
    if christmas.weekday() <= _FRIDAY and (christmas - _DAY).weekday() <= _THURSDAY:
        noon.append(christmas - _DAY)
    closed = [_easter(year) - 2 * _DAY, _nearest_workday(christmas)]
    if first.weekday() != _SATURDAY:
        closed.append(first + _DAY if first.weekday() == _SUNDAY else first)
    return {**dict.fromkeys(noon, Holiday.NOON), **dict.fromkeys(closed, Holiday.CLOSED)}


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


def _nearest_workday(day: date) -> date:
    return {_SATURDAY: day - _DAY, _SUNDAY: day + _DAY}.get(day.weekday(), day)


def _easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar."""
    golden, century = year % 19, year // 100
    moon = (century - century // 4 - (8 * century + 13) // 25 + 19 * golden + 15) % 30
    full = moon - moon // 28 * (1 - moon // 28 * (29 // (moon + 1)) * ((21 - golden) // 11))
    weekday = (year + year // 4 + full + 2 - century + century // 4) % 7
    shift = full - weekday
    month = 3 + (shift + 40) // 44
    return date(year, month, shift + 28 - 31 * (month // 4))
