"""Days are merged a row group at a time: to the same rows as in one piece, and in memory that does not grow with the day."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.one_service import path_of_code
from tests.unit.history.making import DAY_NS, FIRST_NS, NS, SERIES, put, rows_of_day, ticks_every
from tests.unit.history.test_import import scid

from minhos_mesh.history import parquet
from minhos_mesh.history.archive import Archive
from minhos_mesh.history.domain.merging import Counts, each_once, merged_streams
from minhos_mesh.history.domain.rows import Rows, former_digest, joined, merged
from minhos_mesh.history.parquet import schema, table_of
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import verify

DAY = date(2024, 10, 4)
TICKS = ticks_every(NS, 60)
SOME = st.lists(st.booleans(), min_size=60, max_size=60)


def cut(rows: Rows, cuts: list[int]) -> list[Rows]:
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [rows.part(slice(begin, end)) for begin, end in itertools.pairwise(bounds)]
    return [part for part in parts if len(part)]


@settings(max_examples=100)
@given(SOME, SOME, SOME, st.lists(st.integers(0, 60), max_size=5), st.lists(st.integers(0, 60), max_size=5))
def test_streams_merge_to_what_they_merge_to_as_a_whole(
    mine: list[bool], theirs: list[bool], other: list[bool], cuts: list[int], more_cuts: list[int]
) -> None:
    whole, counts = Rows.run(7, 1, TICKS), Counts()
    changed = TICKS.copy()
    changed["price_e9"][np.array(other)] += 1
    held, more = whole.part(np.array(mine)), Rows.run(7, 1, changed).part(np.array(theirs))
    expected = merged(held, more)
    found = joined(list(merged_streams(iter(cut(held, cuts)), iter(cut(more, more_cuts)), counts)))
    assert found.sequence.tolist() == expected.rows.sequence.tolist()
    assert found.ticks.tobytes() == expected.rows.ticks.tobytes()
    assert counts == Counts(expected.added, expected.known, expected.contradicting)


def test_what_two_pieces_hold_is_taken_once() -> None:
    rows = Rows.run(7, 1, TICKS)
    pieces = [rows.part(slice(0, 20)), rows.part(slice(10, 15)), rows.part(slice(5, 40)), rows.part(slice(40, 60))]
    assert joined(list(each_once(pieces))).sequence.tolist() == list(range(1, 61))


@pytest.fixture
def places(tmp_path: Path) -> HistoryPlaces:
    return HistoryPlaces(tmp_path / "history")


@pytest.mark.parametrize("group", [7, 64, 131_072])
def test_days_of_many_row_groups_are_read_whole_in_parts_and_verified(
    places: HistoryPlaces, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", group)
    early, late = ticks_every(NS, 100, FIRST_NS + 500 * NS), ticks_every(NS, 90, FIRST_NS)
    put(places, SERIES, DAY, Rows.run(9, 11, early[10:60]))
    put(places, SERIES, DAY, Rows.run(3, 1, late))
    written = put(places, SERIES, DAY, Rows.run(9, 1, early))
    assert (written.added, written.known) == (50, 50)
    rows = rows_of_day(places.day(SERIES, DAY))
    assert rows.epoch.tolist() == [3] * 90 + [9] * 100
    assert rows.sequence.tolist() == [*range(1, 91), *range(1, 101)]
    for name in TICKS.dtype.names or ():
        assert rows.ticks[name].tolist() == [*late[name].tolist(), *early[name].tolist()], name
    found = list(Archive(places, SERIES).sequences(9, 33, 71))
    assert [n for c in found for n in range(c.first_sequence, c.first_sequence + len(c.ticks))] == list(range(33, 72))
    assert verify(places, SERIES).problems == []
    before = places.day(SERIES, DAY).read_bytes()
    assert put(places, SERIES, DAY, Rows.run(9, 1, early)).added == 0
    assert places.day(SERIES, DAY).read_bytes() == before


def test_files_of_the_former_format_are_read_verified_and_taken_up(places: HistoryPlaces) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = Rows.run(9, 1, TICKS[:40])
    runs = [[r.epoch, r.first_sequence, r.last_sequence, r.first_ns, r.last_ns] for r in rows.runs()]
    about = {
        "format": 1, "symbol": SERIES.symbol, "provenance": SERIES.provenance, "rows": 40,
        "digest": former_digest(rows), "runs": runs,
    }  # fmt: skip
    table = table_of(rows).replace_schema_metadata({b"minhos.history": json.dumps(about).encode()})
    path = places.day(SERIES, DAY)
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, write_page_checksum=True)
    assert schema().equals(pq.read_schema(path).remove_metadata())
    assert verify(places, SERIES).problems == []
    assert put(places, SERIES, DAY, Rows.run(9, 1, TICKS)).added == 20
    assert (len(rows_of_day(path)), parquet.read_info(path).format) == (60, 2)


_IMPORT = """
import json, resource, sys
from pathlib import Path
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.importing import import_scid
from minhos_mesh.history.places import HistoryPlaces
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = import_scid(HistoryPlaces(Path(sys.argv[1])), Series("DELAYED", "NQZ24-CME"), Path(sys.argv[2]), Rules(tick_e9=250_000_000))
grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
print(json.dumps({"grew_mb": grew, "accepted": done.accepted}))
"""


def test_memory_of_an_import_does_not_grow_with_the_day(places: HistoryPlaces, tmp_path: Path) -> None:
    count = 500_000
    file = scid(tmp_path / "day.scid", [FIRST_NS + n * (DAY_NS // count) for n in range(count)])
    command = [sys.executable, "-c", _IMPORT, str(places.root), str(file)]
    told = json.loads(subprocess.run(command, env=path_of_code(), check=True, capture_output=True).stdout)
    assert told["accepted"] == count
    assert told["grew_mb"] < 200
