"""What every VenueService must do, whatever is behind it: subclass `VenueConformance` and give it a `venue` fixture."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, Protocol, Self

import grpc
import pytest

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.runtime.errors import read

E9 = 1_000_000_000
TICK = 250_000_000
P = 23_500 * E9
DEADLINE_S = 5.0
_ids = itertools.count(1)


class Venue(Protocol):
    """A venue under test with a market that the test moves; prices are ticks from `P`. Nobody else trades there."""

    symbol: str

    @property
    def stub(self) -> Any:
        """Stub of the running venue."""

    async def show(self, bid: int, ask: int, *, size: int = 5) -> None:
        """Show a quote; everything that it fills is told when this returns."""

    async def trade(self, price: int, size: int) -> None:
        """Let others trade."""

    async def quiet(self) -> None:
        """Return once everything that orders have led to so far is told; a server behind the venue takes its time."""

    async def kill(self) -> None:
        """End the venue as a crash would and start it again on the same store."""


def terms(
    symbol: str,
    *,
    side: int = terms_pb.SIDE_BUY,
    kind: int = terms_pb.ORDER_TYPE_MARKET,
    quantity: int = 1,
    limit: int | None = None,
    stop: int | None = None,
    tif: int = terms_pb.TIME_IN_FORCE_UNSPECIFIED,
) -> terms_pb.OrderTerms:
    return terms_pb.OrderTerms(
        symbol=symbol,
        side=terms_pb.Side.ValueType(side),
        type=terms_pb.OrderType.ValueType(kind),
        quantity=quantity,
        limit_price_e9=None if limit is None else P + limit * TICK,
        stop_price_e9=None if stop is None else P + stop * TICK,
        time_in_force=terms_pb.TimeInForce.ValueType(tif),
    )


def new_id() -> str:
    return f"o-{next(_ids)}"


async def submit(
    venue: Venue, what: terms_pb.OrderTerms, *, client_id: str | None = None, **rest: Any
) -> pb.VenueOrder:
    request = pb.SubmitOrderRequest(
        client_order_id=client_id or new_id(), terms=what, provenance=provenance_pb2.PROVENANCE_SIMULATED, **rest
    )
    answer: pb.SubmitOrderResponse = await venue.stub.SubmitOrder(request)
    await venue.quiet()
    return await order(venue, answer.order.client_order_id)


def canceled(known: pb.VenueOrder, request_id: str = "word") -> pb.SettleUnknownOrderRequest:
    return pb.SettleUnknownOrderRequest(
        request_id=request_id,
        client_order_id=known.client_order_id,
        canceled=pb.SettledCanceled(),
        actor="ann",
        reason="looked up",
    )


def never_arrived(known: pb.VenueOrder, request_id: str = "word") -> pb.SettleUnknownOrderRequest:
    return pb.SettleUnknownOrderRequest(
        request_id=request_id,
        client_order_id=known.client_order_id,
        never_arrived=pb.SettledNeverArrived(),
        actor="ann",
        reason="not in the Trade Activity Log",
    )


def filled(known: pb.VenueOrder, *told: tuple[int, int], request_id: str = "word") -> pb.SettleUnknownOrderRequest:
    """Filled by executions of (contracts, ticks from `P`)."""
    seen = [pb.SettledFill(quantity=quantity, price_e9=P + price * TICK) for quantity, price in told]
    return pb.SettleUnknownOrderRequest(
        request_id=request_id,
        client_order_id=known.client_order_id,
        filled=pb.SettledFills(fills=seen),
        actor="ann",
        reason="looked up",
    )


async def order(venue: Venue, client_id: str) -> pb.VenueOrder:
    answer: pb.GetOrderResponse = await venue.stub.GetOrder(pb.GetOrderRequest(client_order_id=client_id))
    return answer.order


async def fills(venue: Venue, client_id: str) -> list[Any]:
    return list((await venue.stub.ListFills(pb.ListFillsRequest(client_order_id=client_id))).fills)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = read(caught.value)
    return told.code, told.reason.removeprefix("ERROR_REASON_")


class Watch:
    """A WatchOrders stream that is read message by message."""

    def __init__(self, venue: Venue, after: int | None = None) -> None:
        self._call = venue.stub.WatchOrders(pb.WatchOrdersRequest(after_revision=after))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def next(self) -> pb.WatchOrdersResponse:
        """Give the next message that is not a heartbeat."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: pb.WatchOrdersResponse = await self._call.read()
                if message.WhichOneof("update") != "heartbeat":
                    return message

    async def until_done(self, client_id: str) -> AsyncIterator[pb.WatchOrdersResponse]:
        """Give messages up to and with the one in which the order is done."""
        while True:
            message = await self.next()
            yield message
            if message.order.client_order_id == client_id and message.order.state in DONE:
                return


DONE = {
    pb.VENUE_ORDER_STATE_FILLED,
    pb.VENUE_ORDER_STATE_CANCELED,
    pb.VENUE_ORDER_STATE_REJECTED,
    pb.VENUE_ORDER_STATE_EXPIRED,
}


class VenueConformance:
    async def test_market_order_is_filled_at_the_opposite_quote(self, venue: Venue) -> None:
        await venue.show(0, 1)
        taken = await submit(venue, terms(venue.symbol, quantity=2))
        assert taken.venue_order_id
        assert taken.state == pb.VENUE_ORDER_STATE_FILLED
        assert (taken.filled_quantity, taken.average_price_e9) == (2, P + TICK)
        (fill,) = await fills(venue, taken.client_order_id)
        assert (fill.quantity, fill.cumulative_quantity, fill.price_e9) == (2, 2, P + TICK)
        assert fill.order_id == taken.client_order_id
        assert fill.venue_order_id == taken.venue_order_id

    async def test_same_id_with_the_same_terms_is_the_same_order(self, venue: Venue) -> None:
        await venue.show(0, 1)
        first = await submit(venue, terms(venue.symbol), client_id="twice-1")
        again = await submit(venue, terms(venue.symbol), client_id="twice-1")
        assert again == first
        assert len(await fills(venue, "twice-1")) == 1

    async def test_same_id_at_once_is_one_order(self, venue: Venue) -> None:
        await venue.show(0, 1, size=50)
        calls = [submit(venue, terms(venue.symbol), client_id="at-once") for _ in range(8)]
        answers = await asyncio.gather(*calls)
        assert {a.venue_order_id for a in answers} == {answers[0].venue_order_id}
        assert len(await fills(venue, "at-once")) == 1

    async def test_same_id_with_other_terms_is_a_conflict(self, venue: Venue) -> None:
        await submit(venue, terms(venue.symbol), client_id="other-1")
        call = submit(venue, terms(venue.symbol, quantity=2), client_id="other-1")
        assert await refused(call) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")

    async def test_order_is_found_by_either_id_and_unknown_means_never_taken(self, venue: Venue) -> None:
        taken = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        by_venue = await venue.stub.GetOrder(pb.GetOrderRequest(venue_order_id=taken.venue_order_id))
        assert by_venue.order == await order(venue, taken.client_order_id)
        assert await refused(order(venue, "never-seen")) == (grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN")

    @pytest.mark.parametrize(
        ("changed", "code", "reason"),
        [
            ({"quantity": 0}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"quantity": -1}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"quantity": 10_000_000}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"side": 0}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"type": 0}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"symbol": "NQZ99-CME"}, "NOT_FOUND", "SYMBOL_UNKNOWN"),
            ({"type": terms_pb.ORDER_TYPE_LIMIT}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"limit_price_e9": P}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"type": terms_pb.ORDER_TYPE_LIMIT, "limit_price_e9": P + 1}, "INVALID_ARGUMENT", "PRICE_OFF_TICK"),
            ({"type": terms_pb.ORDER_TYPE_LIMIT, "limit_price_e9": 23_500}, "INVALID_ARGUMENT", "PRICE_SCALE"),
            ({"type": terms_pb.ORDER_TYPE_STOP}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ],
    )
    async def test_bad_order_is_an_error_and_nothing_is_taken(
        self, venue: Venue, changed: dict[str, Any], code: str, reason: str
    ) -> None:
        bad = terms(venue.symbol)
        for name, value in changed.items():
            setattr(bad, name, value)
        assert await refused(submit(venue, bad, client_id="bad")) == (grpc.StatusCode[code], reason)
        assert await refused(order(venue, "bad")) == (grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN")

    async def test_resting_order_is_open_until_it_is_filled(self, venue: Venue) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        assert resting.state == pb.VENUE_ORDER_STATE_WORKING
        open_orders = (await venue.stub.ListOpenOrders(pb.ListOpenOrdersRequest())).orders
        assert [o.client_order_id for o in open_orders] == [resting.client_order_id]
        await venue.show(-6, -5)
        assert (await order(venue, resting.client_order_id)).state == pb.VENUE_ORDER_STATE_FILLED
        assert not (await venue.stub.ListOpenOrders(pb.ListOpenOrdersRequest())).orders

    async def test_stop_is_pending_until_its_price_trades(self, venue: Venue) -> None:
        await venue.show(0, 1)
        stop = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_STOP, stop=8))
        assert stop.state == pb.VENUE_ORDER_STATE_PENDING
        await venue.show(7, 8)
        await venue.trade(8, 1)
        assert (await order(venue, stop.client_order_id)).state == pb.VENUE_ORDER_STATE_FILLED

    async def test_immediate_order_ends_with_what_it_found(self, venue: Venue) -> None:
        await venue.show(0, 1, size=2)
        done = await submit(venue, terms(venue.symbol, quantity=5, tif=terms_pb.TIME_IN_FORCE_IOC))
        assert (done.state, done.filled_quantity) == (pb.VENUE_ORDER_STATE_CANCELED, 2)
        assert done.reason_code == pb.VENUE_ORDER_REASON_IOC_REST
        assert done.reason_message
        killed = await submit(venue, terms(venue.symbol, quantity=50, tif=terms_pb.TIME_IN_FORCE_FOK))
        assert (killed.state, killed.filled_quantity) == (pb.VENUE_ORDER_STATE_CANCELED, 0)
        assert killed.reason_code == pb.VENUE_ORDER_REASON_FOK_UNFILLED

    async def test_cancel_ends_a_working_order_and_returns_a_done_one_as_it_is(self, venue: Venue) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        request = pb.CancelOrderRequest(client_order_id=resting.client_order_id)
        first = (await venue.stub.CancelOrder(request)).order
        assert first.state == pb.VENUE_ORDER_STATE_CANCELED
        assert (resting.reason_code, first.reason_code) == (0, pb.VENUE_ORDER_REASON_REQUESTED)
        assert (await venue.stub.CancelOrder(request)).order == first
        unknown = venue.stub.CancelOrder(pb.CancelOrderRequest(client_order_id="never"))
        assert await refused(unknown) == (grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN")

    async def test_cancel_all_leaves_nothing_open(self, venue: Venue) -> None:
        await venue.show(0, 1)
        for limit in (-4, -5, -6):
            await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=limit))
        assert len((await venue.stub.CancelAll(pb.CancelAllRequest(symbol="ESZ99-CME"))).orders) == 0
        assert len((await venue.stub.CancelAll(pb.CancelAllRequest())).orders) == 3
        assert not (await venue.stub.ListOpenOrders(pb.ListOpenOrdersRequest())).orders

    async def test_replace_changes_an_order_once_per_request_id(self, venue: Venue) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4, quantity=2))
        request = pb.ReplaceOrderRequest(
            client_order_id=resting.client_order_id, request_id="change-1", quantity=3, limit_price_e9=P - 2 * TICK
        )
        changed = (await venue.stub.ReplaceOrder(request)).order
        assert (changed.terms.quantity, changed.terms.limit_price_e9) == (3, P - 2 * TICK)
        assert (await venue.stub.ReplaceOrder(request)).order == changed
        request.quantity = 4
        assert await refused(venue.stub.ReplaceOrder(request)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")

    @pytest.mark.parametrize("price_e9", [-1, 0, -P, 10**15 + TICK])
    async def test_replacement_at_a_price_that_is_none_is_refused_without_a_guess(
        self, venue: Venue, price_e9: int
    ) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        request = pb.ReplaceOrderRequest(
            client_order_id=resting.client_order_id, request_id="odd", limit_price_e9=price_e9
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await venue.stub.ReplaceOrder(request)
        told = read(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
        assert told.metadata["field"] == "limit_price_e9"
        assert "meant" not in told.message
        assert await order(venue, resting.client_order_id) == resting

    @pytest.mark.parametrize("which", [{}, {"client_order_id": ""}, {"venue_order_id": ""}, {"client_order_id": "a b"}])
    async def test_order_is_asked_for_by_an_id_that_can_be_one(self, venue: Venue, which: dict[str, str]) -> None:
        call = venue.stub.GetOrder(pb.GetOrderRequest(**which))
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")

    async def test_only_an_order_that_is_unknown_is_settled_by_a_person(self, venue: Venue) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        done = await submit(venue, terms(venue.symbol))
        for known in (resting, done):
            for word in (canceled(known), never_arrived(known), filled(known, (1, 0))):
                call = venue.stub.SettleUnknownOrder(word)
                assert await refused(call) == (grpc.StatusCode.FAILED_PRECONDITION, "ORDER_STATE")
            assert await order(venue, known.client_order_id) == known
        assert len(await fills(venue, done.client_order_id)) == 1
        nobody = canceled(pb.VenueOrder(client_order_id="never-seen"))
        assert await refused(venue.stub.SettleUnknownOrder(nobody)) == (grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"request_id": ""},
            {"request_id": "a b"},
            {"client_order_id": ""},
            {"actor": ""},
            {"reason": ""},
            {"canceled": None},
            {"filled": pb.SettledFills()},
            {"filled": pb.SettledFills(fills=[pb.SettledFill(quantity=0, price_e9=P)])},
            {"filled": pb.SettledFills(fills=[pb.SettledFill(quantity=1, price_e9=0)])},
        ],
    )
    async def test_word_of_a_person_that_says_too_little_is_refused(self, venue: Venue, wrong: dict[str, Any]) -> None:
        whole: dict[str, Any] = {
            "request_id": "word", "client_order_id": "o", "actor": "ann", "reason": "seen", "canceled": pb.SettledCanceled(),
        }  # fmt: skip
        if "filled" in wrong:
            del whole["canceled"]
        call = venue.stub.SettleUnknownOrder(pb.SettleUnknownOrderRequest(**{**whole, **wrong}))
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")

    async def test_done_order_cannot_be_replaced(self, venue: Venue) -> None:
        await venue.show(0, 1)
        done = await submit(venue, terms(venue.symbol))
        request = pb.ReplaceOrderRequest(client_order_id=done.client_order_id, request_id="late", quantity=3)
        assert await refused(venue.stub.ReplaceOrder(request)) == (grpc.StatusCode.FAILED_PRECONDITION, "ORDER_STATE")

    async def test_reduce_only_order_that_would_open_is_rejected_as_an_order(self, venue: Venue) -> None:
        await venue.show(0, 1)
        rejected = await submit(venue, terms(venue.symbol), reduce_only=True)
        assert rejected.state == pb.VENUE_ORDER_STATE_REJECTED
        assert rejected.reduce_only
        assert rejected.reason_code == pb.VENUE_ORDER_REASON_REDUCE_ONLY
        assert rejected.reason_message
        await submit(venue, terms(venue.symbol))
        closing = await submit(venue, terms(venue.symbol, side=terms_pb.SIDE_SELL), reduce_only=True)
        assert closing.state == pb.VENUE_ORDER_STATE_FILLED

    async def test_positions_and_account_follow_the_fills(self, venue: Venue) -> None:
        before = await venue.stub.GetAccount(pb.GetAccountRequest())
        await venue.show(0, 1)
        await submit(venue, terms(venue.symbol, quantity=2))
        (position,) = (await venue.stub.ListPositions(pb.ListPositionsRequest())).positions
        assert (position.symbol, position.quantity, position.average_price_e9) == (venue.symbol, 2, P + TICK)
        await venue.show(5, 6)
        await submit(venue, terms(venue.symbol, side=terms_pb.SIDE_SELL, quantity=2))
        assert not (await venue.stub.ListPositions(pb.ListPositionsRequest())).positions
        after = await venue.stub.GetAccount(pb.GetAccountRequest())
        won = 2 * 4 * TICK * position.multiplier_e9 // E9
        assert after.cash_e9 - before.cash_e9 == won - (after.commission_e9 - before.commission_e9)
        assert after.equity_e9 == after.cash_e9

    async def test_fills_are_paged_oldest_first(self, venue: Venue) -> None:
        await venue.show(0, 1, size=50)
        ids = [(await submit(venue, terms(venue.symbol))).client_order_id for _ in range(5)]
        first = await venue.stub.ListFills(pb.ListFillsRequest(page_size=2))
        rest = await venue.stub.ListFills(pb.ListFillsRequest(page_size=50, page_token=first.next_page_token))
        assert [f.order_id for f in (*first.fills, *rest.fills)] == ids
        assert not rest.next_page_token
        behind = await venue.stub.ListFills(pb.ListFillsRequest(after_fill_id=first.fills[1].fill_id))
        assert list(behind.fills) == list(rest.fills)
        wrong = venue.stub.ListFills(pb.ListFillsRequest(page_token="made up"))
        assert await refused(wrong) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
        other = pb.ListFillsRequest(client_order_id=ids[0], page_token=first.next_page_token)
        assert await refused(venue.stub.ListFills(other)) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
        unknown = venue.stub.ListFills(pb.ListFillsRequest(after_fill_id="never-seen"))
        assert await refused(unknown) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")

    async def test_watch_begins_with_a_snapshot_and_tells_a_fill_before_its_order(self, venue: Venue) -> None:
        await venue.show(0, 1)
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
        async with Watch(venue) as watch:
            snapshot = await watch.next()
            assert [o.client_order_id for o in snapshot.snapshot.orders] == [resting.client_order_id]
            await venue.show(-6, -5)
            told = [message async for message in watch.until_done(resting.client_order_id)]
        assert [m.WhichOneof("update") for m in told] == ["fill", "order"]
        revisions = [snapshot.revision, *(m.revision for m in told)]
        assert revisions == list(range(snapshot.revision, snapshot.revision + 3))

    async def test_watch_resumes_without_hole_or_double(self, venue: Venue) -> None:
        await venue.show(0, 1, size=50)
        async with Watch(venue) as watch:
            start = (await watch.next()).revision
            for number in range(3):
                await submit(venue, terms(venue.symbol), client_id=f"resume-{number}")
            whole = [message async for message in watch.until_done("resume-2")]
        for cut in range(len(whole)):
            async with Watch(venue, after=start + cut) as resumed:
                again = [message async for message in resumed.until_done("resume-2")]
            assert again == whole[cut:]

    async def test_watch_of_a_lost_revision_is_out_of_range(self, venue: Venue) -> None:
        async with Watch(venue, after=10**15) as watch:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch.next()
        told = read(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.OUT_OF_RANGE, "ERROR_REASON_POSITION_LOST")
        assert "was never told" in told.message

    async def test_crash_loses_no_acknowledged_order_fill_position_or_revision(self, venue: Venue) -> None:
        await venue.show(0, 1, size=2)
        filled = await submit(venue, terms(venue.symbol, quantity=2))
        resting = await submit(venue, terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4, quantity=3))
        before = await venue.stub.ListOpenOrders(pb.ListOpenOrdersRequest())
        account = await venue.stub.GetAccount(pb.GetAccountRequest())
        held = await venue.stub.ListPositions(pb.ListPositionsRequest())
        await venue.kill()
        assert await order(venue, filled.client_order_id) == filled
        assert len(await fills(venue, filled.client_order_id)) == 1
        assert await venue.stub.ListOpenOrders(pb.ListOpenOrdersRequest()) == before
        after = await venue.stub.ListPositions(pb.ListPositionsRequest())
        assert [(p.symbol, p.quantity, p.cost_e9) for p in after.positions] == [
            (p.symbol, p.quantity, p.cost_e9) for p in held.positions
        ]
        assert (await venue.stub.GetAccount(pb.GetAccountRequest())).cash_e9 == account.cash_e9
        async with Watch(venue, after=resting.revision) as watch:
            await venue.show(-6, -5)
            told = [message async for message in watch.until_done(resting.client_order_id)]
        assert [m.WhichOneof("update") for m in told] == ["fill", "order"]
        again = await submit(venue, filled.terms, client_id=filled.client_order_id)
        assert again == filled

    async def test_status_says_that_the_money_is_not_real(self, venue: Venue) -> None:
        await venue.show(0, 1)
        status = await venue.stub.GetVenueStatus(pb.GetVenueStatusRequest())
        assert status.venue
        assert status.accepting
        assert status.provenance[venue.symbol] == provenance_pb2.PROVENANCE_SIMULATED
        assert status.live is (await venue.stub.GetAccount(pb.GetAccountRequest())).live
