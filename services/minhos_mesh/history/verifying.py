"""Decides whether what is kept is what was written: checksums, order, days, and which sequences are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.domain.sessions import DAY_NS, utc_day
from minhos_mesh.history.journal import runs_of
from minhos_mesh.history.parquet import is_as_written, read_day, read_info
from minhos_mesh.history.places import HistoryPlaces


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences of one generation that are not held, between others that are."""

    epoch: int
    first_sequence: int
    last_sequence: int


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
    """What was never recorded; no fault of the files."""


def verify(
    places: HistoryPlaces, series: Series, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Verified:
    """Reads every file of a series and checks it."""
    found = Verified(series)
    held: dict[int, Ranges] = {}
    for run in runs_of(places, series):
        held.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
        found.ticks += len(run.ticks)
        found.problems += [f"{run.path}: {problem}" for problem in _problems(run.rows(), None)]
    days = places.days(series)
    for done, day in enumerate(days, 1):
        path = places.day(series, day)
        try:
            info, rows = read_info(path), read_day(path)
        except (HistoryError, FileNotFoundError) as error:
            found.problems.append(str(error))
            continue
        finally:
            progress(done, len(days))
        found.files += 1
        found.ticks += len(rows)
        found.problems += [f"{path}: {problem}" for problem in _problems(rows, day)]
        if rows.digest() != info.digest:
            found.problems.append(f"{path}: its values are not those that were written (checksum {info.digest})")
        elif not is_as_written(path, series, rows):
            found.problems.append(f"{path}: its values are whole, but not all of its bytes are those that were written")
        for part in rows.runs():
            held.setdefault(part.epoch, Ranges()).add(part.first_sequence, part.last_sequence)
    for epoch, ranges in sorted(held.items()):
        bounds = list(ranges)
        found.gaps += [Gap(epoch, *missing) for missing in ranges.missing(bounds[0][0], bounds[-1][1])]
    return found


def _problems(rows: Rows, day: date | None) -> list[str]:
    """What is wrong with the order of rows and the day that they are kept under."""
    problems, times = [], rows.ticks["event_time_ns"]
    same = rows.epoch[1:] == rows.epoch[:-1]
    if (same & (np.diff(rows.sequence) <= 0)).any():
        problems.append("sequences do not rise within a generation")
    if (same & (np.diff(times) < 0)).any():
        problems.append("event times fall within a generation")
    if len(np.unique(rows.epoch)) != int(np.count_nonzero(~same)) + (len(rows) > 0):
        problems.append("a generation stands in two places")
    if day is not None and len(rows):
        days = {utc_day(int(number) * DAY_NS) for number in np.unique(times // DAY_NS)}
        if days != {day}:
            problems.append(f"ticks of {', '.join(sorted(each.isoformat() for each in days))} stand under {day}")
    return problems
