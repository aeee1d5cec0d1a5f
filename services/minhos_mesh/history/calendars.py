"""Decides when exchanges trade: by the calendars of exchange_calendars, which is loaded when it is asked and not before."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, AlwaysOpen, ListedSessions, Session, utc_day

CALENDARS: Final[Mapping[str, str]] = MappingProxyType(
    {"CME": "CMES", "CBOT": "CMES", "NYMEX": "CMES", "COMEX": "CMES"}
)
"""Calendar of each exchange suffix: the Globex sessions, from 17:00 Chicago time to 17:00, with holidays and early closes."""

_MARGIN: Final = timedelta(days=10)
"""Longer than any holiday, so that the sessions before and behind a range are there too."""


def calendar_of(exchange: str) -> str | None:
    """Name of the calendar of an exchange; None for one that is taken as open at all times."""
    return CALENDARS.get(exchange)


def sessions_over(exchange: str, first_ns: int, last_ns: int) -> AlwaysOpen | ListedSessions:
    """The sessions of an exchange over both times and some days around; a market without a calendar is always open."""
    name = calendar_of(exchange)
    if name is None:
        return ALWAYS_OPEN
    import exchange_calendars
    import pandas as pd

    start, end = utc_day(first_ns) - _MARGIN, utc_day(last_ns) + _MARGIN
    with warnings.catch_warnings():
        # exchange_calendars itself uses what pandas will give up one day; nobody here can do anything about it.
        warnings.simplefilter("ignore", pd.errors.PandasDeprecationWarning)
        schedule = exchange_calendars.get_calendar(name, start=start, end=end).schedule
    opens = schedule["open"].dt.as_unit("ns").astype("int64").tolist()
    closes = schedule["close"].dt.as_unit("ns").astype("int64").tolist()
    days = [stamp.date() for stamp in schedule.index]
    return ListedSessions([Session(*each) for each in zip(days, opens, closes, strict=True)])
