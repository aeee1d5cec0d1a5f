"""What decisions remember: reservations, rate, repetition, breaker, contradiction, and exact repetition in a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.matching import OrderType, Side
from minhos_mesh.risk_manager.domain.breaker import Breaker, reset, trip
from minhos_mesh.risk_manager.domain.daily import day_of
from minhos_mesh.risk_manager.domain.desk import Decision, RiskDesk
from minhos_mesh.risk_manager.domain.errors import BreakerNotTripped, InvalidField, VersionMismatch
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches
from minhos_mesh.risk_manager.domain.metrics import measure
from minhos_mesh.risk_manager.domain.projection import OrderFact, Projection, TradeFact
from minhos_mesh.risk_manager.domain.question import AccountView, CheckCode, Evidence, Held, Provenance, Question
from minhos_mesh.risk_manager.domain.recent import Stage
from minhos_mesh.risk_manager.domain.sizing import SizeBound, position_size
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.runtime.money import MoneyError
from minhos_mesh.venue.domain.orders import Terms

E9 = 1_000_000_000
NQ = "NQZ26-CME"
P = 25_000 * E9
NOW = 1_795_000_000 * E9
FREE = Stage(Provenance.UNSPECIFIED, 0)
Ask = Callable[..., Question]
MakeDesk = Callable[..., RiskDesk]


def refused(desk: RiskDesk, question: Question, now_ns: int = NOW) -> set[CheckCode]:
    return {check.code for check in settled(desk, question, now_ns).verdict.checks if not check.passed}


def settled(desk: RiskDesk, question: Question, now_ns: int = NOW) -> Decision:
    """Decide and take in, as the service does once it is written down."""
    decision = desk.decide(question, now_ns)
    desk.apply(decision, now_ns)
    return decision


def fact(order_id: str, *, live: bool = False, done: bool = False, leaves: int = 3, version: int = 1) -> OrderFact:
    return OrderFact(
        order_id=order_id, symbol=NQ, side=Side.BUY, leaves_quantity=leaves, live=live, done=done, version=version
    )


def trade(version: int, quantity: int, *, realized_e9: int = 0) -> TradeFact:
    return TradeFact(
        fill_id=f"f-{version}",
        symbol=NQ,
        held=Held(quantity=quantity, cost_e9=quantity * P),
        realized_e9=realized_e9,
        commission_e9=0,
        version=version,
        time_ns=NOW,
    )


def test_two_questions_at_once_cannot_pass_one_limit(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert settled(desk, ask("a", quantity=3), NOW).reservation is not None
    assert refused(desk, ask("b", quantity=4)) == {CheckCode.POSITION_LIMIT}
    assert refused(desk, ask("c", quantity=2)) == set()


def test_dry_run_holds_nothing(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    decision = settled(desk, ask("a", quantity=3, dry_run=True), NOW)
    assert decision.verdict.approved
    assert decision.verdict.approval_id == ""
    assert refused(desk, ask("b", quantity=3)) == set()


def test_only_a_dry_run_is_answered_without_the_account(ask: Ask, make_desk: MakeDesk) -> None:
    with pytest.raises(InvalidField, match="account is unset"):
        make_desk().decide(ask(account=None), NOW)
    assert make_desk().decide(ask(account=None, dry_run=True), NOW).verdict.approved


def test_refused_order_holds_nothing(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert refused(desk, ask("a", quantity=6))
    assert len(desk.reservations) == 0


def test_approval_that_is_not_used_expires(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3), NOW)
    assert refused(desk, ask("b", quantity=4, at_ns=NOW + 9 * E9), NOW + 9 * E9)
    later = NOW + 11 * E9
    assert refused(desk, ask("c", quantity=4, at_ns=later), later) == set()


def test_done_order_releases_and_live_order_keeps_counting(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3), NOW)
    for change in (fact("a", live=True), fact("a", done=True, leaves=3, version=2)):
        desk.projection.book_order(change)
        desk.reservations.see(change)
        expected = {CheckCode.POSITION_LIMIT} if change.live else set()
        assert refused(desk, ask("b", quantity=4, dry_run=True)) == expected


def test_order_that_the_asker_counts_is_not_counted_twice(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3), NOW)
    view = AccountView(working_buy={NQ: 3}, working_order_ids=frozenset({"a"}))
    assert refused(desk, ask("b", quantity=2, account=view)) == set()


def test_later_view_of_the_asker_supersedes_an_approval_that_it_contains(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3), NOW)
    view = AccountView(positions={NQ: Held(quantity=3, cost_e9=3 * P)}, version=1)
    assert refused(desk, ask("b", quantity=2, account=view)) == set()


def test_order_rate_counts_approved_orders_of_the_last_minute(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk(max_orders_per_minute=2, max_position=50)
    assert not refused(desk, ask("a"), NOW)
    assert not refused(desk, ask("b", at_ns=NOW + 2 * E9), NOW + 2 * E9)
    assert refused(desk, ask("c", at_ns=NOW + 59 * E9), NOW + 59 * E9) == {CheckCode.ORDER_RATE}
    assert not refused(desk, ask("d", at_ns=NOW + 60 * E9), NOW + 60 * E9)


def test_same_order_within_a_second_is_a_duplicate(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a"), NOW)
    assert refused(desk, ask("b")) == {CheckCode.DUPLICATE}
    assert refused(desk, ask("c", quantity=2)) == set()
    assert refused(desk, ask("d", at_ns=NOW + E9), NOW + E9) == set()


def test_order_id_under_another_request_id_is_a_duplicate(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a"), NOW)
    assert refused(desk, ask("b", quantity=2, order_id="a")) == {CheckCode.DUPLICATE}


def lose(desk: RiskDesk, version: int, realized_e9: int) -> AccountView:
    """Publish a loss, and return the view that agrees with it."""
    desk.projection.book_trade(trade(version, 0, realized_e9=realized_e9))
    return AccountView(realized_today_e9=desk.projection.realized_today_e9, version=version)


def test_loss_beyond_120_percent_trips_the_breaker_for_good(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert refused(desk, ask("a", account=lose(desk, 1, -1_200 * E9))) == {CheckCode.DAILY_LOSS}
    decision = settled(desk, ask("b", account=lose(desk, 2, -1 * E9)), NOW)
    assert decision.tripped is not None
    assert "1201.00, more than 120 % of its limit 1000.00" in decision.tripped.reason
    assert CheckCode.BREAKER in refused(desk, ask("c", account=AccountView(version=2)))


def test_claims_of_an_asker_never_trip_the_breaker_nor_raise_the_peak(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    for number, claim_e9 in enumerate((10**18, -(10**18))):
        settled(desk, ask(f"q-{number}", account=AccountView(realized_today_e9=claim_e9, version=number)))
    huge = {NQ: Held(quantity=100_000, cost_e9=-(9 * 10**18))}
    assert CheckCode.ACCOUNT_VIEW in refused(desk, ask("q-2", account=AccountView(positions=huge)))
    assert not desk.breaker.tripped
    assert all(peak.peak_e9 == 0 for peak in desk.peaks.values())
    assert refused(desk, ask("honest", quantity=2, at_ns=NOW + 2 * E9), NOW + 2 * E9) == set()


def test_replayed_question_trips_only_where_the_mesh_replays_and_nothing_is_contradicted(
    ask: Ask, make_desk: MakeDesk
) -> None:
    lost = AccountView(realized_today_e9=-5_000 * E9)
    for replay, contradicted, trips in ((True, False, True), (True, True, False), (False, False, False)):
        desk = make_desk(replay=replay)
        if contradicted:
            desk.projection.book_trade(trade(1, 1))
        settled(desk, replayed(ask, "a", 0, account=lost), NOW)
        assert desk.breaker.tripped is trips


def test_product_beyond_int64_is_kept_as_the_largest_there_is(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(replace(trade(1, 9 * 10**18), held=Held(quantity=9 * 10**18, cost_e9=-(9 * 10**18))))
    desk.prices[NQ] = Evidence(event_time_ns=NOW, last_e9=P, provenance=Provenance.SIMULATED)
    peak = desk.watch_own_loss(NOW).peak
    assert peak is not None
    assert peak.peak_e9 == 2**63 - 1
    metrics = measure(desk, FREE, NOW)
    assert (metrics.exposure_e9, metrics.unrealized_e9) == (2**63 - 1, 2**63 - 1)


def test_dry_run_never_trips_the_breaker(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    lost = AccountView(realized_today_e9=-5_000 * E9)
    assert settled(desk, ask("a", account=lost, dry_run=True), NOW).tripped is None
    assert not desk.breaker.tripped


def test_breaker_trips_by_published_facts_alone(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(1, 1, realized_e9=-1_000 * E9))
    price = Evidence(event_time_ns=NOW, last_e9=P - 9 * E9, provenance=Provenance.SIMULATED)
    desk.prices[NQ] = price
    assert desk.watch_own_loss(NOW).tripped is None
    desk.prices[NQ] = replace(price, last_e9=P - 11 * E9)
    assert desk.watch_own_loss(NOW).tripped is not None
    assert not desk.breaker.tripped


def test_history_that_is_told_again_is_no_price(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(1, 1))
    now = Evidence(event_time_ns=NOW, last_e9=P, provenance=Provenance.SIMULATED, sequence=900, epoch=7)
    desk.take_price(NQ, now, NOW)
    again = replace(now, event_time_ns=NOW - 86_400 * E9, last_e9=P - 400 * E9, sequence=1, epoch=8)
    desk.take_price(NQ, again, NOW + E9)
    assert desk.price_of(NQ) == P
    assert desk.watch_own_loss(NOW + E9).tripped is None
    desk.take_price(NQ, replace(again, event_time_ns=NOW + E9), NOW + E9)
    assert desk.watch_own_loss(NOW + E9).tripped is not None


def test_no_loss_is_judged_by_a_price_that_was_old_when_it_was_heard(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(1, 1))
    for away in (-400, 400):
        price = Evidence(event_time_ns=NOW - 3_600 * E9, last_e9=P + away * E9, provenance=Provenance.SIMULATED)
        desk.take_price(NQ, price, NOW)
        day = desk.watch_own_loss(NOW)
        assert (day.tripped, day.peak) == (None, None)
        assert desk.price_of(NQ) == P + away * E9


def test_a_feed_that_stopped_keeps_its_last_price_for_the_loss_of_the_day(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(1, 1))
    desk.take_price(NQ, Evidence(event_time_ns=NOW, last_e9=P - 11 * E9, provenance=Provenance.SIMULATED), NOW)
    desk.projection.book_trade(trade(2, 1, realized_e9=-1_000 * E9))
    assert desk.watch_own_loss(NOW + 600 * E9).tripped is not None


def test_a_recording_may_go_back_in_time(make_desk: MakeDesk) -> None:
    desk = make_desk(replay=True)
    price = Evidence(event_time_ns=NOW, last_e9=P, provenance=Provenance.REPLAY)
    desk.take_price(NQ, price, NOW)
    desk.take_price(NQ, replace(price, event_time_ns=NOW - E9, last_e9=P + E9), NOW)
    assert desk.price_of(NQ) == P + E9


def test_breaker_keeps_its_first_reason_and_is_reset_only_by_a_person_with_a_reason() -> None:
    tripped = trip(Breaker(), "ann", "first", NOW)
    assert trip(tripped, "bob", "second", NOW + 1) is tripped
    for actor, reason in (("", "why"), ("ann", " "), ("risk_manager", "why")):
        with pytest.raises(InvalidField):
            reset(tripped, actor, reason)
    assert reset(tripped, "ann", "looked at it") == Breaker()
    with pytest.raises(BreakerNotTripped):
        reset(Breaker(), "ann", "why")


def test_drawdown_is_measured_from_the_highest_profit_of_the_day(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk(max_drawdown_e9=500 * E9)
    refused(desk, ask("a", account=lose(desk, 1, 400 * E9)))
    assert refused(desk, ask("b", quantity=2, account=lose(desk, 2, -500 * E9))) == set()
    deeper = lose(desk, 3, -E9)
    assert refused(desk, ask("c", quantity=1, at_ns=NOW + 2 * E9, account=deeper), NOW + 2 * E9) == {CheckCode.DRAWDOWN}
    tomorrow = NOW + 86_400 * E9
    fresh = replace(deeper, realized_today_e9=0)
    assert refused(desk, ask("d", at_ns=tomorrow, account=fresh), tomorrow) == set()


def test_day_begins_at_midnight_utc() -> None:
    midnight = NOW // (86_400 * E9) * 86_400 * E9
    assert day_of(midnight - 1) < day_of(midnight) == day_of(midnight + 86_400 * E9 - 1)
    projection = Projection()
    projection.book_trade(replace(trade(1, 0, realized_e9=-7 * E9), time_ns=midnight - 1))
    assert projection.realized_on_e9(day_of(midnight - 1)) == -7 * E9
    assert projection.realized_on_e9(day_of(midnight)) == 0
    projection.book_trade(replace(trade(2, 0, realized_e9=-2 * E9), time_ns=midnight))
    assert projection.realized_on_e9(day_of(midnight)) == -2 * E9


def working(desk: RiskDesk, total: int, *, filled: int = 0, version: int = 1) -> None:
    """Let the order `a` work with a quantity, as its events tell."""
    change = OrderFact(
        order_id="a", symbol=NQ, side=Side.BUY, leaves_quantity=total - filled, live=True, done=False, version=version,
        filled_quantity=filled,
    )  # fmt: skip
    desk.projection.book_order(change)
    desk.reservations.see(change)


@pytest.mark.parametrize("counts_it", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_replaced_order_is_not_counted_twice(ask: Ask, make_desk: MakeDesk, counts_it: bool, told: bool) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3))
    if told:
        working(desk, 3)
    view = AccountView(working_buy={NQ: 3}, working_order_ids=frozenset({"a"})) if counts_it else AccountView()
    change = {"order_id": "a", "replaces": True, "account": view, "order_type": OrderType.LIMIT, "limit_price_e9": P}
    assert refused(desk, ask("r-1", quantity=6, dry_run=True, **change)) == {
        CheckCode.POSITION_LIMIT,
        CheckCode.QUANTITY,
    }
    assert refused(desk, ask("r-2", quantity=5, **change)) == set()
    (reservation,) = desk.reservations.open(NOW)
    assert (reservation.order_id, reservation.quantity, reservation.added) == ("a", 5, 2)
    assert CheckCode.POSITION_LIMIT in refused(desk, ask("b", account=view, dry_run=True))


def test_partly_filled_order_is_replaced_by_its_whole_quantity(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=3))
    working(desk, 3, filled=2)
    held = {NQ: Held(quantity=2, cost_e9=2 * P)}
    desk.projection.book_trade(trade(2, 2))
    counting = AccountView(positions=held, working_buy={NQ: 1}, working_order_ids=frozenset({"a"}), version=2)
    leaving_out = AccountView(positions=held, version=2)
    for view in (counting, leaving_out):
        change = {"order_id": "a", "replaces": True, "account": view, "dry_run": True}
        assert refused(desk, ask("r-1", quantity=5, **change)) == set()
        assert CheckCode.POSITION_LIMIT in refused(desk, ask("r-2", quantity=6, **change))


def test_refused_replacement_keeps_the_reservation_and_an_approved_one_exchanges_it(
    ask: Ask, make_desk: MakeDesk
) -> None:
    desk = make_desk()
    first = settled(desk, ask("a", quantity=3)).reservation
    assert refused(desk, ask("r-1", quantity=9, order_id="a", replaces=True))
    assert desk.reservations.open(NOW) == (first,)
    second = settled(desk, ask("r-2", quantity=2, order_id="a", replaces=True)).reservation
    assert desk.reservations.open(NOW) == (second,)
    assert second is not None
    assert second.approval_id == "ap-r-2"


def test_replacement_is_no_duplicate_and_leaves_none_behind(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=2))
    assert refused(desk, ask("r-1", quantity=2, order_id="a", replaces=True)) == set()
    assert refused(desk, ask("r-2", quantity=1, order_id="a", replaces=True)) == set()
    assert refused(desk, ask("b", quantity=1)) == set()
    assert refused(desk, ask("c", quantity=1, order_id="a")) == {CheckCode.DUPLICATE}


def test_growing_replacement_is_held_until_the_order_has_its_quantity(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    settled(desk, ask("a", quantity=2))
    working(desk, 2)
    view = AccountView(working_buy={NQ: 2}, working_order_ids=frozenset({"a"}))
    settled(desk, ask("r-1", quantity=4, order_id="a", replaces=True, account=view))
    working(desk, 2, version=2)
    assert CheckCode.POSITION_LIMIT in refused(desk, ask("b", quantity=2, account=view, dry_run=True))
    working(desk, 4, version=3)
    assert desk.reservations.open(NOW) == ()
    grown = AccountView(working_buy={NQ: 4}, working_order_ids=frozenset({"a"}))
    assert refused(desk, ask("c", quantity=1, account=grown)) == set()


def test_replacement_keeps_symbol_and_side(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    working(desk, 2)
    with pytest.raises(InvalidField, match="terms.side is SELL; allowed is BUY"):
        desk.decide(ask("r", side=Side.SELL, order_id="a", replaces=True), NOW)
    with pytest.raises(InvalidField, match="terms.symbol"):
        desk.decide(ask("r", symbol="ESZ26-CME", order_id="a", replaces=True), NOW)


@pytest.mark.parametrize("state", ["STARTING", "MAINTENANCE", "OFFLINE", "ERROR"])
def test_system_that_does_not_run_lets_only_reductions_pass(ask: Ask, make_desk: MakeDesk, state: str) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(1, 2))
    view = AccountView(positions={NQ: Held(quantity=2, cost_e9=2 * P)}, version=1)
    desk.switches = Switches(trading_enabled=True, risk_enabled=True, system_state=state)
    (check,) = [c for c in desk.decide(ask("a", account=view), NOW).verdict.checks if not c.passed]
    assert check.code is CheckCode.TRADING_ENABLED
    assert f"system_state is {state}" in check.message
    assert refused(desk, ask("b", side=Side.SELL, quantity=2, account=view)) == set()
    desk.switches = Switches(trading_enabled=True, risk_enabled=True, system_state="DEGRADED")
    assert refused(desk, ask("c", account=view)) == set()


def test_contradiction_is_refused_and_being_behind_is_none(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.projection.book_trade(trade(7, 2))
    two = {NQ: Held(quantity=2, cost_e9=2 * P)}
    assert refused(desk, ask("same", account=AccountView(positions=two, version=7))) == set()
    assert refused(desk, ask("ahead", quantity=2, account=AccountView(version=8))) == set()
    assert refused(desk, ask("differs", side=Side.SELL, account=AccountView(version=7))) == {CheckCode.ACCOUNT_VIEW}
    assert CheckCode.ACCOUNT_VIEW in refused(desk, ask("old", account=AccountView(positions=two, version=6)))


def test_newer_price_known_here_is_used(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    own = Evidence(event_time_ns=NOW, last_e9=P + 5_000 * E9, provenance=Provenance.SIMULATED)
    desk.prices[NQ] = own
    limit = ask("a", order_type=OrderType.LIMIT, limit_price_e9=P, evidence_changes={"event_time_ns": NOW - E9})
    assert refused(desk, limit) == {CheckCode.PRICE_COLLAR}


def test_data_that_is_said_to_be_something_else_is_refused(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.prices[NQ] = Evidence(event_time_ns=NOW - E9, last_e9=P, provenance=Provenance.SIMULATED)
    assert refused(desk, ask(evidence_changes={"provenance": Provenance.LIVE})) == {CheckCode.PROVENANCE}


def replayed(ask: Ask, request_id: str, second: int, **changes: Any) -> Question:
    at_ns = NOW - 10**9 * E9 + second * E9
    return ask(request_id, at_ns=at_ns, evidence_changes={"provenance": Provenance.REPLAY}, **changes)


def test_replay_is_decided_by_event_time_and_the_question_alone(ask: Ask, make_desk: MakeDesk) -> None:
    answers = []
    for noisy in (False, True):
        desk = make_desk(max_orders_per_minute=2)
        told = []
        for number in range(6):
            if noisy:
                desk.prices[NQ] = Evidence(event_time_ns=NOW, last_e9=1, provenance=Provenance.REPLAY)
                desk.projection.book_order(fact(f"o-{number}", live=True, leaves=5))
            question = replayed(ask, f"q-{number}", number * 20, symbol="NQZ94-CME", quantity=3)
            told.append(settled(desk, question, NOW + number * E9).verdict)
        answers.append(told)
    assert answers[0] == answers[1]


def test_replay_needs_the_time_of_the_decision(ask: Ask, make_desk: MakeDesk) -> None:
    with pytest.raises(InvalidField, match="decision_time"):
        make_desk().decide(replace(replayed(ask, "a", 0), decision_time_ns=None), NOW)


def test_limits_change_only_from_the_expected_version(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert desk.next_version(RiskLimits(max_position=9), 1) == 2
    with pytest.raises(VersionMismatch):
        desk.next_version(RiskLimits(), 2)
    with pytest.raises(InvalidField, match="max_daily_loss_e9 is 0"):
        desk.next_version(RiskLimits(max_daily_loss_e9=0), None)
    with pytest.raises(InvalidField, match="limits.max_price_age is 0 s"):
        desk.next_version(RiskLimits(max_price_age_ns=0), None)
    with pytest.raises(InvalidField, match="max_order_quantity is 10001; allowed is at most 10000"):
        desk.next_version(RiskLimits(max_order_quantity=10_001), None)
    assert desk.limits_version == 1


def test_room_for_a_position_follows_the_side_of_the_stop() -> None:
    spec, limits = DEFAULT_INSTRUMENTS["NQ"], RiskLimits(max_order_quantity=50, max_position=5, max_exposure_e9=10**17)
    for held, stop_e9, room in ((1, P - E9, 4), (1, P + E9, 6), (-2, P - E9, 7), (-2, P + E9, 3), (9, P - E9, 0)):
        size = position_size(spec, limits, entry_e9=P, stop_e9=stop_e9, risk_e9=10**15, held=held)
        assert (size.quantity, size.bounded_by) == (room, SizeBound.POSITION)
        assert f"with {held} held" in size.message


def test_size_is_what_the_stop_may_cost() -> None:
    spec, limits = DEFAULT_INSTRUMENTS["NQ"], RiskLimits(max_order_quantity=50, max_position=50, max_exposure_e9=10**17)
    size = position_size(spec, limits, entry_e9=P, stop_e9=P - 10 * E9, risk_e9=1_000 * E9)
    assert (size.quantity, size.loss_per_contract_e9) == (5, 200 * E9)
    assert (
        position_size(spec, limits, entry_e9=P, stop_e9=P + 10 * E9, risk_e9=1_000 * E9, confidence=0.5).quantity == 2
    )
    assert position_size(spec, limits, entry_e9=P, stop_e9=P - 10 * E9, risk_e9=199 * E9).quantity == 0
    assert position_size(spec, RiskLimits(), entry_e9=P, stop_e9=P - E9, risk_e9=10**15, held=2).quantity == 3
    with pytest.raises(InvalidField, match="another price"):
        position_size(spec, limits, entry_e9=P, stop_e9=P, risk_e9=1)
    with pytest.raises(MoneyError):
        position_size(spec, limits, entry_e9=P, stop_e9=P + 1, risk_e9=1)


quantities = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(list(Side))), min_size=1, max_size=30)


@settings(max_examples=200)
@given(quantities)
def test_approvals_together_never_pass_the_position_limit(asked: list[tuple[int, Side]]) -> None:
    desk = RiskDesk(
        limits=RiskLimits(max_orders_per_minute=1_000),
        limits_version=1,
        breaker=Breaker(),
        specs=DEFAULT_INSTRUMENTS,
        approval_ns=10**12,
    )
    let = {Side.BUY: 0, Side.SELL: 0}
    for number, (quantity, side) in enumerate(asked):
        now_ns = NOW + number * E9
        evidence = Evidence(event_time_ns=now_ns, last_e9=P, provenance=Provenance.SIMULATED)
        question = Question(
            request_id=str(number),
            order_id=str(number),
            terms=Terms(symbol=NQ, side=side, order_type=OrderType.MARKET, quantity=quantity),
            dry_run=False,
            account=AccountView(),
            evidence=evidence,
            decision_time_ns=now_ns,
        )
        if settled(desk, question, now_ns).verdict.approved:
            let[side] += quantity
    assert max(let.values()) <= 5
