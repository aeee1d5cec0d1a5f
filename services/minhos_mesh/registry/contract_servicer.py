"""Serves ContractService: one short method for each RPC, and how its errors are told."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1 import contract_service_pb2_grpc as rpc
from minhos_mesh.compatibility.described import ContractUnknown
from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid, resolve
from minhos_mesh.compatibility.offer import files_of
from minhos_mesh.registry import translate_contracts as translate
from minhos_mesh.registry.contract_directory import ContractDirectory
from minhos_mesh.registry.contract_gate import NoRoomForDescriptors
from minhos_mesh.registry.domain.contract_gate import ContractViolation
from minhos_mesh.registry.offered_events import OfferedEvents
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable, invalid_field
from minhos_mesh.runtime.reflection import NotReflected, served_contracts

CONTRACT_ERRORS: Final[ErrorTable] = {
    ContractViolation: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        reasons.ERROR_REASON_CONTRACT_VIOLATION,
        attributes=("contract", "missing", "violations", "consumers"),
        details=translate.details_of,
    ),
    NoRoomForDescriptors: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_REACHED,
        attributes=("limit", "seen", "allowed"),
    ),
    ContractUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_CONTRACT_UNKNOWN, attributes=("contract", "nearest", "known")
    ),
    DescriptorsInvalid: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_DESCRIPTORS_INVALID,
        attributes=("field", "seen", "allowed"),
        field="field",
    ),
    NotReflected: ErrorRow(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, attributes=("address",)
    ),
}
"""How the exceptions about contracts are told."""

_REFLECTION_S: Final = 5.0


class ContractServicer(rpc.ContractServiceServicer):
    """Serves ContractService."""

    def __init__(self, directory: ContractDirectory, offered: OfferedEvents) -> None:
        self._directory = directory
        self._offered = offered

    async def CheckContract(self, request: pb.CheckContractRequest, _context: Any) -> pb.CheckContractResponse:  # noqa: N802 - the RPC
        """See the contract."""
        offered = await _candidate(request)
        release, whole = request.contracts_version, request.whole
        report = await self._directory.check(offered, request.contracts, release, whole=whole)
        return translate.report_to(report)

    async def ListContracts(self, _request: pb.ListContractsRequest, _context: Any) -> pb.ListContractsResponse:  # noqa: N802 - the RPC
        """See the contract."""
        return pb.ListContractsResponse(contracts=[translate.entry_to(each) for each in self._directory.entries()])

    async def GetContract(self, request: pb.GetContractRequest, _context: Any) -> pb.GetContractResponse:  # noqa: N802 - the RPC
        """See the contract."""
        entry = self._directory.entry(request.name)
        files = entry.set.part(files_of(entry.set, entry.name))
        return pb.GetContractResponse(contract=translate.entry_to(entry), descriptor_set=files)

    async def ListOfferedEvents(  # noqa: N802 - the RPC
        self, request: pb.ListOfferedEventsRequest, _context: Any
    ) -> pb.ListOfferedEventsResponse:
        """See the contract."""
        offers = self._offered.offers(frozenset(request.known_builds))
        return pb.ListOfferedEventsResponse(offers=[translate.offer_to(each) for each in offers])


async def _candidate(request: pb.CheckContractRequest) -> ContractSet:
    if request.WhichOneof("candidate") == "descriptor_set":
        return await asyncio.to_thread(resolve, request.descriptor_set)
    host = request.address.rpartition(":")[0].strip("[]")
    if not _is_loopback(host):
        raise invalid_field("address", request.address, "an address of the loopback, for example 127.0.0.1:40112")
    _names, data = await served_contracts(request.address, deadline_s=_REFLECTION_S)
    return await asyncio.to_thread(resolve, data)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
