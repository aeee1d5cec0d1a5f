"""One short method per RPC of StateManagerService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceServicer
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.paging import page_size
from minhos_mesh.runtime.storage import StorageBusy, StorageClosed
from minhos_mesh.state_manager import translate
from minhos_mesh.state_manager.domain.errors import (
    FieldInvalid,
    RequestConflict,
    StateConflict,
    VersionMismatch,
)
from minhos_mesh.state_manager.service import StateManager

CONTRACT: Final = "minhos_api.state.v1.StateManagerService"

_INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
_NOT_SERVING: Final = ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.2)

ERRORS: Final[ErrorTable] = {
    FieldInvalid: ErrorRow(_INVALID, reasons.ERROR_REASON_INVALID_FIELD, ("field", "seen", "allowed"), field="field"),
    VersionMismatch: ErrorRow(grpc.StatusCode.ABORTED, reasons.ERROR_REASON_VERSION_MISMATCH, ("expected", "current")),
    StateConflict: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, ("wanted", "state", "because")
    ),
    RequestConflict: ErrorRow(
        grpc.StatusCode.ALREADY_EXISTS, reasons.ERROR_REASON_REQUEST_CONFLICT, ("field", "request_id"), field="field"
    ),
    StorageClosed: _NOT_SERVING,
    StorageBusy: _NOT_SERVING,
}


class StateManagerServicer(StateManagerServiceServicer):
    """Serves the state; a Watch is silent no longer than `heartbeat_s`, that of the contract when None."""

    def __init__(self, manager: StateManager, heartbeat_s: float | None = None) -> None:
        self._manager = manager
        self._heartbeat_s = heartbeat_s or contract(CONTRACT).methods["WatchState"].heartbeat_s or 5.0

    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateResponse:
        state = self._manager.state
        return pb.GetStateResponse(state=translate.state_to_pb(state), revision=state.version)

    async def UpdateState(self, request: pb.UpdateStateRequest, context: Any) -> pb.UpdateStateResponse:
        state = await self._manager.update(translate.update_from_pb(request))
        return pb.UpdateStateResponse(state=translate.state_to_pb(state))

    async def WatchState(self, request: pb.WatchStateRequest, context: Any) -> AsyncIterator[pb.WatchStateResponse]:
        after = request.after_revision if request.HasField("after_revision") else None
        begins = after is None
        async for revision, state in self._manager.watch(after, self._heartbeat_s):
            yield translate.watched(revision, state, snapshot=begins)
            begins = False

    async def GetPortfolio(self, request: pb.GetPortfolioRequest, context: Any) -> pb.GetPortfolioResponse:
        return translate.portfolio_to_pb(await self._manager.portfolio())

    async def ListTrades(self, request: pb.ListTradesRequest, context: Any) -> pb.ListTradesResponse:
        trades, end = await self._manager.list_trades(
            symbol=request.symbol if request.HasField("symbol") else None,
            before=translate.trades_before(request),
            limit=page_size(request, default=translate.DEFAULT_PAGE, largest=translate.LARGEST_TRADES_PAGE),
        )
        return pb.ListTradesResponse(
            trades=[translate.trade_to_pb(trade) for trade in trades],
            next_page_token=translate.trades_token(request, end),
        )

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        entries, end = await self._manager.list_audit(
            actor=request.actor if request.HasField("actor") else None,
            action=request.action if request.HasField("action") else None,
            before_id=translate.audit_before(request),
            limit=page_size(request, default=translate.DEFAULT_PAGE, largest=translate.LARGEST_AUDIT_PAGE),
        )
        return pb.ListAuditEntriesResponse(
            entries=[translate.audit_to_pb(entry) for entry in entries],
            next_page_token=translate.audit_token(request, end),
        )
