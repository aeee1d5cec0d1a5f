"""Serves the health of the mesh: one short method for each RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from minhos_api.health.v1 import health_monitor_service_pb2 as pb
from minhos_api.health.v1 import health_monitor_service_pb2_grpc as rpc
from minhos_api.health.v1 import service_health_pb2
from minhos_mesh.registry import translate
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.servicer import heartbeat_seconds
from minhos_mesh.registry.views import worst
from minhos_mesh.runtime.paging import make_token, page_size, read_token

DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1_000


class HealthMonitorServicer(rpc.HealthMonitorServiceServicer):
    """Serves HealthMonitorService."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watch_s = heartbeat_seconds("minhos_api.health.v1.HealthMonitorService", "WatchHealth")

    async def GetMeshHealth(  # noqa: N802 - the name of the RPC
        self, _request: pb.GetMeshHealthRequest, _context: Any
    ) -> pb.GetMeshHealthResponse:
        """See the contract."""
        state = translate.state_to(worst(self._registry.views()))
        return pb.GetMeshHealthResponse(state=state, services=self._health(), revision=self._registry.health.newest)

    async def GetServiceHealth(  # noqa: N802 - the name of the RPC
        self, request: pb.GetServiceHealthRequest, _context: Any
    ) -> pb.GetServiceHealthResponse:
        """See the contract."""
        health = translate.health_to(self._registry.view(request.service))
        return pb.GetServiceHealthResponse(health=health, revision=self._registry.health.newest)

    async def WatchHealth(  # noqa: N802 - the name of the RPC
        self, request: pb.WatchHealthRequest, _context: Any
    ) -> AsyncIterator[pb.WatchHealthResponse]:
        """See the contract."""
        log = self._registry.health
        after = request.after_revision if request.HasField("after_revision") else log.newest
        if not request.HasField("after_revision"):
            yield pb.WatchHealthResponse(snapshot=pb.HealthSnapshot(services=self._health()), revision=after)
        async for revision, change in log.follow(after, self._watch_s):
            if change is None:
                yield pb.WatchHealthResponse(heartbeat=pb.HealthHeartbeat(), revision=revision)
            else:
                yield pb.WatchHealthResponse(change=translate.change_to(change), revision=revision)

    async def ListHealthChanges(  # noqa: N802 - the name of the RPC
        self, request: pb.ListHealthChangesRequest, _context: Any
    ) -> pb.ListHealthChangesResponse:
        """See the contract."""
        size = page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        begins = read_token(request)
        service = request.service if request.HasField("service") else None
        found = await self._registry.list_changes(
            service,
            since_ns=request.since_time.ToNanoseconds() if request.HasField("since_time") else None,
            until_ns=request.until_time.ToNanoseconds() if request.HasField("until_time") else None,
            before_revision=None if begins is None else int(begins[0]),
            limit=size + 1,
        )
        token = make_token(request, [found[size - 1].revision]) if len(found) > size else ""
        changes = [translate.change_to(change) for change in found[:size]]
        newest = self._registry.health.newest
        return pb.ListHealthChangesResponse(changes=changes, next_page_token=token, revision=newest)

    def _health(self) -> list[service_health_pb2.ServiceHealth]:
        return [translate.health_to(view) for view in self._registry.views().values()]
