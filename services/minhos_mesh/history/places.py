"""Decides where each thing of history lies on disk, and how a file gets there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from glob import escape
from pathlib import Path
from typing import BinaryIO, Final

from minhos_mesh.history.domain.series import PROVENANCES, HistoryError, Series

TICKS: Final = "ticks.parquet"
RUN: Final = ".run"
LIVE: Final = ".live"
DAILY: Final = "daily.parquet"
LOCK_DEADLINE_S: Final = 60.0

_SYMBOL = re.compile(r"^[A-Za-z0-9_.-]{1,32}$")
_FRESH = ".new"
_PARTS = ("ticks", "daily", "journal")


class HistoryBusy(HistoryError):
    """Expected: another process writes the same series for longer than can be waited for."""


@dataclass(frozen=True, slots=True)
class HistoryPlaces:
    """The folder of history of one mesh."""

    root: Path

    @property
    def ticks(self) -> Path:
        """The Parquet files, partitioned as Hive does it."""
        return self.root / "ticks"

    @property
    def journal(self) -> Path:
        """What has been recorded and is not in a Parquet file yet."""
        return self.root / "journal"

    def writing(self, series: Series) -> Path:
        """Folder of what is not whole yet: beside what others scan, never in it, and on the same file system."""
        return self.root / "writing" / f"provenance={series.provenance}" / f"symbol={series.symbol}"

    def daily(self, series: Series) -> Path:
        """The file of the daily bars that were imported."""
        return self.root / "daily" / f"provenance={series.provenance}" / f"symbol={series.symbol}" / DAILY

    def days_of(self, series: Series) -> Path:
        """Folder of the days of a series."""
        return self.ticks / f"provenance={series.provenance}" / f"symbol={series.symbol}"

    def day(self, series: Series, day: date) -> Path:
        """The file of one day."""
        return self.days_of(series) / f"day={day.isoformat()}" / TICKS

    def journal_of(self, series: Series) -> Path:
        """Folder of the journal of a series."""
        return self.journal / f"provenance={series.provenance}" / f"symbol={series.symbol}"

    def set_aside(self, path: Path) -> Path:
        """Moves a file of the store that is broken to `broken/`, under the same path and a number, and says where it is now.

        Nothing reads it there. Call it under `locked`.
        """
        folder = self.root / "broken" / path.parent.relative_to(self.root)
        make_folder(folder)
        number = 1
        while (there := folder / f"{path.name}.{number}").exists():
            number += 1
        path.rename(there)
        sync_folder(folder)
        sync_folder(path.parent)
        return there

    def series(self) -> list[Series]:
        """All series of which something is kept, in order of provenance and symbol."""
        patterns = (f"day=*/{TICKS}", "*-*.*", DAILY)
        return self._with((self.ticks, self.journal, self.root / "daily"), patterns)

    def unfinished_series(self) -> list[Series]:
        """All series of which there is a file that is being written, or that a process left so which is gone."""
        return self._with([self.root / name for name in ("writing", *_PARTS)], (f"*{_FRESH}", f"day=*/.*{_FRESH}"))

    def unfinished(self, series: Series) -> list[Path]:
        """The files of a series that are being written, or were left so: one at a time is, under `locked`."""
        found = list(self.writing(series).glob(f"*{_FRESH}"))
        for part in _PARTS:  # where earlier releases wrote them
            folder = self.root / part / f"provenance={series.provenance}" / f"symbol={series.symbol}"
            found += [*folder.glob(f".*{_FRESH}"), *folder.glob(f"day=*/.*{_FRESH}")]
        return sorted(found)

    def _with(self, folders: Iterable[Path], patterns: Iterable[str]) -> list[Series]:
        found = set()
        for folder in folders:
            for place in folder.glob("provenance=*/symbol=*"):
                series = Series(_value(place.parent.name), _value(place.name))
                known = series.provenance in PROVENANCES and _SYMBOL.match(series.symbol)
                if known and any(any(place.glob(pattern)) for pattern in patterns):
                    found.add(series)
        return sorted(found)

    def days(self, series: Series) -> list[date]:
        """The days of which there is a file, the oldest first."""
        found = []
        for file in self.days_of(series).glob(f"day=*/{TICKS}"):
            with contextlib.suppress(ValueError):
                found.append(date.fromisoformat(_value(file.parent.name)))
        return sorted(found)


def _value(name: str) -> str:
    return name.partition("=")[2]


@contextlib.contextmanager
def locked(places: HistoryPlaces, series: Series, deadline_s: float = LOCK_DEADLINE_S) -> Iterator[list[Path]]:
    """Nobody else writes the files of the series meanwhile; readers are not held up. Raises HistoryBusy.

    The lock belongs to the open file: it ends with the process, however that ends. So what lies there unfinished when the
    lock is had was left by a process that is gone: it is removed, and told.
    """
    folder = places.root / "lock"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{series.provenance}-{series.symbol}"
    with path.open("ab") as file:
        ends_s = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends_s:
                    raise HistoryBusy(
                        f"the history of {series} is being written by another process for more than {deadline_s:g} s:"
                        " try again when it has ended"
                    ) from None
                time.sleep(0.05)
        left = places.unfinished(series)
        for each in left:
            each.unlink(missing_ok=True)
        yield left


@contextlib.contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends without an error, and never in part.

    Its content is on disk before the name is, and the name is on disk when this returns. Until then it lies in `folder`,
    on the same file system; beside `path` when None. Call it under `locked` for what is in the store.
    """
    if folder is None:
        _clear_beside(path)
    fresh = (folder or path.parent) / f".{path.name}.{os.getpid()}{_FRESH}"
    make_folder(fresh.parent)
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        make_folder(path.parent)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _clear_beside(path: Path) -> None:
    """Removes what processes that are gone left unfinished of a file that nobody locks."""
    for left in path.parent.glob(f".{escape(path.name)}.*{_FRESH}"):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(left.suffixes[-2].lstrip(".")), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder with those above it, each of them on disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
