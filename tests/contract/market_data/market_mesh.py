"""Market data on a port, its sources and its readers, for tests of its contracts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.service import MarketDataService, Settings
from minhos_mesh.market_data.servicer import ERRORS, MarketDataIngestServicer, MarketDataProviderServicer
from minhos_mesh.market_data.translate import StreamEncoder
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.market import (
    MarketClient,
    MarketSubscription,
    MarketUpdate,
    TickBatchView,
)
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field

NQ, ES = "NQZ26-CME", "ESZ26-CME"
INGEST = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER = "minhos_api.market.v1.MarketDataProviderService"
REPLAY, SIMULATED = provenance_pb2.PROVENANCE_REPLAY, provenance_pb2.PROVENANCE_SIMULATED
RULES = Rules(tick_e9=250_000_000)
WALL_NS = 1_790_000_000_000_000_000
FIRST_NS = WALL_NS - 86_400_000_000_000


def ticks_of(count: int, after: int = 0, apart_ns: int = 1_000_000) -> TickArray:
    """Trades of 1 contract whose price tells their position: 0.25 x (position % 1000 + 1)."""
    ticks = new_ticks(count)
    places = np.arange(after, after + count)
    ticks["event_time_ns"] = FIRST_NS + places * apart_ns
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = (places % 1000 + 1) * 250_000_000
    ticks["size"], ticks["flags"], ticks["kind"], ticks["side"] = 1, 3, 1, 1
    return ticks


@dataclass
class Mesh:
    """A market data service on a port, and the ways to it."""

    service: MarketDataService
    server: MeshServer
    clients: Clients
    clock: ManualClock
    conditions: Conditions
    encoder: StreamEncoder

    @property
    def provider(self) -> Any:
        return self.clients.stub(MarketDataProviderServiceStub)

    @property
    def market(self) -> MarketClient:
        return MarketClient(self.clients)

    @asynccontextmanager
    async def source(
        self,
        name: str = "walk",
        symbol: str = NQ,
        provenance: provenance_pb2.Provenance.ValueType = SIMULATED,
        epoch: int = 7,
    ) -> AsyncIterator[Source]:
        call = self.clients.channel(INGEST).stream_stream(
            f"/{INGEST}/IngestTicks",
            request_serializer=bytes_or_message,
            response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
        )()
        opened = ingest_pb2.IngestOpen(source=name, symbol=symbol, provenance=provenance, epoch=epoch)
        await call.write(ingest_pb2.IngestTicksRequest(open=opened))
        answer = await soon(call.read())
        source = Source(call, symbol, int(provenance), epoch, answer.opened.through_position)
        try:
            yield source
        finally:
            call.cancel()


@dataclass
class Source:
    """What the Sierra client is to market data."""

    call: Any
    symbol: str
    provenance: int
    epoch: int
    opened_at: int
    ack: ingest_pb2.IngestAck = field(default_factory=ingest_pb2.IngestAck)

    async def send(self, ticks: TickArray, position: int) -> None:
        await self.call.write(in_field(1, encode_batch(self.symbol, self.provenance, self.epoch, position, ticks)))

    async def through(self, position: int) -> ingest_pb2.IngestAck:
        while self.ack.through_position < position:
            answer = await soon(self.call.read())
            if answer.HasField("ack"):
                self.ack = answer.ack
        return self.ack

    async def feed(self, count: int, after: int = 0, apart_ns: int = 1_000_000) -> ingest_pb2.IngestAck:
        await self.send(ticks_of(count, after, apart_ns), after + 1)
        return await self.through(after + count)


async def soon(work: Any, seconds: float = 10.0) -> Any:
    async with asyncio.timeout(seconds):
        return await work


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    symbols: Sequence[str] = (NQ, ES), ring_ticks: int = 65_536, replay_readers: int = 1, port: int = 0
) -> AsyncIterator[Mesh]:
    clock, conditions = ManualClock(WALL_NS), Conditions()
    encoder = StreamEncoder(clock.monotonic)
    settings = Settings(
        dict.fromkeys(symbols, RULES), symbols[0], ring_ticks, replay_readers=replay_readers, grace_s=3.0
    )
    service = MarketDataService(settings, clock, conditions, encoder)
    servicers = [MarketDataProviderServicer(service), MarketDataIngestServicer(service)]
    async with MeshServer(servicers, errors=ERRORS, port=port) as server:
        clients = Clients({INGEST: server.address, PROVIDER: server.address})
        house = asyncio.create_task(service.keep_house())
        try:
            yield Mesh(service, server, clients, clock, conditions, encoder)
        finally:
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)
            await clients.close()
            service.close()


async def take(subscription: MarketSubscription, enough: Callable[[list[MarketUpdate]], bool]) -> list[MarketUpdate]:
    updates: list[MarketUpdate] = []

    async def reading() -> None:
        async for update in subscription:
            updates.append(update)
            if enough(updates):
                return

    await soon(reading())
    return updates


def sequences(updates: Sequence[MarketUpdate]) -> list[int]:
    batches = [update for update in updates if isinstance(update, TickBatchView)]
    return [number for batch in batches for number in range(batch.first_sequence, batch.last_sequence + 1)]


def ticks_up_to(last: int) -> Callable[[list[MarketUpdate]], bool]:
    return lambda updates: isinstance(updates[-1], TickBatchView) and updates[-1].last_sequence >= last
