"""Serves SierraClientService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2_grpc as pb2_grpc
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.sierra_client.listing import DEFAULT_PAGE, LARGEST_PAGE, list_files
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
        client = self._client
        return pb2.GetStatusResponse(status=status_to_proto(client.status()), revision=client.revision)

    async def WatchStatus(
        self, request: pb2.WatchStatusRequest, _context: Any
    ) -> AsyncIterator[pb2.WatchStatusResponse]:
        client, seen = self._client, request.after_revision
        if request.HasField("after_revision"):
            client.check_revision(seen)
        else:
            seen, status = client.revision, status_to_proto(client.status())
            yield pb2.WatchStatusResponse(snapshot=pb2.SierraStatusSnapshot(status=status), revision=seen)
        while True:
            await client.wait_change(seen, self._heartbeat_s)
            if client.revision == seen:
                client.look()
            before, seen = seen, client.revision
            if seen == before:
                yield pb2.WatchStatusResponse(heartbeat=pb2.SierraStatusHeartbeat(), revision=seen)
            else:
                yield pb2.WatchStatusResponse(change=status_to_proto(client.status()), revision=seen)

    async def ListFiles(self, request: pb2.ListFilesRequest, _context: Any) -> pb2.ListFilesResponse:
        size = page_size(request, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        position = read_token(request)
        files, after = list_files(self._client.settings.folder, size, str(position[0]) if position else "")
        token = make_token(request, [after]) if after else ""
        return pb2.ListFilesResponse(files=[file_to_proto(file) for file in files], next_page_token=token)
