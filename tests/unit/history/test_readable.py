"""pandas, polars and DuckDB read the files as they are, and find in them what was written, to the unit."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.one_service import path_of_code
from tests.unit.history.making import DAY_NS, FIRST_NS, NS, SERIES, put, ticks_every
from tests.unit.history.test_import import scid

from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.importing import STEP
from minhos_mesh.history.parquet import ROW_GROUP
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import verify

DOCS = Path(__file__).parents[3] / "docs" / "history.md"
IMPORT = """
import sys
from minhos_mesh.history.importing import *

def step(taken, _all):
    if taken >= int(sys.argv[3]):
        print("in the middle", flush=True)
        sys.stdin.read()

series = Series("DELAYED", "NQZ24-CME")
import_scid(HistoryPlaces(Path(sys.argv[1])), series, Path(sys.argv[2]), Rules(tick_e9=250_000_000), step)
"""

STEP_NS = 43_200_000_000_001
"""Half a day and a nanosecond, so that times need all their digits."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    places = HistoryPlaces(tmp_path_factory.mktemp("history"))
    for number, rows in Rows.run(2**63 + 5, 1, ticks_every(STEP_NS, 40)).days():
        put(places, SERIES, date.fromordinal(719_163 + number), rows)
    return places.ticks


def expected() -> list[tuple[int, int]]:
    return [(FIRST_NS + n * STEP_NS, (80_000 + n) * 250_000_000) for n in range(40)]


def test_pandas_reads_the_folder(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame: Any = pandas.read_parquet(folder).sort_values("sequence")
    assert str(frame["event_time"].dtype) == "datetime64[ns, UTC]"
    assert list(zip(frame["event_time"].astype("int64"), frame["price_e9"], strict=True)) == expected()
    assert frame["price_e9"].dtype == "int64"
    assert set(frame["epoch"]) == {2**63 + 5}
    assert set(frame["symbol"].astype(str)) == {SERIES.symbol}
    assert frame["bid_e9"].isna().all()


def test_polars_reads_the_folder(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    frame: Any = polars.scan_parquet(folder, hive_partitioning=True).sort("sequence").collect()
    assert list(zip(frame["event_time"].to_physical(), frame["price_e9"], strict=True)) == expected()
    assert frame.schema["event_time"] == polars.Datetime("ns", "UTC")
    assert frame["provenance"].unique().to_list() == ["SIMULATED"]
    assert frame["bid_e9"].null_count() == 40


def test_duckdb_reads_the_folder(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT epoch_ns(event_time), price_e9 FROM read_parquet(?, hive_partitioning = true)"
            " WHERE symbol = ? AND provenance = 'SIMULATED' ORDER BY sequence",
            [f"{folder}/**/*.parquet", SERIES.symbol],
        ).fetchall()
        by_day = connection.execute(
            "SELECT count(DISTINCT day), sum(size) FROM read_parquet(?, hive_partitioning = true)",
            [f"{folder}/**/*.parquet"],
        ).fetchone()
    assert found == expected()
    assert by_day == (20, sum(n % 5 + 1 for n in range(40)))


def rows_by_the_lines_in_docs() -> list[int]:
    """How many rows each line of the documentation finds, in the order in which they stand; run beside `history`."""
    pandas, polars, duckdb = (pytest.importorskip(name) for name in ("pandas", "polars", "duckdb"))
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    modules = {"pandas": pandas, "polars": polars, "duckdb": duckdb}
    told: list[Any] = [eval(ast.unparse(line), modules) for line in ast.parse(block).body]
    frame, lazy, by_day = told
    return [len(frame), lazy.collect().height, sum(size for _, _, size in by_day.fetchall())]


def test_after_a_kill_in_the_middle_of_a_file_all_three_read_what_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, series = HistoryPlaces(tmp_path / "history"), Series("DELAYED", "NQZ24-CME")
    many = ROW_GROUP + 2 * STEP
    path = scid(tmp_path / "NQZ24-CME.scid", [FIRST_NS + n * NS for n in range(3)] + [FIRST_NS + DAY_NS] * many)
    command = [sys.executable, "-c", IMPORT, str(places.root), str(path), str(ROW_GROUP + STEP + 3)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=path_of_code()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        (unfinished,) = places.unfinished(series)
        child.kill()
    assert unfinished.stat().st_size > 0
    assert unfinished.is_relative_to(places.writing(series))
    monkeypatch.chdir(tmp_path)
    assert rows_by_the_lines_in_docs() == [3, 3, 3]
    assert verify(places, series).removed == [str(unfinished)]
    assert (places.unfinished(series), verify(places, series).removed) == ([], [])
