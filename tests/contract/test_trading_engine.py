from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.trading_engine_peers import (
    E9,
    PRICE_E9,
    REPLAY,
    SIMULATED,
    SYMBOL,
    FakeVenue,
    Peers,
    Stubs,
    signal,
    terms,
    until,
)

from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.risk.v1 import risk_limits_pb2
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb2
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb2
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb2
from minhos_mesh.runtime.errors import CallError, read
from minhos_mesh.runtime.events import make_event
from minhos_mesh.trading_engine import bootstrap

FILLED = order_pb2.ORDER_STATE_FILLED
DENIED = order_pb2.ORDER_STATE_DENIED
CANCELED = order_pb2.ORDER_STATE_CANCELED
REJECTED = order_pb2.ORDER_STATE_REJECTED
WORKING = order_pb2.ORDER_STATE_WORKING
UNKNOWN = order_pb2.ORDER_STATE_UNKNOWN
SUBMITTING = order_pb2.ORDER_STATE_SUBMITTING


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with Peers(tmp_path) as made:
        yield made


@pytest.fixture
async def engine(peers: Peers) -> AsyncIterator[Stubs]:
    async with peers.engine() as running:
        yield running


async def place(engine: Stubs, request_id: str = "r-1", **more: Any) -> order_pb2.Order:
    reduce_only = more.pop("reduce_only", False)
    request = orders_pb2.PlaceOrderRequest(
        request_id=request_id, terms=terms(**more), actor="ann", reduce_only=reduce_only
    )
    answer = await engine.orders.PlaceOrder(request)
    order: order_pb2.Order = answer.order
    return order


async def order_of(engine: Stubs, order_id: str) -> order_pb2.Order:
    order: order_pb2.Order = (await engine.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=order_id))).order
    return order


async def reaches(engine: Stubs, order_id: str, state: Any) -> order_pb2.Order:
    async def look() -> order_pb2.Order | None:
        order = await order_of(engine, order_id)
        return order if order.state == state else None

    found: order_pb2.Order = await until(look)
    return found


async def refusal(call: Any) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read(caught.value)


def fresh() -> str:
    """A request id of its own."""
    return uuid.uuid4().hex


async def set_mode(engine: Stubs, mode: Any) -> None:
    await engine.control.SetTradingMode(
        control_pb2.SetTradingModeRequest(request_id=fresh(), mode=mode, actor="ann", reason="test")
    )


async def stop(engine: Stubs, *, flatten: bool = False) -> control_pb2.EmergencyStopResponse:
    request = control_pb2.EmergencyStopRequest(actor="ann", reason="smoke", flatten=flatten)
    answer: control_pb2.EmergencyStopResponse = await engine.control.EmergencyStop(request)
    return answer


async def held(engine: Stubs) -> int:
    answer = await engine.trading.GetPositions(engine_pb2.GetPositionsRequest())
    return sum(position.quantity for position in answer.positions)


# Orders.


async def test_an_order_is_checked_sent_filled_and_told(peers: Peers, engine: Stubs) -> None:
    order = await place(engine)
    assert order.state in (SUBMITTING, WORKING, FILLED)
    assert [check.passed for check in order.checks] == [True]
    filled = await reaches(engine, order.order_id, FILLED)
    assert (filled.filled_quantity, filled.average_price_e9, filled.commission_e9) == (1, PRICE_E9, 2 * E9)
    (trade,) = await until(lambda: peers.bus.told("trade.executed"))
    assert (trade.fill.order_id, trade.position.quantity) == (order.order_id, 1)
    assert peers.bus.told("position.updated")[-1].position.quantity == 1
    assert [told.order.state for told in peers.bus.told("order.updated")][-1] == FILLED
    (question,) = peers.risk.questions
    assert (question.request_id, question.evidence.last_price_e9) == (order.order_id, PRICE_E9)


async def test_positions_and_performance_come_from_the_fills(peers: Peers, engine: Stubs) -> None:
    first = await place(engine, "r-1", quantity=2)
    await reaches(engine, first.order_id, FILLED)
    peers.venue.price_e9 = PRICE_E9 + 10 * E9
    second = await place(engine, "r-2", quantity=2, buy=False)
    await reaches(engine, second.order_id, FILLED)
    answer = await engine.trading.GetPositions(engine_pb2.GetPositionsRequest(include_flat=True))
    assert (answer.realized_pnl_e9, answer.commission_e9, answer.unrealized_pnl_e9) == (400 * E9, 8 * E9, 0)
    assert answer.positions[0].version == answer.version == 2
    metrics = (await engine.trading.GetPerformanceMetrics(engine_pb2.GetPerformanceMetricsRequest())).metrics
    assert (metrics.fills, metrics.trades, metrics.win_rate, metrics.net_pnl_e9) == (2, 1, 1.0, 392 * E9)
    assert not metrics.HasField("sharpe_per_trade")
    listed = await engine.trading.ListFills(engine_pb2.ListFillsRequest(page_size=1))
    assert (len(listed.fills), listed.fills[0].order_id) == (1, second.order_id)
    rest = await engine.trading.ListFills(engine_pb2.ListFillsRequest(page_token=listed.next_page_token))
    assert [fill.order_id for fill in rest.fills] == [first.order_id]


async def test_without_a_price_open_profit_is_absent_and_never_zero(peers: Peers, engine: Stubs) -> None:
    order = await place(engine)
    await reaches(engine, order.order_id, FILLED)
    await peers.kill("market")
    answer = await engine.trading.GetPositions(engine_pb2.GetPositionsRequest(), timeout=5)
    assert not answer.HasField("unrealized_pnl_e9")
    assert not answer.positions[0].HasField("unrealized_pnl_e9")


async def test_the_same_request_id_gives_the_first_order_and_sends_nothing_more(peers: Peers, engine: Stubs) -> None:
    answers = await asyncio.gather(*(place(engine, "r-1") for _ in range(5)))
    assert len({order.order_id for order in answers}) == 1
    await reaches(engine, answers[0].order_id, FILLED)
    assert (await place(engine, "r-1")).state == FILLED
    assert (len(peers.venue.submissions), len(peers.risk.questions)) == (1, 1)
    conflict = await refusal(place(engine, "r-1", quantity=2))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ERROR_REASON_REQUEST_CONFLICT")


async def test_a_known_request_gives_its_order_even_when_new_ones_are_refused(peers: Peers) -> None:
    async with peers.engine() as engine:
        order = await place(engine)
        await reaches(engine, order.order_id, FILLED)
        await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann", reason="lunch"))
    async with peers.engine() as engine:
        assert (await place(engine)).order_id == order.order_id
        assert (await refusal(place(engine, "r-2"))).reason == "ERROR_REASON_TRADING_HALTED"


@pytest.mark.parametrize(
    ("wrong", "reason", "field"),
    [
        ({"quantity": 0}, "INVALID_FIELD", "terms.quantity"),
        ({"quantity": -3}, "INVALID_FIELD", "terms.quantity"),
        ({"quantity": 10_001}, "INVALID_FIELD", "terms.quantity"),
        ({"quantity": 10**15}, "INVALID_FIELD", "terms.quantity"),
        ({"limit_e9": 23_500}, "PRICE_SCALE", "terms.limit_price_e9"),
        ({"limit_e9": 235_000 * E9}, "PRICE_SCALE", "terms.limit_price_e9"),
        ({"limit_e9": 10**15 + 1}, "INVALID_FIELD", "terms.limit_price_e9"),
        ({"limit_e9": 2**63 - 1}, "INVALID_FIELD", "terms.limit_price_e9"),
        ({"limit_e9": 23_500_100_000_000}, "PRICE_OFF_TICK", "terms.limit_price_e9"),
        ({"limit_e9": -1}, "INVALID_FIELD", "terms.limit_price_e9"),
    ],
)
async def test_orders_that_make_no_sense_are_refused_and_nothing_is_written(
    peers: Peers, engine: Stubs, wrong: dict[str, Any], reason: str, field: str
) -> None:
    told = await refusal(place(engine, **wrong))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, f"ERROR_REASON_{reason}")
    assert field in [violation.field for violation in told.violations]
    assert peers.risk.questions == []
    assert (await engine.orders.ListOrders(orders_pb2.ListOrdersRequest())).all_orders_count == 0


async def test_an_order_off_by_the_scale_is_told_what_was_probably_meant(engine: Stubs) -> None:
    told = await refusal(place(engine, limit_e9=23_500))
    assert told.metadata["meant"] == str(23_500 * E9)
    assert "probably meant 23500.00" in told.message


async def test_unknown_symbol_order_and_page_token_are_told_as_such(engine: Stubs) -> None:
    strange = terms()
    strange.symbol = "XXZ26-CME"
    request = orders_pb2.PlaceOrderRequest(request_id="r", terms=strange, actor="ann")
    assert (await refusal(engine.orders.PlaceOrder(request))).reason == "ERROR_REASON_SYMBOL_UNKNOWN"
    for empty in (orders_pb2.GetOrderRequest(order_id=""), orders_pb2.GetOrderRequest(request_id="")):
        assert (await refusal(engine.orders.GetOrder(empty))).reason == "ERROR_REASON_INVALID_FIELD"
    by_request = await refusal(engine.orders.GetOrder(orders_pb2.GetOrderRequest(request_id="nobody")))
    assert (by_request.reason, by_request.metadata["request_id"]) == ("ERROR_REASON_ORDER_UNKNOWN", "nobody")
    nobody = orders_pb2.GetOrderRequest(order_id="nobody")
    assert (await refusal(engine.orders.GetOrder(nobody))).reason == "ERROR_REASON_ORDER_UNKNOWN"
    cancel = orders_pb2.CancelOrderRequest(order_id="nobody", actor="ann")
    assert (await refusal(engine.orders.CancelOrder(cancel))).reason == "ERROR_REASON_ORDER_UNKNOWN"
    page = orders_pb2.ListOrdersRequest(page_token="-1 or 1")
    assert (await refusal(engine.orders.ListOrders(page))).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_an_order_by_hand_needs_a_price_to_stand_on(peers: Peers, engine: Stubs) -> None:
    peers.market.quote = None
    assert (await refusal(place(engine))).reason == "ERROR_REASON_DATA_INSUFFICIENT"
    assert peers.venue.submissions == []


# Risk: no answer means no.


async def test_a_refusal_of_risk_is_a_denied_order_with_its_checks(peers: Peers, engine: Stubs) -> None:
    peers.risk.approve = False
    order = await place(engine)
    assert (order.state, order.reason) == (DENIED, order_pb2.ORDER_REASON_RISK_REFUSED)
    assert [check.passed for check in order.checks] == [False]
    assert peers.venue.submissions == []


async def test_no_answer_of_risk_is_a_denied_order_and_nothing_is_sent(peers: Peers, engine: Stubs) -> None:
    peers.risk.hold.clear()
    order = await place(engine)
    assert (order.state, order.reason) == (DENIED, order_pb2.ORDER_REASON_RISK_UNAVAILABLE)
    assert peers.venue.submissions == []
    peers.risk.hold.set()


async def test_a_dead_risk_manager_denies_and_a_living_one_approves_again(peers: Peers, engine: Stubs) -> None:
    await peers.kill("risk")
    assert (await place(engine, "r-1")).reason == order_pb2.ORDER_REASON_RISK_UNAVAILABLE
    assert peers.venue.submissions == []
    await peers.serve("risk")
    number = iter(range(2, 100))

    async def approved() -> bool:
        return (await place(engine, f"r-{next(number)}")).state != DENIED

    await until(approved)


async def test_risk_is_asked_about_one_order_at_a_time_and_told_what_works(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    await asyncio.gather(*(place(engine, f"r-{number}") for number in range(6)))
    assert peers.risk.most_at_once == 1
    assert [question.account.working_buy.get(SYMBOL, 0) for question in peers.risk.questions] == [0, 1, 2, 3, 4, 5]
    assert len(peers.risk.questions[-1].account.working_order_ids) == 5


async def test_limits_are_passed_to_their_owner_and_its_refusal_back(peers: Peers, engine: Stubs) -> None:
    limits = risk_limits_pb2.RiskLimits(
        max_order_quantity=1,
        max_position=1,
        max_open_positions=1,
        max_exposure_e9=1,
        max_daily_loss_e9=1,
        max_drawdown_e9=1,
        price_collar_ticks=1,
        max_orders_per_minute=1,
    )
    limits.max_price_age.seconds = 1
    request = engine_pb2.SetRiskLimitsRequest(request_id="l", limits=limits, actor="ann", reason="careful")
    assert (await engine.trading.SetRiskLimits(request)).version == 2
    assert peers.risk.limits[0].limits == limits
    request.expected_version = 9
    assert (await refusal(engine.trading.SetRiskLimits(request))).code is grpc.StatusCode.ABORTED


# The venue: what is not known is asked for.


async def test_a_rejection_and_a_refusal_of_the_venue_end_the_order_with_its_words(peers: Peers, engine: Stubs) -> None:
    for number, (how, words) in enumerate((("reject", "no margin"), ("refuse", "closed for the day"))):
        peers.venue.on_submit = how
        order = await place(engine, f"r-{number}")
        rejected = await reaches(engine, order.order_id, REJECTED)
        assert rejected.reason == order_pb2.ORDER_REASON_VENUE_REJECTED
        assert words in rejected.reason_message


async def test_a_lost_answer_is_asked_for_and_the_order_is_not_doubled(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "lose"
    order = await place(engine)
    await reaches(engine, order.order_id, WORKING)
    peers.venue.fill(order.order_id)
    await reaches(engine, order.order_id, FILLED)
    assert (len(peers.venue.orders), await held(engine)) == (1, 1)


async def test_an_order_of_which_the_venue_itself_knows_nothing_is_asked_for_until_it_does_and_never_sent_again(
    peers: Peers, engine: Stubs
) -> None:
    peers.venue.on_submit = "doubt"
    order = await place(engine)
    lost = await reaches(engine, order.order_id, UNKNOWN)
    assert (lost.reason, lost.reason_message) == (order_pb2.ORDER_REASON_OUTCOME_UNKNOWN, "the connection broke")
    told = await until(lambda: engine.conditions.held().get("ORDERS_UNKNOWN"))
    assert told == f"what became of 1 order is not known: BUY 1 {SYMBOL} ({order.order_id}): the connection broke"
    assert "VENUE_AWAY" not in engine.conditions.held(), "the venue answers: it is the outcome that is not known"
    peers.venue.fill(order.order_id)
    await reaches(engine, order.order_id, FILLED)
    await until(lambda: "ORDERS_UNKNOWN" not in engine.conditions.held())
    working = await place(engine, "r-2")
    await reaches(engine, working.order_id, UNKNOWN)
    known = peers.venue.orders[working.order_id]
    known.state = venue_pb2.VENUE_ORDER_STATE_WORKING
    peers.venue.tell(known)
    await reaches(engine, working.order_id, WORKING)
    known.state = venue_pb2.VENUE_ORDER_STATE_UNKNOWN
    known.reason_message = "it is not listed"
    peers.venue.tell(known)
    lost = await reaches(engine, working.order_id, UNKNOWN)
    assert lost.reason_message == "it is not listed"
    listed = await engine.orders.ListOrders(orders_pb2.ListOrdersRequest(states=[UNKNOWN]))
    assert [each.order_id for each in listed.orders] == [working.order_id]
    known.state = venue_pb2.VENUE_ORDER_STATE_WORKING
    peers.venue.fill(working.order_id, tell=False)
    await reaches(engine, working.order_id, FILLED)
    assert (len(peers.venue.submissions), await held(engine)) == (2, 2)


async def test_an_order_that_waits_for_its_turn_at_the_venue_is_not_taken_for_working(
    peers: Peers, engine: Stubs
) -> None:
    peers.venue.on_submit = "unanswered"
    order = await place(engine)
    waiting = await reaches(engine, order.order_id, UNKNOWN)
    assert waiting.reason_message == "the venue has sent it on and has not been answered"
    states = [told.order.state for told in await until(lambda: peers.bus.told("order.updated"))]
    assert WORKING not in states
    known = peers.venue.orders[order.order_id]
    known.state, known.unanswered = venue_pb2.VENUE_ORDER_STATE_WORKING, False
    peers.venue.tell(known)
    assert (await reaches(engine, order.order_id, WORKING)).reason_message == ""
    assert len(peers.venue.submissions) == 1


async def test_an_unknown_order_that_a_person_settled_at_the_venue_ends_with_that_word(
    peers: Peers, engine: Stubs
) -> None:
    peers.venue.on_submit = "doubt"
    order = await place(engine)
    await reaches(engine, order.order_id, UNKNOWN)
    known = peers.venue.orders[order.order_id]
    known.state, known.reason_code = venue_pb2.VENUE_ORDER_STATE_CANCELED, venue_pb2.VENUE_ORDER_REASON_SETTLED
    known.reason_message = "settled by ann: looked up"
    peers.venue.tell(known)
    ended = await reaches(engine, order.order_id, CANCELED)
    assert (ended.reason, ended.reason_message) == (order_pb2.ORDER_REASON_SETTLED, "settled by ann: looked up")


async def test_open_orders_and_positions_are_never_looked_for_at_another_venue(peers: Peers) -> None:
    async with peers.engine() as engine:
        filled = await place(engine, quantity=2)
        await reaches(engine, filled.order_id, FILLED)
        peers.venue.on_submit = "rest"
        resting = await place(engine, "r-2")
        await reaches(engine, resting.order_id, WORKING)
    there = peers.venue
    await peers.take("venue", FakeVenue())
    async with peers.engine(venue="sierra_client") as engine:
        told = engine.conditions.held()["VENUE_CHANGED"]
        change = orders_pb2.ReplaceOrderRequest(order_id=resting.order_id, request_id="c-1", quantity=3, actor="ann")
        assert f"open at paper_venue: the orders BUY 1 {SYMBOL} ({resting.order_id})" in told
        assert f"the positions +2 {SYMBOL}" in told
        for call in (place(engine, "r-3", buy=False), engine.orders.ReplaceOrder(change)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "ERROR_REASON_STATE_CONFLICT",
            )
            assert "set [engine] venue" in refused.message
        assert (await order_of(engine, resting.order_id)).state == WORKING
        stopped = await stop(engine, flatten=True)
        assert told in stopped.unconfirmed
        assert not stopped.flattening
        assert (await order_of(engine, resting.order_id)).state == order_pb2.ORDER_STATE_PENDING_CANCEL
    assert not peers.venue.submissions
    await peers.take("venue", there)
    async with peers.engine() as engine:
        await reaches(engine, resting.order_id, CANCELED)
        assert "VENUE_CHANGED" not in engine.conditions.held()


async def test_with_nothing_open_another_venue_is_taken_and_an_automatic_mode_ends(peers: Peers) -> None:
    async with peers.engine() as engine:
        filled = await place(engine)
        await reaches(engine, filled.order_id, FILLED)
        closing = await place(engine, "r-2", buy=False)
        await reaches(engine, closing.order_id, FILLED)
        await set_mode(engine, control_pb2.TRADING_MODE_FULL_AUTO)
    peers.venue.live = True
    async with peers.engine(venue="sierra_client") as engine:
        state = (await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())).status
        assert state.mode == control_pb2.TRADING_MODE_MANUAL
        assert state.mode_reason == "the venue was paper_venue and is sierra_client"
        peers.venue.live = False
    async with peers.engine(venue="sierra_client") as engine:
        again = await place(engine, "r-3")
        await reaches(engine, again.order_id, FILLED)
        assert await held(engine) == 1


async def test_an_order_that_never_arrived_is_sent_again_under_the_same_id(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "swallow"
    order = await place(engine)
    await reaches(engine, order.order_id, UNKNOWN)
    peers.venue.on_submit = "fill"
    await reaches(engine, order.order_id, FILLED)
    assert {request.client_order_id for request in peers.venue.submissions} == {order.order_id}
    assert (len(peers.venue.orders), await held(engine)) == (1, 1)


async def test_a_venue_that_dies_and_comes_back_loses_and_doubles_nothing(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    first = await place(engine, "r-1")
    await reaches(engine, first.order_id, WORKING)
    await peers.kill("venue")
    peers.venue.fill(first.order_id)
    second = await place(engine, "r-2")
    peers.venue.on_submit = "fill"
    await peers.serve("venue")
    await reaches(engine, first.order_id, FILLED)
    await reaches(engine, second.order_id, FILLED)
    assert (len(peers.venue.orders), len(peers.venue.fills), await held(engine)) == (2, 2, 2)


async def test_fills_are_found_again_when_the_stream_of_the_venue_is_lost(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    order = await place(engine, quantity=3)
    await reaches(engine, order.order_id, WORKING)
    await peers.kill("venue")
    peers.venue.fill(order.order_id, 2, tell=False)
    peers.venue.forget_stream()
    await peers.serve("venue")
    partly = await reaches(engine, order.order_id, order_pb2.ORDER_STATE_PARTIALLY_FILLED)
    assert partly.filled_quantity == 2
    peers.venue.fill(order.order_id, 1)
    await reaches(engine, order.order_id, FILLED)
    assert await held(engine) == 3


async def test_cancels_pass_in_every_state_and_are_safe_to_repeat(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    order = await place(engine)
    await reaches(engine, order.order_id, WORKING)
    await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann", reason="lunch"))
    request = orders_pb2.CancelOrderRequest(order_id=order.order_id, actor="ann")
    for _ in range(2):
        canceled = (await engine.orders.CancelOrder(request)).order
        assert (canceled.state, canceled.reason) == (CANCELED, order_pb2.ORDER_REASON_CANCELED_BY_USER)


async def test_an_order_that_is_done_cannot_be_cancelled(engine: Stubs) -> None:
    order = await place(engine)
    await reaches(engine, order.order_id, FILLED)
    told = await refusal(engine.orders.CancelOrder(orders_pb2.CancelOrderRequest(order_id=order.order_id, actor="a")))
    assert told.reason == "ERROR_REASON_ORDER_STATE"
    assert dict(told.metadata) == {"order_id": order.order_id, "state": "FILLED", "wanted": "cancel"}


async def test_a_cancel_without_an_answer_is_pursued(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit, peers.venue.on_cancel = "rest", "hang"
    order = await place(engine)
    await reaches(engine, order.order_id, WORKING)
    request = orders_pb2.CancelOrderRequest(order_id=order.order_id, actor="ann")
    pending = (await engine.orders.CancelOrder(request)).order
    assert pending.state == order_pb2.ORDER_STATE_PENDING_CANCEL
    peers.venue.on_cancel = "cancel"
    await reaches(engine, order.order_id, CANCELED)


async def test_a_refused_cancel_leaves_the_order_working(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit, peers.venue.on_cancel = "rest", "refuse"
    order = await place(engine)
    await reaches(engine, order.order_id, WORKING)
    answer = await engine.orders.CancelOrder(orders_pb2.CancelOrderRequest(order_id=order.order_id, actor="ann"))
    assert (answer.order.state, "too late" in answer.order.reason_message) == (WORKING, True)


async def test_a_replacement_is_checked_by_risk_and_made_once(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    order = await place(engine, quantity=2, limit_e9=PRICE_E9 - 10 * E9)
    await reaches(engine, order.order_id, WORKING)
    request = orders_pb2.ReplaceOrderRequest(
        order_id=order.order_id, request_id="c-1", quantity=3, limit_price_e9=PRICE_E9 - 5 * E9, actor="ann"
    )
    for _ in range(2):
        changed = (await engine.orders.ReplaceOrder(request)).order
        assert (changed.state, changed.terms.quantity) == (WORKING, 3)
        assert changed.terms.limit_price_e9 == PRICE_E9 - 5 * E9
    question = peers.risk.questions[-1]
    assert (len(peers.risk.questions), question.terms.quantity, question.replaces) == (2, 3, True)
    assert (question.order_id, list(question.account.working_order_ids)) == (order.order_id, [order.order_id])
    assert question.request_id.startswith(f"{order.order_id}:")
    assert len(question.request_id) <= 64
    peers.risk.approve = False
    refused = orders_pb2.ReplaceOrderRequest(order_id=order.order_id, request_id="c-2", quantity=4, actor="ann")
    assert (await refusal(engine.orders.ReplaceOrder(refused))).reason == "ERROR_REASON_RISK_REFUSED"
    off = orders_pb2.ReplaceOrderRequest(
        order_id=order.order_id, request_id="c-3", limit_price_e9=PRICE_E9 + 1, actor="ann"
    )
    assert (await refusal(engine.orders.ReplaceOrder(off))).reason == "ERROR_REASON_PRICE_OFF_TICK"


async def test_a_replacement_that_the_venue_refuses_leaves_the_order_as_it_was(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    order = await place(engine, quantity=2)
    await reaches(engine, order.order_id, WORKING)
    peers.venue.on_submit = "refuse"
    request = orders_pb2.ReplaceOrderRequest(order_id=order.order_id, request_id="c-1", quantity=3, actor="ann")
    answer = (await engine.orders.ReplaceOrder(request)).order
    assert (answer.state, answer.terms.quantity) == (WORKING, 2)
    assert "no changes today" in answer.reason_message


# Control.


async def test_the_default_mode_is_full_auto_on_paper_with_data_that_is_not_live(engine: Stubs) -> None:
    status = (await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())).status
    assert status.mode == control_pb2.TRADING_MODE_FULL_AUTO
    assert (status.venue, status.venue_live, status.auto_threshold) == ("fake", False, 0.75)


@pytest.mark.parametrize("live_venue", [True, False])
async def test_the_default_mode_is_manual_where_money_or_data_are_live(peers: Peers, live_venue: bool) -> None:
    peers.venue.live = live_venue
    async with peers.engine(provenance="SIMULATED" if live_venue else "LIVE") as engine:
        status = (await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())).status
        assert status.mode == control_pb2.TRADING_MODE_MANUAL


async def test_a_live_venue_gets_nothing_that_does_not_rest_on_live_data(peers: Peers) -> None:
    peers.venue.live = True
    async with peers.engine() as engine:
        assert (await refusal(place(engine))).reason == "ERROR_REASON_PROVENANCE_REFUSED"
        automatic = control_pb2.SetTradingModeRequest(
            request_id=fresh(), mode=control_pb2.TRADING_MODE_FULL_AUTO, actor="ann"
        )
        told = await refusal(engine.control.SetTradingMode(automatic))
        assert told.reason == "ERROR_REASON_PROVENANCE_REFUSED"
    assert peers.venue.submissions == []


async def test_mode_and_halt_survive_a_restart(peers: Peers) -> None:
    async with peers.engine() as engine:
        await set_mode(engine, control_pb2.TRADING_MODE_SEMI_AUTO)
        await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann", reason="lunch"))
    async with peers.engine() as engine:
        status = (await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())).status
        assert (status.mode, status.state, status.state_reason, status.state_actor) == (
            control_pb2.TRADING_MODE_SEMI_AUTO,
            control_pb2.TRADING_STATE_HALTED,
            "lunch",
            "ann",
        )


async def test_halted_refuses_reducing_passes_reductions_and_resume_opens_again(peers: Peers, engine: Stubs) -> None:
    order = await place(engine, "r-1", quantity=2)
    await reaches(engine, order.order_id, FILLED)
    await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann", reason="lunch"))
    assert (await refusal(place(engine, "r-2", buy=False))).reason == "ERROR_REASON_TRADING_HALTED"
    reducing = control_pb2.TRADING_STATE_REDUCING
    await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), state=reducing, actor="ann", reason="late"))
    assert (await refusal(place(engine, "r-3"))).reason == "ERROR_REASON_TRADING_HALTED"
    assert (await refusal(place(engine, "r-4", buy=False, quantity=3))).reason == "ERROR_REASON_TRADING_HALTED"
    passed = await place(engine, "r-5", buy=False, quantity=1)
    await reaches(engine, passed.order_id, FILLED)
    await engine.control.Resume(control_pb2.ResumeRequest(request_id=fresh(), actor="ann"))
    assert (await place(engine, "r-6")).state != DENIED
    told = await until(lambda: [t.status.state for t in peers.bus.told("trading_state.changed")][1:])
    assert told == [
        control_pb2.TRADING_STATE_HALTED,
        control_pb2.TRADING_STATE_REDUCING,
        control_pb2.TRADING_STATE_ACTIVE,
    ]


async def test_a_reduce_only_order_never_opens_a_position(engine: Stubs) -> None:
    told = await refusal(place(engine, reduce_only=True))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_NOT_REDUCING")
    assert dict(told.metadata) == {"quantity": "1", "allowed": "0"}


async def test_a_halt_needs_a_person_and_a_reason(engine: Stubs) -> None:
    assert (await refusal(engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann")))).violations
    blank = control_pb2.HaltRequest(request_id=fresh(), actor=" ", reason="x")
    assert (await refusal(engine.control.Halt(blank))).reason == "ERROR_REASON_INVALID_FIELD"


# The emergency stop.


async def test_the_emergency_stop_cancels_flattens_confirms_and_latches(peers: Peers, engine: Stubs) -> None:
    bought = await place(engine, "r-1", quantity=2)
    await reaches(engine, bought.order_id, FILLED)
    peers.venue.on_submit = "rest"
    resting = await place(engine, "r-2", limit_e9=PRICE_E9 - 10 * E9)
    await reaches(engine, resting.order_id, WORKING)
    peers.venue.on_submit = "fill"
    answer = await stop(engine, flatten=True)
    assert [order.order_id for order in answer.canceled] == [resting.order_id]
    assert [order.state for order in answer.flattening] == [FILLED]
    assert list(answer.unconfirmed) == []
    assert await held(engine) == 0
    assert answer.status.emergency_stop.latched
    assert (await refusal(place(engine, "r-3"))).reason == "ERROR_REASON_TRADING_HALTED"
    (told,) = await until(lambda: peers.bus.told("emergency_stop.triggered"))
    assert (told.latch.reason, told.latch.actor) == ("smoke", "ann")


async def test_the_emergency_stop_works_with_bus_risk_and_market_data_dead(peers: Peers, engine: Stubs) -> None:
    bought = await place(engine, "r-1")
    await reaches(engine, bought.order_id, FILLED)
    peers.venue.on_submit = "rest"
    resting = await place(engine, "r-2")
    await reaches(engine, resting.order_id, WORKING)
    for name in ("bus", "risk", "market"):
        await peers.kill(name)
    peers.venue.on_submit = "fill"
    answer = await stop(engine, flatten=True)
    assert list(answer.unconfirmed) == []
    assert (await order_of(engine, resting.order_id)).reason == order_pb2.ORDER_REASON_EMERGENCY_STOP
    assert sum(fill.quantity if fill.side == 1 else -fill.quantity for fill in peers.venue.fills) == 0
    await peers.serve("bus")
    await until(lambda: peers.bus.told("emergency_stop.triggered"))


async def test_the_latch_holds_without_the_venue_and_says_what_is_not_confirmed(peers: Peers) -> None:
    async with peers.engine() as engine:
        peers.venue.on_submit = "rest"
        resting = await place(engine)
        await reaches(engine, resting.order_id, WORKING)
        await peers.kill("venue")
        answer = await stop(engine)
        assert answer.status.emergency_stop.latched
        assert any("venue does not answer" in sentence for sentence in answer.unconfirmed)
        assert any(resting.order_id in sentence for sentence in answer.unconfirmed)
        await peers.serve("venue")
        await reaches(engine, resting.order_id, CANCELED)
    async with peers.engine() as engine:
        status = (await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())).status
        assert (status.emergency_stop.latched, status.emergency_stop.reason) == (True, "smoke")


async def test_an_order_in_the_middle_of_its_risk_check_does_not_slip_through_a_stop(
    peers: Peers, engine: Stubs
) -> None:
    peers.risk.hold.clear()
    placing = asyncio.create_task(place(engine))
    await until(lambda: peers.risk.questions)
    stopping = asyncio.create_task(stop(engine))
    status_request = control_pb2.GetTradingStateRequest()

    async def latched() -> bool:
        return bool((await engine.control.GetTradingState(status_request)).status.emergency_stop.latched)

    await until(latched)
    peers.risk.hold.set()
    order = await placing
    assert order.state in (CANCELED, DENIED)
    assert list((await stopping).unconfirmed) == []
    assert peers.venue.submissions == []


async def test_an_order_that_reaches_the_venue_behind_the_stop_is_cancelled_there(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "late"
    order = await place(engine)
    await until(lambda: peers.venue.submissions)
    stopping = asyncio.create_task(stop(engine))

    async def latched() -> bool:
        answer = await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())
        return bool(answer.status.emergency_stop.latched)

    await until(latched)
    peers.venue.let_in.set()
    await reaches(engine, order.order_id, CANCELED)
    assert list((await stopping).unconfirmed) == []
    assert [order.state for order in peers.venue.orders.values()] == [venue_pb2.VENUE_ORDER_STATE_CANCELED]


async def test_only_a_person_with_a_reason_clears_the_stop_and_trading_stays_halted(engine: Stubs) -> None:
    clear = control_pb2.ClearEmergencyStopRequest(request_id=fresh(), actor="ann", reason="checked")
    assert (await refusal(engine.control.ClearEmergencyStop(clear))).reason == "ERROR_REASON_STATE_CONFLICT"
    await stop(engine)
    assert (
        await refusal(engine.control.Resume(control_pb2.ResumeRequest(request_id=fresh(), actor="ann")))
    ).reason == ("ERROR_REASON_TRADING_HALTED")
    nobody = control_pb2.ClearEmergencyStopRequest(request_id=fresh(), actor="ann", reason=" ")
    assert (await refusal(engine.control.ClearEmergencyStop(nobody))).reason == "ERROR_REASON_INVALID_FIELD"
    status = (await engine.control.ClearEmergencyStop(clear)).status
    assert (status.emergency_stop.latched, status.state, status.mode) == (
        False,
        control_pb2.TRADING_STATE_HALTED,
        control_pb2.TRADING_MODE_MANUAL,
    )


# Signals.


async def test_a_sure_signal_becomes_one_order_however_often_it_is_told(peers: Peers, engine: Stubs) -> None:
    for _ in range(3):
        peers.bus.signal(signal(1))
    await until(lambda: len(peers.bus.acked) == 3)
    await until(lambda: peers.bus.told("trade.executed"))
    assert len(peers.venue.submissions) == 1
    (trade,) = peers.bus.told("trade.executed")
    assert trade.signal_id == f"{SYMBOL}:1:1"
    order = await order_of(engine, trade.fill.order_id)
    assert (order.actor, order.signal_id, order.provenance) == ("auto", trade.signal_id, SIMULATED)


async def test_a_signal_is_acted_on_once_over_a_restart_too(peers: Peers) -> None:
    async with peers.engine() as engine:
        peers.bus.signal(signal(1))
        await until(lambda: len(peers.bus.told("trade.executed")) == 1)
        assert await held(engine) == 1
    async with peers.engine() as engine:
        await until(lambda: len(peers.bus.opened) == 2)
        peers.bus.signal(signal(2, buy=None))
        await until(lambda: 2 in peers.bus.acked)
        assert (await held(engine), len(peers.venue.submissions)) == (1, 1)


async def _handled(peers: Peers, number: int) -> None:
    await until(lambda: number in peers.bus.acked)
    await until(lambda: len(peers.venue.fills) == len(peers.bus.told("trade.executed")))


async def test_signals_turn_the_position_and_never_build_it_up(peers: Peers, engine: Stubs) -> None:
    for number, buy in enumerate((True, True, False, False, True), start=1):
        peers.bus.signal(signal(number, buy=buy))
        await _handled(peers, number)
    await until(lambda: len(peers.venue.submissions) == 3)
    await holds(engine, 1)
    assert [request.terms.quantity for request in peers.venue.submissions] == [1, 2, 2]


@pytest.mark.parametrize(("confidence", "buy"), [(0.74, True), (0.9, None)])
async def test_an_unsure_signal_and_a_hold_do_nothing(
    peers: Peers, engine: Stubs, confidence: float, buy: bool | None
) -> None:
    peers.bus.signal(signal(1, confidence=confidence, buy=buy))
    await until(lambda: peers.bus.acked)
    assert peers.risk.questions == []


@pytest.mark.parametrize("mode", [control_pb2.TRADING_MODE_MANUAL, control_pb2.TRADING_MODE_SEMI_AUTO])
async def test_without_full_auto_a_signal_opens_nothing_and_a_person_can_act_on_it(
    peers: Peers, engine: Stubs, mode: Any
) -> None:
    await set_mode(engine, mode)
    peers.bus.signal(signal(1))
    await until(lambda: peers.bus.acked)
    assert peers.venue.submissions == []
    request = engine_pb2.ExecuteTradeRequest(request_id="e-1", signal=signal(1), quantity=2, actor="ann")
    order = (await engine.trading.ExecuteTrade(request)).order
    assert (order.terms.quantity, order.actor, order.signal_id) == (2, "ann", f"{SYMBOL}:1:1")
    again = (await engine.trading.ExecuteTrade(request)).order
    assert again.order_id == order.order_id
    await reaches(engine, order.order_id, FILLED)
    assert len(peers.venue.submissions) == 1


async def test_a_hold_cannot_be_executed(engine: Stubs) -> None:
    request = engine_pb2.ExecuteTradeRequest(request_id="e-1", signal=signal(1, buy=None), actor="ann")
    told = await refusal(engine.trading.ExecuteTrade(request))
    assert (told.code, told.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "signal.action")


# Signals and the state of the system.


async def status_of(engine: Stubs) -> control_pb2.TradingStatus:
    answer = await engine.control.GetTradingState(control_pb2.GetTradingStateRequest())
    status: control_pb2.TradingStatus = answer.status
    return status


async def in_force(engine: Stubs, **wanted: Any) -> control_pb2.TradingStatus:
    """The trading status once its fields have these values."""

    async def look() -> control_pb2.TradingStatus | None:
        status = await status_of(engine)
        return status if all(getattr(status, name) == value for name, value in wanted.items()) else None

    status: control_pb2.TradingStatus = await until(look)
    return status


async def holds(engine: Stubs, contracts: int) -> None:
    """Wait until so many contracts are held."""

    async def look() -> bool:
        return await held(engine) == contracts

    await until(look)


OFF = "auto_trade_enabled of the state is false"
NEVER_HEARD = "the state manager has never been heard"


async def test_without_auto_trade_a_signal_is_left_until_it_is_on_again(peers: Peers, engine: Stubs) -> None:
    peers.state.change(auto_trade_enabled=False)
    status = await in_force(engine, signals_off_reason=OFF)
    assert status.state == control_pb2.TRADING_STATE_ACTIVE
    peers.bus.signal(signal(1))
    await until(lambda: 1 in peers.bus.acked)
    assert (peers.risk.questions, peers.venue.submissions, peers.bus.nacked) == ([], [], [])
    by_hand = await place(engine)
    await reaches(engine, by_hand.order_id, FILLED)
    peers.state.change(auto_trade_enabled=True)
    await in_force(engine, signals_off_reason="")
    peers.bus.signal(signal(2, buy=False))
    await holds(engine, -1)


async def test_threshold_and_quantity_are_those_of_the_state_and_not_of_the_configuration(peers: Peers) -> None:
    peers.state.change(auto_threshold=0.85, order_quantity=3)
    async with peers.engine(auto_threshold=0.5, order_quantity=1) as engine:
        assert (await status_of(engine)).auto_threshold == 0.85
        peers.bus.signal(signal(1, confidence=0.84))
        await _handled(peers, 1)
        assert peers.venue.submissions == []
        peers.bus.signal(signal(2, confidence=0.85))
        await holds(engine, 3)
        peers.state.change(auto_threshold=0.6, order_quantity=2)
        await in_force(engine, auto_threshold=0.6)
        peers.bus.signal(signal(3, confidence=0.6, buy=False))
        await holds(engine, -2)
        request = engine_pb2.ExecuteTradeRequest(request_id="e-1", signal=signal(4), actor="ann")
        assert (await engine.trading.ExecuteTrade(request)).order.terms.quantity == 2


async def test_a_change_of_the_state_is_told_to_who_watches_trading(peers: Peers, engine: Stubs) -> None:
    call = engine.control.WatchTradingState(control_pb2.WatchTradingStateRequest())
    first = await call.read()
    peers.state.change(flags={"theme": "dark"})
    peers.state.change(auto_threshold=0.9)
    peers.state.change(auto_trade_enabled=False)
    second, third = await call.read(), await call.read()
    call.cancel()
    assert (first.snapshot.status.auto_threshold, second.status.auto_threshold) == (0.75, 0.9)
    assert (third.status.signals_off_reason, third.revision) == (OFF, first.revision + 2)


async def test_a_dead_state_manager_leaves_its_last_word_in_force_and_is_followed_again(
    peers: Peers, engine: Stubs
) -> None:
    peers.state.change(order_quantity=2)
    await until(lambda: peers.state.asked)
    await peers.kill("state")
    await until(lambda: "STATE_AWAY" in engine.conditions.held())
    peers.bus.signal(signal(1))
    await holds(engine, 2)
    peers.state.change(auto_trade_enabled=False)
    await peers.serve("state")
    await in_force(engine, signals_off_reason=OFF)
    assert "STATE_AWAY" not in engine.conditions.held()
    peers.bus.signal(signal(2, buy=False))
    await until(lambda: 2 in peers.bus.acked)
    assert len(peers.venue.submissions) == 1


async def test_an_engine_that_never_heard_the_state_acts_on_no_signal_but_obeys_people(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STATE_PATIENCE_S", 0.1)
    await peers.kill("state")
    async with peers.engine() as engine:
        status = await status_of(engine)
        assert (status.signals_off_reason, status.HasField("auto_threshold")) == (NEVER_HEARD, False)
        assert "STATE_AWAY" in engine.conditions.held()
        peers.bus.signal(signal(1))
        await until(lambda: 1 in peers.bus.acked)
        assert peers.risk.questions == []
        order = await place(engine, quantity=2)
        await reaches(engine, order.order_id, FILLED)
        sized = engine_pb2.ExecuteTradeRequest(request_id="e-1", signal=signal(2), actor="ann")
        told = await refusal(engine.trading.ExecuteTrade(sized))
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "ERROR_REASON_DEPENDENCY_UNAVAILABLE")
        assert "name a quantity" in told.message
        answer = await stop(engine, flatten=True)
        assert list(answer.unconfirmed) == []
        assert (await status_of(engine)).state_reason == "emergency stop: smoke"


async def test_a_reason_of_the_state_is_not_shown_where_no_machine_trades(peers: Peers, engine: Stubs) -> None:
    peers.state.change(auto_trade_enabled=False)
    await in_force(engine, signals_off_reason=OFF)
    await set_mode(engine, control_pb2.TRADING_MODE_MANUAL)
    assert (await status_of(engine)).signals_off_reason == ""


async def test_an_old_signal_is_left(peers: Peers, engine: Stubs) -> None:
    peers.bus.signal(signal(1, seconds=1_790_000_000))
    await until(lambda: peers.bus.acked)
    assert peers.venue.submissions == []


async def test_a_signal_while_halted_is_left_and_acknowledged(peers: Peers, engine: Stubs) -> None:
    await engine.control.Halt(control_pb2.HaltRequest(request_id=fresh(), actor="ann", reason="lunch"))
    peers.bus.signal(signal(1))
    await until(lambda: peers.bus.acked)
    assert (peers.venue.submissions, peers.bus.nacked) == ([], [])


# Replay, in step with the venue.


def _progressed(sequence: int) -> Any:
    told = brain_events_pb2.AnalysisProgressed(symbol=SYMBOL, epoch=1, through_sequence=sequence)
    told.event_time.FromSeconds(1_600_000_000 + sequence)
    return make_event(told, subject=SYMBOL, source="ai_brain", time_ns=5)


async def test_a_replay_waits_for_the_venue_before_it_decides(peers: Peers) -> None:
    peers.venue.provenance = REPLAY
    async with peers.engine(provenance="REPLAY") as engine:
        peers.bus.signal(signal(100, provenance=REPLAY, seconds=1_600_000_100))
        (told,) = await until(lambda: peers.bus.told("trading.progressed"))
        assert (told.symbol, told.epoch, told.through_sequence) == (SYMBOL, 1, 100)
        assert (peers.venue.submissions, peers.risk.questions, peers.bus.acked) == ([], [], set())
        peers.venue.progress(99)
        assert peers.risk.questions == []
        peers.venue.progress(100)
        await until(lambda: peers.bus.acked)
        (sent,) = peers.venue.submissions
        assert sent.decision_time.seconds == 1_600_000_100
        assert peers.risk.questions[0].evidence.decision_time.seconds == 1_600_000_100
        peers.bus.bring(_progressed(250))
        await until(lambda: [t.through_sequence for t in peers.bus.told("trading.progressed")] == [100, 250])
        peers.venue.progress(250)

        async def through() -> bool:
            answer = await engine.trading.GetPositions(engine_pb2.GetPositionsRequest())
            return bool(answer.replay_through_sequence.get(SYMBOL) == 250)

        await until(through)
    events = [event for event in peers.bus.events if event.type in ("order.updated", "trade.executed")]
    assert {event.event_time.seconds for event in events} == {1_600_000_100}


async def test_a_replay_waits_for_the_first_settled_state_before_its_first_signal(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STATE_PATIENCE_S", 0.1)
    peers.venue.provenance = REPLAY
    peers.state.change(system_state=state_pb2.SYSTEM_STATE_STARTING, auto_trade_enabled=False)
    await peers.kill("state")
    async with peers.engine(provenance="REPLAY"):
        peers.bus.signal(signal(100, provenance=REPLAY, seconds=1_600_000_100))
        peers.venue.progress(100)
        await until(lambda: peers.bus.opened)
        await peers.serve("state")
        await until(lambda: peers.state.asked)
        assert (peers.bus.acked, peers.bus.told("trading.progressed"), peers.venue.submissions) == (set(), [], [])
        peers.state.change(system_state=state_pb2.SYSTEM_STATE_ONLINE, auto_trade_enabled=True)
        await until(lambda: peers.bus.acked)
        assert (len(peers.venue.submissions), peers.bus.nacked) == (1, [])


async def test_a_fill_before_the_signal_counts_in_its_decision(peers: Peers) -> None:
    peers.venue.provenance = REPLAY
    peers.venue.on_submit = "rest"
    async with peers.engine(provenance="REPLAY") as engine:
        peers.bus.signal(signal(100, provenance=REPLAY, seconds=1_600_000_100))
        peers.venue.progress(100)
        order = await until(lambda: peers.venue.orders)
        await until(lambda: len(peers.bus.acked) == 1)
        peers.bus.signal(signal(200, buy=False, provenance=REPLAY, seconds=1_600_000_200))
        await until(lambda: [t.through_sequence for t in peers.bus.told("trading.progressed")][-1:] == [200])
        peers.venue.fill(next(iter(order)))
        peers.venue.progress(200)
        await until(lambda: len(peers.bus.acked) == 2)
        assert [request.terms.quantity for request in peers.venue.submissions] == [1, 2]
        assert await held(engine) == 1


# Watches and lists.


async def test_watching_orders_gives_a_snapshot_then_each_change_and_resumes(peers: Peers, engine: Stubs) -> None:
    peers.venue.on_submit = "rest"
    first = await place(engine, "r-1")
    await reaches(engine, first.order_id, WORKING)
    call = engine.orders.WatchOrders(orders_pb2.WatchOrdersRequest())
    snapshot = await call.read()
    assert [order.order_id for order in snapshot.snapshot.orders] == [first.order_id]
    peers.venue.fill(first.order_id)
    change = await call.read()
    assert (change.order.state, change.revision) == (FILLED, snapshot.revision + 1)
    call.cancel()
    resumed = engine.orders.WatchOrders(orders_pb2.WatchOrdersRequest(after_revision=snapshot.revision))
    assert (await resumed.read()).order.order_id == first.order_id
    resumed.cancel()
    lost = engine.orders.WatchOrders(orders_pb2.WatchOrdersRequest(after_revision=1))
    assert (await refusal(lost.read())).reason == "ERROR_REASON_POSITION_LOST"


async def test_watching_positions_and_control_gives_a_snapshot_then_each_change(peers: Peers, engine: Stubs) -> None:
    positions = engine.orders.WatchPositions(orders_pb2.WatchPositionsRequest())
    assert list((await positions.read()).snapshot.positions) == []
    control = engine.control.WatchTradingState(control_pb2.WatchTradingStateRequest())
    assert (await control.read()).snapshot.status.mode == control_pb2.TRADING_MODE_FULL_AUTO
    await place(engine)
    assert (await positions.read()).position.quantity == 1
    await set_mode(engine, control_pb2.TRADING_MODE_MANUAL)
    assert (await control.read()).status.mode == control_pb2.TRADING_MODE_MANUAL
    positions.cancel()
    control.cancel()


async def test_orders_are_listed_newest_first_by_state_and_page(peers: Peers, engine: Stubs) -> None:
    for number in range(3):
        order = await place(engine, f"r-{number}")
        await reaches(engine, order.order_id, FILLED)
    peers.risk.approve = False
    await place(engine, "r-3")
    page = await engine.orders.ListOrders(orders_pb2.ListOrdersRequest(page_size=2, states=[FILLED]))
    assert [order.request_id for order in page.orders] == ["r-2", "r-1"]
    assert page.all_orders_count == 4
    rest = await engine.orders.ListOrders(
        orders_pb2.ListOrdersRequest(page_size=2, states=[FILLED], page_token=page.next_page_token)
    )
    assert ([order.request_id for order in rest.orders], rest.next_page_token) == (["r-0"], "")
    by_request = await engine.orders.GetOrder(orders_pb2.GetOrderRequest(request_id="r-3"))
    assert by_request.order.state == DENIED


# Starting.


async def test_the_engine_serves_without_its_venue_and_trades_once_it_is_there(peers: Peers) -> None:
    await peers.kill("venue")
    async with peers.engine() as engine:
        assert (await refusal(place(engine))).code is grpc.StatusCode.UNAVAILABLE
        await peers.serve("venue")

        async def placed() -> bool:
            try:
                return bool((await place(engine, "r-2")).order_id)
            except grpc.aio.AioRpcError:
                return False

        await until(placed)


async def test_events_wait_for_a_dead_bus_and_come_in_order(peers: Peers, engine: Stubs) -> None:
    await peers.kill("bus")
    order = await place(engine)
    await reaches(engine, order.order_id, FILLED)
    before = len(peers.bus.told("order.updated"))
    await peers.serve("bus")
    told = await until(lambda: peers.bus.told("trade.executed"))
    versions = [update.order.version for update in peers.bus.told("order.updated")]
    assert (before, len(told), versions) == (0, 1, sorted(versions))
