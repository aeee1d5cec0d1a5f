"""Serves the registry's contracts: one short method for each RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.registry import translate
from minhos_mesh.registry.attach_limits import TooMuch
from minhos_mesh.registry.attach_session import MessageOutOfPlace, hold
from minhos_mesh.registry.domain.graph import graph_of
from minhos_mesh.registry.domain.leases import InstanceHeld, StaleToken
from minhos_mesh.registry.instances import TooManyInstances
from minhos_mesh.registry.plan import UnknownService
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.store import StoreRefused, StoreUnavailable
from minhos_mesh.registry.supervision_ports import (
    NotReplaceable,
    NotStartedHere,
    NotSupervised,
    StartFailed,
    StopFailed,
)
from minhos_mesh.registry.told_once import AskedOften, ToldOnce
from minhos_mesh.registry.turns import OwnerReplaced, TooManyWait
from minhos_mesh.registry.views import ServiceUnknown
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.keeper_client import KeeperRefused, KeeperUnavailable
from minhos_mesh.runtime.storage import StorageClosed

ERRORS: Final[ErrorTable] = {
    MessageOutOfPlace: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_FIELD,
        attributes=("field", "seen", "allowed"),
        field="field",
    ),
    InstanceHeld: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS,
        reasons.ERROR_REASON_INSTANCE_TAKEN,
        attributes=("instance_id", "newest"),
        retry_after_s=1.0,
    ),
    StaleToken: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        reasons.ERROR_REASON_LEASE_STALE,
        attributes=("instance_id", "fencing_token", "newest"),
    ),
    TooMuch: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_REACHED,
        attributes=("limit", "seen", "allowed"),
        retry_after_s=1.0,
    ),
    OwnerReplaced: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        reasons.ERROR_REASON_OWNER_REPLACED,
        attributes=("service", "instance_id", "owner"),
    ),
    TooManyWait: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_REACHED,
        attributes=("limit", "seen", "allowed"),
    ),
    TooManyInstances: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_REACHED,
        attributes=("limit", "seen", "allowed"),
    ),
    ServiceUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_SERVICE_UNKNOWN, attributes=("service", "nearest", "known")
    ),
    UnknownService: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_SERVICE_UNKNOWN, attributes=("service", "nearest", "known")
    ),
    NotReplaceable: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, attributes=("service", "state")
    ),
    NotSupervised: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, attributes=("service", "state")
    ),
    NotStartedHere: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, attributes=("service", "state")
    ),
    StartFailed: ErrorRow(
        grpc.StatusCode.DEADLINE_EXCEEDED, reasons.ERROR_REASON_START_TIMEOUT, attributes=("service",)
    ),
    StopFailed: ErrorRow(
        grpc.StatusCode.DEADLINE_EXCEEDED, reasons.ERROR_REASON_START_TIMEOUT, attributes=("service",)
    ),
    KeeperUnavailable: ErrorRow(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=1.0
    ),
    KeeperRefused: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT),
    StoreUnavailable: ErrorRow(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=1.0
    ),
    StoreRefused: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=5.0),
    StorageClosed: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.5),
}
"""How the registry's exceptions are told."""


def heartbeat_seconds(contract_name: str, method: str) -> float:
    """Longest silence of an open stream, as its contract says."""
    return contract(contract_name).methods[method].heartbeat_s or 5.0


class RegistryServicer(rpc.RegistryServiceServicer):
    """Serves RegistryService."""

    def __init__(self, registry: Registry, *, heartbeat_s: float) -> None:
        """Instances are told to send a heartbeat every `heartbeat_s` seconds."""
        self._registry, self._heartbeat_s = registry, heartbeat_s
        self._watch_s = heartbeat_seconds("minhos_api.registry.v1.RegistryService", "WatchServices")
        self._resolved = AskedOften()
        self._told = ToldOnce(translate.service_to)

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], _context: Any
    ) -> AsyncIterator[pb.AttachResponse]:
        """See the contract."""
        said = (translate.said_from(request) async for request in requests)
        answers = hold(self._registry, said, self._heartbeat_s)
        try:
            async for answer in answers:
                yield translate.answer_to(answer)
        finally:
            await answers.aclose()

    async def Resolve(self, request: pb.ResolveRequest, _context: Any) -> pb.ResolveResponse:
        """See the contract."""
        return self._resolved.of(request.name, self._registry.edition, lambda: self._resolve(request.name))

    def _resolve(self, name: str) -> pb.ResolveResponse:
        found = self._registry.resolve(name)
        instances = [translate.instance_to(present, self._registry.uses) for present in found]
        return pb.ResolveResponse(instances=instances, revision=self._registry.changes.newest)

    async def ListServices(self, _request: pb.ListServicesRequest, _context: Any) -> pb.ListServicesResponse:
        """See the contract."""
        return pb.ListServicesResponse(services=self._services(), revision=self._registry.changes.newest)

    async def WatchServices(
        self, request: pb.WatchServicesRequest, _context: Any
    ) -> AsyncIterator[pb.WatchServicesResponse]:
        """See the contract."""
        log = self._registry.changes
        after = request.after_revision if request.HasField("after_revision") else log.newest
        if not request.HasField("after_revision"):
            yield pb.WatchServicesResponse(snapshot=pb.ServicesSnapshot(services=self._services()), revision=after)
        async for revision, view in log.follow(after, self._watch_s):
            if view is None:
                yield pb.WatchServicesResponse(heartbeat=pb.WatchHeartbeat(), revision=revision)
            else:
                yield self._told.of(revision, view)

    async def GetDependencyGraph(
        self, _request: pb.GetDependencyGraphRequest, _context: Any
    ) -> pb.GetDependencyGraphResponse:
        """See the contract."""
        views = self._registry.views()
        told = translate.graph_to(views, graph_of(view.known for view in views.values()))
        told.revision = self._registry.changes.newest
        return told

    def _services(self) -> list[pb.Service]:
        return [translate.service_to(view) for view in self._registry.views().values()]
