"""What a server tells of an order that a person has settled: nothing is booked twice, and what differs is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce, UpdateReason
from minhos_mesh.dtc.ledger import Listing, OrderLedger
from minhos_mesh.dtc.order_state import SETTLED, OrderState, TrackedOrder, UpdateKind
from minhos_mesh.dtc.reports import FillReport, OrderReport
from minhos_mesh.dtc.settled import beyond, contracts, disagreement, totals

TICK = 250_000_000
P = 23_500_000_000_000
SYMBOL = "NQZ26-CME"
NOW = 1_000

Told = tuple[tuple[int, int], ...]
"""Executions of (contracts, ticks from `P`)."""


def executions(told: Told, prefix: str = "x", server_id: str = "s-a") -> tuple[FillReport, ...]:
    return tuple(
        FillReport(
            execution_id=f"{prefix}{number}", server_order_id=server_id, symbol=SYMBOL, side=BuySell.BUY,
            quantity=quantity, price_e9=P + price * TICK, on_grid=True, time_ns=NOW,
        )
        for number, (quantity, price) in enumerate(told, 1)
    )  # fmt: skip


def settled(told: Told, *, quantity: int = 4, answered: bool = True) -> OrderLedger:
    """A ledger with one order that a person has settled so."""
    known = TrackedOrder(
        client_order_id="a", symbol=SYMBOL, side=BuySell.BUY, order_type=OrderType.MARKET, quantity=quantity,
        submitted_ns=NOW, state=OrderState.UNKNOWN, server_order_ids=("s-a",) if answered else (),
    )  # fmt: skip
    ledger = OrderLedger([known])
    ledger.settle("a", executions(told, SETTLED, ""), OrderState.CANCELED, "settled by ann: seen")
    return ledger


def now(ledger: OrderLedger) -> TrackedOrder:
    known = ledger.get("a")
    assert known is not None
    return known


def listed(*fills: FillReport, ours: bool = False) -> Listing:
    return Listing(open_orders=(), fills=fills, fills_from_ns=0, account_is_ours=ours)


def report(fill: FillReport | None, total: int | None, status: OrderStatus) -> OrderReport:
    return OrderReport(
        status=status, reason=UpdateReason.ORDER_FILLED if fill else UpdateReason.GENERAL_ORDER_UPDATE,
        server_order_id="s-a", previous_server_order_id="", client_order_id="a", symbol=SYMBOL, account="Sim1",
        side=BuySell.BUY, order_type=OrderType.MARKET, time_in_force=TimeInForce.DAY, quantity=4, filled_quantity=total,
        limit_price_e9=None, stop_price_e9=None, fill=fill, text="", time_ns=NOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "server", "extra", "says"),
    [
        (((2, 1),), ((2, 1),), 0, ""),
        (((2, 1),), ((1, 1), (1, 1)), 0, ""),
        (((1, 1), (1, 2)), ((1, 2), (1, 1)), 0, ""),
        (((2, 1),), ((2, 3),), 0, "told 2 @ 23500.25, and the server tells 2 @ 23500.75"),
        (((2, 1),), ((1, 1),), 0, "told 2 @ 23500.25, and the server tells 1 @ 23500.25"),
        (((1, 1),), ((1, 1), (1, 2)), 1, "booked is the word of the person, and beside it 1 @ 23500.50"),
        (((1, 1),), ((1, 2), (1, 1)), 1, "beside it 1 @ 23500.50"),
        (((1, 1),), ((3, 1),), 2, "told 1 @ 23500.25, and the server tells 3 @ 23500.25"),
        ((), ((1, 2),), 1, "told no fill, and the server tells 1 @ 23500.50"),
    ],
)
def test_list_of_the_server_is_compared_with_the_word_of_a_person(
    word: Told, server: Told, extra: int, says: str
) -> None:
    ledger = settled(word)
    before = now(ledger).fills
    ledger.reconcile(listed(*executions(server)))
    known = now(ledger)
    assert known.fills[: len(before)] == before, "what was booked stays as it was told"
    assert contracts(known.fills) == contracts(before) + extra
    assert says in known.disputed
    assert bool(known.disputed) == bool(says)
    assert ledger.reconcile(listed(*executions(server))) == (), "told once"


@pytest.mark.parametrize("total", [2, None])
def test_update_of_the_server_is_compared_as_it_comes(total: int | None) -> None:
    ledger = settled(((2, 1),), quantity=2)
    (fill,) = executions(((2, 3),))
    told = ledger.report(report(fill, total, OrderStatus.FILLED if total is None else OrderStatus.CANCELED))
    assert [update.kind for update in told] == [UpdateKind.DISPUTED]
    assert "told 2 @ 23500.25, and the server tells 2 @ 23500.75" in now(ledger).disputed
    assert contracts(now(ledger).fills) == 2


def test_server_that_counts_fewer_contracts_in_the_end_is_told() -> None:
    ledger = settled(((2, 1),))
    assert ledger.report(report(None, 2, OrderStatus.CANCELED)) == ()
    ledger.report(report(None, 1, OrderStatus.CANCELED))
    assert "told 2 @ 23500.25, and the server tells 1 contracts" in now(ledger).disputed


def test_same_execution_under_another_id_is_not_heard_twice() -> None:
    ledger = settled(((1, 1),))
    first, again = executions(((1, 2),)), executions(((1, 2),), "other")
    ledger.report(report(first[0], 1, OrderStatus.CANCELED))
    told = ledger.report(report(again[0], 1, OrderStatus.CANCELED))
    assert [update.kind for update in told] == [UpdateKind.CONTRADICTION]
    assert (contracts(now(ledger).fills), contracts(now(ledger).heard)) == (1, 1)


def test_dispute_ends_with_the_word_of_a_person_and_comes_again_only_with_other_values() -> None:
    ledger = settled(((2, 1),))
    ledger.reconcile(listed(*executions(((2, 3),))))
    assert [update.kind for update in ledger.confirm("a")] == [UpdateKind.DISPUTED]
    assert (now(ledger).disputed, contracts(now(ledger).fills)) == ("", 2)
    assert ledger.reconcile(listed(*executions(((2, 3),)))) == ()
    ledger.reconcile(listed(*executions(((2, 3), (1, 5)))))
    assert "1 @ 23501.25" in now(ledger).disputed


def test_order_that_the_server_never_answered_is_found_by_its_fills() -> None:
    ledger = settled(((2, 1),), answered=False)
    ledger.reconcile(listed(*executions(((1, 1), (1, 1)), "h", "s-9")))
    assert (now(ledger).disputed, now(ledger).server_order_ids) == ("", ("s-9",))
    assert contracts(now(ledger).fills) == 2


@pytest.mark.parametrize("ours", [True, False])
def test_fill_that_is_nowhere_in_the_list_is_told_with_those_that_may_be_meant(ours: bool) -> None:
    ledger = settled(((1, 1),), quantity=1, answered=False)
    other = executions(((1, 4),), "h", "s-9")
    ledger.reconcile(listed(*other, ours=ours))
    assert now(ledger).disputed == (
        "a person has told 1 @ 23500.25, and the server lists no such fill,"
        " but of orders that nobody knows 1 @ 23501.00 (s-9)"
    )
    assert contracts(now(ledger).fills) == 1
    late = replace(executions(((1, 1),), "late", "s-10")[0], time_ns=NOW + 5)
    ledger.reconcile(listed(*other, late, ours=ours))
    assert now(ledger).disputed == "", "the server tells the same after all"


def test_fills_of_others_say_nothing_of_an_order_that_never_arrived() -> None:
    ledger = settled((), answered=False)
    assert ledger.reconcile(listed(*executions(((1, 4),), "h", "s-9"))) == ()
    ledger.reconcile(listed(*executions(((1, 4),), "h", "s-9"), ours=True))
    assert (
        "told no fill, and the server lists no such fill, but of orders that nobody knows 1 @" in now(ledger).disputed
    )


def test_list_that_was_asked_for_before_the_fill_says_nothing() -> None:
    ledger = settled(((1, 1),), answered=False)
    assert ledger.reconcile(replace(listed(), asked_ns=NOW - 1)) == ()


TOLD = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), max_size=4).map(tuple)


@given(TOLD, TOLD)
def test_booked_is_never_less_than_either_has_told_and_nothing_of_the_same_price_twice(
    word: Told, server: Told
) -> None:
    person, told, numbers = executions(word, SETTLED, ""), executions(server), count()
    booked: tuple[FillReport, ...] = ()
    for heard in range(1, len(told) + 1):
        booked += beyond(person, told[:heard], booked)
        assert next(numbers) < len(told)
    everything = contracts(person) + contracts(booked)
    assert everything == max(contracts(person), contracts(told))
    assert not totals(booked) - (totals(told) - totals(person)), "only contracts that the person has not told"
    agree = Counter(totals(person)) == totals(told)
    assert (disagreement(person, told, contracts(told), booked) == "") == agree
