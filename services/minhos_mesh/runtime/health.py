"""Serves the standard gRPC health protocol: Check, Watch, and List, which grpcio's own servicer leaves out."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

_list_response: Any = vars(health_pb2)["HealthListResponse"]
"""Newer than the type stubs of the package."""


class HealthServicer(health.aio.HealthServicer):
    """Health of one process: of each contract by its full name, and of the whole under the empty name."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Any] = {}
        self._ending = False

    async def set(self, service: str, status: Any) -> None:
        """Changes the status of one name and tells whoever watches it."""
        self._told[service] = health_pb2.HealthCheckResponse.NOT_SERVING if self._ending else status
        await super().set(service, status)

    async def enter_graceful_shutdown(self) -> None:
        """Everything is NOT_SERVING from now on, whatever is set later."""
        self._ending = True
        self._told = dict.fromkeys(self._told, health_pb2.HealthCheckResponse.NOT_SERVING)
        await super().enter_graceful_shutdown()

    async def List(  # noqa: N802 - the name of the RPC
        self, _request: Any, _context: Any
    ) -> Any:
        """All names with their status."""
        return _list_response(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in self._told.items()}
        )
