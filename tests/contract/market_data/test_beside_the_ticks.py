from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from tests.contract.market_data.market_mesh import (
    ES,
    FIRST_NS,
    INGEST,
    NQ,
    PROVIDER,
    REPLAY,
    Mesh,
    serving,
    until,
)

from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.market_data import bootstrap
from minhos_mesh.market_data.announcer import BusAnnouncer
from minhos_mesh.market_data.domain.feed import LastQuote
from minhos_mesh.market_data.service import NO_TICKS
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.event_envelope import check_event, make_event
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer


@dataclass
class Told:
    """An announcer that remembers."""

    quotes: list[tuple[str, int]] = field(default_factory=list)

    async def announce(self, quotes: Sequence[LastQuote]) -> None:
        self.quotes += [(quote.symbol, quote.values.sequence) for quote in quotes]


async def test_last_values_are_announced_once_a_second_at_the_most_and_not_in_a_replay(mesh: Mesh) -> None:
    told = Told()
    task = asyncio.create_task(mesh.service.announce(told))
    async with mesh.source() as source, mesh.source(symbol=ES, provenance=REPLAY) as replay:
        await replay.feed(3)
        for place in range(5):
            await source.feed(1, place)
        assert told.quotes == []
        for _ in range(3):
            mesh.clock.advance(1.0)
            await asyncio.sleep(0.01)
        await source.feed(2, 5)
        mesh.clock.advance(1.0)
        await until(lambda: len(told.quotes) == 2)
    assert told.quotes == [(NQ, 5), (NQ, 7)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_no_tick_for_too_long_is_a_condition_and_a_tick_ends_it(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.source(symbol=ES, provenance=REPLAY) as replay:
        await source.feed(1)
        await replay.feed(1)
        mesh.service.look_for_ticks()
        mesh.clock.advance(299.0)
        mesh.service.look_for_ticks()
        assert not mesh.conditions.held()
        mesh.clock.advance(1.0)
        mesh.service.look_for_ticks()
        assert mesh.conditions.held() == {NO_TICKS: "no tick of NQZ26-CME for 300 s in an open session"}
        await source.feed(1, 1)
        mesh.service.look_for_ticks()
        assert not mesh.conditions.held()


async def test_what_is_built_serves_its_contracts_whole(tmp_path: Path) -> None:
    config = load(None, environment={"MINHOS_MARKET_DATA__SYMBOLS": f"{NQ},{ES}"}).resolved(datetime.now(UTC))
    nobody = {"minhos_api.events.v1.EventBusService": "127.0.0.1:1"}
    context = ServiceContext("market_data", "market_data-1", config, MeshPaths(tmp_path), Clients(nobody))
    async with bootstrap.build(context) as parts:
        async with MeshServer(parts.servicers, errors=parts.errors) as server:
            await parts.start()
            others = [f"minhos_api.market.v1.{name}Service" for name in ("History", "Instrument")]
            assert sorted(server.contracts) == sorted([PROVIDER, INGEST, *others])
            clients = Clients({PROVIDER: server.address})
            answer = await clients.stub(MarketDataProviderServiceStub).GetAllMarketData(pb2.GetAllMarketDataRequest())
            assert [symbol.symbol for symbol in answer.symbols] == [ES, NQ]
            await clients.close()
        await context.tasks.close()
    await context.clients.close()


async def test_announced_quotes_are_events_of_the_catalogue() -> None:
    sent: list[event_pb2.Event] = []

    class Events:
        def event(self, payload: Any, *, subject: str, time_ns: int) -> event_pb2.Event:
            return make_event(payload, subject=subject, source="market_data", time_ns=time_ns)

        async def publish(self, events: Sequence[event_pb2.Event], *, timeout_s: float | None) -> list[int]:
            for event in events:
                check_event(event)
            sent.extend(events)
            return list(range(len(sent)))

    async with serving() as mesh, mesh.source() as source:
        await source.feed(3)
        quote = mesh.service.find(NQ).feed.quote
        assert quote is not None
        await BusAnnouncer(cast("EventClient", Events())).announce([quote])
    (event,) = sent
    assert (event.type, event.subject) == ("market_data.updated", NQ)
    assert event.event_time.ToNanoseconds() == FIRST_NS + 2_000_000
