"""Decides nothing: shows that decimal text and 1e-9 units are exact both ways, and that mistakes are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.runtime import money

TICK_E9 = 250_000_000
INT64 = st.integers(min_value=-money.INT64_MAX, max_value=money.INT64_MAX)


@given(INT64)
def test_format_then_parse_gives_the_same_units(value_e9: int) -> None:
    assert money.parse_e9(money.format_e9(value_e9), field="price") == value_e9


@pytest.mark.parametrize(
    ("text", "value_e9"),
    [
        ("23500.25", 23_500_250_000_000),
        ("0", 0),
        ("-0.000000001", -1),
        ("+1.5", 1_500_000_000),
        ("00012.10", 12_100_000_000),
        ("1.0000000000000", 1_000_000_000),
        (" 7 ", 7_000_000_000),
    ],
)
def test_decimal_text_is_read_exactly(text: str, value_e9: int) -> None:
    assert money.parse_e9(text, field="price") == value_e9


@pytest.mark.parametrize(
    ("value_e9", "text"),
    [
        (23_500_250_000_000, "23500.25"),
        (5 * money.E9, "5.00"),
        (-1, "-0.000000001"),
        (-1_500_000_000, "-1.50"),
        (0, "0.00"),
    ],
)
def test_units_are_shown_as_plain_decimals(value_e9: int, text: str) -> None:
    assert money.format_e9(value_e9) == text


def test_whole_numbers_can_be_shown_without_decimals() -> None:
    assert money.format_e9(3 * money.E9, at_least=0) == "3"


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1e9", "1.2.3", "NaN", "inf", "--1", "1.", ".5", "0x10", "\uff11\uff12"]
)
def test_what_is_no_number_is_refused_with_the_field(text: str) -> None:
    with pytest.raises(money.MoneyError) as caught:
        money.parse_e9(text, field="limit_price")
    assert caught.value.field == "limit_price"
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("text", "meant"), [("23,500.25", "23500.25"), ("$23500.25", "23500.25"), ("23_500", "23500")])
def test_grouped_or_dollar_text_says_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(money.MoneyError) as caught:
        money.parse_e9(text, field="limit_price")
    assert caught.value.probably_meant == meant


def test_a_decimal_comma_is_not_guessed() -> None:
    with pytest.raises(money.MoneyError) as caught:
        money.parse_e9("23500,25", field="limit_price")
    assert caught.value.probably_meant is None


def test_ten_decimals_are_refused_and_never_rounded() -> None:
    with pytest.raises(money.MoneyError, match="nine decimals"):
        money.parse_e9("0.0000000001", field="price")


def test_units_typed_as_decimals_say_the_price_that_was_meant() -> None:
    with pytest.raises(money.MoneyError) as caught:
        money.parse_e9("23500250000000", field="limit_price")
    assert caught.value.probably_meant == "23500.25"


def test_points_given_as_units_are_refused_with_the_price_that_was_meant() -> None:
    with pytest.raises(money.OffScale) as caught:
        money.check_scale(23_500, field="limit_price_e9", tick_e9=TICK_E9)
    assert caught.value.probably_meant_e9 == 23_500 * money.E9
    assert "23500.00" in str(caught.value)


def test_units_scaled_twice_are_refused_with_the_price_that_was_meant() -> None:
    with pytest.raises(money.OffScale) as caught:
        money.check_scale(4 * money.E9 * money.E9, field="limit_price_e9", tick_e9=10_000_000)
    assert caught.value.probably_meant_e9 == 4 * money.E9


@pytest.mark.parametrize("shift", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_with_a_last_price_any_power_of_ten_is_recognised(shift: int) -> None:
    last_e9 = 23_400 * money.E9
    meant_e9 = 23_500 * money.E9
    for wrong_e9 in (meant_e9 // 10**shift, meant_e9 * 10**shift):
        with pytest.raises(money.OffScale) as caught:
            money.check_scale(wrong_e9, field="limit_price_e9", tick_e9=TICK_E9, reference_e9=last_e9)
        assert caught.value.probably_meant_e9 == meant_e9


@given(st.integers(min_value=40_000, max_value=190_000))
def test_a_price_near_the_last_one_is_never_called_off_scale(ticks: int) -> None:
    money.check_scale(ticks * TICK_E9, field="p", tick_e9=TICK_E9, reference_e9=23_400 * money.E9)


def test_zero_is_not_a_matter_of_scale() -> None:
    money.check_scale(0, field="p", tick_e9=TICK_E9, reference_e9=23_400 * money.E9)


def test_nothing_is_suggested_that_would_be_no_price_either() -> None:
    with pytest.raises(money.OffScale) as caught:
        money.check_scale(money.INT64_MAX, field="p", tick_e9=100 * money.E9)
    assert caught.value.probably_meant_e9 is None


def test_thousands_of_digits_are_refused_at_once() -> None:
    with pytest.raises(money.MoneyError, match="5000 digits"):
        money.parse_e9("9" * 5000, field="price")


def test_a_price_between_two_ticks_names_both_neighbours() -> None:
    with pytest.raises(money.OffTick) as caught:
        money.check_tick(money.parse_e9("23500.30", field="p"), TICK_E9, field="p")
    assert (caught.value.below_e9, caught.value.above_e9) == (23_500_250_000_000, 23_500_500_000_000)
    assert "23500.25 and 23500.50" in str(caught.value)


@given(st.integers(min_value=-(10**16), max_value=10**16), st.sampled_from([TICK_E9, money.E9, 10_000_000]))
def test_the_nearest_tick_is_on_the_grid_and_at_most_half_a_tick_away(price_e9: int, tick_e9: int) -> None:
    near_e9 = money.nearest_tick_e9(price_e9, tick_e9)
    money.check_tick(near_e9, tick_e9, field="p")
    assert abs(near_e9 - price_e9) * 2 <= tick_e9


@given(st.integers(min_value=-(10**15), max_value=10**15), st.integers(min_value=0, max_value=1000))
def test_multiplying_by_a_whole_number_is_exact(value_e9: int, times: int) -> None:
    assert money.multiply_e9(value_e9, times * money.E9) == value_e9 * times


def test_multiplying_below_the_unit_rounds_half_away_from_zero() -> None:
    half_e9 = money.E9 // 2
    assert [money.multiply_e9(value, half_e9) for value in (1, -1, 3, -3)] == [1, -1, 2, -2]


@pytest.mark.parametrize(
    ("total", "count", "mean"), [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (10, 3, 3), (11, 3, 4), (-10, -4, 2)]
)
def test_averages_round_half_to_even(total: int, count: int, mean: int) -> None:
    assert money.divide_half_even(total, count) == mean
