"""The portfolio is what the fills amount to, in whatever order and however often they come."""

from __future__ import annotations

import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.state_manager import store
from minhos_mesh.state_manager.domain.errors import FillUnusable
from minhos_mesh.state_manager.domain.portfolio import Holding, Portfolio, Told, Trade, booked, day_of, rebooked

DAY_NS = 86_400 * E9
NOW_NS = 1_790_000_000 * E9


def trade(version: int, quantity: int, price: int = 100, *, symbol: str = "NQZ26-CME", **more: int) -> Trade:
    """A fill of `quantity` contracts, negative when it sells, that is the whole of its order."""
    return Trade(
        fill_id=f"f-{version}",
        order_id=f"o-{version}",
        venue_order_id=f"v-{version}",
        symbol=symbol,
        buy=quantity > 0,
        quantity=abs(quantity),
        cumulative_quantity=abs(quantity),
        price_e9=price * E9,
        commission_e9=more.get("commission_e9", 2 * E9),
        fill_ns=more.get("fill_ns", NOW_NS),
        provenance=4,
        market_sequence=version,
        multiplier_e9=more.get("multiplier_e9", 20 * E9),
        version=version,
    )


def opened() -> Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(";".join(store.MIGRATIONS))
    return connection


def folded(trades: list[Trade]) -> Portfolio:
    with closing(opened()) as connection:
        for item in trades:
            store.book(connection, item)
        return store.load_portfolio(connection)


def holding_of(*trades: Trade) -> Holding:
    return rebooked("NQZ26-CME", trades)[0]


@pytest.mark.parametrize(
    ("fills", "quantity", "cost", "realized"),
    [
        ([(2, 100)], 2, 200, 0),
        ([(-2, 100)], -2, -200, 0),
        ([(2, 100), (1, 103)], 3, 303, 0),
        ([(2, 100), (-2, 105)], 0, 0, 200),
        ([(-2, 100), (2, 105)], 0, 0, -200),
        ([(3, 100), (-1, 110)], 2, 200, 200),
        ([(1, 100), (-3, 110)], -2, -220, 200),
        ([(-1, 100), (3, 90)], 2, 180, 200),
    ],
)
def test_netting_costs_and_realizes_exactly(
    fills: list[tuple[int, int]], quantity: int, cost: int, realized: int
) -> None:
    held = holding_of(*[trade(n, size, price) for n, (size, price) in enumerate(fills, 1)])
    assert (held.book.quantity, held.book.cost_e9, held.realized_e9) == (quantity, cost * E9, realized * E9)
    assert held.book.commission_e9 == 2 * E9 * len(fills)


def test_average_price_is_absent_when_flat_and_rounded_half_to_even() -> None:
    assert holding_of(trade(1, 1), trade(2, -1)).average_price_e9 is None
    assert holding_of(trade(1, 2), trade(2, 1, 101)).average_price_e9 == 100_333_333_333


@pytest.mark.parametrize("field", ["fill_id", "symbol", "quantity", "multiplier_e9", "cumulative_quantity"])
def test_fill_that_cannot_be_booked_is_refused_by_name(field: str) -> None:
    values: dict[str, Any] = {"fill_id": "", "symbol": "", "quantity": 0, "multiplier_e9": 0, "cumulative_quantity": 0}
    with closing(opened()) as connection, pytest.raises(FillUnusable, match=field):
        store.book(connection, replace(trade(1, 1), **{field: values[field]}))


def test_fill_known_by_id_or_by_cumulative_quantity_is_booked_once() -> None:
    first = trade(1, 2)
    again = replace(first, fill_id="other")
    with closing(opened()) as connection:
        assert [store.book(connection, item) for item in (first, first, again)] == [True, False, False]
        assert store.load_portfolio(connection).holdings[0].book.quantity == 2


def test_same_fill_id_of_another_order_is_another_fill() -> None:
    assert folded([trade(1, 2), replace(trade(2, 2), fill_id="f-1")]).holdings[0].book.quantity == 4


def test_day_of_a_fill_is_that_of_its_time_in_utc() -> None:
    midnight = NOW_NS // DAY_NS * DAY_NS
    assert day_of(midnight - 1) < day_of(midnight)
    days = folded([trade(1, 1, 100, fill_ns=midnight - 1), trade(2, -1, 110, fill_ns=midnight)]).days
    assert [(day.date, day.realized_e9, day.commission_e9, day.fills) for day in days] == [
        (day_of(midnight), 200 * E9, 2 * E9, 1),
        (day_of(midnight - 1), 0, 2 * E9, 1),
    ]


def test_ninety_days_are_shown_the_newest_first() -> None:
    days = folded([trade(n, 1, fill_ns=NOW_NS + n * DAY_NS) for n in range(1, 101)]).days
    assert len(days) == 90
    assert days[0].date == day_of(NOW_NS + 100 * DAY_NS)
    assert [day.date for day in days] == sorted((day.date for day in days), reverse=True)


def test_contradiction_needs_the_same_version() -> None:
    with closing(opened()) as connection:
        store.book(connection, trade(3, 1))
        other = Told(symbol="NQZ26-CME", quantity=9, cost_e9=0, realized_e9=0, commission_e9=0, version=4)
        store.note_told(connection, other)
        assert store.find_contradictions(connection) == ()
        store.note_told(connection, replace(other, version=3))
        assert store.find_contradictions(connection) == (), "an older word must not replace a newer one"
        store.book(connection, trade(4, 1))
        assert store.find_contradictions(connection) == ("NQZ26-CME",)
        store.note_told(
            connection,
            Told(symbol="NQZ26-CME", quantity=2, cost_e9=200 * E9, realized_e9=0, commission_e9=4 * E9, version=4),
        )
        assert store.find_contradictions(connection) == ()


fills = st.lists(
    st.tuples(
        st.sampled_from(["NQZ26-CME", "ESZ26-CME"]),
        st.integers(-5, 5).filter(bool),
        st.integers(1, 400),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


def trades_of(drawn: list[tuple[str, int, int, int]]) -> list[Trade]:
    return [
        trade(n, size, 100 + ticks, symbol=symbol, fill_ns=NOW_NS + day * DAY_NS)
        for n, (symbol, size, ticks, day) in enumerate(drawn, 1)
    ]


@given(drawn=fills)
def test_money_equals_sales_minus_purchases_with_what_is_open_at_cost(drawn: list[tuple[str, int, int, int]]) -> None:
    trades = trades_of(drawn)
    portfolio = folded(trades)
    for held in portfolio.holdings:
        mine = [item for item in trades if item.symbol == held.symbol]
        signed = [item.quantity if item.buy else -item.quantity for item in mine]
        assert held.book.quantity == sum(signed)
        cash = -sum(size * item.price_e9 for size, item in zip(signed, mine, strict=True))
        assert held.realized_e9 == 20 * (cash + held.book.cost_e9)
        assert held.book.commission_e9 == sum(item.commission_e9 for item in mine)
        assert held.fills == len(mine)
    assert sum(day.realized_e9 for day in portfolio.days) == sum(held.realized_e9 for held in portfolio.holdings)
    assert sum(day.fills for day in portfolio.days) == len(trades)


@given(drawn=fills)
def test_realized_is_that_of_an_independent_average_cost_book(drawn: list[tuple[str, int, int, int]]) -> None:
    """Fractions carry no rounding, so the exact integers may differ by less than one unit per partial close."""
    trades = trades_of(drawn)
    for held in folded(trades).holdings:
        quantity, average, realized = 0, Fraction(0), Fraction(0)
        mine = [item for item in trades if item.symbol == held.symbol]
        for item in mine:
            size = item.quantity if item.buy else -item.quantity
            while size:
                if quantity * size >= 0:
                    average = (average * abs(quantity) + item.price_e9 * abs(size)) / abs(quantity + size)
                    quantity, size = quantity + size, 0
                else:
                    closed = min(abs(size), abs(quantity))
                    direction = 1 if quantity > 0 else -1
                    realized += direction * closed * (item.price_e9 - average) * 20
                    quantity -= direction * closed
                    size += direction * closed
        assert quantity == held.book.quantity
        assert abs(realized - held.realized_e9) <= 20 * len(mine)


@given(drawn=fills, shuffle=st.randoms(use_true_random=False), repeats=st.integers(0, 5))
def test_order_and_repetition_of_events_change_nothing(
    drawn: list[tuple[str, int, int, int]], shuffle: object, repeats: int
) -> None:
    trades = trades_of(drawn)
    mixed = [*trades, *trades[:repeats]]
    shuffle.shuffle(mixed)  # type: ignore[attr-defined] # hypothesis's own Random
    assert folded(mixed) == folded(trades)


@given(drawn=fills)
def test_rebuilding_gives_what_live_gave(drawn: list[tuple[str, int, int, int]]) -> None:
    with closing(opened()) as connection:
        for item in trades_of(drawn):
            store.book(connection, item)
        live = store.load_portfolio(connection)
        for symbol in {held.symbol for held in live.holdings}:
            store.rebook(connection, symbol)
        assert store.load_portfolio(connection) == live


@given(drawn=fills)
def test_each_realized_change_adds_up(drawn: list[tuple[str, int, int, int]]) -> None:
    trades = deque(item for item in trades_of(drawn) if item.symbol == "NQZ26-CME")
    held, total = Holding(symbol="NQZ26-CME"), 0
    while trades:
        held, change = booked(held, trades.popleft())
        total += change
    assert total == held.realized_e9
