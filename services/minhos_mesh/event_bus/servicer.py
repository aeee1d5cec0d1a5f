"""One short method per RPC of EventBusService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceServicer
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.domain.errors import (
    ConsumerConflict,
    ConsumerUnknown,
    DeadLetterUnknown,
    EventConflict,
    EventTypeMissing,
    InvalidField,
    LimitReached,
    NotDelivered,
    PositionLost,
    RequestConflict,
    SequenceMismatch,
    StateConflict,
    TypesUnreachable,
    TypeUnknown,
)
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.event_bus.sessions import (
    PublishSession,
    SubscribeSession,
    known_types,
    note_refused,
    publish,
    read_events,
    refused_whole,
)
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.interceptors import checks_requests_itself
from minhos_mesh.runtime.storage import StorageBusy, StorageClosed, StorageCorrupt, StorageError, StorageFull

_INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT

ERRORS: Final[ErrorTable] = {
    InvalidField: ErrorRow(_INVALID, reasons.ERROR_REASON_INVALID_FIELD, ("field", "seen", "allowed"), field="field"),
    NotDelivered: ErrorRow(_INVALID, reasons.ERROR_REASON_NOT_DELIVERED, ("sequence",)),
    TypeUnknown: ErrorRow(
        _INVALID, reasons.ERROR_REASON_EVENT_TYPE_UNKNOWN, ("field", "type", "nearest"), field="field"
    ),
    EventConflict: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS,
        reasons.ERROR_REASON_REQUEST_CONFLICT,
        ("field", "event_id", "sequence"),
        field="field",
    ),
    RequestConflict: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS,
        reasons.ERROR_REASON_REQUEST_CONFLICT,
        ("field", "request_id"),
        field="field",
    ),
    SequenceMismatch: ErrorRow(
        grpc.StatusCode.ABORTED, reasons.ERROR_REASON_VERSION_MISMATCH, ("subject", "expected", "current")
    ),
    LimitReached: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_LIMIT_REACHED, ("limit", "seen", "allowed")
    ),
    ConsumerUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_CONSUMER_UNKNOWN, ("consumer", "nearest", "known")
    ),
    DeadLetterUnknown: ErrorRow(grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_DEAD_LETTER_UNKNOWN, ("number",)),
    StateConflict: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, ("wanted", "state", "because")
    ),
    PositionLost: ErrorRow(
        grpc.StatusCode.OUT_OF_RANGE, reasons.ERROR_REASON_POSITION_LOST, ("asked", "oldest", "newest")
    ),
    ConsumerConflict: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS,
        reasons.ERROR_REASON_CONSUMER_CONFLICT,
        ("consumer", "member", "types", "subject"),
    ),
    EventTypeMissing: ErrorRow(grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_EVENT_TYPE_UNKNOWN, ("type",)),
    TypesUnreachable: ErrorRow(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, ("service",), retry_after_s=0.5
    ),
    StorageClosed: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.2),
    StorageBusy: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.2),
    StorageFull: ErrorRow(grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_STORE_FULL),
    StorageCorrupt: ErrorRow(grpc.StatusCode.DATA_LOSS, reasons.ERROR_REASON_STORE_DAMAGED),
    StorageError: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_STORE_FAILED, retry_after_s=0.2),
}


class EventBusServicer(EventBusServiceServicer):
    """Serves a bus; `stopping` is set when the service begins to end, so that readers cut off then are not blamed."""

    def __init__(self, bus: EventBus, stopping: asyncio.Event) -> None:
        self._bus = bus
        self._stopping = stopping

    async def Publish(self, request: pb.PublishRequest, context: Any) -> pb.PublishResponse:
        events, refused = await read_events(self._bus, request.events)
        if refused:
            note_refused(self._bus, refused)
            raise refused_whole(refused)
        appended = await publish(self._bus, events, translate.expected_from_pb(request.expected))
        reached("publish.before_answer")
        return pb.PublishResponse(sequences=appended.sequences, duplicates=appended.duplicates)

    @checks_requests_itself
    def PublishStream(
        self, requests: AsyncIterator[pb.PublishStreamRequest], context: Any
    ) -> AsyncIterator[pb.PublishStreamResponse]:
        return PublishSession(self._bus, requests).responses()

    def Subscribe(self, requests: AsyncIterator[pb.SubscribeRequest], context: Any) -> AsyncIterator[Any]:
        return SubscribeSession(self._bus, requests, self._stopping).responses()

    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:
        stored = [count.type for count in await self._bus.engine.type_counts()] if request.types else ()
        known = await known_types(self._bus, request.types, stored)
        events, position = await self._bus.list_events(translate.query_from_pb(request, known))
        bounds = self._bus.bounds
        return pb.ListEventsResponse(
            events=[translate.event_to_pb(event) for event in events],
            next_page_token=translate.page_token(request, position),
            oldest_sequence=bounds.oldest if bounds.newest >= bounds.oldest else 0,
            newest_sequence=bounds.newest,
        )
