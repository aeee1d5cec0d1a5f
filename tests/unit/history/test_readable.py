"""pandas, polars and DuckDB read the files as they are, and find in them what was written, to the unit."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.unit.history.making import FIRST_NS, SERIES, put, ticks_every

from minhos_mesh.history.domain.rows import Rows
from minhos_mesh.history.places import HistoryPlaces

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
