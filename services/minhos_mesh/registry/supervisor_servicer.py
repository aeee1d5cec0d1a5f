"""Serves starting and stopping: each call tells its progress as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from minhos_api.registry.v1 import supervisor_service_pb2 as pb
from minhos_api.registry.v1 import supervisor_service_pb2_grpc as rpc
from minhos_mesh.registry.supervision_ports import Progress
from minhos_mesh.registry.supervisor import Supervisor
from minhos_mesh.registry.translate import duration


class SupervisorServicer(rpc.SupervisorServiceServicer):
    """Serves SupervisorService."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def StartAll(  # noqa: N802 - the name of the RPC
        self, request: pb.StartAllRequest, _context: Any
    ) -> AsyncIterator[pb.StartAllResponse]:
        """See the contract."""
        deadline = request.ready_deadline.ToTimedelta().total_seconds() if request.HasField("ready_deadline") else None
        async for progress in self._supervisor.start_all(deadline):
            yield pb.StartAllResponse(progress=_progress_to(progress))

    async def StopAll(  # noqa: N802 - the name of the RPC
        self, _request: pb.StopAllRequest, _context: Any
    ) -> AsyncIterator[pb.StopAllResponse]:
        """See the contract."""
        async for progress in self._supervisor.stop_all():
            yield pb.StopAllResponse(progress=_progress_to(progress))

    async def StartService(  # noqa: N802 - the name of the RPC
        self, request: pb.StartServiceRequest, _context: Any
    ) -> AsyncIterator[pb.StartServiceResponse]:
        """See the contract."""
        async for progress in self._supervisor.start(request.service):
            yield pb.StartServiceResponse(progress=_progress_to(progress))

    async def StopService(  # noqa: N802 - the name of the RPC
        self, request: pb.StopServiceRequest, _context: Any
    ) -> AsyncIterator[pb.StopServiceResponse]:
        """See the contract."""
        async for progress in self._supervisor.stop(request.service):
            yield pb.StopServiceResponse(progress=_progress_to(progress))

    async def RestartService(  # noqa: N802 - the name of the RPC
        self, request: pb.RestartServiceRequest, _context: Any
    ) -> AsyncIterator[pb.RestartServiceResponse]:
        """See the contract."""
        async for progress in self._supervisor.restart(request.service):
            yield pb.RestartServiceResponse(progress=_progress_to(progress))


def _progress_to(progress: Progress) -> pb.SupervisionProgress:
    return pb.SupervisionProgress(
        service=progress.service,
        phase=pb.SupervisionProgress.Phase.Value(f"PHASE_{progress.phase.value}"),
        message=progress.message,
        elapsed=duration(progress.elapsed),
    )
