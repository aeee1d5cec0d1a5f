"""Decides how ticks get into the Parquet files: merged with what is there, a day at a time, and the journal emptied last."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import date

from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows, joined, merged
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.domain.sessions import DAY_NS, utc_day
from minhos_mesh.history.journal import drop, remember_held, remembered, runs_of
from minhos_mesh.history.parquet import read_day, write_day
from minhos_mesh.history.places import HistoryPlaces, locked

INVENTED = ("SIMULATED", "REPLAY")
"""What can be made again; only this is ever removed because of its age."""


@dataclass(slots=True)
class Written:
    """What became of rows that were written."""

    days: int = 0
    added: int = 0
    """Ticks that were not held before."""
    known: int = 0
    """Ticks that were held already."""
    contradicting: int = 0
    """Ticks whose place holds another one, which stays."""


def put_day(places: HistoryPlaces, series: Series, day: date, rows: Rows, written: Written) -> None:
    """Merges rows of one day with its file and counts them into `written`. Call it under `locked`. Raises HistoryError."""
    path = places.day(series, day)
    try:
        held = read_day(path)
    except FileNotFoundError:
        held = Rows.none()
    result = merged(held, rows)
    written.added += result.added
    written.known += result.known
    written.contradicting += result.contradicting
    written.days += 1
    if result.added:
        write_day(path, series, result.rows)


def pack(places: HistoryPlaces, series: Series) -> Written:
    """Brings all ended runs of the journal into the files of their days. Raises HistoryError.

    A process that dies in between has lost nothing: the runs are removed when every file is on disk, and packing them
    again finds their ticks there.
    """
    written = Written()
    with locked(places, series):
        runs = runs_of(places, series, sealed_only=True)
        by_day: dict[int, list[Rows]] = {}
        for run in runs:
            for number, rows in run.rows().days():
                by_day.setdefault(number, []).append(rows)
        for number, parts in sorted(by_day.items()):
            put_day(places, series, utc_day(number * DAY_NS), merged(Rows.none(), joined(parts)).rows, written)
        if runs:
            packed = remembered(places, series)
            for run in runs:
                packed.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
            remember_held(places, series, packed)
            drop(runs)
    return written


def expire(places: HistoryPlaces, series: Series, days: int) -> int:
    """Removes days of invented ticks that were written more than `days` days ago; returns how many. 0 keeps all."""
    if series.provenance not in INVENTED or days < 1:
        return 0
    removed = 0
    with locked(places, series):
        for day in places.days(series):
            file = places.day(series, day)
            if time.time() - file.stat().st_mtime > days * 86_400:
                shutil.rmtree(file.parent)
                removed += 1
    return removed
