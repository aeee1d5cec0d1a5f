"""Decides how daily bars of files are kept beside the ticks: one Parquet file for each series, the newest word on a day counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.parquet import FileBroken
from minhos_mesh.history.places import HistoryPlaces, locked, replacing
from minhos_mesh.sierra_files.daily import DailyBar, parse_daily, read_bytes

FORMAT: Final = 1
SOURCES_KEPT: Final = 16
"""Files of which is remembered that they were imported."""

_KEY: Final = b"minhos.daily"
_PRICES: Final = ("open_e9", "high_e9", "low_e9", "close_e9")
_COUNTS: Final = ("volume", "open_interest")


@dataclass(slots=True)
class ImportedDays:
    """What became of the lines of a file: read = added + known + changed + refused."""

    read: int = 0
    added: int = 0
    known: int = 0
    changed: int = 0
    """Days that were held otherwise; what this file says counts from now on."""
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    """What was wrong with the first of the refused lines."""
    between_steps: int = 0
    """Days of `read` of which a price lies between two price steps; they are kept, see docs/history.md."""
    set_aside: list[str] = field(default_factory=list)
    """The file of the store when it was broken, and where it is now."""


@dataclass(frozen=True, slots=True)
class DailyHeld:
    """The daily bars of a series."""

    bars: tuple[DailyBar, ...] = ()
    """By day, the oldest first."""
    sources: tuple[dict[str, Any], ...] = ()
    """Files that they came from: name, digest, time of the import, days it brought; the newest last."""
    size_bytes: int = 0


def import_daily(places: HistoryPlaces, series: Series, path: Path, tick_e9: int | None = None) -> ImportedDays:
    """Brings the days of a .dly file into the store, whole or not at all. Raises ScidError, HistoryError.

    A day that is held is replaced where the file says otherwise: Sierra Chart writes a day's line anew until it is settled.
    With `tick_e9`, the step of a price, it counts the days that keep to none. A file of the store that is broken is moved aside.
    """
    data = read_bytes(path)
    file, done = parse_daily(data, str(path)), ImportedDays()
    if not file.bars:
        raise HistoryError(f"{path} holds no whole line that is a day: there is nothing to import")
    done.refused, done.problems = file.refused, list(file.problems)
    done.read = len(file.bars) + file.refused
    if tick_e9 is not None:
        done.between_steps = sum(any(getattr(bar, name) % tick_e9 for name in _PRICES) for bar in file.bars)
    with locked(places, series):
        try:
            held = read_held(places, series)
        except FileBroken:
            kept, held = places.daily(series), DailyHeld()
            done.set_aside.append(f"{kept} was broken and is now {places.set_aside(kept)}")
        days = {bar.day: bar for bar in held.bars}
        for bar in file.bars:
            before = days.get(bar.day)
            done.added += before is None
            done.known += before == bar
            done.changed += before is not None and before != bar
            days[bar.day] = bar
        if done.added or done.changed:
            source = {
                "file": path.name,
                "digest": hashlib.blake2b(data, digest_size=16).hexdigest(),
                "imported": datetime.now(UTC).isoformat(timespec="seconds"),
                "days": done.added + done.changed,
            }
            _write(places, series, [days[day] for day in sorted(days)], [*held.sources, source])
    return done


def read_held(places: HistoryPlaces, series: Series) -> DailyHeld:
    """What is kept of a series; nothing when no file was imported. Raises FileBroken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = places.daily(series)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
        about = json.loads((table.schema.metadata or {})[_KEY])
        columns = [table.column(name).to_pylist() for name in ("day", *_PRICES, *_COUNTS)]
        bars = tuple(_bar(values) for values in zip(*columns, strict=True))
    except FileNotFoundError:
        return DailyHeld()
    except (OSError, pa.ArrowException) as error:
        raise FileBroken(f"{path} cannot be read as Parquet: {str(error).partition(chr(10))[0]}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileBroken(f"{path} is not of this store: it lacks {error}") from error
    if about["format"] != FORMAT:
        raise FileBroken(f"{path} is of format {about['format']}: known is {FORMAT}")
    if about["digest"] != _digest(bars):
        raise FileBroken(f"{path}: its values are not those that were written (checksum {about['digest']})")
    return DailyHeld(bars, tuple(about["sources"]), path.stat().st_size)


def _bar(values: Sequence[Any]) -> DailyBar:
    day, first, high, low, last, volume, open_interest = values
    return DailyBar(
        day=day, open_e9=first, high_e9=high, low_e9=low, close_e9=last, volume=volume, open_interest=open_interest
    )


def _digest(bars: Sequence[DailyBar]) -> str:
    """A checksum of all values, whatever the file around them looks like."""
    hashed = hashlib.blake2b(digest_size=16)
    for bar in bars:
        values = [bar.day.isoformat(), *(getattr(bar, name) for name in (*_PRICES, *_COUNTS))]
        hashed.update(json.dumps(values).encode())
    return hashed.hexdigest()


def _write(places: HistoryPlaces, series: Series, bars: list[DailyBar], sources: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"day": pa.array([bar.day for bar in bars], pa.date32())}
    for name in (*_PRICES, *_COUNTS):
        columns[name] = pa.array([getattr(bar, name) for bar in bars], pa.int64())
    about = {
        "format": FORMAT,
        "symbol": series.symbol,
        "provenance": series.provenance,
        "digest": _digest(bars),
        "sources": sources[-SOURCES_KEPT:],
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    path = places.daily(series)
    try:
        with replacing(path, places.writing(series)) as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise HistoryError(f"{path} cannot be written: {error.strerror or error}") from error
