"""Decides how discovery clients are served: the state-of-the-world ADS stream of xDS v3, over grpc.aio.

No discovery request is answered before `open()` was called, which happens when the endpoints of an earlier life have
been loaded and probed; an answer given too early would take working endpoints away from running clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
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


class AggregatedDiscovery:
    """Holds the newest snapshot and serves it to every discovery stream."""

    def __init__(self, messages: EnvoyMessages, *, generation: str) -> None:
        """`generation` tells the versions of this registry process from those of its predecessors."""
        self._messages = messages
        self._generation = generation
        self._pushes = 0
        self._snapshot = Snapshot(f"{generation}.0", {})
        self._opened = asyncio.Event()
        self._wakers: set[asyncio.Event] = set()
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

    def stats(self) -> DiscoveryStats:
        """Counts for the health monitor and the logs."""
        return replace(self._stats, streams=len(self._wakers), version=self._snapshot.version)

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
        if len(self._wakers) >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} discovery streams are open")
        wake = asyncio.Event()
        stream = DiscoveryStream(self._fallback)
        self._wakers.add(wake)
        reader = asyncio.create_task(self._read(requests, stream, wake), name="ads-reader")
        reader.add_done_callback(lambda _task: wake.set())
        try:
            await self._opened.wait()
            await self._write(stream, wake, reader, context.write)
            if reader.done() and not reader.cancelled() and isinstance(reader.exception(), TooManyNames):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(reader.exception()))
            if self._closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the registry is stopping")
        finally:
            self._wakers.discard(wake)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _write(
        self,
        stream: DiscoveryStream,
        wake: asyncio.Event,
        reader: asyncio.Task[None],
        write: Callable[[Any], Any],
    ) -> None:
        while not self._closing and not reader.done():
            wake.clear()
            while (response := stream.next_response(self._snapshot)) is not None:
                self._stats = replace(self._stats, responses=self._stats.responses + 1)
                await write(self._encode(response))
            if not reader.done() and not self._closing:
                await wake.wait()

    async def _read(self, requests: AsyncIterator[Any], stream: DiscoveryStream, wake: asyncio.Event) -> None:
        client = ""
        async for message in requests:
            client = message.node.id or client
            before = stream.accepted
            refusal = stream.receive(_decode(message))
            accepted = stream.accepted - before
            if accepted:
                self._stats = replace(self._stats, acknowledged=self._stats.acknowledged + accepted)
            if refusal is not None:
                self._note_refusal(ClientRefusal(client, refusal))
            wake.set()

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
        for wake in self._wakers:
            wake.set()


def _decode(message: Any) -> Request:
    error = None
    if message.HasField("error_detail"):
        error = message.error_detail.message or f"refused with code {message.error_detail.code} and no text"
    return Request(message.type_url, tuple(message.resource_names), message.response_nonce, error)
