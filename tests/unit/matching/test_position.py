"""What fills do to a position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.matching import Position, Side, apply_fill, round_half_even

E9 = 1_000_000_000


def test_long_round_trip_realizes_points_times_multiplier() -> None:
    held = apply_fill(Position(), Side.BUY, 2, 100 * E9, 20)
    assert (held.quantity, held.average_price_e9, held.realized_pnl_e9) == (2, 100 * E9, 0)
    flat = apply_fill(held, Side.SELL, 2, 101 * E9, 20, commission_e9=7)
    assert flat == Position(quantity=0, cost_e9=0, realized_pnl_e9=2 * 20 * E9, commission_e9=7)
    assert flat.average_price_e9 is None


def test_short_cover_realizes_exact_pnl() -> None:
    held = apply_fill(Position(), Side.SELL, 3, 100 * E9, 20)
    assert (held.quantity, held.average_price_e9) == (-3, 100 * E9)
    assert held.unrealized_pnl_e9(99 * E9, 20) == 3 * 20 * E9
    assert apply_fill(held, Side.BUY, 1, 98 * E9, 20).realized_pnl_e9 == 2 * 20 * E9


def test_fill_through_zero_closes_and_opens() -> None:
    held = apply_fill(Position(), Side.BUY, 1, 100 * E9, 20)
    turned = apply_fill(held, Side.SELL, 3, 105 * E9, 20)
    assert (turned.quantity, turned.average_price_e9, turned.realized_pnl_e9) == (-2, 105 * E9, 100 * E9)


fills = st.lists(st.tuples(st.sampled_from(list(Side)), st.integers(1, 9), st.integers(1, 10**14)), max_size=12)


@given(fills, st.integers(1, 10**14), st.integers(1, 50))
def test_realized_and_open_profit_together_equal_the_cash_that_moved(
    history: list[tuple[Side, int, int]], last_e9: int, multiplier: int
) -> None:
    position, cash = Position(), 0
    for side, quantity, price_e9 in history:
        position = apply_fill(position, side, quantity, price_e9, multiplier)
        cash -= int(side) * quantity * price_e9
    held = sum(int(side) * quantity for side, quantity, _ in history)
    assert position.quantity == held
    assert (
        position.realized_pnl_e9 + position.unrealized_pnl_e9(last_e9, multiplier)
        == (cash + held * last_e9) * multiplier
    )
    assert held != 0 or position.cost_e9 == 0


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"), [(5, 2, 2), (7, 2, 4), (-5, -2, 2), (8, 3, 3), (7, 3, 2)]
)
def test_average_is_rounded_half_to_even(numerator: int, denominator: int, rounded: int) -> None:
    assert round_half_even(numerator, denominator) == rounded
