"""Holds the lease of one instance at the registry: attaches, beats, obeys, and comes back for ever when the stream breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import google.protobuf
import grpc

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime import channel_options, errors
from minhos_mesh.runtime.contracts import built_with
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.registries import Registries
from minhos_mesh.runtime.streams import cut, messages

_LOG: Final = get_logger("runtime.attach")
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 0.3
"""The longest pause between two attempts; with as much for the connection, it is back well before its lease runs out."""
_OWNER_RETRY_S: Final = 0.1
"""The longest pause of an instance that stands by: callers of its service may be waiting for it."""
_HELLO_DEADLINE_S: Final = 5.0
_GOODBYE_DEADLINE_S: Final = 2.0
_FINAL: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)

PROGRAM_VERSION: Final = version("minhos-mesh")
"""Version of this program."""


class AttachRefused(Exception):
    """Unexpected: the registry will never admit this instance; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who attaches."""

    service: str
    """Name of the service."""
    instance_id: str
    """Id of the instance."""
    address: str
    """Where it listens."""
    contracts: tuple[str, ...]
    """What it serves."""
    zone: str = ""
    """Where it stands; clients of the same zone prefer it."""
    single_owner: bool = False
    """Whether its lease is granted only when no other instance of its service has one."""
    store_token: int | None = None
    """Highest fencing token that its store was opened with."""


@dataclass(frozen=True, slots=True)
class SelfView:
    """What an instance says of itself."""

    serving: bool
    conditions: Mapping[str, str]
    calls_in_flight: int
    internal_errors: int


def versions() -> dict[str, str]:
    """Versions of what this process runs on, and of what made its stubs."""
    return {
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "protobuf": google.protobuf.__version__,
        "generator": f"grpcio-tools {rpc.GRPC_GENERATED_VERSION}",
        "contracts": PROGRAM_VERSION,
    }


class Lease:
    """The lease of one instance, as a task of its host."""

    def __init__(
        self,
        registry: str,
        identity: Identity,
        look: Callable[[], SelfView],
        on_command: Callable[[pb.AttachCommand], None],
        others: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`look` is asked before each heartbeat; `on_command` is told what the registry wants; `others` gives the
        addresses of other registries of the mesh.
        """
        self._registries = Registries(registry, others)
        self._identity, self._look, self._on_command = identity, look, on_command
        self._changed = asyncio.Event()
        self._leaving: str | None = None
        self._left = asyncio.Event()
        self.granted = asyncio.Event()
        self.fencing_token: int | None = None
        self.granted_ever: int | None = None
        """Token of the newest grant, also when its lease has been lost since."""
        self._heartbeat_s = 1.0

    def changed(self) -> None:
        """Sends a heartbeat now, because what the instance says of itself has changed."""
        self._changed.set()

    async def leave(self, reason: str) -> None:
        """Says goodbye, so that the endpoint is drained at once; returns when it was heard or can't be."""
        self._leaving = reason
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_DEADLINE_S if self.granted.is_set() else 0):
                await self._left.wait()

    async def run(self) -> None:
        """Holds the lease until `leave`. Raises AttachRefused when the registry will never grant it."""
        while not self._left.is_set():
            address = self._registries.address
            async with grpc.aio.insecure_channel(address, options=channel_options.ATTACH) as channel:
                await self._run_at(address, rpc.RegistryServiceStub(channel))
        self._left.set()

    async def _run_at(self, address: str, stub: rpc.RegistryServiceAsyncStub) -> None:
        """Holds the lease at one registry until `leave`, or until another registry is to be tried."""
        retry_s = _FIRST_RETRY_S
        while not self._left.is_set() and self._registries.address == address:
            try:
                await self._hold(stub)
                retry_s = _FIRST_RETRY_S
            except grpc.aio.AioRpcError as error:
                told = errors.read(error)
                if self._leaving is not None:
                    self._left.set()
                    return
                if told.code in _FINAL and told.reason != "ERROR_REASON_LEASE_STALE":
                    raise AttachRefused(told.message) from None
                if told.reason == "ERROR_REASON_LEASE_STALE" and not self.granted.is_set():
                    # A token that was good until now is shown once more: whoever owns now is told of by its refusal.
                    self.fencing_token = None
                _LOG.warning("attach.broken", code=told.code.name, message=told.message, retry_s=retry_s)
            if self._leaving is None:
                if self.granted.is_set():
                    self._registries.answered()
                self._registries.failed()
                longest = _OWNER_RETRY_S if self._first_of_owner() else _LAST_RETRY_S
                retry_s = _FIRST_RETRY_S if self.granted.is_set() else min(retry_s * 2, longest)
                self.granted.clear()
                await asyncio.sleep(retry_s)

    async def _hold(self, stub: rpc.RegistryServiceAsyncStub) -> None:
        """One stream, from its hello to its end. An owner's first grant may take as long as another one owns."""
        call = stub.Attach(self._requests())
        try:
            async with asyncio.timeout(None if self._first_of_owner() else _HELLO_DEADLINE_S) as waiting:
                await self._hear(call, waiting)
        except TimeoutError:
            call.cancel()
            raise cut() from None
        if self._leaving is not None:
            self._left.set()

    def _first_of_owner(self) -> bool:
        """Whether this is an owner that has never had its lease."""
        return self._identity.single_owner and self.granted_ever is None

    async def _hear(self, call: Any, waiting: asyncio.Timeout) -> None:
        async for answer in messages(call):
            kind = answer.WhichOneof("message")
            if kind == "granted":
                waiting.reschedule(None)
                self.fencing_token = self.granted_ever = answer.granted.fencing_token
                self._heartbeat_s = max(0.05, answer.granted.heartbeat_interval.ToTimedelta().total_seconds())
                self.granted.set()
                self._changed.set()
                _LOG.info("attach.granted", fencing_token=self.fencing_token, lease_id=answer.granted.lease_id)
            elif kind == "command":
                self._on_command(answer.command)

    async def _requests(self) -> AsyncIterator[pb.AttachRequest]:
        yield pb.AttachRequest(hello=self._hello())
        await self.granted.wait()
        while True:
            self._changed.clear()
            view = self._look()
            yield pb.AttachRequest(
                heartbeat=pb.AttachHeartbeat(
                    serving=view.serving,
                    conditions=view.conditions,
                    calls_in_flight=view.calls_in_flight,
                    internal_errors=view.internal_errors,
                )
            )
            if self._leaving is not None:
                yield pb.AttachRequest(goodbye=pb.AttachGoodbye(reason=self._leaving))
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._changed.wait()

    def _hello(self) -> pb.AttachHello:
        identity = self._identity
        return pb.AttachHello(
            service=identity.service,
            instance_id=identity.instance_id,
            address=identity.address,
            version=PROGRAM_VERSION,
            contracts=identity.contracts,
            descriptor_set=built_with(identity.contracts),
            pid=os.getpid(),
            fencing_token=self.fencing_token,
            zone=identity.zone,
            single_owner=identity.single_owner,
            store_token=identity.store_token,
            versions=versions(),
        )
