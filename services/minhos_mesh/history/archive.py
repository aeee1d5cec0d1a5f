"""Decides how history is read: packed days and the journal as one, each time told once, in unbroken runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from minhos_mesh.history.domain.generations import Generation, Run, generations_of
from minhos_mesh.history.domain.merging import Counts, each_once, merged_streams
from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import PROVENANCES, NotHeld, Series
from minhos_mesh.history.journal import runs_of
from minhos_mesh.history.parquet import DayFile, DayInfo, read_info
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.runtime.tick_layout import TickArray
from minhos_mesh.runtime.trading_sessions import DAY_NS, utc_day

CHUNK: Final = 32_768
"""Most ticks of one chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """An unbroken run of ticks."""

    epoch: int
    first_sequence: int
    ticks: TickArray


@dataclass(frozen=True, slots=True)
class Day:
    """What is held of one UTC day."""

    day: date
    runs: tuple[Run, ...]
    packed: DayInfo | None
    """None while all of it is in the journal."""

    @property
    def ticks(self) -> int:
        """Ticks of it, each counted once."""
        held: dict[int, Ranges] = {}
        for run in self.runs:
            held.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
        return sum(ranges.count for ranges in held.values())


class Archive:
    """A look at one series; what is packed while it is read is found in its new place."""

    def __init__(self, places: HistoryPlaces, series: Series) -> None:
        """Raises FileBroken."""
        self.series = series
        self._places = places
        # The journal first: what is packed between the two looks is then seen twice and never not at all.
        self._journal = runs_of(places, series)
        self._packed = dict(_infos(places, series))

    @property
    def days(self) -> list[Day]:
        """What is held, by day, the oldest first."""
        runs: dict[int, list[Run]] = {}
        for day, info in self._packed.items():
            runs.setdefault(_number(day), []).extend(info.runs)
        for journal in self._journal:
            for number in journal.days():
                for rows in journal.pieces(number):
                    _extend(runs.setdefault(number, []), rows.runs())
        return [
            Day(utc_day(number * DAY_NS), tuple(found), self._packed.get(utc_day(number * DAY_NS)))
            for number, found in sorted(runs.items())
        ]

    def runs(self) -> Iterator[Run]:
        """All runs, in no order."""
        for info in self._packed.values():
            yield from info.runs
        for journal in self._journal:
            yield journal.run

    def held(self, epoch: int) -> Ranges:
        """The sequences of a generation that are held."""
        return Ranges((run.first_sequence, run.last_sequence) for run in self.runs() if run.epoch == epoch)

    def sequences(self, epoch: int, first: int, last: int) -> Iterator[Chunk]:
        """The ticks of a range of sequences that are held, in order."""
        for number in self._numbers(run for run in self.runs() if run.epoch == epoch and _overlaps(run, first, last)):
            for rows in self._stream(number, epoch, first, last):
                where = (rows.sequence >= first) & (rows.sequence <= last)
                yield from _chunks(rows.part(where))

    def since(self, epoch: int, start_ns: int, through: int) -> Iterator[Chunk]:
        """The ticks of a generation from a time on up to a sequence, in order."""
        runs = (r for r in self.runs() if r.epoch == epoch and r.first_sequence <= through and r.last_ns >= start_ns)
        for number in self._numbers(runs):
            if (number + 1) * DAY_NS <= start_ns:
                continue
            for rows in self._stream(number, epoch, last=through):
                where = (rows.sequence <= through) & (rows.ticks["event_time_ns"] >= start_ns)
                yield from _chunks(rows.part(where))

    def times(self, start_ns: int, end_ns: int, after: tuple[int, int] | None = None) -> Iterator[Chunk]:
        """The ticks of a span of time (the end exclusive), where generations overlap of one of them only.

        `after` is epoch and sequence of a tick behind which to go on. Raises NotHeld when its generation is not read.
        """
        generations = generations_of(self.runs())
        if after is not None:
            generations = _from(generations, after, self.series)
        wanted = {each.epoch: each for each in generations}
        touching = (r for r in self.runs() if r.epoch in wanted and r.first_ns < end_ns and r.last_ns >= start_ns)
        for number in self._numbers(touching):
            for each in generations:
                begin = after[1] + 1 if after is not None and each.epoch == after[0] else 1
                for rows in self._stream(number, each.epoch, begin):
                    times = rows.ticks["event_time_ns"]
                    where = (rows.sequence >= begin) & (times >= start_ns) & (times < end_ns)
                    if each.after_ns is not None:
                        where &= times > each.after_ns
                    yield from _chunks(rows.part(where))

    def _numbers(self, runs: Iterable[Run]) -> list[int]:
        return sorted({n for run in runs for n in range(run.first_ns // DAY_NS, run.last_ns // DAY_NS + 1)})

    def _stream(self, number: int, epoch: int, first: int = 1, last: int = 2**63 - 1) -> Iterator[Rows]:
        """The rows of one generation and day, at least those from a sequence to another, a piece at a time."""
        runs = [run for run in self._journal if run.epoch == epoch and _overlaps(run.run, first, last)]
        journal = each_once(rows for run in runs for rows in run.pieces(number))
        day = utc_day(number * DAY_NS)
        try:
            packed = DayFile(self._places.day(self.series, day)) if day in self._packed else None
        except FileNotFoundError:
            packed = None
        if packed is None:
            yield from journal
            return
        with packed:
            yield from merged_streams(packed.part(epoch, first, last), journal, Counts())


def _extend(runs: list[Run], more: list[Run]) -> None:
    """Puts runs to others; one that goes on where the last one ended is one with it."""
    for run in more:
        if runs and (runs[-1].epoch, runs[-1].last_sequence + 1) == (run.epoch, run.first_sequence):
            runs[-1] = replace(runs[-1], last_sequence=run.last_sequence, last_ns=run.last_ns)
        else:
            runs.append(run)


def best_series(held: Sequence[Series], symbol: str, provenance: str | None, fed: str | None) -> Series:
    """The series that a question means: of the provenance asked for, else of what feeds the symbol now, else the most real.

    Raises NotHeld.
    """
    of_symbol = [each for each in held if each.symbol == symbol]
    if not of_symbol:
        known = ", ".join(sorted({each.symbol for each in held})) or "nothing yet"
        raise NotHeld(f"no history of {symbol} is held: held are {known}")
    wanted = [provenance] if provenance is not None else [fed, *PROVENANCES]
    for name in wanted:
        for each in of_symbol:
            if each.provenance == name:
                return each
    have = ", ".join(each.provenance for each in of_symbol)
    raise NotHeld(f"no {provenance} history of {symbol} is held: held is {have}")


def _infos(places: HistoryPlaces, series: Series) -> Iterator[tuple[date, DayInfo]]:
    for day in places.days(series):
        try:
            yield day, read_info(places.day(series, day))
        except FileNotFoundError:
            continue


def _from(generations: list[Generation], after: tuple[int, int], series: Series) -> list[Generation]:
    epochs = [each.epoch for each in generations]
    if after[0] not in epochs:
        raise NotHeld(f"epoch {after[0]} of {series} is not read: read are {', '.join(map(str, epochs)) or 'none'}")
    return generations[epochs.index(after[0]) :]


def _chunks(rows: Rows) -> Iterator[Chunk]:
    for begin, end in rows.stretches():
        for at in range(begin, end, CHUNK):
            part = rows.part(slice(at, min(at + CHUNK, end)))
            yield Chunk(int(part.epoch[0]), int(part.sequence[0]), part.ticks)


def _overlaps(run: Run, first: int, last: int) -> bool:
    return run.first_sequence <= last and run.last_sequence >= first


def _number(day: date) -> int:
    return (day - utc_day(0)).days
