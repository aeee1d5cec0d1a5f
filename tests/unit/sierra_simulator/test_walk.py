from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US
from minhos_mesh.sierra_files.ticks import BUY, OFF_GRID, SELL, UNBUNDLED_FIRST, UNBUNDLED_LAST, tick_columns
from minhos_mesh.sierra_simulator.domain.regimes import REGIMES, RegimeSchedule
from minhos_mesh.sierra_simulator.domain.stamps import stamp_like_sierra
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkBlock, WalkSettings, WalkState

LIVE_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000
TICK_E9 = 250_000_000


def walk(seed: int = 1, stream: int = 0) -> RandomWalk:
    schedule = RegimeSchedule((seed, 2), LIVE_US - DAY_US, LIVE_US)
    return RandomWalk(WalkSettings(seed, TICK_E9, 23_500 * 10**9), schedule, stream)


def blocks(seed: int, count: int, gap_us: float = 1e5) -> list[WalkBlock]:
    market, state = walk(seed), WalkState(LIVE_US, LIVE_US, 94_000.0)
    found = []
    for _ in range(count):
        found.append(market.draw(state, gap_us))
        state = found[-1].end
    return found


@given(st.integers(0, 2**63))
@settings(max_examples=10)
def test_same_seed_gives_the_same_market(seed: int) -> None:
    first = b"".join(block.records.tobytes() for block in blocks(seed, 3))
    assert first == b"".join(block.records.tobytes() for block in blocks(seed, 3))
    assert first != b"".join(block.records.tobytes() for block in blocks(seed + 1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_records_are_trades_on_the_grid_at_bid_or_ask_with_rising_times(seed: int) -> None:
    records = np.concatenate([block.records for block in blocks(seed, 20)])
    columns = tick_columns(records, TICK_E9)
    assert not (columns.flags & OFF_GRID).any()
    assert (columns.ask_e9 > columns.bid_e9).all()
    assert (columns.price_e9[(columns.flags & BUY) > 0] == columns.ask_e9[(columns.flags & BUY) > 0]).all()
    assert (columns.price_e9[(columns.flags & SELL) > 0] == columns.bid_e9[(columns.flags & SELL) > 0]).all()
    assert (np.diff(columns.time_ns) > 0).all()
    assert (columns.size >= 1).all()
    marks = columns.flags & (UNBUNDLED_FIRST | UNBUNDLED_LAST)
    order = marks[marks > 0]
    assert len(order) > 0
    assert (order[0::2] == UNBUNDLED_FIRST).all()
    assert (order[1::2] == UNBUNDLED_LAST).all()


@pytest.mark.parametrize("seed", range(8))
def test_market_moves_enough_and_is_trending_when_it_goes_live(seed: int) -> None:
    schedule = RegimeSchedule((seed, 2), LIVE_US - DAY_US, LIVE_US)
    minutes = np.arange(LIVE_US - DAY_US, LIVE_US + 3_600_000_000, 60_000_000)
    kinds = schedule.at(minutes)
    at_live = REGIMES[int(kinds[1440])]
    assert at_live.drift_bp != 0
    assert all(REGIMES[int(kind)] is at_live for kind in kinds[1440 - 8 : 1440 + 3])
    assert {REGIMES[int(kind)].name for kind in kinds} == {"calm", "up", "down", "wild"}


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20))
@settings(max_examples=20)
def test_schedule_does_not_depend_on_how_it_is_asked(steps: list[int]) -> None:
    times = LIVE_US - DAY_US + np.cumsum(steps) * 60_000_000
    whole = RegimeSchedule((5,), LIVE_US - DAY_US, LIVE_US).at(times)
    pieces = RegimeSchedule((5,), LIVE_US - DAY_US, LIVE_US)
    assert whole.tolist() == [int(pieces.at(times[at : at + 1])[0]) for at in range(len(times))]


def test_walk_goes_on_after_any_record() -> None:
    market, start = walk(), WalkState(LIVE_US, LIVE_US, 94_000.0)
    block = market.draw(start, 1e5)
    assert block.state_after(0, start).mid_ticks == 94_000.0
    for taken in (1, 7, len(block.records)):
        state = block.state_after(taken, start)
        following = market.draw(state, 1e5)
        assert following.records["time_us"][0] > block.records["time_us"][taken - 1]
        assert abs(following.mids[0] - block.mids[taken - 1]) < 40
        assert state.block == 1


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=300), st.integers(-3_000, 10_000))
def test_stamps_rise_strictly_and_are_milliseconds_where_they_can_be(gaps: list[int], after: int) -> None:
    times = np.cumsum(np.asarray(gaps, np.int64))
    stamps = stamp_like_sierra(times, after)
    assert (np.diff(stamps) > 0).all()
    assert stamps[0] > after
    floors = times // 1000 * 1000
    assert (stamps >= floors).all()
    previous = np.concatenate([[after], stamps[:-1]])
    assert (stamps == np.maximum(floors, previous + 1)).all()


def test_trades_of_one_millisecond_count_its_microseconds() -> None:
    stamps = stamp_like_sierra(np.array([5_100, 5_300, 5_900, 6_050]), 0)
    assert stamps.tolist() == [5_000, 5_001, 5_002, 6_000]
    assert EPOCH_SHIFT_US == 2_209_161_600_000_000
