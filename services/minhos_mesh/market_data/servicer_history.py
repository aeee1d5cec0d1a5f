"""Serves history by its contract: each method hears, asks, and says."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import grpc

from minhos_api.market.v1 import history_service_pb2 as pb2
from minhos_api.market.v1 import history_service_pb2_grpc as history_grpc
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.market_data import translate_history as translate
from minhos_mesh.market_data.domain.feed import Provenance
from minhos_mesh.market_data.history import History, HistoryBroken, HistoryLost, HistoryNotHeld, RangeRefused
from minhos_mesh.market_data.history_workers import HistoryUnavailable, TooManyQuestions
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.paging import make_token, page_size, read_token

HISTORY_ERRORS: ErrorTable = {
    HistoryNotHeld: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_HISTORY_NOT_HELD, ("symbol", "provenance", "held")
    ),
    HistoryLost: ErrorRow(
        grpc.StatusCode.OUT_OF_RANGE, reasons.ERROR_REASON_POSITION_LOST, ("asked", "oldest", "newest")
    ),
    HistoryBroken: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_FILE_INVALID),
    HistoryUnavailable: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=1.0),
    RangeRefused: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_FIELD,
        ("field", "seen", "allowed"),
        field="field",
    ),
    TooManyQuestions: ErrorRow(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_REACHED,
        ("limit", "seen", "allowed"),
        retry_after_s=1.0,
    ),
}


class HistoryServicer(history_grpc.HistoryServiceServicer):
    """Gives what was traded before."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def GetBars(self, request: pb2.GetBarsRequest, _context: Any) -> pb2.GetBarsResponse:
        position = read_token(request)
        told = await self._history.bars(
            translate.asked_from_proto(request),
            translate.span_from_proto(request.span),
            *translate.span_of_time(request),
            translate.rule_from_proto(request.sessions),
            page_size(request, default=translate.BARS_PAGE, largest=translate.BARS_LARGEST),
            None if position is None else (int(position[0]), int(position[1])),
        )
        token = "" if told["next"] is None else make_token(request, told["next"])
        return translate.bars_to_proto(told, token)

    async def StreamHistory(  # type: ignore[override] # encoded messages are written as they are
        self, request: pb2.StreamHistoryRequest, context: Any
    ) -> None:
        asked, teller = translate.asked_from_proto(request), translate.HistoryTeller()
        if request.HasField("sequences"):
            wanted = request.sequences
            told = self._history.sequences(asked, wanted.epoch, wanted.first_sequence, wanted.last_sequence)
        else:
            after = translate.after_from_proto(request.times)
            told = self._history.times(asked, *translate.span_of_time(request.times), after)
        async with aclosing(told):
            async for piece in told:
                if message := teller.piece(piece):
                    await context.write(message)
        await context.write(teller.end())

    async def ListHistory(self, request: pb2.ListHistoryRequest, _context: Any) -> pb2.ListHistoryResponse:
        position = read_token(request)
        symbol = request.symbol if request.HasField("symbol") else None
        provenance = Provenance(request.provenance).name if request.HasField("provenance") else None
        days = await self._history.held(symbol, provenance)
        first = 0 if position is None else int(position[0])
        last = first + page_size(request, default=translate.DAYS_PAGE, largest=translate.DAYS_LARGEST)
        token = make_token(request, [last]) if last < len(days) else ""
        return translate.days_to_proto(days[first:last], token)
