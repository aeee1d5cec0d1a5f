from __future__ import annotations

import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.prices import (
    PriceScale,
    contracts,
    exact_multiplier,
    fill_price,
    money_e9,
    price_to_wire,
    tick_of,
    time_ns,
    wire_price,
)

QUARTER = 250_000_000
TICKS = [10_000_000, QUARTER, 1_000_000_000, 5_000_000, 31_250_000, 7_812_500, 1_000_000, 3_906_250]


def single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@given(st.sampled_from(TICKS), st.integers(-4_000_000, 4_000_000))
def test_every_price_on_the_grid_survives_a_double_exactly(tick_e9: int, steps: int) -> None:
    found = wire_price(price_to_wire(steps * tick_e9), PriceScale(tick_e9), "Price1")
    assert found is not None
    assert (found.price_e9, found.on_grid) == (steps * tick_e9, True)


@given(st.sampled_from(TICKS), st.integers(1, 100_000))
def test_a_price_of_single_precision_becomes_its_tick(tick_e9: int, steps: int) -> None:
    found = wire_price(single(steps * tick_e9 / 1e9), PriceScale(tick_e9), "Price")
    assert found is not None
    assert found.price_e9 == steps * tick_e9


@given(st.sampled_from(TICKS), st.integers(1, 1_000_000), st.sampled_from([0.01, 0.001, 0.1, 100.0, 1.0]))
def test_unscaled_fill_price_becomes_exact_by_the_multiplier(tick_e9: int, steps: int, factor: float) -> None:
    multiplier = exact_multiplier(single(factor))
    scale = PriceScale(tick_e9, multiplier)
    price_e9 = steps * tick_e9
    raw = float(Fraction(price_e9, 10**9) / multiplier)
    found = fill_price(raw, scale, "LastFillPrice")
    assert found is not None
    assert found.price_e9 == price_e9


def test_fill_of_a_service_that_leaves_the_multiplier_out_is_read_like_one_that_does_not() -> None:
    scale = PriceScale(QUARTER, exact_multiplier(0.009999999776482582))
    for raw in (3_043_725.0, 30_437.25):
        found = fill_price(raw, scale, "LastFillPrice", reference_e9=30_400_000_000_000)
        assert found is not None
        assert (found.price_e9, found.on_grid) == (30_437_250_000_000, True)


def test_fill_price_that_is_near_in_no_reading_is_refused() -> None:
    scale = PriceScale(QUARTER, Fraction(1, 100))
    with pytest.raises(ValueUnreadable, match="LastFillPrice is 17.0: allowed is a price near 30400.00"):
        fill_price(17.0, scale, "LastFillPrice", reference_e9=30_400_000_000_000)


def test_price_between_two_ticks_stands_as_it_came_and_says_so() -> None:
    found = wire_price(23500.333333333332, PriceScale(QUARTER), "AverageFillPrice")
    assert found is not None
    assert (found.price_e9, found.on_grid) == (23_500_333_333_333, False)


def test_unset_stays_unset() -> None:
    scale = PriceScale(QUARTER, Fraction(1, 100))
    assert wire_price(None, scale, "Price1") is None
    assert fill_price(None, scale, "Price", 1) is None
    assert fill_price(None, scale, "Price") is None
    assert price_to_wire(None) is None
    assert contracts(None, "Quantity") is None
    assert money_e9(None, "CashBalance") is None


@pytest.mark.parametrize("raw", [float("nan"), float("inf"), 1e30, -1e12, 10_000_001.0])
def test_what_is_no_price_is_refused_by_name(raw: float) -> None:
    with pytest.raises(ValueUnreadable, match="Price1 is"):
        wire_price(raw, PriceScale(QUARTER), "Price1")


@pytest.mark.parametrize(
    ("raw", "exact"),
    [(None, 1), (0.0, 1), (1.0, 1), (single(0.01), Fraction(1, 100)), (single(0.001), Fraction(1, 1000)), (100.0, 100),
     (0.25, Fraction(1, 4)), (single(1 / 32), Fraction(1, 32))],
)  # fmt: skip
def test_multiplier_of_single_precision_is_the_factor_that_was_meant(raw: float | None, exact: Fraction | int) -> None:
    assert exact_multiplier(raw) == exact


@pytest.mark.parametrize("raw", [-1.0, float("nan"), float("inf"), 1e-12, 1e12])
def test_multiplier_that_is_none_is_refused(raw: float) -> None:
    with pytest.raises(ValueUnreadable, match="DisplayPriceMultiplier"):
        exact_multiplier(raw)


@pytest.mark.parametrize(
    ("raw", "tick"),
    [(0.25, QUARTER), (single(0.01), 10_000_000), (single(0.005), 5_000_000), (single(1 / 128), 7_812_500), (0.0, None),
     (None, None), (-1.0, None), (float("nan"), None)],
)  # fmt: skip
def test_tick_of_single_precision_is_exact(raw: float | None, tick: int | None) -> None:
    assert tick_of(raw) == tick


@pytest.mark.parametrize(("raw", "count"), [(3.0, 3), (-2.0, -2), (0.0, 0)])
def test_contracts_are_whole_numbers(raw: float, count: int) -> None:
    assert contracts(raw, "Quantity") == count


@pytest.mark.parametrize("raw", [0.5, float("nan"), float("inf"), 1e300])
def test_quantity_that_is_no_whole_number_is_refused(raw: float) -> None:
    with pytest.raises(ValueUnreadable, match="Quantity is .*: allowed is a whole number of contracts"):
        contracts(raw, "Quantity")


def test_money_is_its_decimal_text() -> None:
    assert money_e9(12_345.67, "CashBalance") == 12_345_670_000_000
    with pytest.raises(ValueUnreadable):
        money_e9(1e300, "CashBalance")


def test_times_come_in_seconds_fractions_milliseconds_and_microseconds() -> None:
    assert time_ns(1_621_443_600, "DateTime") == 1_621_443_600_000_000_000
    assert time_ns(1_621_443_600.123456, "DateTime") == 1_621_443_600_123_456_000
    assert time_ns(1_621_443_600_123, "DateTime", per_second=1_000) == 1_621_443_600_123_000_000
    assert time_ns(1_621_443_600_123_456, "DateTime", per_second=1_000_000) == 1_621_443_600_123_456_000
    assert time_ns(0, "DateTime") is None
    for wrong in (-1, 1e300, float("nan")):
        with pytest.raises(ValueUnreadable, match="DateTime"):
            time_ns(wrong, "DateTime")


def test_scale_without_a_tick_is_refused() -> None:
    with pytest.raises(ValueError, match="tick_e9 is 0"):
        PriceScale(0)
