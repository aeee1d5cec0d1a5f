"""Decides what the terminal of `minhos up` shows while the mesh runs: services, price, signal, position, profit and loss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1 import signal_pb2
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_control_service_pb2_grpc import TradingControlServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.cli.status import REASON, services_table
from minhos_mesh.cli.trading import state_reason
from minhos_mesh.runtime.paths import MeshPaths

REFRESH_S: Final = 0.5
_ASK_S: Final = 0.4
_FRAME: Final = 4
"""Characters of a line that the frame takes."""
T = TypeVar("T")


@dataclass(slots=True)
class Screen:
    """The newest answers of the services; None where one did not answer in time."""

    services: registry.ListServicesResponse | None = None
    market: market_pb.GetAllMarketDataResponse | None = None
    signal: signal_pb2.Signal | None = None
    positions: engine_pb.GetPositionsResponse | None = None
    control: control_pb.TradingStatus | None = None
    orders: list[tuple[str, ...]] = field(default_factory=list)

    def render(self) -> Group:
        """The screen as it stands."""
        return Group(
            Panel(self._services(show.out.width - _FRAME), title="services", title_align="left", border_style="dim"),
            Panel(self._trading(), title="trading", title_align="left", border_style="dim"),
            Text("Ctrl-C stops everything in order", style="dim"),
        )

    def _services(self, width: int) -> RenderableType:
        if self.services is None:
            return Text("the registry does not answer")
        table = services_table(self.services, width)
        if table.columns[-1].header == REASON:
            return table
        reasons = [
            Text(f"{service.name}: {'; '.join(service.reasons)}")
            for service in self.services.services
            if service.reasons
        ]
        return Group(table, *reasons)

    def _trading(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        for name, text in (
            ("price", self._price()),
            ("signal", self._signal()),
            ("position", self._position()),
            ("profit and loss", self._pnl()),
            ("mode", self._mode()),
            *(("order", Text("  ".join(row))) for row in self.orders),
        ):
            grid.add_row(name, text)
        return grid

    def _price(self) -> Text:
        if self.market is None:
            return _away("market_data")
        lines = []
        for item in self.market.symbols:
            if not item.HasField("quote"):
                lines.append(f"{item.symbol}  no tick yet")
                continue
            quote = item.quote
            lines.append(
                f"{item.symbol}  {show.money(show.optional(quote, 'last_price_e9'))}"
                f"  bid {show.money(show.optional(quote, 'bid_e9'))} ask {show.money(show.optional(quote, 'ask_e9'))}"
                f"  {item.ticks_per_second} ticks/s  {item.ticks_sequenced} in all  {show.enum_name(quote, 'provenance')}"
            )
        return Text("\n".join(lines))

    def _signal(self) -> Text:
        if self.signal is None:
            return Text("none yet", style="dim")
        colour = {"BUY": "green", "SELL": "red"}.get(action := show.enum_name(self.signal, "action"), "")
        why = self.signal.reasons[0].message if self.signal.reasons else ""
        return Text.assemble(
            (action, colour), f" {self.signal.confidence:.2f} at {show.clock(self.signal.decision_time)}: {why}"
        )

    def _position(self) -> Text:
        if self.positions is None:
            return _away("trading_engine")
        held = [
            f"{p.quantity:+d} {p.symbol} at {show.money(show.optional(p, 'average_price_e9'))}"
            for p in self.positions.positions
            if p.quantity
        ]
        return Text("; ".join(held) or "flat")

    def _pnl(self) -> Text:
        if self.positions is None:
            return _away("trading_engine")
        total = self.positions
        return Text(
            f"realized {show.money(total.realized_pnl_e9)}  open {show.money(show.optional(total, 'unrealized_pnl_e9'))}"
            f"  commission {show.money(total.commission_e9)}"
        )

    def _mode(self) -> Text:
        if self.control is None:
            return _away("trading_engine")
        state = f"{show.enum_name(self.control, 'mode')}, {show.enum_name(self.control, 'state')}"
        if self.control.emergency_stop.latched:
            return Text(f"{state}, EMERGENCY STOP: {self.control.emergency_stop.reason}", style="bold red")
        why = state_reason(self.control)
        return Text(f"{state}{': ' + why if why else ''}, venue {self.control.venue}")


async def watch(paths: MeshPaths) -> None:
    """Shows the mesh until it is cancelled; follows services to new addresses after a restart."""
    screen = Screen()
    with Live(screen.render(), console=show.out, refresh_per_second=4, screen=False) as live:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, CommandFailed):
                async with connected(paths) as link:
                    await _follow(link, screen, live)
            await asyncio.sleep(REFRESH_S)


async def _follow(link: Link, screen: Screen, live: Live) -> None:
    addresses: set[str] | None = None
    while True:
        await _ask(link, screen)
        live.update(screen.render())
        if screen.services is None:
            return
        now = {i.address for service in screen.services.services for i in service.instances}
        if addresses is not None and now != addresses:
            return
        addresses = now
        await asyncio.sleep(REFRESH_S)


async def _ask(link: Link, screen: Screen) -> None:
    clients = link.clients
    engine = clients.stub(TradingEngineServiceStub)
    quick: dict[str, Any] = {"timeout": _ASK_S, "wait_for_ready": False}
    services, market, positions, control, signal, orders = await asyncio.gather(
        _or_none(link.services()),
        _or_none(
            clients.stub(MarketDataProviderServiceStub).GetAllMarketData(market_pb.GetAllMarketDataRequest(), **quick)
        ),
        _or_none(engine.GetPositions(engine_pb.GetPositionsRequest(), **quick)),
        _or_none(clients.stub(TradingControlServiceStub).GetTradingState(control_pb.GetTradingStateRequest(), **quick)),
        _or_none(clients.stub(AIBrainServiceStub).GetCurrentSignal(brain_pb.GetCurrentSignalRequest(), **quick)),
        _or_none(clients.stub(OrderServiceStub).ListOrders(orders_pb.ListOrdersRequest(page_size=3), **quick)),
    )
    screen.services, screen.market, screen.positions = services, market, positions
    screen.control = control.status if control is not None else None
    if signal is not None and signal.HasField("signal"):
        screen.signal = signal.signal
    if orders is not None:
        screen.orders = [_order(order) for order in orders.orders]


def _order(order: Any) -> tuple[str, ...]:
    filled = f"filled {order.filled_quantity} at {show.money(show.optional(order, 'average_price_e9'))}"
    return (
        show.clock(order.create_time),
        f"{show.enum_name(order.terms, 'side')} {order.terms.quantity} {order.terms.symbol}",
        show.enum_name(order, "state"),
        filled if order.filled_quantity else order.reason_message,
    )


async def _or_none(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except grpc.aio.AioRpcError:
        return None


def _away(service: str) -> Text:
    return Text(f"{service} does not answer", style="yellow")
