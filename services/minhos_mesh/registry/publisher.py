"""Decides how waiting events reach the event bus: in order, each at least once under one id, whenever a bus is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_bus_service_pb2_grpc as bus_rpc
from minhos_api.events.v1 import event_pb2
from minhos_mesh.registry.domain.directory import Rotation
from minhos_mesh.registry.outbox import Outbox, Waiting
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.views import ServiceUnknown
from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.contracts import event_catalogue
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.wire_time import timestamp

BUS: Final = "minhos_api.events.v1.EventBusService"
BATCH: Final = 100
"""Events sent at once."""
RETRY_S: Final = 1.0
"""Pause while events wait and nobody takes them."""
PUBLISH_TIMEOUT_S: Final = 5.0
_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
)

_log = get_logger("registry.publisher")


class EventPublisher:
    """Relays the outbox to whichever event bus is in rotation."""

    def __init__(self, registry: Registry, outbox: Outbox, source: str) -> None:
        self._registry, self._outbox, self._source = registry, outbox, source
        self._wake = asyncio.Event()
        self._address: str | None = None
        self._channel: grpc.aio.Channel | None = None
        outbox.on_commit(self._wake.set)

    async def run(self) -> None:
        """Relays for as long as the registry lives."""
        try:
            while True:
                self._wake.clear()
                waiting = await self._outbox.first(BATCH)
                if not waiting:
                    await self._wake.wait()
                elif not await self._relay(waiting):
                    await asyncio.sleep(RETRY_S)
        finally:
            if self._channel is not None:
                await self._channel.close()

    async def _relay(self, waiting: Sequence[Waiting]) -> bool:
        """Sends what waits; False when it has to wait longer."""
        stub = await self._stub()
        if stub is None:
            return False
        request = bus_pb.PublishRequest(events=[self._event(item) for item in waiting])
        try:
            await stub.Publish(request, timeout=PUBLISH_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _REFUSED:
                return False
            if len(waiting) > 1:  # one of them is refused: sent alone, it does not hold up the others
                return all([await self._relay([item]) for item in waiting])
            _log.error("event.refused", type=waiting[0].fact.type, error=error.details())
        await self._outbox.forget(waiting[-1].position)
        return True

    async def _stub(self) -> bus_rpc.EventBusServiceAsyncStub | None:
        try:
            found = [present for present in self._registry.resolve(BUS) if present.rotation() is Rotation.IN]
        except ServiceUnknown:
            found = []
        if not found:
            return None
        if self._channel is None or found[0].address != self._address:
            if self._channel is not None:
                await self._channel.close()
            self._address = found[0].address
            self._channel = grpc.aio.insecure_channel(self._address, options=channel_options.CHANNEL)
        return bus_rpc.EventBusServiceStub(self._channel)

    def _event(self, item: Waiting) -> event_pb2.Event:
        known = event_catalogue()[item.fact.type]
        payload = any_pb2.Any(type_url=f"type.googleapis.com/{known.payload.full_name}", value=item.fact.payload)
        return event_pb2.Event(
            event_id=item.event_id,
            type=item.fact.type,
            version=known.version,
            source=self._source,
            subject=item.fact.subject,
            event_time=timestamp(item.fact.time_ns),
            payload=payload,
        )
