"""Ticks that come faster than they are taken one by one gather at their source and go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from tests.waiting import eventually

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2_grpc as ingest_grpc
from minhos_mesh.runtime.ahead import MESSAGES
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.ingest import CONTRACT, GrpcIngest
from minhos_mesh.sierra_client.ports import Opening
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_files.ticks import TickColumns, tick_columns


class BusyMarketData(ingest_grpc.MarketDataIngestServiceServicer):
    """Market data that takes what comes and acknowledges it when it is told to."""

    def __init__(self) -> None:
        self.batches: list[range] = []
        self.answers: asyncio.Queue[int] = asyncio.Queue()

    async def IngestTicks(  # type: ignore[override]
        self, requests: AsyncIterator[ingest_pb2.IngestTicksRequest], context: Any
    ) -> None:
        hearing = asyncio.create_task(self._hear(requests))
        await context.write(ingest_pb2.IngestTicksResponse(opened=ingest_pb2.IngestOpened()))
        try:
            while True:
                taken = ingest_pb2.IngestAck(through_position=await self.answers.get())
                await context.write(ingest_pb2.IngestTicksResponse(ack=taken))
        finally:
            hearing.cancel()

    async def _hear(self, requests: AsyncIterator[ingest_pb2.IngestTicksRequest]) -> None:
        async for request in requests:
            if request.HasField("batch"):
                first = request.batch.first_sequence
                self.batches.append(range(first, first + len(request.batch.ticks)))

    async def IngestDepth(self, _requests: Any, _context: Any) -> None:  # type: ignore[override]
        raise AssertionError("no books are sent")


def _ticks(count: int) -> TickColumns:
    records = np.zeros(count, RECORD)
    records["time_us"], records["num_trades"], records["total_volume"] = EPOCH_SHIFT_US + 1_790_000_000_000_000, 1, 2
    records["close"] = records["high"] = records["low"] = 23_500.25
    return tick_columns(records, 250_000_000)


def _nothing() -> None:
    """Nobody needs to be woken."""


async def test_a_source_sends_no_more_than_so_many_messages_ahead_of_what_is_acknowledged() -> None:
    market = BusyMarketData()
    opening = Opening("file", "NQZ26-CME", Provenance.SIMULATED, 7)
    async with MeshServer([market]) as server:
        clients = Clients({CONTRACT: server.address})
        async with GrpcIngest(clients.channel(CONTRACT), open_deadline_s=50, silence_s=50).connect(
            opening, _nothing
        ) as link:
            for position in range(1, MESSAGES + 1):
                await asyncio.wait_for(link.send(_ticks(1), position, 1), 50)
            gathered = asyncio.create_task(link.send(_ticks(500), MESSAGES + 1, 1))
            await eventually(lambda: len(market.batches) == MESSAGES, "all that may be ahead has come", 50)
            assert not gathered.done()
            market.answers.put_nowait(MESSAGES)
            await asyncio.wait_for(gathered, 50)
            await eventually(lambda: len(market.batches) == MESSAGES + 1, "what waited comes in one message", 50)
        await clients.close()
    assert market.batches == [
        *(range(at, at + 1) for at in range(1, MESSAGES + 1)),
        range(MESSAGES + 1, MESSAGES + 501),
    ]


async def test_a_source_that_waits_for_room_learns_that_its_stream_has_ended() -> None:
    market = BusyMarketData()
    opening = Opening("file", "NQZ26-CME", Provenance.SIMULATED, 7)
    async with MeshServer([market]) as server:
        clients = Clients({CONTRACT: server.address})
        async with GrpcIngest(clients.channel(CONTRACT), open_deadline_s=50, silence_s=50).connect(
            opening, _nothing
        ) as link:
            for position in range(1, MESSAGES + 1):
                await asyncio.wait_for(link.send(_ticks(1), position, 1), 50)
            waiting = asyncio.create_task(link.send(_ticks(1), MESSAGES + 1, 1))
            await eventually(lambda: len(market.batches) == MESSAGES, "all that may be ahead has come", 50)
            await server.stop(0)
            (failure,) = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 50)
            assert type(failure).__name__ == "IngestLost"
        await clients.close()
