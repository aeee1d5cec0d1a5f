"""One short method per RPC of RiskManagerService, and how its exceptions are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceServicer
from minhos_mesh.risk_manager import translate
from minhos_mesh.risk_manager.domain.errors import (
    BreakerNotTripped,
    InvalidField,
    RequestConflict,
    SymbolUnknown,
    VersionMismatch,
)
from minhos_mesh.risk_manager.service import RiskManager
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.money import OffScale, OffTick
from minhos_mesh.runtime.storage import StorageBusy, StorageClosed

HEARTBEAT_S: Final = 2.5
"""Half of what the contract promises."""

_INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
_NOT_SERVING: Final = ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.2)

ERRORS: Final[ErrorTable] = {
    InvalidField: ErrorRow(_INVALID, reasons.ERROR_REASON_INVALID_FIELD, ("field", "seen", "allowed"), field="field"),
    OffScale: ErrorRow(_INVALID, reasons.ERROR_REASON_PRICE_SCALE, ("field", "seen", "meant"), field="field"),
    OffTick: ErrorRow(
        _INVALID, reasons.ERROR_REASON_PRICE_OFF_TICK, ("field", "seen", "below_e9", "above_e9"), field="field"
    ),
    SymbolUnknown: ErrorRow(grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol",)),
    RequestConflict: ErrorRow(grpc.StatusCode.ALREADY_EXISTS, reasons.ERROR_REASON_REQUEST_CONFLICT, ("request_id",)),
    VersionMismatch: ErrorRow(grpc.StatusCode.ABORTED, reasons.ERROR_REASON_VERSION_MISMATCH, ("expected", "current")),
    BreakerNotTripped: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STATE_CONFLICT, ("wanted", "state")
    ),
    StorageClosed: _NOT_SERVING,
    StorageBusy: _NOT_SERVING,
}


class RiskManagerServicer(RiskManagerServiceServicer):
    """Serves a risk manager."""

    def __init__(self, risk: RiskManager) -> None:
        self._risk = risk

    async def CheckTrade(self, request: pb.CheckTradeRequest, context: Any) -> pb.CheckTradeResponse:
        """Whether an order may be sent."""
        return translate.verdict_to_proto(await self._risk.check(translate.question_from_proto(request)))

    async def GetRiskMetrics(self, request: pb.GetRiskMetricsRequest, context: Any) -> pb.GetRiskMetricsResponse:
        """What is seen now."""
        metrics, revision = self._risk.view()
        return pb.GetRiskMetricsResponse(metrics=translate.metrics_to_proto(metrics), revision=revision)

    async def GetRiskLimits(self, request: pb.GetRiskLimitsRequest, context: Any) -> pb.GetRiskLimitsResponse:
        """The limits."""
        limits, version = self._risk.limits()
        return pb.GetRiskLimitsResponse(limits=translate.limits_to_proto(limits), version=version)

    async def SetRiskLimits(self, request: pb.SetRiskLimitsRequest, context: Any) -> pb.SetRiskLimitsResponse:
        """The limits after the change."""
        limits, version = await self._risk.set_limits(
            translate.limits_from_proto(request.limits),
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            request_id=request.request_id,
            actor=request.actor,
            reason=request.reason,
        )
        return pb.SetRiskLimitsResponse(limits=translate.limits_to_proto(limits), version=version)

    async def CalculatePositionSize(
        self, request: pb.CalculatePositionSizeRequest, context: Any
    ) -> pb.CalculatePositionSizeResponse:
        """How many contracts may be taken."""
        size = self._risk.size(
            request.symbol,
            entry_e9=request.entry_price_e9,
            stop_e9=request.stop_price_e9,
            risk_e9=request.risk_amount_e9,
            confidence=request.confidence if request.HasField("confidence") else None,
        )
        return translate.size_to_proto(size)

    async def TripBreaker(self, request: pb.TripBreakerRequest, context: Any) -> pb.TripBreakerResponse:
        """The breaker, tripped."""
        breaker = await self._risk.trip_breaker(request.request_id, request.actor, request.reason)
        return pb.TripBreakerResponse(breaker=translate.breaker_to_proto(breaker))

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Any) -> pb.ResetBreakerResponse:
        """The breaker, reset."""
        breaker = await self._risk.reset_breaker(request.request_id, request.actor, request.reason)
        return pb.ResetBreakerResponse(breaker=translate.breaker_to_proto(breaker))

    async def WatchRisk(self, request: pb.WatchRiskRequest, context: Any) -> AsyncIterator[pb.WatchRiskResponse]:
        """The metrics as they change."""
        after = request.after_revision if request.HasField("after_revision") else None
        first = after is None
        async for revision, metrics in self._risk.watch(after, HEARTBEAT_S):
            yield translate.update_to_proto(revision, metrics, first=first)
            first = False
