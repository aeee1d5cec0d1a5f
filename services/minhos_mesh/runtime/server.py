"""Decides how a set of servicers is put on the wire: interceptors, health, reflection, channelz, one port on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.health import HealthServicer
from minhos_mesh.runtime.interceptors import (
    CallCounters,
    DeadlineInterceptor,
    ErrorInterceptor,
    ValidationInterceptor,
)

_GENERATED: Final = "_pb2_grpc"


class ContractViolation(TypeError):
    """Unexpected: a servicer does not serve the whole contract it claims; refused before anyone can call it."""

    def __init__(self, contract: str, servicer: str, missing: Sequence[str]) -> None:
        super().__init__(f"{servicer} does not serve {contract} whole: {', '.join(missing)} missing")
        self.contract = contract
        self.missing = tuple(missing)


class PromiseBroken(ContractViolation):
    """Unexpected: a service does not serve the contracts that the catalogue of services says it does."""

    def __init__(self, promised: Sequence[str], served: Sequence[str]) -> None:
        TypeError.__init__(
            self,
            f"runtime/catalogue.py says that {', '.join(promised) or 'nothing'} is served;"
            f" the servicers serve {', '.join(served) or 'nothing'}",
        )
        self.contract = ", ".join(promised)
        self.missing = tuple(sorted(set(promised) - set(served)))


class BindError(OSError):
    """Expected: the address cannot be listened on; the text names it and why."""


def contract_of(servicer: object) -> tuple[ServiceDescriptor, type]:
    """The contract that a servicer claims by its generated base class. Raises ContractViolation when it is not served whole."""
    for base in type(servicer).__mro__:
        if base.__module__.endswith(_GENERATED) and base.__name__.endswith("Servicer"):
            package = base.__module__.rpartition(".")[0]
            name = f"{package}.{base.__name__.removesuffix('Servicer')}"
            descriptor = descriptor_pool.Default().FindServiceByName(name)
            missing = [
                str(method.name)
                for method in descriptor.methods
                if getattr(type(servicer), method.name) is getattr(base, method.name)
            ]
            if missing:
                raise ContractViolation(name, type(servicer).__name__, missing)
            return descriptor, base
    raise ContractViolation("any contract", type(servicer).__name__, ["its generated base class"])


class MeshServer:
    """One gRPC server with everything that surrounds the servicers of a service.

    As an async context manager it serves at once, which is what tests want; the host calls the steps one by one.
    """

    def __init__(
        self,
        servicers: Sequence[object],
        *,
        errors: ErrorTable | None = None,
        bind: str = "127.0.0.1",
        port: int = 0,
        handlers: Sequence[grpc.GenericRpcHandler] = (),
        promised: Sequence[str] = (),
    ) -> None:
        """`promised` are the contracts of servicers that `fulfil` brings after the start."""
        if not _is_loopback(bind):
            raise BindError(f"{bind}: only loopback may be listened on while calls carry no identity")
        self.counters = CallCounters()
        self.health = HealthServicer()
        self.contracts: list[str] = []
        self._errors: dict[type[Exception], ErrorRow] = dict(errors or {})
        self._promised = tuple(promised)
        self._bind, self._wanted_port = f"[{bind}]" if ":" in bind else bind, port
        self._server = grpc.aio.server(
            interceptors=(
                ErrorInterceptor(self._errors, self.counters),
                DeadlineInterceptor(),
                ValidationInterceptor(),
            ),
            options=channel_options.SERVER,
        )
        self.contracts += self._promised
        for servicer in servicers:
            self._add(servicer)
        if handlers:
            self._server.add_generic_rpc_handlers(tuple(handlers))
        self._add_standard()
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port`; known after `start`."""
        return f"{self._bind}:{self.port}"

    async def start(self) -> None:
        """Binds and serves; health says NOT_SERVING until `set_serving`. Raises BindError when the port is taken."""
        try:
            self.port = self._server.add_insecure_port(f"{self._bind}:{self._wanted_port}")
        except RuntimeError:
            raise BindError(
                f"{self._bind}:{self._wanted_port} cannot be listened on: is it taken by another program?"
            ) from None
        await self.set_serving(serving=False)
        await self._server.start()

    def fulfil(self, servicers: Sequence[object], errors: ErrorTable) -> None:
        """Adds what was promised, before any call can be meant for it. Raises ContractViolation when it is something else."""
        before, self.contracts = self.contracts, []
        for servicer in servicers:
            self._add(servicer, _Started(self._server))
        if set(self._promised) != set(self.contracts):
            raise PromiseBroken(self._promised, self.contracts)
        self.contracts = before
        self._errors.update(errors)

    async def set_serving(self, *, serving: bool) -> None:
        """Tells the health of the process and of each contract."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self.contracts):
            await self.health.set(name, status)

    async def drain(self, deadline_s: float) -> bool:
        """Waits until no unary call is in flight; False when the deadline came first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while self.counters.unary_in_flight and loop.time() < end:  # noqa: ASYNC110 - ends at its deadline, once in a life
            await asyncio.sleep(0.005)
        return self.counters.unary_in_flight == 0

    async def stop(self, grace_s: float) -> None:
        """Ends the server; open streams are cut after `grace_s`."""
        await self._server.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        await self.set_serving(serving=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.health.enter_graceful_shutdown()
        await self.stop(0)

    def _add(self, servicer: object, server: Any = None) -> None:
        descriptor, base = contract_of(servicer)
        add = _adder(base)
        add(servicer, server or self._server)
        self.contracts.append(str(descriptor.full_name))

    def _add_standard(self) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), self._server)
        names = (
            *self.contracts,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)


class _Started:
    """A server that runs already: it finds handlers by their path, and takes none into its table of methods any more."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Does nothing: gRPC would only warn that it is too late."""


def _is_loopback(bind: str) -> bool:
    try:
        return ip_address(bind).is_loopback
    except ValueError:
        return False


def _adder(base: type) -> Callable[[object, grpc.aio.Server], None]:
    module: Mapping[str, Any] = vars(__import__(base.__module__, fromlist=["*"]))
    adder: Callable[[object, grpc.aio.Server], None] = module[f"add_{base.__name__}_to_server"]
    return adder
