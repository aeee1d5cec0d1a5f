"""How messages of EventAdminService become values of the bus and back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message

from minhos_api.events.v1 import event_admin_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus.admin import EditEvent, Handled, Letters, Request, Reset, Saved
from minhos_mesh.event_bus.domain.errors import DeadLetterUnknown, EventTypeMissing
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import DeadLetter, DeadLetterQuery, TypeCount
from minhos_mesh.event_bus.payloads import Definition, Payloads
from minhos_mesh.event_bus.reports import ConsumerReport, ReaderReport, RetentionReport, Stats
from minhos_mesh.event_bus.service import Start
from minhos_mesh.event_bus.translate import (
    DEFAULT_PAGE,
    LARGEST_NUMBER,
    LARGEST_PAGE,
    NS,
    event_to_pb,
    instant_ns,
    known_selection,
)
from minhos_mesh.runtime.event_envelope import check_event
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.runtime.wire_time import timestamp

M = TypeVar("M", bound=Message)
_UNMARKED: Final = ("request_id", "actor", "reason")
LARGEST_PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page of dead letters ends with the first one that reaches this, so that every client of gRPC takes it."""

EDITED: Final = "edited_by"
"""Key of the metadata of an event whose payload a person replaced; left out where no more fits. The letter and the log have it."""
MOST_METADATA: Final = 32


def request_of(message: Any) -> Request:
    """Who asks, by which id, and a mark of what for."""
    bare = type(message)()
    bare.CopyFrom(message)
    for field in _UNMARKED:
        if field in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    told = str(bare.DESCRIPTOR.full_name).encode() + bare.SerializeToString(deterministic=True)
    mark = hashlib.blake2s(told, digest_size=12).hexdigest()
    return Request(message.request_id, mark, message.actor, getattr(message, "reason", ""))


# Statistics and types.


def stats_to_pb(stats: Stats) -> pb.GetStatsResponse:
    """The statistics as the contract tells them."""
    bounds = stats.bounds
    return pb.GetStatsResponse(
        published=sum(count.published for count in stats.types),
        delivered=stats.delivered,
        refused=sum(stats.refused.values()),
        failed=stats.failed,
        dead_letters=sum(report.dead_letters for report in stats.consumers),
        oldest_sequence=bounds.oldest if bounds.newest >= bounds.oldest else 0,
        newest_sequence=bounds.newest,
        types=[
            pb.EventTypeStats(
                type=count.type,
                published=count.published,
                newest_time=timestamp(count.newest_ns),
                held=count.held,
                held_bytes=count.held_bytes,
            )
            for count in stats.types
        ],
        consumers=[_consumer_stats(report) for report in stats.consumers],
        ephemeral_readers=len(stats.readers),
        readers=[_reader_stats(reader) for reader in stats.readers],
        retention=_retention(stats.retention, stats.types),
        refused_types=stats.refused,
        start_time=timestamp(stats.started_ns),
    )


def _retention(report: RetentionReport, types: Sequence[TypeCount]) -> pb.RetentionStats:
    told = pb.RetentionStats(
        held=sum(count.held for count in types),
        held_bytes=sum(count.held_bytes for count in types),
        removed=report.removed,
        held_back_by=report.held_back_by,
        taken=report.taken,
    )
    if report.checked_ns is not None:
        told.checked_time.CopyFrom(timestamp(report.checked_ns))
    return told


def _consumer_stats(report: ConsumerReport) -> pb.ConsumerStats:
    told = pb.ConsumerStats(
        name=report.name,
        members=len(report.members),
        lag=report.lag,
        in_flight=report.in_flight,
        redelivered=report.redelivered,
        dead_letters=report.dead_letters,
        types=report.selection.types,
    )
    _tell_oldest(told, report)
    return told


def _tell_oldest(told: pb.ConsumerStats | pb.Consumer, report: ConsumerReport) -> None:
    if report.oldest is not None:
        told.oldest_unacked_sequence = report.oldest.sequence
        told.oldest_unacked_time.CopyFrom(timestamp(report.oldest.store_time_ns))


def _reader_stats(reader: ReaderReport) -> pb.ReaderStats:
    return pb.ReaderStats(
        types=reader.selection.types,
        subject=reader.selection.subject,
        delivered=reader.delivered,
        skipped=reader.skipped,
        lag=reader.lag,
        latest_per_subject=reader.latest_per_subject,
        credit=reader.credit,
    )


def types_to_pb(
    request: pb.ListEventTypesRequest, counts: Sequence[TypeCount], payloads: Payloads
) -> pb.ListEventTypesResponse:
    """One page of the catalogue and what is stored beside it. Raises MeshError PAGE_TOKEN_INVALID."""
    stored = {count.type: count for count in counts}
    names = sorted({*payloads.names(), *stored})
    after, size = _after(request), page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
    left = [name for name in names if name > after]
    told = pb.ListEventTypesResponse(types=[_type(name, stored.get(name), payloads) for name in left[:size]])
    if len(left) > size:
        told.next_page_token = make_token(request, [left[size - 1]])
    return told


def type_to_pb(request: pb.GetEventTypeRequest, payloads: Payloads) -> pb.GetEventTypeResponse:
    """One event type in one version, the newest when none is named. Raises EventTypeMissing."""
    known = payloads.definitions(request.type)
    if not known or request.version > known[-1].type.version:
        raise EventTypeMissing(request.type, request.version, [str(each.type.version) for each in known])
    wanted = request.version or known[-1].type.version
    found = next(each for each in known if each.type.version >= wanted)
    return pb.GetEventTypeResponse(definition=_definition(found, payloads), descriptor_set=found.files())


def _definition(found: Definition, payloads: Payloads) -> pb.EventTypeDefinition:
    refused = payloads.refused.get((found.type.type, found.type.version), {})
    return pb.EventTypeDefinition(
        version=found.type.version, payload=found.payload, offered_by=found.offered_by, refused=refused
    )


def _type(name: str, count: TypeCount | None, payloads: Payloads) -> pb.EventTypeInfo:
    known = payloads.definitions(name)
    told = pb.EventTypeInfo(type=name, definitions=[_definition(each, payloads) for each in known])
    if known:
        told.payload, told.version = known[-1].payload, known[-1].type.version
    if count is not None:
        told.published, told.held, told.held_bytes = count.published, count.held, count.held_bytes
        told.newest_time.CopyFrom(timestamp(count.newest_ns))
    return told


# Consumers.


def consumers_page(request: pb.ListConsumersRequest) -> tuple[str, int]:
    """Behind which name the page begins, and how many it has. Raises MeshError PAGE_TOKEN_INVALID."""
    return _after(request), page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE)


def consumers_to_pb(
    request: pb.ListConsumersRequest, reports: Sequence[ConsumerReport], last: str | None
) -> pb.ListConsumersResponse:
    """One page of consumers."""
    token = "" if last is None else make_token(request, [last])
    return pb.ListConsumersResponse(consumers=[consumer_to_pb(report) for report in reports], next_page_token=token)


def consumer_to_pb(report: ConsumerReport) -> pb.Consumer:
    """A consumer as the contract tells it."""
    told = pb.Consumer(
        name=report.name,
        types=report.selection.types,
        subject=report.selection.subject,
        position=report.position,
        lag=report.lag,
        in_flight=report.in_flight,
        delivered=report.delivered,
        redelivered=report.redelivered,
        failed=report.failed,
        dead_letters=report.waiting_letters,
        requeued=report.requeued,
        max_attempts=report.max_attempts,
        ack_deadline=_duration(report.ack_deadline_ns),
        members=[
            pb.ConsumerMember(name=member.name, in_flight=member.in_flight, credit=member.credit)
            for member in report.members
        ],
        taken=report.taken,
    )
    _tell_oldest(told, report)
    if report.pause is not None:
        told.pause.reason = report.pause.reason
        told.pause.since_time.CopyFrom(timestamp(report.pause.since_ns))
    if report.created_ns:
        told.create_time.CopyFrom(timestamp(report.created_ns))
    return told


def start_of_reset(request: pb.ResetConsumerRequest) -> Start:
    """Where a consumer is to go on."""
    kind = request.WhichOneof("position")
    return Start(
        beginning=kind == "beginning",
        after_sequence=request.after_sequence if kind == "after_sequence" else None,
        time_ns=instant_ns(request.time) if kind == "time" else None,
        field="after_sequence",
    )


def reset_to_pb(reset: Reset) -> pb.ResetConsumerResponse:
    """A consumer after its reset."""
    return pb.ResetConsumerResponse(
        consumer=consumer_to_pb(reset.consumer), previous_position=reset.previous, passed_over=reset.passed_over
    )


def deleted_to_pb(report: ConsumerReport) -> pb.DeleteConsumerResponse:
    """A consumer as it was."""
    return pb.DeleteConsumerResponse(consumer=consumer_to_pb(report))


# Dead letters.


def letters_query(request: pb.ListDeadLettersRequest, known: Collection[str]) -> DeadLetterQuery:
    """Which dead letters to list, one more than the page has.

    Raises InvalidField, TypeUnknown, DeadLetterUnknown, MeshError.
    """
    _require_possible([request.number])
    position = read_token(request)
    return DeadLetterQuery(
        consumer=request.filter.consumer or None,
        selection=_selection(request.filter, "filter.types", known),
        numbers=(request.number,) if request.HasField("number") else None,
        is_requeued=None if request.with_requeued or request.HasField("number") else False,
        after_number=0 if position is None else int(position[0]),
        limit=page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE) + 1,
    )


def letters_to_pb(
    request: pb.ListDeadLettersRequest, limit: int, found: Sequence[tuple[int, DeadLetter]], waiting: int
) -> pb.ListDeadLettersResponse:
    """One page of dead letters; `limit` is that of the query. It ends before when they are large."""
    page = found[: min(limit - 1, _fitting([letter for _, letter in found]))]
    token = make_token(request, [page[-1][0]]) if len(page) < len(found) else ""
    return pb.ListDeadLettersResponse(
        dead_letters=[_letter(number, letter) for number, letter in page], next_page_token=token, waiting=waiting
    )


def _fitting(letters: Sequence[DeadLetter]) -> int:
    """How many of these go into one page by their size."""
    size = 0
    for count, letter in enumerate(letters, 1):
        size += len(letter.event.envelope) + sum(len(failure.error) for failure in letter.failures)
        if size >= LARGEST_PAGE_BYTES:
            return count
    return len(letters)


def _require_possible(numbers: Sequence[int]) -> None:
    for number in numbers:
        if number > LARGEST_NUMBER:
            raise DeadLetterUnknown(number)


def _letter(number: int, letter: DeadLetter) -> pb.DeadLetter:
    return pb.DeadLetter(
        number=number,
        consumer=letter.consumer,
        event=event_to_pb(letter.event),
        attempts=[
            pb.FailedAttempt(time=timestamp(failure.time_ns), member=failure.member, error=failure.error)
            for failure in letter.failures
        ],
        dead_time=timestamp(letter.dead_time_ns),
        requeued=letter.is_requeued,
        edited=letter.is_edited,
    )


def letters_of(request: pb.RequeueDeadLettersRequest | pb.DeleteDeadLettersRequest, known: Collection[str]) -> Letters:
    """Which dead letters a change is about. Raises InvalidField, TypeUnknown, DeadLetterUnknown."""
    if request.WhichOneof("which") == "numbers":
        _require_possible(request.numbers.numbers)
        return Letters(tuple(request.numbers.numbers), DeadLetterQuery())
    query = DeadLetterQuery(
        consumer=request.all.consumer or None, selection=_selection(request.all, "all.types", known)
    )
    return Letters(None, query)


def editing(request: pb.RequeueDeadLettersRequest, payloads: Payloads) -> EditEvent | None:
    """What puts the new payload into an event, when there is one."""
    if not request.HasField("payload"):
        return None
    payload, actor = request.payload, request.actor

    def edit(envelope: bytes) -> bytes:
        return _with_payload(envelope, payload, actor, payloads)

    return edit


def _with_payload(envelope: bytes, payload: any_pb2.Any, actor: str, payloads: Payloads) -> bytes:
    """The event with another payload and the mark of who gave it. Raises EventInvalid."""
    event = event_pb2.Event.FromString(envelope)
    event.payload.CopyFrom(payload)
    fitting = [each for each in payloads.definitions(event.type) if each.payload == payload.TypeName()]
    if fitting:
        event.version = fitting[-1].type.version
    if EDITED in event.metadata or len(event.metadata) < MOST_METADATA:
        event.metadata[EDITED] = actor
    check_event(event, payloads)
    return event.SerializeToString()


def requeued_to_pb(handled: Handled) -> pb.RequeueDeadLettersResponse:
    """How many are delivered again."""
    return pb.RequeueDeadLettersResponse(requeued=handled.count, remaining=handled.remaining)


def removed_to_pb(handled: Handled) -> pb.DeleteDeadLettersResponse:
    """How many were removed."""
    return pb.DeleteDeadLettersResponse(deleted=handled.count, remaining=handled.remaining)


def saved_to_pb(saved: Saved) -> pb.BackupJournalResponse:
    """Where a backup is."""
    return pb.BackupJournalResponse(
        path=str(saved.path),
        bytes=saved.backup.bytes,
        newest_sequence=saved.backup.newest,
        duration=_duration(int(saved.seconds * NS)),
    )


def _selection(chosen: pb.DeadLetterFilter, field: str, known: Collection[str]) -> Selection:
    subject = chosen.subject if chosen.HasField("subject") else None
    return known_selection(chosen.types, subject, field, known)


def _after(request: Message) -> str:
    position = read_token(request)
    return "" if position is None else str(position[0])


def _duration(ns: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=ns // NS, nanos=ns % NS)
