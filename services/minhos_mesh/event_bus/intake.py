"""Decides how the events of a batch are read: everything that the contracts say is checked, and what is the same for many events once.

Whatever is not surely good is looked at event by event, which finds the words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus import translate
from minhos_mesh.event_bus.domain.records import MAX_EVENT_BYTES, NewEvent
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.runtime.event_envelope import EventInvalid, check_event, check_payload, is_surely_good
from minhos_mesh.runtime.validation import faultless, violations_of

_SURELY_SMALL: Final = MAX_EVENT_BYTES - 1024
"""An encoded event up to this size is not too large, whatever stands in the fields that are not stored."""
MOST_EVENTS: Final = 1000
"""Of one batch."""
_MOST_EXPECTED: Final = 1000


def keeps_its_form(request: pb.PublishStreamRequest) -> bool:
    """Whether a batch has an id, and as many events and expectations as it may have."""
    return 0 < len(request.events) <= MOST_EVENTS and request.batch_id > 0 and len(request.expected) <= _MOST_EXPECTED


def events_of(request: pb.PublishStreamRequest, payloads: Payloads) -> tuple[list[NewEvent], list[translate.Refused]]:
    """As translate.events_from_pb, several times faster for a batch of which nothing is refused."""
    if not payloads.refused and keeps_its_form(request) and not (request.expected and violations_of(request)):
        found = _good(request, payloads)
        if found is not None:
            return found, []
    return translate.events_from_pb(request.events, payloads)


def _good(request: pb.PublishStreamRequest, payloads: Payloads) -> list[NewEvent] | None:
    """The events of a batch that keep their rules; None when it is to be said what is wrong with one."""
    kinds = payloads.readers
    found: list[NewEvent] = []
    try:
        for event in request.events:
            kind, payload = event.type, event.payload
            key = kind, event.version, payload.type_url
            reads = kinds.get(key) or _reader(event, payloads)
            if not (is_surely_good(event) and reads(payload.value)):
                return None
            if event.sequence or event.HasField("store_time"):
                event.ClearField("sequence")
                event.ClearField("store_time")
            envelope = event.SerializeToString()
            if len(envelope) > _SURELY_SMALL:
                return None
            event_id = bytes.fromhex(event.event_id.replace("-", ""))
            found.append(NewEvent(event_id, kind, event.subject, event.source, event.correlation_id, envelope))
    except (EventInvalid, DecodeError):
        return None
    return found


def _reader(event: event_pb2.Event, payloads: Payloads) -> Callable[[bytes], bool]:
    """What says whether bytes are a payload that keeps its rules, for the kind of this event, which is checked whole.

    It raises DecodeError. Raises EventInvalid.
    """
    check_event(event, payloads)
    contract = check_payload(event, payloads)
    key = event.type, event.version, event.payload.type_url
    read, is_faultless = message_factory.GetMessageClass(contract.payload).FromString, faultless(contract.validator)
    reads = payloads.readers[key] = lambda value: is_faultless(read(value))
    return reads
