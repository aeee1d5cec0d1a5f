"""Ticks that come late and go on where the venue stopped: they fill what stood there then, as if they had come in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.matching import MatchingRules, OrderType, Side, TimeInForce
from minhos_mesh.paper_venue.domain.exchange import Exchange
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.runtime.tick_layout import Tick, TickKind, TradeSide
from minhos_mesh.venue.domain.orders import LIVE, SIMULATED, FillRecord, OrderState, Submission, Terms

E9 = 1_000_000_000
TICK, P, NQ = 250_000_000, 23_500 * E9, "NQZ26-CME"
START = 1_795_446_000 * E9
"""Monday 23 November 2026, 15:00 UTC: the exchange is open."""


def trade(sequence: int, away: int, at_s: float, came_s: float | None = None) -> Tick:
    """A trade so many steps from 23,500 with its quote, so many seconds after the start, and when it came."""
    price, at_ns = P + away * TICK, START + round(at_s * E9)
    came_ns = at_ns if came_s is None else START + round(came_s * E9)
    side = TradeSide.BUY if away % 2 else TradeSide.SELL
    return Tick(sequence, at_ns, came_ns, TickKind.TRADE, price, 9, side, price - TICK, price, 9, 9, 63)


def exchange(provenance: int = SIMULATED) -> Exchange:
    rules = MatchingRules(max_quote_age_ns=10 * E9)
    made = Exchange({NQ: DEFAULT_INSTRUMENTS["NQ"]}, rules, initial_cash_e9=100_000 * E9, latency_ns=0)
    made.on_epoch(NQ, 1, provenance)
    made.on_ticks(NQ, [trade(1, 0, 0)], START)
    return made


def place(
    made: Exchange, name: str, away: int, at_s: float = 0, kind: OrderType = OrderType.LIMIT, quantity: int = 1
) -> None:
    price: dict[str, Any] = {"limit_price_e9" if kind is OrderType.LIMIT else "stop_price_e9": P + away * TICK}
    side = Side.SELL if (away > 0) == (kind is OrderType.LIMIT) else Side.BUY
    terms = Terms(symbol=NQ, side=side, order_type=kind, quantity=quantity, time_in_force=TimeInForce.GTC, **price)
    made.submit(Submission(client_order_id=name, terms=terms, provenance=SIMULATED), START + round(at_s * E9))


def late(made: Exchange, *ticks: Tick, now_s: float = 60) -> list[FillRecord]:
    changes = made.on_ticks(NQ, ticks, START + round(now_s * E9))
    return [change for change in changes if isinstance(change, FillRecord)]


@pytest.mark.parametrize("provenance", [SIMULATED, LIVE])
def test_limit_that_was_traded_through_meanwhile_is_filled_at_its_price_with_the_time_of_that_tick(
    provenance: int,
) -> None:
    made = exchange(provenance)
    place(made, "a", 20)
    (fill,) = late(made, trade(2, 10, 20, 60), trade(3, 25, 30, 60), trade(4, 0, 45, 60))
    assert (fill.price_e9, fill.time_ns, fill.market_sequence) == (P + 20 * TICK, START + 30 * E9, 3)
    assert made.orders["a"].state is OrderState.FILLED
    assert made.orders["a"].update_ns == START + 30 * E9
    assert made.markets[NQ].last_price_e9 == P


def test_stop_that_was_reached_meanwhile_takes_the_quote_of_that_time() -> None:
    made = exchange()
    place(made, "a", -20, kind=OrderType.STOP)
    (fill,) = late(made, trade(2, -21, 20, 60), trade(3, -80, 30, 60))
    assert (fill.price_e9, fill.time_ns) == (P - 22 * TICK, START + 20 * E9)


def test_orders_that_came_or_changed_meanwhile_meet_no_tick_from_before() -> None:
    made = exchange()
    place(made, "changed", 90)
    place(made, "stands", 20)
    place(made, "new", 20, at_s=40)
    made.replace("changed", START + 40 * E9, limit_price_e9=P + 20 * TICK)
    assert [fill.client_order_id for fill in late(made, trade(2, 25, 30, 60), trade(3, 0, 31, 60))] == ["stands"]
    assert {fill.client_order_id for fill in late(made, trade(4, 25, 41, 60))} == {"changed", "new"}


def test_order_that_was_cancelled_meanwhile_stays_cancelled() -> None:
    made = exchange()
    place(made, "a", 20)
    made.cancel("a", START + 40 * E9)
    assert late(made, trade(2, 25, 30, 60)) == []
    assert made.orders["a"].state is OrderState.CANCELED


def test_nothing_is_assumed_behind_a_gap_until_prices_of_now_are_back() -> None:
    made = exchange()
    place(made, "a", 20)
    assert late(made, trade(3, 25, 30, 60)) == [], "tick 2 was never told"
    assert late(made, trade(4, 25, 31, 60)) == []
    assert late(made, trade(5, 0, 59)) == []
    (fill,) = late(made, trade(6, 25, 70, 90), now_s=90)
    assert fill.market_sequence == 6


def test_nothing_is_assumed_for_the_time_before_the_last_values_that_the_venue_began_with() -> None:
    made = exchange()
    place(made, "a", 20)
    made.on_snapshot(NQ, 5, START + 20 * E9, (P - TICK, P, 9, 9), START + 21 * E9)
    assert late(made, trade(6, 25, 30, 60)) == []


STEPS = st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 9)), min_size=1, max_size=25)
ORDERS = st.lists(st.tuples(st.sampled_from([-5, -3, -1, 1, 3, 5]), st.booleans(), st.integers(1, 12)), max_size=5)


@given(STEPS, ORDERS, st.integers(0, 25), st.integers(1, 25))
def test_late_ticks_fill_what_ticks_in_time_would_have_filled(
    steps: list[tuple[int, int]], orders: list[tuple[int, bool, int]], on_time: int, size: int
) -> None:
    def run(cut: int) -> list[tuple[str, int, int, int | None]]:
        made, at_s, ticks, told = exchange(), 1.0, list[tuple[Tick, float]](), list[FillRecord]()
        for number, (away, stop, quantity) in enumerate(orders):
            place(made, f"o{number}", away, kind=OrderType.STOP if stop else OrderType.LIMIT, quantity=quantity)
        for number, (away, pause) in enumerate(steps, 2):
            at_s += pause / 10 + 0.001
            ticks.append((trade(number, away, at_s), at_s))
        for tick, when_s in ticks[:cut]:
            told += late(made, tick, now_s=when_s)
        for first in range(cut, len(ticks), size):
            told += late(made, *(tick for tick, _ in ticks[first : first + size]), now_s=at_s + 3_600)
        return [(fill.client_order_id, fill.quantity, fill.price_e9, fill.market_sequence) for fill in told]

    assert run(min(on_time, len(steps))) == run(len(steps))
