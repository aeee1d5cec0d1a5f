"""Decides how the way of a tick is timed: stamped where it is sent, met again where its fill arrives, in one process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from tests.performance.path_market import TurningMarket
from tests.performance.tick_source import TickSource, ticking

from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.trading.v1 import order_pb2, trading_events_pb2
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.tick_layout import TickArray

STAGES: Final = (
    "tick sent -> signal stored by the bus",
    "signal stored -> order made",
    "order made -> approved by risk",
    "approved -> filled by the venue",
    "filled -> fill event stored by the bus",
    "fill event stored -> delivered",
)


@dataclass(slots=True)
class Way:
    """Instants of one tick's way: `sent` and `delivered` in ns of the monotonic clock, the others in ns since the epoch."""

    sent: int
    sent_wall: int
    signal: int = 0
    written: int = 0
    approved: int = 0
    filled: int = 0
    stored: int = 0
    delivered: int = 0
    delivered_wall: int = 0

    @property
    def total_ms(self) -> float:
        """Tick in to fill event out."""
        return (self.delivered - self.sent) / 1e6

    def stages_ms(self) -> tuple[float, ...] | None:
        """Length of each of STAGES; None when an event between was not seen."""
        stops = (
            self.sent_wall, self.signal, self.written, self.approved, self.filled, self.stored, self.delivered_wall
        )  # fmt: skip
        if not all(stops):
            return None
        return tuple((late - early) / 1e6 for early, late in itertools.pairwise(stops))


@dataclass(slots=True)
class Probe:
    """Sends ticks and meets their fills."""

    source: TickSource
    ways: dict[str, Way] = field(default_factory=dict)
    """By signal id."""
    refused: int = 0
    refusal: str = ""
    """Why the last refused order was refused."""

    async def send(self, ticks: TickArray, turning: list[int]) -> None:
        """Sends ticks that follow each other; the turning ones are stamped."""
        now, wall = time.perf_counter_ns(), time.time_ns()
        before = self.source.sent
        for index in turning:
            self.ways[f"{self.source.symbol}:{self.source.epoch:x}:{before + index + 1}"] = Way(now, wall)
        await self.source.send(ticks)

    async def run(self, market: TurningMarket, ticks_per_s: int, seconds: float) -> None:
        """Sends ticks at a steady rate; what was late goes out together."""
        gap_ns = 1_000_000_000 // ticks_per_s
        begun, wall = time.perf_counter_ns(), time.time_ns()
        made, count = 0, int(seconds * ticks_per_s)
        while made < count:
            due = min(count, (time.perf_counter_ns() - begun) // gap_ns + 1)
            if due > made:
                await self.send(*market.ticks([wall + index * gap_ns for index in range(made, due)]))
                made = due
            wait_ns = begun + made * gap_ns - time.perf_counter_ns()
            await asyncio.sleep(max(0.0, wait_ns / 1e9))

    async def settle(self, deadline_s: float = 5.0) -> None:
        """Waits until no more fills come, at the longest until the deadline."""
        end = time.perf_counter() + deadline_s
        while time.perf_counter() < end and any(not way.delivered for way in self.ways.values()):
            await asyncio.sleep(0.02)

    def take_done(self) -> list[Way]:
        """Ways that came to their end since the last call; the others are forgotten."""
        done = [way for way in self.ways.values() if way.delivered]
        self.ways.clear()
        return done

    async def on_signal(self, event: event_pb2.Event, payload: brain_events_pb2.SignalGenerated) -> None:
        """A signal came."""
        way = self.ways.get(payload.signal.signal_id)
        if way is not None:
            way.signal = _ns(event.store_time)

    async def on_order(self, _event: event_pb2.Event, payload: trading_events_pb2.OrderUpdated) -> None:
        """An order changed."""
        order = payload.order
        way = self.ways.get(order.signal_id)
        if way is None:
            return
        way.written = _ns(order.create_time)
        if order.state == order_pb2.ORDER_STATE_SUBMITTING:
            way.approved = _ns(order.update_time)
        elif order.state in {order_pb2.ORDER_STATE_DENIED, order_pb2.ORDER_STATE_REJECTED}:
            self.refused += 1
            self.refusal = order.reason_message

    async def on_fill(self, event: event_pb2.Event, payload: trading_events_pb2.TradeExecuted) -> None:
        """A fill came."""
        now, wall = time.perf_counter_ns(), time.time_ns()
        way = self.ways.get(payload.signal_id)
        if way is None or way.delivered:
            return
        way.delivered, way.delivered_wall = now, wall
        way.filled, way.stored = _ns(payload.fill.fill_time), _ns(event.store_time)


@asynccontextmanager
async def probing(context: ServiceContext, symbol: str) -> AsyncIterator[Probe]:
    """A source of ticks for a symbol, and a reader of the fills that come of them. Raises grpc.RpcError."""
    async with ticking(context.clients, symbol) as source:
        probe = Probe(source)
        fills = EventClient(context).subscribe({trading_events_pb2.TradeExecuted: probe.on_fill})
        between = EventClient(context).subscribe(
            {brain_events_pb2.SignalGenerated: probe.on_signal, trading_events_pb2.OrderUpdated: probe.on_order}
        )
        await fills.wait_open(5.0)
        await between.wait_open(5.0)
        try:
            yield probe
        finally:
            await context.tasks.close()


def _ns(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000_000 + stamp.nanos
