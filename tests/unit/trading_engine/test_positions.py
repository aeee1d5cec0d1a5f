from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minhos_mesh.matching import order as matching_order
from minhos_mesh.matching import position as matching_position
from minhos_mesh.runtime.money import E9
from minhos_mesh.trading_engine.domain.orders import Side
from minhos_mesh.trading_engine.domain.performance import Performance, measure
from minhos_mesh.trading_engine.domain.positions import Position, book_fill

if TYPE_CHECKING:
    from tests.unit.trading_engine.conftest import Builder

NQ_E9 = 20 * E9
TICK_E9 = E9 // 4
FILLS = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 7), st.integers(80_000, 100_000), st.integers(0, 5_000_000_000)),
    max_size=30,
)


def _book(make: Builder, *fills: tuple[Side, int, str | int]) -> Position:
    position = Position(symbol="NQZ26-CME", multiplier_e9=NQ_E9)
    for number, (side, quantity, points) in enumerate(fills, start=1):
        price_e9 = round(float(points) * 4) * TICK_E9
        position = book_fill(position, make.fill(quantity, price_e9, side), version=number).position
    return position


def test_a_long_round_trip_realizes_points_times_multiplier(make: Builder) -> None:
    position = _book(make, (Side.BUY, 2, 23_500), (Side.SELL, 2, "23510.25"))
    assert (position.quantity, position.realized_e9, position.cost_e9) == (0, 410 * E9, 0)
    assert position.average_price_e9 is None


def test_short_cover_realizes_exact_pnl(make: Builder) -> None:
    position = _book(make, (Side.SELL, 3, 23_500), (Side.BUY, 1, 23_490))
    assert (position.quantity, position.realized_e9) == (-2, 200 * E9)
    assert position.average_price_e9 == 23_500 * E9


def test_a_flip_closes_all_and_opens_the_rest_at_the_new_price(make: Builder) -> None:
    position = _book(make, (Side.BUY, 1, 23_500), (Side.SELL, 3, 23_510))
    assert (position.quantity, position.realized_e9) == (-2, 200 * E9)
    assert position.average_price_e9 == 23_510 * E9


def test_adding_moves_the_average(make: Builder) -> None:
    position = _book(make, (Side.BUY, 1, 23_500), (Side.BUY, 1, 23_501))
    assert position.average_price_e9 == 23_500_500_000_000


def test_an_average_that_does_not_divide_loses_nothing(make: Builder) -> None:
    fills = ((Side.BUY, 1, 100), (Side.BUY, 2, "100.25"), (Side.SELL, 1, 101), (Side.SELL, 1, 101), (Side.SELL, 1, 101))
    assert _book(make, *fills).realized_e9 == (303 * E9 - 100 * E9 - 2 * 100_250_000_000) * 20


def test_unrealized_needs_a_price_only_when_something_is_held(make: Builder) -> None:
    held = _book(make, (Side.SELL, 2, 23_500))
    assert held.unrealized_e9(23_490 * E9) == 400 * E9
    assert held.unrealized_e9(None) is None
    assert _book(make).unrealized_e9(None) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILLS)
def test_money_is_conserved_whatever_the_fills(make: Builder, fills: list[tuple[Side, int, int, int]]) -> None:
    position = Position(symbol="NQZ26-CME", multiplier_e9=NQ_E9)
    cash_e9 = 0
    for number, (side, quantity, ticks, commission_e9) in enumerate(fills, start=1):
        fill = make.fill(quantity, ticks * TICK_E9, side, commission_e9=commission_e9)
        position = book_fill(position, fill, version=number).position
        cash_e9 -= side.sign * quantity * ticks * TICK_E9
    last_e9 = 90_000 * TICK_E9
    unrealized_e9 = position.unrealized_e9(last_e9)
    assert unrealized_e9 is not None
    assert position.realized_e9 + unrealized_e9 == (cash_e9 + position.quantity * last_e9) * 20
    assert position.commission_e9 == sum(fill[3] for fill in fills)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILLS)
def test_the_matcher_computes_the_same_position(make: Builder, fills: list[tuple[Side, int, int, int]]) -> None:
    ours, theirs = Position(symbol="NQZ26-CME", multiplier_e9=NQ_E9), matching_position.Position()
    for number, (side, quantity, ticks, commission_e9) in enumerate(fills, start=1):
        fill = make.fill(quantity, ticks * TICK_E9, side, commission_e9=commission_e9)
        ours = book_fill(ours, fill, version=number).position
        their_side = matching_order.Side.BUY if side is Side.BUY else matching_order.Side.SELL
        theirs = matching_position.apply_fill(theirs, their_side, quantity, ticks * TICK_E9, 20, commission_e9)
    assert (ours.quantity, ours.cost_e9, ours.realized_e9, ours.commission_e9) == (
        theirs.quantity,
        theirs.cost_e9,
        theirs.realized_pnl_e9,
        theirs.commission_e9,
    )


def _measure(make: Builder, *fills: tuple[Side, int, int, int]) -> Performance:
    made = [
        make.fill(quantity, points * E9, side, commission_e9=fee * E9, at_ns=number)
        for number, (side, quantity, points, fee) in enumerate(fills)
    ]
    return measure((fill, NQ_E9) for fill in made)[0]


def test_nothing_traded_has_no_figures(make: Builder) -> None:
    nothing = _measure(make)
    assert (nothing.trades, nothing.net_e9, nothing.max_drawdown_e9) == (0, 0, 0)
    assert nothing.win_rate is nothing.average_win_e9 is nothing.average_loss_e9 is nothing.sharpe_ratio is None


def test_figures_come_from_round_trips_after_commission(make: Builder) -> None:
    measured = _measure(
        make,
        (Side.BUY, 1, 100, 2),
        (Side.SELL, 1, 110, 2),  # +200 - 4 = +196
        (Side.SELL, 2, 110, 4),
        (Side.BUY, 2, 115, 4),  # -200 - 8 = -208
        (Side.BUY, 1, 100, 2),  # open: no trade yet
    )
    assert (measured.fills, measured.trades, measured.wins, measured.losses) == (5, 2, 1, 1)
    assert (measured.average_win_e9, measured.average_loss_e9) == (196 * E9, -208 * E9)
    assert measured.net_e9 == (200 - 200 - 14) * E9
    assert measured.win_rate == 0.5
    assert measured.last_fill_ns == 4


def test_drawdown_is_the_deepest_fall_from_the_highest_net_result(make: Builder) -> None:
    up = ((Side.BUY, 1, 100, 0), (Side.SELL, 1, 110, 0))
    down = ((Side.BUY, 1, 100, 0), (Side.SELL, 1, 85, 0))
    assert _measure(make, *up, *down, *up).max_drawdown_e9 == 300 * E9
    assert _measure(make, *down).max_drawdown_e9 == 300 * E9


def test_a_flip_ends_one_trade_and_begins_the_next(make: Builder) -> None:
    measured = _measure(make, (Side.BUY, 1, 100, 2), (Side.SELL, 2, 110, 4), (Side.BUY, 1, 105, 2))
    assert measured.trades == 2
    assert (measured.won_e9, measured.net_e9) == (292 * E9, 292 * E9)  # 200 - 2 - 2, and 100 - 2 - 2


def test_sharpe_is_mean_over_deviation_of_the_trades(make: Builder) -> None:
    trades = [((Side.BUY, 1, 100, 0), (Side.SELL, 1, 100 + won, 0)) for won in (1, 2, 3)]
    measured = _measure(make, *(fill for trade in trades for fill in trade))
    assert measured.sharpe_ratio == pytest.approx(2.0)
    assert _measure(make, *trades[0], *trades[0]).sharpe_ratio is None
