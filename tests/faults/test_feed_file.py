"""What prices come from is replaced, cut off and silent: a position and its profit stay what they are, and silence is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.books import assert_books_agree
from tests.e2e.running_mesh import Mesh, started
from tests.waiting import eventually, until

from minhos_api.health.v1 import health_monitor_service_pb2 as health_pb
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.risk.v1 import risk_check_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as risk_pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as simulator_pb
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.market import FROM_START, EpochChanged, Gap, MarketClient
from minhos_mesh.runtime.tick_layout import TickFlag
from minhos_mesh.runtime.ticks import TickBatchView
from minhos_mesh.sierra_files.reader import read_scid

pytestmark = pytest.mark.timeout(120)

E9: Final = 1_000_000_000
HELD: Final = 3
MULTIPLIER: Final = 20
FARTHEST_E9: Final = 60 * E9
"""A resting order is no farther from the price than the collar allows."""
QUIET: Final = {
    "MINHOS_ENGINE__MODE": "MANUAL",
    "MINHOS_FEED__HISTORY_HOURS": "1",
    "MINHOS_FEED__TICKS_PER_SECOND": "20",
    "MINHOS_RISK__MAX_POSITION": "10",
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh that trades only when it is told to, with an hour of prices behind it."""
    with started(tmp_path_factory.mktemp("feed_file") / "data", settings=QUIET) as made:
        until(made.healthy, "all HEALTHY")
        yield made


@dataclass
class Reader:
    """All ticks of the primary symbol, generation after generation."""

    epochs: list[int] = field(default_factory=list)
    through: dict[int, int] = field(default_factory=dict)
    broken: list[object] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    """Newest event time by generation."""
    prices: dict[int, int] = field(default_factory=dict)
    """Newest price of a trade by generation."""

    async def read(self, market: MarketClient, symbol: str) -> None:
        async with market.subscribe([symbol], resume={symbol: FROM_START}) as reading:
            async for update in reading:
                if isinstance(update, TickBatchView):
                    self._take(update)
                elif isinstance(update, Gap):
                    self.broken.append(update)
                elif isinstance(update, EpochChanged) and update.epoch not in self.epochs:
                    self.epochs.append(update.epoch)

    def _take(self, batch: TickBatchView) -> None:
        if batch.epoch not in self.epochs:
            self.epochs.append(batch.epoch)
        if batch.epoch != self.epochs[-1] or batch.first_sequence != self.through.get(batch.epoch, 0) + 1:
            self.broken.append((batch.epoch, batch.first_sequence, self.through.get(batch.epoch)))
        self.through[batch.epoch] = batch.last_sequence
        times = batch.ticks["event_time_ns"]
        if int(times[0]) < self.times.get(batch.epoch, 0) or (times[1:] < times[:-1]).any():
            self.broken.append(("times fall", batch.epoch, batch.first_sequence))
        self.times[batch.epoch] = int(times[-1])
        traded = batch.ticks[(batch.ticks["flags"] & TickFlag.HAS_PRICE) != 0]
        if len(traded):
            self.prices[batch.epoch] = int(traded["price_e9"][-1])


@dataclass
class Bench:
    """The mesh as a person beside it sees it."""

    clients: Clients
    symbol: str
    reader: Reader

    def stub(self, kind: Any) -> Any:
        return self.clients.stub(kind)

    async def place(self, name: str, side: terms_pb.Side.ValueType, quantity: int, limit_e9: int | None = None) -> str:
        kind = terms_pb.ORDER_TYPE_MARKET if limit_e9 is None else terms_pb.ORDER_TYPE_LIMIT
        terms = terms_pb.OrderTerms(
            symbol=self.symbol, side=side, type=kind, quantity=quantity, limit_price_e9=limit_e9,
            time_in_force=terms_pb.TIME_IN_FORCE_DAY,
        )  # fmt: skip
        request = orders_pb.PlaceOrderRequest(request_id=name, actor="a person", terms=terms)
        return str((await self.stub(OrderServiceStub).PlaceOrder(request)).order.order_id)

    async def order(self, order_id: str) -> order_pb2.Order:
        answer = await self.stub(OrderServiceStub).GetOrder(orders_pb.GetOrderRequest(order_id=order_id))
        found: order_pb2.Order = answer.order
        return found

    async def position(self) -> tuple[int, int, int, int]:
        """Contracts, cost, realized and commission as the engine has them."""
        answer = await self.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest())
        (held,) = answer.positions
        return held.quantity, held.cost_e9, held.realized_pnl_e9, held.commission_e9

    async def risk(self) -> risk_pb.RiskMetrics:
        answer = await self.stub(RiskManagerServiceStub).GetRiskMetrics(risk_pb.GetRiskMetricsRequest())
        seen: risk_pb.RiskMetrics = answer.metrics
        return seen

    async def inject(self, kind: simulator_pb.SimulatorFaultKind.ValueType) -> None:
        name = simulator_pb.SimulatorFaultKind.Name(kind)
        request = simulator_pb.InjectFaultRequest(request_id=name, kind=kind)
        await self.stub(SierraSimulatorServiceStub).InjectFault(request)


@pytest.fixture
async def bench(mesh: Mesh) -> AsyncIterator[Bench]:
    services = mesh.services().values()
    clients = Clients({name: s.instances[0].address for s in services if s.instances for name in s.contracts})
    told = await clients.stub(MarketDataProviderServiceStub).GetMarketData(market_pb.GetMarketDataRequest())
    made = Bench(clients, told.symbol, Reader())
    reading = asyncio.create_task(made.reader.read(MarketClient(clients), told.symbol))
    yield made
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await clients.close()


def resting(file: Path, price_e9: int) -> tuple[terms_pb.Side.ValueType, int]:
    """A limit that the file has traded through before, away from the price of now: side and price."""
    closes = read_scid(file)["close"]
    lowest, highest = (round(float(end) * 4) * 250_000_000 for end in (closes.min(), closes.max()))
    below, above = min(price_e9 - lowest, FARTHEST_E9), min(highest - price_e9, FARTHEST_E9)
    half = max(below, above) // 2 // 250_000_000 * 250_000_000
    return (terms_pb.SIDE_BUY, price_e9 - half) if below >= above else (terms_pb.SIDE_SELL, price_e9 + half)


async def test_a_position_is_the_same_while_its_file_is_replaced_and_cut_off(mesh: Mesh, bench: Bench) -> None:
    reader, file = bench.reader, mesh.paths.sierra_dir / f"{bench.symbol}.scid"
    bought = await bench.place("buy", terms_pb.SIDE_BUY, HELD)

    async def filled() -> bool:
        return (await bench.order(bought)).state == order_pb2.ORDER_STATE_FILLED

    await eventually(filled, "the order is filled")
    await eventually(lambda: len(reader.prices) == 1, "ticks are read")
    side, limit_e9 = resting(file, reader.prices[reader.epochs[0]])
    rests = await bench.place("rest", side, 1, limit_e9)
    before = await bench.position()
    assert before[0] == HELD
    kinds = simulator_pb.SIMULATOR_FAULT_KIND_FILE_REPLACED, simulator_pb.SIMULATOR_FAULT_KIND_FILE_TRUNCATED
    for number, kind in enumerate(kinds, 1):
        await bench.inject(kind)
        await eventually(lambda n=number: len(reader.epochs) == n + 1, "another generation is told", 20.0)  # type: ignore[misc]  # mypy cannot type a default
        former, now = reader.epochs[-2:]
        await eventually(
            lambda now=now, then=former: reader.times.get(now, 0) > reader.times[then],  # type: ignore[misc]  # likewise
            "its ticks go on behind those of the former one", 20.0,
        )  # fmt: skip
        await _assert_unchanged(bench, before, now)
        assert (await bench.order(rests)).filled_quantity == 0, "prices of the past fill nothing"
    assert reader.broken == []
    assert len(reader.epochs) == 1 + len(kinds)
    assert sorted(reader.epochs) == reader.epochs
    await _sold(bench, before)
    await bench.stub(OrderServiceStub).CancelOrder(orders_pb.CancelOrderRequest(order_id=rests, actor="a person"))
    await eventually(lambda: asyncio.to_thread(mesh.healthy), "all HEALTHY")
    await eventually(lambda: asyncio.to_thread(_books_agree, mesh), "all books agree")


async def test_a_silent_feed_is_seen_as_soon_as_orders_are_refused_for_it(mesh: Mesh, bench: Bench) -> None:
    risk = bench.stub(RiskManagerServiceStub)
    limits = (await risk.GetRiskLimits(risk_pb.GetRiskLimitsRequest())).limits
    limits.max_price_age.FromSeconds(2)
    await risk.SetRiskLimits(
        risk_pb.SetRiskLimitsRequest(request_id="short", limits=limits, actor="a person", reason="to wait less")
    )
    terms = terms_pb.OrderTerms(
        symbol=bench.symbol, side=terms_pb.SIDE_BUY, type=terms_pb.ORDER_TYPE_MARKET, quantity=1
    )  # fmt: skip

    async def fresh() -> bool:
        asked = risk_pb.CheckTradeRequest(request_id="dry", terms=terms, dry_run=True)
        checks = (await risk.CheckTrade(asked)).checks
        return all(each.passed for each in checks if each.code == risk_check_pb2.RISK_CHECK_CODE_FRESH_PRICE)

    async def told() -> str:
        answer = await bench.stub(HealthMonitorServiceStub).GetMeshHealth(health_pb.GetMeshHealthRequest())
        (seen,) = (each for each in answer.services if each.service == "risk_manager")
        return next((f"{each.message} -> {each.action}" for each in seen.reasons if each.code == "FEED_QUIET"), "")

    await eventually(fresh, "orders pass")
    await bench.inject(simulator_pb.SIMULATOR_FAULT_KIND_FEED_SILENCE)
    said = await eventually(told, "the status tells that the feed is quiet")
    assert not await fresh()
    assert f"{bench.symbol} since " in said
    assert "no order passes there" in said
    assert "`minhos simulator faults`" in said
    await bench.stub(SierraSimulatorServiceStub).ClearFaults(simulator_pb.ClearFaultsRequest())
    await eventually(fresh, "orders pass again")
    await eventually(lambda: asyncio.to_thread(mesh.healthy), "all HEALTHY again")


async def _assert_unchanged(bench: Bench, before: tuple[int, int, int, int], epoch: int) -> None:
    """The position by everybody's account, and profit and loss by the prices of now, to what a price may move meanwhile."""
    assert await bench.position() == before
    quantity, cost_e9, realized_e9, commission_e9 = before

    async def booked() -> bool:
        seen = await bench.risk()
        assert not seen.breaker.tripped, seen.breaker.reason
        same = dict(seen.positions) == {bench.symbol: HELD}
        return same and seen.realized_today_e9 == realized_e9 - commission_e9

    await eventually(booked, "the risk manager has the same position and profit")

    async def marked() -> bool:
        price_e9, near_e9 = bench.reader.prices[epoch], 10 * E9 * HELD * MULTIPLIER
        open_e9 = (quantity * price_e9 - cost_e9) * MULTIPLIER
        answer = await bench.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest())
        told = (answer.positions[0].unrealized_pnl_e9, (await bench.risk()).unrealized_e9)
        return all(abs(each - open_e9) <= near_e9 for each in told)

    await eventually(marked, "engine and risk tell the open profit at the price of now")
    now = await bench.risk()
    moved_e9 = (
        30 * E9 * HELD * MULTIPLIER
    )  # far more than the price moves meanwhile, and less than it did within the hour
    assert now.drawdown_e9 <= abs(now.unrealized_e9) + abs(now.realized_today_e9) + moved_e9


async def _sold(bench: Bench, before: tuple[int, int, int, int]) -> None:
    """Sells all; the profit is exactly what the fills make of it."""
    sold = await bench.place("sell", terms_pb.SIDE_SELL, HELD)

    async def flat() -> bool:
        return (await bench.order(sold)).state == order_pb2.ORDER_STATE_FILLED

    await eventually(flat, "the position is sold under the new generation")
    order = await bench.order(sold)
    answer = await bench.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest(include_flat=True))
    (held,) = answer.positions
    fills = await bench.stub(TradingEngineServiceStub).ListFills(engine_pb.ListFillsRequest())
    proceeds_e9 = sum(fill.price_e9 * fill.quantity for fill in fills.fills if fill.order_id == order.order_id)
    assert (held.quantity, held.cost_e9) == (0, 0)
    assert held.realized_pnl_e9 == (proceeds_e9 - before[1]) * MULTIPLIER


def _books_agree(mesh: Mesh) -> bool:
    try:
        assert_books_agree(mesh)
    except AssertionError:
        return False
    return True
