"""Serves SierraClientService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2_grpc as pb2_grpc
from minhos_mesh.sierra_client.listing import list_files
from minhos_mesh.sierra_client.service import SierraClient
from minhos_mesh.sierra_client.translate import file_to_proto, status_to_proto

HEARTBEAT_S = 2.0
"""Longest silence of WatchStatus, as its contract says."""


class SierraClientServicer(pb2_grpc.SierraClientServiceServicer):
    """One per process."""

    def __init__(self, client: SierraClient, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._client = client
        self._heartbeat_s = heartbeat_s

    async def GetStatus(self, _request: pb2.GetStatusRequest, _context: Any) -> pb2.GetStatusResponse:
        return pb2.GetStatusResponse(status=status_to_proto(self._client.status()))

    async def WatchStatus(
        self, _request: pb2.WatchStatusRequest, _context: Any
    ) -> AsyncIterator[pb2.WatchStatusResponse]:
        while True:
            seen = self._client.revision
            yield pb2.WatchStatusResponse(status=status_to_proto(self._client.status()))
            await self._client.wait_change(seen, self._heartbeat_s)

    async def ListFiles(self, request: pb2.ListFilesRequest, _context: Any) -> pb2.ListFilesResponse:
        files, after = list_files(self._client.settings.folder, request.page_size, request.page_token)
        return pb2.ListFilesResponse(files=[file_to_proto(file) for file in files], next_page_token=after)
