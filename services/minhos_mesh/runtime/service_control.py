"""Serves ServiceControlService: says who a service is, and drains it when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.mesh.v1 import contract_options_pb2, service_control_service_pb2_grpc
from minhos_api.mesh.v1 import service_control_service_pb2 as pb
from minhos_mesh.runtime.attach import PROGRAM_VERSION, versions
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.interceptors import CallCounters


class ServiceControlServicer(service_control_service_pb2_grpc.ServiceControlServiceServicer):
    """One per process."""

    def __init__(self, context: ServiceContext, drain: Callable[[str, float | None], None]) -> None:
        """`drain` begins the end of the service: reason, and how long calls may take."""
        self._context, self._drain = context, drain
        self._start_time = Timestamp()
        self._start_time.FromNanoseconds(context.clock.wall_ns())
        self.contracts: Sequence[str] = ()
        self.counters = CallCounters()

    async def Describe(self, _request: pb.DescribeRequest, _context: Any) -> pb.DescribeResponse:
        needs = {need.contract: need for name in self.contracts for need in contract(name).needs}
        return pb.DescribeResponse(
            name=self._context.service,
            instance_id=self._context.instance_id,
            version=PROGRAM_VERSION,
            contracts=self.contracts,
            depends_on=[
                contract_options_pb2.Dependency(
                    contract=need.contract,
                    kind=contract_options_pb2.DEPENDENCY_KIND_REQUIRED
                    if need.required
                    else contract_options_pb2.DEPENDENCY_KIND_OPTIONAL,
                )
                for need in needs.values()
            ],
            start_time=self._start_time,
            versions=versions(),
            conditions=self._context.conditions.held(),
        )

    async def Drain(self, request: pb.DrainRequest, _context: Any) -> pb.DrainResponse:
        deadline_s = request.deadline.ToTimedelta().total_seconds() if request.HasField("deadline") else None
        self._drain(request.reason, deadline_s)
        return pb.DrainResponse(calls_in_flight=max(0, self.counters.in_flight - 1))
