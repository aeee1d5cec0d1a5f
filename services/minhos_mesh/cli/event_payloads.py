"""Decides how payloads are read that this program was not built with: by the descriptors that the bus keeps of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from minhos_api.events.v1 import event_admin_service_pb2 as admin
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.contracts import event_catalogue

_LEARNED: Final[dict[tuple[str, int], type[Message] | None]] = {}
"""Messages by type and version; None where the bus does not know it either."""


async def learn(clients: Clients, events: Iterable[event_pb2.Event]) -> None:
    """Asks the bus for what these events carry and this program does not know."""
    for key in {(event.type, event.version) for event in events if _is_foreign(event)} - _LEARNED.keys():
        _LEARNED[key] = await _asked(clients, *key)


async def learn_type(clients: Clients, event_type: str, version: int) -> type[Message] | None:
    """The message that carries this type; None when nobody knows it."""
    known = event_catalogue().get(event_type)
    if known is not None and version <= known.version:
        return GetMessageClass(known.payload)
    if (event_type, version) not in _LEARNED:
        _LEARNED[event_type, version] = await _asked(clients, event_type, version)
    return _LEARNED[event_type, version]


def payload_dict(event: event_pb2.Event) -> dict[str, Any] | None:
    """The payload as JSON has it; None when its message is not known. Call `learn` before."""
    kind = _LEARNED.get((event.type, event.version)) if _is_foreign(event) else None
    try:
        if kind is None:
            return _as_dict(event.payload, None)
        told = _as_dict(kind.FromString(event.payload.value), kind.DESCRIPTOR.file.pool)
        return {"@type": event.payload.type_url, **told}
    except (TypeError, ValueError, KeyError, DecodeError, SerializeToJsonError):
        return None


def _as_dict(message: Message, pool: Any) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, descriptor_pool=pool
    )


def _is_foreign(event: event_pb2.Event) -> bool:
    known = event_catalogue().get(event.type)
    return known is None or event.version > known.version or event.payload.TypeName() != known.payload.full_name


async def _asked(clients: Clients, event_type: str, version: int) -> type[Message] | None:
    try:
        told = await clients.stub(EventAdminServiceStub).GetEventType(
            admin.GetEventTypeRequest(type=event_type, version=version)
        )
    except grpc.RpcError:
        return None
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(told.descriptor_set).file:
        pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(told.definition.payload))
