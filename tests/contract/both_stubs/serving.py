"""All services of the mesh on ports of a thread of this process, under a clock that stands still, so that two calls see the same world."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from minhos_mesh.runtime.catalogue import bootstrap_module, service_names
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.service_control import ServiceControlServicer
from minhos_mesh.runtime.tasks import OwnedTasks

NOW: Final = datetime(2026, 11, 16, 15, 0, tzinfo=UTC)
SYMBOL: Final = "NQZ26-CME"
DEADLINE_S: Final = 20.0
SETTINGS: Final = {"feed": {"history_hours": 1}, "engine": {"mode": "MANUAL"}}

T = TypeVar("T")


class ServedMesh:
    """Every service behind its own server; `addresses` by contract."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(int(NOW.timestamp()) * 1_000_000_000)
        self.addresses: dict[str, str] = {}
        self.failures: list[str] = []
        self._paths = MeshPaths(folder)
        self._config = load(None, environment={}, overrides=SETTINGS).resolved(NOW)
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives that runs beside the services."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def advance(self, seconds: float) -> None:
        """Moves the clock of all services."""
        self._loop.call_soon_threadsafe(self.clock.advance, seconds)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nothing is answered inside of this, though the connections stand."""
        reached, go_on = threading.Event(), threading.Event()

        def stand() -> None:
            reached.set()
            go_on.wait(DEADLINE_S)

        self._loop.call_soon_threadsafe(stand)
        assert reached.wait(DEADLINE_S)
        try:
            yield
        finally:
            go_on.set()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Starts in the order of dependencies; ends in reverse, and asserts that no background task failed."""
        thread = threading.Thread(target=self._loop.run_forever, name="served mesh")
        thread.start()
        try:
            self.run(self._start())
            yield
        finally:
            try:
                self.run(self._stack.aclose())
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join(DEADLINE_S)
                self._loop.close()
        assert self.failures == []

    async def _start(self) -> None:
        load_all()
        self._paths.create()
        for service in service_names():
            await self._serve(service)

    async def _serve(self, service: str) -> None:
        context = self._context(service)
        self._stack.push_async_callback(context.clients.close)
        build: Callable[[ServiceContext], Any] = import_module(bootstrap_module(service)).build
        parts = await self._stack.enter_async_context(build(context))
        self._stack.push_async_callback(context.tasks.close)
        control = ServiceControlServicer(context, lambda _reason, _deadline_s: None)
        server = MeshServer([*parts.servicers, control], errors=parts.errors, handlers=parts.handlers)
        control.contracts = server.contracts
        await self._stack.enter_async_context(server)
        self._stack.push_async_callback(parts.drain)
        self._stack.callback(context.stopping.set)
        self.addresses.update(dict.fromkeys(server.contracts, server.address))
        if parts.bound is not None:
            parts.bound(server.address)
        await parts.start()

    def _context(self, service: str) -> ServiceContext:
        return ServiceContext(
            service,
            f"{service}-1",
            self._config,
            self._paths,
            Clients(self.addresses),
            clock=self.clock,
            tasks=OwnedTasks(lambda name, error: self.failures.append(f"{service}: {name}: {error!r}")),
        )
