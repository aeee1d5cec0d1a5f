"""Decides how stored and coming events are asked for and look to people and as JSON lines."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from google.protobuf.json_format import SerializeToJsonError
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from minhos_api.events.v1 import event_admin_service_pb2 as admin
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.cli import event_payloads, show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.runtime import contracts
from minhos_mesh.runtime.money import format_e9
from minhos_mesh.runtime.paths import MeshPaths

_PAGE: Final = 1000
_CREDIT: Final = 1000
_WIDE: Final = 120
"""From this width on, and where nothing is cut off, an event is shown with its payload."""

_SPAN: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which stored events are asked for, as they were typed."""

    types: tuple[str, ...]
    subject: str | None
    source: str | None
    correlation: str | None
    after: int | None
    since: str | None
    until: str | None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Following:
    """Which events are followed, and from where, as it was typed."""

    types: tuple[str, ...]
    subject: str | None
    start: str
    latest: bool
    count: int | None


async def list_events(paths: MeshPaths, wanted: Wanted, count: int, *, oldest_first: bool, as_json: bool) -> None:
    """Stored events as a table, or as one JSON document. Raises CommandFailed."""
    request = _request(wanted, oldest_first=oldest_first)
    async with connected(paths) as link:
        found = [event async for event in _stored(link, request, count)]
        await event_payloads.learn(link.clients, found)
    if as_json:
        show.as_json([event_dict(event) for event in found])
    elif not found:
        show.out.print("no event matches")
    else:
        _print_table(found)


async def show_event(paths: MeshPaths, which: str, *, as_json: bool) -> None:
    """One event whole, by its sequence or its id. Raises CommandFailed."""
    contracts.load_all()
    async with connected(paths) as link:
        answer = await link.clients.stub(EventBusServiceStub).ListEvents(_one(which))
        await event_payloads.learn(link.clients, answer.events)
    if not answer.events or which not in (str(answer.events[0].sequence), answer.events[0].event_id):
        held = f"{answer.oldest_sequence} to {answer.newest_sequence}" if answer.oldest_sequence else "nothing"
        raise CommandFailed(f"there is no event {which}: the journal holds {held}")
    if as_json:
        show.as_json(event_dict(answer.events[0]))
    else:
        print_event(answer.events[0])


async def tail(paths: MeshPaths, following: Following, *, as_json: bool) -> None:
    """Prints events as they come until Ctrl-C, or so many of them."""
    contracts.load_all()
    opening = pb.SubscribeOpen(
        types=following.types,
        subject=following.subject,
        credit=_CREDIT if following.count is None else min(following.count, _CREDIT),
        start=start_of(following.start),
    )
    if following.latest:
        opening.ephemeral.slow_reader_policy = pb.SLOW_READER_POLICY_LATEST_PER_SUBJECT
    asked: asyncio.Queue[pb.SubscribeRequest | None] = asyncio.Queue()
    asked.put_nowait(pb.SubscribeRequest(open=opening))

    async def requests() -> AsyncIterator[pb.SubscribeRequest]:
        while (request := await asked.get()) is not None:
            yield request

    shown = 0
    async with connected(paths) as link, _ended(asked):
        async for answer in link.clients.stub(EventBusServiceStub).Subscribe(requests()):
            if answer.WhichOneof("message") == "gap":
                _print_gap(answer.gap, as_json=as_json)
            await event_payloads.learn(link.clients, [item.event for item in answer.delivery.events])
            for item in answer.delivery.events:
                print(json.dumps(event_dict(item.event)) if as_json else event_line(item.event), flush=True)
                shown += 1
                if shown == following.count:
                    return
            if answer.delivery.events:
                credit = pb.SubscribeCredit(count=len(answer.delivery.events))
                asked.put_nowait(pb.SubscribeRequest(credit=credit))


@contextlib.asynccontextmanager
async def _ended(asked: asyncio.Queue[pb.SubscribeRequest | None]) -> AsyncIterator[None]:
    """Ends what asks at the end of a call, also of one that the bus has refused, so that no task of it is left over."""
    try:
        yield
    finally:
        asked.put_nowait(None)
        await asyncio.sleep(0)


async def export(paths: MeshPaths, wanted: Wanted, file: Path | None) -> None:
    """Writes what is stored now as JSON lines. Raises CommandFailed."""
    request = _request(wanted, oldest_first=True)
    async with connected(paths) as link:
        if file is None:
            await _write(link, request, sys.stdout)
            return
        try:
            with file.open("x", encoding="utf-8") as target:
                count = await _write_whole(link, request, target, file)
        except FileExistsError:
            raise CommandFailed(f"{file} exists already: an export overwrites nothing") from None
        except OSError as error:
            raise CommandFailed(f"{file} cannot be written: {error.strerror or error}") from None
    show.err.print(f"{count} events in {file}")


async def types(paths: MeshPaths, *, as_json: bool) -> None:
    """Every event type."""
    found: list[admin.EventTypeInfo] = []
    async with connected(paths) as link:
        stub, token = link.clients.stub(EventAdminServiceStub), ""
        while True:
            page = await stub.ListEventTypes(admin.ListEventTypesRequest(page_token=token))
            found += page.types
            token = page.next_page_token
            if not token:
                break
    if as_json:
        show.as_json([show.message_dict(each) for each in found])
        return
    rows = [
        (
            each.type,
            str(each.version or "-"),
            str(each.held),
            size_text(each.held_bytes) if each.held else "-",
            f"{show.when(each.newest_time):%m-%d %H:%M:%S}" if each.HasField("newest_time") else "-",
            _payload_name(each),
        )
        for each in found
    ]
    columns = ("TYPE", "V", "HELD", "SIZE", "NEWEST", "PAYLOAD")
    shown = len(columns) if _shows_payload(show.out) else len(columns) - 1
    show.out.print(show.table(columns[:shown], [row[:shown] for row in rows], right=("V", "HELD", "SIZE")))
    for each in found:
        for known in each.definitions:
            for service, why in sorted(known.refused.items()):
                text = f"{each.type} version {known.version} of {service} is refused: {why}"
                show.out.print(text, style="yellow", markup=False)


def _payload_name(told: admin.EventTypeInfo) -> str:
    """The message of a type, and the service that brought it where that is no service of the mesh."""
    if not told.payload:
        return "not in the catalogue any more"
    by = told.definitions[-1].offered_by if told.definitions else ""
    return told.payload.removeprefix("minhos_api.") + (f" of {by}" if by else "")


def _one(which: str) -> pb.ListEventsRequest:
    """Asks for one event. Raises CommandFailed for what is neither a sequence nor an id."""
    if which.isascii() and which.isdigit() and int(which):
        return pb.ListEventsRequest(ascending=True, after_sequence=int(which) - 1, page_size=1)
    try:
        return pb.ListEventsRequest(event_ids=[str(uuid.UUID(which))])
    except ValueError:
        raise CommandFailed(f"{which!r} is neither a sequence (1 or more) nor the id of an event") from None


def size_text(count: int) -> str:
    """Bytes in B, kB, MB or GB of powers of ten."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1_000_000 else show.size(count)


def event_dict(event: event_pb2.Event) -> dict[str, Any]:
    """An event as JSON has it, its payload decoded; bytes in base64 when this program does not know their message."""
    contracts.load_all()
    bare = event_pb2.Event()
    bare.CopyFrom(event)
    bare.ClearField("payload")
    told = _envelope_dict(bare)
    told["payload"] = event_payloads.payload_dict(event) or {
        "@type": event.payload.type_url,
        "undecoded": base64.b64encode(event.payload.value).decode(),
    }
    return told


def _envelope_dict(bare: event_pb2.Event) -> dict[str, Any]:
    """An event without its payload; an `event_time` that is no time in JSON is told as it stands."""
    try:
        return show.message_dict(bare)
    except SerializeToJsonError:
        seconds, nanos = bare.event_time.seconds, bare.event_time.nanos
        bare.ClearField("event_time")
        return {**show.message_dict(bare), "event_time": f"no time: {seconds} s and {nanos} ns since 1970"}


def payload_text(event: event_pb2.Event) -> str:
    """The payload in one line: `field=value`, what is empty left out."""
    payload = {key: value for key, value in event_dict(event)["payload"].items() if key != "@type"}
    return _fields(payload)


def _fields(values: dict[str, Any]) -> str:
    told = [
        (key.removesuffix("_e9"), _decimal(value) if key.endswith("_e9") else _inline(value))
        for key, value in values.items()
        if value not in ("", [], {}, None)
    ]
    return " ".join(f"{key}={text}" for key, text in told)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{_fields(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(each) for each in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _decimal(value: Any) -> str:
    """A number in units of 1e-9 as people write it."""
    return format_e9(int(value)) if isinstance(value, str | int) else _inline(value)


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def event_line(event: event_pb2.Event) -> str:
    """One event in one line, with the time when it was stored."""
    line = f"{show.clock(event.store_time)} {event.sequence:>8} {event.type:<26} {event.source:<14} {event.subject:<12}"
    if _shows_payload(show.out):
        line = f"{line} {payload_text(event)}"
    width = show.out.width
    return line.rstrip() if not show.out.is_terminal or len(line) <= width else f"{line[: width - 1]}…"


def print_event(event: event_pb2.Event) -> None:
    """One event whole, field by field."""
    told = event_dict(event)
    payload = told.pop("payload")
    for key, value in told.items():
        if value not in ("", {}, None):
            show.out.print(f"{key:<15} {_short(value)}", markup=False)
    show.out.print(f"{'payload':<15} {payload.pop('@type', '').rpartition('/')[2]}", markup=False)
    for line in json.dumps(payload, indent=2).splitlines()[1:-1]:
        show.out.print(line, markup=False)


def start_of(text: str) -> pb.SubscribeStart:
    """Where to begin, as it was typed. Raises CommandFailed."""
    if text == "now":
        return pb.SubscribeStart()
    if text == "beginning":
        return pb.SubscribeStart(beginning=True)
    if text == "latest":
        return pb.SubscribeStart(latest_per_subject=True)
    if text.isascii() and text.isdigit():
        return pb.SubscribeStart(after_sequence=max(int(text) - 1, 0))
    return pb.SubscribeStart(time=time_of("--from", text, "now, beginning, latest, a sequence, "))


def time_of(option: str, text: str, also: str = "") -> Timestamp:
    """An instant, as it was typed: a span back from now, or a time in UTC. Raises CommandFailed."""
    span = _SPAN.fullmatch(text)
    stamp = Timestamp()
    try:
        if span:
            at = datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            at = datetime.fromisoformat(text)
        stamp.FromDatetime(at if at.tzinfo is None else at.astimezone(UTC))
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{option} is {text!r}: allowed is {also}a span like 10m, 2h or 3d, or a time in UTC like 2026-11-22T14:30"
        ) from None
    return stamp


def _request(wanted: Wanted, *, oldest_first: bool) -> pb.ListEventsRequest:
    return pb.ListEventsRequest(
        types=wanted.types,
        subject=wanted.subject,
        source=wanted.source,
        correlation_id=wanted.correlation,
        after_sequence=wanted.after,
        since_time=None if wanted.since is None else time_of("--since", wanted.since),
        before_time=None if wanted.until is None else time_of("--until", wanted.until),
        ascending=oldest_first,
        event_ids=wanted.ids,
    )


async def _stored(link: Link, request: pb.ListEventsRequest, count: int | None) -> AsyncIterator[event_pb2.Event]:
    """What is stored, page by page, up to what was newest when it began."""
    stub, seen, newest = link.clients.stub(EventBusServiceStub), 0, None
    while True:
        request.page_size = _PAGE if count is None else min(count - seen, _PAGE)
        page = await stub.ListEvents(request)
        newest = page.newest_sequence if newest is None else newest
        await event_payloads.learn(link.clients, page.events)
        for event in page.events:
            if event.sequence > newest:
                return
            yield event
            seen += 1
        request.page_token = page.next_page_token
        if not request.page_token or seen == count:
            return


async def _write_whole(link: Link, request: pb.ListEventsRequest, target: TextIO, file: Path) -> int:
    """As _write; what is written only in part is taken away, so that nobody takes it for everything."""
    try:
        return await _write(link, request, target)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


async def _write(link: Link, request: pb.ListEventsRequest, target: TextIO) -> int:
    count = 0
    async for event in _stored(link, request, None):
        target.write(json.dumps(event_dict(event), separators=(",", ":")) + "\n")
        count += 1
    target.flush()
    return count


def _print_table(events: list[event_pb2.Event]) -> None:
    columns = ["TIME", "SEQUENCE", "TYPE", "SOURCE", "SUBJECT"]
    rows = [
        [show.clock(each.store_time), str(each.sequence), each.type, each.source, each.subject or "-"]
        for each in events
    ]
    if _shows_payload(show.out):
        widths = [max(len(column), *(len(row[place]) for row in rows)) for place, column in enumerate(columns)]
        room = max(show.out.width - sum(widths) - 2 * len(widths), len("PAYLOAD"))
        columns.append("PAYLOAD")
        for row, event in zip(rows, events, strict=True):
            text = payload_text(event)
            row.append(text if len(text) <= room or not show.out.is_terminal else f"{text[: room - 1]}…")
    show.out.print(show.table(columns, rows, right=("SEQUENCE",)))


def _shows_payload(console: Console) -> bool:
    return console.width >= _WIDE


def _print_gap(gap: pb.SubscribeGap, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"gap": show.message_dict(gap)}), flush=True)
        return
    why = "this reader is slow" if gap.cause == pb.GAP_CAUSE_SLOW_READER else "they are no longer held"
    count = str(gap.skipped) if gap.skipped else "an unknown number of"
    show.err.print(f"-- {count} events between {gap.first_sequence} and {gap.last_sequence} are not shown: {why}")
