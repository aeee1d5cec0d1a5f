"""The way of a service to the event bus: make events, publish them, subscribe to them."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import Message

from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.event_envelope import (
    EventInvalid,
    check_event,
    make_event,
    payload_of,
    uuid7,
)
from minhos_mesh.runtime.event_publisher import EventsRefused, EventsUnacknowledged, Publisher, Refusal
from minhos_mesh.runtime.event_subscription import (
    EventHandler,
    Gap,
    PayloadHandler,
    Reading,
    Subscription,
    TryLater,
    by_payload,
)

__all__ = [
    "EventClient",
    "EventHandler",
    "EventInvalid",
    "EventsRefused",
    "EventsUnacknowledged",
    "Gap",
    "PayloadHandler",
    "Reading",
    "Refusal",
    "Subscription",
    "TryLater",
    "by_payload",
    "check_event",
    "make_event",
    "payload_of",
    "uuid7",
]

PUBLISH_TIMEOUT_S: Final = 5.0


class EventClient:
    """One per service. Its streams run as tasks of the service's context and end with it."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._stub = context.clients.stub(EventBusServiceStub)
        self._publisher = Publisher(self._stub, context.conditions)
        self._publishing = False

    def event(
        self,
        payload: Message,
        *,
        subject: str,
        time_ns: int | None = None,
        correlation_id: str = "",
        caused_by: event_pb2.Event | None = None,
        event_id: str | None = None,
    ) -> event_pb2.Event:
        """`make_event` with this service as source, and now as time unless `time_ns` is given."""
        return make_event(
            payload,
            subject=subject,
            source=self._context.service,
            time_ns=self._context.clock.wall_ns() if time_ns is None else time_ns,
            correlation_id=correlation_id,
            caused_by=caused_by,
            event_id=event_id,
        )

    async def publish(
        self,
        events: Sequence[event_pb2.Event],
        *,
        timeout_s: float | None = PUBLISH_TIMEOUT_S,
        checked: bool = False,
    ) -> list[int]:
        """Stores the events, all or none, and returns their sequences once they are on disk; calls keep their order.

        Events that are `checked` are not checked here again. Raises EventInvalid (nothing was sent), EventsRefused (nothing was stored), EventsUnacknowledged (not known:
        publish the same events again, the bus stores each id once).
        """
        if not self._publishing:
            self._publishing = True
            self._context.tasks.start(self._publisher.run(), "events-publish")
        return await self._publisher.publish(events, timeout_s=timeout_s, checked=checked)

    def subscribe(
        self, handlers: Mapping[type[Message], PayloadHandler], reading: Reading | None = None
    ) -> Subscription:
        """Reads the event types of these payload classes; each handler is given the event and its payload.

        Handlers run one after the other in the order of the bus, unless the reading asks for concurrency. A durable reader's event is acknowledged when its
        handler has returned, and tried again when it raised.
        """
        types, handle = by_payload(handlers)
        return self.subscribe_types(types, handle, reading)

    def subscribe_types(
        self, types: Sequence[str], handle: EventHandler, reading: Reading | None = None
    ) -> Subscription:
        """As `subscribe`, by patterns on the type (`trade.*`, `market.>`; all when empty), with one handler."""
        wanted = dataclasses.replace(reading or Reading(), types=tuple(types))
        if wanted.durable is not None and not wanted.member:
            wanted = dataclasses.replace(wanted, member=f"{self._context.instance_id[:50]}-{secrets.token_hex(4)}")
        subscription = Subscription(self._stub, wanted, handle)
        self._context.tasks.start(subscription.run(), f"events-read-{wanted.durable or 'ephemeral'}")
        return subscription
