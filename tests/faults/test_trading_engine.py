from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.trading_engine_peers import SYMBOL, Peers, Stubs, signal, terms, until

from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb2
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_control_service_pb2_grpc import TradingControlServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.runtime.clients import Clients

CHILD = Path(__file__).with_name("trading_engine_child.py")
FILLED = order_pb2.ORDER_STATE_FILLED
DENIED = order_pb2.ORDER_STATE_DENIED


class Killable:
    """An engine in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, stubs: Stubs) -> None:
        self.process = process
        self.stubs = stubs

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with Peers(tmp_path) as made:
        yield made


@asynccontextmanager
async def engine_process(peers: Peers) -> AsyncIterator[Killable]:
    overrides = {"engine": {"venue_timeout_s": 0.5}, "market_data": {"symbols": [SYMBOL]}}
    arguments = (str(CHILD), str(peers.data_dir), json.dumps(peers.targets), json.dumps(overrides))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        address = (await process.stdout.readline()).decode().strip()
    assert address, "the engine ended before it served"
    names = ("TradingEngineService", "OrderService", "TradingControlService")
    reader = Clients({f"minhos_api.trading.v1.{name}": address for name in names})
    stubs = Stubs(
        trading=reader.stub(TradingEngineServiceStub),
        orders=reader.stub(OrderServiceStub),
        control=reader.stub(TradingControlServiceStub),
        address=address,
    )
    running = Killable(process, stubs)
    try:
        yield running
    finally:
        await reader.close()
        await running.kill()


async def place(stubs: Stubs, request_id: str, **more: Any) -> order_pb2.Order | None:
    """Place an order; None when the engine died under the call."""
    request = orders_pb2.PlaceOrderRequest(request_id=request_id, terms=terms(**more), actor="ann")
    try:
        answer = await stubs.orders.PlaceOrder(request, timeout=15, wait_for_ready=False)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise
        return None
    order: order_pb2.Order = answer.order
    return order


async def order_of(stubs: Stubs, request_id: str) -> order_pb2.Order:
    order: order_pb2.Order = (await stubs.orders.GetOrder(orders_pb2.GetOrderRequest(request_id=request_id))).order
    return order


async def becomes(stubs: Stubs, request_id: str, state: Any) -> order_pb2.Order:
    async def look() -> order_pb2.Order | None:
        order = await order_of(stubs, request_id)
        return order if order.state == state else None

    found: order_pb2.Order = await until(look, 15)
    return found


async def held(stubs: Stubs) -> int:
    answer = await stubs.trading.GetPositions(engine_pb2.GetPositionsRequest())
    return sum(position.quantity for position in answer.positions)


@pytest.mark.parametrize("how", ["lose", "swallow"])
async def test_killed_while_an_order_is_being_sent_it_is_neither_lost_nor_doubled(peers: Peers, how: str) -> None:
    peers.venue.on_submit = how
    async with engine_process(peers) as engine:
        acknowledged = await place(engine.stubs, "r-1")
        assert acknowledged is not None
        await until(lambda: peers.venue.submissions)
        await engine.kill()
    peers.venue.on_submit = "fill"
    async with engine_process(peers) as engine:
        if how == "lose":
            peers.venue.fill(acknowledged.order_id)
        await becomes(engine.stubs, "r-1", FILLED)
        assert (len(peers.venue.orders), len(peers.venue.fills), await held(engine.stubs)) == (1, 1, 1)


async def test_killed_while_risk_thinks_nothing_is_sent_and_the_order_is_denied(peers: Peers) -> None:
    peers.risk.hold.clear()
    async with engine_process(peers) as engine:
        placing = asyncio.create_task(place(engine.stubs, "r-1"))
        await until(lambda: peers.risk.questions)
        await engine.kill()
        assert await placing is None
    peers.risk.hold.set()
    async with engine_process(peers) as engine:
        order = await place(engine.stubs, "r-1")
        assert order is not None
        assert (order.state, order.reason) == (DENIED, order_pb2.ORDER_REASON_RISK_UNAVAILABLE)
    assert peers.venue.submissions == []


async def test_fills_that_happen_while_the_engine_is_dead_are_booked_once(peers: Peers) -> None:
    peers.venue.on_submit = "rest"
    async with engine_process(peers) as engine:
        order = await place(engine.stubs, "r-1", quantity=3)
        assert order is not None
        await becomes(engine.stubs, "r-1", order_pb2.ORDER_STATE_WORKING)
        peers.venue.fill(order.order_id, 1)
        await becomes(engine.stubs, "r-1", order_pb2.ORDER_STATE_PARTIALLY_FILLED)
        await engine.kill()
    peers.venue.fill(order.order_id, 1)
    peers.venue.fill(order.order_id, 1, tell=False)
    async with engine_process(peers) as engine:
        await becomes(engine.stubs, "r-1", FILLED)
        assert await held(engine.stubs) == 3
    trades = [trade.fill.fill_id for trade in peers.bus.told("trade.executed")]
    assert sorted(trades) == ["f-1", "f-2", "f-3"]


async def test_a_latched_emergency_stop_survives_a_kill_and_goes_on_cancelling(peers: Peers) -> None:
    peers.venue.on_submit = "rest"
    async with engine_process(peers) as engine:
        order = await place(engine.stubs, "r-1")
        assert order is not None
        await becomes(engine.stubs, "r-1", order_pb2.ORDER_STATE_WORKING)
        await peers.kill("venue")
        request = control_pb2.EmergencyStopRequest(actor="ann", reason="smoke")
        stopping = asyncio.ensure_future(engine.stubs.control.EmergencyStop(request))
        await until(lambda: latched_of(engine.stubs))
        await engine.kill()
        await asyncio.gather(stopping, return_exceptions=True)
    await peers.serve("venue")
    async with engine_process(peers) as engine:
        assert await latched_of(engine.stubs)
        canceled = await becomes(engine.stubs, "r-1", order_pb2.ORDER_STATE_CANCELED)
        assert canceled.reason == order_pb2.ORDER_REASON_EMERGENCY_STOP


async def latched_of(stubs: Stubs) -> bool:
    answer = await stubs.control.GetTradingState(control_pb2.GetTradingStateRequest())
    return bool(answer.status.emergency_stop.latched)


@pytest.mark.timeout(120)
async def test_killed_again_and_again_under_load_no_order_is_doubled_or_lost(peers: Peers) -> None:
    randomness = random.Random(7)
    acknowledged: dict[str, order_pb2.Order] = {}
    numbers = iter(range(10_000))
    for _ in range(5):
        async with engine_process(peers) as engine:
            placing = [asyncio.create_task(_keep_placing(engine.stubs, numbers, acknowledged)) for _ in range(4)]
            peers.bus.signal(signal(next(numbers) + 1, buy=randomness.random() < 0.5))
            await asyncio.sleep(randomness.uniform(0.05, 0.4))
            await engine.kill()
            await asyncio.gather(*placing)
    async with engine_process(peers) as engine:
        await until(lambda: _all_open_orders_done(peers))
        await _check_equal(peers, engine.stubs, acknowledged)


async def _keep_placing(stubs: Stubs, numbers: Any, acknowledged: dict[str, order_pb2.Order]) -> None:
    while True:
        request_id = f"r-{next(numbers)}"
        order = await place(stubs, request_id, buy=len(acknowledged) % 2 == 0)
        if order is None:
            return
        acknowledged[request_id] = order


def _all_open_orders_done(peers: Peers) -> bool:
    return sum(fill.quantity for fill in peers.venue.fills) == sum(
        o.terms.quantity for o in peers.venue.orders.values()
    )


async def _check_equal(peers: Peers, stubs: Stubs, acknowledged: dict[str, order_pb2.Order]) -> None:
    assert len(acknowledged) > 20
    for request_id in acknowledged:
        await becomes(stubs, request_id, FILLED)
    submitted = Counter(fill.order_id for fill in peers.venue.fills)
    assert set(submitted.values()) == {1}
    listed = await stubs.orders.ListOrders(orders_pb2.ListOrdersRequest(page_size=1000))
    filled = {order.order_id for order in listed.orders if order.state == FILLED}
    assert filled == set(peers.venue.orders)
    assert {order.state for order in listed.orders} <= {FILLED, DENIED}
    theirs = sum(fill.quantity if fill.side == 1 else -fill.quantity for fill in peers.venue.fills)
    assert await held(stubs) == theirs
    await until(lambda: len(peers.bus.told("trade.executed")) >= len(peers.venue.fills))
    told = Counter(trade.fill.fill_id for trade in peers.bus.told("trade.executed"))
    assert (set(told), set(told.values())) == ({fill.fill_id for fill in peers.venue.fills}, {1})
