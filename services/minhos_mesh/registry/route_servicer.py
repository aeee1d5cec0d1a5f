"""Serves RouteService: one short method for each RPC, and how its errors are told."""

from __future__ import annotations

from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.registry.v1 import route_service_pb2 as pb
from minhos_api.registry.v1 import route_service_pb2_grpc as rpc
from minhos_mesh.registry import translate_routes as translate
from minhos_mesh.registry.domain.routes import (
    RequestReused,
    RevisionMoved,
    RouteInvalid,
    RouteTargetUnknown,
    RouteUnknown,
)
from minhos_mesh.registry.route_control import RouteControl, RouteStanding
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.paging import make_token, page_size, read_token

ROUTE_ERRORS: Final[ErrorTable] = {
    RouteInvalid: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_FIELD,
        attributes=("field", "seen", "allowed"),
        field="field",
    ),
    RouteTargetUnknown: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        reasons.ERROR_REASON_ROUTE_TARGET_UNKNOWN,
        attributes=("contract", "selector", "known"),
    ),
    RouteUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_ROUTE_UNKNOWN, attributes=("contract", "revision")
    ),
    RevisionMoved: ErrorRow(
        grpc.StatusCode.ABORTED, reasons.ERROR_REASON_VERSION_MISMATCH, attributes=("expected", "current")
    ),
    RequestReused: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS,
        reasons.ERROR_REASON_REQUEST_CONFLICT,
        attributes=("field", "request_id"),
        field="field",
    ),
}
"""How the exceptions of routes are told."""


class RouteServicer(rpc.RouteServiceServicer):
    """Serves RouteService."""

    def __init__(self, routes: RouteControl) -> None:
        self._routes = routes

    async def SetRoute(self, request: pb.SetRouteRequest, _context: Any) -> pb.SetRouteResponse:  # noqa: N802 - the RPC
        """See the contract."""
        set_ = await self._routes.set(request.name, translate.rule_from(request.rule), translate.change_from(request))
        return pb.SetRouteResponse(routes=[translate.route_to(each) for each in set_], revision=_newest(set_))

    async def DeleteRoute(  # noqa: N802 - the name of the RPC
        self, request: pb.DeleteRouteRequest, _context: Any
    ) -> pb.DeleteRouteResponse:
        """See the contract."""
        gone = await self._routes.delete(request.name, translate.change_from(request))
        return pb.DeleteRouteResponse(contracts=[each.history.contract for each in gone], revision=_newest(gone))

    async def RollbackRoute(  # noqa: N802 - the name of the RPC
        self, request: pb.RollbackRouteRequest, _context: Any
    ) -> pb.RollbackRouteResponse:
        """See the contract."""
        to_revision = request.to_revision if request.HasField("to_revision") else None
        back = await self._routes.roll_back(request.name, to_revision, translate.change_from(request))
        return pb.RollbackRouteResponse(routes=[translate.route_to(each) for each in back], revision=_newest(back))

    async def ListRoutes(  # noqa: N802 - the name of the RPC
        self, request: pb.ListRoutesRequest, _context: Any
    ) -> pb.ListRoutesResponse:
        """See the contract."""
        found = self._routes.list(request.name, with_earlier=request.with_earlier)
        after = read_token(request)
        rest = [each for each in found if after is None or each.history.contract > str(after[0])]
        size = page_size(request, default=100, largest=1_000)
        page = rest[:size]
        token = make_token(request, [page[-1].history.contract]) if len(rest) > size else ""
        routes = [translate.route_to(each, with_earlier=request.with_earlier) for each in page]
        return pb.ListRoutesResponse(routes=routes, next_page_token=token, revision=self._routes.newest)


def _newest(standings: tuple[RouteStanding, ...]) -> int:
    return max((standing.history.newest for standing in standings), default=0)
