"""Decides what an event looks like before it leaves a service: its envelope, its id, and whether it keeps its contract."""

from __future__ import annotations

import difflib
import os
import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.contracts import EventType, event_catalogue, event_of
from minhos_mesh.runtime.errors import FieldViolation
from minhos_mesh.runtime.validation import violations_of

MAX_EVENT_BYTES: Final = 1024 * 1024
"""Largest encoded event that the bus takes."""


class Catalogue(Protocol):
    """Which event types there are."""

    def names(self) -> Collection[str]:
        """All types."""

    def versions(self, event_type: str) -> Sequence[EventType]:
        """What is known of a type, the oldest version first; empty for a type that is not known."""


class OwnCatalogue:
    """The types of the contracts of this program, and those whose payloads it has made itself."""

    def __init__(self) -> None:
        self._met: dict[str, tuple[EventType, ...]] = {}

    def names(self) -> Collection[str]:
        """See Catalogue."""
        return event_catalogue().keys() | self._met.keys()

    def versions(self, event_type: str) -> Sequence[EventType]:
        """See Catalogue."""
        known = event_catalogue().get(event_type)
        return (known,) if known is not None else self._met.get(event_type, ())

    def meet(self, contract: EventType) -> None:
        """Takes note of a payload that stands in no contract of the mesh, but in one of the program that runs here."""
        if contract.type not in event_catalogue() and contract.type not in self._met:
            self._met[contract.type] = (contract,)


OWN: Final = OwnCatalogue()

_TYPE_URL: Final = "type.googleapis.com/"


class EventInvalid(ValueError):
    """Unexpected in a service, expected from outside: an event breaks its contract; each violation names its field."""

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        super().__init__("; ".join(violation.description for violation in violations))
        self.violations = violations


class EventTypeUnknown(EventInvalid):
    """The type is not in the catalogue; `nearest` is what may have been meant, empty when nothing is near."""

    def __init__(self, event_type: str, known: Collection[str]) -> None:
        near = difflib.get_close_matches(event_type, list(known), n=1)
        self.type, self.nearest = event_type, near[0] if near else ""
        hint = f"; was {self.nearest} meant?" if near else ""
        super().__init__((FieldViolation("type", f"type is {event_type!r}, which is not in the catalogue{hint}"),))


class EventTooLarge(EventInvalid):
    """The event is larger than the bus takes."""

    def __init__(self, size: int) -> None:
        self.limit, self.seen, self.allowed = "bytes of an event", size, MAX_EVENT_BYTES
        text = f"the event has {size} bytes: allowed is {MAX_EVENT_BYTES}"
        super().__init__((FieldViolation("payload", text),))


class EventPayloadInvalid(EventInvalid):
    """The payload is not the message registered for the type, or breaks its rules."""

    def __init__(self, event_type: str, seen: str, allowed: str, violations: tuple[FieldViolation, ...]) -> None:
        super().__init__(violations)
        self.type, self.seen, self.allowed = event_type, seen, allowed


_POOL_BYTES: Final = 1024
_pool = bytearray()
os.register_at_fork(after_in_child=_pool.clear)
"""Random bytes taken from the system in one go, for a call of it costs more than the rest of an id; never shared by a fork."""


def _random_bits() -> int:
    """62 random bits."""
    if not _pool:
        _pool.extend(os.urandom(_POOL_BYTES))
    taken = int.from_bytes(_pool[-8:], "big") >> 2
    del _pool[-8:]
    return taken


def uuid7() -> str:
    """A new id that sorts by the time it was made: 48 bits of milliseconds, 12 bits of their fraction, 62 random bits."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | (rest * 4096 // 1_000_000) << 64 | 0b10 << 62
    return str(uuid.UUID(int=value | _random_bits()))


def make_event(
    payload: Message,
    *,
    subject: str,
    source: str,
    time_ns: int,
    correlation_id: str = "",
    caused_by: event_pb2.Event | None = None,
    event_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> event_pb2.Event:
    """Puts a payload into its envelope; the type comes from the payload's contract.

    `time_ns` is when it happened, in nanoseconds since the Unix epoch (event time in a replay). An event that was
    `caused_by` another carries that one's id, and its correlation id unless one is given. Raises TypeError for a
    message that is no event.
    """
    contract = event_of(payload.DESCRIPTOR)
    if contract is None:
        raise TypeError(f"{payload.DESCRIPTOR.full_name} is not the payload of an event type")
    OWN.meet(contract)
    event = event_pb2.Event(
        event_id=event_id or uuid7(),
        type=contract.type,
        version=contract.version,
        source=source,
        subject=subject,
        correlation_id=correlation_id or (caused_by.correlation_id if caused_by is not None else ""),
        causation_id=caused_by.event_id if caused_by is not None else "",
    )
    event.event_time.seconds, event.event_time.nanos = divmod(time_ns, 1_000_000_000)
    event.payload.type_url = _TYPE_URL + str(payload.DESCRIPTOR.full_name)
    event.payload.value = payload.SerializeToString()
    if metadata:
        event.metadata.update(metadata)
    return event


def check_payload(event: event_pb2.Event, catalogue: Catalogue = OWN) -> EventType:
    """Checks type, version and payload against the catalogue. Raises EventTypeUnknown or EventPayloadInvalid."""
    contract, newest = _definition(event, catalogue)
    allowed, seen = str(contract.payload.full_name), event.payload.TypeName()
    if seen != allowed:
        raise _payload_invalid(event, allowed, "payload", f"payload is {seen or 'empty'}: allowed is {allowed}")
    if not 1 <= event.version <= newest:
        raise _payload_invalid(event, allowed, "version", f"version is {event.version}: allowed is 1 to {newest}")
    try:
        payload = message_factory.GetMessageClass(contract.payload).FromString(event.payload.value)
    except DecodeError:
        raise _payload_invalid(event, allowed, "payload", f"payload is no encoded {allowed}") from None
    violations = violations_of(payload, contract.validator)
    if violations:
        inside = tuple(
            FieldViolation(f"payload.{violation.field}", f"payload.{violation.description}") for violation in violations
        )
        raise EventPayloadInvalid(event.type, seen, allowed, inside)
    return contract


def has_whole_time(event: event_pb2.Event) -> bool:
    """Whether the nanoseconds of its time are those of one second, which rules of a contract cannot say."""
    return 0 <= event.event_time.nanos < 1_000_000_000


def _time_violations(event: event_pb2.Event) -> tuple[FieldViolation, ...]:
    if has_whole_time(event):
        return ()
    text = f"event_time.nanos is {event.event_time.nanos}: allowed is 0 to 999999999"
    return (FieldViolation("event_time.nanos", text),)


_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
_LAST_SECOND: Final = 253_402_300_799
"""The one at whose beginning time ends."""


def is_surely_good(event: event_pb2.Event) -> bool:
    """Whether an envelope whose type and version are known keeps the rules of its contract, looked at by hand in a third of the
    time that the contract takes.

    False says nothing yet: the contract tells what is wrong, if anything is. Tests hold both against each other.
    """
    at = event.event_time
    return (
        _ID.fullmatch(event.event_id) is not None
        and 0 < len(event.source) <= 64
        and len(event.subject) <= 128
        and event.HasField("event_time")
        and 0 <= at.seconds < _LAST_SECOND
        and 0 <= at.nanos < 1_000_000_000
        and len(event.correlation_id) <= 64
        and len(event.causation_id) <= 64
        and len(event.traceparent) <= 64
        and len(event.metadata) <= 32
        and event.HasField("payload")
    )


def check_event(event: event_pb2.Event, catalogue: Catalogue = OWN) -> None:
    """Checks envelope, size and payload, as the bus does. Raises EventInvalid."""
    if not (event.version and _TYPE.fullmatch(event.type) and is_surely_good(event)):
        violations = violations_of(event) or _time_violations(event)
        if violations:
            raise EventInvalid(violations)
    size = event.ByteSize()
    if size > MAX_EVENT_BYTES:
        raise EventTooLarge(size)
    check_payload(event, catalogue)


def payload_of(event: event_pb2.Event, catalogue: Catalogue = OWN) -> Message:
    """The payload as its own message. Raises KeyError for an unknown type, DecodeError for broken bytes."""
    try:
        contract, _ = _definition(event, catalogue)
    except EventTypeUnknown as error:
        raise KeyError(event.type) from error
    return message_factory.GetMessageClass(contract.payload).FromString(event.payload.value)


def _definition(event: event_pb2.Event, catalogue: Catalogue) -> tuple[EventType, int]:
    """What the payload of an event is read as, and the newest version of its type: the oldest definition that is not older
    than the event, else the newest. Raises EventTypeUnknown.
    """
    versions = catalogue.versions(event.type)
    if not versions:
        raise EventTypeUnknown(event.type, catalogue.names())
    newest = versions[-1]
    return next((each for each in versions if each.version >= event.version), newest), newest.version


def _payload_invalid(event: event_pb2.Event, allowed: str, field: str, text: str) -> EventPayloadInvalid:
    return EventPayloadInvalid(event.type, event.payload.TypeName(), allowed, (FieldViolation(field, text),))
