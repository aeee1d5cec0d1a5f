"""A session of many orders over a server that misbehaves and dies, through VenueService: in the end both sides have the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.dtc_harness import SYMBOL, DtcHarness
from tests.contract.venue_conformance import DONE, terms
from tests.waiting import eventually

from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import fill_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_mesh.sierra_client.venue.domain import dtc_id_of
from minhos_mesh.sierra_simulator.dtc_faults import FaultRates

ORDERS = int(os.environ.get("MINHOS_DTC_ORDERS", "80"))
"""Orders of one session; a long campaign sets 10000."""
RATES = FaultRates(
    drop_connection=min(0.004, 10 / ORDERS), duplicate=0.05, late=0.05, unknown=0.05, reject=0.03, thin=True
)
AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN})


@dataclass
class Reader:
    """Follows WatchOrders for ever, over every break, behind the last revision that it has seen."""

    venue: DtcHarness
    fills: list[fill_pb2.Fill] = field(default_factory=list)
    orders: dict[str, pb.VenueOrder] = field(default_factory=dict)
    revision: int | None = None
    holes: int = 0
    reopened: int = -1

    async def run(self) -> None:
        while True:
            self.reopened += 1
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
                await self.follow()
            await asyncio.sleep(0.01)

    async def follow(self) -> None:
        call = self.venue.stub.WatchOrders(pb.WatchOrdersRequest(after_revision=self.revision))
        try:
            while isinstance(message := await call.read(), pb.WatchOrdersResponse):
                self.take(message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # else the channel was closed with the venue
                raise

    def take(self, message: pb.WatchOrdersResponse) -> None:
        kind = message.WhichOneof("update")
        if kind in {"order", "fill"}:
            self.holes += self.revision is not None and message.revision != self.revision + 1
        self.revision = message.revision
        if kind == "fill":
            self.fills.append(message.fill)
        elif kind == "order":
            self.orders[message.order.client_order_id] = message.order


async def told(call: Any) -> Any:
    """The answer, None while the venue or the server is away or the outcome open, or when the wish comes too late."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() in AWAY or error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return None
        raise


class Trader:
    """Places, cancels and changes orders at random, and sends each until it is taken."""

    def __init__(self, venue: DtcHarness, seed: int) -> None:
        self.venue, self.random = venue, random.Random(seed)
        self.sent: list[str] = []
        self.slowest_s = 0.0

    async def one(self) -> None:
        draw, venue = self.random, self.venue
        venue.show_market(draw.randrange(-6, 0), draw.randrange(1, 7), size=draw.randrange(1, 9))
        limit = draw.choice([None, draw.randrange(-8, 9)])
        kind = terms_pb.ORDER_TYPE_MARKET if limit is None else terms_pb.ORDER_TYPE_LIMIT
        request = pb.SubmitOrderRequest(
            client_order_id=f"order-{len(self.sent)}-" + "z" * draw.choice([0, 30]),
            terms=terms(
                SYMBOL, kind=kind, limit=limit, quantity=draw.randrange(1, 12),
                side=draw.choice([terms_pb.SIDE_BUY, terms_pb.SIDE_SELL]), tif=terms_pb.TIME_IN_FORCE_GTC,
            ),
            provenance=provenance_pb2.PROVENANCE_SIMULATED,
        )  # fmt: skip
        began = time.monotonic()
        while await told(venue.stub.SubmitOrder(request)) is None:
            assert time.monotonic() < began + 60, venue.core.status
            await asyncio.sleep(0.01)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.sent.append(request.client_order_id)
        older = draw.choice(self.sent[-40:])
        if draw.random() < 0.3:
            await told(venue.stub.CancelOrder(pb.CancelOrderRequest(client_order_id=older)))
        elif draw.random() < 0.2:
            change = pb.ReplaceOrderRequest(
                client_order_id=older, request_id=f"r{len(self.sent)}", quantity=draw.randrange(1, 12)
            )
            await told(venue.stub.ReplaceOrder(change))

    async def end(self) -> None:
        """Cancels what works until nothing does on either side, and nothing is unknown."""

        async def nothing_works() -> bool:
            await told(self.venue.stub.CancelAll(pb.CancelAllRequest()))
            return not self.venue.core.book.open_orders() and not self.venue.server.exchange.open_orders()

        await eventually(nothing_works, f"nothing works: {self.venue.core.book.open_orders()[:3]}", 30 + ORDERS / 100)


@pytest.mark.timeout(60 + ORDERS / 5)
@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_after_silence_cuts_doubles_late_fills_and_kills_both_sides_have_the_same(
    tmp_path: Path, encoding: str
) -> None:
    venue = DtcHarness(tmp_path, encoding)
    venue.heartbeat_s = 1 if ORDERS <= 500 else 5  # with many orders both sides have much to list in this one process
    await venue.serve()
    await venue.start()
    reader, trader = Reader(venue), Trader(venue, 20_261_123)
    reader.revision = 0
    following = asyncio.create_task(reader.run())
    venue.faults.rates = RATES
    every = max(1, ORDERS // max(1, min(10, ORDERS // 100)))
    began = time.monotonic()
    for number in range(ORDERS):
        if number % every == every // 4:
            venue.faults.rates = FaultRates(silence=1.0)
        elif number % every == every // 4 + 1:
            venue.faults.rates = RATES
        elif number % every == every // 2:
            await venue.kill()
        elif number % every == 3 * every // 4:
            await venue.kill_server()
        await trader.one()
    took_s = time.monotonic() - began
    venue.faults.rates = FaultRates()
    await trader.end()
    await venue.quiet()
    await assert_same(venue, trader, reader)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    counts = venue.faults.counts
    assert min(counts["duplicate"], counts["late"], counts["silence"]) > 0
    print(
        f"{encoding}: {ORDERS} orders, {len(venue.server.exchange.fills)} fills in {took_s:.1f} s, the slowest order "
        f"{trader.slowest_s:.2f} s, faults {counts}, watch reopened {reader.reopened} times"
    )
    await venue.close()


async def assert_same(venue: DtcHarness, trader: Trader, reader: Reader) -> None:
    """Orders, fills and positions of the venue, of its watcher, and of the server are the same."""
    exchange = venue.server.exchange
    theirs = {order.client_order_id: order for order in exchange.orders.values()}
    for client_id in trader.sent:
        ours = (await venue.stub.GetOrder(pb.GetOrderRequest(client_order_id=client_id))).order
        assert ours.state in DONE, ours
        there = theirs.pop(dtc_id_of(client_id), None)
        if there is None:
            assert ours.state == pb.VENUE_ORDER_STATE_REJECTED, ours
            continue
        assert (ours.filled_quantity, ours.terms.quantity) == (there.filled, there.quantity), ours
        assert (ours.state == pb.VENUE_ORDER_STATE_FILLED) == (there.filled >= there.quantity), ours
    assert theirs == {}
    listed: list[fill_pb2.Fill] = []
    token = ""
    while True:
        page = await venue.stub.ListFills(pb.ListFillsRequest(page_size=5_000, page_token=token))
        listed += page.fills
        token = page.next_page_token
        if not token:
            break
    names = {dtc_id_of(client_id): client_id for client_id in trader.sent}
    by_order = {order.server_order_id: order for order in exchange.orders.values()}
    by_order |= {server_id: order for order in exchange.orders.values() for server_id in order.server_order_ids}
    real = [(names[by_order[f.server_order_id].client_order_id], f.quantity, f.price_e9) for f in exchange.fills]
    assert sorted((f.order_id, f.quantity, f.price_e9) for f in listed) == sorted(real)
    held = {p.symbol: p.quantity for p in (await venue.stub.ListPositions(pb.ListPositionsRequest())).positions}
    assert held.get(SYMBOL, 0) == exchange.position("Sim1", SYMBOL).quantity
    assert venue.core.problems(trades=True) == {}
    newest = venue.core.book.revision
    await eventually(lambda: reader.revision == newest, "the watcher has seen everything")
    assert reader.holes == 0
    assert [fill.fill_id for fill in reader.fills] == [fill.fill_id for fill in listed]
    assert all(order.state in DONE for order in reader.orders.values())
