"""What the venue does with orders and ticks, without disk or network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.matching import MatchingRules, OrderType, Side, TimeInForce
from minhos_mesh.paper_venue.domain.exchange import Exchange
from minhos_mesh.paper_venue.domain.orders import Change, OrderRecord
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.runtime.money import OffScale, OffTick
from minhos_mesh.runtime.tick_layout import Tick, TickKind, TradeSide
from minhos_mesh.venue.domain.errors import (
    InvalidField,
    OrderDone,
    OrderUnknown,
    ProvenanceRefused,
    RequestConflict,
    SymbolUnknown,
)
from minhos_mesh.venue.domain.orders import (
    DELAYED,
    LIVE,
    REPLAY,
    SIMULATED,
    FillRecord,
    OrderState,
    Submission,
    Terms,
)

E9 = 1_000_000_000
TICK = 250_000_000
P = 23_500 * E9
NQ = "NQZ26-CME"
MONDAY = 1_795_446_000 * E9
"""Monday 23 November 2026, 15:00 UTC: the exchange is open."""
RULES = MatchingRules(max_quote_age_ns=10 * E9, commission_per_contract_e9=2 * E9)


def exchange(provenance: int = SIMULATED) -> Exchange:
    made = Exchange({NQ: DEFAULT_INSTRUMENTS["NQ"]}, RULES, initial_cash_e9=100_000 * E9, latency_ns=50_000_000)
    made.on_epoch(NQ, 1, provenance)
    return made


def tick(sequence: int, bid: int, *, at_ns: int = MONDAY, size: int = 9, received_ns: int | None = None) -> Tick:
    received = at_ns if received_ns is None else received_ns
    quote = (P + bid * TICK, P + (bid + 1) * TICK, size, size)
    return Tick(sequence, at_ns, received, TickKind.QUOTE, None, None, TradeSide.UNSPECIFIED, *quote, 60)


def submission(client_id: str = "a", **changes: Any) -> Submission:
    known = {"provenance", "reduce_only", "decision_ns"}
    rest = {name: changes.pop(name) for name in known & set(changes)}
    terms = Terms(symbol=NQ, side=Side.BUY, order_type=OrderType.MARKET, quantity=1, time_in_force=TimeInForce.DAY)
    return Submission(
        client_order_id=client_id, terms=replace(terms, **changes), provenance=rest.pop("provenance", SIMULATED), **rest
    )


def told(changes: tuple[Change, ...]) -> list[str]:
    return [c.state.name if isinstance(c, OrderRecord) else type(c).__name__ for c in changes]


def test_each_change_has_the_next_revision() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0)], MONDAY)
    _, first = e.submit(submission("a"), MONDAY)
    _, second = e.submit(submission("b", quantity=20), MONDAY)
    assert told(first) == ["FillRecord", "FILLED"]
    assert [c.revision for c in (*first, *second)] == list(range(1, e.revision + 1))


def test_known_order_is_returned_and_other_content_is_a_conflict() -> None:
    e = exchange()
    first, _ = e.submit(submission(), MONDAY)
    assert e.submit(submission(), MONDAY) == (first, ())
    for other in (submission(quantity=2), submission(reduce_only=True)):
        with pytest.raises(RequestConflict):
            e.submit(other, MONDAY)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"symbol": "ESZ26-CME"}, SymbolUnknown),
        ({"quantity": 0}, InvalidField),
        ({"limit_price_e9": P}, InvalidField),
        ({"order_type": OrderType.LIMIT}, InvalidField),
        ({"order_type": OrderType.LIMIT, "limit_price_e9": P + 1}, OffTick),
        ({"order_type": OrderType.LIMIT, "limit_price_e9": 23_500}, OffScale),
        ({"order_type": OrderType.STOP, "stop_price_e9": P, "time_in_force": TimeInForce.FOK}, InvalidField),
        ({"provenance": LIVE}, ProvenanceRefused),
    ],
)
def test_bad_order_changes_nothing(changes: dict[str, Any], error: type[Exception]) -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0)], MONDAY)
    with pytest.raises(error):
        e.submit(submission(**changes), MONDAY)
    assert (e.orders, e.revision) == ({}, 0)


def test_ticks_take_effect_once_whatever_comes_again() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0), tick(2, 1)], MONDAY)
    e.submit(submission(order_type=OrderType.LIMIT, limit_price_e9=P), MONDAY)
    assert e.on_ticks(NQ, [tick(1, -3), tick(2, -3)], MONDAY) == ()
    assert told(e.on_ticks(NQ, [tick(2, -3), tick(3, -3)], MONDAY)) == ["FillRecord", "FILLED"]


def test_new_epoch_forgets_the_market_of_the_old_one() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(9, 0)], MONDAY)
    e.on_epoch(NQ, 2, SIMULATED)
    record, _ = e.submit(submission(), MONDAY)
    assert record.state is OrderState.WORKING
    assert told(e.on_ticks(NQ, [tick(1, 5)], MONDAY)) == ["FillRecord", "FILLED"]


def test_fill_carries_sequence_and_provenance_of_its_market() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(7, 0)], MONDAY)
    _, changes = e.submit(submission(), MONDAY)
    fill = changes[0]
    assert isinstance(fill, FillRecord)
    assert (fill.market_sequence, fill.provenance, fill.fill_id) == (7, SIMULATED, "a/1")


def test_reduce_only_order_is_cancelled_when_another_one_closed_the_position_first() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0)], MONDAY)
    e.submit(submission("open", quantity=2), MONDAY)
    resting = submission(
        "stop", side=Side.SELL, quantity=2, order_type=OrderType.STOP, stop_price_e9=P - 20 * TICK, reduce_only=True
    )
    e.submit(resting, MONDAY)
    _, changes = e.submit(submission("close", side=Side.SELL), MONDAY)
    assert told(changes) == ["FillRecord", "FILLED", "CANCELED"]
    assert e.find("stop").reason == "REDUCE_ONLY_WOULD_INCREASE"


def test_replace_changes_terms_and_keeps_what_was_asked_first() -> None:
    e = exchange()
    e.submit(submission(order_type=OrderType.LIMIT, limit_price_e9=P), MONDAY)
    record, changes = e.replace("a", MONDAY, quantity=3, limit_price_e9=P - TICK)
    assert (record.terms.quantity, record.terms.limit_price_e9, record.asked.quantity) == (3, P - TICK, 1)
    assert told(changes) == ["WORKING"]
    assert e.submit(submission(order_type=OrderType.LIMIT, limit_price_e9=P), MONDAY) == (record, ())


def test_replace_refuses_done_unknown_and_too_small() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0, size=2)], MONDAY)
    e.submit(submission("part", quantity=5), MONDAY)
    e.submit(submission("done", side=Side.SELL), MONDAY)
    with pytest.raises(OrderDone, match="2 are filled"):
        e.replace("part", MONDAY, quantity=2)
    with pytest.raises(OrderDone):
        e.replace("done", MONDAY, quantity=2)
    with pytest.raises(OrderUnknown):
        e.replace("never", MONDAY, quantity=2)
    with pytest.raises(InvalidField):
        e.replace("part", MONDAY, limit_price_e9=P)
    assert e.find("part").terms.quantity == 5


def test_day_orders_expire_when_the_session_of_live_data_ends() -> None:
    e = exchange(LIVE)
    e.submit(submission("day", order_type=OrderType.LIMIT, limit_price_e9=P, provenance=LIVE), MONDAY)
    gtc = submission(
        "gtc", order_type=OrderType.LIMIT, limit_price_e9=P, time_in_force=TimeInForce.GTC, provenance=LIVE
    )
    e.submit(gtc, MONDAY)
    assert e.on_time(MONDAY + 3_600 * E9) == ()
    assert told(e.on_time(MONDAY + 7 * 3_600 * E9)) == ["EXPIRED"]
    late, _ = e.submit(submission("late", provenance=LIVE), MONDAY + 7 * 3_600 * E9)
    assert (late.state, late.reason) == (OrderState.REJECTED, "SESSION_CLOSED")
    assert e.on_time(MONDAY + 9 * 3_600 * E9) == ()
    assert [o.client_order_id for o in e.open_orders()] == ["gtc"]


def test_simulated_data_knows_no_closed_session() -> None:
    e = exchange()
    saturday = MONDAY + 5 * 86_400 * E9
    e.on_ticks(NQ, [tick(1, 0, at_ns=saturday)], saturday)
    assert e.submit(submission(), saturday)[0].state is OrderState.FILLED


@pytest.mark.parametrize(("provenance", "filled"), [(DELAYED, True), (SIMULATED, False)])
def test_only_delayed_data_may_be_late(provenance: int, filled: bool) -> None:
    e = exchange(provenance)
    now = MONDAY + 600 * E9
    e.on_ticks(NQ, [tick(1, 0, at_ns=MONDAY, received_ns=now)], now)
    assert (e.submit(submission(), now)[0].state is OrderState.FILLED) is filled


def test_account_adds_up() -> None:
    e = exchange()
    e.on_ticks(NQ, [tick(1, 0)], MONDAY)
    e.submit(submission("a", quantity=2), MONDAY)
    e.on_ticks(NQ, [tick(2, 8)], MONDAY)
    account = e.account()
    assert account.commission_e9 == 4 * E9
    assert account.cash_e9 == 100_000 * E9 - 4 * E9
    assert e.unrealized_e9(NQ) is not None
    assert account.equity_e9 == account.cash_e9 + (e.unrealized_e9(NQ) or 0)
    e.submit(submission("b", side=Side.SELL, quantity=2), MONDAY)
    assert e.account().cash_e9 == e.account().equity_e9 == 100_000 * E9 - 8 * E9 + 2 * 7 * TICK * 20


def test_done_orders_beyond_what_is_kept_leave_memory() -> None:
    made = Exchange({NQ: DEFAULT_INSTRUMENTS["NQ"]}, RULES, initial_cash_e9=1, latency_ns=0, done_kept=3)
    made.on_epoch(NQ, 1, SIMULATED)
    made.on_ticks(NQ, [tick(1, 0)], MONDAY)
    for number in range(6):
        made.submit(submission(str(number)), MONDAY)
    assert list(made.orders) == ["3", "4", "5"]


chunks = st.lists(st.integers(1, 17), min_size=1, max_size=60)
path = st.lists(st.integers(-6, 6), min_size=60, max_size=60)


@settings(max_examples=60)
@given(path, chunks)
def test_replay_gives_the_same_changes_however_it_is_cut(bids: list[int], cuts: list[int]) -> None:
    def play(sizes: list[int]) -> list[Change]:
        e = exchange(REPLAY)
        ticks = [tick(n + 1, bid, at_ns=MONDAY + n * 10_000_000, size=2) for n, bid in enumerate(bids)]
        changes = list(e.on_ticks(NQ, ticks[:10], 0))
        for number, kind in enumerate((OrderType.MARKET, OrderType.LIMIT, OrderType.STOP)):
            limit = P - 2 * TICK if kind is OrderType.LIMIT else None
            stop = P + 3 * TICK if kind is OrderType.STOP else None
            order = submission(
                f"o{number}",
                order_type=kind,
                quantity=3,
                limit_price_e9=limit,
                stop_price_e9=stop,
                provenance=REPLAY,
                decision_ns=MONDAY + 9 * 10_000_000,
            )
            changes.extend(e.submit(order, 0)[1])
        at = 10
        for size in (*sizes, 60):
            changes.extend(e.on_ticks(NQ, ticks[at : at + size], 0))
            at += size
        return changes

    assert play(cuts) == play([60])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(list(Side)), st.integers(1, 5), st.integers(-9, 9)), max_size=20))
def test_positions_and_cash_equal_the_fills(orders: list[tuple[Side, int, int]]) -> None:
    e = exchange()
    fills: list[FillRecord] = []
    for number, (side, quantity, bid) in enumerate(orders, start=1):
        changes = e.on_ticks(NQ, [tick(number, bid)], MONDAY)
        changes += e.submit(submission(str(number), side=side, quantity=quantity), MONDAY)[1]
        fills.extend(c for c in changes if isinstance(c, FillRecord))
    held = e.positions.get(NQ)
    quantity = held.position.quantity if held is not None else 0
    assert quantity == sum(int(f.side) * f.quantity for f in fills)
    cash = sum(-int(f.side) * f.quantity * f.price_e9 for f in fills)
    cost = held.position.cost_e9 if held is not None else 0
    commission = sum(f.commission_e9 for f in fills)
    assert e.account().cash_e9 == 100_000 * E9 + (cash + cost) * 20 - commission
