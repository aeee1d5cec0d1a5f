"""Decides the life of a service process: bind, attach, start, serve, and the only right order of its end.

A service that owns something alone, a store or a feed, opens it only when its lease is granted; before that it stands by.

The end: health says NOT_SERVING, the lease is given back so that callers go elsewhere, calls in flight end within a
deadline, the server stops, background tasks end, and what was built is closed in reverse.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import uvloop

from minhos_api.registry.v1 import registry_service_pb2
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime import log
from minhos_mesh.runtime.attach import AttachRefused, Identity, Lease, SelfView
from minhos_mesh.runtime.catalogue import REGISTRY, bootstrap_module, has_one_owner, service_names
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.contracts import ROOT_PACKAGE
from minhos_mesh.runtime.fencing import FencedOut, newest_token
from minhos_mesh.runtime.memory import give_back
from minhos_mesh.runtime.paths import MeshPaths, registry_address, registry_peers
from minhos_mesh.runtime.roles import contracts_of
from minhos_mesh.runtime.server import BindError, ContractViolation, MeshServer
from minhos_mesh.runtime.service_control import ServiceControlServicer
from minhos_mesh.runtime.tasks import OwnedTasks

Build = Callable[[ServiceContext], AbstractAsyncContextManager[ServiceParts]]
"""What a `bootstrap` module offers as `build`."""

DRAIN_S: Final = 3.0
"""How long unary calls in flight may take to end."""
STREAM_GRACE_S: Final = 0.1
"""How long open streams may take once all else has ended; their readers resume elsewhere."""
START_S: Final = 60.0
"""How long a service may take to connect and recover; the registry's own deadline is usually shorter."""

SETTLED_S: Final = 3.0
"""When, after its start, a service has what it needs and gives back what only starting took."""

GRANT_S: Final = 0.5
"""When a service says that it waits for its lease."""

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 3
EXIT_FENCED_OUT: Final = 4
"""Another process owns the store of this one by now."""


def run_service(service: str, instance_id: str, data_dir: str, config_path: str | None = None) -> int:
    """Runs one service until it is told to end; returns the exit code of its process.

    Logs go to the service's file, and in colour to standard error when that is a terminal. `config_path` names a saved configuration; that of the data folder is read otherwise.
    """
    paths = MeshPaths(Path(data_dir))
    try:
        config = configuration.load_saved(Path(config_path) if config_path else paths.config_file)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    log.configure(service, instance_id, paths.log_file(service), level=config.log.level, terminal=sys.stderr.isatty())
    build: Build = importlib.import_module(bootstrap_module(service)).build
    return uvloop.run(_Host(service, instance_id, config, paths, build).run())


class _Host:
    """One run of one service."""

    def __init__(
        self, service: str, instance_id: str, config: configuration.MeshConfig, paths: MeshPaths, build: Build
    ) -> None:
        self._log = log.get_logger("runtime.host")
        self._build = build
        self._stop_reason: asyncio.Future[str] | None = None
        self._failed = False
        self._serving = False
        self._drain_s = DRAIN_S
        registry = registry_address(paths)
        if registry is not None:
            bootstrap_xds(registry, f"{service}/{instance_id}", config.mesh.zone, registry_peers(paths))
        self._registry = registry
        self._context = ServiceContext(
            service=service,
            instance_id=instance_id,
            config=config,
            paths=paths,
            clients=Clients(registry=registry),
            tasks=OwnedTasks(self._task_failed),
            on_fenced_out=self._fenced_out,
        )
        self._owns_alone = registry is not None and service != REGISTRY and has_one_owner(service)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._stop_reason = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, signal.Signals(number).name)
        context = self._context
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(context.clients.close)
                await (self._serve_as_owner(stack) if self._owns_alone else self._serve(stack))
        except (BindError, ContractViolation, AttachRefused, configuration.ConfigError) as error:
            self._log.error("service.refused", error=type(error).__name__, message=str(error))
            print(f"{context.service}: {error}", file=sys.stderr)
            return EXIT_REFUSED
        except Exception:  # noqa: BLE001 - the last place that can say why a process ends
            self._log.exception("service.failed")
            return EXIT_FAILED
        self._log.info("service.ended", reason=self._stop_reason.result() if self._stop_reason.done() else "")
        return EXIT_FAILED if self._failed else 0

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        parts = await self._built(stack)
        control = ServiceControlServicer(self._context, self._ask_to_drain)
        server = MeshServer(
            [*parts.servicers, control],
            errors=parts.errors,
            bind=self._context.config.mesh.bind,
            port=parts.port,
            handlers=parts.handlers,
        )
        await self._bind(server, control)
        if parts.bound is not None:
            parts.bound(server.address)
        async with self._attached(server, attach=parts.attach) as lease:
            await self._live(parts, server, lease)

    async def _serve_as_owner(self, stack: contextlib.AsyncExitStack) -> None:
        """Takes the lease before anything is opened that only one process may have open."""
        context = self._context
        control = ServiceControlServicer(context, self._ask_to_drain)
        promised = [f"{ROOT_PACKAGE}{name}" for name in contracts_of(context.service, context.config)]
        server = MeshServer([control], promised=promised, bind=context.config.mesh.bind)
        await self._bind(server, control)
        stack.push_async_callback(server.stop, 0)
        async with self._attached(server) as lease:
            if lease is None or not await self._granted(lease):
                return
            context.fencing_token = lease.granted_ever
            parts = await self._built(stack)
            server.fulfil(parts.servicers, parts.errors)
            if parts.bound is not None:
                parts.bound(server.address)
            await self._live(parts, server, lease)

    async def _built(self, stack: contextlib.AsyncExitStack) -> ServiceParts:
        parts = await stack.enter_async_context(self._build(self._context))
        stack.push_async_callback(self._context.tasks.close)
        return parts

    async def _bind(self, server: MeshServer, control: ServiceControlServicer) -> None:
        control.contracts, control.counters = server.contracts, server.counters
        await server.start()
        self._log.info("service.bound", address=server.address, pid=os.getpid(), contracts=server.contracts)

    async def _granted(self, lease: Lease) -> bool:
        """Waits for the lease, for as long as another instance owns; False when this one is to end before."""
        granted = asyncio.ensure_future(lease.granted.wait())
        both: set[asyncio.Future[Any]] = {granted, self._stopping()}
        try:
            done, _ = await asyncio.wait(both, timeout=GRANT_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                why = "another instance owns what one alone may own, or the registry is away"
                self._log.info("service.stands_by", reason=why)
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return granted.done()
        finally:
            granted.cancel()

    async def _live(self, parts: ServiceParts, server: MeshServer, lease: Lease | None) -> None:
        try:
            await self._start(parts, server, lease)
            await self._stopping()
        finally:
            await self._end(parts, server, lease)

    async def _start(self, parts: ServiceParts, server: MeshServer, lease: Lease | None) -> None:
        starting = asyncio.ensure_future(parts.start())
        both: set[asyncio.Future[Any]] = {starting, self._stopping()}
        await asyncio.wait(both, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            if not self._stopping().done():
                raise TimeoutError(f"{self._context.service} did not start within {START_S:g} s")
            return
        starting.result()
        self._serving = True
        await server.set_serving(serving=True)
        if lease is not None:
            lease.changed()
        asyncio.get_running_loop().call_later(SETTLED_S, give_back)
        self._log.warning(
            "service.serving", address=server.address, access="everyone on this machine: loopback, no identity yet"
        )

    async def _end(self, parts: ServiceParts, server: MeshServer, lease: Lease | None) -> None:
        self._serving = False
        self._context.stopping.set()
        await server.health.enter_graceful_shutdown()
        if lease is not None:
            await lease.leave(self._reason())
        if not await server.drain(self._drain_s):
            self._log.warning("service.drain_cut", calls=server.counters.unary_in_flight)
        await parts.drain()
        await server.stop(STREAM_GRACE_S)

    @contextlib.asynccontextmanager
    async def _attached(self, server: MeshServer, *, attach: bool = True) -> AsyncIterator[Lease | None]:
        context = self._context
        if not attach or self._registry is None:
            yield None
            return
        identity = Identity(
            context.service,
            context.instance_id,
            server.address,
            tuple(server.contracts),
            zone=context.config.mesh.zone,
            single_owner=self._owns_alone,
            store_token=newest_token(context.paths.store_file(context.service)) if self._owns_alone else None,
        )

        def look() -> SelfView:
            counters = server.counters
            return SelfView(self._serving, context.conditions.held(), counters.in_flight, counters.internal_errors)

        lease = Lease(self._registry, identity, look, self._obey, lambda: registry_peers(context.paths))
        context.conditions.listen(lease.changed)
        task = context.tasks.start(lease.run(), "attach")
        try:
            yield lease
        finally:
            task.cancel()
            await asyncio.wait({task})

    def _obey(self, command: registry_service_pb2.AttachCommand) -> None:
        if command.action == registry_service_pb2.AttachCommand.ACTION_DRAIN:
            self._ask_to_stop(f"registry: {command.reason}")

    def _ask_to_drain(self, reason: str, deadline_s: float | None) -> None:
        self._drain_s = deadline_s if deadline_s is not None else 10.0
        self._ask_to_stop(f"drain: {reason}")

    def _ask_to_stop(self, reason: str) -> None:
        stop = self._stopping()
        if not stop.done():
            self._log.info("service.ending", reason=reason)
            stop.set_result(reason)

    def _fenced_out(self, error: FencedOut) -> None:
        """Ends this process on the spot: whatever it still said would be about a store that is another's."""
        self._log.error("store.fenced_out", message=str(error))
        os._exit(EXIT_FENCED_OUT)

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, AttachRefused):
            print(f"{self._context.service}: {error}", file=sys.stderr)
        self._failed = True
        self._ask_to_stop(f"task {name} failed: {error}")

    def _stopping(self) -> asyncio.Future[str]:
        if self._stop_reason is None:
            raise RuntimeError("the host has not been run")
        return self._stop_reason

    def _reason(self) -> str:
        stop = self._stopping()
        return stop.result() if stop.done() else "failed to start"


def main() -> int:
    """Runs one service by hand beside a mesh: `python -m minhos_mesh.runtime.host SERVICE --data-dir DIR`."""
    parser = argparse.ArgumentParser(prog="minhos_mesh.runtime.host", description=main.__doc__)
    parser.add_argument("service", choices=service_names())
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--instance-id", help="made from the process id when not given")
    chosen = parser.parse_args()
    instance_id = chosen.instance_id or f"{chosen.service}-{os.getpid()}"
    return run_service(chosen.service, instance_id, str(chosen.data_dir.expanduser().absolute()))


if __name__ == "__main__":
    sys.exit(main())
