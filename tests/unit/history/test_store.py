"""What goes into the store comes out the same, once, in order, from the journal and from Parquet."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from tests.unit.history.making import FIRST_NS, NS, SERIES, put, rows_of_day, ticks_at, ticks_every

from minhos_mesh.history.archive import Archive, Chunk, best_series
from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.rows import Rows, merged
from minhos_mesh.history.domain.series import NotHeld, Series
from minhos_mesh.history.journal import JournalWriter, held_of, runs_of, seal_all
from minhos_mesh.history.packing import expire, pack
from minhos_mesh.history.parquet import FileBroken, read_info
from minhos_mesh.history.places import HistoryBusy, HistoryPlaces, locked
from minhos_mesh.history.verifying import Gap, verify
from minhos_mesh.runtime.tick_layout import TICK_BYTES, TickArray

DAY = date(2024, 10, 4)


@pytest.fixture
def places(tmp_path: Path) -> HistoryPlaces:
    return HistoryPlaces(tmp_path / "history")


def record(places: HistoryPlaces, ticks: TickArray, *, epoch: int = 7, first: int = 1, seal: bool = True) -> None:
    writer = JournalWriter.create(places, SERIES, epoch, first)
    writer.append(ticks.tobytes())
    if seal:
        writer.seal()


def told(chunks: list[Chunk]) -> list[tuple[int, int, int]]:
    """Epoch, sequence and seconds since the first midnight of each tick."""
    return [
        (chunk.epoch, chunk.first_sequence + place, (int(time_ns) - FIRST_NS) // NS)
        for chunk in chunks
        for place, time_ns in enumerate(chunk.ticks["event_time_ns"])
    ]


def all_of(places: HistoryPlaces) -> list[tuple[int, int, int]]:
    return told(list(Archive(places, SERIES).times(0, 2**62)))


def test_a_day_is_read_as_it_was_written_with_what_is_absent(places: HistoryPlaces) -> None:
    ticks = ticks_every(NS, 300)
    ticks["flags"][::7] &= ~np.uint32(1 | 2)
    ticks["flags"][::3] |= np.uint32(64)
    rows = Rows.run(2**63 + 11, 5, ticks)
    put(places, SERIES, DAY, rows)
    back = rows_of_day(places.day(SERIES, DAY))
    absent = (ticks["flags"] & 1) == 0
    assert (back.epoch == rows.epoch).all()
    assert (back.sequence == rows.sequence).all()
    assert (back.ticks["price_e9"][absent] == 0).all()
    for name in ("event_time_ns", "receive_time_ns", "flags", "kind", "side", "bid_e9"):
        assert (back.ticks[name] == ticks[name]).all()
    assert (back.ticks["price_e9"][~absent] == ticks["price_e9"][~absent]).all()
    info = read_info(places.day(SERIES, DAY))
    assert (info.rows, [(run.first_sequence, run.last_sequence) for run in info.runs]) == (300, [(5, 304)])


def test_journal_and_packed_days_are_read_as_one(places: HistoryPlaces) -> None:
    ticks = ticks_every(6 * 3_600 * NS, 12)
    record(places, ticks[:5])
    assert pack(places, SERIES).added == 5
    record(places, ticks[5:9], first=6)
    record(places, ticks[9:], first=10, seal=False)
    assert all_of(places) == [(7, n + 1, n * 6 * 3_600) for n in range(12)]
    days = Archive(places, SERIES).days
    assert [(each.day.isoformat(), each.ticks, each.packed is not None) for each in days] == [
        ("2024-10-04", 4, True), ("2024-10-05", 4, True), ("2024-10-06", 4, False),
    ]  # fmt: skip
    assert held_of(places, SERIES) == {7: Ranges([(1, 12)])}


def test_packing_twice_and_after_a_death_before_the_journal_was_emptied_changes_nothing(places: HistoryPlaces) -> None:
    ticks = ticks_every(NS, 20)
    record(places, ticks)
    (run,) = runs_of(places, SERIES)
    kept = run.path.read_bytes()
    assert pack(places, SERIES).added == 20
    before = places.day(SERIES, DAY).read_bytes()
    run.path.write_bytes(kept)
    again = pack(places, SERIES)
    assert (again.added, again.known, again.contradicting) == (0, 20, 0)
    assert places.day(SERIES, DAY).read_bytes() == before
    assert len(all_of(places)) == 20


def test_a_tick_that_is_sent_again_is_known_and_another_at_its_place_contradicts(places: HistoryPlaces) -> None:
    held = Rows.run(7, 1, ticks_every(NS, 5))
    sent = ticks_every(NS, 6)[2:]
    sent["receive_time_ns"] = FIRST_NS
    again = merged(held, Rows.run(7, 3, sent))
    assert (again.added, again.known, again.contradicting, len(again.rows)) == (1, 3, 0, 6)
    other = merged(held, Rows.run(7, 5, ticks_at([FIRST_NS + 4 * NS], 90_000)))
    assert (other.added, other.known, other.contradicting) == (0, 0, 1)
    assert (other.rows.ticks["price_e9"] == held.ticks["price_e9"]).all()


def test_where_generations_overlap_each_time_is_told_once(places: HistoryPlaces) -> None:
    record(places, ticks_every(10 * NS, 10), epoch=9)
    record(places, ticks_every(10 * NS, 4, FIRST_NS + 20 * NS), epoch=3)
    record(places, ticks_every(10 * NS, 10, FIRST_NS + 50 * NS), epoch=5)
    expected = [(9, n + 1, n * 10) for n in range(10)] + [(5, n + 1, 50 + n * 10) for n in range(5, 10)]
    assert all_of(places) == expected
    pack(places, SERIES)
    assert all_of(places) == expected
    archive = Archive(places, SERIES)
    for place, (epoch, sequence, _) in enumerate(expected):
        assert told(list(archive.times(0, 2**62, (epoch, sequence)))) == expected[place + 1 :]
    for start, end in ((0, 30), (35, 95), (90, 1_000), (200, 300)):
        span = archive.times(FIRST_NS + start * NS, FIRST_NS + end * NS)
        assert told(list(span)) == [each for each in expected if start <= each[2] < end]
    with pytest.raises(NotHeld, match="epoch 3"):
        list(archive.times(0, 2**62, (3, 1)))


def test_a_range_of_sequences_is_read_exactly(places: HistoryPlaces) -> None:
    record(places, ticks_every(3_600 * NS, 60))
    record(places, ticks_every(3_600 * NS, 10, FIRST_NS + 80 * 3_600 * NS), first=81)
    for packed in (False, True):
        if packed:
            pack(places, SERIES)
        archive = Archive(places, SERIES)
        found = told(list(archive.sequences(7, 20, 85)))
        assert [sequence for _, sequence, _ in found] == [*range(20, 61), *range(81, 86)]
        assert archive.held(7).missing(20, 85) == [(61, 80)]
        assert list(archive.sequences(8, 1, 100)) == []


def test_a_run_that_was_cut_off_is_read_as_far_as_it_is_whole(places: HistoryPlaces) -> None:
    record(places, ticks_every(NS, 1_000), seal=False)
    (run,) = runs_of(places, SERIES)
    data = run.path.read_bytes()
    for lost, left in ((1, 999), (TICK_BYTES, 999), (TICK_BYTES * 10 + 3, 989), (TICK_BYTES * 1_000, 0)):
        run.path.write_bytes(data[:-lost])
        assert [len(each.ticks) for each in runs_of(places, SERIES)] == ([left] if left else [])
    for zeros in (1, 5, 999):
        run.path.write_bytes(data[: -zeros * TICK_BYTES] + bytes(zeros * TICK_BYTES))
        assert [len(each.ticks) for each in runs_of(places, SERIES)] == [1_000 - zeros]
    seal_all(places, SERIES)
    assert pack(places, SERIES).added == 1


def test_verify_finds_each_kind_of_damage_and_names_the_file(places: HistoryPlaces) -> None:
    record(places, ticks_every(3_600 * NS, 40))
    record(places, ticks_every(3_600 * NS, 5, FIRST_NS + 50 * 3_600 * NS), first=51)
    pack(places, SERIES)
    whole = verify(places, SERIES)
    assert (whole.problems, whole.files, whole.ticks, whole.gaps) == ([], 3, 45, [Gap(7, 41, 50)])
    path = places.day(SERIES, DAY)
    good = path.read_bytes()
    for at in range(4, len(good) - 8, 61):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        assert len(verify(places, SERIES).problems) >= 1, at
    path.write_bytes(good[:-100])
    assert str(path) in verify(places, SERIES).problems[0]
    path.write_bytes(places.day(SERIES, date(2024, 10, 5)).read_bytes())
    assert "stand under 2024-10-04" in verify(places, SERIES).problems[0]
    path.write_bytes(b"PAR1")
    with pytest.raises(FileBroken, match="cannot be read as Parquet"):
        read_info(path)


def test_a_broken_day_holds_no_other_day_up_and_its_ticks_wait_in_the_journal(places: HistoryPlaces) -> None:
    ticks = ticks_every(6 * 3_600 * NS, 12)  # four a day, three days
    record(places, ticks[:2])
    pack(places, SERIES)
    path = places.day(SERIES, DAY)
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    record(places, ticks[2:6], first=3)
    record(places, ticks[6:10], first=7)
    record(places, ticks[3:5], epoch=9, first=1)
    for _ in range(2):  # again and again, until somebody mends it
        packed = pack(places, SERIES)
        (why,) = packed.broken
        assert str(path) in why
        waiting = [(run.epoch, run.first_sequence, run.last_sequence) for run in runs_of(places, SERIES)]
        assert waiting == [(7, 3, 6), (9, 1, 2)], "the run that has no tick of the broken day is in its files"
        record(places, ticks[10:], first=11)
    held = {day: read_info(places.day(SERIES, day)).rows for day in places.days(SERIES) if day != DAY}
    assert held == {date(2024, 10, 5): 5, date(2024, 10, 6): 4}
    assert path.read_bytes() == good[:-100]
    path.write_bytes(good)
    assert pack(places, SERIES).broken == []
    assert runs_of(places, SERIES) == []
    assert held_of(places, SERIES) == {7: Ranges([(1, 12)]), 9: Ranges([(1, 2)])}
    assert [each.ticks for each in Archive(places, SERIES).days] == [5, 5, 4]


def test_a_broken_day_that_is_moved_aside_is_packed_from_the_journal(places: HistoryPlaces) -> None:
    record(places, ticks_every(NS, 5))
    pack(places, SERIES)
    path = places.day(SERIES, DAY)
    path.write_bytes(b"PAR1")
    record(places, ticks_every(NS, 9)[5:], first=6)
    assert len(pack(places, SERIES).broken) == 1
    with locked(places, SERIES):
        places.set_aside(path)
    packed = pack(places, SERIES)
    assert (packed.broken, packed.added) == ([], 4)
    assert runs_of(places, SERIES) == []


def test_series_never_mix(places: HistoryPlaces) -> None:
    live = Series("LIVE", SERIES.symbol)
    for series in (SERIES, live):
        put(places, series, DAY, Rows.run(1, 1, ticks_every(NS, 3)))
    held = places.series()
    assert held == [live, SERIES]
    assert best_series(held, SERIES.symbol, None, None) == live
    assert best_series(held, SERIES.symbol, None, "SIMULATED") == SERIES
    assert best_series(held, SERIES.symbol, "SIMULATED", "LIVE") == SERIES
    with pytest.raises(NotHeld, match="held is LIVE, SIMULATED"):
        best_series(held, SERIES.symbol, "DELAYED", None)
    with pytest.raises(NotHeld, match="held are NQZ24-CME"):
        best_series(held, "ESZ24-CME", None, None)


def test_only_what_was_invented_is_removed_when_it_is_old(places: HistoryPlaces) -> None:
    import os

    delayed = Series("DELAYED", SERIES.symbol)
    for series in (SERIES, delayed):
        put(places, series, DAY, Rows.run(1, 1, ticks_every(NS, 3)))
        os.utime(places.day(series, DAY), (0, 0))
    assert (expire(places, SERIES, 0), expire(places, delayed, 1), expire(places, SERIES, 1)) == (0, 0, 1)
    assert places.series() == [delayed]


def test_who_waits_for_the_lock_too_long_is_told(places: HistoryPlaces) -> None:
    with locked(places, SERIES):
        with locked(places, Series("LIVE", SERIES.symbol), 0.0):
            pass
        with pytest.raises(HistoryBusy, match="another process"), locked(places, SERIES, 0.0):
            pass


def test_ranges_join_and_tell_what_is_missing() -> None:
    ranges = Ranges([(10, 20), (1, 3), (21, 25), (5, 4)])
    assert (list(ranges), ranges.count) == ([(1, 3), (10, 25)], 19)
    ranges.add(4, 9)
    assert list(ranges) == [(1, 25)]
    assert Ranges([(3, 5), (8, 9)]).missing(1, 10) == [(1, 2), (6, 7), (10, 10)]
    assert Ranges([(3, 5)]).missing(3, 5) == Ranges().missing(5, 4) == []
