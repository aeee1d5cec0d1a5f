"""A client of a running mesh that never gives up: reads ticks, places orders and publishes events while services die.

It knows only the address of the registry and finds everything through it. What it was promised it writes to standard
output, one JSON object per line; when its standard input ends it finishes what it has begun and says so.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.health.v1.health_events_pb2 import ServiceUnhealthy
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.log import configure
from minhos_mesh.runtime.market import Gap, MarketClient, Snapshot, TickBatchView
from minhos_mesh.runtime.market_updates import EpochChanged

SOURCE: Final = "fault_test"
_PAUSE_S: Final = 0.1
_AGAIN_S: Final = 0.05
AGAIN: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.FAILED_PRECONDITION}
)
"""No answer, or not now, as when no price has come yet: the same is asked again."""


def tell(what: str, **values: Any) -> None:
    print(json.dumps({"what": what, **values}), flush=True)


async def read(clients: Clients, stopping: asyncio.Event) -> None:
    subscription = MarketClient(clients).subscribe()
    async with subscription:
        async for update in subscription:
            match update:
                case TickBatchView():
                    tell("ticks", epoch=update.epoch, first=update.first_sequence, last=update.last_sequence)
                case Snapshot(position=position) if position is not None:
                    tell("snapshot", epoch=position.epoch, last=position.sequence)
                case Gap() as gap:
                    tell("gap", epoch=gap.epoch, first=gap.first_sequence, last=gap.last_sequence)
                case EpochChanged() as changed:
                    tell("epoch", epoch=changed.epoch)
                case _:
                    pass
            if stopping.is_set():
                return


async def trade(clients: Clients, stopping: asyncio.Event, symbol: str) -> None:
    stub, number = clients.stub(OrderServiceStub), 0
    while not stopping.is_set():
        request = orders_pb.PlaceOrderRequest(
            request_id=f"fault-{number}",
            actor=SOURCE,
            terms=terms_pb.OrderTerms(
                symbol=symbol,
                side=terms_pb.SIDE_SELL if number % 2 else terms_pb.SIDE_BUY,
                type=terms_pb.ORDER_TYPE_MARKET,
                quantity=1,
                time_in_force=terms_pb.TIME_IN_FORCE_DAY,
            ),
        )

        def place(request: orders_pb.PlaceOrderRequest = request) -> Awaitable[orders_pb.PlaceOrderResponse]:
            answer: Awaitable[orders_pb.PlaceOrderResponse] = stub.PlaceOrder(request)
            return answer

        answer = await insist(place, "order")
        if answer is not None:
            tell("order", request_id=request.request_id, order_id=answer.order.order_id, state=answer.order.state)
        number += 1
        await pause(stopping)


async def publish(clients: Clients, stopping: asyncio.Event) -> None:
    stub, number = clients.stub(EventBusServiceStub), 0
    while not stopping.is_set():
        event = event_pb2.Event(
            event_id=str(uuid.uuid4()), type="service.unhealthy", version=1, source=SOURCE, subject=f"fault-{number}"
        )
        event.event_time.CopyFrom(now())
        event.payload.Pack(ServiceUnhealthy(service="nobody"))

        def send(request: bus_pb.PublishRequest) -> Callable[[], Awaitable[bus_pb.PublishResponse]]:
            return lambda: stub.Publish(request)

        answer = await insist(send(bus_pb.PublishRequest(events=[event])), "event")
        if answer is not None:
            tell("event", event_id=event.event_id, sequence=answer.sequences[0])
        number += 1
        await pause(stopping)


async def insist(call: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The answer, asked for with the same id until there is one; None when it is a refusal for good."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            tell("failed", call=what, code=error.code().name, message=error.details())
            if error.code() not in AGAIN:
                return None
        await asyncio.sleep(_AGAIN_S)


async def pause(stopping: asyncio.Event) -> None:
    """Between two calls of a kind."""
    try:
        async with asyncio.timeout(_PAUSE_S):
            await stopping.wait()
    except TimeoutError:
        return


def now() -> Timestamp:
    made = Timestamp()
    made.GetCurrentTime()
    return made


async def main(registry: str, symbol: str) -> None:
    configure(SOURCE, SOURCE, None)  # standard output is for what is told below
    bootstrap_xds(registry, "fault-test")
    clients, stopping = Clients(registry=registry), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopping.set)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read(clients, stopping))
            group.create_task(trade(clients, stopping, symbol))
            group.create_task(publish(clients, stopping))
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        await clients.close()
    tell("done")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
