"""A file gets into the store as live data would: judged, numbered, once; and a killed writer leaves whole files only."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.history.making import DAY_NS, FIRST_NS, NS

from minhos_mesh.history.archive import Archive
from minhos_mesh.history.asking import BarsWanted, Bookmark, SessionRule, bars, days_held
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.domain.validation import Reason, Rules
from minhos_mesh.history.importing import import_scid
from minhos_mesh.history.parquet import read_info
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import verify
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, Records, empty_records
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.writer import ScidWriter

RULES = Rules(tick_e9=250_000_000)
SERIES = Series("DELAYED", "NQZ24-CME")
KILLS = int(os.environ.get("MINHOS_TEST_KILLS", "2"))
"""Times that an import is killed; more in a campaign."""


def records_at(times_ns: list[int], price: float = 20_000.0) -> Records:
    records = empty_records(len(times_ns))
    records["time_us"] = np.array(times_ns, np.int64) // 1_000 + EPOCH_SHIFT_US
    for name in ("high", "low", "close"):
        records[name] = price
    for name in ("num_trades", "total_volume", "ask_volume"):
        records[name] = 1
    return records


def scid(path: Path, times_ns: list[int]) -> Path:
    ScidWriter.create(path, records_at(times_ns)).close()
    return path


@pytest.fixture
def places(tmp_path: Path) -> HistoryPlaces:
    return HistoryPlaces(tmp_path / "history")


def test_a_file_is_imported_once_and_a_grown_one_goes_on(places: HistoryPlaces, tmp_path: Path) -> None:
    times = [FIRST_NS + n * 6 * 3_600 * NS for n in range(11)]
    path = scid(tmp_path / "NQZ24-CME.scid", times[:6])
    first = import_scid(places, SERIES, path, RULES)
    assert (first.read, first.accepted, first.written.added) == (6, 6, 6)
    before = [file.stat().st_mtime_ns for file in sorted(places.ticks.rglob("*.parquet"))]
    again = import_scid(places, SERIES, path, RULES)
    assert (again.written.added, again.written.known, again.written.contradicting) == (0, 6, 0)
    assert [file.stat().st_mtime_ns for file in sorted(places.ticks.rglob("*.parquet"))] == before
    grown = import_scid(places, SERIES, scid(path, times), RULES)
    assert (grown.written.added, grown.written.known) == (5, 6)
    whole = verify(places, SERIES)
    assert (whole.ticks, whole.problems, whole.gaps) == (11, [], [])


def test_what_is_refused_is_counted_by_reason_and_numbers_have_no_hole(places: HistoryPlaces, tmp_path: Path) -> None:
    records = records_at([FIRST_NS + n * NS for n in (1_000, 1_001, 1_001, 999, 1, 1_002, 1_003)])
    records["close"][5] = 20_000.1
    path = tmp_path / "NQZ24-CME.scid"
    ScidWriter.create(path, records).close()
    done = import_scid(places, SERIES, path, RULES)
    assert done.rejected == {Reason.OUT_OF_ORDER: 1, Reason.STALE: 1, Reason.OFF_TICK: 1}
    assert done.read == done.accepted + sum(done.rejected.values()) == 7
    (run,) = Archive(places, SERIES).runs()
    assert (run.first_sequence, run.last_sequence) == (1, 4)


def test_a_record_of_a_wrong_year_is_refused_and_those_behind_it_are_not(places: HistoryPlaces, tmp_path: Path) -> None:
    clock, next_year = ManualClock(FIRST_NS + DAY_NS), FIRST_NS + 365 * DAY_NS
    edge = clock.wall_ns() + RULES.future_after_ns
    times = [FIRST_NS, FIRST_NS + NS, next_year, FIRST_NS + 2 * NS, edge + NS, edge]
    path = scid(tmp_path / "NQZ24-CME.scid", times)
    done = import_scid(places, SERIES, path, RULES, clock=clock)
    assert (done.accepted, done.rejected) == (4, {Reason.FUTURE: 2})
    assert max(run.last_ns for run in Archive(places, SERIES).runs()) == edge
    again = import_scid(places, SERIES, path, RULES, clock=clock)
    assert (again.written.added, again.written.known) == (0, 4)


def test_an_empty_file_is_refused(places: HistoryPlaces, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="nothing to import"):
        import_scid(places, SERIES, scid(tmp_path / "NQZ24-CME.scid", []), RULES)


def test_the_sample_is_held_as_it_is(places: HistoryPlaces, sample: Path) -> None:
    told: list[tuple[int, int]] = []
    done = import_scid(places, Series("DELAYED", "MNQU21-CME"), sample, RULES, lambda *step: told.append(step))
    assert (done.read, done.accepted, done.written.added, done.written.days) == (48_737, 48_737, 48_737, 140)
    assert told[-1] == (48_737, 48_737)
    days = days_held(places)
    assert (sum(day.ticks for day in days), max(day.ticks for day in days)) == (48_737, 1_884)
    chunks = list(Archive(places, days[0].series).times(0, 2**62))
    size = np.concatenate([chunk.ticks["size"] for chunk in chunks]).astype(np.int64)
    side = np.concatenate([chunk.ticks["side"] for chunk in chunks])
    assert (size.sum(), size[side == 2].sum(), size[side == 1].sum()) == (79_040, 39_035, 40_005)
    times = np.concatenate([chunk.ticks["event_time_ns"] for chunk in chunks])
    assert (times == (read_scid(sample)["time_us"] - EPOCH_SHIFT_US) * 1_000).all()
    pages_join_to_the_whole(places, days[0].series)


def pages_join_to_the_whole(places: HistoryPlaces, series: Series) -> None:
    """By the sessions of the exchange, with a holiday on which it traded."""
    wanted = BarsWanted(parse_span("1h"), "CME")
    whole = bars(places, series, wanted)
    assert (whole.rule, whole.outside, whole.next) == (SessionRule.EXCHANGE, 172, None)
    assert sum(bar.trades for bar in whole.bars) == 48_737 - 172
    paged: list[Bar] = []
    bookmark: Bookmark | None = None
    while True:
        page = bars(places, series, replace(wanted, limit=301, bookmark=bookmark))
        paged += page.bars
        bookmark = page.next
        if bookmark is None:
            break
    assert paged == whole.bars
    late = bars(places, series, replace(wanted, start_ns=whole.bars[900].open_time_ns, limit=5)).bars
    assert late == whole.bars[900:905]


def test_a_killed_import_leaves_whole_files_and_is_repeated_to_the_same(places: HistoryPlaces, tmp_path: Path) -> None:
    days = 4 * KILLS
    count = 200 * days
    times = [FIRST_NS + n * days * DAY_NS // count for n in range(count)]
    path = scid(tmp_path / "NQZ24-CME.scid", times)
    code = (
        "import sys, minhos_mesh.history.parquet as p, pyarrow.parquet; from pathlib import Path;"
        "from minhos_mesh.history.importing import *; print('ready', flush=True);"
        f"import_scid(HistoryPlaces(Path({str(places.root)!r})), Series('DELAYED', 'NQZ24-CME'),"
        f" Path({str(path)!r}), Rules(tick_e9=250_000_000)); print('done', flush=True)"
    )
    chance, seen = random.Random(5), set()
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        wanted, ends_s = len(places.days(SERIES)) + chance.randrange(1, 4), time.monotonic() + 20
        while len(places.days(SERIES)) < wanted and time.monotonic() < ends_s:
            time.sleep(chance.uniform(0.0, 0.003))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for day in places.days(SERIES):
            assert read_info(places.day(SERIES, day)).rows == count // days
        assert {each.name for each in places.ticks.rglob("*") if each.is_file()} == {"ticks.parquet"}
        found = verify(places, SERIES)
        assert found.problems == []
        seen.add(found.files)
    assert len(seen) == KILLS, "each kill came later than the one before, and before the end"
    done = import_scid(places, SERIES, path, RULES)
    assert done.written.contradicting == 0
    whole = verify(places, SERIES)
    assert (whole.ticks, whole.files, whole.gaps) == (count, days, [])
    assert places.unfinished(SERIES) == []
