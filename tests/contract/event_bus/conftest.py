"""A bus on a fresh folder, the way to it, and the context of a service that uses it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.event_bus.bootstrap import build
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

CONTRACT = "minhos_api.events.v1.EventBusService"
ADMIN = "minhos_api.events.v1.EventAdminService"


class Bus:
    """A bus on a folder that can be stopped and started again at the same address."""

    def __init__(
        self, folder: Path, config: MeshConfig | None = None, targets: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._targets = targets
        self._config = config or MeshConfig()
        self._stack = contextlib.AsyncExitStack()
        self.address = ""
        self._port = 0

    async def start(self) -> None:
        clients = Clients(self._targets)
        self._stack.push_async_callback(clients.close)
        context = ServiceContext("event_bus", "event_bus-1", self._config, MeshPaths(self._folder), clients)
        self._stack.push_async_callback(context.tasks.close)
        parts = await self._stack.enter_async_context(build(context))
        server = MeshServer(parts.servicers, errors=parts.errors, port=self._port)
        await self._stack.enter_async_context(server)
        self._stack.callback(context.stopping.set)
        self._port, self.address = server.port, server.address

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    bus = Bus(tmp_path / "bus")
    await bus.start()
    yield bus
    await bus.stop()


@pytest.fixture
async def clients(bus: Bus) -> AsyncIterator[Clients]:
    clients = Clients({CONTRACT: bus.address, ADMIN: bus.address})
    yield clients
    await clients.close()


@pytest.fixture
def stub(clients: Clients) -> Any:
    return clients.stub(EventBusServiceStub)


@pytest.fixture
def admin(clients: Clients) -> Any:
    return clients.stub(EventAdminServiceStub)


@pytest.fixture
async def context(clients: Clients, tmp_path: Path) -> AsyncIterator[ServiceContext]:
    context = ServiceContext("tester", "tester-1", MeshConfig(), MeshPaths(tmp_path / "tester"), clients)
    yield context
    await context.tasks.close()
