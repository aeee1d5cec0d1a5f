"""Decides each trade of the simulated market: mid price, quote, side, size and parts, as .scid records."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, RECORD, Records
from minhos_mesh.sierra_simulator.domain.market_path import MarketPath
from minhos_mesh.sierra_simulator.domain.products import USUAL, Product
from minhos_mesh.sierra_simulator.domain.regimes import MINUTE_US, REGIMES, RegimeSchedule
from minhos_mesh.sierra_simulator.domain.stamps import stamp_like_sierra

BLOCK_EVENTS = 256

_SPLIT_PROBABILITY = 0.03
_MOST_PARTS = 11
_PULL_PER_MINUTE = 0.002

_WIDE = np.array([regime.wide for regime in REGIMES])
_HEAVY = np.array([regime.heavy for regime in REGIMES])
_BUY_BIAS = 0.12 * np.sign([regime.drift_bp for regime in REGIMES])


@dataclass(frozen=True, slots=True)
class WalkSettings:
    """What a walk starts from."""

    seed: int
    """0 or more; the same seed gives the same market."""
    tick_e9: int
    """Price step of the instrument in 1e-9 units."""
    anchor_price_e9: int
    """Price to which the market is weakly pulled over hours, in 1e-9 units."""
    product: Product = USUAL
    """How it trades."""
    name: str = ""
    """Tells products of one seed apart, in what is their own: times and sizes of trades."""


@dataclass(frozen=True, slots=True)
class WalkState:
    """Where a walk stands between two trades."""

    time_us: int
    """Time of the last trade, microseconds since the Unix epoch."""
    stamp_us: int
    """Stamp of the last record, microseconds since the Unix epoch."""
    mid_ticks: float
    """Middle of the market in ticks."""
    block: int = 0
    """Blocks drawn so far; each has its own random numbers."""


@dataclass(frozen=True, slots=True)
class WalkBlock:
    """A run of records and what a walk needs to go on after any of them."""

    records: Records
    times_us: NDArray[np.int64]
    """Time of the trade behind each record, microseconds since the Unix epoch."""
    mids: NDArray[np.float64]
    """Middle of the market in ticks at each record."""
    end: WalkState

    def state_after(self, taken: int, start: WalkState) -> WalkState:
        """State behind the first `taken` records; the next block is a new one."""
        if taken == 0:
            return WalkState(start.time_us, start.stamp_us, start.mid_ticks, self.end.block)
        stamp = int(self.records["time_us"][taken - 1]) - EPOCH_SHIFT_US
        return WalkState(int(self.times_us[taken - 1]), stamp, float(self.mids[taken - 1]), self.end.block)


class RandomWalk:
    """A seeded market; draws the same blocks from the same settings, schedule and states."""

    def __init__(self, settings: WalkSettings, schedule: RegimeSchedule, stream: int = 0) -> None:
        """`stream` tells several walks of one seed apart, for example those before and after a restart."""
        self._settings = settings
        self._schedule = schedule
        self._path = MarketPath(settings.seed, settings.product.market, schedule)
        self._stream = stream
        self._name = zlib.crc32(settings.name.encode())
        self._anchor_ticks = settings.anchor_price_e9 / settings.tick_e9

    @property
    def product(self) -> Product:
        """How it trades."""
        return self._settings.product

    def draw(self, state: WalkState, mean_gap_us: float, events: int = BLOCK_EVENTS) -> WalkBlock:
        """The next trades after a state, `mean_gap_us` microseconds apart on average."""
        random = np.random.default_rng((self._settings.seed, self._stream, 1, state.block, self._name))
        product = self._settings.product
        gaps = random.exponential(mean_gap_us, events)
        times = state.time_us + np.cumsum(gaps).astype(np.int64)
        kinds = self._schedule.at(times)
        mids = self._mids(state, times)
        if not product.quoted:
            return self._values(state, times, mids)
        parts = np.where(
            random.random(events) < _SPLIT_PROBABILITY,
            1 + np.minimum(random.geometric(0.5, events), _MOST_PARTS - 1),
            1,
        )
        spread = 1 + np.where(random.random(events) < _WIDE[kinds] * product.wide, random.integers(1, 3, events), 0)
        buys = random.random(events) < 0.5 + _BUY_BIAS[kinds] * np.sign(product.movement)
        bid = np.maximum(np.floor(mids - (spread - 1) / 2).astype(np.int64), 1)
        sizes = self._sizes(random, np.repeat(kinds, parts))
        stamps = stamp_like_sierra(np.repeat(times, parts), state.stamp_us)
        records = self._records(stamps, np.repeat(bid, parts), np.repeat(spread, parts), np.repeat(buys, parts), sizes)
        _mark_parts(records, parts)
        end = WalkState(int(times[-1]), int(stamps[-1]), float(mids[-1]), state.block + 1)
        return WalkBlock(records, np.repeat(times, parts), np.repeat(mids, parts), end)

    def _mids(self, state: WalkState, times_us: NDArray[np.int64]) -> NDArray[np.float64]:
        pull = -_PULL_PER_MINUTE * np.log(state.mid_ticks / self._anchor_ticks) / MINUTE_US
        moves = self._settings.product.movement * self._path.moves(state.time_us, times_us)
        mids: NDArray[np.float64] = state.mid_ticks * np.exp(moves + pull * (times_us - state.time_us))
        return mids

    def _values(self, state: WalkState, times_us: NDArray[np.int64], mids: NDArray[np.float64]) -> WalkBlock:
        """Values of an index: the price alone."""
        stamps = stamp_like_sierra(times_us, state.stamp_us)
        records = np.zeros(len(times_us), RECORD)
        records["time_us"] = stamps + EPOCH_SHIFT_US
        records["close"] = np.maximum(np.rint(mids).astype(np.int64), 1) * self._settings.tick_e9 / 1e9
        records["num_trades"] = 1
        end = WalkState(int(times_us[-1]), int(stamps[-1]), float(mids[-1]), state.block + 1)
        return WalkBlock(records, times_us, mids, end)

    def _sizes(self, random: np.random.Generator, kinds: NDArray[np.intp]) -> NDArray[np.int64]:
        product = self._settings.product
        small = random.geometric(product.small, len(kinds))
        large = random.geometric(product.large, len(kinds))
        drawn = np.where(random.random(len(kinds)) < _HEAVY[kinds], large, small)
        sizes: NDArray[np.int64] = np.minimum(drawn, product.most)
        return sizes

    def _records(
        self,
        stamps_us: NDArray[np.int64],
        bid_ticks: NDArray[np.int64],
        spread: NDArray[np.int64],
        buys: NDArray[np.bool_],
        sizes: NDArray[np.int64],
    ) -> Records:
        records = np.zeros(len(stamps_us), RECORD)
        bid_e9 = bid_ticks * self._settings.tick_e9
        ask_e9 = (bid_ticks + spread) * self._settings.tick_e9
        records["time_us"] = stamps_us + EPOCH_SHIFT_US
        records["high"] = ask_e9 / 1e9
        records["low"] = bid_e9 / 1e9
        records["close"] = np.where(buys, ask_e9, bid_e9) / 1e9
        records["num_trades"] = 1
        records["total_volume"] = sizes
        records["bid_volume"] = np.where(buys, 0, sizes)
        records["ask_volume"] = np.where(buys, sizes, 0)
        return records


def _mark_parts(records: Records, parts: NDArray[np.int64]) -> None:
    """Writes the marks of trades that come in parts into Open, by bit pattern."""
    ends = np.cumsum(parts)
    split = parts > 1
    marks = np.zeros(len(records), "<u4")
    marks[(ends - parts)[split]] = MARK_FIRST
    marks[ends[split] - 1] = MARK_LAST
    records["open"] = marks.view("<f4")
