"""Statistics of the simulated market: each product on its own grid, with its own spread and sizes, and products of one market as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.ticks import BUY, HAS_ASK, HAS_BID, HAS_SIZE, OFF_GRID, SELL, TickColumns, tick_columns
from minhos_mesh.sierra_simulator.domain.market_path import MarketPath
from minhos_mesh.sierra_simulator.domain.products import PRODUCTS, product_of
from minhos_mesh.sierra_simulator.domain.regimes import RegimeSchedule
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkSettings, WalkState
from minhos_mesh.sierra_simulator.settings import START_PRICES_E9

LIVE_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000
QUOTED = [root for root, product in PRODUCTS.items() if product.quoted]


@dataclass
class Drawn:
    records: Records
    columns: TickColumns
    tick_e9: int

    @property
    def spread(self) -> np.ndarray:
        return (self.columns.ask_e9 - self.columns.bid_e9) // self.tick_e9


def drawn(root: str, seed: int, hours: float = 2.0, gap_us: float = 5e5, start_us: int = LIVE_US) -> Drawn:
    spec, start_e9 = DEFAULT_INSTRUMENTS[root], START_PRICES_E9[root]
    schedule = RegimeSchedule((seed, 2), LIVE_US - HOUR_US, LIVE_US)
    walk = RandomWalk(WalkSettings(seed, spec.tick_e9, start_e9, product_of(root), root), schedule)
    state = WalkState(start_us, start_us, start_e9 / spec.tick_e9)
    parts = []
    while state.time_us < start_us + hours * HOUR_US:
        block = walk.draw(state, gap_us)
        parts.append(block.records)
        state = block.end
    records = np.concatenate(parts)
    return Drawn(records, tick_columns(records, spec.tick_e9), spec.tick_e9)


@pytest.mark.parametrize("root", QUOTED)
@given(seed=st.integers(0, 2**40))
@settings(max_examples=3)
def test_trades_are_on_the_grid_at_a_side_of_a_narrow_quote_with_sizes_of_the_product(root: str, seed: int) -> None:
    market, product = drawn(root, seed, hours=0.5), product_of(root)
    columns = market.columns
    assert not (columns.flags & OFF_GRID).any()
    assert set(np.unique(market.spread)) <= {1, 2, 3}
    assert (market.spread == 1).mean() > 0.55
    bought, sold = (columns.flags & BUY) > 0, (columns.flags & SELL) > 0
    assert (bought ^ sold).all()
    assert 0.25 < bought.mean() < 0.75
    assert (columns.price_e9 == np.where(bought, columns.ask_e9, columns.bid_e9)).all()
    assert columns.size.min() == 1
    assert columns.size.max() <= product.most
    assert (np.diff(columns.time_ns) > 0).all()


def test_the_spread_and_the_sizes_of_products_are_in_their_real_order() -> None:
    wide, size = {}, {}
    for root in ("NQ", "ES", "MNQ"):
        market = [drawn(root, seed, hours=1.0) for seed in range(4)]
        wide[root] = np.concatenate([found.spread > 1 for found in market]).mean()
        size[root] = np.concatenate([found.columns.size for found in market]).mean()
    assert wide["ES"] < wide["MNQ"] < wide["NQ"], wide
    assert size["ES"] > 2 * size["NQ"], size
    assert 0.02 < wide["NQ"] < 0.4
    assert 1.5 < size["NQ"] < 5


@given(seed=st.integers(0, 2**40))
@settings(max_examples=5)
def test_an_index_has_values_on_its_grid_and_neither_quote_nor_volume(seed: int) -> None:
    index = drawn("VIX", seed, hours=1.0, gap_us=5e6)
    assert not (index.columns.flags & (HAS_BID | HAS_ASK | HAS_SIZE | OFF_GRID | BUY | SELL)).any()
    assert (index.records["total_volume"] == 0).all()
    assert (index.records["high"] == 0).all()
    assert (index.columns.price_e9 % 10_000_000 == 0).all()
    assert 3 * 10**9 < index.columns.price_e9.min() <= index.columns.price_e9.max() < 100 * 10**9


def level_at(market: Drawn, times_ns: np.ndarray) -> np.ndarray:
    at = np.searchsorted(market.columns.time_ns, times_ns, side="right") - 1
    return np.asarray(market.columns.price_e9[at] / market.columns.price_e9[0])


@pytest.mark.parametrize("seed", range(3))
def test_products_of_one_market_move_as_one_and_the_index_against_them(seed: int) -> None:
    found = {root: drawn(root, seed) for root in ("NQ", "MNQ", "ES", "VIX")}
    minutes = LIVE_US * 1000 + 60_000_000_000 * np.arange(1, 120)
    levels = {root: level_at(market, minutes) for root, market in found.items()}
    apart = np.abs(levels["NQ"] - levels["MNQ"]) * 23_500 / 0.25
    assert np.median(apart) < 3, "in ticks; they trade at other times and at either side"
    assert apart.max() < 30
    moves = {root: np.diff(np.log(level)) for root, level in levels.items()}
    assert np.corrcoef(moves["NQ"], moves["ES"])[0, 1] > 0.6
    assert np.corrcoef(moves["NQ"], moves["VIX"])[0, 1] < -0.5
    assert moves["VIX"].std() > 3 * moves["NQ"].std()


@given(seed=st.integers(0, 2**40), cuts=st.lists(st.integers(1, 400_000_000), min_size=1, max_size=8))
@settings(max_examples=25)
def test_a_path_is_the_same_in_whatever_steps_it_is_asked(seed: int, cuts: list[int]) -> None:
    schedule = RegimeSchedule((seed, 2), LIVE_US - HOUR_US, LIVE_US)
    times = LIVE_US + np.cumsum(cuts)
    whole = MarketPath(seed, "NASDAQ", schedule).moves(LIVE_US, times)
    path, at, sum_of_steps = MarketPath(seed, "NASDAQ", schedule), LIVE_US, 0.0
    for time, level in zip(times.tolist(), whole.tolist(), strict=True):
        sum_of_steps += float(path.moves(at, np.array([time]))[0])
        at = time
        assert sum_of_steps == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("root", ["NQ", "ES", "MNQ", "VIX"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(root: str) -> None:
    first, again, other = (drawn(root, seed, hours=0.1).records.tobytes() for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_products_of_one_seed_trade_at_times_of_their_own() -> None:
    nq, mnq = drawn("NQ", 3, hours=0.2), drawn("MNQ", 3, hours=0.2)
    assert len(np.intersect1d(nq.columns.time_ns, mnq.columns.time_ns)) < len(nq.columns) / 20


def test_volatility_of_a_day_is_that_of_an_index_future() -> None:
    moves = []
    for seed in range(3):
        market = drawn("NQ", seed, hours=6.5, gap_us=2e6)
        minutes = LIVE_US * 1000 + 60_000_000_000 * np.arange(1, 390)
        moves.append(np.diff(np.log(level_at(market, minutes))).std())
    assert all(0.5e-4 < move < 8e-4 for move in moves), moves
