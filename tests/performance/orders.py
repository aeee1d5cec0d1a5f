"""Measures how many orders ExecuteTrade accepts a second, risk-checked and on disk, beside one commit for each and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.performance.mesh_run import MeshFailed, running_mesh
from tests.performance.results import Benchmark, Metric, Reach, Settings, percentile

from minhos_api.brain.v1 import signal_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as market
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as trading
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.runtime.clients import Clients

IN_FLIGHT: Final = (1, 8, 32)
ORDERS: Final = 1_000
WARM: Final = 200
QUANTITIES: Final = 997
"""Orders of the same terms within a second are refused, so the quantity goes round; more than are placed in a second."""
REFERENCE: Final = "a bare loop: one SQLite row, synchronous=FULL"
CONFIG: Final = """
[feed]
ticks_per_second = 10
[brain]
min_confidence = 1.0
[risk]
max_order_quantity = 10000
max_position = 10000000
max_orders_per_minute = 1000000
max_daily_loss = "1000000000000"
max_drawdown = "1000000000000"
max_exposure = "1000000000000"
[paper_venue]
initial_cash = "1000000000000"
"""


async def run(settings: Settings) -> Sequence[Metric]:
    """Alternates orders at each number in flight and bare commits; a first round of each does not count."""
    rates: dict[int, list[float]] = {count: [] for count in IN_FLIGHT}
    halves: dict[int, list[float]] = {count: [] for count in IN_FLIGHT}
    bare: list[float] = []
    async with running_mesh(settings.folder / "mesh", CONFIG) as mesh:
        clients = Clients(await mesh.addresses())
        try:
            desk = _Desk(clients)
            await desk.place(WARM, 8)
            for number in range(settings.rounds):
                bare.append(_commits_per_s(settings.folder / "bare.db", ORDERS))
                for in_flight in IN_FLIGHT:
                    rate, times = await desk.place(ORDERS, in_flight)
                    rates[in_flight].append(rate)
                    halves[in_flight].append(percentile(times, 0.5))
                told = ", ".join(f"{rates[count][-1]:.0f}/s at {count}" for count in IN_FLIGHT)
                settings.say(f"round {number + 1}: {told} in flight; bare commits {bare[-1]:.0f}/s")
        finally:
            await clients.close()
    return _metrics(rates, halves, bare)


class _Desk:
    """Places orders on a running mesh."""

    def __init__(self, clients: Clients) -> None:
        self._trading: Any = clients.stub(TradingEngineServiceStub)
        self._market: Any = clients.stub(MarketDataProviderServiceStub)
        self._placed = 0
        self._quote: Any = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def place(self, count: int, in_flight: int) -> tuple[float, list[float]]:
        """Orders a second and the milliseconds of each. Raises MeshFailed when one was refused."""
        room, times = asyncio.Semaphore(in_flight), list[float]()
        refused: Counter[str] = Counter()

        async def one() -> None:
            async with room:
                request = await self._request()
                begun = time.perf_counter()
                answer = await self._trading.ExecuteTrade(request)
                times.append((time.perf_counter() - begun) * 1e3)
                if answer.order.state == order_pb2.ORDER_STATE_DENIED:
                    refused[answer.order.reason_message] += 1

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        rate = count / (time.perf_counter() - begun)
        if refused:
            raise MeshFailed(f"{refused.total()} of {count} orders were refused: {refused.most_common(1)[0][0]}")
        return rate, times

    async def _request(self) -> trading.ExecuteTradeRequest:
        self._placed += 1
        quote = await self._fresh()
        buy = self._placed % 2 == 0
        return trading.ExecuteTradeRequest(
            request_id=f"bench-{self._placed}",
            actor="bench",
            quantity=1 + self._placed // 2 % QUANTITIES,
            signal=signal_pb2.Signal(
                signal_id=f"bench-{self._placed}",
                symbol=quote.symbol,
                action=signal_pb2.SIGNAL_ACTION_BUY if buy else signal_pb2.SIGNAL_ACTION_SELL,
                confidence=0.9,
                quote=quote,
                decision_time=quote.event_time,
                through_sequence=quote.sequence,
            ),
        )

    async def _fresh(self) -> Any:
        """The newest quote, asked for once a second: a signal on old data would be refused."""
        async with self._asking:
            if self._quote is None or time.monotonic() - self._asked_at > 1.0:
                self._quote = (await self._market.GetMarketData(market.GetMarketDataRequest())).quote
                self._asked_at = time.monotonic()
        return self._quote


def _commits_per_s(file: Path, count: int) -> float:
    database = sqlite3.connect(file, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE IF NOT EXISTS placed (number INTEGER PRIMARY KEY, body BLOB)")
        begun = time.perf_counter()
        for _ in range(count):
            database.execute("INSERT INTO placed (body) VALUES (?)", (b"x" * 400,))
        return count / (time.perf_counter() - begun)
    finally:
        database.close()


def _metrics(rates: dict[int, list[float]], halves: dict[int, list[float]], bare: list[float]) -> list[Metric]:
    most = max(IN_FLIGHT)
    made = [
        Metric(
            f"ExecuteTrade, {count} in flight",
            "orders/s",
            rates[count],
            REFERENCE,
            bare,
            Reach(500, at_most=False) if count == most else None,
        )
        for count in IN_FLIGHT
    ]
    return made + [Metric(f"ExecuteTrade, {count} in flight, p50", "ms", halves[count]) for count in IN_FLIGHT]


BENCHMARK: Final = Benchmark(
    "orders", "orders that ExecuteTrade accepts a second, risk-checked and on disk", rounds=5, run=run
)
