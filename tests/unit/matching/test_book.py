"""What the matcher promises, one claim a test."""

from __future__ import annotations

import pytest

from minhos_mesh.matching import (
    Event,
    Fill,
    MatchingBook,
    MatchingRules,
    Order,
    OrderInvalid,
    OrderType,
    OrderUnknown,
    OrderUpdate,
    Phase,
    Quote,
    Side,
    TimeInForce,
    Trade,
    UpdateKind,
)

E9 = 1_000_000_000
TICK = 250_000_000
P = 23_500 * E9
RULES = MatchingRules(max_quote_age_ns=5 * E9, commission_per_contract_e9=2_250_000_000)


def book(**rules: int) -> MatchingBook:
    return MatchingBook(
        TICK, MatchingRules(**{"max_quote_age_ns": 5 * E9, "commission_per_contract_e9": 2_250_000_000, **rules})
    )


def quote(
    at: int, bid: int | None = 0, ask: int | None = 1, bid_size: int | None = 3, ask_size: int | None = 3
) -> Quote:
    """Prices in ticks from P, time in seconds."""
    return Quote(
        time_ns=at * E9,
        bid_e9=None if bid is None else P + bid * TICK,
        ask_e9=None if ask is None else P + ask * TICK,
        bid_size=bid_size,
        ask_size=ask_size,
    )


def trade(at: int, price: int, size: int, aggressor: Side | None = None) -> Trade:
    return Trade(time_ns=at * E9, price_e9=P + price * TICK, size=size, aggressor=aggressor)


def order(
    order_id: str = "a",
    side: Side = Side.BUY,
    kind: OrderType = OrderType.MARKET,
    quantity: int = 1,
    tif: TimeInForce = TimeInForce.DAY,
    limit: int | None = None,
    stop: int | None = None,
    effective: int = 0,
) -> Order:
    return Order(
        order_id=order_id,
        side=side,
        order_type=kind,
        time_in_force=tif,
        quantity=quantity,
        limit_price_e9=None if limit is None else P + limit * TICK,
        stop_price_e9=None if stop is None else P + stop * TICK,
        effective_ns=effective * E9,
    )


def fills(events: tuple[Event, ...]) -> list[tuple[int, int]]:
    """(quantity, ticks from P) of each fill."""
    return [(e.quantity, (e.price_e9 - P) // TICK) for e in events if isinstance(e, Fill)]


def kinds(events: tuple[Event, ...]) -> list[str]:
    return [f"{e.kind.value} {e.reason}".strip() if isinstance(e, OrderUpdate) else "FILL" for e in events]


def test_market_buy_fills_at_the_ask_and_market_sell_at_the_bid() -> None:
    b = book()
    b.on_quote(quote(1))
    assert fills(b.submit(order("a"), E9)) == [(1, 1)]
    assert fills(b.submit(order("b", Side.SELL), E9)) == [(1, 0)]
    assert not b.has_orders


def test_fill_carries_cumulative_leaves_and_commission_per_contract() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=2))
    fill = b.submit(order(quantity=5), E9)[1]
    assert isinstance(fill, Fill)
    assert (fill.quantity, fill.cumulative_quantity, fill.leaves_quantity) == (2, 2, 3)
    assert fill.commission_e9 == 2 * 2_250_000_000
    assert not fill.maker


def test_market_order_waits_for_the_next_quote_when_the_size_is_gone() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=2))
    assert fills(b.submit(order(quantity=5), E9)) == [(2, 1)]
    assert fills(b.on_trade(trade(2, 1, 50))) == []
    assert fills(b.on_quote(quote(3, ask=4, ask_size=10))) == [(3, 4)]


def test_market_order_walks_as_many_levels_as_the_rules_assume() -> None:
    b = book(walk_ticks=2)
    b.on_quote(quote(1, ask_size=2))
    assert fills(b.submit(order(quantity=7), E9)) == [(2, 1), (2, 2), (2, 3)]
    assert b.find("a").leaves_quantity == 1


def test_the_same_shown_size_is_not_taken_twice() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=3))
    assert fills(b.submit(order("a", quantity=2), E9)) == [(2, 1)]
    assert fills(b.submit(order("b", quantity=2), E9)) == [(1, 1)]


def test_walking_continues_where_an_earlier_order_stopped() -> None:
    b = book(walk_ticks=1)
    b.on_quote(quote(1, ask_size=3))
    b.submit(order("a", quantity=4), E9)
    assert fills(b.submit(order("b", quantity=9), E9)) == [(2, 2)]


def test_slippage_is_paid_by_takers_on_both_sides() -> None:
    b = book(slippage_ticks=2)
    b.on_quote(quote(1))
    assert fills(b.submit(order("a"), E9)) == [(1, 3)]
    assert fills(b.submit(order("b", Side.SELL), E9)) == [(1, -2)]


def test_slippage_never_goes_beyond_the_limit() -> None:
    b = book(slippage_ticks=5)
    b.on_quote(quote(1))
    assert fills(b.submit(order(kind=OrderType.LIMIT, limit=2), E9)) == [(1, 2)]


def test_size_that_is_not_shown_is_assumed_from_the_rules() -> None:
    b = book(size_when_not_shown=4)
    b.on_quote(quote(1, ask_size=None))
    assert fills(b.submit(order(quantity=6), E9)) == [(4, 1)]


def test_shown_size_of_zero_fills_nothing() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=0))
    assert fills(b.submit(order(), E9)) == []


@pytest.mark.parametrize("tif", [TimeInForce.DAY, TimeInForce.GTC])
def test_stale_quote_fills_nothing_and_the_order_waits_for_a_fresh_one(tif: TimeInForce) -> None:
    b = book()
    b.on_quote(quote(1))
    assert fills(b.submit(order(tif=tif), 6 * E9 + 1)) == []
    assert fills(b.on_quote(quote(100, ask=8))) == [(1, 8)]


def test_quote_exactly_at_the_age_limit_is_fresh() -> None:
    b = book()
    b.on_quote(quote(1))
    assert fills(b.submit(order(), 6 * E9)) == [(1, 1)]


def test_one_sided_quote_fills_nothing_on_the_missing_side() -> None:
    b = book()
    b.on_quote(quote(1, ask=None))
    assert fills(b.submit(order("a"), E9)) == []
    assert fills(b.submit(order("b", Side.SELL), E9)) == [(1, 0)]


def test_immediate_order_without_fresh_quote_is_cancelled_with_the_reason() -> None:
    assert kinds(book().submit(order(tif=TimeInForce.IOC), E9)) == ["ACCEPTED", "CANCELED NO_FRESH_QUOTE"]


def test_ioc_fills_what_there_is_and_cancels_the_rest() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=2))
    events = b.submit(order(quantity=5, tif=TimeInForce.IOC), E9)
    assert kinds(events) == ["ACCEPTED", "FILL", "CANCELED NOT_FILLED_AT_ONCE"]
    assert isinstance(events[-1], OrderUpdate)
    assert events[-1].cumulative_quantity == 2


def test_fok_fills_whole_or_not_at_all() -> None:
    b = book(walk_ticks=1)
    b.on_quote(quote(1, ask_size=2))
    assert kinds(b.submit(order("a", quantity=5, tif=TimeInForce.FOK), E9)) == [
        "ACCEPTED",
        "CANCELED NOT_FILLED_AT_ONCE",
    ]
    assert fills(b.submit(order("b", quantity=4, tif=TimeInForce.FOK), E9)) == [(2, 1), (2, 2)]


def test_fok_with_limit_counts_only_levels_within_the_limit() -> None:
    b = book(walk_ticks=3)
    b.on_quote(quote(1, ask_size=2))
    refused = b.submit(order(kind=OrderType.LIMIT, quantity=4, tif=TimeInForce.FOK, limit=1), E9)
    assert kinds(refused) == ["ACCEPTED", "CANCELED NOT_FILLED_AT_ONCE"]


def test_marketable_limit_takes_the_quote_not_its_own_limit() -> None:
    b = book()
    b.on_quote(quote(1))
    assert fills(b.submit(order(kind=OrderType.LIMIT, limit=4), E9)) == [(1, 1)]


def test_resting_limit_fills_at_its_limit_when_the_quote_crosses_it() -> None:
    b = book()
    b.on_quote(quote(1))
    b.submit(order(kind=OrderType.LIMIT, limit=-2, quantity=5), E9)
    events = b.on_quote(quote(2, bid=-5, ask=-4, ask_size=2))
    assert fills(events) == [(2, -2)]
    assert isinstance(events[0], Fill)
    assert events[0].maker


def test_touch_does_not_fill_before_the_queue_ahead_has_traded() -> None:
    b = book()
    b.on_quote(quote(1, bid_size=10))
    b.submit(order(kind=OrderType.LIMIT, limit=0, quantity=3), E9)
    assert fills(b.on_trade(trade(2, 0, 6))) == []
    assert fills(b.on_trade(trade(3, 0, 5))) == [(1, 0)]
    assert fills(b.on_trade(trade(4, 0, 9))) == [(2, 0)]


def test_queue_ahead_shrinks_with_the_shown_size_and_never_grows() -> None:
    b = book()
    b.on_quote(quote(1, bid_size=10))
    b.submit(order(kind=OrderType.LIMIT, limit=0), E9)
    b.on_quote(quote(2, bid_size=2))
    b.on_quote(quote(3, bid_size=50))
    assert b.find("a").queue_ahead == 2
    assert fills(b.on_trade(trade(4, 0, 3))) == [(1, 0)]


def test_trade_through_fills_whole_whatever_the_queue() -> None:
    b = book()
    b.on_quote(quote(1, bid_size=100))
    b.submit(order(kind=OrderType.LIMIT, limit=0, quantity=3), E9)
    assert fills(b.on_trade(trade(2, -1, 1))) == [(3, 0)]


def test_limit_better_than_the_best_has_nobody_ahead() -> None:
    b = book()
    b.on_quote(quote(1, bid=0, ask=4))
    b.submit(order(kind=OrderType.LIMIT, limit=2), E9)
    assert fills(b.on_trade(trade(2, 2, 1))) == [(1, 2)]


def test_unknown_queue_is_filled_only_by_a_trade_through() -> None:
    b = book()
    b.submit(order(kind=OrderType.LIMIT, limit=0), E9)
    assert fills(b.on_trade(trade(2, 0, 1000))) == []
    assert fills(b.on_trade(trade(3, -1, 1))) == [(1, 0)]


def test_trade_by_the_same_aggressor_does_not_serve_a_resting_order() -> None:
    b = book()
    b.on_quote(quote(1, bid=0, ask=4))
    b.submit(order(kind=OrderType.LIMIT, limit=2), E9)
    assert fills(b.on_trade(trade(2, 2, 9, Side.BUY))) == []
    assert fills(b.on_trade(trade(3, 2, 9, Side.SELL))) == [(1, 2)]


def test_one_trade_serves_the_earlier_order_first_and_not_more_than_its_size() -> None:
    b = book()
    b.on_quote(quote(1, bid=0, ask=4))
    b.submit(order("a", kind=OrderType.LIMIT, limit=2, quantity=3), E9)
    b.submit(order("b", kind=OrderType.LIMIT, limit=2, quantity=3), E9)
    events = b.on_trade(trade(2, 2, 4))
    assert [(e.order_id, e.quantity) for e in events if isinstance(e, Fill)] == [("a", 3), ("b", 1)]


def test_trade_before_an_order_took_effect_does_not_fill_it() -> None:
    b = book()
    b.on_quote(quote(1, bid=0, ask=4))
    b.submit(order(kind=OrderType.LIMIT, limit=2, effective=5), 5 * E9)
    assert fills(b.on_trade(trade(4, 1, 9))) == []


@pytest.mark.parametrize(("side", "stop", "before", "at", "fill"), [(Side.BUY, 4, 3, 4, 1), (Side.SELL, -4, -3, -4, 0)])
def test_stop_wakes_when_a_trade_reaches_it_and_then_takes_the_quote(
    side: Side, stop: int, before: int, at: int, fill: int
) -> None:
    b = book()
    b.on_quote(quote(1))
    assert kinds(b.submit(order(side=side, kind=OrderType.STOP, stop=stop), E9)) == ["ACCEPTED"]
    assert kinds(b.on_trade(trade(2, before, 1))) == []
    events = b.on_trade(trade(3, at, 1))
    assert kinds(events) == ["TRIGGERED", "FILL"]
    assert fills(events) == [(1, fill)]


def test_stop_wakes_when_the_whole_quote_is_beyond_it() -> None:
    b = book()
    b.on_quote(quote(1))
    b.submit(order(kind=OrderType.STOP, stop=4), E9)
    assert kinds(b.on_quote(quote(2, bid=3, ask=4))) == []
    assert fills(b.on_quote(quote(3, bid=4, ask=5))) == [(1, 5)]


def test_stop_that_is_already_reached_fills_at_once() -> None:
    b = book()
    b.on_quote(quote(1, bid=6, ask=7))
    b.on_trade(trade(1, 6, 1))
    assert kinds(b.submit(order(kind=OrderType.STOP, stop=4), E9)) == ["ACCEPTED", "TRIGGERED", "FILL"]


def test_stop_is_not_woken_by_a_stale_trade() -> None:
    b = book()
    b.on_trade(trade(1, 6, 1))
    assert kinds(b.submit(order(kind=OrderType.STOP, stop=4), 60 * E9)) == ["ACCEPTED"]


def test_stop_limit_rests_at_its_limit_once_woken() -> None:
    b = book()
    b.on_quote(quote(1))
    b.submit(order(kind=OrderType.STOP_LIMIT, stop=4, limit=4), E9)
    assert kinds(b.on_quote(quote(2, bid=6, ask=7))) == ["TRIGGERED"]
    assert b.find("a").phase is Phase.RESTING
    assert fills(b.on_quote(quote(3, bid=3, ask=4))) == [(1, 4)]


def test_order_with_latency_takes_effect_against_the_quote_of_that_instant() -> None:
    b = book()
    b.on_quote(quote(1, ask=1))
    assert kinds(b.submit(order(effective=3), E9)) == ["ACCEPTED"]
    assert kinds(b.on_quote(quote(2, ask=2))) == []
    events = b.on_quote(quote(4, ask=9))
    assert fills(events) == [(1, 2)]
    assert isinstance(events[0], Fill)
    assert events[0].time_ns == 3 * E9


def test_orders_with_latency_take_effect_in_the_order_of_their_time() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=1))
    b.submit(order("late", effective=4), E9)
    b.submit(order("early", effective=3), E9)
    assert [e.order_id for e in b.advance(5 * E9) if isinstance(e, Fill)] == ["early"]


def test_advance_before_the_effective_time_changes_nothing() -> None:
    b = book()
    b.on_quote(quote(1))
    b.submit(order(effective=3), E9)
    assert b.advance(3 * E9 - 1) == ()
    assert b.find("a").phase is Phase.PENDING


def test_closed_session_rejects_and_never_fills() -> None:
    b = book()
    b.on_quote(quote(1, bid=0, ask=4))
    b.submit(order("gtc", kind=OrderType.LIMIT, limit=2, tif=TimeInForce.GTC), E9)
    b.close_session(E9)
    assert kinds(b.submit(order("b"), E9)) == ["REJECTED SESSION_CLOSED"]
    assert b.on_quote(quote(2, bid=0, ask=1)) == ()
    assert b.on_trade(trade(2, 0, 9)) == ()
    b.open_session()
    assert fills(b.on_quote(quote(3, bid=0, ask=1))) == [(1, 2)]


def test_day_orders_expire_with_the_session_and_gtc_orders_stay() -> None:
    b = book()
    b.submit(order("day", kind=OrderType.LIMIT, limit=0), E9)
    b.submit(order("gtc", kind=OrderType.LIMIT, limit=0, tif=TimeInForce.GTC), E9)
    events = b.close_session(9 * E9)
    assert [(e.order_id, e.kind) for e in events if isinstance(e, OrderUpdate)] == [("day", UpdateKind.EXPIRED)]
    assert [w.order.order_id for w in b.working()] == ["gtc"]


def test_cancel_tells_what_was_filled_and_a_second_cancel_is_unknown() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=2))
    b.submit(order(quantity=5), E9)
    (event,) = b.cancel("a", 2 * E9)
    assert isinstance(event, OrderUpdate)
    assert event.cumulative_quantity == 2
    assert event.reason == "REQUESTED"
    with pytest.raises(OrderUnknown):
        b.cancel("a", 2 * E9)


def test_replace_keeps_priority_only_when_the_quantity_shrinks() -> None:
    b = book()
    for name in ("a", "b"):
        b.submit(order(name, kind=OrderType.LIMIT, limit=0, quantity=5), E9)
    b.replace("a", E9, quantity=3)
    assert [w.order.order_id for w in b.working()] == ["a", "b"]
    b.replace("a", E9, quantity=4)
    assert [w.order.order_id for w in b.working()] == ["b", "a"]


def test_replace_to_a_marketable_price_fills_at_the_quote() -> None:
    b = book()
    b.on_quote(quote(1))
    b.submit(order(kind=OrderType.LIMIT, limit=-4), E9)
    assert kinds(b.replace("a", E9, limit_price_e9=P + 5 * TICK)) == ["REPLACED", "FILL"]


def test_replace_below_what_is_filled_is_refused() -> None:
    b = book()
    b.on_quote(quote(1, ask_size=2))
    b.submit(order(quantity=5), E9)
    with pytest.raises(OrderInvalid, match="more than the 2 already filled"):
        b.replace("a", E9, quantity=2)


def test_restored_order_keeps_its_filled_quantity_and_learns_the_queue_anew() -> None:
    b = book()
    b.on_quote(quote(1, bid_size=10))
    b.submit(order(kind=OrderType.LIMIT, limit=0, quantity=3), E9)
    again = book()
    again.restore(b.find("a").filled(1))
    assert again.find("a").queue_ahead is None
    again.on_quote(quote(2, bid_size=7))
    assert again.find("a").queue_ahead == 7
    assert fills(again.on_trade(trade(3, -1, 1))) == [(2, 0)]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (order(quantity=0), "quantity"),
        (order(quantity=-1), "quantity"),
        (order(kind=OrderType.LIMIT), "limit_price_e9"),
        (order(limit=1), "limit_price_e9"),
        (order(kind=OrderType.STOP), "stop_price_e9"),
        (order(kind=OrderType.STOP, stop=1, tif=TimeInForce.IOC), "time_in_force"),
    ],
)
def test_malformed_order_is_refused_with_its_field(bad: Order, field: str) -> None:
    with pytest.raises(OrderInvalid) as caught:
        book().submit(bad, E9)
    assert field in [v.field for v in caught.value.violations]


def test_price_between_ticks_is_refused_in_decimals() -> None:
    off = Order(
        order_id="a",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        quantity=1,
        limit_price_e9=P + 1,
    )
    with pytest.raises(
        OrderInvalid, match=r"limit_price_e9 is 23500\.000000001; allowed is a multiple of the tick 0\.25"
    ):
        book().submit(off, E9)


def test_id_that_is_working_is_refused() -> None:
    b = book()
    b.submit(order(), E9)
    with pytest.raises(OrderInvalid, match="order_id"):
        b.submit(order(), E9)


def test_rules_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_quote_age_ns is 0"):
        MatchingRules(max_quote_age_ns=0)
