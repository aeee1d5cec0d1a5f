"""Decides how discovery clients are served: the state-of-the-world ADS stream of xDS v3, over grpc.aio.

No discovery request is answered before `open()` was called, which happens when the endpoints of an earlier life have
been loaded and probed; an answer given too early would take working endpoints away from running clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import structlog

from minhos_mesh.registry.ads_stream import (
    DiscoveryStream,
    Refusal,
    Request,
    Response,
    Snapshot,
    TooManyNames,
)
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import Resources, fallback_resource

MAX_STREAMS = 512
"""Discovery streams at once; each client process holds one."""
KEPT_REFUSALS = 100

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
    version: str = ""


@dataclass(slots=True, eq=False)
class _Client:
    """One open stream."""

    stream: DiscoveryStream
    wake: asyncio.Event
    up_to_date: bool = False
    """Whether everything it should have was sent."""
    name: str = ""
    withheld: tuple[str, ...] = ()
    """Resources that it does not take."""


class AggregatedDiscovery:
    """Holds the newest snapshot and serves it to every discovery stream."""

    def __init__(
        self,
        messages: EnvoyMessages,
        *,
        generation: str,
        on_withheld: Callable[[Mapping[str, tuple[str, ...]]], None] = lambda _withheld: None,
    ) -> None:
        """`generation` tells the versions of this registry process from those of its predecessors.

        `on_withheld` is told by client which resources it refused as they are now, whenever that changes.
        """
        self._on_withheld = on_withheld
        self._messages = messages
        self._generation = generation
        self._pushes = 0
        self._snapshot = Snapshot(f"{generation}.0", {})
        self._opened = asyncio.Event()
        self._clients: set[_Client] = set()
        self._progress = asyncio.Event()
        self._stats = DiscoveryStats()
        self._refusals: deque[ClientRefusal] = deque(maxlen=KEPT_REFUSALS)
        self._closing = False

    def open(self) -> None:
        """Lets discovery requests be answered from now on."""
        self._opened.set()
        self._wake_all()

    def close(self) -> None:
        """Ends all streams; the clients keep what they have and come back to a new registry."""
        self._closing = True
        self._opened.set()
        self._wake_all()

    def publish(self, resources: Resources) -> None:
        """Makes these resources the state of the world and wakes every stream."""
        self._pushes += 1
        self._snapshot = Snapshot(f"{self._generation}.{self._pushes}", resources)
        self._wake_all()

    async def settled(self, timeout: float) -> bool:
        """Waits until every client has answered all that it was sent; False when one did not in `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not all(c.up_to_date and c.stream.answered for c in self._clients):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    def stats(self) -> DiscoveryStats:
        """Counts for the health monitor and the logs."""
        return replace(self._stats, streams=len(self._clients), version=self._snapshot.version)

    def refusals(self) -> tuple[ClientRefusal, ...]:
        """The latest refused responses, oldest first."""
        return tuple(self._refusals)

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler of the ADS service, made without generated stubs."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.stream_aggregated_resources,
            self._messages.discovery_request.FromString,
            lambda message: message.SerializeToString(),
        )
        handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(ADS_SERVICE, {ADS_METHOD: method})
        return handler

    async def stream_aggregated_resources(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Serves one client until it leaves or the registry closes."""
        if len(self._clients) >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} discovery streams are open")
        client = _Client(DiscoveryStream(self._fallback), asyncio.Event())
        self._clients.add(client)
        reader = asyncio.create_task(self._read(requests, client), name="ads-reader")
        reader.add_done_callback(lambda _task: client.wake.set())
        try:
            await self._opened.wait()
            await self._write(client, reader, context.write)
            if reader.done() and not reader.cancelled() and isinstance(reader.exception(), TooManyNames):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(reader.exception()))
            if self._closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the registry is stopping")
        finally:
            self._clients.discard(client)
            self._note_withheld(client, ())
            self._progress.set()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _write(self, client: _Client, reader: asyncio.Task[None], write: Callable[[Any], Any]) -> None:
        while not self._closing and not reader.done():
            client.wake.clear()
            while (response := client.stream.next_response(self._snapshot)) is not None:
                self._stats = replace(self._stats, responses=self._stats.responses + 1)
                await write(self._encode(response))
            client.up_to_date = not client.wake.is_set()
            self._note_withheld(client, client.stream.withheld(self._snapshot))
            self._progress.set()
            if not reader.done() and not self._closing:
                await client.wake.wait()

    async def _read(self, requests: AsyncIterator[Any], client: _Client) -> None:
        async for message in requests:
            client.name = message.node.id or client.name
            before = client.stream.accepted
            refusal = client.stream.receive(_decode(message))
            accepted = client.stream.accepted - before
            if accepted:
                self._stats = replace(self._stats, acknowledged=self._stats.acknowledged + accepted)
            if refusal is not None:
                self._note_refusal(ClientRefusal(client.name, refusal))
            client.wake.set()

    def _note_refusal(self, refused: ClientRefusal) -> None:
        self._refusals.append(refused)
        self._stats = replace(self._stats, refused=self._stats.refused + 1)
        _log.warning(
            "discovery.refused",
            client=refused.client,
            type=refused.refusal.type_url.rsplit(".", 1)[-1],
            version=refused.refusal.version,
            withheld=list(refused.refusal.names),
            text=refused.refusal.text,
        )

    def _note_withheld(self, client: _Client, withheld: tuple[str, ...]) -> None:
        if client.withheld == withheld:
            return
        client.withheld = withheld
        self._on_withheld({c.name: c.withheld for c in self._clients if c.withheld})

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
        for client in self._clients:
            client.up_to_date = False
            client.wake.set()


def _decode(message: Any) -> Request:
    error = None
    if message.HasField("error_detail"):
        error = message.error_detail.message or f"refused with code {message.error_detail.code} and no text"
    return Request(message.type_url, tuple(message.resource_names), message.response_nonce, error)
