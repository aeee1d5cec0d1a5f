"""Decides what a .scid record says as a tick: exact price, quote, side, time, and which values are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, Records, open_bits

HAS_PRICE = 0x01
"""Column flag: price_e9 is a value."""
HAS_SIZE = 0x02
"""Column flag: size is a value."""
HAS_BID = 0x04
"""Column flag: bid_e9 is a value."""
HAS_ASK = 0x08
"""Column flag: ask_e9 is a value."""
UNBUNDLED_FIRST = 0x40
"""Column flag: first part of a trade that the exchange reported in parts."""
UNBUNDLED_LAST = 0x80
"""Column flag: last part of it."""
HAS_TIME = 0x100
"""Column flag: time_ns is a value."""
BUY = 0x200
"""Column flag: the buyer was the aggressor."""
SELL = 0x400
"""Column flag: the seller was the aggressor."""
BAR = 0x800
"""Column flag: the record sums up several trades; price is its last one and size their volume."""
OFF_GRID = 0x1000
"""Column flag: price is no multiple of the tick and was left as it stands in the file."""
CONTRACT_FLAGS = 0xFF
"""The flags that are the bits of a tick in the mesh's contract; those above are of this file format."""

_SINGLE_OPEN = 0
_MIN_PRICE = 1.0e-9
_MAX_PRICE = 9.0e9
_MAX_TIME_US = EPOCH_SHIFT_US + 9_000_000_000_000_000
_FLOAT_DAYS_FROM = 1 << 58
_US_PER_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class TickColumns:
    """Ticks as columns of equal length; a value whose flag is off is 0 and must not be read."""

    time_ns: NDArray[np.int64]
    """Nanoseconds since the Unix epoch."""
    price_e9: NDArray[np.int64]
    """Price of the trade in 1e-9 units."""
    bid_e9: NDArray[np.int64]
    """Bid at the trade in 1e-9 units."""
    ask_e9: NDArray[np.int64]
    """Ask at the trade in 1e-9 units."""
    size: NDArray[np.int64]
    """Contracts."""
    flags: NDArray[np.uint16]
    """Bits named above."""

    def __len__(self) -> int:
        return len(self.time_ns)


def single_trades(records: Records) -> NDArray[np.bool_]:
    """True for records that hold one trade with its quote, False for bars (real open, high, low, close)."""
    return _single(records, open_bits(records))


def _single(records: Records, bits: NDArray[np.uint32]) -> NDArray[np.bool_]:
    marked = (bits == _SINGLE_OPEN) | (bits == MARK_FIRST) | (bits == MARK_LAST)
    single: NDArray[np.bool_] = marked & (records["num_trades"] <= 1)
    return single


def tick_columns(records: Records, tick_e9: int) -> TickColumns:
    """Turns records into ticks; `tick_e9` is the instrument's price step in 1e-9 units.

    A price that float32 cannot tell from a multiple of the tick becomes that multiple, exactly. Any other price is
    left as it stands and flagged OFF_GRID, so that nothing is invented and the reader of the ticks can refuse it.
    """
    if tick_e9 <= 0:
        raise ValueError(f"tick_e9 is {tick_e9}: allowed is 1 or more")
    bits = open_bits(records)
    single = _single(records, bits)
    price_e9, has_price, off_grid = exact_prices(records["close"], tick_e9)
    bid_e9, has_bid, _ = exact_prices(records["low"], tick_e9)
    ask_e9, has_ask, _ = exact_prices(records["high"], tick_e9)
    has_bid &= single
    has_ask &= single
    time_ns, has_time = times_ns(records["time_us"])
    size = records["total_volume"].astype(np.int64)
    bought, sold = records["ask_volume"] > 0, records["bid_volume"] > 0
    several = ~single & (records["num_trades"] != 1)
    one_sided = (bought != sold) & ~several
    flags = _flags(
        {
            HAS_PRICE: has_price, HAS_SIZE: size > 0, HAS_BID: has_bid, HAS_ASK: has_ask, HAS_TIME: has_time,
            BUY: one_sided & bought, SELL: one_sided & sold, UNBUNDLED_FIRST: bits == MARK_FIRST,
            UNBUNDLED_LAST: bits == MARK_LAST, BAR: several, OFF_GRID: off_grid,
        }
    )  # fmt: skip
    bid_e9 *= has_bid
    ask_e9 *= has_ask
    return TickColumns(time_ns, price_e9, bid_e9, ask_e9, size, flags)


def _flags(columns: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.uint16]:
    """The bits of each record; those of one byte are put together in bytes, which is several times faster."""
    low, high = np.zeros((2, len(next(iter(columns.values())))), np.uint8)
    for bit, where in columns.items():
        half, place = (low, bit) if bit < 0x100 else (high, bit >> 8)
        half |= where.view(np.uint8) * np.uint8(place)
    flags = high.astype(np.uint16)
    flags <<= np.uint16(8)
    flags |= low
    return flags


def exact_prices(
    raw: NDArray[np.float32], tick_e9: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Prices of single precision in 1e-9 units, which of them are prices at all, and which are off the grid."""
    plain = np.ascontiguousarray(raw)
    with np.errstate(invalid="ignore"):
        present = (plain >= _MIN_PRICE) & (plain < _MAX_PRICE)
    values = np.where(present, plain, np.float32(0))
    wide = values.astype(np.float64)
    steps = np.rint(wide * (1e9 / tick_e9))
    on_grid = np.abs(steps * (tick_e9 / 1e9) - wide) <= np.spacing(values)
    price_e9 = steps.astype(np.int64) * tick_e9
    off_grid = present & ~on_grid
    if off_grid.any():
        price_e9[off_grid] = np.rint(wide[off_grid] * 1e9).astype(np.int64)
    return price_e9, present, off_grid


def times_ns(raw: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times in ns since the Unix epoch and which are times; files from before version 2150 hold days as float64."""
    time_us = np.ascontiguousarray(raw)
    old = time_us >= _FLOAT_DAYS_FROM
    if old.any():
        days = np.where(old, time_us, 0).view("<f8")
        with np.errstate(invalid="ignore", over="ignore"):
            plausible = old & (days > 0) & (days < _MAX_TIME_US / _US_PER_DAY)
        converted = np.rint(np.where(plausible, days, 0.0) * _US_PER_DAY).astype(np.int64)
        time_us = np.where(old, converted, time_us)
    present = (time_us > EPOCH_SHIFT_US) & (time_us < _MAX_TIME_US)
    return np.where(present, (np.where(present, time_us, 0) - EPOCH_SHIFT_US) * 1000, 0), present


def first_index_at(records: Records, time_ns: int) -> int:
    """Index of the first record at or after a time; the records must be in order of time."""
    return int(np.searchsorted(records["time_us"], -(-time_ns // 1000) + EPOCH_SHIFT_US, side="left"))


def last_is_final(records: Records) -> bool:
    """False when the last record is a bar, which Sierra Chart may still rewrite in place."""
    return bool(single_trades(records[-1:])[0])
