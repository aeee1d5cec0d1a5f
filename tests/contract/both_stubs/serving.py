"""All services of the mesh on ports of a thread of this process, under a clock that stands still, so that two calls see the same world."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as simulator_pb
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_mesh.runtime.catalogue import bootstrap_module, service_names
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.service_control import ServiceControlServicer
from minhos_mesh.runtime.tasks import OwnedTasks

NOW: Final = datetime(2026, 11, 16, 15, 0, tzinfo=UTC)
SYMBOL: Final = "NQZ26-CME"
DEADLINE_S: Final = 20.0
SETTINGS: Final = {"feed": {"history_hours": 1}, "engine": {"mode": "MANUAL"}}
FILLED: Final = "by-hand-1"
"""Request of an order that is filled before the first test."""
WORKING: Final = "by-hand-2"
"""Request of an order that works, below the market."""
BELOW_E9: Final = 23_450_000_000_000

T = TypeVar("T")


class ServedMesh:
    """Every service behind its own server; `addresses` by contract."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(int(NOW.timestamp()) * 1_000_000_000)
        self.addresses: dict[str, str] = {}
        self.order_id = ""
        """Of the order that is filled."""
        self.failures: list[str] = []
        self._paths = MeshPaths(folder)
        self._config = load(None, environment={}, overrides=SETTINGS).resolved(NOW)
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives that runs beside the services."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nothing is answered inside of this, though the connections stand."""
        reached, go_on = threading.Event(), threading.Event()

        def stand() -> None:
            reached.set()
            go_on.wait(DEADLINE_S)

        self._loop.call_soon_threadsafe(stand)
        assert reached.wait(DEADLINE_S)
        try:
            yield
        finally:
            go_on.set()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Starts in the order of dependencies; ends in reverse, and asserts that no background task failed."""
        thread = threading.Thread(target=self._loop.run_forever, name="served mesh")
        thread.start()
        try:
            self.run(self._start())
            yield
        finally:
            try:
                self.run(self._stack.aclose())
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join(DEADLINE_S)
                self._loop.close()
        assert self.failures == []

    async def _start(self) -> None:
        load_all()
        self._paths.create()
        for service in service_names():
            await self._serve(service)
        clients = Clients(self.addresses)
        self._stack.push_async_callback(clients.close)
        await self._live(clients)

    async def _live(self, clients: Clients) -> None:
        """Ten minutes of market with signals, one order that is filled and one that works; then the clock stands still."""
        self.clock.advance(600)
        await eventually(functools.partial(_all_was_read, clients))
        orders: Any = clients.stub(OrderServiceStub)
        self.order_id = (await orders.PlaceOrder(order(FILLED))).order.order_id
        await orders.PlaceOrder(order(WORKING, limit_price_e9=BELOW_E9))
        self.clock.advance(1)
        await eventually(functools.partial(_all_was_done, clients))
        await eventually(functools.partial(_all_was_read, clients))

    async def _serve(self, service: str) -> None:
        context = self._context(service)
        self._stack.push_async_callback(context.clients.close)
        build: Callable[[ServiceContext], Any] = import_module(bootstrap_module(service)).build
        parts = await self._stack.enter_async_context(build(context))
        self._stack.push_async_callback(context.tasks.close)
        control = ServiceControlServicer(context, lambda _reason, _deadline_s: None)
        server = MeshServer([*parts.servicers, control], errors=parts.errors, handlers=parts.handlers)
        control.contracts = server.contracts
        await self._stack.enter_async_context(server)
        self._stack.push_async_callback(parts.drain)
        self._stack.callback(context.stopping.set)
        self.addresses.update(dict.fromkeys(server.contracts, server.address))
        if parts.bound is not None:
            parts.bound(server.address)
        await parts.start()

    def _context(self, service: str) -> ServiceContext:
        return ServiceContext(
            service,
            f"{service}-1",
            self._config,
            self._paths,
            Clients(self.addresses),
            clock=self.clock,
            tasks=OwnedTasks(lambda name, error: self.failures.append(f"{service}: {name}: {error!r}")),
        )


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ServedMesh]:
    """A mesh that serves and is ended afterwards."""
    made = ServedMesh(folder)
    with made.serving():
        yield made


def order(request_id: str, limit_price_e9: int | None = None) -> orders_pb.PlaceOrderRequest:
    """A question for one contract: at the market, or at a limit when a price is given."""
    kind = terms_pb.ORDER_TYPE_MARKET if limit_price_e9 is None else terms_pb.ORDER_TYPE_LIMIT
    asked = terms_pb.OrderTerms(
        symbol=SYMBOL, side=terms_pb.SIDE_BUY, type=kind, quantity=1, limit_price_e9=limit_price_e9
    )
    return orders_pb.PlaceOrderRequest(request_id=request_id, actor="ann", terms=asked)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not await _holds(holds):
            await asyncio.sleep(0.01)


async def _holds(look: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await look()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return False  # the machine is busy: asked again


async def _all_was_read(clients: Clients) -> bool:
    """Whether what the simulator wrote has gone all the way to the brain."""
    simulator: Any = clients.stub(SierraSimulatorServiceStub)
    brain: Any = clients.stub(AIBrainServiceStub)
    told = await simulator.GetStatus(simulator_pb.SierraSimulatorServiceGetStatusRequest())
    seen = await brain.ListSignals(brain_pb.ListSignalsRequest())
    written = told.simulator.records_written
    return bool(seen.signals) and [p.through_sequence for p in seen.progress] == [written]


async def _all_was_done(clients: Clients) -> bool:
    """Whether the orders stand where they will stay, and the state manager has heard of it."""
    orders, state = clients.stub(OrderServiceStub), clients.stub(StateManagerServiceStub)
    stands = {
        found.request_id: found.state for found in (await orders.ListOrders(orders_pb.ListOrdersRequest())).orders
    }
    booked = (await state.GetPortfolio(state_pb.GetPortfolioRequest())).fills
    return stands == {FILLED: order_pb2.ORDER_STATE_FILLED, WORKING: order_pb2.ORDER_STATE_WORKING} and booked == 1
