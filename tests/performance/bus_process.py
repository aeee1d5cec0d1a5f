"""Decides how a benchmark runs a bus alone, and asks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.performance.service_process import START_S, ServiceProcess, running_service

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub

CONTRACT: Final = "minhos_api.events.v1.EventBusService"


class BusProcess(ServiceProcess):
    """A bus that serves."""

    @property
    def stub(self) -> Any:
        """EventBusService."""
        return EventBusServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        """EventAdminService."""
        return EventAdminServiceStub(self.channel)


@contextlib.asynccontextmanager
async def running_bus(folder: Path, settings: Mapping[str, Any] | None = None) -> AsyncIterator[BusProcess]:
    """A bus with the given `[event_bus]` table; it is killed at the end. Raises MeshFailed."""
    async with running_service("event_bus", folder, {"event_bus": dict(settings or {})}) as service:
        bus = BusProcess(service.process, service.address, service.channel)
        await bus.stub.ListEvents(pb.ListEventsRequest(), timeout=START_S, wait_for_ready=True)
        yield bus
