"""What a request id, a version, a replacement and a signal by hand are held to at the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.trading_engine_peers import E9, PRICE_E9, REPLAY, SYMBOL, Peers, Stubs, quote, signal, terms, until

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb2
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_mesh.runtime.errors import CallError, read

LIMIT_E9 = PRICE_E9 - 10 * E9
WORKING, CANCELED, DENIED = (
    order_pb2.ORDER_STATE_WORKING,
    order_pb2.ORDER_STATE_CANCELED,
    order_pb2.ORDER_STATE_DENIED,
)
HALTED, REDUCING = control_pb2.TRADING_STATE_HALTED, control_pb2.TRADING_STATE_REDUCING


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with Peers(tmp_path) as made:
        yield made


@pytest.fixture
async def engine(peers: Peers) -> AsyncIterator[Stubs]:
    async with peers.engine() as running:
        yield running


async def refusal(call: Any) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read(caught.value)


async def place(engine: Stubs, request_id: str = "r-1", *, reduce_only: bool = False, **more: Any) -> order_pb2.Order:
    request = orders_pb2.PlaceOrderRequest(
        request_id=request_id, terms=terms(**more), actor="ann", reduce_only=reduce_only
    )
    order: order_pb2.Order = (await engine.orders.PlaceOrder(request)).order
    return order


async def reaches(engine: Stubs, order_id: str, state: Any) -> order_pb2.Order:
    async def look() -> order_pb2.Order | None:
        order = (await engine.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=order_id))).order
        return order if order.state == state else None

    found: order_pb2.Order = await until(look)
    return found


async def resting(peers: Peers, engine: Stubs, *, quantity: int = 3, request_id: str = "r-1") -> str:
    peers.venue.on_submit = "rest"
    order = await place(engine, request_id, quantity=quantity, limit_e9=LIMIT_E9)
    await reaches(engine, order.order_id, WORKING)
    return order.order_id


def replacement(order_id: str, request_id: str, **what: Any) -> orders_pb2.ReplaceOrderRequest:
    return orders_pb2.ReplaceOrderRequest(order_id=order_id, request_id=request_id, actor="ann", **what)


async def replace(engine: Stubs, order_id: str, request_id: str, **what: Any) -> order_pb2.Order:
    order: order_pb2.Order = (await engine.orders.ReplaceOrder(replacement(order_id, request_id, **what))).order
    return order


async def halt(engine: Stubs, state: Any = HALTED, request_id: str = "h-1", reason: str = "lunch") -> Any:
    request = control_pb2.HaltRequest(request_id=request_id, state=state, actor="ann", reason=reason)
    return (await engine.control.Halt(request)).status


async def status_of(engine: Stubs) -> control_pb2.TradingStatus:
    status: control_pb2.TradingStatus = (
        await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())
    ).status
    return status


# Replacing.


async def test_several_replacements_each_ask_risk_anew_about_the_whole_order(peers: Peers, engine: Stubs) -> None:
    order_id = await resting(peers, engine)
    for number, quantity in enumerate((4, 5, 2), start=1):
        assert (await replace(engine, order_id, f"c-{number}", quantity=quantity)).terms.quantity == quantity
    asked = peers.risk.questions[1:]
    assert [(question.terms.quantity, question.replaces, question.order_id) for question in asked] == [
        (4, True, order_id),
        (5, True, order_id),
        (2, True, order_id),
    ]
    assert len({question.request_id for question in asked}) == 3
    assert [question.account.working_buy[SYMBOL] for question in asked] == [3, 4, 5]


async def test_risk_is_asked_about_the_whole_order_with_what_is_filled(peers: Peers, engine: Stubs) -> None:
    order_id = await resting(peers, engine)
    peers.venue.fill(order_id, 1)
    await reaches(engine, order_id, order_pb2.ORDER_STATE_PARTIALLY_FILLED)
    await replace(engine, order_id, "c-1", quantity=5)
    question = peers.risk.questions[-1]
    assert (question.terms.quantity, question.account.working_buy[SYMBOL]) == (5, 2)
    told = await refusal(replace(engine, order_id, "c-2", quantity=1))
    assert (told.metadata["field"], told.metadata["seen"], told.metadata["allowed"]) == ("quantity", "1", "at least 2")


async def test_a_repeated_replacement_changes_nothing_more_over_a_restart_too(peers: Peers) -> None:
    async with peers.engine() as engine:
        order_id = await resting(peers, engine)
        await replace(engine, order_id, "c-1", quantity=4)
        await replace(engine, order_id, "c-2", quantity=5)
        assert (await replace(engine, order_id, "c-1", quantity=4)).terms.quantity == 5
        told = await refusal(replace(engine, order_id, "c-1", quantity=6))
        assert (told.code, told.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ERROR_REASON_REQUEST_CONFLICT")
    async with peers.engine() as engine:
        assert (await replace(engine, order_id, "c-1", quantity=4)).terms.quantity == 5
        assert (await refusal(replace(engine, order_id, "c-2", quantity=4))).reason == "ERROR_REASON_REQUEST_CONFLICT"
        assert (await place(engine, quantity=3, limit_e9=LIMIT_E9)).order_id == order_id
        again = await refusal(place(engine, quantity=5, limit_e9=LIMIT_E9))
        assert again.reason == "ERROR_REASON_REQUEST_CONFLICT"
    assert len(peers.venue.replacements) == 2


async def test_a_refused_replacement_is_refused_again_with_the_same_words_over_a_restart_too(peers: Peers) -> None:
    async with peers.engine() as engine:
        order_id = await resting(peers, engine)
        peers.risk.approve = False
        first = await refusal(replace(engine, order_id, "c-1", quantity=4))
        assert (first.reason, first.metadata["checks"]) == ("ERROR_REASON_RISK_REFUSED", "POSITION_LIMIT")
    peers.risk.approve = True
    async with peers.engine() as engine:
        second = await refusal(replace(engine, order_id, "c-1", quantity=4))
        assert (second.message, second.metadata) == (first.message, first.metadata)
        assert (await replace(engine, order_id, "c-2", quantity=4)).terms.quantity == 4
    assert len(peers.risk.questions) == 3


async def test_two_of_the_same_replacement_at_once_change_it_once(peers: Peers, engine: Stubs) -> None:
    order_id = await resting(peers, engine)
    answers = await asyncio.gather(*(replace(engine, order_id, "c-1", quantity=4) for _ in range(5)))
    assert {answer.order_id for answer in answers} == {order_id}
    assert (len(peers.venue.replacements), len(peers.risk.questions)) == (1, 2)


async def test_a_conflict_at_risk_or_venue_is_a_conflict_and_never_unavailable(peers: Peers, engine: Stubs) -> None:
    order_id = await resting(peers, engine)
    peers.risk.conflicts = True
    told = await refusal(replace(engine, order_id, "c-1", quantity=4))
    assert (told.code, told.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ERROR_REASON_REQUEST_CONFLICT")
    denied = await place(engine, "r-2")
    assert (denied.state, denied.reason) == (DENIED, order_pb2.ORDER_REASON_RISK_REFUSED)
    peers.risk.conflicts = False
    peers.venue.on_submit = "conflict"
    told = await refusal(replace(engine, order_id, "c-2", quantity=4))
    assert (told.code, told.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ERROR_REASON_REQUEST_CONFLICT")
    order = await reaches(engine, order_id, WORKING)
    assert order.terms.quantity == 3


async def test_without_an_answer_of_risk_nothing_changes_and_the_same_request_may_be_repeated(
    peers: Peers, engine: Stubs
) -> None:
    order_id = await resting(peers, engine)
    peers.risk.hold.clear()
    told = await refusal(engine.orders.ReplaceOrder(replacement(order_id, "c-1", quantity=4), timeout=5))
    assert told.code is grpc.StatusCode.UNAVAILABLE
    peers.risk.hold.set()
    assert (await replace(engine, order_id, "c-1", quantity=4)).terms.quantity == 4


@pytest.mark.parametrize("state", [HALTED, REDUCING])
async def test_while_halted_or_reducing_a_replacement_may_only_lower_the_quantity(
    peers: Peers, engine: Stubs, state: Any
) -> None:
    order_id = await resting(peers, engine)
    await halt(engine, state)
    for number, what in enumerate(({"quantity": 4}, {"limit_price_e9": LIMIT_E9 + E9})):
        told = await refusal(replace(engine, order_id, f"c-{number}", **what))
        assert told.reason == "ERROR_REASON_TRADING_HALTED"
        assert told.metadata["state"] == control_pb2.TradingState.Name(state).removeprefix("TRADING_STATE_")
    both = await refusal(replace(engine, order_id, "c-3", quantity=2, limit_price_e9=LIMIT_E9 + E9))
    assert both.reason == "ERROR_REASON_TRADING_HALTED"
    assert (await replace(engine, order_id, "c-4", quantity=2)).terms.quantity == 2


async def test_while_reducing_an_order_that_reduces_may_be_changed_up_to_what_is_held(
    peers: Peers, engine: Stubs
) -> None:
    bought = await place(engine, "r-0", quantity=3)
    await reaches(engine, bought.order_id, order_pb2.ORDER_STATE_FILLED)
    peers.venue.on_submit = "rest"
    closing = await place(engine, "r-1", quantity=2, buy=False, limit_e9=PRICE_E9 + 10 * E9)
    await reaches(engine, closing.order_id, WORKING)
    await halt(engine, REDUCING)
    assert (await replace(engine, closing.order_id, "c-1", quantity=3)).terms.quantity == 3
    assert (await replace(engine, closing.order_id, "c-2", limit_price_e9=PRICE_E9 + 5 * E9)).state == WORKING
    assert (await refusal(replace(engine, closing.order_id, "c-3", quantity=4))).reason == (
        "ERROR_REASON_TRADING_HALTED"
    )


async def test_a_reduce_only_order_cannot_be_changed_into_more_than_a_reduction(peers: Peers, engine: Stubs) -> None:
    bought = await place(engine, "r-0", quantity=3)
    await reaches(engine, bought.order_id, order_pb2.ORDER_STATE_FILLED)
    peers.venue.on_submit = "rest"
    closing = await place(engine, "r-1", quantity=2, buy=False, reduce_only=True, limit_e9=PRICE_E9 + 10 * E9)
    await reaches(engine, closing.order_id, WORKING)
    told = await refusal(replace(engine, closing.order_id, "c-1", quantity=4))
    assert (told.reason, dict(told.metadata)) == ("ERROR_REASON_NOT_REDUCING", {"quantity": "4", "allowed": "3"})


# Orders.


async def test_reduce_only_is_part_of_what_a_request_asks_for(peers: Peers, engine: Stubs) -> None:
    bought = await place(engine, "r-0", quantity=3)
    await reaches(engine, bought.order_id, order_pb2.ORDER_STATE_FILLED)
    first = await place(engine, "r-1", buy=False, reduce_only=True)
    assert (await place(engine, "r-1", buy=False, reduce_only=True)).order_id == first.order_id
    assert (await refusal(place(engine, "r-1", buy=False))).reason == "ERROR_REASON_REQUEST_CONFLICT"


async def test_while_reducing_a_reduce_only_order_that_does_not_reduce_is_halted_trading(engine: Stubs) -> None:
    await halt(engine, REDUCING)
    told = await refusal(place(engine, reduce_only=True))
    assert (told.reason, told.metadata["state"]) == ("ERROR_REASON_TRADING_HALTED", "REDUCING")


@pytest.mark.parametrize(("flatten", "words"), [(None, "cancelled by ann"), (False, "cancelled by the emergency stop")])
async def test_a_canceled_order_is_returned_as_it_is_and_says_who_cancelled_it(
    peers: Peers, engine: Stubs, flatten: bool | None, words: str
) -> None:
    order_id = await resting(peers, engine)
    request = orders_pb2.CancelOrderRequest(order_id=order_id, actor="ann")
    if flatten is None:
        await engine.orders.CancelOrder(request)
    else:
        await engine.control.EmergencyStop(control_pb2.EmergencyStopRequest(actor="bob", reason="smoke"))
    canceled = await reaches(engine, order_id, CANCELED)
    assert (await engine.orders.CancelOrder(request)).order == canceled
    assert canceled.reason_message == words


async def test_a_denied_order_cannot_be_cancelled(peers: Peers, engine: Stubs) -> None:
    peers.risk.approve = False
    order = await place(engine)
    request = orders_pb2.CancelOrderRequest(order_id=order.order_id, actor="ann")
    told = await refusal(engine.orders.CancelOrder(request))
    assert (told.reason, told.metadata["state"]) == ("ERROR_REASON_ORDER_STATE", "DENIED")


@pytest.mark.parametrize("field", ["limit_price_e9", "stop_price_e9"])
@pytest.mark.parametrize("price_e9", [0, -1, 10**15 + 1, 2**63 - 1, -(2**63)])
async def test_prices_that_no_market_has_are_refused_by_rule(engine: Stubs, field: str, price_e9: int) -> None:
    asked = terms(limit_e9=LIMIT_E9)
    setattr(asked, field, price_e9)
    request = orders_pb2.PlaceOrderRequest(request_id="r", terms=asked, actor="ann")
    told = await refusal(engine.orders.PlaceOrder(request))
    assert (told.reason, told.violations[0].field) == ("ERROR_REASON_INVALID_FIELD", f"terms.{field}")
    told = await refusal(replace(engine, "o", "c", **{field: price_e9}))
    assert (told.reason, told.violations[0].field) == ("ERROR_REASON_INVALID_FIELD", field)


async def test_the_largest_order_there_is_goes_all_the_way_or_is_refused_by_rule(peers: Peers, engine: Stubs) -> None:
    peers.market.quote = quote(1, price_e9=10**15)
    told = await refusal(place(engine, quantity=10_000))
    assert (told.reason, told.metadata["field"]) == ("ERROR_REASON_INVALID_FIELD", "terms.quantity")
    most = int(told.metadata["allowed"].removeprefix("1 to "))
    peers.venue.price_e9 = 10**15
    states = set()
    for number in range(25):
        order = await place(engine, f"r-{number}", quantity=most)
        if order.state != DENIED:
            await reaches(engine, order.order_id, order_pb2.ORDER_STATE_FILLED)
        states.add(order.state)
    assert DENIED in states
    held = (await engine.trading.GetPositions(engine_pb2.GetPositionsRequest())).positions[0]
    assert held.cost_e9 == held.quantity * 10**15 > 9 * 10**18
    await engine.trading.GetPerformanceMetrics(engine_pb2.GetPerformanceMetricsRequest())


async def test_the_oldest_and_the_newest_time_there_is_break_nothing(engine: Stubs) -> None:
    for seconds in (-(2**63), 2**63 - 1):
        request = engine_pb2.GetPerformanceMetricsRequest()
        request.since_time.seconds = seconds
        assert (await engine.trading.GetPerformanceMetrics(request)).metrics.fills == 0


async def test_page_tokens_are_opaque_and_bound_to_their_list(peers: Peers, engine: Stubs) -> None:
    for number in range(3):
        order = await place(engine, f"r-{number}")
        await reaches(engine, order.order_id, order_pb2.ORDER_STATE_FILLED)
    page = await engine.orders.ListOrders(orders_pb2.ListOrdersRequest(page_size=2))
    assert not page.next_page_token.isdigit()
    other = orders_pb2.ListOrdersRequest(page_token=page.next_page_token, symbol=SYMBOL)
    assert (await refusal(engine.orders.ListOrders(other))).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"
    fills = engine_pb2.ListFillsRequest(page_token=page.next_page_token)
    assert (await refusal(engine.trading.ListFills(fills))).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"
    watch = engine.orders.WatchOrders(orders_pb2.WatchOrdersRequest(after_revision=page.revision))
    await place(engine, "r-3")
    assert (await watch.read()).order.request_id == "r-3"
    watch.cancel()


async def test_symbol_filters_that_are_no_symbol_are_refused(engine: Stubs) -> None:
    told = await refusal(engine.orders.ListOrders(orders_pb2.ListOrdersRequest(symbol="")))
    assert told.reason == "ERROR_REASON_INVALID_FIELD"
    told = await refusal(engine.trading.ListFills(engine_pb2.ListFillsRequest(symbol="NQ Z26")))
    assert told.reason == "ERROR_REASON_INVALID_FIELD"


# Signals by hand.


def execution(request_id: str = "e-1", **changes: Any) -> engine_pb2.ExecuteTradeRequest:
    return engine_pb2.ExecuteTradeRequest(request_id=request_id, signal=signal(1, **changes), actor="ann", quantity=1)


@pytest.mark.parametrize(
    ("which", "field"), [("decision", "signal.decision_time"), ("quote", "signal.quote.event_time")]
)
@pytest.mark.parametrize("offset", [-60, 60])
async def test_a_signal_out_of_its_time_is_not_executed(
    peers: Peers, engine: Stubs, which: str, field: str, offset: int
) -> None:
    request = execution()
    time = request.signal.decision_time if which == "decision" else request.signal.quote.event_time
    time.FromSeconds(int(datetime.now(UTC).timestamp()) + offset)
    told = await refusal(engine.trading.ExecuteTrade(request))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_DATA_INSUFFICIENT")
    assert (told.metadata["field"], told.metadata["allowed"]) == (field, "-1 s to 10 s")
    assert float(told.metadata["age"].removesuffix(" s")) == pytest.approx(-offset, abs=5)
    assert peers.risk.questions == []


async def test_an_executed_signal_may_be_repeated_when_it_is_old_and_is_bound_to_its_content(
    peers: Peers, engine: Stubs
) -> None:
    order = (await engine.trading.ExecuteTrade(execution())).order
    old = execution()
    old.signal.decision_time.FromSeconds(1_790_000_000)
    assert (await engine.trading.ExecuteTrade(old)).order.order_id == order.order_id
    for other in (execution(buy=False), execution()):
        other.quantity = 2
        assert (await refusal(engine.trading.ExecuteTrade(other))).reason == "ERROR_REASON_REQUEST_CONFLICT"
    unsized = execution("e-2")
    unsized.ClearField("quantity")
    first = (await engine.trading.ExecuteTrade(unsized)).order
    peers.state.change(order_quantity=3)
    assert (await engine.trading.ExecuteTrade(unsized)).order.order_id == first.order_id
    assert (await refusal(place(engine, "e-1"))).reason == "ERROR_REASON_REQUEST_CONFLICT"


async def test_a_quote_of_another_symbol_is_refused(engine: Stubs) -> None:
    request = execution()
    request.signal.quote.symbol = "ESZ26-CME"
    told = await refusal(engine.trading.ExecuteTrade(request))
    assert (told.reason, told.metadata["field"]) == ("ERROR_REASON_INVALID_FIELD", "signal.quote.symbol")


@pytest.mark.parametrize("provenance", [REPLAY, provenance_pb2.PROVENANCE_LIVE])
async def test_a_signal_on_other_data_than_the_markets_is_refused(peers: Peers, engine: Stubs, provenance: Any) -> None:
    told = await refusal(engine.trading.ExecuteTrade(execution(provenance=provenance)))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_PROVENANCE_REFUSED")
    assert told.metadata["allowed"] == "SIMULATED"
    assert peers.risk.questions == []


async def test_in_a_replay_the_age_of_a_signal_is_not_judged(peers: Peers) -> None:
    peers.venue.provenance = REPLAY
    peers.market.quote = quote(1, provenance=REPLAY)
    async with peers.engine(provenance="REPLAY") as engine:
        request = execution(provenance=REPLAY, seconds=1_600_000_100)
        assert (await engine.trading.ExecuteTrade(request)).order.state != DENIED


# Control.


async def test_the_mode_does_not_overwrite_why_trading_is_halted(engine: Stubs) -> None:
    await halt(engine)
    mode = control_pb2.SetTradingModeRequest(
        request_id="m-1", mode=control_pb2.TRADING_MODE_MANUAL, actor="bob", reason="watching"
    )
    status = (await engine.control.SetTradingMode(mode)).status
    assert (status.state_reason, status.state_actor) == ("lunch", "ann")
    assert (status.mode_reason, status.mode_actor) == ("watching", "bob")
    assert status.HasField("state_time")
    assert status.HasField("mode_time")


async def test_a_call_that_changes_nothing_bumps_no_version_and_tells_no_event(peers: Peers, engine: Stubs) -> None:
    first = await halt(engine, request_id="h-1")
    second = await halt(engine, request_id="h-2", reason="dinner")
    assert (second.version, second.state_reason) == (first.version, "lunch")
    await engine.control.Resume(control_pb2.ResumeRequest(request_id="s-1", actor="ann"))
    told = await until(lambda: [t.status.state for t in peers.bus.told("trading_state.changed")][1:])
    assert told in ([HALTED, control_pb2.TRADING_STATE_ACTIVE], [HALTED])


async def test_a_late_retry_of_a_resume_does_not_end_a_later_halt(peers: Peers) -> None:
    resume = control_pb2.ResumeRequest(request_id="s-1", actor="ann")
    async with peers.engine() as engine:
        await halt(engine, request_id="h-1")
        first = (await engine.control.Resume(resume)).status
        await halt(engine, request_id="h-2", reason="fire")
        assert (await engine.control.Resume(resume)).status == first
        assert (await status_of(engine)).state_reason == "fire"
    async with peers.engine() as engine:
        again = (await engine.control.Resume(resume)).status
        assert (again.version, again.state) == (first.version, control_pb2.TRADING_STATE_ACTIVE)
        assert (await status_of(engine)).state == HALTED
        told = await refusal(halt(engine, REDUCING, "h-2"))
        assert (told.code, told.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ERROR_REASON_REQUEST_CONFLICT")


async def test_a_retried_clearing_gives_the_first_answer_and_never_clears_a_later_stop(engine: Stubs) -> None:
    stop = control_pb2.EmergencyStopRequest(actor="ann", reason="smoke")
    await engine.control.EmergencyStop(stop)
    clear = control_pb2.ClearEmergencyStopRequest(request_id="c-1", actor="ann", reason="checked")
    first = (await engine.control.ClearEmergencyStop(clear)).status
    assert (first.state_reason, first.state_actor) == ("emergency stop cleared, not resumed yet: checked", "ann")
    assert (await engine.control.ClearEmergencyStop(clear)).status == first
    await engine.control.EmergencyStop(stop)
    assert (await engine.control.ClearEmergencyStop(clear)).status == first
    assert (await status_of(engine)).emergency_stop.latched


async def test_a_decision_made_from_another_version_is_refused(engine: Stubs) -> None:
    version = (await status_of(engine)).version
    halted = await halt(engine)
    resume = control_pb2.ResumeRequest(request_id="s-1", actor="ann", expected_version=version)
    told = await refusal(engine.control.Resume(resume))
    assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "ERROR_REASON_VERSION_MISMATCH")
    assert dict(told.metadata) == {"expected": str(version), "current": str(halted.version)}
    resume.expected_version = halted.version
    assert (await engine.control.Resume(resume)).status.version == halted.version + 1


async def test_a_halt_to_active_is_refused_with_the_names_that_are_allowed(engine: Stubs) -> None:
    told = await refusal(halt(engine, control_pb2.TRADING_STATE_ACTIVE))
    assert (told.reason, told.metadata["seen"]) == ("ERROR_REASON_INVALID_FIELD", "TRADING_STATE_ACTIVE")
    assert told.metadata["allowed"] == "TRADING_STATE_HALTED or TRADING_STATE_REDUCING"
    assert (await halt(engine, control_pb2.TRADING_STATE_UNSPECIFIED)).state == HALTED


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("SetTradingMode", control_pb2.SetTradingModeRequest(mode=control_pb2.TRADING_MODE_MANUAL, actor="a")),
        ("Halt", control_pb2.HaltRequest(actor="a", reason="r")),
        ("Resume", control_pb2.ResumeRequest(actor="a")),
        ("ClearEmergencyStop", control_pb2.ClearEmergencyStopRequest(actor="a", reason="r")),
    ],
)
async def test_every_change_of_control_needs_a_request_id(engine: Stubs, method: str, request_: Any) -> None:
    told = await refusal(getattr(engine.control, method)(request_))
    assert (told.reason, told.metadata["field"]) == ("ERROR_REASON_INVALID_FIELD", "request_id")


async def test_trading_state_is_watched_in_the_common_envelope(engine: Stubs) -> None:
    answer = await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())
    watch = engine.control.WatchTradingState(control_pb2.WatchTradingStateRequest())
    first = await watch.read()
    assert (first.WhichOneof("update"), first.revision) == ("snapshot", answer.revision)
    await halt(engine)
    second = await watch.read()
    assert (second.status.state, second.revision) == (HALTED, first.revision + 1)
    watch.cancel()
    resumed = engine.control.WatchTradingState(control_pb2.WatchTradingStateRequest(after_revision=answer.revision))
    assert (await resumed.read()).status == second.status
    resumed.cancel()


async def test_more_than_one_order_can_carry_is_flattened_by_several(peers: Peers, engine: Stubs) -> None:
    for number in range(3):
        order = await place(engine, f"r-{number}", quantity=8_000)
        await reaches(engine, order.order_id, order_pb2.ORDER_STATE_FILLED)
    request = control_pb2.EmergencyStopRequest(actor="ann", reason="smoke", flatten=True)
    answer = await engine.control.EmergencyStop(request)
    assert sorted(order.terms.quantity for order in answer.flattening) == [4_000, 10_000, 10_000]
    assert {order.terms.side for order in answer.flattening} == {order_terms_pb2.SIDE_SELL}
    assert list(answer.unconfirmed) == []
