from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.reader import ScidFile, read_scid
from minhos_mesh.sierra_files.ticks import (
    BAR,
    BUY,
    HAS_ASK,
    HAS_BID,
    HAS_PRICE,
    HAS_SIZE,
    HAS_TIME,
    OFF_GRID,
    SELL,
    UNBUNDLED_FIRST,
    UNBUNDLED_LAST,
    first_index_at,
    tick_columns,
)

TICK_E9 = 250_000_000


@pytest.fixture(scope="module")
def records(sample: Path) -> Records:
    return read_scid(sample)


def ns(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000_000


def test_sample_holds_48737_records(records: Records) -> None:
    assert len(records) == 48_737


@pytest.mark.parametrize(("day", "index"), [((2021, 1, 1), 80), ((2021, 5, 1), 23_408), ((2022, 1, 1), 48_737)])
def test_first_record_of_a_day_has_the_known_index(
    sample: Path, records: Records, day: tuple[int, int, int], index: int
) -> None:
    assert first_index_at(records, ns(*day)) == index
    with ScidFile(sample) as file:
        assert file.first_index_at(ns(*day)) == index


def test_volume_is_the_sum_of_both_sides(records: Records) -> None:
    columns = tick_columns(records, TICK_E9)
    assert int(columns.size.sum()) == 79_040
    assert int(columns.size[(columns.flags & SELL) > 0].sum()) == int(records["bid_volume"].sum()) == 39_035
    assert int(columns.size[(columns.flags & BUY) > 0].sum()) == int(records["ask_volume"].sum()) == 40_005


def test_marks_are_2102_pairs_that_strictly_alternate(records: Records) -> None:
    flags = tick_columns(records, TICK_E9).flags
    marks = flags & (UNBUNDLED_FIRST | UNBUNDLED_LAST)
    order = marks[marks > 0]
    assert (order[0::2] == UNBUNDLED_FIRST).all()
    assert (order[1::2] == UNBUNDLED_LAST).all()
    assert len(order) == 2 * 2_102


def test_every_trade_is_a_price_on_the_grid_with_a_rising_time(records: Records) -> None:
    columns = tick_columns(records, TICK_E9)
    must = HAS_PRICE | HAS_SIZE | HAS_TIME | HAS_BID
    assert ((columns.flags & must) == must).all()
    assert int(((columns.flags & HAS_ASK) == 0).sum()) == 1
    assert not (columns.flags & (BAR | OFF_GRID)).any()
    assert not (columns.price_e9 % TICK_E9).any()
    assert (np.diff(columns.time_ns) > 0).all()
    assert datetime.fromtimestamp(int(columns.time_ns[0]) / 1e9, UTC).isoformat() == "2020-11-25T01:21:41.954000+00:00"


def test_columns_of_pieces_are_pieces_of_the_columns(records: Records) -> None:
    whole = tick_columns(records[:5000], TICK_E9)
    parts = [tick_columns(records[at : at + 7], TICK_E9) for at in range(0, 5000, 7)]
    for name in ("time_ns", "price_e9", "bid_e9", "ask_e9", "size", "flags"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert (joined[:5000] == getattr(whole, name)[: len(joined)]).all()
