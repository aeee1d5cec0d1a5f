"""What holds for the matcher whatever the market and the orders do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.matching import (
    Event,
    Fill,
    MatchingBook,
    MatchingRules,
    Order,
    OrderType,
    OrderUpdate,
    Quote,
    Side,
    TimeInForce,
    Trade,
    UpdateKind,
)

TICK = 250_000_000
P = 23_500_000_000_000
MAX_AGE = 50

Step = Callable[[MatchingBook, int], tuple[Event, ...]]

sides = st.sampled_from(list(Side))
ticks = st.integers(-6, 6)
sizes = st.one_of(st.none(), st.integers(0, 8))


@st.composite
def orders(draw: st.DrawFn, order_id: str, now: int) -> Order:
    kind = draw(st.sampled_from(list(OrderType)))
    stopped = kind in (OrderType.STOP, OrderType.STOP_LIMIT)
    tifs = [TimeInForce.DAY, TimeInForce.GTC] if stopped else list(TimeInForce)
    return Order(
        order_id=order_id,
        side=draw(sides),
        order_type=kind,
        time_in_force=draw(st.sampled_from(tifs)),
        quantity=draw(st.integers(1, 9)),
        limit_price_e9=P + draw(ticks) * TICK if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None,
        stop_price_e9=P + draw(ticks) * TICK if stopped else None,
        effective_ns=now + draw(st.integers(0, 20)),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[MatchingRules, list[tuple[str, int, object]]]:
    rules = MatchingRules(
        max_quote_age_ns=MAX_AGE,
        slippage_ticks=draw(st.integers(0, 2)),
        walk_ticks=draw(st.integers(0, 2)),
        size_when_not_shown=draw(st.integers(1, 4)),
        commission_per_contract_e9=draw(st.integers(0, 3)),
    )
    steps: list[tuple[str, int, object]] = []
    now = 0
    for number in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 1, 5, 60]))
        what = draw(st.sampled_from(["quote", "quote", "trade", "order", "order", "cancel", "session"]))
        if what == "quote":
            bid = draw(ticks)
            ask = bid + draw(st.integers(1, 4))
            shown = Quote(
                time_ns=now, bid_e9=P + bid * TICK, ask_e9=P + ask * TICK, bid_size=draw(sizes), ask_size=draw(sizes)
            )
            steps.append((what, now, shown))
        elif what == "trade":
            seen = Trade(time_ns=now, price_e9=P + draw(ticks) * TICK, size=draw(st.integers(1, 9)))
            steps.append((what, now, seen))
        elif what == "order":
            steps.append((what, now, draw(orders(f"o{number}", now))))
        elif what == "cancel":
            steps.append((what, now, draw(st.integers(0, 3))))
        else:
            steps.append((what, now, draw(st.booleans())))
    return rules, steps


def play(rules: MatchingRules, steps: list[tuple[str, int, object]]) -> list[tuple[bool, Event]]:
    """Run a history and return every event with whether the session was open when it was written."""
    book = MatchingBook(TICK, rules)
    told: list[tuple[bool, Event]] = []
    for _, now, what in steps:
        open_before = book.session_open
        events: tuple[Event, ...] = ()
        if isinstance(what, Quote):
            events = book.on_quote(what)
        elif isinstance(what, Trade):
            events = book.on_trade(what)
        elif isinstance(what, Order):
            events = book.submit(what, now)
        elif isinstance(what, bool):
            events = () if what else book.close_session(now)
            if what:
                book.open_session()
        elif isinstance(what, int) and book.working():
            events = book.cancel(book.working()[what % len(book.working())].order.order_id, now)
        told.extend((open_before, event) for event in events)
    return told


@settings(max_examples=400)
@given(histories())
def test_filled_never_exceeds_ordered_cumulative_is_monotone_and_nothing_fills_after_the_end(
    history: tuple[MatchingRules, list[tuple[str, int, object]]],
) -> None:
    rules, steps = history
    ordered = {o.order_id: o for _, _, o in steps if isinstance(o, Order)}
    filled: dict[str, int] = defaultdict(int)
    ended: set[str] = set()
    for session_open, event in play(rules, steps):
        assert event.order_id not in ended
        if isinstance(event, Fill):
            order = ordered[event.order_id]
            filled[event.order_id] += event.quantity
            assert session_open
            assert event.quantity > 0
            assert event.cumulative_quantity == filled[event.order_id] <= order.quantity
            assert event.leaves_quantity == order.quantity - event.cumulative_quantity
            assert event.commission_e9 == event.quantity * rules.commission_per_contract_e9
            assert event.price_e9 % TICK == 0
            if event.leaves_quantity == 0:
                ended.add(event.order_id)
        elif event.kind in (UpdateKind.CANCELED, UpdateKind.EXPIRED, UpdateKind.REJECTED):
            assert event.cumulative_quantity == filled[event.order_id] < event.quantity
            ended.add(event.order_id)


@settings(max_examples=400)
@given(histories())
def test_no_fill_is_worse_than_its_limit_or_before_its_effective_time(
    history: tuple[MatchingRules, list[tuple[str, int, object]]],
) -> None:
    rules, steps = history
    ordered = {o.order_id: o for _, _, o in steps if isinstance(o, Order)}
    for _, event in play(rules, steps):
        if isinstance(event, Fill):
            order = ordered[event.order_id]
            assert event.time_ns >= order.effective_ns
            if order.limit_price_e9 is not None:
                assert int(order.side) * event.price_e9 <= int(order.side) * order.limit_price_e9
            if order.time_in_force is TimeInForce.FOK:
                assert not event.maker


@settings(max_examples=300)
@given(histories())
def test_takers_of_one_quote_never_take_more_than_it_shows(
    history: tuple[MatchingRules, list[tuple[str, int, object]]],
) -> None:
    rules, steps = history
    quotes = [q for _, _, q in steps if isinstance(q, Quote)]
    shown = sum((q.ask_size if q.ask_size is not None else rules.size_when_not_shown) for q in quotes)
    taken = sum(e.quantity for _, e in play(rules, steps) if isinstance(e, Fill) and not e.maker and e.side is Side.BUY)
    assert taken <= shown * (rules.walk_ticks + 1)


@settings(max_examples=200)
@given(histories())
def test_fok_is_filled_whole_or_not_at_all(history: tuple[MatchingRules, list[tuple[str, int, object]]]) -> None:
    rules, steps = history
    told = [event for _, event in play(rules, steps)]
    for _, _, order in steps:
        if isinstance(order, Order) and order.time_in_force is TimeInForce.FOK:
            quantity = sum(e.quantity for e in told if isinstance(e, Fill) and e.order_id == order.order_id)
            assert quantity in (0, order.quantity)


@settings(max_examples=200)
@given(histories())
def test_the_same_history_gives_the_same_events(history: tuple[MatchingRules, list[tuple[str, int, object]]]) -> None:
    assert play(*history) == play(*history)


@settings(max_examples=200)
@given(histories())
def test_every_order_gets_exactly_one_first_answer(
    history: tuple[MatchingRules, list[tuple[str, int, object]]],
) -> None:
    told = [event for _, event in play(*history)]
    for _, _, order in history[1]:
        if isinstance(order, Order):
            own = [e for e in told if e.order_id == order.order_id]
            first = own[0]
            assert isinstance(first, OrderUpdate)
            assert first.kind in (UpdateKind.ACCEPTED, UpdateKind.REJECTED)
            assert [e for e in own[1:] if isinstance(e, OrderUpdate) and e.kind is UpdateKind.ACCEPTED] == []
