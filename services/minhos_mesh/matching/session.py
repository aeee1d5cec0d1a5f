"""Decides when an equity index future trades and which trading day an instant belongs to, by the Globex week alone.

Sunday 17:00 to Friday 16:00 Chicago time with a break from 16:00 to 17:00; the day begins at 17:00. Holidays are not
known here: on a holiday the freshness of prices is what keeps orders from filling.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

_OPENS = 17
_CLOSES = 16
_FRIDAY, _SATURDAY, _SUNDAY = 4, 5, 6


def session_open(time_ns: int) -> bool:
    """Return whether the exchange trades at an instant (nanoseconds since the Unix epoch)."""
    local = chicago(time_ns)
    weekday, hour = local.weekday(), local.hour
    if weekday == _SATURDAY:
        return False
    if weekday == _SUNDAY:
        return hour >= _OPENS
    if weekday == _FRIDAY:
        return hour < _CLOSES
    return hour < _CLOSES or hour >= _OPENS


def trading_day(time_ns: int) -> date:
    """Return the trading day of an instant: the Chicago date, the next one from 17:00 on."""
    return (chicago(time_ns) + timedelta(hours=24 - _OPENS)).date()


def chicago(time_ns: int) -> datetime:
    """Return the wall clock of Chicago (without zone) by the rule of the United States since 2007."""
    utc = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(tzinfo=None)
    begins = datetime.combine(_nth_sunday(utc.year, 3, 2), datetime.min.time()) + timedelta(hours=8)
    ends = datetime.combine(_nth_sunday(utc.year, 11, 1), datetime.min.time()) + timedelta(hours=7)
    return utc - timedelta(hours=5 if begins <= utc < ends else 6)


def _nth_sunday(year: int, month: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(_SUNDAY - first.weekday()) % 7 + 7 * (n - 1))
