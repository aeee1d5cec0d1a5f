"""One short method per RPC of EventAdminService."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from minhos_api.events.v1 import event_admin_service_pb2 as pb
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceServicer
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.event_bus import translate_admin as translate
from minhos_mesh.event_bus.admin import EventAdmin
from minhos_mesh.event_bus.domain.errors import TypesUnreachable
from minhos_mesh.event_bus.event_types import EventTypes
from minhos_mesh.runtime.errors import MeshError
from minhos_mesh.runtime.event_envelope import EventInvalid

V = TypeVar("V")
M = TypeVar("M", bound=Message)


class Told(Generic[V, M]):
    """How a result is answered now, and again to the same request id."""

    def __init__(self, kind: type[M], to_pb: Callable[[V], M]) -> None:
        self._kind = kind
        self._to_pb = to_pb

    def encode(self, value: V) -> bytes:
        """The answer as it is kept."""
        return bytes(self._to_pb(value).SerializeToString())

    def answer(self, result: V | bytes) -> M:
        """The answer to a new result, or the one that was kept."""
        return self._kind.FromString(result) if isinstance(result, bytes) else self._to_pb(result)


class EventAdminServicer(EventAdminServiceServicer):
    """Serves the admin of a bus."""

    def __init__(self, admin: EventAdmin, types: EventTypes) -> None:
        self._admin = admin
        self._types = types
        self._payloads = types.payloads

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        return translate.stats_to_pb(await self._admin.stats())

    async def ListEventTypes(self, request: pb.ListEventTypesRequest, context: Any) -> pb.ListEventTypesResponse:
        await self._learn()
        return translate.types_to_pb(request, await self._admin.types(), self._payloads)

    async def GetEventType(self, request: pb.GetEventTypeRequest, context: Any) -> pb.GetEventTypeResponse:
        if not self._payloads.versions(request.type):
            await self._learn()
        return translate.type_to_pb(request, self._payloads)

    async def ListConsumers(self, request: pb.ListConsumersRequest, context: Any) -> pb.ListConsumersResponse:
        after, limit = translate.consumers_page(request)
        reports, last = await self._admin.consumers(request.name, after, limit)
        return translate.consumers_to_pb(request, reports, last)

    async def PauseConsumer(self, request: pb.PauseConsumerRequest, context: Any) -> pb.PauseConsumerResponse:
        report = await self._admin.pause(request.name, request.actor, request.reason)
        return pb.PauseConsumerResponse(consumer=translate.consumer_to_pb(report))

    async def ResumeConsumer(self, request: pb.ResumeConsumerRequest, context: Any) -> pb.ResumeConsumerResponse:
        report = await self._admin.resume(request.name, request.actor)
        return pb.ResumeConsumerResponse(consumer=translate.consumer_to_pb(report))

    async def ResetConsumer(self, request: pb.ResetConsumerRequest, context: Any) -> pb.ResetConsumerResponse:
        told = Told(pb.ResetConsumerResponse, translate.reset_to_pb)
        asked, start = translate.request_of(request), translate.start_of_reset(request)
        return told.answer(await self._admin.reset(asked, request.name, start, told.encode))

    async def DeleteConsumer(self, request: pb.DeleteConsumerRequest, context: Any) -> pb.DeleteConsumerResponse:
        told = Told(pb.DeleteConsumerResponse, translate.deleted_to_pb)
        return told.answer(await self._admin.delete(translate.request_of(request), request.name, told.encode))

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        query = translate.letters_query(request, await self._known_types())
        found = await self._admin.dead_letters(query)
        return translate.letters_to_pb(request, query.limit, found, await self._admin.waiting_letters())

    async def RequeueDeadLetters(
        self, request: pb.RequeueDeadLettersRequest, context: Any
    ) -> pb.RequeueDeadLettersResponse:
        told = Told(pb.RequeueDeadLettersResponse, translate.requeued_to_pb)
        which = translate.letters_of(request, await self._known_types())
        edit, asked = translate.editing(request, self._payloads), translate.request_of(request)
        try:
            return told.answer(await self._admin.requeue(asked, which, request.to_consumer, edit, told.encode))
        except EventInvalid as error:
            raise _payload_refused(error) from None

    async def DeleteDeadLetters(
        self, request: pb.DeleteDeadLettersRequest, context: Any
    ) -> pb.DeleteDeadLettersResponse:
        told = Told(pb.DeleteDeadLettersResponse, translate.removed_to_pb)
        which = translate.letters_of(request, await self._known_types())
        return told.answer(await self._admin.remove(translate.request_of(request), which, told.encode))

    async def BackupJournal(self, request: pb.BackupJournalRequest, context: Any) -> pb.BackupJournalResponse:
        told = Told(pb.BackupJournalResponse, translate.saved_to_pb)
        return told.answer(await self._admin.backup(translate.request_of(request), request.file_name, told.encode))

    async def _learn(self) -> None:
        """Takes up what instances offer; what is known already is told also while nobody can be asked."""
        with contextlib.suppress(TypesUnreachable):
            await self._types.learn()

    async def _known_types(self) -> set[str]:
        return {*self._payloads.names(), *(count.type for count in await self._admin.types())}


def _payload_refused(error: EventInvalid) -> MeshError:
    return MeshError(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_EVENT_PAYLOAD_INVALID,
        str(error),
        metadata={"field": error.violations[0].field},
        violations=error.violations,
    )
