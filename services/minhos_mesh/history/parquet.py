"""Decides what a Parquet file of one day looks like, and what must hold for it to be read as one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from minhos_mesh.history.domain.generations import Run
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.places import replacing
from minhos_mesh.runtime.tick_layout import TickFlag, new_ticks

FORMAT: Final = 1
"""Grows when the meaning of a column changes."""
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

    rows: int
    digest: str
    """Checksum of the values; see `Rows.digest`."""
    runs: tuple[Run, ...]
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


def write_day(path: Path, series: Series, rows: Rows) -> None:
    """Puts the file of a day in place, whole or not at all; call it under `locked`. Raises HistoryError."""
    try:
        with replacing(path) as file:
            _encode(file, series, rows)
    except OSError as error:
        raise HistoryError(f"{path} cannot be written: {error.strerror or error}") from error


def is_as_written(path: Path, series: Series, rows: Rows) -> bool:
    """Whether every byte of a file is what these rows are written as; True where another release of Arrow wrote it."""
    import pyarrow.parquet as pq

    again = BytesIO()
    _encode(again, series, rows)
    written = path.read_bytes()
    if written == again.getvalue():
        return True
    again.seek(0)
    with pq.ParquetFile(path) as one, pq.ParquetFile(again) as other:
        return bool(one.metadata.created_by != other.metadata.created_by)


def _encode(file: BinaryIO, series: Series, rows: Rows) -> None:
    import pyarrow.parquet as pq

    about = {
        "format": FORMAT,
        "symbol": series.symbol,
        "provenance": series.provenance,
        "rows": len(rows),
        "digest": rows.digest(),
        "runs": [[r.epoch, r.first_sequence, r.last_sequence, r.first_ns, r.last_ns] for r in rows.runs()],
    }
    table = table_of(rows).replace_schema_metadata({_KEY: json.dumps(about, separators=(",", ":")).encode()})
    packed = [name for name in table.column_names if name not in {"kind", "side"}]
    pq.write_table(
        table, file, compression="zstd", compression_level=3, row_group_size=ROW_GROUP, use_dictionary=False,
        column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"), write_page_checksum=True,
    )  # fmt: skip


def read_info(path: Path) -> DayInfo:
    """What a file says about itself. Raises FileBroken, FileNotFoundError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        held = pq.read_schema(path)
        about = json.loads((held.metadata or {})[_KEY])
        if about["format"] != FORMAT:
            raise FileBroken(f"{path} is of format {about['format']}: known is {FORMAT}")
        runs = tuple(Run(*values) for values in about["runs"])
        info = DayInfo(about["rows"], about["digest"], runs, path.stat().st_size)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FileBroken(f"{path} cannot be read as Parquet: {_first_line(error)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileBroken(f"{path} is not of this store: it lacks {error}") from error
    if not held.remove_metadata().equals(schema()):
        raise FileBroken(f"{path} has other columns than those of a day of ticks: {', '.join(held.names)}")
    return info


def read_day(path: Path) -> Rows:
    """All rows of a file, each page checked against its checksum. Raises FileBroken, FileNotFoundError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = read_info(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FileBroken(f"{path} cannot be read: {_first_line(error)}") from error
    if table.num_rows != info.rows:
        raise FileBroken(f"{path} has {table.num_rows} rows and says {info.rows}")
    return rows_of(table)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
