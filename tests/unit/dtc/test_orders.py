from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.dtc import requests
from minhos_mesh.dtc.batches import Batch
from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, UpdateReason
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.layout import Value
from minhos_mesh.dtc.ledger import Listing, OrderLedger
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.order_state import OrderState, TrackedOrder, UpdateKind, VenueUpdate, apply
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.reports import (
    FillReport,
    Market,
    OrderReport,
    balance_report,
    definition,
    historical_fill,
    order_report,
    position_report,
)
from minhos_mesh.dtc.tables.reference import (
    ACCOUNT_BALANCE_UPDATE,
    SECURITY_DEFINITION_RESPONSE,
    TRADE_ACCOUNT_RESPONSE,
)
from minhos_mesh.dtc.tables.trading import (
    CANCEL_ORDER,
    HISTORICAL_ORDER_FILL_RESPONSE,
    HISTORICAL_ORDER_FILLS_REJECT,
    ORDER_UPDATE,
    POSITION_UPDATE,
)

SYMBOL = "NQZ26-CME"
QUARTER = 250_000_000
PRICE = 23_500_250_000_000
MARKET = Market(PriceScale(QUARTER), PRICE)


def market_of(symbol: str) -> Market:
    return MARKET


def position(ledger: OrderLedger) -> int:
    """Contracts that the fills of our orders add up to; all of them buy."""
    return sum(known.filled_quantity for known in ledger.all())


def order(quantity: int = 5, client_id: str = "a", submitted_ns: int = 100) -> TrackedOrder:
    return TrackedOrder(
        client_order_id=client_id,
        symbol=SYMBOL,
        side=BuySell.BUY,
        order_type=OrderType.LIMIT,
        quantity=quantity,
        limit_price_e9=PRICE,
        submitted_ns=submitted_ns,
    )


def update(reason: UpdateReason, status: OrderStatus, **values: Value | None) -> OrderReport:
    base: dict[str, Value | None] = {
        "Symbol": SYMBOL, "ServerOrderID": "s-a", "ClientOrderID": "a", "BuySell": 1, "OrderType": 2, "OrderQuantity": 5.0,
        "OrderStatus": int(status), "OrderUpdateReason": int(reason),
    }  # fmt: skip
    return order_report(make(ORDER_UPDATE, **(base | values)), market_of)


def filled(quantity: int, total: int, execution_id: str, of: int = 5, **values: Value | None) -> OrderReport:
    whole = total == of
    reason = UpdateReason.ORDER_FILLED if whole else UpdateReason.ORDER_FILLED_PARTIALLY
    status = OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED
    told: dict[str, Value | None] = {
        "LastFillPrice": PRICE / 1e9, "LastFillQuantity": float(quantity), "FilledQuantity": float(total),
        "LastFillExecutionID": execution_id, "OrderQuantity": float(of),
    }  # fmt: skip
    return update(reason, status, **(told | values))


ACCEPTED = update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, FilledQuantity=0.0)
CANCELED = update(UpdateReason.ORDER_CANCELED, OrderStatus.CANCELED, InfoText="by its owner")


def through(*reports: OrderReport, start: TrackedOrder | None = None) -> tuple[TrackedOrder, list[VenueUpdate]]:
    ledger = OrderLedger()
    ledger.placed(start or order())
    told = [update for report in reports for update in ledger.report(report)]
    found = ledger.get("a")
    assert found is not None
    return found, told


def kinds(told: list[VenueUpdate] | tuple[VenueUpdate, ...]) -> list[UpdateKind]:
    return [update.kind for update in told]


def test_order_is_submitted_accepted_filled_in_part_and_filled() -> None:
    states = []
    known = order()
    for report in (ACCEPTED, filled(2, 2, "x1"), filled(3, 5, "x2")):
        known = apply(known, report).order
        states.append(known.state)
    assert states == [OrderState.WORKING, OrderState.PARTIALLY_FILLED, OrderState.FILLED]
    assert (known.filled_quantity, known.missing_quantity) == (5, 0)
    assert [fill.price_e9 for fill in known.fills] == [PRICE, PRICE]


def test_rejected_order_says_why() -> None:
    report = update(UpdateReason.NEW_ORDER_REJECTED, OrderStatus.REJECTED, InfoText="no margin")
    found, told = through(report)
    assert (found.state, found.text, kinds(told)) == (OrderState.REJECTED, "no margin", [UpdateKind.REJECTED])


def test_cancelled_order_keeps_what_was_filled() -> None:
    found, told = through(ACCEPTED, filled(2, 2, "x1"), CANCELED)
    assert (found.state, found.filled_quantity) == (OrderState.CANCELED, 2)
    assert kinds(told) == [UpdateKind.ACCEPTED, UpdateKind.FILLED, UpdateKind.CANCELED]


@pytest.mark.parametrize("report", [ACCEPTED, CANCELED, filled(2, 2, "x1"), filled(5, 5, "x9")])
def test_a_report_that_comes_twice_changes_nothing_and_tells_nothing(report: OrderReport) -> None:
    once, _ = through(ACCEPTED, report)
    twice, told = through(ACCEPTED, report, report)
    assert once == twice
    assert kinds(told) == kinds(through(ACCEPTED, report)[1])


def test_a_report_that_is_older_than_what_is_known_changes_nothing() -> None:
    done, told = through(
        ACCEPTED, filled(5, 5, "x1"), ACCEPTED, update(UpdateReason.GENERAL_ORDER_UPDATE, OrderStatus.PENDING_OPEN)
    )
    assert done.state is OrderState.FILLED
    assert kinds(told) == [UpdateKind.ACCEPTED, UpdateKind.FILLED]


def test_a_fill_behind_the_cancel_is_booked_all_the_same() -> None:
    found, told = through(ACCEPTED, CANCELED, filled(2, 2, "x1"))
    assert (found.state, found.filled_quantity) == (OrderState.CANCELED, 2)
    assert kinds(told)[-1] is UpdateKind.FILLED


def test_fills_in_the_wrong_order_add_up() -> None:
    found, told = through(ACCEPTED, filled(3, 5, "x2"), filled(2, 2, "x1"))
    assert (found.state, found.filled_quantity, found.missing_quantity) == (OrderState.FILLED, 5, 0)
    assert UpdateKind.FILLS_MISSING in kinds(told)


def test_filled_without_its_fills_is_not_filled_here_until_they_are_told() -> None:
    known, told = through(ACCEPTED, update(UpdateReason.GENERAL_ORDER_UPDATE, OrderStatus.FILLED, FilledQuantity=5.0))
    assert (known.state, known.missing_quantity) == (OrderState.WORKING, 5)
    assert kinds(told) == [UpdateKind.ACCEPTED, UpdateKind.FILLS_MISSING]


def test_the_same_fill_under_another_id_is_not_booked_twice() -> None:
    found, told = through(ACCEPTED, filled(2, 2, "x1"), filled(2, 2, "other"))
    assert found.filled_quantity == 2
    assert kinds(told)[-1] is UpdateKind.CONTRADICTION
    assert "the server counts 2 as filled" in told[-1].text


def test_the_same_id_with_another_price_is_a_contradiction() -> None:
    found, told = through(ACCEPTED, filled(2, 2, "x1"), filled(2, 2, "x1", LastFillPrice=1.0 + PRICE / 1e9))
    assert found.fills[0].price_e9 == PRICE
    assert kinds(told)[-1] is UpdateKind.CONTRADICTION


def test_fill_off_the_grid_is_booked_and_told() -> None:
    found, told = through(ACCEPTED, filled(2, 2, "x1", LastFillPrice=23500.333))
    assert found.fills[0].price_e9 == 23_500_333_000_000
    assert kinds(told)[-2:] == [UpdateKind.FILLED, UpdateKind.CONTRADICTION]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (UpdateReason.CANCEL_REJECTED, UpdateKind.CANCEL_REFUSED),
        (UpdateReason.CANCEL_REPLACE_REJECTED, UpdateKind.REPLACE_REFUSED),
    ],
)
def test_refused_cancel_or_change_does_not_end_a_live_order(reason: UpdateReason, kind: UpdateKind) -> None:
    known, told = through(ACCEPTED, update(reason, OrderStatus.OPEN, InfoText="too late"))
    assert (known.state, told[-1].kind, told[-1].text) == (OrderState.WORKING, kind, "too late")
    unsure, _ = through(ACCEPTED, update(reason, OrderStatus.UNSPECIFIED))
    assert unsure.state is OrderState.WORKING
    gone, _ = through(ACCEPTED, update(reason, OrderStatus.CANCELED))
    assert gone.state is OrderState.CANCELED
    strange, told = through(ACCEPTED, update(reason, OrderStatus.REJECTED, InfoText="no such order"))
    assert strange.state is OrderState.UNKNOWN
    assert kinds(told)[-2:] == [kind, UpdateKind.BECAME_UNKNOWN]


def test_change_brings_new_terms_and_perhaps_a_new_id() -> None:
    report = update(
        UpdateReason.CANCEL_REPLACE_COMPLETE, OrderStatus.OPEN, OrderQuantity=7.0, Price1=23_400.0,
        ServerOrderID="s-b", PreviousServerOrderID="s-a", ClientOrderID="",
    )  # fmt: skip
    found, told = through(ACCEPTED, report, filled(7, 7, "x1", of=7, ServerOrderID="s-b", ClientOrderID=""))
    assert (found.quantity, found.limit_price_e9, found.server_order_id) == (7, 23_400_000_000_000, "s-b")
    assert found.state is OrderState.FILLED
    assert UpdateKind.REPLACED in kinds(told)


def test_change_down_to_what_is_filled_completes_the_order() -> None:
    report = update(UpdateReason.CANCEL_REPLACE_COMPLETE, OrderStatus.OPEN, OrderQuantity=2.0, FilledQuantity=2.0)
    found, _ = through(ACCEPTED, filled(2, 2, "x1"), report)
    assert found.state is OrderState.FILLED


def test_a_fill_told_before_its_order_waits_for_it() -> None:
    ledger = OrderLedger()
    ledger.placed(order())
    assert ledger.report(filled(2, 2, "x1", ClientOrderID="")) == ()
    told = ledger.report(ACCEPTED)
    assert kinds(told) == [UpdateKind.ACCEPTED, UpdateKind.FILLED]
    assert (position(ledger), ledger.counts.not_ours) == (2, 0)


def test_orders_of_others_are_counted_and_left_alone() -> None:
    ledger = OrderLedger([order()])
    assert (
        ledger.report(update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, ServerOrderID="z", ClientOrderID="q"))
        == ()
    )
    assert (ledger.counts.not_ours, len(ledger)) == (1, 1)


def test_an_id_is_used_once() -> None:
    ledger = OrderLedger([order()])
    with pytest.raises(ValueError, match="order a was placed before"):
        ledger.placed(order())


def fill(quantity: int, execution_id: str, server_id: str = "s-a", time_ns: int = 200) -> FillReport:
    return FillReport(
        execution_id=execution_id, server_order_id=server_id, symbol=SYMBOL, side=BuySell.BUY, quantity=quantity,
        price_e9=PRICE, on_grid=True, time_ns=time_ns,
    )  # fmt: skip


def listing(*reports: OrderReport, fills: tuple[FillReport, ...] = (), since: int = 0, **positions: int) -> Listing:
    return Listing(open_orders=reports, fills=fills, fills_from_ns=since, positions={SYMBOL: 0, **positions})


LISTED = update(UpdateReason.OPEN_ORDERS_REQUEST_RESPONSE, OrderStatus.OPEN, FilledQuantity=0.0)


def broken(*reports: OrderReport) -> OrderLedger:
    ledger = OrderLedger()
    ledger.placed(order())
    for report in reports:
        ledger.report(report)
    ledger.disconnected(300)
    return ledger


def after(ledger: OrderLedger, found: Listing) -> tuple[TrackedOrder, list[UpdateKind]]:
    told = kinds(ledger.reconcile(found))
    known = ledger.get("a")
    assert known is not None
    assert ledger.reconcile(found) == ()
    return known, told


def test_unanswered_order_is_unknown_when_the_connection_breaks() -> None:
    ledger = broken()
    known = ledger.get("a")
    assert known is not None
    assert known.state is OrderState.UNKNOWN
    assert ledger.disconnected(300) == ()


def test_unknown_order_that_is_listed_works() -> None:
    known, told = after(broken(), listing(LISTED))
    assert (known.state, told) == (OrderState.WORKING, [UpdateKind.ACCEPTED])


def test_unknown_order_that_is_nowhere_was_never_taken() -> None:
    known, told = after(broken(), listing())
    assert (known.state, told) == (OrderState.REJECTED, [UpdateKind.REJECTED])
    assert "never took it" in known.text


def test_unknown_order_stays_unknown_while_a_fill_may_be_of_it() -> None:
    known, _ = after(broken(), listing(fills=(fill(5, "x1", "s-strange"),)))
    assert known.state is OrderState.UNKNOWN
    assert "may be of it" in known.text


def test_working_order_that_was_filled_meanwhile_is_filled() -> None:
    known, told = after(broken(ACCEPTED, filled(2, 2, "x1")), listing(fills=(fill(2, "x1"), fill(3, "x2"))))
    assert (known.state, known.filled_quantity, told) == (OrderState.FILLED, 5, [UpdateKind.FILLED])


def test_fills_that_a_list_names_otherwise_are_not_booked_again() -> None:
    known, _ = after(broken(ACCEPTED, filled(2, 2, "x1")), listing(fills=(fill(2, "h1"), fill(3, "h2"))))
    assert (known.state, known.filled_quantity) == (OrderState.FILLED, 5)


def test_working_order_that_is_gone_was_cancelled_with_what_was_filled() -> None:
    known, told = after(broken(ACCEPTED), listing(fills=(fill(2, "x1"),)))
    assert (known.state, known.filled_quantity) == (OrderState.CANCELED, 2)
    assert told == [UpdateKind.FILLED, UpdateKind.CANCELED]


def test_list_of_fills_that_begins_too_late_settles_nothing() -> None:
    known, _ = after(broken(ACCEPTED), listing(since=150))
    assert known.state is OrderState.UNKNOWN


def test_order_changed_at_the_server_meanwhile_is_learnt() -> None:
    changed = update(UpdateReason.OPEN_ORDERS_REQUEST_RESPONSE, OrderStatus.OPEN, OrderQuantity=9.0, Price1=23_000.0)
    known, told = after(broken(ACCEPTED), listing(changed))
    assert (known.quantity, known.limit_price_e9, told) == (9, 23_000_000_000_000, [UpdateKind.REPLACED])


def test_listed_order_with_fills_that_were_not_told_gets_them_from_the_list() -> None:
    restated = replace(LISTED, filled_quantity=2, status=OrderStatus.PARTIALLY_FILLED)
    known, told = after(broken(ACCEPTED), listing(restated, fills=(fill(2, "x1"),)))
    assert (known.state, known.missing_quantity) == (OrderState.PARTIALLY_FILLED, 0)
    assert told == [UpdateKind.FILLS_MISSING, UpdateKind.FILLED]


def settled(ledger: OrderLedger, state: OrderState, *fills: FillReport) -> tuple[TrackedOrder, list[UpdateKind]]:
    told = kinds(ledger.settle("a", fills, state, "settled by ann: seen"))
    known = ledger.get("a")
    assert known is not None
    return known, told


def of_a_person(quantity: int, number: int = 1) -> FillReport:
    return fill(quantity, f"settled:word:{number}", "", 5_000_000_000_000)


@pytest.mark.parametrize(
    ("fills", "state", "becomes"),
    [
        ((of_a_person(5),), OrderState.CANCELED, OrderState.FILLED),
        ((of_a_person(2), of_a_person(3, 2)), OrderState.CANCELED, OrderState.FILLED),
        ((of_a_person(2),), OrderState.CANCELED, OrderState.CANCELED),
        ((), OrderState.CANCELED, OrderState.CANCELED),
        ((), OrderState.REJECTED, OrderState.REJECTED),
    ],
)
def test_unknown_order_ends_by_the_word_of_a_person(
    fills: tuple[FillReport, ...], state: OrderState, becomes: OrderState
) -> None:
    ledger = broken()
    known, told = settled(ledger, state, *fills)
    assert (known.state, known.filled_quantity, known.settled) == (becomes, sum(f.quantity for f in fills), True)
    assert told.count(UpdateKind.FILLED) == len(fills)
    assert ledger.take_changed()[-1] == known
    assert set(kinds(ledger.reconcile(listing()))) <= {UpdateKind.DISPUTED}, (
        "what a person has settled is not settled again"
    )


def test_fill_that_a_person_has_told_is_not_booked_again_when_the_server_lists_it() -> None:
    ledger = broken(ACCEPTED)
    ledger.reconcile(listing(since=150))
    known, _ = settled(ledger, OrderState.CANCELED, of_a_person(2), of_a_person(3, 2))
    assert known.state is OrderState.FILLED
    assert ledger.reconcile(listing(fills=(fill(2, "h1"), fill(3, "h2")))) == ()


def test_fill_that_a_person_has_told_of_one_order_is_given_to_no_other() -> None:
    ledger = broken()
    ledger.placed(order(client_id="b"))
    ledger.disconnected(300)
    settled(ledger, OrderState.CANCELED, of_a_person(5))
    found = replace(listing(fills=(fill(5, "h1", "s-strange"),)), account_is_ours=True)
    ledger.reconcile(found)
    other = ledger.get("b")
    assert other is not None
    assert (other.state, other.fills) == (OrderState.REJECTED, ())


def test_order_that_works_though_a_person_has_settled_it_is_told_until_its_cancel_is_under_way() -> None:
    ledger = broken()
    settled(ledger, OrderState.CANCELED)
    assert kinds(ledger.report(LISTED)) == [UpdateKind.TURNED_UP]
    pending = update(UpdateReason.GENERAL_ORDER_UPDATE, OrderStatus.PENDING_CANCEL)
    assert ledger.report(pending) == ()
    told = kinds(ledger.report(filled(5, 5, "x1")))
    assert told == [UpdateKind.FILLED, UpdateKind.DISPUTED], "what is filled all the same is booked, and told"
    unknown = broken()
    unknown.reconcile(listing())
    assert ledger.counts.reports, "one that the server never took has no such word"
    assert unknown.report(LISTED) == ()


class Server:
    """Orders as a server has them: the truth that reports are made from."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.fills: list[FillReport] = []
        self.reports: list[OrderReport] = []
        self.listed: list[OrderReport] = []

    def live(self, known: TrackedOrder) -> None:
        server_id, client_id = f"s-{known.client_order_id}", known.client_order_id
        ids: dict[str, Value | None] = {"ServerOrderID": server_id, "ClientOrderID": client_id}
        of = float(known.quantity)
        self.reports.append(update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, OrderQuantity=of, **ids))
        total = 0
        while total < known.quantity and self.source.random() < 0.8:
            quantity = self.source.randint(1, known.quantity - total)
            total += quantity
            execution = f"{server_id}-{total}"
            self.fills.append(fill(quantity, execution, server_id, 200))
            self.reports.append(filled(quantity, total, execution, known.quantity, **(ids | {"ClientOrderID": ""})))
        if total < known.quantity and self.source.random() < 0.5:
            ended = update(UpdateReason.ORDER_CANCELED, OrderStatus.CANCELED, FilledQuantity=float(total), **ids)
            self.reports.append(ended)
        elif total < known.quantity:
            still: dict[str, Value | None] = {"OrderQuantity": of, "FilledQuantity": float(total)}
            reason = UpdateReason.OPEN_ORDERS_REQUEST_RESPONSE
            self.listed.append(update(reason, OrderStatus.OPEN, **(ids | still)))


@given(st.integers(0, 2**32))
@settings(max_examples=150)
def test_lost_doubled_and_shuffled_reports_end_in_the_same_orders_and_position_after_a_reconcile(seed: int) -> None:
    source = random.Random(seed)
    ledger, server = OrderLedger(), Server(source)
    for number in range(6):
        known = order(quantity=source.randint(1, 6), client_id=f"c{number}")
        ledger.placed(known)
        server.live(known)
    seen = [report for report in server.reports if source.random() < 0.8]
    seen += source.choices(server.reports, k=5)
    source.shuffle(seen)
    told = [update for report in seen for update in ledger.report(report)]
    told += ledger.disconnected(300)
    found = Listing(open_orders=tuple(server.listed), fills=tuple(server.fills), fills_from_ns=0)
    told += ledger.reconcile(found)
    learnt = {server_id for known in ledger.all() for server_id in known.server_order_ids}
    due = [each for each in server.fills if each.server_order_id in learnt]
    executions = [update.fill.execution_id for update in told if update.kind is UpdateKind.FILLED and update.fill]
    assert sorted(executions) == sorted(each.execution_id for each in due)
    assert position(ledger) == sum(each.quantity for each in due)
    assert UpdateKind.CONTRADICTION not in kinds(told)
    listed = {report.client_order_id for report in found.open_orders}
    for known in ledger.all():
        traded = any(each.server_order_id == f"s-{known.client_order_id}" for each in server.fills)
        if known.client_order_id in listed:
            assert known.state in {OrderState.WORKING, OrderState.PARTIALLY_FILLED}
        elif traded and not known.server_order_ids:
            assert known.state is OrderState.UNKNOWN
        elif known.server_order_ids:
            assert known.state is (
                OrderState.FILLED if known.filled_quantity == known.quantity else OrderState.CANCELED
            )
    assert ledger.reconcile(found) == ()


def test_stop_limit_and_stop_prices_are_told_apart() -> None:
    both = update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, OrderType=4, Price1=23_600.0, Price2=23_601.25)
    stop = update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, OrderType=3, Price1=23_600.0)
    limit = update(UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN, OrderType=2, Price1=23_600.0)
    assert (both.stop_price_e9, both.limit_price_e9) == (23_600_000_000_000, 23_601_250_000_000)
    assert (stop.stop_price_e9, stop.limit_price_e9) == (23_600_000_000_000, None)
    assert (limit.stop_price_e9, limit.limit_price_e9) == (None, 23_600_000_000_000)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("OrderStatus", 77),
        ("OrderUpdateReason", -1),
        ("OrderQuantity", 1.5),
        ("Price1", 1e20),
        ("LatestTransactionDateTime", -5.0),
    ],
)
def test_value_that_means_nothing_is_refused_by_name(member: str, value: float) -> None:
    with pytest.raises(ValueUnreadable, match=member):
        update(UpdateReason.GENERAL_ORDER_UPDATE, OrderStatus.OPEN, **{member: value})


def test_update_of_a_fill_without_quantity_or_price_is_refused() -> None:
    with pytest.raises(ValueUnreadable, match="LastFillQuantity"):
        update(UpdateReason.ORDER_FILLED, OrderStatus.FILLED)


def test_fill_without_an_id_gets_one_that_repeats() -> None:
    first, second = (filled(2, 2, "") for _ in range(2))
    assert first.fill == second.fill
    assert first.fill is not None
    assert first.fill.execution_id


def historical(**values: Value | None) -> Message:
    base: dict[str, Value | None] = {
        "Symbol": SYMBOL, "ServerOrderID": "s-a", "BuySell": 2, "Price": 23_500.25, "Quantity": 3.0,
        "DateTime": 1_621_443_600, "UniqueExecutionID": "x1",
    }  # fmt: skip
    return make(HISTORICAL_ORDER_FILL_RESPONSE, **(base | values))


def test_historical_fill_is_read_exactly() -> None:
    found = historical_fill(historical(), market_of)
    assert (found.quantity, found.price_e9, found.side, found.execution_id) == (3, PRICE, BuySell.SELL, "x1")
    assert found.time_ns == 1_621_443_600_000_000_000
    with pytest.raises(ValueUnreadable):
        historical_fill(historical(Quantity=0.0), market_of)


def test_position_is_signed_and_a_flat_one_has_no_price() -> None:
    short = position_report(make(POSITION_UPDATE, Symbol=SYMBOL, Quantity=-2.0, AveragePrice=23_500.25), market_of)
    flat = position_report(make(POSITION_UPDATE, Symbol=SYMBOL), market_of)
    assert short is not None
    assert flat is not None
    assert (short.quantity, short.average_price_e9) == (-2, PRICE)
    assert (flat.quantity, flat.average_price_e9) == (0, None)
    assert position_report(make(POSITION_UPDATE, NoPositions=1), market_of) is None


def test_balance_is_exact_money() -> None:
    found = balance_report(
        make(ACCOUNT_BALANCE_UPDATE, CashBalance=99_999.1, AccountCurrency="USD", TradingIsDisabled=1)
    )
    assert found is not None
    assert (found.cash_e9, found.currency, found.trading_disabled) == (99_999_100_000_000, "USD", True)
    assert balance_report(make(ACCOUNT_BALANCE_UPDATE, NoAccountBalances=1)) is None


def test_definition_gives_tick_and_multiplier_exactly() -> None:
    message = make(
        SECURITY_DEFINITION_RESPONSE, Symbol=SYMBOL, MinPriceIncrement=0.25, CurrencyValuePerIncrement=5.0,
        DisplayPriceMultiplier=0.009999999776482582,
    )  # fmt: skip
    found = definition(message)
    assert (found.tick_e9, found.multiplier, found.value_per_tick_e9) == (QUARTER, Fraction(1, 100), 5_000_000_000)
    assert found.scale(1).tick_e9 == QUARTER
    assert replace(found, tick_e9=None).scale(7).tick_e9 == 7


def test_order_is_sent_in_the_prices_that_people_see() -> None:
    message = requests.submit(order())
    assert (message.number("Price1"), message.number("Quantity"), message.integer("OrderType")) == (23_500.25, 5.0, 2)
    both = replace(order(), order_type=OrderType.STOP_LIMIT, stop_price_e9=PRICE + QUARTER)
    message = requests.submit(both)
    assert (message.number("Price1"), message.number("Price2")) == (23_500.5, 23_500.25)
    stop = replace(order(), order_type=OrderType.STOP, stop_price_e9=PRICE, limit_price_e9=None)
    assert requests.submit(stop).number("Price1") == 23_500.25
    market = replace(order(), order_type=OrderType.MARKET, limit_price_e9=None)
    assert requests.submit(market).number("Price1") == 0.0


def test_cancel_and_change_name_both_ids_and_only_what_changes() -> None:
    with pytest.raises(ValueError, match="order a has no id of the server yet"):
        requests.cancel(order())
    known = replace(order(), server_order_ids=("s-a", "s-b"))
    assert requests.cancel(known) == make(CANCEL_ORDER, ServerOrderID="s-b", ClientOrderID="a")
    quantity = requests.replace(known, quantity=7)
    assert (quantity.number("Quantity"), quantity.flag("Price1IsSet"), quantity.flag("Price2IsSet")) == (
        7.0,
        False,
        False,
    )
    price = requests.replace(known, limit_price_e9=PRICE)
    assert (price.number("Price1"), price.flag("Price1IsSet"), price.number("Quantity")) == (23_500.25, True, 0.0)
    both = requests.replace(replace(known, order_type=OrderType.STOP_LIMIT), limit_price_e9=PRICE)
    assert (both.flag("Price1IsSet"), both.flag("Price2IsSet"), both.number("Price2")) == (False, True, 23_500.25)


def test_answer_in_several_messages_is_complete_with_its_last_one() -> None:
    batch = Batch(ORDER_UPDATE, 7)
    parts = [make(ORDER_UPDATE, RequestID=7, TotalNumMessages=2, MessageNumber=number) for number in (1, 2)]
    stranger = make(ORDER_UPDATE, RequestID=0, TotalNumMessages=1, MessageNumber=1)
    assert [batch.take(part) for part in (parts[0], stranger, parts[1], parts[1])] == [True, False, True, False]
    assert (batch.complete, batch.messages, batch.refused) == (True, parts, None)
    accounts = Batch(TRADE_ACCOUNT_RESPONSE, 1)
    assert accounts.take(make(TRADE_ACCOUNT_RESPONSE, RequestID=1, TotalNumberMessages=1, MessageNumber=1))
    assert accounts.complete


def test_empty_and_refused_answers_are_complete() -> None:
    empty = Batch(POSITION_UPDATE, 3)
    assert empty.take(make(POSITION_UPDATE, RequestID=3, NoPositions=1))
    assert (empty.complete, empty.messages) == (True, [])
    refused = Batch(HISTORICAL_ORDER_FILL_RESPONSE, 4)
    assert not refused.take(make(HISTORICAL_ORDER_FILLS_REJECT, RequestID=5))
    assert refused.take(make(HISTORICAL_ORDER_FILLS_REJECT, RequestID=4, RejectText="TradeAccount is not set"))
    assert (refused.complete, refused.refused) == (True, "TradeAccount is not set")


def test_order_that_may_still_be_on_its_way_is_not_given_up() -> None:
    ledger = broken()
    known, _ = after(ledger, replace(listing(), asked_ns=1_000))
    assert known.state is OrderState.UNKNOWN
    assert "on its way" in known.text
    known, _ = after(ledger, replace(listing(), asked_ns=10_000_000_000))
    assert known.state is OrderState.REJECTED


def test_check_in_mid_session_settles_only_the_orders_it_is_about() -> None:
    ledger = broken(ACCEPTED)
    assert ledger.reconcile(listing(), concerned=()) == ()
    assert kinds(ledger.reconcile(listing(), concerned={"a"})) == [UpdateKind.CANCELED]
    assert ledger.knows("s-a", "")
    assert ledger.knows("", "a")
    assert not ledger.knows("", "b")


def test_on_an_account_of_our_own_a_strange_fill_finds_the_one_order_that_it_can_be_of() -> None:
    known, told = after(broken(), replace(listing(fills=(fill(5, "x1", "s-strange"),)), account_is_ours=True))
    assert (known.state, known.server_order_id, told) == (OrderState.FILLED, "s-strange", [UpdateKind.FILLED])
    part, _ = after(broken(), replace(listing(fills=(fill(2, "x1", "s-strange"),)), account_is_ours=True))
    assert (part.state, part.filled_quantity) == (OrderState.CANCELED, 2)


@pytest.mark.parametrize("quantity", [6, 5])
def test_strange_fill_that_cannot_be_of_an_order_or_may_be_of_two_is_given_to_none(quantity: int) -> None:
    ledger = OrderLedger()
    ledger.placed(order())
    ledger.placed(order(client_id="b"))
    ledger.disconnected(300)
    ledger.reconcile(replace(listing(fills=(fill(quantity, "x1", "s-strange"),)), account_is_ours=True))
    assert position(ledger) == 0
    assert {known.state for known in ledger.all()} == {OrderState.UNKNOWN}


def test_listed_order_without_our_id_keeps_an_order_like_it_unknown() -> None:
    known, _ = after(broken(), listing(replace(LISTED, client_order_id="", server_order_id="s-other")))
    assert known.state is OrderState.UNKNOWN
    assert "without our id" in known.text
