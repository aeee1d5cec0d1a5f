"""The paper venue as its clients see it: the conformance of every venue, and what only a replay can show."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.mesh_in_process import MeshInProcess, source_of
from tests.contract.venue_conformance import E9, TICK, P, VenueConformance, Watch, fills, order, refused, submit, terms

from minhos_api.events.v1 import event_bus_service_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.trading.v1.trading_events_pb2 import TradingProgressed
from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub
from minhos_mesh.event_bus import bootstrap as event_bus
from minhos_mesh.market_data import bootstrap as market_data
from minhos_mesh.paper_venue import bootstrap
from minhos_mesh.paper_venue.bootstrap import exchange_of
from minhos_mesh.paper_venue.service import PaperVenue
from minhos_mesh.paper_venue.store import MIGRATIONS
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.events import make_event
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.storage import Database
from minhos_mesh.runtime.tick_layout import TickFlag, TickKind, new_ticks
from minhos_mesh.runtime.ticks import TickBatchView
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.venue.domain.orders import REPLAY, SIMULATED
from minhos_mesh.venue.error_table import ERRORS
from minhos_mesh.venue.servicer import VenueServicer

CONTRACT = "minhos_api.venue.v1.VenueService"
MS = 1_000_000


def config_of() -> MeshConfig:
    overrides = {"market_data": {"symbols": ["NQZ26-CME"]}}
    return load(None, environment={}, overrides=overrides).resolved(datetime(2026, 11, 20, tzinfo=UTC))


class PaperHarness:
    """A paper venue on a folder, with a market that the test moves."""

    symbol = "NQZ26-CME"

    def __init__(self, folder: Path, provenance: int = SIMULATED) -> None:
        self.clock = ManualClock()
        self.provenance = provenance
        self.sequence = 0
        self.epoch = 7
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self.venue: PaperVenue
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        return self._stub

    async def start(self) -> None:
        database = await self._stack.enter_async_context(Database(self._folder / "venue.db", migrations=MIGRATIONS))
        self.venue = PaperVenue(exchange_of(config_of()), database, self.clock)
        await self.venue.recover()
        server = await self._stack.enter_async_context(MeshServer([VenueServicer(self.venue)], errors=ERRORS))
        clients = Clients({CONTRACT: server.address})
        self._stack.push_async_callback(clients.close)
        self._stack.callback(self.venue.close)
        self._stub = clients.stub(VenueServiceStub)

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()

    async def quiet(self) -> None:
        """All is told when a call has returned."""

    async def kill(self) -> None:
        await self.stop()
        await self.start()

    async def show(self, bid: int, ask: int, *, size: int = 5) -> None:
        await self.venue.on_batch(self.batch([(bid, ask, size, None, 0)]))

    async def trade(self, price: int, size: int) -> None:
        await self.venue.on_batch(self.batch([(None, None, 0, price, size)]))

    def batch(
        self, rows: Sequence[tuple[int | None, int | None, int, int | None, int]], step_ns: int = MS
    ) -> TickBatchView:
        """Make ticks of (bid, ask, shown size, traded price, traded size), each `step_ns` after the one before."""
        ticks = new_ticks(len(rows))
        first = self.sequence + 1
        for index, (bid, ask, shown, price, size) in enumerate(rows):
            self.clock.advance_ns(step_ns)
            tick, flags = ticks[index], TickFlag(0)
            tick["event_time_ns"] = tick["receive_time_ns"] = self.clock.wall_ns()
            if bid is not None and ask is not None:
                flags |= TickFlag.HAS_BID | TickFlag.HAS_ASK | TickFlag.HAS_BID_SIZE | TickFlag.HAS_ASK_SIZE
                tick["bid_e9"], tick["ask_e9"] = P + bid * TICK, P + ask * TICK
                tick["bid_size"] = tick["ask_size"] = shown
            if price is not None:
                flags |= TickFlag.HAS_PRICE | TickFlag.HAS_SIZE
                tick["price_e9"], tick["size"] = P + price * TICK, size
            tick["flags"], tick["kind"] = int(flags), TickKind.QUOTE if price is None else TickKind.TRADE
        self.sequence += len(rows)
        return TickBatchView(self.symbol, self.provenance, self.epoch, first, ticks)


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[PaperHarness]:
    harness = PaperHarness(tmp_path)
    await harness.start()
    yield harness
    await harness.stop()


@pytest.fixture
async def replayed(tmp_path: Path) -> AsyncIterator[PaperHarness]:
    harness = PaperHarness(tmp_path, REPLAY)
    await harness.start()
    yield harness
    await harness.stop()


class TestPaperVenue(VenueConformance):
    pass


async def test_order_waits_while_the_quote_is_stale(venue: PaperHarness) -> None:
    await venue.show(0, 1)
    venue.clock.advance(60)
    waiting = await submit(venue, terms(venue.symbol))
    assert waiting.state == pb.VENUE_ORDER_STATE_WORKING
    await venue.show(4, 5)
    assert (await order(venue, waiting.client_order_id)).average_price_e9 == P + 5 * TICK


async def test_history_that_is_read_late_fills_nothing(venue: PaperHarness) -> None:
    old = venue.batch([(0, 1, 5, None, 0)])
    venue.clock.advance(3_600)
    old.ticks["receive_time_ns"] = venue.clock.wall_ns()
    await venue.venue.on_batch(old)
    assert (await submit(venue, terms(venue.symbol))).state == pb.VENUE_ORDER_STATE_WORKING


async def test_order_on_live_data_is_refused_while_the_market_is_simulated(venue: PaperHarness) -> None:
    await venue.show(0, 1)
    request = pb.SubmitOrderRequest(
        client_order_id="live-1", terms=terms(venue.symbol), provenance=provenance_pb2.PROVENANCE_LIVE
    )
    assert await refused(venue.stub.SubmitOrder(request)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "PROVENANCE_REFUSED",
    )


async def test_price_off_by_the_scale_says_what_was_probably_meant(venue: PaperHarness) -> None:
    await venue.show(0, 1)
    wrong = terms(venue.symbol, kind=terms_pb.ORDER_TYPE_LIMIT, limit=0)
    wrong.limit_price_e9 = 23_500
    with pytest.raises(grpc.aio.AioRpcError, match=r"probably meant 23500\.00"):
        await submit(venue, wrong)


async def test_commission_of_the_configuration_is_charged_per_contract(venue: PaperHarness) -> None:
    await venue.show(0, 1)
    done = await submit(venue, terms(venue.symbol, quantity=2))
    (fill,) = await fills(venue, done.client_order_id)
    assert fill.commission_e9 == 2 * 2_040_000_000


async def test_orders_from_many_clients_at_once_are_all_taken_once(venue: PaperHarness) -> None:
    await venue.show(0, 1, size=1_000)
    taken = await asyncio.gather(*[submit(venue, terms(venue.symbol)) for _ in range(100)])
    assert {t.state for t in taken} == {pb.VENUE_ORDER_STATE_FILLED}
    (position,) = (await venue.stub.ListPositions(pb.ListPositionsRequest())).positions
    assert (position.quantity, position.version) == (100, 100)


async def test_replay_goes_no_further_than_the_engine_and_says_so(replayed: PaperHarness) -> None:
    async with Watch(replayed) as watch:
        await watch.next()
        await replayed.venue.on_batch(replayed.batch([(n, n + 1, 5, None, 0) for n in range(10)]))
        assert replayed.venue.place(replayed.symbol) == (7, 10)
        await replayed.venue.on_progress(replayed.symbol, 7, 4)
        told = (await watch.next()).market_progress
        assert (told.symbol, told.epoch, told.through_sequence) == (replayed.symbol, 7, 4)
        await replayed.venue.on_progress(replayed.symbol, 7, 9)
        assert (await watch.next()).market_progress.through_sequence == 9


async def test_replay_reaches_a_progress_only_when_its_ticks_have_come(replayed: PaperHarness) -> None:
    async with Watch(replayed) as watch:
        await watch.next()
        await replayed.venue.on_progress(replayed.symbol, 7, 4)
        await replayed.venue.on_batch(replayed.batch([(0, 1, 5, None, 0)] * 3))
        await replayed.venue.on_batch(replayed.batch([(0, 1, 5, None, 0)] * 3))
        assert (await watch.next()).market_progress.through_sequence == 4


async def decided(venue: PaperHarness, client_id: str, at_ns: int, **what: Any) -> pb.VenueOrder:
    request = pb.SubmitOrderRequest(
        client_order_id=client_id,
        terms=terms(venue.symbol, **what),
        provenance=provenance_pb2.PROVENANCE_REPLAY,
        decision_time=timestamp(at_ns),
    )
    answer: pb.SubmitOrderResponse = await venue.stub.SubmitOrder(request)
    return answer.order


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
async def test_replay_fills_do_not_depend_on_how_ticks_are_batched(replayed: PaperHarness, chunk: int) -> None:
    rows = [(n % 5, n % 5 + 1, 2, n % 5, 1) for n in range(100)]
    whole = replayed.batch(rows, step_ns=10 * MS)
    start_ns = int(whole.ticks["event_time_ns"][0])
    for at in range(0, 100, chunk):
        part = whole.ticks[at : at + chunk]
        await replayed.venue.on_batch(TickBatchView(replayed.symbol, REPLAY, 7, at + 1, part))
    await replayed.venue.on_progress(replayed.symbol, 7, 20)
    taken = await decided(replayed, "r-1", start_ns + 19 * 10 * MS, quantity=3)
    assert taken.state == pb.VENUE_ORDER_STATE_PENDING
    await replayed.venue.on_progress(replayed.symbol, 7, 100)
    told = [
        (f.quantity, (f.price_e9 - P) // TICK, f.fill_time.ToNanoseconds() - start_ns)
        for f in await fills(replayed, "r-1")
    ]
    # Decided at tick 20, in the market 50 ms later: at the instant of tick 25, against the quote of tick 24, then of 25.
    assert told == [(2, 4, 240 * MS), (1, 5, 240 * MS)]


async def test_replay_goes_on_after_a_crash_where_it_was(replayed: PaperHarness) -> None:
    ticks = replayed.batch([(n, n + 1, 5, None, 0) for n in range(10)])
    await replayed.venue.on_batch(ticks)
    await replayed.venue.on_progress(replayed.symbol, 7, 4)
    await replayed.kill()
    assert replayed.venue.place(replayed.symbol) == (7, 4)
    async with Watch(replayed) as watch:
        assert (await watch.next()).WhichOneof("update") == "snapshot"
        assert (await watch.next()).market_progress.through_sequence == 4
        await replayed.venue.on_batch(ticks.after(4))
        await replayed.venue.on_progress(replayed.symbol, 7, 10)
        assert (await watch.next()).market_progress.through_sequence == 10


def test_prices_of_the_tests_are_on_the_grid() -> None:
    assert P % TICK == 0
    assert P == 23_500 * E9


async def served(mesh: MeshInProcess) -> Any:
    await mesh.serve("event_bus", event_bus.build)
    await mesh.serve("market_data", market_data.build)
    await mesh.serve("paper_venue", bootstrap.build)
    return mesh.clients().stub(VenueServiceStub)


def rows_at(start_ns: int, count: int) -> list[tuple[int, int, int]]:
    return [(start_ns + n * 10 * MS, P + n * TICK, P + (n + 1) * TICK) for n in range(count)]


async def test_served_venue_fills_against_the_market_data_of_the_mesh(tmp_path: Path) -> None:
    async with MeshInProcess(tmp_path, config_of()) as mesh:
        stub = await served(mesh)
        clients = mesh.clients()
        async with source_of(clients, "NQZ26-CME", SIMULATED) as send:
            await send(1, rows_at(time.time_ns() - 100 * MS, 3))
            request = pb.SubmitOrderRequest(
                client_order_id="o-1",
                terms=terms("NQZ26-CME"),
                provenance=provenance_pb2.PROVENANCE_SIMULATED,
            )
            call = stub.WatchOrders(pb.WatchOrdersRequest())
            await call.read()
            await stub.SubmitOrder(request)
            async with asyncio.timeout(5):
                while not (message := await call.read()).HasField("fill"):
                    pass
            call.cancel()
        assert message.fill.price_e9 == P + 3 * TICK
        assert message.fill.provenance == provenance_pb2.PROVENANCE_SIMULATED


async def test_served_venue_replays_only_as_far_as_the_engine_published(tmp_path: Path) -> None:
    replay = config_of().model_copy(
        update={"sierra_client": config_of().sierra_client.model_copy(update={"provenance": "REPLAY"})}
    )
    start_ns = 1_600_000_000 * E9
    async with MeshInProcess(tmp_path, replay) as mesh:
        stub = await served(mesh)
        clients = mesh.clients()
        bus = clients.stub(EventBusServiceStub)

        async def progress(through: int) -> None:
            payload = TradingProgressed(symbol="NQZ26-CME", epoch=7, through_sequence=through)
            event = make_event(payload, subject="NQZ26-CME", source="trading_engine", time_ns=start_ns)
            await bus.Publish(event_bus_service_pb2.PublishRequest(events=[event]))

        async with source_of(clients, "NQZ26-CME", REPLAY) as send:
            await send(1, rows_at(start_ns, 50))
            call = stub.WatchOrders(pb.WatchOrdersRequest())
            async with asyncio.timeout(5):
                await call.read()
                await progress(10)
                while (message := await call.read()).market_progress.through_sequence != 10:
                    pass
            request = pb.SubmitOrderRequest(
                client_order_id="r-1",
                terms=terms("NQZ26-CME"),
                provenance=provenance_pb2.PROVENANCE_REPLAY,
                decision_time=timestamp(start_ns + 90 * MS),
            )
            assert (await stub.SubmitOrder(request)).order.state == pb.VENUE_ORDER_STATE_PENDING
            await progress(50)
            async with asyncio.timeout(5):
                while not (message := await call.read()).HasField("fill"):
                    assert not message.HasField("market_progress")
                fill = message.fill
                while (message := await call.read()).market_progress.through_sequence != 50:
                    pass
            call.cancel()
        # Decided at tick 10 (90 ms), in the market at 140 ms: against the quote of tick 14, which came at 130 ms.
        assert fill.fill_time.ToNanoseconds() == start_ns + 140 * MS
        assert fill.price_e9 == P + 14 * TICK
