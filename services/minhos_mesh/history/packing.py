"""Decides how ticks get into the Parquet files: merged with what is there, a day at a time, and the journal emptied last."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from filecmp import cmp
from itertools import chain
from pathlib import Path

from minhos_mesh.history.domain.merging import Counts, each_once, merged_streams
from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.journal import JournalRun, drop, remember_held, remembered, runs_of
from minhos_mesh.history.parquet import DayFile, DayWriter, FileBroken, is_as_written
from minhos_mesh.history.places import HistoryPlaces, locked, replacing
from minhos_mesh.runtime.trading_sessions import DAY_NS, utc_day

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
    broken: list[str] = field(default_factory=list)
    """Why days could not be written whose file is there and cannot be read; what is to go there stays in the journal."""


class _Unchanged(Exception):
    """Nothing was added, so the file that is there stays."""


def put_day(
    places: HistoryPlaces,
    series: Series,
    day: date,
    epoch: int,
    pieces: Iterable[Rows],
    written: Written,
    *,
    finds_damage: bool = False,
) -> None:
    """Merges rows of one day and generation, in order of sequence, with its file and counts them into `written`.

    Call it under `locked`. It holds a few row groups at a time, however many rows there are. Raises HistoryError, of
    which FileBroken says that the file that is there cannot be read, and with `finds_damage` also that it holds all rows
    and yet is not what was written.
    """
    path, counts = places.day(series, day), Counts()
    more = each_once(pieces)
    first = next(more, None)
    if first is None:
        return
    try:
        held: DayFile | None = DayFile(path)
    except FileNotFoundError:
        held = None
    try:
        with replacing(path, places.writing(series)) as file:
            with DayWriter(file, series) as writer:
                for each in _in_order(held, epoch, first):
                    stream = iter(()) if held is None else held.part(each)
                    if each == epoch:
                        stream = merged_streams(stream, chain([first], more), counts)
                    for rows in stream:
                        writer.add(rows)
            if not counts.added:
                file.flush()
                if finds_damage and held is not None and _is_damaged(held, series, Path(file.name)):
                    raise FileBroken(f"{path}: not all of its bytes are those that were written")
                raise _Unchanged
    except _Unchanged:
        pass  # the fresh file is gone already
    except OSError as error:
        raise HistoryError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if held is not None:
            held.close()
    written.added += counts.added
    written.known += counts.known
    written.contradicting += counts.contradicting


def _is_damaged(held: DayFile, series: Series, again: Path) -> bool:
    """Whether a file that holds all rows is not what they are written as; `again` is what they were written as now."""
    return not cmp(held.path, again, shallow=False) and not is_as_written(held, series)


def _in_order(held: DayFile | None, epoch: int, first: Rows) -> list[int]:
    """The generations of a day by the time at which each begins."""
    begins: dict[int, tuple[int, int]] = {}
    for run in () if held is None else held.info.runs:
        begins.setdefault(run.epoch, (run.first_sequence, run.first_ns))
    mine = (int(first.sequence[0]), int(first.ticks["event_time_ns"][0]))
    begins[epoch] = min(mine, begins.get(epoch, mine))
    return sorted(begins, key=lambda each: (begins[each][1], each))


def pack(places: HistoryPlaces, series: Series) -> Written:
    """Brings all ended runs of the journal into the files of their days. Raises HistoryError.

    A process that dies in between has lost nothing: the runs are removed when every file is on disk, and packing them
    again finds their ticks there. A day whose file is broken is passed over and told; its runs stay in the journal.
    """
    written = Written()
    with locked(places, series):
        runs = runs_of(places, series, sealed_only=True)
        by_place: dict[tuple[int, int], list[JournalRun]] = {}
        for run in runs:
            for number in run.days():
                by_place.setdefault((number, run.epoch), []).append(run)
        left: dict[Path, JournalRun] = {}
        broken: dict[int, str] = {}
        for (number, epoch), of_day in sorted(by_place.items()):
            pieces = (rows for run in of_day for rows in run.pieces(number))
            try:
                put_day(places, series, utc_day(number * DAY_NS), epoch, pieces, written)
            except FileBroken as error:
                broken[number] = str(error)
                left.update((run.path, run) for run in of_day)
        written.days = len({number for number, _ in by_place} - broken.keys())
        written.broken = [broken[number] for number in sorted(broken)]
        _forget(places, series, [run for run in runs if run.path not in left])
    return written


def _forget(places: HistoryPlaces, series: Series, runs: list[JournalRun]) -> None:
    """Removes runs that are in their files, and keeps in mind that they are."""
    if not runs:
        return
    packed = remembered(places, series)
    for run in runs:
        packed.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
    remember_held(places, series, packed)
    drop(runs)


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
