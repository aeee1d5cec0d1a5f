"""How the replicated log lies in one JetStream stream: whole records in order, each exactly behind the one before.

Every message is published with the sequence that the stream must end at, so that of two writers one is refused, and with
an id, so that a message that is sent again is stored once. After every doubt the leader is asked what the stream holds.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from minhos_mesh.event_bus.engines.jetstream_record import FORMAT, Record, chained, decode
from minhos_mesh.runtime.storage import StorageBusy, StorageCorrupt, StorageError

_LOG: Final = logging.getLogger(__name__)

REQUEST_S: Final = 1.0
"""How long one question to the servers may take before it is asked again."""

PAUSE_S: Final = 0.05
"""Pause between two questions while the servers do not answer."""

RECONNECT_S: Final = 0.1
"""Pause between two attempts to find a server again."""

HEADROOM_BYTES: Final = 8 * 1024
"""Part of the servers' largest message that is left for headers."""

CLAIM_S: Final = 0.5
"""How long a bus holds back its writing when another one with a higher token says that it takes over."""

READ_MESSAGES: Final = 256
READ_BYTES: Final = 8 * 1024 * 1024
_PREFIX: Final = "Minhos-"
_NO_PEERS: Final = 10005
_NO_STREAM: Final = 10059
_NOT_HELD: Final = (10037, _NO_STREAM)


class LogUnreachable(StorageBusy):
    """Expected: the servers of the stream do not answer in time; what was being written may or may not be stored."""


class LogMoved(StorageError):
    """Expected: the stream holds records that this bus has not applied yet."""


class TailLost(StorageCorrupt):
    """Unexpected: the stream no longer holds what it acknowledged."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Where the stream is and how it is kept."""

    servers: tuple[str, ...]
    """Addresses, `host:port` or with a scheme; one that answers is enough."""
    stream: str = "MINHOS_EVENTS"
    """Name of the stream."""
    replicas: int = 3
    """On how many servers it is kept; 1, 3 or 5."""
    timeout_s: float = 5.0
    """How long a write waits for servers that do not answer, and how long the start may take to find one."""
    copy_after_bytes: int = 256_000_000
    """How much the log grows, at least, before a copy of the whole journal is stored and the log is cut."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which messages the stream holds, and how many bytes they are."""

    first: int
    last: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message: a part of a record, number `part` of `parts` from 1."""

    sequence: int
    owner: str
    record_id: str
    part: int
    parts: int
    chain: str
    newest: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record that is to be written."""

    owner: str
    record_id: str
    chain: str
    newest: int
    body: bytes


@dataclass(slots=True)
class _Acks:
    """Who waits for which acknowledgement."""

    waiting: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def expect(self) -> tuple[str, asyncio.Future[dict[str, Any]]]:
        token = f"{next(self.numbers):x}"
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting[token] = future
        future.add_done_callback(lambda _: self.waiting.pop(token, None))
        return token, future

    async def arrived(self, message: Msg) -> None:
        future = self.waiting.get(message.subject.rpartition(".")[2])
        if future is None or future.done():
            return
        if message.headers and message.headers.get("Status"):
            future.set_exception(LogUnreachable("no server answers for the stream"))
        else:
            future.set_result(json.loads(message.data))


class StreamLog:
    """The log of one bus. Use as an async context manager; entering connects and creates or checks the stream."""

    def __init__(self, settings: StreamSettings, name: str) -> None:
        """`name` is what the servers show of this connection."""
        self.settings = settings
        self.doubtful = False
        """Whether the stream may hold something else than this bus wrote; whoever has looked takes it back."""
        self.wake = asyncio.Event()
        """Set when `doubtful` becomes true."""
        self._name = name
        self._client = Client()
        self._acks = _Acks()
        self._inbox = ""
        self._trouble = ""
        self._claim = 0
        self._claim_end = 0.0
        self._closing = False

    @property
    def title(self) -> str:
        """The stream, as messages name it."""
        return f"stream {self.settings.stream} at {', '.join(self.settings.servers)}"

    @property
    def subject(self) -> str:
        """Subject of its records."""
        return f"minhos.log.{self.settings.stream}"

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                await self._connect()
                await self.prepare(self.settings.stream, [self.subject])
        except (TimeoutError, OSError, NatsError) as error:
            await self.close()
            trouble = self._trouble or _words(error)
            raise LogUnreachable(f"{self.title}: no server can be used: {trouble}") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection."""
        self._closing = True
        with contextlib.suppress(NatsError, OSError):
            await self._client.close()

    # Writing.

    async def write(self, after: int, record: Outgoing) -> int:
        """Stores a record right behind the message `after` and returns the sequence of its last message.

        Raises LogMoved when something else stands there, LogUnreachable when the time is over, TailLost.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.timeout_s
        room = max(1, self._client.max_payload - HEADROOM_BYTES)
        parts = [record.body[at : at + room] for at in range(0, len(record.body), room)]
        stored = 0
        while True:
            try:
                return await self._publish(after, record, parts, stored, end - loop.time())
            except (LogUnreachable, NatsError, OSError, TimeoutError) as error:
                trouble = _words(error)
            while True:
                if loop.time() >= end:
                    raise LogUnreachable(f"{self.title}: not stored within {self.settings.timeout_s:g} s: {trouble}")
                try:
                    stored = await self._stored_of(record, after)
                    break
                except LogUnreachable:
                    await asyncio.sleep(PAUSE_S)
            if stored == len(parts):
                return after + stored
            await asyncio.sleep(PAUSE_S)

    async def _publish(self, after: int, record: Outgoing, parts: list[bytes], start: int, timeout_s: float) -> int:
        """Sends the parts behind one another without waiting in between; their acknowledgements come in the same order."""
        acks: list[asyncio.Future[dict[str, Any]]] = []
        try:
            for index in range(start, len(parts)):
                token, ack = self._acks.expect()
                acks.append(ack)
                headers = {
                    "Nats-Msg-Id": f"{record.record_id}-{index + 1}",
                    "Nats-Expected-Last-Sequence": str(after + index),
                    "Nats-Expected-Stream": self.settings.stream,
                    f"{_PREFIX}Format": FORMAT,
                    f"{_PREFIX}Owner": record.owner,
                    f"{_PREFIX}Record": record.record_id,
                    f"{_PREFIX}Part": f"{index + 1}/{len(parts)}",
                    f"{_PREFIX}Chain": record.chain,
                    f"{_PREFIX}Newest": str(record.newest),
                }
                await self._client.publish(self.subject, parts[index], f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(min(timeout_s, max(REQUEST_S, len(record.body) / 1e6))):
                for index, ack in enumerate(acks, start):
                    answer = await ack
                    if "error" in answer:
                        raise LogUnreachable(str(answer["error"].get("description", answer["error"])))
                    if answer.get("seq") != after + index + 1:
                        raise LogUnreachable(f"it was stored as {answer.get('seq')}, not as {after + index + 1}")
        finally:
            for ack in acks:
                ack.cancel()
        return after + len(parts)

    async def _stored_of(self, record: Outgoing, after: int) -> int:
        """How many parts of a record stand right behind `after`. Raises LogMoved when something else does, TailLost."""
        extent = await self.extent()
        if extent.last < after:
            raise LogMoved("the stream is shorter than it was")
        count = 0
        async for message in self.messages(after + 1, extent.last):
            count += 1
            if message.record_id != record.record_id or message.part != count:
                raise LogMoved("the stream holds a record that was not applied yet")
        return count

    async def claim(self, token: int) -> None:
        """Asks whoever writes to hold back, so that the log stands still while it is taken over."""
        with contextlib.suppress(NatsError, OSError):
            await self._client.publish(f"{self.subject}.claim", str(token).encode())

    def is_claimed(self, token: int) -> bool:
        """Whether another bus, with a higher token than this, is about to take the log over."""
        return self._claim > token and asyncio.get_running_loop().time() < self._claim_end

    async def put(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> int:
        """Stores one message of another stream than the log and returns its sequence. Raises StorageError."""
        try:
            message = await self._client.request(subject, body, timeout=self.settings.timeout_s, headers=headers)
        except (NatsError, OSError, TimeoutError) as error:
            raise LogUnreachable(f"{self.title}: {_words(error)}") from None
        answer = json.loads(message.data)
        if "error" in answer:
            raise StorageError(f"{self.title}: {answer['error'].get('description')}")
        return int(answer["seq"])

    # Reading.

    async def extent(self) -> Extent:
        """Which messages the stream holds by the word of its leader; none when there is no such stream. Raises LogUnreachable."""
        answer = await self.ask(f"STREAM.INFO.{self.settings.stream}")
        if "error" in answer:
            if answer["error"].get("err_code") == _NO_STREAM:
                return Extent(0, 0, 0)
            raise LogUnreachable(f"{self.title}: {answer['error'].get('description')}")
        state = answer["state"]
        return Extent(state["first_seq"], state["last_seq"], state["bytes"])

    async def messages(self, first: int, last: int) -> AsyncIterator[Message]:
        """The messages of a range in order. Raises LogUnreachable, and StorageCorrupt when one of them is missing."""
        at, loop = first, asyncio.get_running_loop()
        end = loop.time() + self.settings.timeout_s
        while at <= last:
            found = await self._batch(at, min(READ_MESSAGES, last - at + 1))
            for message in found:
                if message.sequence != at:
                    raise StorageCorrupt(f"{self.title}: message {at} is missing, {message.sequence} comes next")
                yield message
                at += 1
            if found:
                end = loop.time() + self.settings.timeout_s
            elif loop.time() > end:
                raise LogUnreachable(f"{self.title}: message {at} of {last} could not be read")
            else:
                await asyncio.sleep(PAUSE_S)

    async def records(self, first: int, last: int, chain: str) -> AsyncIterator[tuple[int, Record]]:
        """The whole records of a range, with the sequence of the last message of each; `chain` is that before the first.

        Parts of a record that was never finished, and so never acknowledged, are passed over. Raises StorageCorrupt when
        a record does not follow from the one before.
        """
        parts: list[Message] = []
        async for message in self.messages(first, last):
            if message.part != len(parts) + 1 or (parts and parts[0].record_id != message.record_id):
                parts = []
            if message.part == len(parts) + 1:
                parts.append(message)
            if not parts or len(parts) < message.parts:
                continue
            body = b"".join(part.body for part in parts)
            parts = []
            if chained(chain, body) != message.chain:
                raise StorageCorrupt(
                    f"{self.title}: record {message.sequence} does not follow from the one before: the stream or this bus's"
                    " copy of it is not what it was"
                )
            chain = message.chain
            yield (
                message.sequence,
                Record(message.owner, message.record_id, message.chain, message.newest, decode(body)),
            )

    async def header_at(self, sequence: int, name: str) -> str | None:
        """A header of one message (`Chain`, `Newest`) by the word of the leader; None when the message is not held."""
        if not sequence:
            return None
        answer = await self.ask(f"STREAM.MSG.GET.{self.settings.stream}", {"seq": sequence})
        if "error" in answer:
            if answer["error"].get("err_code") in _NOT_HELD:
                return None
            raise LogUnreachable(f"{self.title}: {answer['error'].get('description')}")
        lines = base64.b64decode(answer["message"].get("hdrs", "")).decode().split("\r\n")
        start = f"{_PREFIX}{name}:"
        return next((line.removeprefix(start).strip() for line in lines if line.startswith(start)), None)

    async def _batch(self, first: int, count: int) -> list[Message]:
        inbox = self._client.new_inbox()
        found: list[Message] = []
        try:
            subscription = await self._client.subscribe(inbox)
            question = {"seq": first, "batch": count, "max_bytes": READ_BYTES}
            api = f"$JS.API.DIRECT.GET.{self.settings.stream}"
            await self._client.publish(api, json.dumps(question).encode(), inbox)
            try:
                while len(found) < count:
                    message = await subscription.next_msg(REQUEST_S)
                    if message.headers is None or message.headers.get("Status"):
                        break
                    found.append(_message(message, self.title))
            finally:
                await subscription.unsubscribe()
        except (NatsError, OSError, TimeoutError) as error:
            if not found:
                raise LogUnreachable(f"{self.title}: cannot be read: {_words(error)}") from None
        return found

    # The connection.

    async def _connect(self) -> None:
        servers = [server if "://" in server else f"nats://{server}" for server in self.settings.servers]
        await self._client.connect(
            servers=servers,
            name=self._name,
            error_cb=self._on_error,
            disconnected_cb=self._on_lost,
            reconnected_cb=self._on_found,
            connect_timeout=1,
            reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type] # it is slept, a part of a second too
            max_reconnect_attempts=-1,
            ping_interval=1,
            max_outstanding_pings=2,
            pending_size=0,
            no_echo=True,
        )
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._acks.arrived)
        await self._client.subscribe(self.subject, cb=self._on_foreign)
        await self._client.subscribe(f"{self.subject}.claim", cb=self._on_claim)

    async def prepare(self, stream: str, subjects: list[str]) -> None:
        """Creates a stream, or checks that the one there loses nothing by itself. Raises StorageError when it does."""
        wanted = {
            "name": stream,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": self.settings.replicas,
            "duplicate_window": 120 * 10**9,
            "allow_direct": True,
            "deny_delete": True,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
        }
        while True:
            try:
                answer = await self.ask(f"STREAM.INFO.{stream}")
                if "error" in answer and answer["error"].get("err_code") == _NO_STREAM:
                    answer = await self.ask(f"STREAM.CREATE.{stream}", wanted)
            except LogUnreachable as error:
                self._trouble = str(error).removeprefix(f"{self.title}: ")
                await asyncio.sleep(PAUSE_S)
                continue
            if "error" not in answer:
                return self._check(answer["config"], wanted)
            self._trouble = str(answer["error"].get("description"))
            if answer["error"].get("code", 503) < 500 and answer["error"].get("err_code") != _NO_PEERS:
                raise StorageError(f"{self.title}: cannot be used: {self._trouble}")
            await asyncio.sleep(PAUSE_S)

    def _check(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        for key in (
            "subjects",
            "retention",
            "storage",
            "num_replicas",
            "max_msgs",
            "max_bytes",
            "max_age",
            "allow_direct",
        ):
            if found.get(key) != wanted[key]:
                raise StorageError(
                    f"{self.title}: {key} is {found.get(key)!r}, allowed is {wanted[key]!r}: change the stream, or"
                    " event_bus.stream and event_bus.replicas in the configuration"
                )

    async def ask(self, api: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer of the servers to a question; an error in it is the caller's. Raises LogUnreachable."""
        payload = json.dumps(question).encode() if question is not None else b""
        try:
            message = await self._client.request(f"$JS.API.{api}", payload, timeout=REQUEST_S)
        except (NatsError, OSError, TimeoutError) as error:
            raise LogUnreachable(f"{self.title}: {_words(error)}") from None
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def _on_error(self, error: Exception) -> None:
        _LOG.debug("%s: %s", self.title, _words(error))

    async def _on_lost(self) -> None:
        if not self._closing:
            _LOG.warning("%s: the connection is lost", self.title)

    async def _on_found(self) -> None:
        _LOG.info(
            "%s: connected again, to %s", self.title, self._client.connected_url and self._client.connected_url.netloc
        )
        self.doubtful = True
        self.wake.set()

    async def _on_claim(self, message: Msg) -> None:
        if message.data.isdigit():
            self._claim = int(message.data)
            self._claim_end = asyncio.get_running_loop().time() + CLAIM_S
            await self._on_foreign(message)

    async def _on_foreign(self, _message: Msg) -> None:
        self.doubtful = True
        self.wake.set()


def _message(message: Msg, title: str) -> Message:
    headers = message.headers or {}
    if headers.get(f"{_PREFIX}Format") != FORMAT:
        raise StorageCorrupt(
            f"{title}: message {headers.get('Nats-Sequence')} is no record of version {FORMAT} of the log"
        )
    part, _, parts = headers[f"{_PREFIX}Part"].partition("/")
    return Message(
        sequence=int(headers["Nats-Sequence"]),
        owner=headers[f"{_PREFIX}Owner"],
        record_id=headers[f"{_PREFIX}Record"],
        part=int(part),
        parts=int(parts),
        chain=headers[f"{_PREFIX}Chain"],
        newest=int(headers[f"{_PREFIX}Newest"]),
        body=message.data,
    )


def _words(error: BaseException) -> str:
    """What an error says, or its name when it says nothing."""
    return str(error) or type(error).__name__
