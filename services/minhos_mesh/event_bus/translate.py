"""How messages of the contract become values of the bus and back; envelopes pass through as bytes."""

from __future__ import annotations

import base64
import binascii
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf import timestamp_pb2
from google.protobuf.duration_pb2 import Duration

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.event_bus.domain.errors import PageTokenInvalid
from minhos_mesh.event_bus.domain.patterns import Selection, selection
from minhos_mesh.event_bus.domain.records import EventQuery, NewEvent, StoredEvent
from minhos_mesh.event_bus.readers import Output, SlowReaderPolicy
from minhos_mesh.event_bus.service import ConsumerReport, Durable, Start, Stats
from minhos_mesh.runtime.errors import FieldViolation
from minhos_mesh.runtime.event_envelope import (
    EventInvalid,
    EventPayloadInvalid,
    EventTooLarge,
    EventTypeUnknown,
    check_event,
)

NS: Final = 1_000_000_000
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1000

_POLICIES: Final = {
    pb.SLOW_READER_POLICY_UNSPECIFIED: SlowReaderPolicy.KEEP_ALL_WITH_GAP,
    pb.SLOW_READER_POLICY_KEEP_ALL_WITH_GAP: SlowReaderPolicy.KEEP_ALL_WITH_GAP,
    pb.SLOW_READER_POLICY_LATEST_PER_SUBJECT: SlowReaderPolicy.LATEST_PER_SUBJECT,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why one event of a batch is not stored."""

    index: int
    event_type: str
    reason: reasons.ErrorReason.ValueType
    metadata: dict[str, str]
    violations: tuple[FieldViolation, ...]

    @property
    def message(self) -> str:
        """One sentence for each violation."""
        return "; ".join(violation.description for violation in self.violations)


def events_from_pb(events: Sequence[event_pb2.Event]) -> tuple[list[NewEvent], list[Refused]]:
    """The events of a batch, and what is wrong with those that are not listed."""
    new: list[NewEvent] = []
    refused: list[Refused] = []
    for index, event in enumerate(events):
        try:
            check_event(event)
        except EventInvalid as error:
            refused.append(_refused(index, event.type, error))
        else:
            new.append(_new_event(event))
    return new, refused


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
    metadata = {"field": f"events[{index}].{error.violations[0].field}"}
    if isinstance(error, EventTypeUnknown):
        reason = reasons.ERROR_REASON_EVENT_TYPE_UNKNOWN
        metadata |= {"type": error.type, "nearest": error.nearest}
    elif isinstance(error, EventPayloadInvalid):
        reason = reasons.ERROR_REASON_EVENT_PAYLOAD_INVALID
        metadata |= {"type": error.type, "seen": error.seen, "allowed": error.allowed}
    elif isinstance(error, EventTooLarge):
        reason = reasons.ERROR_REASON_LIMIT_REACHED
        metadata |= {"limit": error.limit, "seen": str(error.seen), "allowed": str(error.allowed)}
    violations = tuple(
        FieldViolation(f"events[{index}].{violation.field}", f"events[{index}].{violation.description}")
        for violation in error.violations
    )
    return Refused(index, event_type, reason, metadata, violations)


def refusals_to_pb(refused: Sequence[Refused]) -> list[pb.EventRefusal]:
    """The refusals as the publish stream tells them."""
    return [
        pb.EventRefusal(index=item.index, reason=reasons.ErrorReason.Name(item.reason), message=item.message)
        for item in refused
    ]


def event_to_pb(stored: StoredEvent) -> event_pb2.Event:
    """The event with its place."""
    event = event_pb2.Event.FromString(stored.envelope)
    _place(event, stored)
    return event


def _place(event: event_pb2.Event, stored: StoredEvent) -> None:
    event.sequence = stored.sequence
    event.store_time.seconds, event.store_time.nanos = divmod(stored.store_time_ns, NS)


def output_to_pb(output: Output) -> list[pb.SubscribeResponse]:
    """The messages for what goes to a reader next."""
    responses: list[pb.SubscribeResponse] = []
    if output.gap is not None:
        gap = output.gap
        told = pb.SubscribeGap(first_sequence=gap.first, last_sequence=gap.last, skipped=gap.skipped)
        responses.append(pb.SubscribeResponse(gap=told))
    if output.events:
        response = pb.SubscribeResponse()
        delivered = response.delivery.events
        for stored, attempt in output.events:
            item = delivered.add(attempt=attempt)
            item.event.MergeFromString(stored.envelope)
            _place(item.event, stored)
        responses.append(response)
    return responses


def selection_from_pb(opening: pb.SubscribeOpen) -> Selection:
    """Which events a reader wants. Raises InvalidField."""
    subject = opening.subject if opening.HasField("subject") else None
    return selection(opening.types, subject, field="open.types")


def start_from_pb(start: pb.SubscribeStart) -> Start:
    """Where a reader begins."""
    kind = start.WhichOneof("start")
    return Start(
        beginning=start.beginning,
        after_sequence=start.after_sequence if kind == "after_sequence" else None,
        time_ns=_ns(start.time) if kind == "time" else None,
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
    )


def duration_ns(duration: Duration) -> int:
    """A span in ns."""
    return duration.seconds * NS + duration.nanos


def query_from_pb(request: pb.ListEventsRequest) -> EventQuery:
    """Which events to list. Raises InvalidField and PageTokenInvalid."""
    after, before = request.after_sequence, None
    if request.page_token:
        position = _position_from(request)
        after, before = (position, None) if request.ascending else (after, position)
    return EventQuery(
        selection=selection(request.types, request.subject if request.HasField("subject") else None),
        source=request.source if request.HasField("source") else None,
        correlation_id=request.correlation_id if request.HasField("correlation_id") else None,
        after_sequence=after,
        before_sequence=before,
        since_ns=_ns(request.since_time) if request.HasField("since_time") else None,
        before_ns=_ns(request.before_time) if request.HasField("before_time") else None,
        ascending=request.ascending,
        limit=min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE),
    )


def page_token(request: pb.ListEventsRequest, position: int | None) -> str:
    """The token that goes on at this position; it is good for the same filters only."""
    if position is None:
        return ""
    return base64.urlsafe_b64encode(f"{position}.{_digest(request)}".encode()).decode()


def _position_from(request: pb.ListEventsRequest) -> int:
    try:
        position, digest = base64.urlsafe_b64decode(request.page_token).decode().split(".")
        if int(digest) != _digest(request):
            raise PageTokenInvalid
        return int(position)
    except (binascii.Error, ValueError):
        raise PageTokenInvalid from None


def _digest(request: pb.ListEventsRequest) -> int:
    filters = pb.ListEventsRequest()
    filters.CopyFrom(request)
    filters.ClearField("page_token")
    filters.ClearField("page_size")
    return zlib.crc32(filters.SerializeToString(deterministic=True))


def stats_to_pb(stats: Stats) -> pb.GetStatsResponse:
    """The statistics as the contract tells them."""
    return pb.GetStatsResponse(
        published=sum(count.published for count in stats.types),
        delivered=stats.delivered,
        refused=stats.refused,
        failed=stats.failed,
        dead_letters=sum(report.dead_letters for report in stats.consumers),
        oldest_sequence=stats.bounds.oldest if stats.bounds.newest >= stats.bounds.oldest else 0,
        newest_sequence=stats.bounds.newest,
        types=[
            pb.EventTypeStats(type=count.type, published=count.published, newest_time=_timestamp(count.newest_ns))
            for count in stats.types
        ],
        consumers=[_consumer_to_pb(report) for report in stats.consumers],
        ephemeral_readers=stats.ephemeral_readers,
    )


def _consumer_to_pb(report: ConsumerReport) -> pb.ConsumerStats:
    told = pb.ConsumerStats(
        name=report.name,
        members=report.members,
        lag=report.lag,
        in_flight=report.in_flight,
        redelivered=report.redelivered,
        dead_letters=report.dead_letters,
        types=report.types,
    )
    if report.oldest is not None:
        told.oldest_unacked_sequence = report.oldest.sequence
        told.oldest_unacked_time.CopyFrom(_timestamp(report.oldest.store_time_ns))
    return told


def _timestamp(ns: int) -> timestamp_pb2.Timestamp:
    seconds, nanos = divmod(ns, NS)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)


def _ns(timestamp: timestamp_pb2.Timestamp) -> int:
    return timestamp.seconds * NS + timestamp.nanos
