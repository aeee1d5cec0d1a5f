"""Decides whether what is kept is what was written: checksums, order, days, and which sequences are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from minhos_mesh.history.daily import read_held
from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Digest, Rows, former_digest, joined
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.journal import runs_of
from minhos_mesh.history.parquet import FORMER, DayFile, is_as_written, read_info
from minhos_mesh.history.places import HistoryBusy, HistoryPlaces, locked
from minhos_mesh.runtime.trading_sessions import DAY_NS, utc_day


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences of one generation that are not held, between others that are."""

    epoch: int
    first_sequence: int
    last_sequence: int
    may_be_in_broken_file: bool = False
    """Whether a file of the series does not say what it held, so that it may have been these."""


@dataclass(slots=True)
class Verified:
    """What was found in one series."""

    series: Series
    files: int = 0
    ticks: int = 0
    """Ticks in the Parquet files, and in the journal those that were not packed yet."""
    problems: list[str] = field(default_factory=list)
    """What is broken, one sentence each."""
    gaps: list[Gap] = field(default_factory=list)
    """What is in no file, and not in what a broken file says it held; no fault of the files."""
    removed: list[str] = field(default_factory=list)
    """Files that processes left unfinished which are gone; what was to be in them is in the journal or at its source."""


def verify(
    places: HistoryPlaces, series: Series, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Verified:
    """Reads every file of a series and checks it, a row group at a time; `progress` is told ticks read and ticks there are.

    What a writer that is gone left unfinished is removed; while somebody writes the series, nothing is.
    """
    found = Verified(series)
    _clear(places, series, found)
    held: dict[int, Ranges] = {}
    unknown = False
    _verify_journal(places, series, found, held)
    days, done = places.days(series), 0
    whole = sum(_rows_of(places.day(series, day)) for day in days)
    for day in days:
        path = places.day(series, day)
        try:
            with DayFile(path) as file:
                check = _Check(held, day)
                for rows in file.rows():
                    check.add(rows)
                    progress(done + check.count, whole)
                found.problems += [f"{path}: {problem}" for problem in check.problems()]
                found.problems += _damage(file, series, check)
        except (HistoryError, FileNotFoundError) as error:
            found.problems.append(str(error))
            unknown = not _said_to_be_held(path, held) or unknown
            continue
        done += check.count
        found.files += 1
        found.ticks += check.count
    _verify_daily(places, series, found)
    for epoch, ranges in sorted(held.items()):
        bounds = list(ranges)
        found.gaps += [Gap(epoch, *missing, unknown) for missing in ranges.missing(bounds[0][0], bounds[-1][1])]
    return found


def _clear(places: HistoryPlaces, series: Series, found: Verified) -> None:
    if not places.unfinished(series):
        return  # and no lock is needed, so that a store on a medium that cannot be written can be verified
    try:
        with locked(places, series, 0.0) as left:
            found.removed += map(str, left)
    except HistoryBusy:
        return
    except OSError as error:
        found.problems.append(f"{error.filename}: was left unfinished and cannot be removed: {error.strerror or error}")


def _said_to_be_held(path: Path, held: dict[int, Ranges]) -> bool:
    """Adds what a file that cannot be read on says that it holds; whether it says so."""
    try:
        runs = read_info(path).runs
    except (HistoryError, FileNotFoundError):
        return False
    for run in runs:
        held.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
    return True


def _rows_of(path: Path) -> int:
    """Rows that a file says it has; 0 when it says nothing."""
    try:
        return read_info(path).rows
    except (HistoryError, FileNotFoundError):
        return 0


def _verify_journal(places: HistoryPlaces, series: Series, found: Verified, held: dict[int, Ranges]) -> None:
    for run in runs_of(places, series):
        found.ticks += len(run.ticks)
        check = _Check(held, None)
        for number in run.days():
            for rows in run.pieces(number):
                check.add(rows)
        found.problems += [f"{run.path}: {problem}" for problem in check.problems()]


def _verify_daily(places: HistoryPlaces, series: Series, found: Verified) -> None:
    if places.daily(series).exists():
        found.files += 1
        try:
            read_held(places, series)
        except HistoryError as error:
            found.problems.append(str(error))


def _damage(file: DayFile, series: Series, check: _Check) -> list[str]:
    """What of the bytes of a file is not what was written."""
    former = file.info.format == FORMER
    digest = former_digest(joined(list(file.rows()))) if former else check.digest.text()
    if digest != file.info.digest:
        return [f"{file.path}: its values are not those that were written (checksum {file.info.digest})"]
    if not is_as_written(file, series):
        return [f"{file.path}: its values are whole, but not all of its bytes are those that were written"]
    return []


class _Check:
    """Looks whether rows are in order and of the day that they are kept under."""

    def __init__(self, held: dict[int, Ranges], day: date | None) -> None:
        self.digest, self.count = Digest(), 0
        self._held, self._day = held, day
        self._last: tuple[int, int, int] | None = None
        self._epochs: list[int] = []
        self._days: set[int] = set()
        self._wrong: dict[str, None] = {}

    def add(self, rows: Rows) -> None:
        """Takes the rows that follow."""
        self.digest.add(rows)
        self.count += len(rows)
        for run in rows.runs():
            self._held.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
            if not self._epochs or self._epochs[-1] != run.epoch:
                self._epochs.append(run.epoch)
        times, same = rows.ticks["event_time_ns"], rows.epoch[1:] == rows.epoch[:-1]
        first = (int(rows.epoch[0]), int(rows.sequence[0]), int(times[0]))
        last = self._last if self._last is not None and self._last[0] == first[0] else None
        if (same & (np.diff(rows.sequence) <= 0)).any() or (last is not None and first[1] <= last[1]):
            self._wrong["sequences do not rise within a generation"] = None
        if (same & (np.diff(times) < 0)).any() or (last is not None and first[2] < last[2]):
            self._wrong["event times fall within a generation"] = None
        self._last = (int(rows.epoch[-1]), int(rows.sequence[-1]), int(times[-1]))
        self._days.update(np.unique(times // DAY_NS).tolist())

    def problems(self) -> list[str]:
        """What was wrong."""
        if len(set(self._epochs)) != len(self._epochs):
            self._wrong["a generation stands in two places"] = None
        days = {utc_day(number * DAY_NS) for number in self._days}
        if self._day is not None and days and days != {self._day}:
            self._wrong[f"ticks of {', '.join(sorted(map(str, days)))} stand under {self._day}"] = None
        return list(self._wrong)
