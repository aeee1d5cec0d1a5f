"""A client that calls one service without a pause, reads and writes, while it is restarted; it has nothing but the runtime.

Usage: restart_load_child.py REGISTRY SERVICE SYMBOL. Each line on standard input, sent when the one before is answered, gets one JSON object: how many calls
ended well since the last one, which failed, how long the slowest took, and whether each kind of call has ended well by now. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.health.v1.health_events_pb2 import ServiceUnhealthy
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.risk.v1 import risk_manager_service_pb2 as risk_pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_api.sierra.v1 import sierra_client_service_pb2 as sierra_pb
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as simulator_pb
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_control_service_pb2_grpc import TradingControlServiceStub
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.log import configure

SOURCE: Final = "restart_load"
PAUSE_S: Final = 0.004
PATIENCE_S: Final = 10.0
Call = Callable[[int], Awaitable[Any]]


@dataclass
class Seen:
    """What came of the calls since somebody asked."""

    calls: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0


def market_order(symbol: str, number: int) -> terms_pb.OrderTerms:
    return terms_pb.OrderTerms(
        symbol=symbol,
        side=terms_pb.SIDE_SELL if number % 2 else terms_pb.SIDE_BUY,
        type=terms_pb.ORDER_TYPE_MARKET,
        quantity=1,
        time_in_force=terms_pb.TIME_IN_FORCE_DAY,
    )


def an_event(number: int) -> event_pb2.Event:
    when = Timestamp()
    when.GetCurrentTime()
    made = event_pb2.Event(
        event_id=str(uuid.uuid4()), type="service.unhealthy", version=1, source=SOURCE, subject=f"load-{number}"
    )
    made.event_time.CopyFrom(when)
    made.payload.Pack(ServiceUnhealthy(service="nobody"))
    return made


class Patient:
    """A stub whose calls may take as long as a busy machine needs; a call that nobody answers still fails."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, method: str) -> Callable[[Any], Awaitable[Any]]:
        return functools.partial(getattr(self._stub, method), timeout=PATIENCE_S)


def calls_of(service: str, clients: Clients, symbol: str) -> list[Call]:
    """The calls of a service, each made over and over: two reads, or a read and a write under an id of its own."""
    run = uuid.uuid4().hex[:8]
    bus, state = Patient(clients.stub(EventBusServiceStub)), Patient(clients.stub(StateManagerServiceStub))
    market, venue = Patient(clients.stub(MarketDataProviderServiceStub)), Patient(clients.stub(VenueServiceStub))
    simulator, sierra = (
        Patient(clients.stub(SierraSimulatorServiceStub)),
        Patient(clients.stub(SierraClientServiceStub)),
    )
    risk, brain = Patient(clients.stub(RiskManagerServiceStub)), Patient(clients.stub(AIBrainServiceStub))
    orders, control = Patient(clients.stub(OrderServiceStub)), Patient(clients.stub(TradingControlServiceStub))
    registry = Patient(clients.stub(RegistryServiceStub))

    def update(number: int) -> Awaitable[Any]:
        request = state_pb.UpdateStateRequest(
            request_id=f"{run}-{number}", actor=SOURCE, state=state_pb.State(order_quantity=1),
            update_mask=FieldMask(paths=["order_quantity"]),
        )  # fmt: skip
        return state.UpdateState(request)

    def check(number: int) -> Awaitable[Any]:
        terms = market_order(symbol, number)
        return risk.CheckTrade(risk_pb.CheckTradeRequest(request_id=f"{run}-{number}", terms=terms, dry_run=True))

    def place(number: int) -> Awaitable[Any]:
        terms = market_order(symbol, number)
        return orders.PlaceOrder(orders_pb.PlaceOrderRequest(request_id=f"{run}-{number}", actor=SOURCE, terms=terms))

    async def cancel(number: int) -> None:
        try:
            await venue.CancelOrder(venue_pb.CancelOrderRequest(client_order_id=f"{run}-{number}"))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # which is the answer about an order that never was
                raise

    table: dict[str, list[Call]] = {
        "registry": [
            lambda _: registry.ListServices(registry_pb.ListServicesRequest()),
            lambda _: registry.Resolve(registry_pb.ResolveRequest(name="VenueService")),
        ],
        "event_bus": [
            lambda _: bus.ListEvents(bus_pb.ListEventsRequest(page_size=1)),
            lambda number: bus.Publish(bus_pb.PublishRequest(events=[an_event(number)])),
        ],
        "state_manager": [lambda _: state.GetState(state_pb.GetStateRequest()), update],
        "market_data": [
            lambda _: market.GetMarketData(market_pb.GetMarketDataRequest()),
            lambda _: market.GetAllMarketData(market_pb.GetAllMarketDataRequest()),
        ],
        "sierra_simulator": [
            lambda _: simulator.GetStatus(simulator_pb.SierraSimulatorServiceGetStatusRequest()),
            lambda _: simulator.Resume(simulator_pb.ResumeRequest()),
        ],
        "sierra_client": [
            lambda _: sierra.GetStatus(sierra_pb.GetStatusRequest()),
            lambda _: sierra.ListFiles(sierra_pb.ListFilesRequest()),
        ],
        "paper_venue": [lambda _: venue.GetAccount(venue_pb.GetAccountRequest()), cancel],
        "risk_manager": [lambda _: risk.GetRiskLimits(risk_pb.GetRiskLimitsRequest()), check],
        "ai_brain": [
            lambda _: brain.GetCurrentSignal(brain_pb.GetCurrentSignalRequest()),
            lambda _: brain.ListSignals(brain_pb.ListSignalsRequest(page_size=1)),
        ],
        "trading_engine": [lambda _: control.GetTradingState(control_pb.GetTradingStateRequest()), place],
    }
    return table[service]


async def repeat(call: Call, seen: Seen, ended_well: set[Call], stopping: asyncio.Event) -> None:
    for number in itertools.count():
        if stopping.is_set():
            return
        began = time.monotonic()
        try:
            await call(number)
            seen.calls += 1
            ended_well.add(call)
        except grpc.aio.AioRpcError as error:
            seen.failed.append(f"{error.code().name} after {time.monotonic() - began:.2f} s: {error.details()}")
        seen.slowest_ms = max(seen.slowest_ms, (time.monotonic() - began) * 1000)
        await asyncio.sleep(PAUSE_S)


async def main(registry: str, service: str, symbol: str) -> None:
    configure(SOURCE, SOURCE, None)  # standard output is for the answers
    bootstrap_xds(registry, "restart-load")
    clients, stopping, seen = Clients(registry=registry), asyncio.Event(), Seen()
    calls, ended_well = calls_of(service, clients, symbol), set[Call]()

    def asked() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            stopping.set()
            return
        print(json.dumps({**vars(seen), "all_run": len(ended_well) == len(calls)}), flush=True)
        seen.__init__()  # type: ignore[misc] # the same object counts anew

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), asked)
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(repeat(call, seen, ended_well, stopping))
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        await clients.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
