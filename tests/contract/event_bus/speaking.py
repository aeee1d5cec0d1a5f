"""What tests of the bus say to it by hand: events, readers, and what a refused call told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.runtime.errors import read
from minhos_mesh.runtime.events import make_event


def event(subject: str = "s", service: str = "x", **more: Any) -> event_pb2.Event:
    payload = ServiceStarted(service=service, instance_id="x-1")
    return make_event(payload, subject=subject, source="tester", time_ns=1_790_000_000_000_000_000, **more)


def stopped(subject: str = "s") -> event_pb2.Event:
    return make_event(ServiceStopped(service="x", instance_id="x-1"), subject=subject, source="other", time_ns=10**18)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for the condition, 10 seconds at the most."""
    async with asyncio.timeout(10):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)


class RawReader:
    """A Subscribe stream by hand."""

    def __init__(self, stub: Any, opening: pb.SubscribeOpen) -> None:
        self.call = stub.Subscribe()
        self._opening = opening

    async def open(self) -> pb.SubscribeOpened:
        await self.call.write(pb.SubscribeRequest(open=self._opening))
        opened: pb.SubscribeOpened = (await self._next()).opened
        return opened

    async def _next(self) -> Any:
        async with asyncio.timeout(10):
            response = await self.call.read()
        assert response is not grpc.aio.EOF
        return response

    async def next(self) -> Any:
        while (response := await self._next()).WhichOneof("message") == "heartbeat":
            pass
        return response

    async def ended(self) -> None:
        """Returns once the bus has ended the stream."""
        async with asyncio.timeout(10):
            while await self.call.read() is not grpc.aio.EOF:
                pass

    async def events(self, count: int) -> list[pb.DeliveredEvent]:
        found: list[pb.DeliveredEvent] = []
        while len(found) < count:
            found += (await self.next()).delivery.events
        return found

    async def sequences(self, count: int) -> list[int]:
        return [item.event.sequence for item in await self.events(count)]

    async def send(self, **message: Any) -> None:
        await self.call.write(pb.SubscribeRequest(**message))

    async def ack(self, *sequences: int) -> None:
        await self.send(ack=pb.SubscribeAck(sequences=sequences))


def durable(
    name: str = "c",
    member: str = "m",
    credit: int = 100,
    *,
    start_at_beginning: bool = False,
    types: tuple[str, ...] | list[str] = (),
    **more: Any,
) -> pb.SubscribeOpen:
    start = pb.SubscribeStart(beginning=True) if start_at_beginning else None
    return pb.SubscribeOpen(
        types=types, credit=credit, start=start, durable=pb.DurableReader(name=name, member=member, **more)
    )


async def code_and_reason(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = read(caught.value)
    return told.code.name, told.reason.removeprefix("ERROR_REASON_")
