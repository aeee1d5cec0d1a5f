"""Decides which trading session an instant belongs to, and what a market without sessions looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * NS
CLOSED: Final = -1
"""Place of a time at which the market was closed."""
_EPOCH = date(1970, 1, 1)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session: from its open, inclusive, to its close, exclusive; ns since the Unix epoch."""

    day: date
    """The trading day that it counts for; a Globex session opens on the evening before."""
    open_ns: int
    close_ns: int


class Sessions(Protocol):
    """Sessions in order of time, each with a place that rises with it."""

    def places(self, times_ns: Ints) -> Ints:
        """For each time the place of its session; CLOSED where the market was closed."""
        ...

    def place(self, time_ns: int) -> int:
        """The same for one time."""
        ...

    def __getitem__(self, place: int) -> Session:
        """The session at a place."""
        ...


class ListedSessions:
    """Sessions that a calendar lists, none overlapping another. What is before and behind them counts as closed."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Raises ValueError when they are not in order."""
        self._sessions = tuple(sessions)
        self._opens: Ints = np.array([each.open_ns for each in sessions], np.int64)
        self._closes: Ints = np.array([each.close_ns for each in sessions], np.int64)
        if (self._closes <= self._opens).any() or (self._opens[1:] < self._closes[:-1]).any():
            raise ValueError("sessions overlap, are empty or are not in order of time")

    def __len__(self) -> int:
        return len(self._sessions)

    def __getitem__(self, place: int) -> Session:
        return self._sessions[place]

    def places(self, times_ns: Ints) -> Ints:
        """See `Sessions`."""
        if not len(self):
            return np.full(len(times_ns), CLOSED, np.int64)
        found = np.searchsorted(self._opens, times_ns, side="right").astype(np.int64) - 1
        return np.where((found >= 0) & (times_ns < self._closes[np.maximum(found, 0)]), found, CLOSED)

    def place(self, time_ns: int) -> int:
        """See `Sessions`."""
        found = int(np.searchsorted(self._opens, time_ns, side="right")) - 1
        return found if found >= 0 and time_ns < self._sessions[found].close_ns else CLOSED

    def at_or_after(self, time_ns: int) -> Session | None:
        """The session that a time is in, or the next one; None behind the last."""
        place = int(np.searchsorted(self._closes, time_ns, side="right"))
        return self._sessions[place] if place < len(self) else None

    @property
    def through_ns(self) -> int:
        """Close of the last one; what is later is not known here. 0 when there is none."""
        return self._sessions[-1].close_ns if self._sessions else 0


class AlwaysOpen:
    """The market that never closes: each calendar day in UTC is one session, and its number since 1970 its place."""

    def __getitem__(self, place: int) -> Session:
        return Session(_EPOCH + timedelta(days=place), place * DAY_NS, (place + 1) * DAY_NS)

    def places(self, times_ns: Ints) -> Ints:
        """See `Sessions`."""
        found: Ints = times_ns // DAY_NS
        return found

    def place(self, time_ns: int) -> int:
        """See `Sessions`."""
        return time_ns // DAY_NS

    def at_or_after(self, time_ns: int) -> Session | None:
        """The session that a time is in."""
        return self[time_ns // DAY_NS]


ALWAYS_OPEN: Final = AlwaysOpen()


def utc_day(time_ns: int) -> date:
    """The calendar day of a time in UTC, by which ticks are kept."""
    return _EPOCH + timedelta(days=time_ns // DAY_NS)


def day_start_ns(day: date) -> int:
    """Midnight in UTC at which a day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS
