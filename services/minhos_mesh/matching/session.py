"""Decides when an equity index future trades and which trading day an instant belongs to, by the Globex week alone.

Sunday 17:00 to Friday 16:00 Chicago time with a break from 16:00 to 17:00; the day begins at 17:00. On a holiday the
freshness of prices is what keeps orders from filling; holidays only say when no prices are to be expected.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from minhos_mesh.matching.holidays import Holiday, holiday

_OPENS = 17
_CLOSES = 16
_NOON = 12
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


def open_for_ns(time_ns: int) -> int | None:
    """Return for how long the exchange has traded without a break, in whole seconds; None while it does not, holidays included."""
    if not session_open(time_ns):
        return None
    local, day = chicago(time_ns), trading_day(time_ns)
    short = holiday(day)
    if short is Holiday.CLOSED or (short is Holiday.NOON and local.date() == day and local.hour >= _NOON):
        return None
    opened = datetime.combine(day - timedelta(days=1), time(_OPENS))
    return int((local - opened).total_seconds()) * 1_000_000_000


def prices_due(time_ns: int, within_ns: int, delay_ns: int = 0) -> bool:
    """Return whether a price of the last `within_ns` should be there, of data that comes up to `delay_ns` late."""
    traded_ns = open_for_ns(time_ns - delay_ns)
    return traded_ns is not None and traded_ns >= within_ns


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
