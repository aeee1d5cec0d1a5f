"""Stand-ins of risk, venue, market data, state and bus for the trading engine: small servers of the real contracts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
from tests.contract.state_peer import STATE, FakeState

from minhos_api.brain.v1 import brain_events_pb2, signal_pb2
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb2
from minhos_api.events.v1 import event_bus_service_pb2_grpc as bus_grpc
from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2_grpc as market_grpc
from minhos_api.market.v1 import provenance_pb2, quote_pb2
from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.risk.v1 import risk_check_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as risk_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2_grpc as risk_grpc
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_control_service_pb2_grpc import TradingControlServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb2
from minhos_api.venue.v1 import venue_service_pb2_grpc as venue_grpc
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import make_event, payload_of
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.trading_engine.bootstrap import build

SYMBOL = "NQZ26-CME"
E9 = 10**9
PRICE_E9 = 23_500 * E9
SIMULATED = provenance_pb2.PROVENANCE_SIMULATED
REPLAY = provenance_pb2.PROVENANCE_REPLAY
_V = venue_pb2
_DONE = {
    _V.VENUE_ORDER_STATE_FILLED,
    _V.VENUE_ORDER_STATE_CANCELED,
    _V.VENUE_ORDER_STATE_REJECTED,
    _V.VENUE_ORDER_STATE_EXPIRED,
}


class FakeRisk(risk_grpc.RiskManagerServiceServicer):
    """Says what it is told to say; `hold` keeps questions waiting until it is set."""

    def __init__(self) -> None:
        self.approve = True
        self.conflicts = False
        self.questions: list[risk_pb2.CheckTradeRequest] = []
        self.limits: list[risk_pb2.SetRiskLimitsRequest] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.at_once = 0
        self.most_at_once = 0

    async def CheckTrade(self, request: risk_pb2.CheckTradeRequest, context: Any) -> risk_pb2.CheckTradeResponse:
        self.questions.append(request)
        if self.conflicts:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "asked before with other content")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.hold.wait()
        finally:
            self.at_once -= 1
        check = risk_check_pb2.RiskCheck(
            code=risk_check_pb2.RISK_CHECK_CODE_POSITION_LIMIT,
            passed=self.approve,
            observed="1",
            limit="5",
            message="position limit",
        )
        approval = f"a-{len(self.questions)}" if self.approve else ""
        return risk_pb2.CheckTradeResponse(approved=self.approve, checks=[check], approval_id=approval)

    async def SetRiskLimits(self, request: risk_pb2.SetRiskLimitsRequest, context: Any) -> Any:
        self.limits.append(request)
        if request.HasField("expected_version") and request.expected_version != 1:
            await context.abort(grpc.StatusCode.ABORTED, "version 1 is current")
        return risk_pb2.SetRiskLimitsResponse(limits=request.limits, version=2)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not part of this stand-in")

    _unused_any: Any = _unused

    async def GetRiskLimits(self, request: Any, context: Any) -> Any:
        return risk_pb2.GetRiskLimitsResponse(version=1)

    GetRiskMetrics = CalculatePositionSize = TripBreaker = ResetBreaker = WatchRisk = _unused_any


class FakeMarket(market_grpc.MarketDataProviderServiceServicer):
    """One quote."""

    def __init__(self) -> None:
        self.quote: quote_pb2.Quote | None = quote(1)

    async def GetMarketData(self, request: market_pb2.GetMarketDataRequest, context: Any) -> Any:
        return market_pb2.GetMarketDataResponse(symbol=request.symbol, quote=self.quote)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not part of this stand-in")

    _unused_any: Any = _unused
    GetAllMarketData = SubscribeMarketData = StreamMarketData = _unused_any


class FakeVenue(venue_grpc.VenueServiceServicer):
    """A venue in memory. `on_submit` says what happens to an order: fill, rest, reject, refuse, lose, swallow, late or doubt.

    lose: it is taken and the answer never comes; swallow: it is never taken and the answer never comes; late: it is
    taken once `let_in` is set; doubt: the venue itself does not know what became of it; unanswered: it was sent on, and
    nobody has answered.
    """

    def __init__(self) -> None:
        self.on_submit = "fill"
        self.on_cancel = "cancel"
        self.live = False
        self.provenance = SIMULATED
        self.price_e9 = PRICE_E9
        self.orders: dict[str, venue_pb2.VenueOrder] = {}
        self.fills: list[fill_pb2.Fill] = []
        self.log: list[venue_pb2.WatchOrdersResponse] = []
        self.submissions: list[venue_pb2.SubmitOrderRequest] = []
        self.replacements: list[venue_pb2.ReplaceOrderRequest] = []
        self.first_revision = 0
        self.let_in = asyncio.Event()
        self._news = asyncio.Event()

    async def SubmitOrder(self, request: venue_pb2.SubmitOrderRequest, context: Any) -> Any:
        self.submissions.append(request)
        known = self.orders.get(request.client_order_id)
        if known is not None:
            return venue_pb2.SubmitOrderResponse(order=known)
        if self.on_submit == "swallow":
            await asyncio.sleep(60)
        if self.on_submit == "late":
            await self.let_in.wait()
        if self.on_submit == "refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "closed for the day")
        state = _V.VENUE_ORDER_STATE_REJECTED if self.on_submit == "reject" else _V.VENUE_ORDER_STATE_WORKING
        if self.on_submit == "doubt":
            state = _V.VENUE_ORDER_STATE_UNKNOWN
        if self.on_submit == "unanswered":
            state = _V.VENUE_ORDER_STATE_PENDING
        reasons = {"reject": "no margin", "doubt": "the connection broke"}
        order = venue_pb2.VenueOrder(
            client_order_id=request.client_order_id,
            venue_order_id=f"v-{len(self.orders) + 1}",
            terms=request.terms,
            state=state,
            reason_message=reasons.get(self.on_submit, ""),
            unanswered=self.on_submit == "unanswered",
        )
        order.update_time.CopyFrom(request.decision_time)
        self.orders[request.client_order_id] = order
        self.tell(order)
        if self.on_submit == "fill":
            self.fill(request.client_order_id)
        if self.on_submit == "lose":
            await asyncio.sleep(60)
        return venue_pb2.SubmitOrderResponse(order=order)

    def fill(self, order_id: str, quantity: int | None = None, *, tell: bool = True) -> fill_pb2.Fill:
        """Fill an order, whole unless a quantity is given; without `tell` the stream says nothing of it."""
        order = self.orders[order_id]
        quantity = quantity or order.terms.quantity - order.filled_quantity
        order.filled_quantity += quantity
        if order.filled_quantity == order.terms.quantity:
            order.state = _V.VENUE_ORDER_STATE_FILLED
        fill = fill_pb2.Fill(
            fill_id=f"f-{len(self.fills) + 1}",
            order_id=order_id,
            venue_order_id=order.venue_order_id,
            symbol=order.terms.symbol,
            side=order.terms.side,
            quantity=quantity,
            cumulative_quantity=order.filled_quantity,
            price_e9=self.price_e9,
            commission_e9=2 * E9 * quantity,
            fill_time=order.update_time,
            provenance=self.provenance,
        )
        self.fills.append(fill)
        if tell:
            self._append(venue_pb2.WatchOrdersResponse(fill=fill))
            self.tell(order)
        return fill

    def tell(self, order: venue_pb2.VenueOrder) -> None:
        """Put an order as it stands into the stream."""
        order.revision = self.first_revision + len(self.log) + 1
        self._append(venue_pb2.WatchOrdersResponse(order=order))

    def progress(self, through: int, epoch: int = 1) -> None:
        """Say how far a replay has gone."""
        told = venue_pb2.VenueMarketProgress(symbol=SYMBOL, epoch=epoch, through_sequence=through)
        self._append(venue_pb2.WatchOrdersResponse(market_progress=told))

    def forget_stream(self) -> None:
        """Hold nothing of the stream any more, as after a compaction."""
        self.first_revision += len(self.log) + 100
        self.log.clear()

    def _append(self, message: venue_pb2.WatchOrdersResponse) -> None:
        copy = venue_pb2.WatchOrdersResponse()
        copy.CopyFrom(message)
        copy.revision = self.first_revision + len(self.log) + 1
        self.log.append(copy)
        self._news.set()
        self._news = asyncio.Event()

    async def WatchOrders(self, request: venue_pb2.WatchOrdersRequest, context: Any) -> AsyncIterator[Any]:
        after = request.after_revision
        if after < self.first_revision:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "not held")
        while True:
            news = self._news
            while after < self.first_revision + len(self.log):
                message = self.log[after - self.first_revision]
                after += 1
                yield message
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 1.0)
                continue
            yield venue_pb2.WatchOrdersResponse(heartbeat=venue_pb2.VenueHeartbeat(), revision=after)

    async def CancelOrder(self, request: venue_pb2.CancelOrderRequest, context: Any) -> Any:
        if self.on_cancel == "hang":
            await asyncio.sleep(60)
        if self.on_cancel == "refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "too late")
        order = self.orders.get(request.client_order_id)
        if order is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
            raise AssertionError
        self._cancel(order)
        return venue_pb2.CancelOrderResponse(order=order)

    async def CancelAll(self, request: venue_pb2.CancelAllRequest, context: Any) -> Any:
        working = [order for order in self.orders.values() if order.state not in _DONE]
        for order in working:
            self._cancel(order)
        return venue_pb2.CancelAllResponse(orders=working)

    def _cancel(self, order: venue_pb2.VenueOrder) -> None:
        if order.state not in _DONE:
            order.state = _V.VENUE_ORDER_STATE_CANCELED
            order.reason_message = "its client cancelled it"
            order.reason_code = _V.VENUE_ORDER_REASON_REQUESTED
            self.tell(order)

    async def ReplaceOrder(self, request: venue_pb2.ReplaceOrderRequest, context: Any) -> Any:
        order = self.orders[request.client_order_id]
        self.replacements.append(request)
        if self.on_submit == "refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no changes today")
        if self.on_submit == "conflict":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another change has this id")
        if request.HasField("quantity"):
            order.terms.quantity = request.quantity
        if request.HasField("limit_price_e9"):
            order.terms.limit_price_e9 = request.limit_price_e9
        self.tell(order)
        return venue_pb2.ReplaceOrderResponse(order=order)

    async def SettleUnknownOrder(self, request: venue_pb2.SettleUnknownOrderRequest, context: Any) -> Any:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not part of this stand-in")

    async def ConfirmSettlement(self, request: venue_pb2.ConfirmSettlementRequest, context: Any) -> Any:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not part of this stand-in")

    async def GetOrder(self, request: venue_pb2.GetOrderRequest, context: Any) -> Any:
        order = self.orders.get(request.client_order_id)
        if order is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        return venue_pb2.GetOrderResponse(order=order)

    async def ListOpenOrders(self, request: Any, context: Any) -> Any:
        working = [order for order in self.orders.values() if order.state not in _DONE]
        return venue_pb2.ListOpenOrdersResponse(orders=working, revision=self.first_revision + len(self.log))

    async def ListFills(self, request: venue_pb2.ListFillsRequest, context: Any) -> Any:
        found = list(self.fills)
        if request.HasField("after_fill_id"):
            ids = [fill.fill_id for fill in found]
            if request.after_fill_id not in ids:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown fill")
            found = found[ids.index(request.after_fill_id) + 1 :]
        if request.HasField("client_order_id"):
            found = [fill for fill in found if fill.order_id == request.client_order_id]
        return venue_pb2.ListFillsResponse(fills=found)

    async def ListPositions(self, request: Any, context: Any) -> Any:
        held = 0
        for fill in self.fills:
            held += fill.quantity if fill.side == order_terms_pb2.SIDE_BUY else -fill.quantity
        positions = [position_pb2.Position(symbol=SYMBOL, quantity=held)] if held else []
        return venue_pb2.ListPositionsResponse(positions=positions)

    async def GetVenueStatus(self, request: Any, context: Any) -> Any:
        return venue_pb2.GetVenueStatusResponse(
            venue="fake", accepting=True, live=self.live, provenance={SYMBOL: self.provenance}
        )

    async def GetAccount(self, request: Any, context: Any) -> Any:
        return venue_pb2.GetAccountResponse(account_id="fake", currency="USD")


class FakeBus(bus_grpc.EventBusServiceServicer):
    """Keeps what is published, and brings its one reader what a test puts in."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.acked: set[int] = set()
        self.nacked: list[str] = []
        self.to_deliver: list[event_pb2.Event] = []
        self.opened: list[bus_pb2.SubscribeOpen] = []
        self._ids: set[str] = set()
        self._more = asyncio.Event()

    def bring(self, event: event_pb2.Event) -> None:
        """Deliver an event to the reader."""
        event.sequence = len(self.to_deliver) + 1
        self.to_deliver.append(event)
        self._more.set()

    def signal(self, signal: signal_pb2.Signal) -> None:
        """Deliver a signal."""
        told = brain_events_pb2.SignalGenerated(signal=signal)
        self.bring(make_event(told, subject=signal.symbol, source="ai_brain", time_ns=5))

    def told(self, kind: str) -> list[Any]:
        """Payloads of the events of a type that were published, in order."""
        return [payload_of(event) for event in self.events if event.type == kind]

    async def PublishStream(self, requests: AsyncIterator[bus_pb2.PublishStreamRequest], context: Any) -> Any:
        async for request in requests:
            for event in request.events:
                if event.event_id not in self._ids:
                    self._ids.add(event.event_id)
                    self.events.append(event)
            sequences = list(range(1, len(request.events) + 1))
            yield bus_pb2.PublishStreamResponse(batch_id=request.batch_id, sequences=sequences)

    async def Subscribe(self, requests: AsyncIterator[bus_pb2.SubscribeRequest], context: Any) -> Any:
        first = await anext(requests)
        self.opened.append(first.open)
        yield bus_pb2.SubscribeResponse(opened=bus_pb2.SubscribeOpened())
        answers = asyncio.create_task(self._answers(requests))
        answers.add_done_callback(lambda _: self._more.set())
        sent = 0
        try:
            while not answers.done():
                while sent < len(self.to_deliver):
                    item = bus_pb2.DeliveredEvent(event=self.to_deliver[sent], attempt=1)
                    sent += 1
                    yield bus_pb2.SubscribeResponse(delivery=bus_pb2.SubscribeDelivery(events=[item]))
                self._more.clear()
                await self._more.wait()
        finally:
            answers.cancel()

    async def _answers(self, requests: AsyncIterator[bus_pb2.SubscribeRequest]) -> None:
        async for request in requests:
            self.acked.update(request.ack.sequences)
            if request.HasField("nack"):
                self.nacked.append(request.nack.error)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not part of this stand-in")

    Publish = ListEvents = GetStats = _unused


CONTRACTS = {
    "minhos_api.risk.v1.RiskManagerService": "risk",
    "minhos_api.venue.v1.VenueService": "venue",
    "minhos_api.market.v1.MarketDataProviderService": "market",
    "minhos_api.events.v1.EventBusService": "bus",
    STATE: "state",
}


def quote(sequence: int, *, price_e9: int = PRICE_E9, provenance: Any = SIMULATED, seconds: int | None = None) -> Any:
    """A quote, of now unless `seconds` since the Unix epoch are given."""
    made = quote_pb2.Quote(
        symbol=SYMBOL,
        last_price_e9=price_e9,
        bid_e9=price_e9 - E9 // 4,
        ask_e9=price_e9,
        sequence=sequence,
        epoch=1,
        provenance=provenance,
    )
    made.event_time.FromSeconds(int(datetime.now(UTC).timestamp()) if seconds is None else seconds)
    return made


def signal(
    number: int = 1,
    *,
    buy: bool | None = True,
    confidence: float = 0.9,
    provenance: Any = SIMULATED,
    seconds: int | None = None,
) -> signal_pb2.Signal:
    """A signal on a quote; a hold when `buy` is None."""
    actions = {
        True: signal_pb2.SIGNAL_ACTION_BUY,
        False: signal_pb2.SIGNAL_ACTION_SELL,
        None: signal_pb2.SIGNAL_ACTION_HOLD,
    }
    market = quote(number, provenance=provenance, seconds=seconds)
    return signal_pb2.Signal(
        signal_id=f"{SYMBOL}:1:{number}",
        symbol=SYMBOL,
        action=actions[buy],
        confidence=confidence,
        quote=market,
        decision_time=market.event_time,
        through_sequence=number,
    )


def terms(quantity: int = 1, *, buy: bool = True, limit_e9: int | None = None) -> order_terms_pb2.OrderTerms:
    """Terms of a market order, or of a limit order."""
    kind = order_terms_pb2.ORDER_TYPE_MARKET if limit_e9 is None else order_terms_pb2.ORDER_TYPE_LIMIT
    return order_terms_pb2.OrderTerms(
        symbol=SYMBOL,
        side=order_terms_pb2.SIDE_BUY if buy else order_terms_pb2.SIDE_SELL,
        type=kind,
        quantity=quantity,
        limit_price_e9=limit_e9,
    )


@dataclass
class Stubs:
    """The way to a running engine."""

    trading: Any
    orders: Any
    control: Any
    address: str
    conditions: Conditions = field(default_factory=Conditions)
    """What the engine says of its own health; empty for one in another process."""


class Peers:
    """The stand-ins and their servers, and engines beside them."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.risk, self.venue, self.market, self.bus = FakeRisk(), FakeVenue(), FakeMarket(), FakeBus()
        self.state = FakeState()
        self.targets: dict[str, str] = {}
        self._servers: dict[str, MeshServer] = {}

    async def serve(self, name: str, port: int = 0) -> None:
        """Serve one stand-in, on the port it had before when it is served again."""
        contract = next(contract for contract, who in CONTRACTS.items() if who == name)
        if contract in self.targets:
            port = int(self.targets[contract].rpartition(":")[2])
        server = MeshServer([getattr(self, name)], port=port)
        await server.start()
        self._servers[name] = server
        self.targets[contract] = server.address

    async def kill(self, name: str) -> None:
        """End the server of a stand-in; its state stays."""
        server = self._servers.pop(name, None)
        if server is not None:
            await server.stop(0)

    async def take(self, name: str, peer: Any) -> None:
        """Serve another stand-in in the place of one."""
        await self.kill(name)
        setattr(self, name, peer)
        await self.serve(name)

    async def __aenter__(self) -> Self:
        for name in ("risk", "venue", "market", "bus", "state"):
            await self.serve(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._servers):
            await self.kill(name)

    def config(self, **engine: Any) -> MeshConfig:
        """The configuration of the engine; `provenance` is that of the data."""
        provenance = engine.pop("provenance", "SIMULATED")
        overrides = {
            "engine": {"venue_timeout_s": 0.3, **engine},
            "market_data": {"symbols": [SYMBOL]},
            "sierra_client": {"provenance": provenance},
            "dtc": {"port": 1},
        }
        return load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))

    @contextlib.asynccontextmanager
    async def engine(self, **engine: Any) -> AsyncIterator[Stubs]:
        """A real engine on the data folder."""
        failures: list[str] = []
        paths = MeshPaths(self.data_dir)
        paths.create()
        clients = Clients(self.targets)
        context = ServiceContext(
            service="trading_engine",
            instance_id="trading_engine-1",
            config=self.config(**engine),
            paths=paths,
            clients=clients,
            tasks=OwnedTasks(lambda name, error: failures.append(f"{name}: {error!r}")),
        )
        reader = Clients()
        try:
            async with build(context) as parts, MeshServer(parts.servicers, errors=parts.errors) as server:
                try:
                    await parts.start()
                    names = ("TradingEngineService", "OrderService", "TradingControlService")
                    reader = Clients({f"minhos_api.trading.v1.{name}": server.address for name in names})
                    yield Stubs(
                        trading=reader.stub(TradingEngineServiceStub),
                        orders=reader.stub(OrderServiceStub),
                        control=reader.stub(TradingControlServiceStub),
                        address=server.address,
                        conditions=context.conditions,
                    )
                finally:
                    await context.tasks.close()
        finally:
            await reader.close()
            await clients.close()
        assert failures == []


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds and give what it gave. Fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
