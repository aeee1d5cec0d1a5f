"""Measures how many orders ExecuteTrade accepts a second, risk-checked and on disk, beside one commit for each and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tests.performance.mesh_run import MeshFailed, running_mesh
from tests.performance.path_market import trades
from tests.performance.results import Benchmark, Metric, Reach, Settings, percentile
from tests.performance.tick_source import TickSource, ticking, write_empty_file

from minhos_api.brain.v1 import signal_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as market
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as trading
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load_saved

IN_FLIGHT: Final = (1, 8, 32)
ORDERS: Final = 1_000
WARM: Final = 200
QUANTITIES: Final = 997
"""Orders of the same terms within a second are refused, so the quantity goes round; more than are placed in a second."""
REFERENCE: Final = "a bare loop: one SQLite row, synchronous=FULL"
CONFIG: Final = """
[feed]
kind = "none"
[brain]
min_confidence = 1.0
[risk]
max_order_quantity = 10000
max_position = 1000000000
max_orders_per_minute = 1000000
max_daily_loss = "9000000000"
max_drawdown = "9000000000"
max_exposure = "9000000000"
[paper_venue]
initial_cash = "9000000000"
[instruments.NQ]
multiplier = 1
"""
"""Limits wide open, and contracts so cheap that millions of them stay within what money can be."""
PRICE_TICKS: Final = 400
TICK_S: Final = 0.02


@dataclass(slots=True)
class _Seen:
    """What each round gave: by orders in flight, and beside them."""

    per_s: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in IN_FLIGHT})
    half_ms: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in IN_FLIGHT})
    bare_per_s: list[float] = field(default_factory=list)


async def run(settings: Settings) -> Sequence[Metric]:
    """Alternates orders at each number in flight and bare commits, once warm."""
    seen, data_dir = _Seen(), settings.folder / "mesh"
    write_empty_file(data_dir)
    async with running_mesh(data_dir, CONFIG) as mesh:
        await mesh.stop("sierra_client")
        clients = Clients(await mesh.addresses())
        try:
            async with ticking(clients, load_saved(mesh.paths.config_file).primary()) as source:
                desk = _Desk(clients, source)
                async with asyncio.TaskGroup() as group:
                    ticks = group.create_task(desk.keep_ticking(), name="ticks")
                    await _measure(desk, settings, seen)
                    ticks.cancel()
        finally:
            await clients.close()
    return _metrics(seen)


async def _measure(desk: _Desk, settings: Settings, seen: _Seen) -> None:
    await desk.place(WARM, 8)
    for number in range(settings.rounds):
        seen.bare_per_s.append(_commits_per_s(settings.folder / "bare.db", ORDERS))
        for in_flight in IN_FLIGHT:
            per_s, times = await desk.place(ORDERS, in_flight)
            seen.per_s[in_flight].append(per_s)
            seen.half_ms[in_flight].append(percentile(times, 0.5))
        told = ", ".join(f"{seen.per_s[count][-1]:.0f}/s at {count}" for count in IN_FLIGHT)
        settings.say(f"round {number + 1}: {told} in flight; bare commits {seen.bare_per_s[-1]:.0f}/s")


class _Desk:
    """Places orders on a running mesh, on prices of its own."""

    def __init__(self, clients: Clients, source: TickSource) -> None:
        self._trading: Any = clients.stub(TradingEngineServiceStub)
        self._market: Any = clients.stub(MarketDataProviderServiceStub)
        self._source = source
        self._placed = 0
        self._quote: Any = None
        self._quoted = asyncio.Event()

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
        await self._quoted.wait()
        quote = self._quote
        return trading.ExecuteTradeRequest(
            request_id=f"bench-{self._placed}",
            actor="bench",
            quantity=1 + self._placed % QUANTITIES,
            signal=signal_pb2.Signal(
                signal_id=f"bench-{self._placed}",
                symbol=quote.symbol,
                action=signal_pb2.SIGNAL_ACTION_BUY,
                confidence=0.9,
                quote=quote,
                decision_time=quote.event_time,
                through_sequence=quote.sequence,
            ),
        )

    async def keep_ticking(self) -> None:
        """Sends a tick now and then until cancelled, so that orders meet a price and signals are not old."""
        while True:
            await self._source.send(trades(np.array([time.time_ns()]), np.array([PRICE_TICKS])))
            self._quote = (await self._market.GetMarketData(market.GetMarketDataRequest())).quote
            self._quoted.set()
            await asyncio.sleep(TICK_S)


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


def _metrics(seen: _Seen) -> list[Metric]:
    most = max(IN_FLIGHT)
    made = [
        Metric(
            f"ExecuteTrade, {count} in flight",
            "orders/s",
            seen.per_s[count],
            REFERENCE,
            seen.bare_per_s,
            Reach(500, at_most=False) if count == most else None,
        )
        for count in IN_FLIGHT
    ]
    return made + [Metric(f"ExecuteTrade, {count} in flight, p50", "ms", seen.half_ms[count]) for count in IN_FLIGHT]


BENCHMARK: Final = Benchmark(
    "orders", "orders that ExecuteTrade accepts a second, risk-checked and on disk", rounds=5, run=run
)
