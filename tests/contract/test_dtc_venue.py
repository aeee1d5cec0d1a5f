"""The DTC server of the simulator as a venue: the conformance of every venue in both encodings, and what only a server can do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.dtc_harness import SYMBOL, DtcHarness, on_a_shared_account
from tests.contract.venue_conformance import (
    TICK,
    P,
    VenueConformance,
    Watch,
    canceled,
    filled,
    fills,
    never_arrived,
    new_id,
    order,
    refused,
    submit,
    terms,
)
from tests.waiting import eventually

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.order_state import UpdateKind, VenueUpdate
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.sierra_client.venue.domain import dtc_id_of
from minhos_mesh.sierra_simulator.dtc_faults import FaultRates
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings


@pytest.fixture(params=["json", "binary"])
async def venue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DtcHarness]:
    harness = DtcHarness(tmp_path, request.param)
    await harness.serve()
    await harness.start()
    yield harness
    await harness.close()


@pytest.fixture
async def json_venue(tmp_path: Path) -> AsyncIterator[DtcHarness]:
    harness = DtcHarness(tmp_path)
    await harness.serve()
    await harness.start()
    yield harness
    await harness.close()


class TestDtcVenue(VenueConformance):
    pass


async def test_long_ids_are_kept_by_a_short_one_that_is_on_disk_first(json_venue: DtcHarness) -> None:
    await json_venue.show(0, 1)
    long_id = "0b1c9b1e-6f3e-5c60-8d3a-6c0a4f1d2e3f:" + "x" * 27
    taken = await submit(json_venue, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4), client_id=long_id)
    (there,) = json_venue.server.exchange.open_orders()
    assert there.client_order_id == dtc_id_of(long_id)
    assert len(there.client_order_id.encode()) <= 31
    assert taken.venue_order_id == f"dtc:{there.client_order_id}"
    await json_venue.kill()
    assert await order(json_venue, long_id) == taken
    by_venue = await json_venue.stub.GetOrder(pb.GetOrderRequest(venue_order_id=taken.venue_order_id))
    assert by_venue.order == taken
    await json_venue.show(-6, -5)
    (fill,) = await fills(json_venue, long_id)
    assert fill.order_id == long_id


async def test_same_order_again_after_a_crash_before_the_answer_is_not_sent_twice(json_venue: DtcHarness) -> None:
    await json_venue.show(0, 1, size=50)
    json_venue.faults.rates = FaultRates(drop_connection=1.0)
    request = pb.SubmitOrderRequest(
        client_order_id="crash", terms=terms(SYMBOL), provenance=provenance_pb2.PROVENANCE_SIMULATED
    )
    first = (await json_venue.stub.SubmitOrder(request)).order
    assert first.state in {pb.VENUE_ORDER_STATE_PENDING, pb.VENUE_ORDER_STATE_UNKNOWN}
    await json_venue.stop()
    json_venue.faults.rates = FaultRates()
    await json_venue.start()
    again = (await json_venue.stub.SubmitOrder(request)).order
    await json_venue.quiet()
    assert again.venue_order_id == first.venue_order_id
    assert (await order(json_venue, "crash")).state == pb.VENUE_ORDER_STATE_FILLED
    assert len(await fills(json_venue, "crash")) == len(json_venue.server.exchange.fills) == 1


async def test_order_whose_answer_was_lost_is_unknown_until_the_server_has_listed_its_orders(
    json_venue: DtcHarness,
) -> None:
    await json_venue.show(0, 1)
    async with Watch(json_venue) as watch:
        await watch.next()
        json_venue.faults.rates = FaultRates(drop_connection=1.0)
        limit = terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4)
        request = pb.SubmitOrderRequest(
            client_order_id="lost", terms=limit, provenance=provenance_pb2.PROVENANCE_SIMULATED
        )
        await json_venue.stub.SubmitOrder(request)
        json_venue.faults.rates = FaultRates()
        states: list[int] = []
        while not states or states[-1] != pb.VENUE_ORDER_STATE_WORKING:
            states.append((await watch.next()).order.state)
    assert states == [
        pb.VENUE_ORDER_STATE_PENDING,
        pb.VENUE_ORDER_STATE_UNKNOWN,
        pb.VENUE_ORDER_STATE_WORKING,
    ]


async def test_order_that_the_server_refuses_is_rejected_in_its_words(json_venue: DtcHarness) -> None:
    json_venue.server.exchange.settings = replace(
        json_venue.server.exchange.settings, session=ServerSettings(trading=False)
    )
    taken = await submit(json_venue, terms(SYMBOL))
    assert (taken.state, taken.reason_code) == (pb.VENUE_ORDER_STATE_REJECTED, pb.VENUE_ORDER_REASON_OTHER)
    assert "trading is not allowed" in taken.reason_message


async def test_nothing_is_taken_while_the_server_is_away_and_the_code_says_so(json_venue: DtcHarness) -> None:
    port = json_venue.server.port
    await json_venue.show(0, 1)
    held = await submit(json_venue, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
    await json_venue.server.close()
    await eventually(lambda: not json_venue.core.can_send(), "the server is noticed to be away")
    assert await refused(submit(json_venue, terms(SYMBOL), client_id="away")) == (
        grpc.StatusCode.UNAVAILABLE,
        "VENUE_NOT_READY",
    )
    for call in (
        json_venue.stub.CancelOrder(pb.CancelOrderRequest(client_order_id=held.client_order_id)),
        json_venue.stub.ListPositions(pb.ListPositionsRequest()),
        json_venue.stub.GetAccount(pb.GetAccountRequest()),
    ):
        assert await refused(call) == (grpc.StatusCode.UNAVAILABLE, "VENUE_NOT_READY")
    assert await refused(order(json_venue, "away")) == (grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN")
    status = await json_venue.stub.GetVenueStatus(pb.GetVenueStatusRequest())
    assert not status.accepting
    assert status.reason
    assert "DTC_AWAY" in json_venue.core.problems(trades=True)
    await json_venue.serve(port)
    await eventually(json_venue.core.can_send, "the server is reached again")
    assert json_venue.core.problems(trades=True) == {}
    assert (await order(json_venue, held.client_order_id)).state == pb.VENUE_ORDER_STATE_WORKING


async def test_server_that_was_never_reached_is_no_venue_yet(tmp_path: Path) -> None:
    harness = DtcHarness(tmp_path)
    await harness.serve()
    port = harness.server.port
    await harness.server.close()
    await harness.begin(port)
    try:
        call = harness.stub.GetVenueStatus(pb.GetVenueStatusRequest())
        assert await refused(call) == (grpc.StatusCode.UNAVAILABLE, "VENUE_NOT_READY")
    finally:
        await harness.stop()


async def test_orders_of_one_account_are_never_compared_with_those_of_another(tmp_path: Path) -> None:
    harness = DtcHarness(tmp_path)
    await harness.serve()
    await harness.start()
    await harness.show(0, 1)
    held = await submit(harness, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
    await harness.close()
    for settings, words in (
        (DtcServerSettings(accounts=("Sim2",)), "'Sim2'"),
        (DtcServerSettings(session=ServerSettings(name="SierraChart")), "Sierra Chart, account 'Sim1'"),
    ):
        other = DtcHarness(tmp_path, settings=settings)
        (tmp_path / "server.db").unlink(missing_ok=True)
        await other.serve()
        await other.begin()
        await eventually(lambda: other.core.other_server, "the other server is told")  # noqa: B023 - awaited in the round
        assert words in other.core.problems(trades=True)["DTC_SERVER_CHANGED"]
        assert (await order(other, held.client_order_id)).state == pb.VENUE_ORDER_STATE_WORKING
        assert await refused(submit(other, terms(SYMBOL), client_id=new_id())) == (
            grpc.StatusCode.UNAVAILABLE,
            "VENUE_NOT_READY",
        )
        await other.close()


@pytest.mark.parametrize(
    ("server", "dtc", "live"),
    [
        ("SierraChart", {}, True),
        ("SierraChart", {"account_is_simulated": True, "trade_account": "Sim1"}, False),
        ("MinhOS Sierra Simulator", {}, False),
    ],
)
async def test_account_counts_as_real_unless_it_is_certain_that_it_is_not(
    tmp_path: Path, server: str, dtc: dict[str, Any], live: bool
) -> None:
    harness = DtcHarness(tmp_path, settings=DtcServerSettings(session=ServerSettings(name=server)))
    harness.dtc = dtc
    await harness.serve()
    await harness.start()
    await harness.show(0, 1)
    status = await harness.stub.GetVenueStatus(pb.GetVenueStatusRequest())
    account = await harness.stub.GetAccount(pb.GetAccountRequest())
    assert (status.live, account.live, account.account_id) == (live, live, "Sim1")
    if live:
        assert await refused(submit(harness, terms(SYMBOL))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "PROVENANCE_REFUSED",
        )
    else:
        assert (await submit(harness, terms(SYMBOL))).state == pb.VENUE_ORDER_STATE_FILLED
    for provenance, taken in ((provenance_pb2.PROVENANCE_REPLAY, False), (provenance_pb2.PROVENANCE_LIVE, live)):
        request = pb.SubmitOrderRequest(client_order_id=new_id(), terms=terms(SYMBOL), provenance=provenance)
        if taken or (provenance == provenance_pb2.PROVENANCE_LIVE and server == "SierraChart"):
            await harness.stub.SubmitOrder(request)
        else:
            assert (await refused(harness.stub.SubmitOrder(request)))[1] == "PROVENANCE_REFUSED"
    await harness.close()


async def test_resting_order_that_may_only_reduce_is_cancelled_when_others_closed_the_position(
    json_venue: DtcHarness,
) -> None:
    await json_venue.show(0, 1, size=50)
    await submit(json_venue, terms(SYMBOL, quantity=2))
    sell = terms_pb.SIDE_SELL
    target = terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, side=sell, quantity=2, limit=40)
    resting = await submit(json_venue, target, reduce_only=True)
    assert resting.state == pb.VENUE_ORDER_STATE_WORKING
    await submit(json_venue, terms(SYMBOL, side=sell, quantity=1))

    async def canceled() -> bool:
        return (await order(json_venue, resting.client_order_id)).state == pb.VENUE_ORDER_STATE_CANCELED

    await eventually(canceled, "the order that would turn the position is cancelled")
    ended = await order(json_venue, resting.client_order_id)
    assert ended.reason_code == pb.VENUE_ORDER_REASON_REDUCE_ONLY
    over = await submit(json_venue, terms(SYMBOL, side=sell, quantity=2), reduce_only=True)
    assert over.state == pb.VENUE_ORDER_STATE_REJECTED
    assert not [each for each in json_venue.server.exchange.orders.values() if each.quantity == 2 and each.filled == 2][
        1:
    ]


async def test_position_that_our_orders_do_not_explain_is_a_condition(json_venue: DtcHarness) -> None:
    await json_venue.show(0, 1)
    await submit(json_venue, terms(SYMBOL))
    assert json_venue.core.problems(trades=True) == {}
    other = OtherTrader(json_venue.server.port)
    await other.buy(SYMBOL, 3)
    await eventually(lambda: json_venue.core.problems(trades=True), "the foreign fill is noticed")
    assert (
        "is 4 at the server, and our orders make it 1" in json_venue.core.problems(trades=True)["DTC_POSITION_DIFFERS"]
    )
    (position,) = (await json_venue.stub.ListPositions(pb.ListPositionsRequest())).positions
    assert position.quantity == 4
    await other.close()


class OtherTrader:
    """Somebody else who trades on the account, in JSON by hand."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def buy(self, symbol: str, quantity: int) -> None:
        _, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._say(Type=1, ProtocolVersion=8, HeartbeatIntervalInSeconds=60)
        self._say(
            Type=208, Symbol=symbol, ClientOrderID="by-hand", OrderType=1, BuySell=1, Quantity=quantity, TimeInForce=1
        )

    def _say(self, **values: Any) -> None:
        self._writer.write(json.dumps(values).encode() + b"\0")

    async def close(self) -> None:
        self._writer.close()


async def test_limit_of_a_stop_limit_order_follows_its_stop_and_goes_no_way_of_its_own(json_venue: DtcHarness) -> None:
    await json_venue.show(0, 1)
    kind = terms_pb.ORDER_TYPE_STOP_LIMIT
    resting = await submit(json_venue, terms(SYMBOL, kind=kind, stop=8, limit=10))
    change = pb.ReplaceOrderRequest(
        client_order_id=resting.client_order_id, request_id="limit", limit_price_e9=P + 12 * TICK
    )
    assert await refused(json_venue.stub.ReplaceOrder(change)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    change = pb.ReplaceOrderRequest(
        client_order_id=resting.client_order_id, request_id="stop", stop_price_e9=P + 16 * TICK
    )
    changed = (await json_venue.stub.ReplaceOrder(change)).order
    assert (changed.terms.stop_price_e9, changed.terms.limit_price_e9) == (P + 16 * TICK, P + 18 * TICK)


async def test_commission_of_the_configuration_is_told_with_each_fill(tmp_path: Path) -> None:
    harness = DtcHarness(tmp_path)
    harness.dtc = {"commission": "2.04"}
    await harness.serve()
    await harness.start()
    await harness.show(0, 1)
    done = await submit(harness, terms(SYMBOL, quantity=2))
    (fill,) = await fills(harness, done.client_order_id)
    assert fill.commission_e9 == 2 * 2_040_000_000
    assert (await harness.stub.GetAccount(pb.GetAccountRequest())).commission_e9 == fill.commission_e9
    await harness.close()


async def test_order_that_waits_for_its_turn_is_never_said_to_be_unknown_and_is_not_sent_late(
    json_venue: DtcHarness,
) -> None:
    await json_venue.show(0, 1, size=50)
    json_venue.faults.rates = FaultRates(silence=1.0)

    def request(name: str) -> pb.SubmitOrderRequest:
        return pb.SubmitOrderRequest(
            client_order_id=name, terms=terms(SYMBOL), provenance=provenance_pb2.PROVENANCE_SIMULATED
        )

    await json_venue.stub.SubmitOrder(request("silent"))
    waiting = [asyncio.ensure_future(json_venue.stub.SubmitOrder(request(f"waits-{n}"))) for n in range(2)]
    seen: set[tuple[grpc.StatusCode, str]] = set()

    async def the_last_waits() -> bool:
        asked = [json_venue.stub.GetOrder(pb.GetOrderRequest(client_order_id=f"waits-{n}")) for n in range(2)]
        found = await asyncio.gather(*(refused(each) for each in asked))
        seen.update(found)
        return found[1] == (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")

    await eventually(the_last_waits, "it waits behind the others")
    assert {reason for _, reason in seen} <= {"OUTCOME_UNKNOWN", "ORDER_UNKNOWN"}
    await asyncio.gather(*waiting, return_exceptions=True)

    async def given_up() -> bool:
        told = [await refused(order(json_venue, f"waits-{n}")) for n in range(2)]
        return {reason for _, reason in told} == {"ORDER_UNKNOWN"}

    await eventually(given_up, "none of them was sent")
    assert [each.client_order_id for each in json_venue.server.exchange.orders.values()] == ["silent"]


async def test_condition_of_an_unknown_order_ends_with_the_first_word_on_it(json_venue: DtcHarness) -> None:
    await json_venue.show(0, 1)
    await submit(json_venue, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4), client_id="lost")
    core, known = json_venue.core, json_venue.connection.ledger.get("lost")
    assert known is not None
    told: list[dict[str, str]] = []
    core.on_change = lambda: told.append(core.problems(trades=True))
    unknown = replace(known, state=Tracked.UNKNOWN, text="the connection broke")
    await core.save([unknown])
    core.on_update(VenueUpdate(UpdateKind.BECAME_UNKNOWN, unknown))
    assert "the first is lost" in told[-1]["DTC_ORDERS_UNKNOWN"]
    await core.save([known])
    core.on_update(VenueUpdate(UpdateKind.ACCEPTED, known))
    assert told[-1] == {}


# Orders of which nobody tells what became of them.


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[DtcHarness]:
    async with on_a_shared_account(tmp_path) as harness:
        yield harness


async def lost(venue: DtcHarness, what: terms_pb.OrderTerms, name: str = "lost") -> pb.VenueOrder:
    """An order whose answer was lost."""
    venue.faults.rates = FaultRates(drop_connection=1.0)
    request = pb.SubmitOrderRequest(client_order_id=name, terms=what, provenance=provenance_pb2.PROVENANCE_SIMULATED)
    await venue.stub.SubmitOrder(request)

    async def unknown() -> pb.VenueOrder | None:
        known = await order(venue, name)
        return known if known.state == pb.VENUE_ORDER_STATE_UNKNOWN else None

    known: pb.VenueOrder = await eventually(unknown, "the order is unknown")
    return known


async def lost_and_filled(venue: DtcHarness, quantity: int = 2) -> pb.VenueOrder:
    """An order that was filled, of which the lists of the server do not say so."""
    await lost(venue, terms(SYMBOL, quantity=quantity))
    venue.faults.rates = FaultRates()

    async def given_up() -> pb.VenueOrder | None:
        known = await order(venue, "lost")
        return known if "fills that may be of it" in known.reason_message else None

    known: pb.VenueOrder = await eventually(given_up, "the lists do not settle it")
    await eventually(lambda: "DTC_ORDERS_UNKNOWN" in venue.core.problems(trades=True), "it is a condition")
    return known


async def test_unknown_order_that_a_person_says_was_filled_is_filled_once_and_over_a_crash(shared: DtcHarness) -> None:
    known = await lost_and_filled(shared)
    word = filled(known, (1, 1), (1, 1))
    async with Watch(shared, known.revision) as watch:
        settled = (await shared.stub.SettleUnknownOrder(word)).order
        told = [message async for message in watch.until_done("lost")]
    assert [message.WhichOneof("update") for message in told] == ["fill", "order", "fill", "order"]
    assert told[-1].order == settled
    assert (settled.state, settled.filled_quantity) == (pb.VENUE_ORDER_STATE_FILLED, 2)
    assert settled.average_price_e9 == P + TICK
    assert shared.core.problems(trades=True) == {}
    again = (await shared.stub.SettleUnknownOrder(word)).order
    await shared.kill()
    assert again == (await shared.stub.SettleUnknownOrder(word)).order == settled
    booked = await fills(shared, "lost")
    assert [(fill.quantity, fill.price_e9, fill.cumulative_quantity) for fill in booked] == [
        (1, P + TICK, 1),
        (1, P + TICK, 2),
    ]
    (position,) = (await shared.stub.ListPositions(pb.ListPositionsRequest())).positions
    assert (position.quantity, position.cost_e9) == (2, 2 * P + 2 * TICK)
    other = filled(known, (2, 1))
    assert await refused(shared.stub.SettleUnknownOrder(other)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    late = canceled(known, "word-2")
    assert await refused(shared.stub.SettleUnknownOrder(late)) == (grpc.StatusCode.FAILED_PRECONDITION, "ORDER_STATE")


async def test_part_that_a_person_says_was_filled_ends_the_order_with_their_name_and_reason(shared: DtcHarness) -> None:
    known = await lost_and_filled(shared)
    settled = (await shared.stub.SettleUnknownOrder(filled(known, (1, 1)))).order
    assert (settled.state, settled.filled_quantity) == (pb.VENUE_ORDER_STATE_CANCELED, 1)
    assert settled.reason_code == pb.VENUE_ORDER_REASON_SETTLED
    assert settled.reason_message == "settled by ann: looked up"


@pytest.mark.parametrize(
    ("word", "code", "reason", "says"),
    [
        ([(3, 1)], "INVALID_ARGUMENT", "INVALID_FIELD", "at most 2"),
        ([(1, 1), (2, 1)], "INVALID_ARGUMENT", "INVALID_FIELD", "filled.fills"),
        ([(1, -94_000 + 94)], "INVALID_ARGUMENT", "PRICE_SCALE", "filled.fills[0].price_e9"),
    ],
)
async def test_fills_that_cannot_have_been_are_refused_by_name_and_the_order_stays_unknown(
    shared: DtcHarness, word: list[tuple[int, int]], code: str, reason: str, says: str
) -> None:
    known = await lost_and_filled(shared)
    with pytest.raises(grpc.aio.AioRpcError, match=says.replace("[", r"\[")) as caught:
        await shared.stub.SettleUnknownOrder(filled(known, *word))
    assert await refused(shared.stub.SettleUnknownOrder(filled(known, *word))) == (grpc.StatusCode[code], reason)
    assert caught.value.code() is grpc.StatusCode[code]
    off_tick = filled(known, (1, 1))
    off_tick.filled.fills[0].price_e9 += 1
    assert (await refused(shared.stub.SettleUnknownOrder(off_tick)))[1] == "PRICE_OFF_TICK"
    early = filled(known, (1, 1))
    early.filled.fills[0].fill_time.FromSeconds(1)
    assert (await refused(shared.stub.SettleUnknownOrder(early)))[1] == "INVALID_FIELD"
    assert (await order(shared, "lost")).state == pb.VENUE_ORDER_STATE_UNKNOWN


async def test_unknown_order_that_never_arrived_is_rejected_by_the_word_of_a_person(shared: DtcHarness) -> None:
    known = await lost_and_filled(shared)
    settled = (await shared.stub.SettleUnknownOrder(never_arrived(known))).order
    assert (settled.state, settled.reason_code) == (pb.VENUE_ORDER_STATE_REJECTED, pb.VENUE_ORDER_REASON_SETTLED)
    assert settled.reason_message == "settled by ann: not in the Trade Activity Log"
    assert not (await shared.stub.ListOpenOrders(pb.ListOpenOrdersRequest())).orders


async def test_order_that_works_although_a_person_has_settled_it_is_cancelled_at_the_server(shared: DtcHarness) -> None:
    port = shared.server.port
    limit = terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4)
    shared.faults.rates = FaultRates(silence=1.0)
    request = pb.SubmitOrderRequest(client_order_id="lost", terms=limit, provenance=provenance_pb2.PROVENANCE_SIMULATED)
    taken = (await shared.stub.SubmitOrder(request)).order
    assert (taken.state, taken.unanswered) == (pb.VENUE_ORDER_STATE_PENDING, True)
    early = canceled(taken)
    assert await refused(shared.stub.SettleUnknownOrder(early)) == (grpc.StatusCode.FAILED_PRECONDITION, "ORDER_STATE")
    await shared.server.close()

    async def unknown() -> bool:
        return (await order(shared, "lost")).state == pb.VENUE_ORDER_STATE_UNKNOWN

    await eventually(unknown, "the order is unknown")
    settled = (await shared.stub.SettleUnknownOrder(canceled(taken, "word-2"))).order
    assert settled.state == pb.VENUE_ORDER_STATE_CANCELED, "a person can say so while the server is away"
    shared.faults.rates = FaultRates()
    await shared.serve(port)
    await eventually(shared.core.can_send, "the server is back")
    await eventually(lambda: not shared.server.exchange.open_orders(), "the order is cancelled there")
    (there,) = shared.server.exchange.orders.values()
    assert (there.client_order_id, there.filled) == ("lost", 0)
    assert (await order(shared, "lost")).state == pb.VENUE_ORDER_STATE_CANCELED
