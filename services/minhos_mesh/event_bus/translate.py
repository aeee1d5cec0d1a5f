"""How messages of the contract become values of the bus and back; envelopes pass through as bytes."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf import timestamp_pb2
from google.protobuf.duration_pb2 import Duration

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.event_bus.domain.errors import EventConflict, InvalidField, SequenceMismatch, TypeUnknown
from minhos_mesh.event_bus.domain.latest import Gap, GapCause
from minhos_mesh.event_bus.domain.patterns import Selection, matches_any, selection
from minhos_mesh.event_bus.domain.records import EventQuery, NewEvent, StoredEvent
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.event_bus.readers import SlowReaderPolicy
from minhos_mesh.event_bus.service import Durable, Start
from minhos_mesh.runtime.errors import FieldViolation
from minhos_mesh.runtime.event_envelope import (
    EventInvalid,
    EventPayloadInvalid,
    EventTooLarge,
    EventTypeUnknown,
    check_event,
    payload_of,
)
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.runtime.validation import shown

NS: Final = 1_000_000_000
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1000
LARGEST_NUMBER: Final = 2**63 - 2
"""No sequence, number of a dead letter or instant in ns is larger; what is asked for beyond it is read as this."""

_POLICIES: Final = {
    pb.SLOW_READER_POLICY_UNSPECIFIED: SlowReaderPolicy.KEEP_ALL_WITH_GAP,
    pb.SLOW_READER_POLICY_KEEP_ALL_WITH_GAP: SlowReaderPolicy.KEEP_ALL_WITH_GAP,
    pb.SLOW_READER_POLICY_LATEST_PER_SUBJECT: SlowReaderPolicy.LATEST_PER_SUBJECT,
}


_CAUSES: Final = {
    GapCause.SLOW_READER: pb.GAP_CAUSE_SLOW_READER,
    GapCause.RETENTION: pb.GAP_CAUSE_RETENTION,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why one event of a batch is not stored."""

    index: int
    event_type: str
    reason: reasons.ErrorReason.ValueType
    metadata: dict[str, str]
    violations: tuple[FieldViolation, ...]
    is_unknown: bool = False
    """Whether its type or its version is not known."""

    @property
    def is_size(self) -> bool:
        """Whether it is too large."""
        return self.reason == reasons.ERROR_REASON_LIMIT_REACHED

    @property
    def message(self) -> str:
        """One sentence for each violation."""
        return "; ".join(violation.description for violation in self.violations)


def events_from_pb(events: Sequence[event_pb2.Event], payloads: Payloads) -> tuple[list[NewEvent], list[Refused]]:
    """The events of a batch, and what is wrong with those that are not listed."""
    new: list[NewEvent] = []
    refused: list[Refused] = []
    for index, event in enumerate(events):
        try:
            if payloads.refused and (why := payloads.refusal(event.type, event.version, event.source)):
                raise _other_definition(event, why)
            check_event(event, payloads)
        except EventInvalid as error:
            refused.append(_refused(index, event.type, error))
        else:
            new.append(_new_event(event))
    return new, refused


def may_be_learned(refused: Sequence[Refused]) -> bool:
    """Whether a definition that the bus does not know yet may be all that is missing."""
    return any(item.reason != reasons.ERROR_REASON_INVALID_FIELD and not item.is_size for item in refused)


def are_unknown(refused: Sequence[Refused]) -> bool:
    """Whether nothing can be said of some event, for its type or its version is not known."""
    return any(item.is_unknown for item in refused)


def _other_definition(event: event_pb2.Event, why: str) -> EventPayloadInvalid:
    what = f"{event.type} version {event.version} is another message than the one that is known: {why}"
    text = f"payload of {event.source} for {what}; give it a version of its own"
    return EventPayloadInvalid(
        event.type, event.payload.TypeName(), "the message that is known", (FieldViolation("payload", text),)
    )


def _new_event(event: event_pb2.Event) -> NewEvent:
    event.ClearField("sequence")
    event.ClearField("store_time")
    return NewEvent(
        event_id=uuid.UUID(event.event_id).bytes,
        type=event.type,
        subject=event.subject,
        source=event.source,
        correlation_id=event.correlation_id,
        envelope=event.SerializeToString(),
    )


def _refused(index: int, event_type: str, error: EventInvalid) -> Refused:
    reason = reasons.ERROR_REASON_INVALID_FIELD
    metadata = shown(error.violations[0]) | {"field": f"events[{index}].{error.violations[0].field}"}
    if isinstance(error, EventTypeUnknown):
        reason = reasons.ERROR_REASON_EVENT_TYPE_UNKNOWN
        metadata |= {"type": error.type, "nearest": error.nearest}
    elif isinstance(error, EventPayloadInvalid):
        reason = reasons.ERROR_REASON_EVENT_PAYLOAD_INVALID
        metadata |= {"type": error.type, "seen": error.seen, "allowed": error.allowed}
    elif isinstance(error, EventTooLarge):
        reason = reasons.ERROR_REASON_LIMIT_REACHED
        metadata |= {"limit": error.limit, "seen": str(error.seen), "allowed": str(error.allowed)}
    place = f"events[{index}]: " if isinstance(error, EventTooLarge) else f"events[{index}]."
    violations = tuple(
        FieldViolation(f"events[{index}].{violation.field}", f"{place}{violation.description}")
        for violation in error.violations
    )
    is_newer = isinstance(error, EventPayloadInvalid) and error.violations[0].field == "version"
    unknown = isinstance(error, EventTypeUnknown) or is_newer
    return Refused(index, event_type, reason, metadata, violations, is_unknown=unknown)


def refusals_to_pb(refused: Sequence[Refused]) -> list[pb.EventRefusal]:
    """The refusals as the publish stream tells them."""
    return [
        pb.EventRefusal(
            index=item.index,
            reason=reasons.ErrorReason.Name(item.reason),
            message=item.message,
            metadata=item.metadata,
        )
        for item in refused
    ]


def conflicts_to_pb(error: EventConflict) -> list[pb.EventRefusal]:
    """The events whose ids are stored with other content, as the publish stream tells them."""
    return [
        pb.EventRefusal(
            index=conflict.index,
            reason=reasons.ErrorReason.Name(reasons.ERROR_REASON_REQUEST_CONFLICT),
            message=str(conflict),
            metadata={
                "field": f"events[{conflict.index}].event_id",
                "event_id": conflict.event_id,
                "sequence": str(conflict.sequence),
            },
        )
        for conflict in error.conflicts
    ]


def mismatches_to_pb(error: SequenceMismatch, expected: Sequence[pb.ExpectedSequence]) -> list[pb.EventRefusal]:
    """The subjects that stand elsewhere, as the publish stream tells them."""
    places = {item.subject: index for index, item in enumerate(expected)}
    return [
        pb.EventRefusal(
            index=places[mismatch.subject],
            reason=reasons.ErrorReason.Name(reasons.ERROR_REASON_VERSION_MISMATCH),
            message=str(mismatch),
            metadata={
                "subject": mismatch.subject,
                "expected": str(mismatch.expected),
                "current": str(mismatch.current),
            },
        )
        for mismatch in error.mismatches
    ]


def expected_from_pb(expected: Sequence[pb.ExpectedSequence]) -> Mapping[str, int]:
    """What a publisher takes to be newest, by subject. Raises InvalidField for a subject that is named twice."""
    found: dict[str, int] = {}
    for index, item in enumerate(expected):
        if item.subject in found:
            raise InvalidField(f"expected[{index}].subject", item.subject, "each subject once")
        found[item.subject] = item.sequence
    return found


def same_content(payloads: Payloads, stored: bytes, again: bytes) -> bool:
    """Whether two envelopes tell the same: type, subject, source and payload, whatever the order of its encoded fields."""
    if stored == again:
        return True
    one, other = event_pb2.Event.FromString(stored), event_pb2.Event.FromString(again)
    if (one.type, one.subject, one.source) != (other.type, other.subject, other.source):
        return False
    if one.payload == other.payload:
        return True
    if not payloads.versions(one.type):
        return False
    return payload_of(one, payloads) == payload_of(other, payloads)


def event_to_pb(stored: StoredEvent) -> event_pb2.Event:
    """The event with its place."""
    event = event_pb2.Event.FromString(stored.envelope)
    _place(event, stored)
    return event


def _place(event: event_pb2.Event, stored: StoredEvent) -> None:
    event.sequence = stored.sequence
    event.store_time.seconds, event.store_time.nanos = divmod(stored.store_time_ns, NS)


def gap_to_pb(gap: Gap) -> pb.SubscribeResponse:
    """The message for what a reader does not get."""
    told = pb.SubscribeGap(
        first_sequence=gap.first, last_sequence=gap.last, skipped=gap.skipped, cause=_CAUSES[gap.cause]
    )
    return pb.SubscribeResponse(gap=told)


def selection_from_pb(opening: pb.SubscribeOpen, known: Collection[str]) -> Selection:
    """Which events a reader wants. Raises InvalidField and TypeUnknown."""
    subject = opening.subject if opening.HasField("subject") else None
    return known_selection(opening.types, subject, "open.types", known)


def all_match(wanted: Sequence[str], known: Collection[str]) -> bool:
    """Whether every pattern matches a known type."""
    return all(pattern in known or any(matches_any((pattern,), name) for name in known) for pattern in wanted)


def known_selection(types: Sequence[str], subject: str | None, field: str, known: Collection[str]) -> Selection:
    """The selection, every pattern of which matches a known type. Raises InvalidField and TypeUnknown."""
    found = selection(types, subject, field=field)
    for index, wanted in enumerate(types):
        if wanted not in known and not any(matches_any((wanted,), name) for name in known):
            near = difflib.get_close_matches(wanted, list(known), n=1)
            raise TypeUnknown(f"{field}[{index}]", wanted, near[0] if near else None)
    return found


def start_from_pb(start: pb.SubscribeStart) -> Start:
    """Where a reader begins."""
    kind = start.WhichOneof("start")
    return Start(
        beginning=start.beginning,
        after_sequence=start.after_sequence if kind == "after_sequence" else None,
        time_ns=instant_ns(start.time) if kind == "time" else None,
        latest_per_subject=start.latest_per_subject,
    )


def policy_from_pb(reader: pb.EphemeralReader) -> SlowReaderPolicy:
    """What a slow reader gets."""
    return _POLICIES[reader.slow_reader_policy]


def durable_from_pb(reader: pb.DurableReader) -> Durable:
    """How a reader is remembered."""
    return Durable(
        name=reader.name,
        member=reader.member,
        max_attempts=reader.max_attempts or None,
        ack_deadline_ns=duration_ns(reader.ack_deadline) if reader.HasField("ack_deadline") else None,
        replace_selection=reader.replace_selection,
    )


def duration_ns(duration: Duration) -> int:
    """A span in ns."""
    return duration.seconds * NS + duration.nanos


def query_from_pb(request: pb.ListEventsRequest, known: Collection[str]) -> EventQuery:
    """Which events to list; `known` are types that are stored and no longer in the catalogue too. Raises InvalidField, TypeUnknown, and MeshError PAGE_TOKEN_INVALID."""
    after, before = request.after_sequence, None
    position = read_token(request)
    subject = request.subject if request.HasField("subject") else None
    if position is not None:
        after, before = (int(position[0]), None) if request.ascending else (after, int(position[0]))
    return EventQuery(
        selection=known_selection(request.types, subject, "types", known),
        source=request.source if request.HasField("source") else None,
        correlation_id=request.correlation_id if request.HasField("correlation_id") else None,
        after_sequence=min(after, LARGEST_NUMBER),
        before_sequence=before,
        since_ns=_stored_ns(request.since_time) if request.HasField("since_time") else None,
        before_ns=_stored_ns(request.before_time) if request.HasField("before_time") else None,
        event_ids=tuple(uuid.UUID(event_id).bytes for event_id in request.event_ids),
        ascending=request.ascending,
        limit=page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE),
    )


def page_token(request: pb.ListEventsRequest, position: int | None) -> str:
    """The token that goes on at this position; empty at the end."""
    return "" if position is None else make_token(request, [position])


def instant_ns(stamp: timestamp_pb2.Timestamp) -> int:
    """An instant in ns since the Unix epoch."""
    return stamp.seconds * NS + stamp.nanos


def _stored_ns(stamp: timestamp_pb2.Timestamp) -> int:
    """An instant to compare with those of stored events: the nearest that one of them can have."""
    return max(0, min(instant_ns(stamp), LARGEST_NUMBER))
