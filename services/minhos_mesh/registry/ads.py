"""Decides how discovery clients are served: the state-of-the-world ADS stream of xDS v3, over grpc.aio.

No discovery request is answered before `open()` was called, which happens when the endpoints of an earlier life have
been loaded and probed; an answer given too early would take working endpoints away from running clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from minhos_mesh.registry.ads_limits import (
    MAX_CLIENT_NAME,
    MAX_ON_CONNECTION,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_UNPROVEN,
    PROOF_SECONDS,
    LogPace,
    Pace,
    RefusalLog,
    TooManyRefusals,
    least_promising,
)
from minhos_mesh.registry.ads_stream import (
    DiscoveryStream,
    Refusal,
    Request,
    Response,
    Snapshot,
    TooManyNames,
    Withheld,
    readable,
)
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import NO_ZONE, Resources, fallback_resource

KEPT_REFUSALS: Final = 100
STALLED_SECONDS: Final = 2.0
"""A client that has not answered for so long is not waited for."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientRefusal:
    """A refused response (NACK), with the client that refused it."""

    client: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class DiscoveryStats:
    """Counts since the registry started."""

    streams: int = 0
    responses: int = 0
    acknowledged: int = 0
    refused: int = 0
    turned_away: int = 0
    """Streams that were ended because of what the client did or did not do."""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream is ended by the registry. No exception: its frames would hold what the client sent."""

    text: str
    code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED


class _Client:
    """One open stream."""

    def __init__(self, stream: DiscoveryStream, connection: str) -> None:
        self.stream, self.connection = stream, connection
        self.wake = asyncio.Event()
        self.name = ""
        self.zone = NO_ZONE
        self.asked = False
        """Whether it said anything yet."""
        self.opened_at = self.told_at = asyncio.get_running_loop().time()
        self.up_to_date = False
        """Whether everything it should have was sent."""
        self.withheld: tuple[Withheld, ...] = ()
        self.ending: Ending | None = None
        """Why it is to end, once that is decided."""
        self.pace, self.refusals = Pace(), RefusalLog()

    def settled(self, now: float) -> bool:
        """Whether it has answered all that it should have, or is not worth waiting for."""
        return (self.up_to_date and self.stream.answered) or now - self.told_at > STALLED_SECONDS

    def end(self, why: Ending) -> None:
        """Ends it as soon as its writer looks."""
        self.ending = self.ending or why
        self.wake.set()


class AggregatedDiscovery:
    """Holds what is true now and serves it to every discovery stream."""

    def __init__(
        self,
        messages: EnvoyMessages,
        *,
        generation: str,
        on_withheld: Callable[[Mapping[str, tuple[Withheld, ...]]], None] = lambda _withheld: None,
    ) -> None:
        """`generation` tells the versions of this registry process from those of its predecessors.

        `on_withheld` is told by client which resources it refused as they are now, whenever that changes.
        """
        self._on_withheld = on_withheld
        self._messages = messages
        self._generation = generation
        self._pushes = 0
        self._source: Callable[[str], Resources] = lambda _zone: {}
        self._zones: frozenset[str] = frozenset()
        self._snapshots: dict[str, Snapshot] = {}
        self._opened = asyncio.Event()
        self._clients: set[_Client] = set()
        self._progress = asyncio.Event()
        self._stats = DiscoveryStats()
        self._refusals: deque[ClientRefusal] = deque(maxlen=KEPT_REFUSALS)
        self._closing = False
        self._log_pace = LogPace()

    def open(self) -> None:
        """Lets discovery requests be answered from now on."""
        now = asyncio.get_running_loop().time()
        for client in self._clients:
            client.opened_at = client.told_at = now
        self._opened.set()
        self._wake_all()

    def close(self) -> None:
        """Ends all streams; the clients keep what they have and come back to a new registry."""
        self._closing = True
        self._opened.set()
        self._wake_all()

    def publish(self, source: Callable[[str], Resources], zones: frozenset[str] = frozenset()) -> None:
        """Makes what `source` gives for a zone the state of the world and wakes every stream.

        It is asked when the first stream gets to send, so that many changes at once are one push. `zones` are those
        that matter; clients elsewhere get what it gives for no zone.
        """
        self._pushes += 1
        self._source, self._zones = source, zones
        self._snapshots.clear()
        self._wake_all()

    async def settled(self, timeout: float) -> bool:
        """Waits until every client has answered all that it was sent; False when one did not in `timeout` seconds."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while not all(client.settled(loop.time()) for client in self._clients):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    def stats(self) -> DiscoveryStats:
        """Counts for the health monitor and the logs."""
        return replace(self._stats, streams=len(self._clients), version=self._version)

    def refusals(self) -> tuple[ClientRefusal, ...]:
        """The latest refused responses, oldest first."""
        return tuple(self._refusals)

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler of the ADS service, made without generated stubs. Requests come as bytes, whose size is looked at first."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.stream_aggregated_resources, None, lambda message: message.SerializeToString()
        )
        handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(ADS_SERVICE, {ADS_METHOD: method})
        return handler

    async def stream_aggregated_resources(
        self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Serves one client until it leaves or the registry closes. Requests are read from the context, since the iterator
        would hold the last one for as long as an aborted call is remembered.
        """
        if (full := self._full(context.peer())) is not None:
            self._stats = replace(self._stats, turned_away=self._stats.turned_away + 1)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, full)
        client = _Client(DiscoveryStream(self._fallback), context.peer())
        self._clients.add(client)
        reader = asyncio.create_task(self._read(context.read, client), name="ads-reader")
        reader.add_done_callback(lambda _task: client.wake.set())
        proof = asyncio.get_running_loop().call_later(PROOF_SECONDS, self._demand_proof, client)
        try:
            await self._opened.wait()
            await self._write(client, reader, context.write)
            await self._tell_ending(client, context)
        finally:
            proof.cancel()
            self._clients.discard(client)
            self._note_withheld(client, ())
            self._progress.set()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _tell_ending(self, client: _Client, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if client.ending is not None:
            self._stats = replace(self._stats, turned_away=self._stats.turned_away + 1)
            self._warn("discovery.turned_away", client=client.name, text=client.ending.text)
            await context.abort(client.ending.code, client.ending.text)
        if self._closing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the registry is stopping")

    async def _write(self, client: _Client, reader: asyncio.Task[None], write: Callable[[Any], Any]) -> None:
        while not (self._closing or client.ending or reader.done()):
            # From here on nothing is awaited before the wait below unless something was sent, so no wake is missed.
            client.wake.clear()
            snapshot = self._snapshot(client.zone)
            try:
                while (response := client.stream.next_response(snapshot)) is not None:
                    self._stats = replace(self._stats, responses=self._stats.responses + 1)
                    await write(self._encode(response))
                    snapshot = self._snapshot(client.zone)
            except TooManyNames as error:
                client.end(Ending(str(error)))
                return
            client.up_to_date = not client.wake.is_set()
            self._note_withheld(client, client.stream.withheld(snapshot))
            self._progress.set()
            await client.wake.wait()

    async def _read(self, read: Callable[[], Awaitable[Any]], client: _Client) -> None:
        try:
            while (message := self._parsed(client, await read())) is not None:
                self._receive(client, message)
                client.wake.set()
                await client.pace.keep()
        except (TooManyNames, TooManyRefusals) as error:
            client.end(Ending(str(error)))

    def _parsed(self, client: _Client, raw: Any) -> Any:
        """The request; None at the end of the stream, and when it is none or too large, for which the stream is ended."""
        if raw is grpc.aio.EOF:
            return None
        if len(raw) > MAX_REQUEST_BYTES:
            client.end(Ending(f"a request of {len(raw)} bytes, allowed are {MAX_REQUEST_BYTES}"))
            return None
        try:
            return self._messages.discovery_request.FromString(raw)
        except DecodeError:
            text = f"{len(raw)} bytes that are no DiscoveryRequest"
            client.end(Ending(text, grpc.StatusCode.INVALID_ARGUMENT))
            return None

    def _receive(self, client: _Client, message: Any) -> None:
        client.asked = True
        client.name = readable(message.node.id, MAX_CLIENT_NAME) or client.name
        client.zone = message.node.locality.zone or client.zone
        client.told_at = asyncio.get_running_loop().time()
        before = client.stream.accepted
        refusal = client.stream.receive(_decode(message))
        accepted = client.stream.accepted - before
        if accepted:
            self._stats = replace(self._stats, acknowledged=self._stats.acknowledged + accepted)
        if refusal is not None:
            self._note_refusal(client, ClientRefusal(client.name, refusal))

    def _note_refusal(self, client: _Client, refused: ClientRefusal) -> None:
        self._refusals.append(refused)
        self._stats = replace(self._stats, refused=self._stats.refused + 1)
        if client.refusals.note(asyncio.get_running_loop().time()):
            self._warn(
                "discovery.refused",
                client=refused.client,
                type=refused.refusal.type_url.rsplit(".", 1)[-1],
                version=refused.refusal.version,
                withheld=list(refused.refusal.names),
                text=refused.refusal.text,
                refusals=client.refusals.count,
            )

    def _warn(self, event: str, **told: Any) -> None:
        left_out = self._log_pace.left_out(asyncio.get_running_loop().time())
        if left_out is not None:
            _log.warning(event, **told, **({"left_out": left_out} if left_out else {}))

    def _note_withheld(self, client: _Client, withheld: tuple[Withheld, ...]) -> None:
        if client.withheld == withheld:
            return
        client.withheld = withheld
        self._on_withheld({c.name: c.withheld for c in self._clients if c.withheld})

    # Room for others.

    def _full(self, connection: str) -> str | None:
        """Why there is no room for one more stream of a connection; None when there is, if need be in place of another."""
        there = [client for client in self._clients if client.ending is None]
        if sum(1 for client in there if client.connection == connection) >= MAX_ON_CONNECTION:
            return f"{MAX_ON_CONNECTION} discovery streams are open on this connection"
        if len(self._clients) >= MAX_STREAMS + MAX_UNPROVEN:
            return f"{MAX_STREAMS} discovery streams are open"
        unproven = sum(1 for client in there if not client.stream.proven)
        if unproven < MAX_UNPROVEN and len(there) < MAX_STREAMS:
            return None
        victim = least_promising(there)
        if victim is None:
            return f"{MAX_STREAMS} discovery streams are open"
        victim.end(Ending("others need the room, and nothing was answered on this stream"))
        return None

    def _demand_proof(self, client: _Client) -> None:
        if self._opened.is_set() and not client.stream.proven:
            client.end(Ending(f"nothing was answered on this stream for {PROOF_SECONDS:g} s"))

    # What is sent.

    @property
    def _version(self) -> str:
        return f"{self._generation}.{self._pushes}"

    def _snapshot(self, zone: str) -> Snapshot:
        key = zone if zone in self._zones else NO_ZONE
        if key not in self._snapshots:
            self._snapshots[key] = Snapshot(self._version, self._source(key))
        return self._snapshots[key]

    def _encode(self, response: Response) -> Any:
        return self._messages.discovery_response(
            version_info=response.version,
            type_url=response.type_url,
            nonce=response.nonce,
            resources=[{"type_url": r.type_url, "value": r.value} for r in response.resources],
        )

    def _fallback(self, type_url: str, name: str) -> Any:
        return fallback_resource(self._messages, type_url, name)

    def _wake_all(self) -> None:
        now = asyncio.get_running_loop().time()
        for client in self._clients:
            if client.up_to_date and client.stream.answered:
                client.told_at = now
            client.up_to_date = False
            client.wake.set()


def _decode(message: Any) -> Request:
    error = None
    if message.HasField("error_detail"):
        error = message.error_detail.message or f"refused with code {message.error_detail.code} and no text"
    return Request(message.type_url, tuple(message.resource_names), message.response_nonce, error)
