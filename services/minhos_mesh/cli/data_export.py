"""Decides what an exported file looks like: decimals for people in CSV, exact whole numbers in Parquet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from minhos_mesh.cli import show as terminal
from minhos_mesh.cli.data_work import Step, canonical, places_of, progress, provenance_of, told_plainly
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.history.archive import Archive
from minhos_mesh.history.asking import END_NS, FIRST_NS, BarsFound, BarsWanted, SessionRule, bars, series_for
from minhos_mesh.history.daily import read_held
from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.parquet import schema, table_of
from minhos_mesh.history.places import HistoryPlaces, replacing
from minhos_mesh.runtime.bar_spans import BarSpan, SpanError, parse_span
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.symbols import parse_symbol

FORMATS: Final = (".csv", ".parquet")
_NANO: Final = Decimal("0.000000001")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed."""

    symbol: str
    provenance: str | None
    bars: str | None
    start: str | None
    end: str | None
    always_open: bool


def export(paths: MeshPaths, wanted: Wanted, out: Path, *, as_json: bool) -> None:
    """Writes the file, whole or not at all, and says what is in it."""
    with told_plainly():
        if out.suffix.lower() not in FORMATS:
            raise CommandFailed(f"--out is {out}: allowed are files that end in {' or '.join(FORMATS)}")
        if not out.absolute().parent.is_dir():
            raise CommandFailed(f"--out is {out}: there is no folder {out.absolute().parent}")
        start_ns, end_ns = _time_ns("--from", wanted.start, FIRST_NS), _time_ns("--to", wanted.end, END_NS)
        if end_ns <= start_ns:
            raise CommandFailed(f"--to is {wanted.end}: allowed is a time behind --from ({wanted.start})")
        places, symbol = places_of(paths), canonical(wanted.symbol) or ""
        series = series_for(places, symbol, provenance_of(wanted.provenance), None)
        span, found = _span(wanted.bars), None
        with progress(f"{series}", as_json=as_json) as step, replacing(out.absolute()) as file:
            if span is None:
                tables = _tables_of_ticks(places, series, start_ns, end_ns, step)
            else:
                found = _bars(places, series, span, wanted, start_ns, end_ns)
                tables = iter([_table_of_bars(found.bars, found.daily)])
            count = _write(file, out.suffix.lower(), tables)
    if as_json:
        said = {"file": str(out), "symbol": series.symbol, "provenance": series.provenance, "rows": count}
        outside = {} if found is None else {"rule": found.rule, "trades_outside_sessions": found.outside}
        terminal.as_json({**said, **outside})
        return
    what = "ticks" if found is None else f"bars of {wanted.bars}"
    terminal.out.print(f"{count:,} {what} of {series} are in {out}")
    if found is not None and found.outside:
        terminal.out.print(_outside(found), soft_wrap=True)


def _span(text: str | None) -> BarSpan | None:
    try:
        return None if text is None else parse_span(text)
    except SpanError as error:
        raise CommandFailed(f"--bars: {error}") from None


def _bars(
    places: HistoryPlaces, series: Series, span: BarSpan, wanted: Wanted, start_ns: int, end_ns: int
) -> BarsFound:
    rule = SessionRule.ALWAYS_OPEN if wanted.always_open else None
    exchange = parse_symbol(series.symbol).exchange
    found = bars(places, series, BarsWanted(span, exchange, start_ns, end_ns, rule))
    if not found.bars:
        _hint(places, series, wanted)
    return found


def _outside(found: BarsFound) -> str:
    trades = "1 trade was" if found.outside == 1 else f"{found.outside:,} trades were"
    exchange = parse_symbol(found.series.symbol).exchange
    return f"{trades} made outside of the sessions of {exchange} and count in no bar; with --always-open they do"


def _tables_of_ticks(places: HistoryPlaces, series: Series, start_ns: int, end_ns: int, step: Step) -> Iterator[Any]:
    """Tables of Arrow with equal columns, at least one."""
    archive = Archive(places, series)
    whole, done = sum(day.ticks for day in archive.days), 0
    yield schema().empty_table()
    for chunk in archive.times(start_ns, end_ns):
        yield table_of(Rows.run(chunk.epoch, chunk.first_sequence, chunk.ticks))
        done += len(chunk.ticks)
        step(done, whole)


def _hint(places: HistoryPlaces, series: Series, wanted: Wanted) -> None:
    """Says why there may be no bar, where that is not to be expected."""
    if read_held(places, series).bars and not Archive(places, series).days:
        terminal.err.print(f"minhos: {series} has daily bars only and no ticks: --bars 1d exports them", soft_wrap=True)
    else:
        terminal.err.print(f"minhos: {series} has no bar of {wanted.bars} in this time", soft_wrap=True)


def _table_of_bars(found: list[Bar], daily: Collection[date]) -> Any:
    import pyarrow as pa

    time = pa.timestamp("ns", "UTC")
    columns: dict[str, Any] = {
        "trading_day": pa.array([bar.trading_day for bar in found], pa.date32()),
        "open_time": pa.array([bar.open_time_ns for bar in found], pa.int64()).cast(time),
        "close_time": pa.array([bar.close_time_ns for bar in found], pa.int64()).cast(time),
    }
    for name in ("open_e9", "high_e9", "low_e9", "close_e9", "volume"):
        columns[name] = pa.array([getattr(bar, name) for bar in found], pa.int64())
    of_file = [bar.trading_day in daily for bar in found]
    for name in ("bid_volume", "ask_volume", "trades"):  # a daily bar of a file says none of them
        values = [None if told else getattr(bar, name) for bar, told in zip(found, of_file, strict=True)]
        columns[name] = pa.array(values, pa.int64())
    columns["closed"] = pa.array([bar.closed for bar in found], pa.bool_())
    columns["of_daily_file"] = pa.array(of_file, pa.bool_())
    return pa.table(columns)


def _write(file: BinaryIO, suffix: str, tables: Iterator[Any]) -> int:
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    first = next(tables)
    if suffix == ".csv":
        first = _decimals(first)
    make = pacsv.CSVWriter if suffix == ".csv" else pq.ParquetWriter
    count = 0
    with make(file, first.schema) as writer:
        for table in chain([first], (_decimals(each) if suffix == ".csv" else each for each in tables)):
            writer.write_table(table)
            count += table.num_rows
    return count


def _decimals(table: Any) -> Any:
    """Prices as decimals under a name without the scale; times as text to the nanosecond."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if name.endswith("_e9"):
            columns[name.removesuffix("_e9")] = pc.multiply(column.cast(pa.decimal128(19, 0)), pa.scalar(_NANO))
        elif pa.types.is_timestamp(column.type):
            columns[name] = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
        else:
            columns[name] = column
    return pa.table(columns)


def _time_ns(option: str, text: str | None, unset_ns: int) -> int:
    if text is None:
        return unset_ns
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(
            f"{option} is {text!r}: allowed is a day or time such as 2026-11-20 or 2026-11-20T14:30:00"
        ) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000_000
