"""What the venue tells of an order at a DTC server, and under which id the server has it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.reports import BalanceReport, FillReport, PositionReport
from minhos_mesh.matching import OrderType, Side, TimeInForce
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.sierra_client.venue.account import ServerAccount
from minhos_mesh.sierra_client.venue.book import VenueBook
from minhos_mesh.sierra_client.venue.domain import (
    Asked,
    OrderRecord,
    check_change,
    dtc_id_of,
    tracked_of,
)
from minhos_mesh.venue.domain.errors import InvalidField
from minhos_mesh.venue.domain.orders import FillRecord, OrderReason, OrderState, Terms

SYMBOL = "NQZ26-CME"
P, TICK = 23_500_000_000_000, 250_000_000
CLIENT_IDS = st.from_regex(r"^[A-Za-z0-9_.:-]{1,64}\Z")


@given(CLIENT_IDS)
def test_every_id_has_one_that_fits_and_is_always_the_same(client_id: str) -> None:
    made = dtc_id_of(client_id)
    assert 0 < len(made.encode()) <= 31
    assert made == dtc_id_of(client_id)
    assert (made == client_id) == (len(client_id) <= 31 and not client_id.startswith("mh."))


@given(st.sets(CLIENT_IDS, min_size=2, max_size=50))
def test_two_orders_never_have_one_id(client_ids: set[str]) -> None:
    assert len({dtc_id_of(each) for each in client_ids}) == len(client_ids)


def asked(number: int = 1, **rest: object) -> Asked:
    terms = Terms(symbol=SYMBOL, side=Side.BUY, order_type=OrderType.MARKET, quantity=5, time_in_force=TimeInForce.DAY)
    made = Asked(
        client_order_id=f"o{number}", number=number, dtc_id=f"o{number}", terms=terms, provenance=4, reduce_only=False,
        create_ns=7,
    )  # fmt: skip
    return replace(made, **rest)  # type: ignore[arg-type]  # names of fields with their values


def fill(number: int, quantity: int, price_e9: int = P) -> FillReport:
    return FillReport(
        execution_id=f"x{number}", server_order_id="S1", symbol=SYMBOL, side=BuySell.BUY, quantity=quantity,
        price_e9=price_e9, on_grid=True, time_ns=1_000 + number,
    )  # fmt: skip


def book() -> VenueBook:
    return VenueBook({SYMBOL: DEFAULT_INSTRUMENTS["NQ"]}, commission_e9=2)


def test_each_fill_is_told_before_the_order_behind_it_and_nothing_is_told_twice() -> None:
    made, one = book(), asked()
    made.note_asked(one)
    sent = tracked_of(one, SYMBOL, "Sim1", 7)
    assert [type(each) for each in made.take([sent], 8).changes] == [OrderRecord]
    filled = replace(sent, state=Tracked.FILLED, fills=(fill(1, 2), fill(2, 3, P + TICK)))
    step = made.take([filled], 9)
    assert [type(each) for each in step.changes] == [FillRecord, OrderRecord, FillRecord, OrderRecord]
    assert [each.revision for each in step.changes] == [2, 3, 4, 5]
    first, after_first, second, done = step.changes
    assert isinstance(first, FillRecord)
    assert isinstance(after_first, OrderRecord)
    assert isinstance(second, FillRecord)
    assert isinstance(done, OrderRecord)
    assert (first.fill_id, first.cumulative_quantity, second.fill_id, second.cumulative_quantity) == (
        "o1/1",
        2,
        "o1/2",
        5,
    )
    assert (after_first.state, after_first.filled_quantity) == (OrderState.WORKING, 2)
    assert (done.state, done.average_price_e9) == (OrderState.FILLED, P + 3 * TICK // 5)
    assert made.take([filled], 10).changes == ()
    held = made.positions[SYMBOL]
    assert (held.position.quantity, held.position.commission_e9, held.fills) == (5, 10, 2)


@pytest.mark.parametrize(
    ("tracked", "cancel", "time_in_force", "state", "reason"),
    [
        (Tracked.SUBMITTED, 0, TimeInForce.DAY, OrderState.PENDING, 0),
        (Tracked.WORKING, 0, TimeInForce.DAY, OrderState.WORKING, 0),
        (Tracked.UNKNOWN, 0, TimeInForce.DAY, OrderState.UNKNOWN, 0),
        (Tracked.REJECTED, 0, TimeInForce.DAY, OrderState.REJECTED, 10),
        (Tracked.CANCELED, 0, TimeInForce.DAY, OrderState.CANCELED, 10),
        (Tracked.CANCELED, 1, TimeInForce.IOC, OrderState.CANCELED, 1),
        (Tracked.CANCELED, 7, TimeInForce.DAY, OrderState.CANCELED, 7),
        (Tracked.CANCELED, 0, TimeInForce.IOC, OrderState.CANCELED, 5),
        (Tracked.CANCELED, 0, TimeInForce.FOK, OrderState.CANCELED, 4),
    ],
)
def test_state_and_reason_say_what_happened_and_whose_wish_it_was(
    tracked: Tracked, cancel: int, time_in_force: TimeInForce, state: OrderState, reason: int
) -> None:
    made = book()
    one = asked(cancel=OrderReason(cancel), terms=replace(asked().terms, time_in_force=time_in_force))
    made.note_asked(one)
    made.take([replace(tracked_of(one, SYMBOL, "Sim1", 7), state=tracked, text="words")], 8)
    record = made.orders["o1"]
    assert (record.state, record.reason) == (state, OrderReason(reason))
    assert bool(record.message) == (state not in {OrderState.PENDING, OrderState.WORKING})
    assert (record in made.open_orders()) == (not state.done)


def test_order_that_may_only_reduce_counts_what_stands_before_it_and_the_worse_of_two_words() -> None:
    made = book()
    first = asked(1, terms=replace(asked().terms, side=Side.SELL, order_type=OrderType.LIMIT, limit_price_e9=P))
    made.note_asked(first)
    made.take([replace(tracked_of(first, SYMBOL, "Sim1", 7), state=Tracked.WORKING)], 8)
    assert made.reduces(SYMBOL, Side.SELL, 3, (8,), 2)
    assert not made.reduces(SYMBOL, Side.SELL, 4, (8,), 2), "5 contracts stand before it"
    assert made.reduces(SYMBOL, Side.SELL, 4, (8,), 1), "it is itself the first"
    assert not made.reduces(SYMBOL, Side.SELL, 1, (8, 5), 2)
    assert not made.reduces(SYMBOL, Side.BUY, 1, (8,), 2)
    assert not made.reduces(SYMBOL, Side.SELL, 1, (0,), 1)


def test_limit_of_a_stop_limit_order_may_only_go_where_the_stop_takes_it() -> None:
    terms = replace(asked().terms, order_type=OrderType.STOP_LIMIT, stop_price_e9=P, limit_price_e9=P + 2 * TICK)
    check_change(terms, None, P + TICK)
    check_change(terms, P + 3 * TICK, P + TICK)
    check_change(replace(terms, stop_price_e9=None), P, None)
    for limit_e9, stop_e9 in ((P, None), (P + 2 * TICK, P + TICK)):
        with pytest.raises(InvalidField, match="the limit follows it at its distance"):
            check_change(terms, limit_e9, stop_e9)


def position(quantity: int, account: str = "Sim1") -> PositionReport:
    return PositionReport(
        symbol=SYMBOL, account=account, quantity=quantity, average_price_e9=P if quantity else None, unsolicited=True
    )


def test_account_goes_by_the_servers_word_and_knows_what_came_since() -> None:
    account = ServerAccount()
    account.settled("Sim1", [position(2)], None)
    account.booked(fill(1, 3))
    assert (account.quantity(SYMBOL), account.possible(SYMBOL), account.current) == (2, (2, 5), False)
    account.position(position(9, account="Other"))
    assert account.quantity(SYMBOL) == 2
    account.position(position(5))
    assert (account.possible(SYMBOL), account.current, account.ours[SYMBOL]) == ((5,), True, 3)
    account.position(position(0))
    assert (account.possible(SYMBOL), account.told) == ((0,), {})


def test_balance_keeps_what_the_newest_word_leaves_out() -> None:
    account = ServerAccount()
    full = BalanceReport(
        account="Sim1", currency="USD", cash_e9=5, available_e9=4, open_profit_e9=1, trading_disabled=False
    )
    account.settled("Sim1", [], full)
    account.note_balance(replace(full, currency="", cash_e9=None, available_e9=3, open_profit_e9=2))
    account.note_balance(replace(full, account="Other", cash_e9=99))
    assert account.balance is not None
    told = account.balance
    assert (told.currency, told.cash_e9, told.available_e9, told.open_profit_e9) == ("USD", 5, 3, 2)
