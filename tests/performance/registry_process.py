"""Decides how a benchmark runs a registry alone, and asks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.performance.service_process import START_S, ServiceProcess, running_service

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub


class RegistryProcess(ServiceProcess):
    """A registry that serves."""

    @property
    def stub(self) -> Any:
        """RegistryService."""
        return RegistryServiceStub(self.channel)


@contextlib.asynccontextmanager
async def running_registry(
    folder: Path, settings: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[RegistryProcess]:
    """A registry with the given `[registry]` table; it is killed at the end, or ended where `environment` watches it.

    Raises MeshFailed.
    """
    async with running_service("registry", folder, {"registry": dict(settings or {})}, environment) as service:
        registry = RegistryProcess(service.process, service.address, service.channel)
        await registry.stub.ListServices(pb.ListServicesRequest(), timeout=START_S, wait_for_ready=True)
        yield registry
