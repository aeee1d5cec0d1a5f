"""Decides which trading session an instant belongs to, and what a market without sessions looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * NS
_EPOCH = date(1970, 1, 1)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session: from its open, inclusive, to its close, exclusive; ns since the Unix epoch."""

    day: date
    """The trading day that it counts for; a Globex session opens on the evening before."""
    open_ns: int
    close_ns: int


class Sessions:
    """Sessions in order of time, none overlapping another."""

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

    @property
    def opens(self) -> Ints:
        """Open of each."""
        return self._opens

    def places(self, times_ns: Ints) -> Ints:
        """For each time the place of its session; -1 where the market was closed."""
        if not len(self):
            return np.full(len(times_ns), -1, np.int64)
        found = np.searchsorted(self._opens, times_ns, side="right").astype(np.int64) - 1
        return np.where((found >= 0) & (times_ns < self._closes[np.maximum(found, 0)]), found, -1)

    def at_or_after(self, time_ns: int) -> Session | None:
        """The session that a time is in, or the next one; None behind the last."""
        place = int(np.searchsorted(self._closes, time_ns, side="right"))
        return self._sessions[place] if place < len(self) else None


def always_open(first_ns: int, last_ns: int) -> Sessions:
    """The market that never closes: one session for each calendar day in UTC, over both times."""
    first, last = first_ns // DAY_NS, last_ns // DAY_NS
    return Sessions([Session(_EPOCH + timedelta(days=n), n * DAY_NS, (n + 1) * DAY_NS) for n in range(first, last + 1)])


def utc_day(time_ns: int) -> date:
    """The calendar day of a time in UTC, by which ticks are kept."""
    return _EPOCH + timedelta(days=time_ns // DAY_NS)


def day_start_ns(day: date) -> int:
    """Midnight in UTC at which a day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS
