"""Decides how a benchmark is the source of a mesh's ticks, in place of the Sierra client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_mesh.runtime.ahead import Ahead
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.tick_layout import TickArray, wire_of
from minhos_mesh.runtime.ticks import batch_in_field, bytes_or_message
from minhos_mesh.sierra_files.layout import SUFFIX
from minhos_mesh.sierra_files.writer import ScidWriter

INGEST: Final = "minhos_api.market.v1.MarketDataIngestService"
SIMULATED: Final = provenance_pb2.PROVENANCE_SIMULATED


@dataclass(slots=True)
class TickSource:
    """One stream of ticks into market data."""

    symbol: str
    epoch: int
    call: Any
    sent: int = 0
    """Ticks sent so far; the sequence of the last one, for none is refused."""
    acknowledged: int = 0
    _ahead: Ahead = field(default_factory=Ahead)
    """As the Sierra client does, it lets ticks wait that market data could not take one by one."""

    async def send(self, ticks: TickArray) -> int:
        """Sends ticks that follow each other, when there is room; gives the sequence before the first."""
        if self._ahead.full:
            await self._ahead.room()
        before = self.sent
        wire = wire_of(ticks)
        message = batch_in_field(1, self.symbol, int(SIMULATED), self.epoch, before + 1, wire)
        self.sent += len(ticks)
        self._ahead.sent(self.sent, len(ticks))
        await self.call.write(message)
        return before

    async def read_answers(self) -> None:
        """Keeps the stream flowing until cancelled or ended."""
        while True:
            answer = await self.call.read()
            if not hasattr(answer, "ack"):
                self._ahead.end()
                return
            if answer.HasField("ack"):
                self.acknowledged = max(self.acknowledged, answer.ack.through_position)
                self._ahead.taken(self.acknowledged)


@asynccontextmanager
async def ticking(clients: Clients, symbol: str) -> AsyncIterator[TickSource]:
    """A source of ticks for a symbol. Raises grpc.RpcError."""
    call: Any = clients.channel(INGEST).stream_stream(
        f"/{INGEST}/IngestTicks",
        request_serializer=bytes_or_message,
        response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
    )()
    epoch = time.time_ns()
    opened = ingest_pb2.IngestOpen(source="benchmark", symbol=symbol, provenance=SIMULATED, epoch=epoch)
    await call.write(ingest_pb2.IngestTicksRequest(open=opened))
    await call.read()
    source = TickSource(symbol, epoch, call)
    answers = asyncio.create_task(source.read_answers(), name="tick-source-answers")
    try:
        yield source
    finally:
        call.cancel()
        answers.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await answers


def write_empty_file(data_dir: Path) -> None:
    """What the Sierra client waits for when the feed is none; it is stopped once the mesh is up."""
    paths = MeshPaths(data_dir)
    paths.create()
    symbol = load(None, environment={}).resolved(datetime.now(UTC)).primary()
    ScidWriter.create(paths.sierra_dir / f"{symbol}{SUFFIX}").close()
