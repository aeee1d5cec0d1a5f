"""A Sierra client beside a market data service that keeps what it is sent, for tests of its contract."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from minhos_api.market.v1 import depth_pb2, tick_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2_grpc as ingest_grpc
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.errors import MeshError
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.sierra_client.bootstrap import build
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records

INGEST = "minhos_api.market.v1.MarketDataIngestService"
CLIENT = "minhos_api.sierra.v1.SierraClientService"
SYMBOL = "NQZ26-CME"
START_NS = 1_790_000_000_000_000_000


def made(count: int, first: int = 0) -> Records:
    records = np.zeros(count, RECORD)
    index = first + np.arange(count)
    records["time_us"] = EPOCH_SHIFT_US + START_NS // 1000 + index * 1000
    records["close"] = records["high"] = 23_500.25
    records["low"] = 23_500.0
    records["num_trades"] = 1
    records["total_volume"] = records["ask_volume"] = 2
    return records


class MarketData(ingest_grpc.MarketDataIngestServiceServicer):
    """Market data by stock protobuf: keeps ticks per epoch, acknowledges each batch."""

    def __init__(self) -> None:
        self.taken: dict[int, list[tick_pb2.Tick]] = {}
        self.opens: list[ingest_pb2.IngestOpen] = []
        self.ends: list[int] = []
        self.books: list[depth_pb2.Depth] = []
        self.refuse: MeshError | None = None
        self.break_after: int | None = None

    async def IngestTicks(
        self, requests: AsyncIterator[ingest_pb2.IngestTicksRequest], context: Any
    ) -> AsyncIterator[ingest_pb2.IngestTicksResponse]:
        if self.refuse is not None:
            raise self.refuse
        async for request in requests:
            if request.HasField("open"):
                self.opens.append(request.open)
                position = len(self.taken.setdefault(request.open.epoch, []))
                yield ingest_pb2.IngestTicksResponse(opened=ingest_pb2.IngestOpened(through_position=position))
            elif request.HasField("end"):
                self.ends.append(request.end.through_position)
            else:
                yield self._take(request.batch)
                if self.break_after is not None and len(self.taken[request.batch.epoch]) >= self.break_after:
                    self.break_after = None
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")

    async def IngestDepth(
        self, requests: AsyncIterator[ingest_pb2.IngestDepthRequest], _context: Any
    ) -> AsyncIterator[ingest_pb2.IngestDepthResponse]:
        async for request in requests:
            if request.HasField("open"):
                yield ingest_pb2.IngestDepthResponse(opened=ingest_pb2.IngestDepthOpened())
            else:
                self.books.append(request.book)
                taken = ingest_pb2.IngestDepthAck(through_sequence=request.book.sequence)
                yield ingest_pb2.IngestDepthResponse(ack=taken)

    def _take(self, batch: tick_pb2.TickBatch) -> ingest_pb2.IngestTicksResponse:
        taken = self.taken[batch.epoch]
        assert batch.first_sequence == len(taken) + 1
        assert batch.tick_count == len(batch.ticks)
        taken += batch.ticks
        return ingest_pb2.IngestTicksResponse(ack=ingest_pb2.IngestAck(through_position=len(taken)))

    @property
    def newest(self) -> list[tick_pb2.Tick]:
        return self.taken[max(self.taken)] if self.taken else []


def config(**sections: dict[str, Any]) -> MeshConfig:
    overrides = {"market_data": {"symbols": [SYMBOL]}, "sierra_client": {"poll_s": 0.01}, **sections}
    return load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


class Mesh:
    """Market data and a client over one folder; each can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.paths = MeshPaths(folder)
        self.paths.create()
        self.market = MarketData()
        self.file = self.paths.sierra_dir / f"{SYMBOL}.scid"
        self._market_stack, self._client_stack = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        self._port = 0

    async def start_market(self) -> None:
        server = MeshServer([self.market], port=self._port)
        await self._market_stack.enter_async_context(server)
        self._port = server.port

    async def stop_market(self) -> None:
        await self._market_stack.aclose()
        self.market.taken.clear()

    async def start_client(self, configuration: MeshConfig | None = None) -> None:
        stack = self._client_stack
        clients = Clients({INGEST: f"127.0.0.1:{self._port}"})
        stack.push_async_callback(clients.close)
        context = ServiceContext("sierra_client", "sierra_client-1", configuration or config(), self.paths, clients)
        self.context = context
        parts = await stack.enter_async_context(build(context))
        stack.push_async_callback(context.tasks.close)
        self.server = await stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        await parts.start()
        own = Clients({CLIENT: self.server.address})
        stack.push_async_callback(own.close)
        self.stub: Any = own.stub(SierraClientServiceStub)

    async def stop_client(self) -> None:
        await self._client_stack.aclose()

    async def feed(self) -> pb2.SierraFeedStatus:
        response = await self.stub.GetStatus(pb2.GetStatusRequest())
        (feed,) = response.status.feeds
        assert isinstance(feed, pb2.SierraFeedStatus)
        return feed
