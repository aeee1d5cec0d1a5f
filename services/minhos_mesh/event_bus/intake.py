"""Decides how the events of a batch are read: everything that the contracts say is checked, and what is the same for many events once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.domain.records import MAX_EVENT_BYTES, NewEvent
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.runtime.event_envelope import EventInvalid, check_payload, has_whole_time
from minhos_mesh.runtime.validation import violations_of

_SURELY_SMALL: Final = MAX_EVENT_BYTES - 1024
"""An encoded event up to this size is not too large, whatever stands in the fields that are not stored."""

Reads = Callable[[bytes], Message | None]
"""Reads a payload; None when it breaks its rules. Raises DecodeError."""


def events_of(request: pb.PublishStreamRequest, payloads: Payloads) -> tuple[list[NewEvent], list[translate.Refused]]:
    """As translate.events_from_pb, several times faster for a batch of which nothing is refused."""
    if not payloads.refused and not violations_of(request):
        found = _good(request.events, payloads)
        if found is not None:
            return found, []
    return translate.events_from_pb(request.events, payloads)


def _good(events: Sequence[event_pb2.Event], payloads: Payloads) -> list[NewEvent] | None:
    """The events of a request that keeps its rules; None when it is to be said what is wrong with their payloads."""
    kinds: dict[tuple[str, int, str], Reads] = {}
    found: list[NewEvent] = []
    for event in events:
        if not has_whole_time(event):
            return None
        kind, payload = event.type, event.payload
        key = kind, event.version, payload.type_url
        try:
            reads = kinds.get(key)
            if reads is None:
                kinds[key] = _reader(event, payloads)
            elif reads(payload.value) is None:
                return None
        except (EventInvalid, DecodeError):
            return None
        if event.sequence or event.HasField("store_time"):
            event.ClearField("sequence")
            event.ClearField("store_time")
        envelope = event.SerializeToString()
        if len(envelope) > _SURELY_SMALL:
            return None
        event_id = bytes.fromhex(event.event_id.replace("-", ""))
        found.append(NewEvent(event_id, kind, event.subject, event.source, event.correlation_id, envelope))
    return found


def _reader(event: event_pb2.Event, payloads: Payloads) -> Reads:
    """What reads payloads like this one, which is checked. Raises EventInvalid."""
    contract = check_payload(event, payloads)
    read, validator = message_factory.GetMessageClass(contract.payload).FromString, contract.validator

    def reads(value: bytes) -> Message | None:
        payload: Message = read(value)
        return None if violations_of(payload, validator) else payload

    return reads
