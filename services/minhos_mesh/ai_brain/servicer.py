"""Serves AIBrainService: asks the brain and says what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from minhos_api.brain.v1 import ai_brain_service_pb2 as pb
from minhos_api.brain.v1 import ai_brain_service_pb2_grpc as rpc
from minhos_api.brain.v1 import signal_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.ai_brain.domain.findings import InsufficientData, StalePrice
from minhos_mesh.ai_brain.service import Brain, UnknownSymbol
from minhos_mesh.ai_brain.translate import analysis_to_proto, progress_to_proto, signal_to_proto
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable, FieldViolation, MeshError
from minhos_mesh.runtime.paging import make_token, page_size, read_token

ERRORS: Final[ErrorTable] = {
    UnknownSymbol: ErrorRow(
        grpc.StatusCode.NOT_FOUND, error_reason_pb2.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol", "known")
    ),
    InsufficientData: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_DATA_INSUFFICIENT,
        ("symbol", "bars", "needed"),
    ),
    StalePrice: ErrorRow(
        grpc.StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_DATA_INSUFFICIENT,
        ("symbol", "age_s", "allowed_s"),
    ),
}
_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1_000


class AIBrainServicer(rpc.AIBrainServiceServicer):
    """Asks one brain."""

    def __init__(self, brain: Brain[signal_pb2.Signal]) -> None:
        self._brain = brain
        described = contract(pb.DESCRIPTOR.services_by_name["AIBrainService"].full_name)
        self._heartbeat_s = described.methods["WatchSignals"].heartbeat_s or 5.0

    async def AnalyzeMarket(self, request: pb.AnalyzeMarketRequest, _context: Any) -> pb.AnalyzeMarketResponse:
        return pb.AnalyzeMarketResponse(analysis=analysis_to_proto(self._brain.view(_symbol(request))))

    async def GenerateSignal(self, request: pb.GenerateSignalRequest, _context: Any) -> pb.GenerateSignalResponse:
        return pb.GenerateSignalResponse(signal=signal_to_proto(self._brain.generate(_symbol(request))))

    async def GetCurrentSignal(self, request: pb.GetCurrentSignalRequest, _context: Any) -> pb.GetCurrentSignalResponse:
        signal = self._brain.current(_symbol(request))
        return pb.GetCurrentSignalResponse(signal=signal, revision=self._brain.signals.newest)

    async def WatchSignals(
        self, request: pb.WatchSignalsRequest, _context: Any
    ) -> AsyncIterator[pb.WatchSignalsResponse]:
        wanted, log = {self._brain.known(symbol) for symbol in request.symbols}, self._brain.signals
        after = request.after_revision if request.HasField("after_revision") else log.newest
        if not request.HasField("after_revision"):
            newest = [signal for signal in self._newest() if not wanted or signal.symbol in wanted]
            yield pb.WatchSignalsResponse(snapshot=pb.SignalsSnapshot(signals=newest), revision=after)
        async for revision, change in log.follow(after, self._heartbeat_s):
            if change is None:
                yield pb.WatchSignalsResponse(heartbeat=pb.SignalsHeartbeat(), revision=revision)
            elif not wanted or change.symbol in wanted:
                yield pb.WatchSignalsResponse(signal=change, revision=revision)

    async def ListSignals(self, request: pb.ListSignalsRequest, _context: Any) -> pb.ListSignalsResponse:
        symbol = _symbol(request)
        found = [signal for signal in reversed(self._brain.held) if symbol in {None, signal.symbol}]
        begin = _begin(request, [signal.signal_id for signal in found])
        end = begin + page_size(request, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE)
        return pb.ListSignalsResponse(
            signals=found[begin:end],
            next_page_token=make_token(request, [found[end - 1].signal_id]) if end < len(found) else "",
            revision=self._brain.signals.newest,
            progress=[
                progress_to_proto(name, counters, self._brain.bars(name), self._brain.event_time_ns(name))
                for name, counters in sorted(self._brain.counters.items())
            ],
        )

    def _newest(self) -> list[signal_pb2.Signal]:
        newest = {signal.symbol: signal for signal in self._brain.held}
        return [newest[symbol] for symbol in sorted(newest)]


def _symbol(request: Any) -> str | None:
    return request.symbol if request.HasField("symbol") else None


def _begin(request: pb.ListSignalsRequest, ids: list[str]) -> int:
    """The page behind the signal that the token names; new signals in front do not shift it."""
    position = read_token(request)
    if position is None:
        return 0
    if position[0] not in ids:
        text = "page_token names a signal that is no longer held: begin again without one"
        raise MeshError(
            grpc.StatusCode.INVALID_ARGUMENT,
            error_reason_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
            text,
            metadata={"field": "page_token", "list": "ListSignals"},
            violations=(FieldViolation("page_token", text),),
        )
    return ids.index(str(position[0])) + 1
