"""Each kind of call with both stubs: one answer, a stream, both ways, a change, a refusal, a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from grpclib.client import Channel
from tests.contract.both_stubs.comparing import dataclass_values, made, method_of, values_of
from tests.contract.both_stubs.conftest import Both
from tests.contract.both_stubs.serving import BELOW_E9, FILLED, SYMBOL, WORKING, ServedMesh, order

from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_dataclasses.brain.v1 import SignalGenerated
from minhos_dataclasses.market.v1 import GetMarketDataRequest, MarketDataProviderServiceStub, Provenance

BUS = "minhos_api.events.v1.EventBusService"
MARKET = "minhos_api.market.v1.MarketDataProviderService"
ORDERS = "minhos_api.trading.v1.OrderService"
RISK = "minhos_api.risk.v1.RiskManagerService"
STATE = "minhos_api.state.v1.StateManagerService"


def request_of(both: Both, method: str, **values: Any) -> Any:
    return made(method_of(both.contract, method).input_type, values)


# --- one answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [MARKET], indirect=True)
def test_the_last_price_is_the_same_as_their_own_people_write_it(grpc_stub: Any, grpc_addr: str) -> None:
    async def second() -> Any:
        host, _, port = grpc_addr.rpartition(":")
        async with Channel(host, int(port)) as channel:
            stub = MarketDataProviderServiceStub(channel)
            return await stub.get_market_data(GetMarketDataRequest(symbol=SYMBOL), timeout=5)

    def ask() -> tuple[Any, Any]:
        first = grpc_stub.GetMarketData(market_pb.GetMarketDataRequest(symbol=SYMBOL), timeout=5)
        return first, asyncio.run(second())

    answer, other = ask()
    for _attempt in range(50):  # the market may still be coming in between the two questions
        if other.quote.sequence == answer.quote.sequence:
            break
        answer, other = ask()
    assert (other.symbol, other.quote.last_price_e9) == (SYMBOL, answer.quote.last_price_e9)
    assert (other.quote.provenance, other.quote.provenance.name) == (answer.quote.provenance, "SIMULATED")
    assert other.quote.provenance is Provenance.SIMULATED
    assert dataclass_values(other, answer.DESCRIPTOR) == values_of(answer)


@pytest.mark.parametrize("contract", [BUS], indirect=True)
def test_the_payload_of_an_event_opens_to_the_same(both: Both) -> None:
    told = both.same("ListEvents", request_of(both, "ListEvents", types=["ai.signal_generated"])).answer["events"]
    assert {event["payload"]["type_url"] for event in told} == {
        "type.googleapis.com/minhos_api.brain.v1.SignalGenerated"
    }
    payload = told[0]["payload"]["value"]
    opened = brain_events_pb2.SignalGenerated.FromString(payload)
    assert opened.signal.reasons
    assert dataclass_values(SignalGenerated().parse(payload), opened.DESCRIPTOR) == values_of(opened)


@pytest.mark.parametrize("contract", [ORDERS], indirect=True)
def test_absent_is_absent_to_both_and_never_zero(both: Both) -> None:
    filled = both.same("GetOrder", orders_pb.GetOrderRequest(request_id=FILLED)).answer["order"]
    assert "limit_price_e9" not in filled["terms"]
    assert filled["average_price_e9"] % 250_000_000 == 0
    working = both.same("GetOrder", orders_pb.GetOrderRequest(request_id=WORKING)).answer["order"]
    assert working["terms"]["limit_price_e9"] == BELOW_E9
    assert "average_price_e9" not in working


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [MARKET], indirect=True)
def test_a_stream_gives_both_the_same_ticks_behind_a_position(both: Both) -> None:
    stands = both.same("GetMarketData").answer["quote"]
    behind = {"symbol": SYMBOL, "epoch": stands["epoch"], "sequence": stands["sequence"] - 700}
    subscription = {"symbols": [SYMBOL], "resume_after": [behind]}
    asked = request_of(both, "StreamMarketData", subscription=subscription)
    subscribed, batch = both.same("StreamMarketData", asked, answers=2).answers
    assert subscribed["subscribed"]["symbol"] == SYMBOL
    assert batch["ticks"]["first_sequence"] == behind["sequence"] + 1
    assert {tick["price_e9"] % 250_000_000 for tick in batch["ticks"]["ticks"]} == {0}


@pytest.mark.parametrize("contract", [MARKET], indirect=True)
def test_a_two_way_stream_answers_both_the_same(both: Both) -> None:
    kinds = [market_pb.MARKET_DATA_KIND_TICKS, market_pb.MARKET_DATA_KIND_BARS]
    known = request_of(both, "SubscribeMarketData", subscribe={"symbols": [SYMBOL], "kinds": kinds, "bars_back": 3})
    unknown = request_of(both, "SubscribeMarketData", subscribe={"symbols": ["NOPEZ26-CME"]})
    said = both.same("SubscribeMarketData", known, unknown, answers=3).answers
    by_kind = {next(iter(answer)): answer for answer in said}
    assert len(by_kind["snapshot"]["snapshot"]["bars"]) == 3
    refused = [answer["subscribed"] for answer in said if "refused_reason" in answer.get("subscribed", {})]
    assert [(answer["symbol"], answer["refused_reason"]) for answer in refused] == [
        ("NOPEZ26-CME", "ERROR_REASON_SYMBOL_UNKNOWN")
    ]


@pytest.mark.parametrize("contract", [BUS], indirect=True)
def test_the_bus_delivers_both_the_same_events(both: Both) -> None:
    opening = {"types": ["order.updated", "trade.*"], "start": {"beginning": True}, "credit": 100, "ephemeral": {}}
    opened, delivery = both.same("Subscribe", request_of(both, "Subscribe", open=opening), answers=2).answers
    assert opened["opened"]["newest_sequence"] > 0
    told = [delivered["event"] for delivered in delivery["delivery"]["events"]]
    assert {event["type"] for event in told} == {"order.updated", "trade.executed"}
    assert [event["sequence"] for event in told] == sorted(event["sequence"] for event in told)


# --- changes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [ORDERS], indirect=True)
def test_an_order_sent_by_both_under_one_request_id_is_placed_once(served: ServedMesh, both: Both) -> None:
    asked = order("from-both", limit_price_e9=BELOW_E9 - 250_000_000)
    first, second = both.outcomes("PlaceOrder", asked)
    assert first.answer["order"]["order_id"] == second.answer["order"]["order_id"]
    assert first.answer["order"]["checks"] == second.answer["order"]["checks"]
    assert first.answer["order"]["terms"] == second.answer["order"]["terms"]
    listed = both.same("ListOrders").answer["orders"]
    assert [found["request_id"] for found in listed].count("from-both") == 1
    order_id = first.answer["order"]["order_id"]
    both.outcomes("CancelOrder", orders_pb.CancelOrderRequest(order_id=order_id, actor="ann"))


@pytest.mark.parametrize("contract", [STATE], indirect=True)
def test_a_change_of_state_under_one_request_id_is_made_once(both: Both) -> None:
    version = both.same("GetState").answer["state"]["version"]
    asked = request_of(
        both,
        "UpdateState",
        request_id="from-both",
        state={"order_quantity": 2},
        update_mask={"paths": ["order_quantity"]},
        actor="ann",
    )
    changed = both.same("UpdateState", asked).answer["state"]
    assert (changed["order_quantity"], changed["version"]) == (2, version + 1)


# --- refusals -------------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[str, str, dict[str, Any], str, str]] = [
    (MARKET, "GetMarketData", {"symbol": "NOPEZ26-CME"}, "NOT_FOUND", "SYMBOL_UNKNOWN"),
    (MARKET, "GetMarketData", {"symbol": "no symbol"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ORDERS, "GetOrder", {"order_id": "nope"}, "NOT_FOUND", "ORDER_UNKNOWN"),
    (ORDERS, "PlaceOrder", {}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ORDERS, "WatchOrders", {"after_revision": 1}, "OUT_OF_RANGE", "POSITION_LOST"),
    (BUS, "ListEvents", {"page_size": -1}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    (BUS, "Subscribe", {"ack": {"sequences": [1]}}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    (RISK, "ResetBreaker", {"request_id": "r", "actor": "ann", "reason": "test"}, "FAILED_PRECONDITION", "STATE_CONFLICT"),
]  # fmt: skip


@pytest.mark.parametrize(("contract", "method", "values", "code", "reason"), REFUSALS, indirect=["contract"])
def test_a_refusal_has_the_same_code_words_reason_and_metadata(
    both: Both, method: str, values: dict[str, Any], code: str, reason: str
) -> None:
    outcome = both.same(method, request_of(both, method, **values))
    assert (outcome.code, outcome.reason.removeprefix("ERROR_REASON_")) == (code, reason)
    assert outcome.message


# --- deadlines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [MARKET], indirect=True)
def test_both_give_up_at_their_deadline_when_nothing_is_answered(served: ServedMesh, both: Both) -> None:
    with served.standing_still():
        begun = time.monotonic()
        outcomes = both.outcomes("GetMarketData", timeout_s=0.2)
        took = time.monotonic() - begun
    assert [outcome.code for outcome in outcomes] == ["DEADLINE_EXCEEDED"] * 2
    assert 0.35 < took < 5
    assert both.same("GetMarketData").code == "OK"


@pytest.mark.parametrize("contract", [ORDERS], indirect=True)
def test_a_stream_ends_for_both_at_the_deadline_that_its_caller_gave(both: Both) -> None:
    outcomes = both.outcomes("WatchOrders", answers=1_000, timeout_s=0.2)
    assert [outcome.code for outcome in outcomes] == ["DEADLINE_EXCEEDED"] * 2
