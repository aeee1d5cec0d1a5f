"""Decides what a Parquet file of one day looks like, and what must hold for it to be read as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np

from minhos_mesh.history.domain.generations import Run
from minhos_mesh.history.domain.rows import Digest, Rows, joined
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.runtime.tick_layout import TickFlag, new_ticks

FORMAT: Final = 2
"""Grows when the meaning of a column, or how the checksum is made, changes."""
FORMER: Final = 1
"""Is still read."""
ROW_GROUP: Final = 131_072

_KEY: Final = b"minhos.history"
_TIMES: Final = (("event_time", "event_time_ns"), ("receive_time", "receive_time_ns"))
_OPTIONAL: Final = (
    ("price_e9", TickFlag.HAS_PRICE), ("size", TickFlag.HAS_SIZE), ("bid_e9", TickFlag.HAS_BID),
    ("ask_e9", TickFlag.HAS_ASK), ("bid_size", TickFlag.HAS_BID_SIZE), ("ask_size", TickFlag.HAS_ASK_SIZE),
)  # fmt: skip
_CODES: Final = ("flags", "kind", "side")


class FileBroken(HistoryError):
    """Expected after a fault of the disk: a file is not what was written; the text says which and why."""


@dataclass(frozen=True, slots=True)
class DayInfo:
    """What the file of a day says about itself, without reading its rows."""

    format: int
    rows: int
    digest: str
    """Checksum of the values; see `Digest`."""
    runs: tuple[Run, ...]
    """In the order in which they stand."""
    size_bytes: int


def schema() -> Any:
    """The columns: names, types and which may be null."""
    import pyarrow as pa

    time = pa.timestamp("ns", "UTC")
    must = [pa.field("epoch", pa.uint64(), nullable=False), pa.field("sequence", pa.int64(), nullable=False)]
    must += [pa.field(name, time, nullable=False) for name, _ in _TIMES]
    values = [pa.field(name, pa.int64()) for name, _ in _OPTIONAL]
    codes = [pa.field("flags", pa.uint32(), nullable=False)]
    codes += [pa.field(name, pa.uint8(), nullable=False) for name in ("kind", "side")]
    return pa.schema([*must, *values, *codes])


def table_of(rows: Rows) -> Any:
    """The rows as a table of Arrow; an absent value is null."""
    import pyarrow as pa

    ticks, columns = rows.ticks, {}
    columns["epoch"] = pa.array(rows.epoch)
    columns["sequence"] = pa.array(rows.sequence)
    for name, source in _TIMES:
        columns[name] = pa.array(np.ascontiguousarray(ticks[source]).view("<M8[ns]")).cast(pa.timestamp("ns", "UTC"))
    flags = ticks["flags"]
    for name, flag in _OPTIONAL:
        columns[name] = pa.array(ticks[name].astype(np.int64), mask=(flags & int(flag)) == 0)
    for name in _CODES:
        columns[name] = pa.array(np.ascontiguousarray(ticks[name]))
    return pa.table(columns, schema=schema())


def rows_of(table: Any) -> Rows:
    """The rows of a table that has the columns of `schema`."""
    ticks = new_ticks(table.num_rows)
    for name, target in _TIMES:
        ticks[target] = _column(table, name, "int64")
    for name, _ in _OPTIONAL:
        ticks[name] = _column(table, name, "int64")
    for name in _CODES:
        ticks[name] = _column(table, name, str(ticks.dtype[name]))
    return Rows(_column(table, "epoch", "uint64"), _column(table, "sequence", "int64"), ticks)


def _column(table: Any, name: str, kind: str) -> Any:
    import pyarrow.compute as pc

    column = table.column(name).combine_chunks()
    if column.null_count:
        column = pc.fill_null(column, 0)
    return column.to_numpy(zero_copy_only=False).view("int64" if kind == "int64" else column.type.to_pandas_dtype())


class DayWriter:
    """Writes the file of a day a row group at a time. Use it as a context: it is complete when the block ends without an error."""

    def __init__(self, file: BinaryIO, series: Series) -> None:
        import pyarrow.parquet as pq

        columns = schema()
        packed = [name for name in columns.names if name not in {"kind", "side"}]
        self._writer = pq.ParquetWriter(
            file, columns, compression="zstd", compression_level=3, use_dictionary=False,
            column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"), write_page_checksum=True,
        )  # fmt: skip
        self._series, self._digest = series, Digest()
        self._waiting: list[Rows] = []
        self._count = self._rows = 0
        self._runs: list[Run] = []

    def add(self, rows: Rows) -> None:
        """Takes the rows that follow."""
        self._digest.add(rows)
        self._rows += len(rows)
        for run in rows.runs():
            before = self._runs[-1] if self._runs else None
            if before is not None and (before.epoch, before.last_sequence + 1) == (run.epoch, run.first_sequence):
                self._runs[-1] = replace(before, last_sequence=run.last_sequence, last_ns=run.last_ns)
            else:
                self._runs.append(run)
        self._waiting.append(rows)
        self._count += len(rows)
        while self._count >= ROW_GROUP:
            whole = joined(self._waiting)
            self._write(whole.part(slice(ROW_GROUP)))
            self._waiting, self._count = [whole.part(slice(ROW_GROUP, None))], self._count - ROW_GROUP

    def _write(self, rows: Rows) -> None:
        self._writer.write_table(table_of(rows), row_group_size=ROW_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self._count or not self._rows:
                self._write(joined(self._waiting))
            about = {
                "format": FORMAT,
                "symbol": self._series.symbol,
                "provenance": self._series.provenance,
                "rows": self._rows,
                "digest": self._digest.text(),
                "runs": [[r.epoch, r.first_sequence, r.last_sequence, r.first_ns, r.last_ns] for r in self._runs],
            }
            self._writer.add_key_value_metadata({_KEY: json.dumps(about, separators=(",", ":")).encode()})
        self._writer.close()


class DayFile:
    """The file of one day, read a row group at a time, each page checked against its checksum. Close it.

    What is open stays readable when another file takes its place. Reading raises FileBroken.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileBroken, FileNotFoundError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise FileBroken(f"{path} cannot be read as Parquet: {_first_line(error)}") from error
        try:
            self.info = _info(path, self._file.metadata, self._file.schema_arrow)
        except BaseException:
            self.close()
            raise

    def rows(self, first: int = 0, end: int | None = None) -> Iterator[Rows]:
        """The rows at these places."""
        import pyarrow as pa

        begin, end = 0, self.info.rows if end is None else end
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if begin < end and begin + count > first:
                try:
                    table = self._file.read_row_group(group, use_threads=False)
                except (OSError, pa.ArrowException) as error:
                    raise FileBroken(f"{self.path} cannot be read: {_first_line(error)}") from error
                found = rows_of(table)
                del table
                yield found.part(slice(max(0, first - begin), min(count, end - begin)))
            begin += count

    def part(self, epoch: int, first: int = 1, last: int = 2**63 - 1) -> Iterator[Rows]:
        """The rows of a generation from a sequence to another, both included."""
        begin = 0
        for run in self.info.runs:
            if run.epoch == epoch and run.first_sequence <= last and run.last_sequence >= first:
                low, high = max(first, run.first_sequence), min(last, run.last_sequence)
                yield from self.rows(begin + low - run.first_sequence, begin + high - run.first_sequence + 1)
            begin += run.count

    @property
    def created_by(self) -> str:
        """The release of Arrow that wrote it."""
        return str(self._file.metadata.created_by)

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_as_written(day: DayFile, series: Series) -> bool:
    """Whether every byte of a file is what its rows are written as; True where another release wrote it."""
    import pyarrow as pa

    if day.info.format != FORMAT or day.created_by != _created_by():
        return True
    again = _Hashing()
    with DayWriter(pa.PythonFile(again, "w"), series) as writer:
        for rows in day.rows():
            writer.add(rows)
    with day.path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest() == again.hashed.digest()


class _Hashing:
    """A file that keeps nothing but a checksum of what is written to it."""

    def __init__(self) -> None:
        self.hashed = hashlib.blake2b()
        self.closed = False

    def write(self, data: bytes) -> int:
        self.hashed.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True


def _created_by() -> str:
    import pyarrow.parquet as pq

    made = BytesIO()
    pq.write_table(schema().empty_table(), made)
    made.seek(0)
    with pq.ParquetFile(made) as file:
        return str(file.metadata.created_by)


def read_info(path: Path) -> DayInfo:
    """What a file says about itself. Raises FileBroken, FileNotFoundError."""
    with DayFile(path) as file:
        return file.info


def _info(path: Path, metadata: Any, held: Any) -> DayInfo:
    try:
        about = json.loads((metadata.metadata or {})[_KEY])
        if about["format"] not in {FORMAT, FORMER}:
            raise FileBroken(f"{path} is of format {about['format']}: known are {FORMER} and {FORMAT}")
        runs = tuple(Run(*values) for values in about["runs"])
        info = DayInfo(about["format"], about["rows"], about["digest"], runs, path.stat().st_size)
    except (KeyError, TypeError, ValueError) as error:
        raise FileBroken(f"{path} is not of this store: it lacks {error}") from error
    if not held.remove_metadata().equals(schema()):
        raise FileBroken(f"{path} has other columns than those of a day of ticks: {', '.join(held.names)}")
    if not metadata.num_rows == info.rows == sum(run.count for run in runs):
        raise FileBroken(f"{path} has {metadata.num_rows} rows and says {info.rows}")
    return info


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
