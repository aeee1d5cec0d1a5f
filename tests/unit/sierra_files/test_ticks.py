from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, RECORD, Records
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
    last_is_final,
    tick_columns,
)

QUARTER = 250_000_000


def record(
    time_us: int = 1_000_000,
    open_: float | bytes = 0.0,
    high: float = 101.25,
    low: float = 101.0,
    close: float = 101.25,
    trades: int = 1,
    volume: int = 3,
    bid: int = 0,
    ask: int = 3,
) -> Records:
    found = np.zeros(1, RECORD)
    found["time_us"] = time_us + EPOCH_SHIFT_US
    found["open"] = struct.unpack("<f", open_)[0] if isinstance(open_, bytes) else open_
    found["high"], found["low"], found["close"] = high, low, close
    found["num_trades"], found["total_volume"], found["bid_volume"], found["ask_volume"] = trades, volume, bid, ask
    return found


def test_single_trade_has_price_quote_size_and_side() -> None:
    columns = tick_columns(record(), QUARTER)
    assert int(columns.flags[0]) == HAS_PRICE | HAS_SIZE | HAS_BID | HAS_ASK | HAS_TIME | BUY
    assert int(columns.price_e9[0]) == int(columns.ask_e9[0]) == 101_250_000_000
    assert int(columns.bid_e9[0]) == 101_000_000_000
    assert (int(columns.time_ns[0]), int(columns.size[0])) == (1_000_000_000, 3)


def test_seller_hits_the_bid() -> None:
    assert tick_columns(record(bid=3, ask=0), QUARTER).flags[0] & SELL


def test_marks_are_told_apart_by_bit_pattern() -> None:
    first = tick_columns(record(open_=bytes.fromhex("f99e70fd")), QUARTER)
    last = tick_columns(record(open_=bytes.fromhex("019f70fd")), QUARTER)
    assert first.flags[0] & (UNBUNDLED_FIRST | UNBUNDLED_LAST) == UNBUNDLED_FIRST
    assert last.flags[0] & (UNBUNDLED_FIRST | UNBUNDLED_LAST) == UNBUNDLED_LAST
    assert (MARK_FIRST, MARK_LAST) == (0xFD709EF9, 0xFD709F01)
    assert int(first.bid_e9[0]) == 101_000_000_000


def test_bar_has_no_quote_and_its_open_is_no_mark() -> None:
    bar = record(open_=100.0, high=103.0, low=99.0, close=102.0, trades=17, volume=40, bid=0, ask=40)
    columns = tick_columns(bar, QUARTER)
    assert int(columns.flags[0]) == HAS_PRICE | HAS_SIZE | HAS_TIME | BAR
    assert (int(columns.bid_e9[0]), int(columns.ask_e9[0])) == (0, 0)
    assert not last_is_final(bar)
    assert last_is_final(record())


def test_one_trade_with_a_positive_open_is_a_trade_without_quote() -> None:
    columns = tick_columns(record(open_=101.25, high=101.25, low=101.25), QUARTER)
    assert int(columns.flags[0]) == HAS_PRICE | HAS_SIZE | HAS_TIME | BUY


@pytest.mark.parametrize("close", [0.0, -5.0, float("nan"), float("inf"), -float("inf"), 3e38])
def test_what_is_no_price_is_absent(close: float) -> None:
    columns = tick_columns(record(close=close, high=close, low=close), QUARTER)
    assert not columns.flags[0] & (HAS_PRICE | HAS_BID | HAS_ASK)
    assert int(columns.price_e9[0]) == 0


def test_price_between_two_ticks_is_left_and_flagged() -> None:
    columns = tick_columns(record(close=101.1), QUARTER)
    assert columns.flags[0] & OFF_GRID
    assert int(columns.price_e9[0]) == round(float(np.float32(101.1)) * 1e9)


def test_nothing_traded_has_no_size() -> None:
    assert not tick_columns(record(volume=0, ask=0), QUARTER).flags[0] & HAS_SIZE


@given(
    st.sampled_from([10_000_000, 100_000_000, 250_000_000, 1_000_000_000, 5_000_000, 31_250_000]),
    st.integers(1, 400_000),
)
def test_price_on_the_grid_survives_float32_exactly(tick_e9: int, steps: int) -> None:
    price_e9 = steps * tick_e9
    columns = tick_columns(record(close=float(np.float32(price_e9 / 1e9))), tick_e9)
    assert int(columns.price_e9[0]) == price_e9
    assert not columns.flags[0] & OFF_GRID


@given(st.binary(min_size=40, max_size=400), st.sampled_from([1, 10_000_000, QUARTER]))
def test_any_bytes_give_ticks_and_never_a_wrong_price(data: bytes, tick_e9: int) -> None:
    records = np.frombuffer(data, RECORD, count=len(data) // 40)
    columns = tick_columns(records, tick_e9)
    for at in range(len(records)):
        close = float(records["close"][at])
        if columns.flags[at] & HAS_PRICE:
            assert abs(int(columns.price_e9[at]) / 1e9 - close) <= max(0.5e-9, float(np.spacing(np.float32(close))))
        else:
            assert int(columns.price_e9[at]) == 0
        if columns.flags[at] & HAS_TIME:
            assert int(columns.time_ns[at]) > 0


def test_time_in_days_of_old_files_is_understood() -> None:
    old = record()
    old["time_us"] = np.array([25_569.5], "<f8").view("<i8")
    columns = tick_columns(old, QUARTER)
    assert columns.flags[0] & HAS_TIME
    assert int(columns.time_ns[0]) == 43_200 * 1_000_000_000


@pytest.mark.parametrize("raw", [0, -1, EPOCH_SHIFT_US, 2**62, -(2**63), 2**63 - 1])
def test_time_that_is_no_time_is_absent(raw: int) -> None:
    found = record()
    found["time_us"] = raw
    columns = tick_columns(found, QUARTER)
    if not columns.flags[0] & HAS_TIME:
        assert int(columns.time_ns[0]) == 0


def test_first_index_at_counts_a_started_microsecond_as_later() -> None:
    found = np.concatenate([record(1), record(2), record(3)])
    assert [first_index_at(found, t) for t in (0, 1000, 1001, 3000, 3001)] == [0, 0, 1, 2, 3]


def test_tick_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="tick_e9 is 0"):
        tick_columns(record(), 0)
