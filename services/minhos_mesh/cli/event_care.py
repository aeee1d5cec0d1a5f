"""Decides how consumers, dead letters, statistics and backups of the event bus are asked for, and look to people."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from minhos_api.events.v1 import event_admin_service_pb2 as pb
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_mesh.cli import event_payloads, show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.event_reading import event_dict, print_event, size_text, time_of
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected
from minhos_mesh.runtime.paths import MeshPaths

_PAGE: Final = 200
_WIDE: Final = 120
"""From this width on a reason stands beside its dead letter, else below all of them."""


@dataclass(frozen=True, slots=True)
class Letters:
    """Which dead letters are meant, as they were typed."""

    numbers: tuple[int, ...]
    everything: bool
    consumer: str
    types: tuple[str, ...]
    subject: str | None

    @property
    def filter(self) -> pb.DeadLetterFilter:
        """All of them."""
        return pb.DeadLetterFilter(consumer=self.consumer, types=self.types, subject=self.subject)

    def which(self) -> dict[str, Any]:
        """The part of a request that says which. Raises CommandFailed when neither numbers nor --all were typed, or both."""
        if bool(self.numbers) == self.everything:
            raise CommandFailed(
                "say which: numbers as `minhos events dead` shows them, or --all with or without filters"
            )
        if self.numbers and (self.consumer or self.types or self.subject is not None):
            raise CommandFailed("--consumer, --type and --subject go with --all: numbers say which by themselves")
        return {"all": self.filter} if self.everything else {"numbers": pb.DeadLetterNumbers(numbers=self.numbers)}


@dataclass(frozen=True, slots=True)
class ConsumerChange:
    """What is to be done with a consumer: `reset` when it is set, else `action`."""

    name: str
    action: str
    reset: str | None
    reason: str


async def stats(paths: MeshPaths, *, as_json: bool) -> None:
    """What the bus did."""
    async with connected(paths) as link:
        told = await link.clients.stub(EventAdminServiceStub).GetStats(pb.GetStatsRequest())
    if as_json:
        show.as_json(show.message_dict(told))
        return
    kept = told.retention
    held = f"{kept.held} ({size_text(kept.held_bytes)})"
    span = f"{told.oldest_sequence} to {told.newest_sequence}" if kept.held else "none"
    since = f" since the bus started at {show.when(told.start_time):%m-%d %H:%M:%S}"
    for name, value in (
        ("published", f"{told.published}"),
        ("held", f"{held}, sequences {span}"),
        ("delivered", f"{told.delivered}{since}, {told.failed} failed"),
        ("refused", f"{told.refused}{since}{_refused(told)}"),
        ("removed", f"{kept.removed}{since}, {kept.taken} of them unacknowledged"),
        ("dead letters", f"{told.dead_letters} ever"),
    ):
        show.out.print(f"{name:<13} {value}", markup=False)
    if kept.held_back_by:
        show.out.print(f"{'held back by':<13} {', '.join(kept.held_back_by)}", style="yellow", markup=False)
    _print_types(told)
    if told.consumers:
        show.out.print()
        _print_rows([(each.name, each) for each in told.consumers])
    _print_readers(told.readers)


def _refused(told: pb.GetStatsResponse) -> str:
    parts = [f"{name or 'no type'} {count}" for name, count in sorted(told.refused_types.items())]
    return f": {', '.join(parts)}" if parts else ""


def _print_types(told: pb.GetStatsResponse) -> None:
    rows = [
        (
            each.type,
            str(each.published),
            str(each.held),
            size_text(each.held_bytes),
            f"{show.when(each.newest_time):%m-%d %H:%M:%S}",
        )
        for each in told.types
    ]
    if rows:
        show.out.print()
        columns = ("TYPE", "PUBLISHED", "HELD", "SIZE", "NEWEST")
        show.out.print(show.table(columns, rows, right=("PUBLISHED", "HELD", "SIZE")))


def _print_rows(found: Sequence[tuple[str, pb.ConsumerStats]]) -> None:
    rows = [
        (name, str(each.members), _lag(each.lag), _oldest(each), str(each.in_flight), str(each.dead_letters))
        for name, each in found
    ]
    columns = ("CONSUMER", "MEMBERS", "LAG", "OLDEST", "OUT", "DEAD")
    show.out.print(show.table(columns, rows, right=("MEMBERS", "LAG", "OLDEST", "OUT", "DEAD")))


def _print_readers(readers: Sequence[pb.ReaderStats]) -> None:
    if not readers:
        return
    rows = [
        (
            "newest" if each.latest_per_subject else "all",
            str(each.delivered),
            str(each.skipped),
            str(each.lag),
            ", ".join(each.types) or "all types",
        )
        for each in readers
    ]
    show.out.print()
    columns = ("READER", "DELIVERED", "SKIPPED", "BEHIND", "NOTE")
    show.out.print(show.table(columns, rows, right=("DELIVERED", "SKIPPED", "BEHIND")))


async def consumers(paths: MeshPaths, name: str, *, as_json: bool) -> None:
    """Every durable consumer, or one."""
    found: list[pb.Consumer] = []
    async with connected(paths) as link:
        stub, token = link.clients.stub(EventAdminServiceStub), ""
        while True:
            page = await stub.ListConsumers(pb.ListConsumersRequest(name=name, page_token=token))
            found += page.consumers
            token = page.next_page_token
            if not token:
                break
    _tell_consumers(found, as_json=as_json)


async def change_consumer(paths: MeshPaths, change: ConsumerChange, *, as_json: bool) -> None:
    """Pauses, resumes, resets or forgets a consumer. Raises CommandFailed."""
    name, who, why = change.name, actor(), change.reason
    async with connected(paths) as link:
        stub = link.clients.stub(EventAdminServiceStub)
        if change.reset is not None:
            reset = await stub.ResetConsumer(_reset(change))
            consumer = reset.consumer
            show.err.print(
                f"{name} was at {reset.previous_position} and goes on behind {consumer.position};"
                f" {reset.passed_over} events that it had not acknowledged are passed over"
            )
        elif change.action == "pause":
            request = pb.PauseConsumerRequest(name=name, actor=who, reason=why)
            consumer = (await stub.PauseConsumer(request)).consumer
        elif change.action == "resume":
            consumer = (await stub.ResumeConsumer(pb.ResumeConsumerRequest(name=name, actor=who))).consumer
        else:
            deletion = pb.DeleteConsumerRequest(request_id=fresh_id(), name=name, actor=who, reason=why)
            consumer = (await stub.DeleteConsumer(deletion)).consumer
            show.err.print(f"{name} is forgotten; it was at {consumer.position}")
    _tell_consumers([consumer], as_json=as_json)


def _reset(change: ConsumerChange) -> pb.ResetConsumerRequest:
    request = pb.ResetConsumerRequest(request_id=fresh_id(), name=change.name, actor=actor(), reason=change.reason)
    text = change.reset or ""
    if text in ("now", "beginning"):
        setattr(request, text, True)
    elif text.isascii() and text.isdigit():
        request.after_sequence = int(text)
    else:
        request.time.CopyFrom(time_of("--reset", text, "beginning, now, a sequence, "))
    return request


def _tell_consumers(found: Sequence[pb.Consumer], *, as_json: bool) -> None:
    if as_json:
        show.as_json([show.message_dict(each) for each in found])
        return
    if not found:
        show.out.print("there is no durable consumer")
        return
    rows = [
        (
            each.name,
            ", ".join(member.name for member in each.members) if show.out.width >= 120 else str(len(each.members)),
            str(each.position),
            _lag(each.lag),
            _oldest(each),
            str(each.in_flight),
            _count(each.failed),
            _count(each.dead_letters),
            _note(each),
        )
        for each in found
    ]
    columns = ("CONSUMER", "MEMBERS", "AT", "LAG", "OLDEST", "OUT", "FAILED", "DEAD", "NOTE")
    show.out.print(show.table(columns, rows, right=("AT", "LAG", "OLDEST", "OUT", "FAILED", "DEAD")))


def _note(consumer: pb.Consumer) -> str:
    parts = []
    if consumer.HasField("pause"):
        reason = f": {consumer.pause.reason}" if consumer.pause.reason else ""
        parts.append(f"paused since {show.when(consumer.pause.since_time):%m-%d %H:%M}{reason}")
    if consumer.requeued:
        parts.append(f"{consumer.requeued} requeued")
    if consumer.taken:
        parts.append(f"lost {consumer.taken} to retention")
    return "; ".join(parts)


def _lag(lag: int) -> Text:
    return Text(str(lag), style="yellow" if lag > 1000 else "")


def _count(count: int) -> Text:
    return Text(str(count), style="red" if count else "")


def _oldest(told: pb.Consumer | pb.ConsumerStats) -> str:
    """How long the oldest event waits that is not acknowledged."""
    if not told.HasField("oldest_unacked_time"):
        return "-"
    return show.age(time.time() - told.oldest_unacked_time.ToNanoseconds() / 1e9)


async def dead(paths: MeshPaths, letters: Letters, count: int, *, requeued: bool, as_json: bool) -> None:
    """Dead letters, or one of them whole."""
    found: list[pb.DeadLetter] = []
    waiting = 0
    request = pb.ListDeadLettersRequest(
        filter=letters.filter, with_requeued=requeued, number=letters.numbers[0] if letters.numbers else None
    )
    async with connected(paths) as link:
        stub = link.clients.stub(EventAdminServiceStub)
        while len(found) < count:
            request.page_size = min(count - len(found), _PAGE)
            page = await stub.ListDeadLetters(request)
            found += page.dead_letters
            waiting = page.waiting
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        await event_payloads.learn(link.clients, [letter.event for letter in found])
    if as_json:
        show.as_json([_letter_dict(letter) for letter in found])
    elif letters.numbers:
        _print_letter(found[0])
    else:
        _print_letters(found, waiting)


def _letter_dict(letter: pb.DeadLetter) -> dict[str, Any]:
    bare = pb.DeadLetter()
    bare.CopyFrom(letter)
    bare.ClearField("event")
    return {**show.message_dict(bare), "event": event_dict(letter.event)}


def _print_letters(found: Sequence[pb.DeadLetter], waiting: int) -> None:
    if not found:
        show.out.print("no dead letter matches" if waiting else "there is no dead letter")
        return
    rows = [
        (
            str(each.number),
            _stamp(each.dead_time),
            each.consumer,
            each.event.type,
            each.event.subject or "-",
            str(len(each.attempts)),
            ("requeued; " if each.requeued else "") + (each.attempts[-1].error if each.attempts else ""),
        )
        for each in found
    ]
    columns = ("NUMBER", "DEAD SINCE", "CONSUMER", "TYPE", "SUBJECT", "TRIED", "WHY")
    shown = len(columns) if show.out.width >= _WIDE else len(columns) - 1
    show.out.print(show.table(columns[:shown], [row[:shown] for row in rows], right=("NUMBER", "TRIED")))
    if shown < len(columns):
        show.out.print()
        for row in rows:
            show.out.print(f"{row[0]:>6}  {row[-1]}", markup=False)
    if waiting > len(found):
        show.err.print(f"{waiting} wait in all")


def _print_letter(letter: pb.DeadLetter) -> None:
    state = "is being delivered again" if letter.requeued else "waits"
    edited = ", with another payload than it was published with" if letter.edited else ""
    show.out.print(f"dead letter {letter.number} of {letter.consumer} {state}{edited}", markup=False)
    for number, attempt in enumerate(letter.attempts, start=1):
        line = f"  {number:>2}  {_stamp(attempt.time)}  {attempt.member}: {attempt.error or 'no reason given'}"
        show.out.print(line, markup=False)
    print_event(letter.event)


def _stamp(stamp: Timestamp) -> str:
    return f"{show.when(stamp):%m-%d %H:%M:%S}"


async def requeue(
    paths: MeshPaths, letters: Letters, to: str, payload: str | None, reason: str, *, as_json: bool
) -> None:
    """Delivers dead letters again. Raises CommandFailed."""
    which = letters.which()
    if payload is not None and len(letters.numbers) != 1:
        raise CommandFailed("--payload goes with exactly one number")
    async with connected(paths) as link:
        stub = link.clients.stub(EventAdminServiceStub)
        request = pb.RequeueDeadLettersRequest(
            request_id=fresh_id(), actor=actor(), reason=reason, to_consumer=to, **which
        )
        if payload is not None:
            page = await stub.ListDeadLetters(pb.ListDeadLettersRequest(number=letters.numbers[0]))
            failed = page.dead_letters[0].event
            kind = await event_payloads.learn_type(link.clients, failed.type, failed.version)
            request.payload.CopyFrom(_payload(payload, failed.type, kind))
        answer = await stub.RequeueDeadLetters(request)
    _tell_handled(answer, answer.requeued, "delivered again", answer.remaining, as_json=as_json)


def _payload(text: str, event_type: str, kind: type[Message] | None) -> any_pb2.Any:
    """The payload that was typed, as the message of the event type. Raises CommandFailed."""
    if kind is None:
        raise CommandFailed(f"--payload: nobody knows the payload of {event_type}")
    try:
        raw = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        value = json.loads(raw)
        if isinstance(value, dict):
            value.pop("@type", None)
        elif not value:
            value = None  # an empty list would pass for an empty message
        message = ParseDict(value, kind())
    except OSError as error:
        raise CommandFailed(f"--payload: {text[1:]} cannot be read: {error.strerror}") from None
    except (ValueError, ParseError, AttributeError, TypeError) as error:
        raise CommandFailed(f"--payload is no {kind.DESCRIPTOR.full_name} as JSON: {error}") from None
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def discard(paths: MeshPaths, letters: Letters, reason: str, *, as_json: bool) -> None:
    """Removes dead letters for good. Raises CommandFailed."""
    which = letters.which()
    async with connected(paths) as link:
        request = pb.DeleteDeadLettersRequest(request_id=fresh_id(), actor=actor(), reason=reason, **which)
        answer = await link.clients.stub(EventAdminServiceStub).DeleteDeadLetters(request)
    _tell_handled(answer, answer.deleted, "removed", answer.remaining, as_json=as_json)


def _tell_handled(answer: Any, count: int, done: str, remaining: int, *, as_json: bool) -> None:
    if as_json:
        show.as_json(show.message_dict(answer))
        return
    more = f"; {remaining} more wait, say it again" if remaining else ""
    show.out.print(f"{count} dead letter{'' if count == 1 else 's'} {done}{more}")


async def backup(paths: MeshPaths, name: str, *, as_json: bool) -> None:
    """Copies the journal."""
    async with connected(paths) as link:
        request = pb.BackupJournalRequest(request_id=fresh_id(), file_name=name, actor=actor())
        answer = await link.clients.stub(EventAdminServiceStub).BackupJournal(request)
    if as_json:
        show.as_json(show.message_dict(answer))
        return
    seconds = answer.duration.ToNanoseconds() / 1e9
    size = size_text(answer.bytes)
    show.out.print(f"{answer.path}: {size}, events up to {answer.newest_sequence}, {seconds:.1f} s", soft_wrap=True)
