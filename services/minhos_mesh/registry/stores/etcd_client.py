"""Decides how etcd is asked: which endpoint, for how long, what is asked again, and how a failure is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import grpc

from minhos_mesh.registry.store import StoreRefused, StoreUnavailable
from minhos_mesh.registry.stores import etcd_messages as wire
from minhos_mesh.runtime import streams
from minhos_mesh.runtime.log import get_logger

_OPTIONS: Final = (
    # etcd answers pings that come closer than 5 s by cutting the connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)
_AGAIN: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
OPEN_WATCH_S: Final = 3.0
"""How long etcd may take to confirm a watch."""

_log = get_logger("registry.etcd")


class Compacted(Exception):
    """Expected after a long absence: etcd no longer has what happened since a revision, everything must be read again."""


class EtcdClient:
    """Asks the first endpoint that answers; all endpoints belong to one etcd cluster."""

    def __init__(self, endpoints: Sequence[str], *, timeout_s: float) -> None:
        """`endpoints` are `host:port`. A call takes at most `timeout_s`, over all endpoints that are tried."""
        self._endpoints = tuple(endpoints)
        self._timeout_s = timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[tuple[str, str], Any] = {}
        self._at = 0

    @property
    def endpoint(self) -> str:
        """The endpoint that is asked now."""
        return self._endpoints[self._at % len(self._endpoints)]

    async def call(self, rpc: wire.Rpc, timeout_s: float | None = None, **fields: Any) -> Any:
        """Asks once, or again at the next endpoint when one does not answer: what is asked must bear repetition.

        Raises StoreUnavailable or StoreRefused.
        """
        allowed = self._timeout_s if timeout_s is None else timeout_s
        end = asyncio.get_running_loop().time() + allowed
        request = rpc.request(**fields)
        tried: dict[str, str] = {}
        for attempt in range(max(3, 2 * len(self._endpoints))):
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                break
            endpoint = self.endpoint
            share = left if len(self._endpoints) == 1 or attempt else max(left / 2, 0.05)
            try:
                return await self._method(endpoint, rpc)(request, timeout=share)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise StoreRefused(f"etcd at {endpoint} refused {rpc.path}: {_told(error)}") from None
                tried[endpoint] = _told(error)
                self.fail_over(endpoint)
            if len(tried) == len(self._endpoints):
                await asyncio.sleep(min(0.05 * 2**attempt, 0.5, max(0.0, end - asyncio.get_running_loop().time())))
        told = "; ".join(f"{endpoint}: {text}" for endpoint, text in tried.items())
        raise StoreUnavailable(f"etcd did not answer {rpc.path} within {allowed:g} s ({told})")

    def fail_over(self, endpoint: str) -> None:
        """Asks another endpoint from now on, should this one be asked."""
        if endpoint == self.endpoint and len(self._endpoints) > 1:
            self._at += 1
            _log.info("etcd.endpoint", now=self.endpoint, before=endpoint)

    async def read_all(self, prefix: bytes) -> tuple[int, list[Any]]:
        """All keys with a prefix as of one revision, which comes first; in pages, so that none is too large."""
        found: list[Any] = []
        key, revision = prefix, 0
        while True:
            answer = await self.call(
                wire.RANGE, key=key, range_end=wire.prefix_end(prefix), limit=1_000, revision=revision
            )
            revision = revision or answer.header.revision
            found.extend(answer.kvs)
            if not answer.more:
                return revision, found
            key = answer.kvs[-1].key + b"\0"

    @contextlib.asynccontextmanager
    async def watch(self, prefix: bytes, start: int) -> AsyncIterator[AsyncIterator[Any]]:
        """Opens a watch of all keys with a prefix from a revision on; gives its responses, progress notices among them.

        Raises StoreUnavailable when it cannot be opened or ends, Compacted when the revision is gone.
        """
        endpoint = self.endpoint
        stream = self._channel(endpoint).stream_stream(
            wire.WATCH.path, wire.WATCH.request.SerializeToString, wire.WATCH.response.FromString
        )()
        try:
            try:
                async with asyncio.timeout(OPEN_WATCH_S):
                    create = {"key": prefix, "range_end": wire.prefix_end(prefix), "start_revision": start}
                    await stream.write(wire.WatchRequest(create_request={**create, "progress_notify": True}))
                    first = await streams.read(stream)
                if first is grpc.aio.EOF or not first.created:
                    raise StoreUnavailable(f"etcd at {endpoint} did not open the watch")
                _check_watch(first)
                yield self._responses(stream)
            except TimeoutError:
                raise StoreUnavailable(f"etcd at {endpoint} did not open a watch within {OPEN_WATCH_S:g} s") from None
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                raise StoreUnavailable(f"the watch at etcd {endpoint} ended: {_told(error)}") from None
        except StoreUnavailable:
            self.fail_over(endpoint)
            raise
        finally:
            stream.cancel()

    async def _responses(self, stream: Any) -> AsyncIterator[Any]:
        async for response in streams.messages(stream):
            _check_watch(response)
            yield response
        raise StoreUnavailable("etcd ended the watch")

    async def keep_alive(self, lease: int, every_s: float, on_beat: Callable[[], None]) -> None:
        """Keeps a lease alive until etcd says that it is gone (then it returns); calls `on_beat` at each answer.

        Raises StoreUnavailable when the stream breaks or an answer is overdue.
        """
        endpoint = self.endpoint
        stream = self._channel(endpoint).stream_stream(
            wire.KEEP_ALIVE.path, wire.KEEP_ALIVE.request.SerializeToString, wire.KEEP_ALIVE.response.FromString
        )()
        try:
            while True:
                async with asyncio.timeout(self._timeout_s):
                    await stream.write(wire.AliveRequest(id=lease))
                    answer = await streams.read(stream)
                if answer is grpc.aio.EOF:
                    raise StoreUnavailable(f"etcd at {endpoint} ended the stream of the lease")
                if answer.ttl <= 0:
                    return
                on_beat()
                await asyncio.sleep(every_s)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            self.fail_over(endpoint)
            raise StoreUnavailable(f"etcd at {endpoint} does not answer the lease: {_told(error)}") from None
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Closes all connections."""
        self._calls.clear()
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        return channel

    def _method(self, endpoint: str, rpc: wire.Rpc) -> Any:
        method = self._calls.get((endpoint, rpc.path))
        if method is None:
            made = self._channel(endpoint).unary_unary(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)
            method = self._calls[endpoint, rpc.path] = made
        return method


def _check_watch(response: Any) -> None:
    if response.compact_revision:
        raise Compacted(f"etcd holds no changes before revision {response.compact_revision}")
    if response.canceled:
        raise StoreUnavailable(f"etcd cancelled the watch: {response.cancel_reason or 'no reason given'}")


def _told(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return type(error).__name__
