"""Several real services in one process, each behind its own server, built by its own bootstrap."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb
from minhos_api.market.v1 import provenance_pb2
from minhos_api.market.v1.market_data_ingest_service_pb2_grpc import MarketDataIngestServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.host import Build
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.runtime.tick_layout import TickFlag, TickKind, new_ticks
from minhos_mesh.runtime.ticks import encode_batch


class MeshInProcess:
    """Serve services in the order of their dependencies; they end in reverse when the context is left."""

    def __init__(self, folder: Path, config: MeshConfig) -> None:
        self.targets: dict[str, str] = {}
        self.failures: list[str] = []
        self._paths = MeshPaths(folder)
        self._config = config
        self._stack = contextlib.AsyncExitStack()
        self._paths.create()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        assert self.failures == []

    async def serve(self, service: str, build: Build) -> ServiceContext:
        """Build and serve one service; those that it needs must be served already."""
        context = ServiceContext(
            service,
            f"{service}-1",
            self._config,
            self._paths,
            Clients(self.targets),
            tasks=OwnedTasks(lambda name, error: self.failures.append(f"{service}: {name}: {error!r}")),
        )
        self._stack.push_async_callback(context.clients.close)
        parts = await self._stack.enter_async_context(build(context))
        self._stack.push_async_callback(context.tasks.close)
        server = await self._stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        self._stack.push_async_callback(parts.drain)
        self._stack.callback(context.stopping.set)
        self.targets.update(dict.fromkeys(server.contracts, server.address))
        await parts.start()
        return context

    def clients(self) -> Clients:
        """Clients of everything that is served so far; they close with the mesh."""
        clients = Clients(self.targets)
        self._stack.push_async_callback(clients.close)
        return clients


@contextlib.asynccontextmanager
async def source_of(clients: Clients, symbol: str, provenance: int, epoch: int = 7) -> AsyncIterator[Any]:
    """An open source of ticks at market data; gives a function (first position, [(event time, bid, ask)])."""
    call: Any = clients.stub(MarketDataIngestServiceStub).IngestTicks()
    told = ingest_pb.IngestOpen(
        source=f"test:{symbol}", symbol=symbol, provenance=provenance_pb2.Provenance.ValueType(provenance), epoch=epoch
    )
    await call.write(ingest_pb.IngestTicksRequest(open=told))
    assert (await call.read()).HasField("opened")

    async def send(position: int, rows: list[tuple[int, int, int]]) -> None:
        ticks = new_ticks(len(rows))
        for tick, (time_ns, bid, ask) in zip(ticks, rows, strict=True):
            tick["event_time_ns"] = tick["receive_time_ns"] = time_ns
            tick["bid_e9"], tick["ask_e9"], tick["bid_size"], tick["ask_size"] = bid, ask, 5, 5
            tick["price_e9"], tick["size"], tick["kind"], tick["side"] = ask, 1, TickKind.TRADE, 1
            tick["flags"] = int(
                TickFlag.HAS_PRICE
                | TickFlag.HAS_SIZE
                | TickFlag.HAS_BID
                | TickFlag.HAS_ASK
                | TickFlag.HAS_BID_SIZE
                | TickFlag.HAS_ASK_SIZE
            )
        batch = encode_batch(symbol, provenance, epoch, position, ticks)
        request = ingest_pb.IngestTicksRequest()
        request.batch.ParseFromString(batch)
        await call.write(request)

    try:
        yield send
    finally:
        call.cancel()
