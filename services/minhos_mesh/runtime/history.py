"""Decides how a reader gets the ticks of the past: exactly a range of sequences, over broken streams too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from minhos_api.market.v1 import history_service_pb2 as pb2
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.ticks import TickBatchView, message_or_batch

ATTEMPTS: Final = 5
"""Times that a stream is opened again without a tick from it."""

_CONTRACT: Final = "minhos_api.market.v1.HistoryService"
_METHOD: Final = "StreamHistory"
_read = message_or_batch(pb2.StreamHistoryResponse.TICKS_FIELD_NUMBER, pb2.StreamHistoryResponse.FromString)


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Sequences that were asked for and are not held."""

    symbol: str
    epoch: int
    first_sequence: int
    last_sequence: int


class HistoryClient:
    """Reads history from wherever market data is."""

    def __init__(self, clients: Clients) -> None:
        self._stream = clients.channel(_CONTRACT).unary_stream(
            f"/{_CONTRACT}/{_METHOD}", pb2.StreamHistoryRequest.SerializeToString, _read
        )

    async def sequences(
        self, symbol: str, epoch: int, first: int, last: int
    ) -> AsyncGenerator[TickBatchView | NotHeld, None]:
        """The ticks of a range, both ends inclusive, as a gap names it: batches and what is not held, without a hole.

        A stream that breaks is opened again behind the last tick. Raises grpc.aio.AioRpcError: OUT_OF_RANGE when nothing
        of the epoch is held.
        """
        at, failures = first, 0
        while at <= last:
            try:
                async for piece in self._told(symbol, epoch, at, last):
                    yield piece
                    at, failures = piece.last_sequence + 1, 0
            except grpc.aio.AioRpcError as error:
                failures += 1
                if error.code() is not grpc.StatusCode.UNAVAILABLE or failures >= ATTEMPTS:
                    raise
            else:
                return

    async def _told(
        self, symbol: str, epoch: int, first: int, last: int
    ) -> AsyncGenerator[TickBatchView | NotHeld, None]:
        wanted = pb2.SequenceRange(epoch=epoch, first_sequence=first, last_sequence=last)
        timeout_s = contract(_CONTRACT).methods[_METHOD].timeout_s
        call: Any = self._stream(
            pb2.StreamHistoryRequest(symbol=symbol, sequences=wanted), timeout=timeout_s, wait_for_ready=True
        )
        try:
            async for message in call:
                if isinstance(message, TickBatchView):
                    yield message
                elif message.HasField("gap"):
                    gap = message.gap
                    yield NotHeld(symbol, gap.epoch, gap.first_sequence, gap.last_sequence)
        finally:
            call.cancel()
