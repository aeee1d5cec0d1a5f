"""The simulated order book: ten levels around the quote at the end of every batch, and files as Sierra Chart writes them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_files.depth import read_depth
from minhos_mesh.sierra_files.depth_book import DepthBook
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD, END_OF_BATCH, DepthCommand
from minhos_mesh.sierra_files.depth_writer import DepthWriter, depth_path
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US
from minhos_mesh.sierra_simulator.domain.depth import SNAPSHOT_EVERY_US, DepthChange, DepthWalk

TICK_E9 = 250_000_000
START_US = EPOCH_SHIFT_US + 1_790_000_000_000_000


def commands(time_us: int, changes: list[DepthChange]) -> np.ndarray[Any, Any]:
    rows = [
        (time_us, each.command, each.flags, each.num_orders, each.price_ticks * 0.25, each.quantity, 0)
        for each in changes
    ]
    return np.array(rows, DEPTH_RECORD)


@given(
    steps=st.lists(
        st.tuples(st.integers(-15, 15), st.integers(1, 3), st.integers(0, 900_000_000)), min_size=1, max_size=40
    ),
    levels=st.integers(1, 12),
    seed=st.text(max_size=5),
)
@settings(max_examples=60)
def test_the_book_is_that_of_the_quote_at_the_end_of_each_batch(
    steps: list[tuple[int, int, int]], levels: int, seed: str
) -> None:
    walk, book = DepthWalk(seed, levels, 6), DepthBook(TICK_E9)
    bid, time_us, told = 94_000, START_US, None
    for move, spread, gap_us in steps:
        bid, time_us = bid + move, time_us + gap_us
        changes = walk.follow(time_us, bid, bid + spread)
        assert [change.flags for change in changes] == [0] * (len(changes) - 1) + [END_OF_BATCH]
        whole = changes[0].command is DepthCommand.CLEAR_BOOK
        assert whole == (told is None or time_us - told >= SNAPSHOT_EVERY_US)
        told = time_us if whole else told
        (view,) = book.views(commands(time_us, changes), levels=50)
        assert [level.price_e9 // TICK_E9 for level in view.bids] == [bid - at for at in range(levels)]
        assert [level.price_e9 // TICK_E9 for level in view.asks] == [bid + spread + at for at in range(levels)]
        assert all(level.quantity >= level.num_orders >= 1 for level in (*view.bids, *view.asks))
    assert book.refused == 0


def test_the_same_quotes_and_seed_give_the_same_book() -> None:
    def told(seed: str) -> list[DepthChange]:
        walk = DepthWalk(seed, 10, 6)
        return [change for at in range(50) for change in walk.follow(START_US + at, 94_000 + at % 7, 94_001 + at % 7)]

    assert told("a") == told("a") != told("b")


def test_a_day_has_a_file_of_its_own_and_old_ones_are_removed(tmp_path: Path) -> None:
    writer, day_us = DepthWriter(tmp_path, "NQZ26-CME", keep_days=2), 86_400_000_000
    strange = tmp_path / "MarketDepthData" / "ESZ26-CME.2020-01-01.depth"
    strange.parent.mkdir()
    strange.touch()
    walk = DepthWalk("a", 10, 6)
    for day in range(4):
        time_us = START_US + day * day_us
        assert writer.begins_day(time_us)
        writer.append(commands(time_us, walk.follow(time_us, 94_000, 94_001)))
        assert not writer.begins_day(time_us)
    writer.close()
    names = sorted(path.name for path in strange.parent.iterdir())
    assert names == [strange.name, "NQZ26-CME.2026-09-23.depth", "NQZ26-CME.2026-09-24.depth"]
    assert writer.path == depth_path(tmp_path, "NQZ26-CME", date(2026, 9, 24))
    assert writer.count == 84
    assert len(read_depth(strange.parent / names[1])) == 21


@pytest.mark.parametrize("torn", [0, 1, 63, 64, 64 + 24 * 3, 64 + 24 * 3 + 7])
def test_a_file_that_a_kill_left_is_gone_on_with_in_whole_commands(tmp_path: Path, torn: int) -> None:
    walk = DepthWalk("a", 10, 6)
    first = commands(START_US, walk.follow(START_US, 94_000, 94_001))
    writer = DepthWriter(tmp_path, "NQZ26-CME", keep_days=2)
    writer.append(first)
    writer.close()
    assert writer.path is not None
    with writer.path.open("rb+") as file:
        file.truncate(torn)
    writer.append(first)
    writer.close()
    kept = max(0, torn - 64) // 24
    assert read_depth(writer.path).tobytes() == first[:kept].tobytes() + first.tobytes()


def test_what_the_disk_refuses_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "MarketDepthData").write_text("in the way")
    writer = DepthWriter(tmp_path, "NQZ26-CME", keep_days=2)
    with pytest.raises(ScidError, match="MarketDepthData/NQZ26-CME.2026-09-21.depth cannot be written"):
        writer.append(commands(START_US, DepthWalk("a", 10, 6).follow(START_US, 94_000, 94_001)))
