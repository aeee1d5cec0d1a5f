"""Decides how ticks are kept as they come: appended in the layout of the wire, one file for each unbroken run."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from minhos_mesh.history.domain.generations import Run
from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.places import LIVE, RUN, HistoryPlaces, make_folder, replacing, sync_folder
from minhos_mesh.runtime.tick_layout import TICK, TICK_BYTES, TickArray, is_laid_out

HELD: Final = "held.json"
EPOCHS_KEPT: Final = 16
"""Generations whose packed sequences are remembered."""

PIECE: Final = 65_536
"""Ticks of a run that are looked at together."""

_MAGIC: Final = b"MINHOSTJ"
_HEADER: Final = struct.Struct("<8sQQ40x")
_CHECKED: Final = 65_536

Raw = np.memmap[tuple[int], np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class JournalRun:
    """One file of the journal: an unbroken run of sequences of one generation."""

    path: Path
    epoch: int
    first_sequence: int
    ticks: TickArray
    """Whole ticks in it when it was opened, mapped from the file."""

    @property
    def last_sequence(self) -> int:
        """Last sequence in it; first - 1 when it is empty."""
        return self.first_sequence + len(self.ticks) - 1

    @property
    def run(self) -> Run:
        """Where it lies in its generation and in time; only of one that is not empty."""
        times = self.ticks["event_time_ns"]
        return Run(self.epoch, self.first_sequence, self.last_sequence, int(times[0]), int(times[-1]))

    def days(self) -> list[int]:
        """The UTC days, counted from 1970, that its ticks are of."""
        return sorted({number for rows in self._cut() for number, _ in rows.days()})

    def pieces(self, number: int) -> Iterator[Rows]:
        """Its ticks of one day with their places, a piece at a time."""
        for rows in self._cut():
            yield from (part for day, part in rows.days() if day == number)

    def _cut(self) -> Iterator[Rows]:
        for at in range(0, len(self.ticks), PIECE):
            yield Rows.run(self.epoch, self.first_sequence + at, self.ticks[at : at + PIECE])


class JournalWriter:
    """Appends the ticks of one run; nothing but this object writes to its file. Call it from one thread at a time."""

    def __init__(self, path: Path, descriptor: int, next_sequence: int) -> None:
        self._path, self._descriptor = path, descriptor
        self.next_sequence = next_sequence
        """Sequence of the tick that is to come."""

    @classmethod
    def create(cls, places: HistoryPlaces, series: Series, epoch: int, first_sequence: int) -> Self:
        """Begins a run. Raises HistoryError."""
        folder = places.journal_of(series)
        path = folder / f"{epoch:016x}-{first_sequence:020d}{LIVE}"
        try:
            make_folder(folder)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.write(descriptor, _HEADER.pack(_MAGIC, epoch, first_sequence))
        except OSError as error:
            raise HistoryError(f"{path} cannot be written: {error.strerror}") from error
        return cls(path, descriptor, first_sequence)

    def append(self, wire: bytes) -> None:
        """Appends ticks as they stand in a batch; they survive the end of this process. Raises HistoryError.

        They are on disk when the system has written them: what a loss of power takes, the source sends again.
        """
        view, size = memoryview(wire), os.fstat(self._descriptor).st_size
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            raise HistoryError(f"{self._path} cannot be written: {error.strerror}") from error
        self.next_sequence += len(wire) // TICK_BYTES

    def seal(self) -> None:
        """Ends the run: its file takes the name under which it is packed."""
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):  # ended already, by `seal_all`
            self._path.replace(self._path.with_suffix(RUN))


def seal_all(places: HistoryPlaces, series: Series) -> None:
    """Ends the runs that a process left behind which is gone."""
    for path in places.journal_of(series).glob(f"*{LIVE}"):
        path.replace(path.with_suffix(RUN))


def runs_of(places: HistoryPlaces, series: Series, *, sealed_only: bool = False) -> list[JournalRun]:
    """The runs of the journal, by generation and sequence; a file that says nothing is left out."""
    pattern = f"*{RUN}" if sealed_only else "*-*.*"
    opened = (_opened(path) for path in sorted(places.journal_of(series).glob(pattern)))
    return [run for run in opened if run is not None]


def _opened(path: Path) -> JournalRun | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            count = (os.fstat(file.fileno()).st_size - _HEADER.size) // TICK_BYTES
            if len(head) < _HEADER.size or count < 1:
                return None
            magic, epoch, first = _HEADER.unpack(head)
            if magic != _MAGIC:
                return None
            raw = np.memmap(file, np.uint8, "r", _HEADER.size, (count * TICK_BYTES,))
    except FileNotFoundError:
        return None
    whole = _whole(raw, count)
    return JournalRun(path, epoch, first, raw[: whole * TICK_BYTES].view(TICK)) if whole else None


def _whole(raw: Raw, count: int) -> int:
    """How many ticks are as they were written: after a loss of power the end of a file may be zeros, never its middle."""
    last = max(0, count - _CHECKED)
    if _laid_out(raw, last, count - last):
        return count
    less, bad = 0, count
    while bad - less > 1:
        middle = (less + bad) // 2
        less, bad = (middle, bad) if _laid_out(raw, middle - 1, 1) else (less, middle)
    return less if less or not _laid_out(raw, 0, 1) else 1


def _laid_out(raw: Raw, first: int, count: int) -> bool:
    return is_laid_out(raw.data, first * TICK_BYTES, count)


def held_of(places: HistoryPlaces, series: Series) -> dict[int, Ranges]:
    """The sequences of each generation that are kept: those that were packed, as far as is remembered, and the journal's."""
    held = remembered(places, series)
    for run in runs_of(places, series):
        held.setdefault(run.epoch, Ranges()).add(run.first_sequence, run.last_sequence)
    return held


def remembered(places: HistoryPlaces, series: Series) -> dict[int, Ranges]:
    """The sequences that were packed, of the newest generations; a note that cannot be read counts as empty."""
    try:
        told = json.loads((places.journal_of(series) / HELD).read_text(encoding="utf-8"))
        return {int(epoch): Ranges((int(first), int(last)) for first, last in told[epoch]) for epoch in told}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def remember_held(places: HistoryPlaces, series: Series, packed: Mapping[int, Ranges]) -> None:
    """Keeps which sequences were packed, of the newest generations; call it under `locked`."""
    newest = sorted(packed.items())[-EPOCHS_KEPT:]
    text = json.dumps({str(epoch): list(ranges) for epoch, ranges in newest})
    with replacing(places.journal_of(series) / HELD, places.writing(series)) as file:
        file.write(text.encode())


def drop(runs: list[JournalRun]) -> None:
    """Removes files whose ticks are kept elsewhere."""
    for run in runs:
        run.path.unlink(missing_ok=True)
    for folder in {run.path.parent for run in runs}:
        sync_folder(folder)
