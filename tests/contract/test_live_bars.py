"""Live bars of any span equal those that GetBars makes of the same ticks, wherever in a session reading begins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minhos_api.market.v1 import history_service_pb2 as history_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1.history_service_pb2_grpc import HistoryServiceStub
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.market_data import bootstrap
from minhos_mesh.runtime import market
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.market import (
    BarClosed,
    BarsOf,
    EpochChanged,
    Gap,
    MarketClient,
    MarketKind,
    MarketSubscription,
    Position,
    Snapshot,
    SubscriptionRefused,
)
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field

NQ = "NQZ26-CME"
INGEST, HISTORY, PROVIDER = (
    f"minhos_api.market.v1.{name}Service" for name in ("MarketDataIngest", "History", "MarketDataProvider")
)
NOW = datetime(2026, 11, 3, 20, 0, tzinfo=UTC)
"""A Tuesday; Chicago left summer time on the Sunday before, so that Monday's session opened an hour later in UTC."""
NOW_NS = int(NOW.timestamp()) * 1_000_000_000
SECOND_NS = 1_000_000_000
RING = 1_024
SIMULATED, DELAYED = 4, 2


@pytest.fixture(autouse=True)
def no_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of these tests stands still, so the stream gives no sign of life while it is silent."""
    monkeypatch.setattr(market, "SILENCE_S", 60.0)


def ticks_of(count: int, apart_ns: int) -> TickArray:
    """Trades and quotes up to about now, some of them while the exchange is closed."""
    ticks, places = new_ticks(count), np.arange(count)
    ticks["event_time_ns"] = NOW_NS - (count - places) * apart_ns
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = ticks["bid_e9"] = (places * 7 % 997 + 1) * 250_000_000
    ticks["size"], ticks["side"] = places % 5 + 1, places % 3
    quote = places % 4 == 3
    ticks["flags"], ticks["kind"] = np.where(quote, 4, 3), np.where(quote, 2, 1)
    return ticks


@dataclass
class Served:
    """Market data whole, and the ways to it."""

    clients: Clients
    provenance: int

    async def feed(self, ticks: TickArray, epoch: int = 7) -> None:
        """Sends what market data does not have yet."""
        read = ingest_pb2.IngestTicksResponse.FromString
        call: Any = self.clients.channel(INGEST).stream_stream(f"/{INGEST}/IngestTicks", bytes_or_message, read)()
        opened = ingest_pb2.IngestOpen(source="walk", symbol=NQ, provenance=self.provenance, epoch=epoch)  # type: ignore[arg-type] # the number of an enum
        async with asyncio.timeout(40):
            await call.write(ingest_pb2.IngestTicksRequest(open=opened))
            at = (await call.read()).opened.through_position
            for begin in range(at, len(ticks), 97):
                batch = encode_batch(NQ, self.provenance, epoch, begin + 1, ticks[begin : begin + 97])
                await call.write(in_field(1, batch))
            while at < len(ticks):
                at = max(at, (await call.read()).ack.through_position)
        call.cancel()

    def read(self, span: str, *, resume: Position | None = None, always_open: bool | None = None) -> MarketSubscription:
        places = None if resume is None else {NQ: resume}
        bars = BarsOf(parse_span(span), always_open)
        return MarketClient(self.clients).subscribe([NQ], {MarketKind.BARS}, bars_back=10_000, resume=places, bars=bars)

    async def recorded(self, span: str, rule: int = history_pb2.SESSION_RULE_UNSPECIFIED) -> list[tuple[object, ...]]:
        """GetBars, all of them."""
        wanted = parse_span(span)
        stub: Any = self.clients.stub(HistoryServiceStub)
        request = history_pb2.GetBarsRequest(
            span=history_pb2.BarSpan(**{str(wanted.measure): wanted.size}),
            page_size=10_000,
            sessions=rule,  # type: ignore[arg-type] # the name of a field, the number of an enum
        )
        found: list[tuple[object, ...]] = []
        while True:
            answer = await stub.GetBars(request)
            found += [
                (bar.trading_day, bar.open_time.ToNanoseconds(), bar.close_time.ToNanoseconds(), bar.open_e9,
                 bar.high_e9, bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trade_count,
                 bar.first.epoch, bar.first.sequence, bar.last.sequence, bar.closed)
                for bar in answer.bars
            ]  # fmt: skip
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token


@asynccontextmanager
async def served(folder: Path, provenance: int = SIMULATED, **overrides: Any) -> AsyncIterator[Served]:
    settings = {"market_data": {"symbols": [NQ], "ring_ticks": RING, **overrides}}
    context = ServiceContext(
        "market_data", "market_data-1", load(None, environment={}, overrides=settings).resolved(NOW),
        MeshPaths(folder), Clients({}), ManualClock(NOW_NS),
    )  # fmt: skip
    async with bootstrap.build(context) as parts, MeshServer(parts.servicers, errors=parts.errors) as server:
        clients = Clients(dict.fromkeys((INGEST, HISTORY, PROVIDER), server.address))
        try:
            yield Served(clients, provenance)
        finally:
            await clients.close()
            await context.tasks.close()
            await context.clients.close()


def as_recorded(bar: Bar) -> tuple[object, ...]:
    return (
        bar.trading_day.isoformat(), bar.open_time_ns, bar.close_time_ns, bar.open_e9, bar.high_e9, bar.low_e9,
        bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trades, bar.first_epoch, bar.first_trade,
        bar.last_trade, bar.closed,
    )  # fmt: skip


async def bars_until(reading: MarketSubscription, last: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Closed bars up to the one that GetBars tells as the last closed one."""
    found: list[tuple[object, ...]] = []
    async with asyncio.timeout(40):
        async for update in reading:
            assert not isinstance(update, Gap | EpochChanged)
            if isinstance(update, Snapshot):
                found += map(as_recorded, update.bars)
            elif isinstance(update, BarClosed):
                found.append(as_recorded(update.bar))
            if found and found[-1] == last:
                return found
    raise AssertionError("the subscription ended")


async def snapshot_of(reading: MarketSubscription) -> Snapshot:
    async with asyncio.timeout(40):
        first = await anext(reading)
    assert isinstance(first, Snapshot)
    return first


async def test_who_reads_from_the_first_tick_gets_the_bars_of_the_history(tmp_path: Path) -> None:
    whole = ticks_of(6_000, 31 * SECOND_NS)
    spans = ("1s", "90s", "5m", "1h", "1d", "1t", "100t", "777v")
    async with served(tmp_path) as mesh, contextlib.AsyncExitStack() as readers:
        readings = [await readers.enter_async_context(mesh.read(span)) for span in spans]
        for reading in readings:
            assert (await snapshot_of(reading)).position is None
        await mesh.feed(whole)
        for span, reading in zip(spans, readings, strict=True):
            closed = [bar for bar in await mesh.recorded(span) if bar[-1]]
            assert await bars_until(reading, closed[-1]) == closed


@pytest.mark.parametrize(("count", "apart_s"), [(900, 3), (5_000, 10)], ids=["in memory", "from the history"])
async def test_who_comes_later_gets_the_bars_of_the_session_and_all_that_follow(
    tmp_path: Path, count: int, apart_s: int
) -> None:
    whole = ticks_of(count + 700, apart_s * SECOND_NS)
    spans = ("10s", "7m", "1d", "3t", "500v")
    async with served(tmp_path) as mesh, contextlib.AsyncExitStack() as readers:
        await mesh.feed(whole[:count])
        readings = [await readers.enter_async_context(mesh.read(span)) for span in spans]
        told: dict[str, list[tuple[object, ...]]] = {}
        for span, reading in zip(spans, readings, strict=True):
            snapshot, so_far = await snapshot_of(reading), await mesh.recorded(span)
            told[span] = [as_recorded(bar) for bar in snapshot.bars]
            assert told[span] == [bar for bar in so_far if bar[-1] and bar[0] == so_far[-1][0]]
            assert [as_recorded(snapshot.open_bar)] if snapshot.open_bar else [b for b in so_far if not b[-1]] == []
        await mesh.feed(whole)
        for span, reading in zip(spans, readings, strict=True):
            closed = [bar for bar in await mesh.recorded(span) if bar[-1]]
            if closed and closed[-1] not in told[span]:
                told[span] += await bars_until(reading, closed[-1])
            assert told[span] == closed[len(closed) - len(told[span]) :]


async def test_sessions_of_the_exchange_are_those_of_the_history_over_the_end_of_summer_time(tmp_path: Path) -> None:
    whole = ticks_of(7_000, 60 * SECOND_NS)
    async with served(tmp_path, DELAYED) as mesh:
        await mesh.feed(whole[:6_000])
        async with mesh.read("4h") as reading:
            snapshot = await snapshot_of(reading)
            await mesh.feed(whole)
            expected = await mesh.recorded("4h")
            closed = [bar for bar in expected if bar[-1]]
            told = [as_recorded(bar) for bar in snapshot.bars] + await bars_until(reading, closed[-1])
    assert told == closed[len(closed) - len(told) :]
    opens = {
        datetime.fromtimestamp(int(str(bar[1])) // SECOND_NS, UTC).hour for bar in expected if bar[0] == "2026-11-02"
    }
    assert min(hour for hour in opens if hour > 12) == 15
    assert {bar[0] for bar in expected} >= {"2026-10-30", "2026-11-02", "2026-11-03"}


async def test_who_resumes_gets_the_bars_that_closed_meanwhile_and_no_other(tmp_path: Path) -> None:
    whole = ticks_of(900, 20 * SECOND_NS)
    async with served(tmp_path) as mesh:
        await mesh.feed(whole[:300])
        async with mesh.read("5t") as reading:
            async with asyncio.timeout(40):
                await anext(reading)
            await mesh.feed(whole)
            async with mesh.read("5t", resume=Position(7, 500)) as resumed:
                closed = [bar for bar in await mesh.recorded("5t") if bar[-1]]
                found = await bars_until(resumed, closed[-1])
    assert found == [bar for bar in closed if int(str(bar[-2])) > 500]


async def test_ticks_that_are_nowhere_are_no_bars_and_it_is_said_why(tmp_path: Path) -> None:
    async with served(tmp_path, record=["LIVE"]) as mesh:
        await mesh.feed(ticks_of(3_000, 7 * SECOND_NS))
        async with mesh.read("1d") as reading:
            with pytest.raises(SubscriptionRefused) as refused:
                async with asyncio.timeout(40):
                    await anext(reading)
    assert refused.value.reason == "ERROR_REASON_HISTORY_NOT_HELD"


async def test_spans_that_no_bar_can_have_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh:
        stub: Any = mesh.clients.stub(MarketDataProviderServiceStub)
        wanted = pb2.MarketSubscription(kinds=[pb2.MARKET_DATA_KIND_BARS], bar_span=history_pb2.BarSpan(seconds=86_401))
        with pytest.raises(Exception, match="seconds"):
            await anext(aiter(stub.StreamMarketData(pb2.StreamMarketDataRequest(subscription=wanted))))
