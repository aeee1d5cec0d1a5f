"""Decides how files get into the store: judged and numbered as a source of the mesh would be, so that twice is once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from minhos_mesh.history.domain.rows import Rows, taken
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.domain.validation import Reason, Rules, judge
from minhos_mesh.history.packing import Written, put_day
from minhos_mesh.history.parquet import FileBroken
from minhos_mesh.history.places import HistoryPlaces, locked
from minhos_mesh.runtime.clock import Clock, SystemClock
from minhos_mesh.runtime.tick_layout import TickArray
from minhos_mesh.runtime.trading_sessions import DAY_NS, utc_day
from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import last_is_final, tick_columns

_SYSTEM: Final = SystemClock()

STEP: Final = 32_768
"""Records that are read at once; so many stay in the cache of a processor while they are judged."""

Progress = Callable[[int, int], None]
"""Told how many records have been taken, and how many there are."""


@dataclass(slots=True)
class Imported:
    """What became of the records of a file: read = accepted + the sum of rejected."""

    read: int = 0
    accepted: int = 0
    rejected: dict[Reason, int] = field(default_factory=dict)
    written: Written = field(default_factory=Written)
    set_aside: list[str] = field(default_factory=list)
    """Files of the store that were broken, and where each of them is now; their days were written anew."""


def epoch_of_file(symbol: str, first_record: bytes) -> int:
    """Generation of an imported file: the same for the same beginning, so a file that has grown goes on where it ended."""
    told = symbol.encode() + b"\0" + first_record
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little") | 1


def import_scid(
    places: HistoryPlaces,
    series: Series,
    path: Path,
    rules: Rules,
    progress: Progress = lambda _taken, _all: None,
    *,
    clock: Clock = _SYSTEM,
) -> Imported:
    """Brings the records of a .scid file into the store. Raises ScidError, HistoryError.

    Each is judged by the rules of live data; accepted ones are numbered from 1. A record that lies in the future when the
    import begins is refused as FUTURE, those behind it are not. A last record that Sierra Chart may still rewrite is left out. What was imported before is found again and not written twice. A file of the store that turns
    out to be broken is moved aside, and its day is written from the .scid file alone.
    """
    set_aside, added, wall_ns = list[str](), 0, clock.wall_ns()
    with ScidFile(path) as file, locked(places, series):
        count = file.count()
        if count and not last_is_final(file.read(count - 1, 1)):
            count -= 1
        if not count:
            raise HistoryError(f"{path} holds no record that is final: there is nothing to import")
        epoch = epoch_of_file(series.symbol, file.read(0, 1).tobytes())
        while True:
            done = Imported(set_aside=set_aside)
            accepted = _accepted(_pieces(file, count, progress), epoch, rules, wall_ns, done)
            broken = _put(places, series, epoch, accepted, done)
            if broken is None:
                break
            added += done.written.added
            path = places.day(series, broken)
            set_aside.append(f"{path} was broken and is now {places.set_aside(path)}")
    done.written.added += added
    done.written.known -= added  # by what went before a broken file was found
    return done


def _put(places: HistoryPlaces, series: Series, epoch: int, accepted: Iterator[Rows], done: Imported) -> date | None:
    """Writes day after day; ends at one whose file is broken, which is the answer."""
    for number, of_day in groupby(_by_day(accepted), key=itemgetter(0)):
        day, pieces = utc_day(number * DAY_NS), (rows for _, rows in of_day)
        try:
            put_day(places, series, day, epoch, pieces, done.written, finds_damage=True)
        except FileBroken:
            return day
        done.written.days += 1
    return None


def _by_day(pieces: Iterator[Rows]) -> Iterator[tuple[int, Rows]]:
    for rows in pieces:
        yield from rows.days()


def _pieces(file: ScidFile, count: int, progress: Progress) -> Iterator[Records]:
    taken = 0
    progress(taken, count)
    while taken < count:
        records = file.read(taken, min(STEP, count - taken))
        if not len(records):
            raise HistoryError(f"{file.path} became shorter while it was read: {taken} of {count} records were there")
        taken += len(records)
        yield records
        progress(taken, count)


def _accepted(pieces: Iterator[Records], epoch: int, rules: Rules, wall_ns: int, done: Imported) -> Iterator[Rows]:
    newest_ns = 0
    for records in pieces:
        ticks: TickArray = as_ticks(tick_columns(records, rules.tick_e9), None)
        verdict = judge(ticks, newest_ns, rules, wall_ns)
        done.read += len(ticks)
        for reason, number in verdict.rejected.items():
            done.rejected[reason] = done.rejected.get(reason, 0) + number
        if verdict.accepted is not None:
            ticks = taken(ticks, verdict.accepted)
        if len(ticks):
            yield Rows.run(epoch, done.accepted + 1, ticks)
            done.accepted += len(ticks)
            newest_ns = int(ticks["event_time_ns"][-1])
