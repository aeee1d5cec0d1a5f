"""Decides when a replay is over for everyone, what came of it, and whether all books agree."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.order.v1 import order_terms_pb2
from minhos_api.order.v1.position_pb2 import Position as PositionMessage
from minhos_api.sierra.v1 import sierra_client_service_pb2 as sierra_pb
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as simulator_pb
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1 import trading_events_pb2
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.matching.order import Side
from minhos_mesh.matching.position import Position, apply_fill
from minhos_mesh.runtime.config import MeshConfig, load_saved
from minhos_mesh.runtime.paths import MeshPaths

STALLED_S: Final = 60.0
"""A replay in which nothing at all moves for this long has failed."""
_POLL_S: Final = 0.05
_PAGE: Final = 1_000

Book = tuple[int, int, int, int]
"""Quantity, cost, realized profit and commission of one symbol, money in 1e-9 units."""


@dataclass(slots=True)
class Progress:
    """How far each service has come with the recording."""

    written: int = 0
    total: int = 0
    acknowledged: int = 0
    read: int = 0
    sequenced: int = 0
    thought: int = 0
    acted: int = 0
    fills: int = 0
    projected: int = 0
    ended: bool = False
    failures: list[str] = field(default_factory=list)

    def done(self) -> bool:
        """Whether everyone has seen everything."""
        whole = self.total > 0 and self.written == self.acknowledged == self.read == self.total
        return self.ended and whole and self.thought == self.acted == self.sequenced and self.fills == self.projected

    def line(self) -> str:
        """For people."""
        return (
            f"replay: {self.written} of {self.total} records written, {self.sequenced} ticks sequenced,"
            f" brain at {self.thought}, engine at {self.acted}, {self.fills} fills"
        )


async def run_to_end(paths: MeshPaths, file: Path | None) -> bool:
    """Waits for the end of the replay, writes the report, and says whether all books agree. Raises CommandFailed."""
    config = load_saved(paths.config_file)
    began = time.monotonic()
    async with connected(paths) as link:
        await _wait_for_end(link, config)
        seconds = time.monotonic() - began
        made = await _report(link, config, seconds)
    if file is not None:
        file.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    summary = {key: value for key, value in made.items() if key != "positions"}
    show.as_json(made if file is None else summary)
    return bool(made["consistent"])


async def _wait_for_end(link: Link, config: MeshConfig) -> None:
    last, last_move, shown = "", time.monotonic(), time.monotonic()
    while True:
        progress = await _progress(link, config)
        if progress.failures:
            raise CommandFailed("the replay failed: " + "; ".join(progress.failures))
        if progress.done():
            show.err.print(progress.line())
            return
        line, now = progress.line(), time.monotonic()
        if line != last:
            last, last_move = line, now
        elif now - last_move > STALLED_S:
            raise CommandFailed(f"the replay has not moved for {STALLED_S:g} s: {line}")
        if now - shown > 2.0:
            show.err.print(line)
            shown = now
        await asyncio.sleep(_POLL_S)


async def _progress(link: Link, config: MeshConfig) -> Progress:
    symbol = config.primary()
    clients, made = link.clients, Progress()
    simulator = (
        await clients.stub(SierraSimulatorServiceStub).GetStatus(simulator_pb.SierraSimulatorServiceGetStatusRequest())
    ).simulator
    made.written, made.total = simulator.records_written, simulator.records_total
    made.ended = simulator.activity == simulator_pb.SIMULATOR_ACTIVITY_ENDED
    if simulator.activity == simulator_pb.SIMULATOR_ACTIVITY_FAILED:
        made.failures.append("the simulator cannot read the recording")
    reader = (await clients.stub(SierraClientServiceStub).GetStatus(sierra_pb.GetStatusRequest())).status
    for feed in reader.feeds:
        if feed.symbol == symbol:
            made.acknowledged = feed.records_acknowledged
            if feed.state == sierra_pb.SIERRA_FEED_STATE_ERROR:
                made.failures.append(feed.reason)
    market = await _market(link, symbol)
    made.read, made.sequenced = market.records_read, market.ticks_sequenced
    brain = await _brain(link, symbol)
    made.thought = brain.told_sequence
    positions = await clients.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest())
    made.acted = positions.replay_through_sequence.get(symbol, 0)
    made.fills = positions.version
    made.projected = (await clients.stub(StateManagerServiceStub).GetPortfolio(state_pb.GetPortfolioRequest())).fills
    return made


async def _market(link: Link, symbol: str) -> market_pb.SymbolMarketData:
    answer = await link.clients.stub(MarketDataProviderServiceStub).GetAllMarketData(
        market_pb.GetAllMarketDataRequest()
    )
    return next((item for item in answer.symbols if item.symbol == symbol), market_pb.SymbolMarketData())


async def _brain(link: Link, symbol: str) -> brain_pb.BrainProgress:
    answer = await link.clients.stub(AIBrainServiceStub).ListSignals(brain_pb.ListSignalsRequest(page_size=1))
    return next((item for item in answer.progress if item.symbol == symbol), brain_pb.BrainProgress())


async def _report(link: Link, config: MeshConfig, seconds: float) -> dict[str, Any]:
    symbol, clients = config.primary(), link.clients
    market, brain = await _market(link, symbol), await _brain(link, symbol)
    owned = await clients.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest(include_flat=True))
    projected = await clients.stub(StateManagerServiceStub).GetPortfolio(state_pb.GetPortfolioRequest())
    orders = await clients.stub(OrderServiceStub).ListOrders(orders_pb.ListOrdersRequest(page_size=1))
    told, fills = await _recomputed(link, config)
    books = {
        "fill events": told,
        "trading engine": _books(owned.positions),
        "state manager": _books(projected.positions),
    }
    differences = _differences(books)
    return {
        "symbol": symbol,
        "seconds": round(seconds, 3),
        "records_read": market.records_read,
        "rejected": dict(sorted(market.rejected.items())),
        "ticks_sequenced": market.ticks_sequenced,
        "ticks_delivered": brain.ticks_delivered,
        "gaps": brain.gaps,
        "bars": market.bars_closed,
        "signals": brain.signals,
        "orders": orders.all_orders_count,
        "fills": fills,
        "positions": [show.message_dict(position) for position in owned.positions],
        "realized_pnl_e9": owned.realized_pnl_e9,
        "commission_e9": owned.commission_e9,
        "consistent": not differences and fills == projected.fills == owned.version,
        "differences": differences,
    }


async def _recomputed(link: Link, config: MeshConfig) -> tuple[dict[str, Book], int]:
    """Books from the fill events alone, and how many fills there were."""
    books: dict[str, Position] = {}
    seen: set[str] = set()
    async for event in _all_events(link, "trade.executed"):
        trade = trading_events_pb2.TradeExecuted()
        event.payload.Unpack(trade)
        fill = trade.fill
        if fill.fill_id in seen:
            continue
        seen.add(fill.fill_id)
        books[fill.symbol] = apply_fill(
            books.get(fill.symbol, Position()),
            Side.BUY if fill.side == order_terms_pb2.SIDE_BUY else Side.SELL,
            fill.quantity,
            fill.price_e9,
            config.spec(fill.symbol).multiplier,
            fill.commission_e9,
        )
    return (
        {
            symbol: (book.quantity, book.cost_e9, book.realized_pnl_e9, book.commission_e9)
            for symbol, book in books.items()
        },
        len(seen),
    )


async def _all_events(link: Link, kind: str) -> Any:
    stub, token = link.clients.stub(EventBusServiceStub), ""
    while True:
        page = await stub.ListEvents(
            bus_pb.ListEventsRequest(types=[kind], ascending=True, page_size=_PAGE, page_token=token)
        )
        for event in page.events:
            yield event
        token = page.next_page_token
        if not token:
            return


def _books(positions: Any) -> dict[str, Book]:
    found: list[PositionMessage] = list(positions)
    return {p.symbol: (p.quantity, p.cost_e9, p.realized_pnl_e9, p.commission_e9) for p in found}


def _differences(books: dict[str, dict[str, Book]]) -> list[str]:
    """What does not agree, in sentences; a book that is all zero counts as absent."""
    clean = {who: {symbol: book for symbol, book in held.items() if any(book)} for who, held in sorted(books.items())}
    reference, expected = "fill events", clean["fill events"]
    return [
        f"{who} has {held.get(symbol)} of {symbol}, the {reference} give {expected.get(symbol)}"
        for who, held in clean.items()
        for symbol in sorted(set(held) | set(expected))
        if held.get(symbol) != expected.get(symbol)
    ]
