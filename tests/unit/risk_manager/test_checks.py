"""Each named check: what it refuses, what it lets through, and that all of them are always evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minhos_mesh.matching import OrderType, Side
from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.checks import CHECKS
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.limits import Switches
from minhos_mesh.risk_manager.domain.question import AccountView, CheckCode, CheckResult, Held, Provenance, Question

E9 = 1_000_000_000
NQ = "NQZ26-CME"
P = 25_000 * E9
NOW = 1_795_000_000 * E9
TICK = 250_000_000
Ask = Callable[..., Question]
MakeDesk = Callable[..., RiskDesk]


def failed(desk: RiskDesk, question: Question, now_ns: int = NOW) -> dict[CheckCode, CheckResult]:
    verdict = desk.decide(question, now_ns).verdict
    assert [check.code for check in verdict.checks] == list(CheckCode)
    found = {check.code: check for check in verdict.checks if not check.passed}
    assert verdict.approved is not bool(found)
    return found


def held(quantity: int, price_e9: int = P) -> AccountView:
    return AccountView(positions={NQ: Held(quantity=quantity, cost_e9=quantity * price_e9)}, version=1)


def test_table_holds_every_check_once_in_order() -> None:
    assert [code for code, _ in CHECKS] == list(CheckCode)


def test_good_order_passes_every_check_with_observed_and_limit(ask: Ask, make_desk: MakeDesk) -> None:
    verdict = make_desk().decide(ask(), NOW).verdict
    assert verdict.approved
    assert all(check.observed and check.limit and check.message for check in verdict.checks)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"symbol": "ZZZZ26-CME"}, CheckCode.INSTRUMENT, "unknown"),
        ({"symbol": "nonsense"}, CheckCode.INSTRUMENT, "not understood"),
        ({"symbol": "VIX-CGI"}, CheckCode.INSTRUMENT, "quoted only"),
        ({"symbol": "NQH26-CME"}, CheckCode.INSTRUMENT, "expired on 2026-03-20"),
        ({"quantity": 0}, CheckCode.QUANTITY, "0 contracts is not within 1 to 5"),
        ({"quantity": 6}, CheckCode.QUANTITY, "6 contracts is not within 1 to 5"),
        ({"order_type": OrderType.LIMIT}, CheckCode.PRICE_TICK, "needs limit_price_e9"),
        ({"limit_price_e9": P}, CheckCode.PRICE_TICK, "has no limit_price_e9"),
        (
            {"order_type": OrderType.LIMIT, "limit_price_e9": P + 1},
            CheckCode.PRICE_TICK,
            "nearest are 25000.00 and 25000.25",
        ),
        ({"order_type": OrderType.LIMIT, "limit_price_e9": 25_000}, CheckCode.PRICE_TICK, "probably meant 25000.00"),
        ({"order_type": OrderType.STOP, "stop_price_e9": P + 1_001 * TICK}, CheckCode.PRICE_COLLAR, "1001 ticks"),
        (
            {"evidence_changes": {"event_time_ns": NOW - 16 * E9}},
            CheckCode.FRESH_PRICE,
            "16.0 s old; 15.0 s are allowed",
        ),
        ({"evidence_changes": {"event_time_ns": NOW + 60 * E9}}, CheckCode.FRESH_PRICE, "a clock is wrong"),
        ({"evidence_changes": {"event_time_ns": None}}, CheckCode.FRESH_PRICE, "no price"),
        ({"evidence_changes": {"last_e9": None, "bid_e9": None, "ask_e9": None}}, CheckCode.FRESH_PRICE, "no price"),
        ({"evidence_changes": {"provenance": Provenance.UNSPECIFIED}}, CheckCode.PROVENANCE, "UNSPECIFIED"),
        ({"account": held(5)}, CheckCode.POSITION_LIMIT, "could reach 6 contracts of NQZ26-CME; 5 are allowed"),
        ({"account": AccountView(working_buy={NQ: 5})}, CheckCode.POSITION_LIMIT, "could reach 6 contracts"),
        (
            {"account": AccountView(realized_today_e9=-1_001 * E9)},
            CheckCode.DAILY_LOSS,
            "1001.00 USD lost; 1000.00 USD",
        ),
        ({"account": held(1, P + 51 * E9)}, CheckCode.DAILY_LOSS, "1020.00 USD lost"),
    ],
)
def test_check_refuses_by_name_and_says_why(
    ask: Ask, make_desk: MakeDesk, changes: dict[str, Any], code: CheckCode, message: str
) -> None:
    found = failed(make_desk(), ask(**changes))
    assert code in found
    assert message in found[code].message


@pytest.mark.parametrize(
    ("limits", "changes", "code"),
    [
        ({"trading_enabled": False}, {}, CheckCode.TRADING_ENABLED),
        ({"max_exposure_e9": 499_999 * E9}, {}, CheckCode.EXPOSURE),
        (
            {"max_open_positions": 1},
            {
                "account": AccountView(
                    positions={"ESZ26-CME": Held(quantity=1, cost_e9=6_000 * E9, unrealized_e9=0)}, version=1
                )
            },
            CheckCode.OPEN_POSITIONS,
        ),
    ],
)
def test_limit_refuses(
    ask: Ask, make_desk: MakeDesk, limits: dict[str, Any], changes: dict[str, Any], code: CheckCode
) -> None:
    assert set(failed(make_desk(**limits), ask(**changes))) == {code}


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        ({}, {"quantity": 5}),
        ({}, {"account": held(4)}),
        ({}, {"order_type": OrderType.STOP, "stop_price_e9": P + 1_000 * TICK}),
        ({}, {"evidence_changes": {"event_time_ns": NOW - 15 * E9}}),
        ({}, {"account": AccountView(realized_today_e9=-1_000 * E9)}),
        ({"max_exposure_e9": 500_000 * E9}, {}),
    ],
)
def test_exactly_at_the_limit_passes(
    ask: Ask, make_desk: MakeDesk, limits: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert failed(make_desk(**limits), ask(**changes)) == {}


def test_multiplier_counts_in_profit_and_exposure(ask: Ask, make_desk: MakeDesk) -> None:
    verdict = make_desk().decide(ask(account=held(1, P + 10 * E9)), NOW).verdict
    observed = {check.code: check.observed for check in verdict.checks}
    assert observed[CheckCode.DAILY_LOSS] == "200.00 USD lost"
    assert observed[CheckCode.EXPOSURE] == "1000000.00 USD"


def test_tripped_breaker_refuses_whoever_tripped_it(ask: Ask, make_desk: MakeDesk) -> None:
    breaker = Breaker(tripped=True, reason="a test", tripped_by="ann", trip_ns=NOW)
    found = failed(make_desk(breaker), ask())
    assert set(found) == {CheckCode.BREAKER}
    assert found[CheckCode.BREAKER].message == "The breaker was tripped by ann: a test."


def test_live_venue_takes_only_live_data(ask: Ask, make_desk: MakeDesk) -> None:
    assert set(failed(make_desk(live_venue=True), ask())) == {CheckCode.PROVENANCE}
    live = ask(evidence_changes={"provenance": Provenance.LIVE})
    assert failed(make_desk(live_venue=True), live) == {}


def test_live_data_is_refused_outside_the_session(ask: Ask, make_desk: MakeDesk) -> None:
    saturday = 1_795_262_400 * E9
    closed = ask(at_ns=saturday, evidence_changes={"provenance": Provenance.LIVE})
    assert set(failed(make_desk(), closed, saturday)) == {CheckCode.SESSION}
    assert failed(make_desk(), ask(at_ns=saturday), saturday) == {}


def test_delayed_data_may_be_late_by_its_delay(ask: Ask, make_desk: MakeDesk) -> None:
    late = {"provenance": Provenance.DELAYED, "event_time_ns": NOW - 15 * 60 * E9}
    assert failed(make_desk(), ask(evidence_changes=late)) == {}


@pytest.mark.parametrize(("side", "quantity"), [(Side.SELL, 3), (Side.BUY, -3)])
def test_order_that_only_reduces_passes_what_holds_for_new_risk(
    ask: Ask, make_desk: MakeDesk, side: Side, quantity: int
) -> None:
    breaker = Breaker(tripped=True, reason="a test", tripped_by="ann", trip_ns=NOW)
    desk = make_desk(breaker, trading_enabled=False, max_order_quantity=1, max_position=1, max_exposure_e9=1)
    account = AccountView(
        positions={NQ: Held(quantity=quantity, cost_e9=quantity * P)}, realized_today_e9=-9_999 * E9, version=1
    )
    assert failed(desk, ask(side=side, quantity=3, account=account)) == {}


OFF = (
    (
        Switches(trading_enabled=False, risk_enabled=True, system_state="ONLINE"),
        "trading_enabled of the state is false",
    ),
    (Switches(trading_enabled=True, risk_enabled=False, system_state="ONLINE"), "risk_enabled of the state is false"),
    (None, "the state manager has never been heard"),
)


@pytest.mark.parametrize(("switches", "named"), OFF)
def test_state_that_does_not_enable_trading_refuses_and_names_what_is_off(
    ask: Ask, make_desk: MakeDesk, switches: Switches | None, named: str
) -> None:
    desk = make_desk()
    desk.switches = switches
    found = failed(desk, ask())
    assert set(found) == {CheckCode.TRADING_ENABLED}
    check = found[CheckCode.TRADING_ENABLED]
    assert check.message == f"Trading is switched off ({named}); only reductions pass."
    assert (check.observed, check.limit) == (f"off: {named}", "enabled")


@pytest.mark.parametrize("switches", [switches for switches, _ in OFF])
def test_reduction_passes_whatever_the_state_may_be(ask: Ask, make_desk: MakeDesk, switches: Switches | None) -> None:
    desk = make_desk()
    desk.switches = switches
    assert failed(desk, ask(side=Side.SELL, quantity=3, account=held(3))) == {}
    assert set(failed(desk, ask("q-2", side=Side.SELL, quantity=4, account=held(3)))) == {CheckCode.TRADING_ENABLED}


def test_everything_that_is_off_is_named(ask: Ask, make_desk: MakeDesk) -> None:
    desk = make_desk(trading_enabled=False)
    desk.switches = Switches(trading_enabled=False, risk_enabled=False, system_state="ONLINE")
    message = failed(desk, ask())[CheckCode.TRADING_ENABLED].message
    assert all(
        f"{name} is false" in message
        for name in ("trading_enabled of the risk limits", "trading_enabled of the state", "risk_enabled of the state")
    )


def test_order_that_would_turn_a_position_over_is_no_reduction(ask: Ask, make_desk: MakeDesk) -> None:
    found = failed(make_desk(trading_enabled=False), ask(side=Side.SELL, quantity=4, account=held(3)))
    assert set(found) == {CheckCode.TRADING_ENABLED}


def test_second_closing_order_counts_the_first_one(ask: Ask, make_desk: MakeDesk) -> None:
    account = AccountView(positions={NQ: Held(quantity=3, cost_e9=3 * P)}, working_sell={NQ: 2}, version=1)
    found = failed(make_desk(trading_enabled=False), ask(side=Side.SELL, quantity=2, account=account))
    assert CheckCode.TRADING_ENABLED in found


def test_profit_that_is_not_known_refuses_new_risk(ask: Ask, make_desk: MakeDesk) -> None:
    account = AccountView(positions={"ESZ26-CME": Held(quantity=1, cost_e9=6_000 * E9)}, version=1)
    found = failed(make_desk(), ask(account=account))
    assert "not known for ESZ26-CME" in found[CheckCode.DAILY_LOSS].message
