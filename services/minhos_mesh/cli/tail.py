"""Shows what happens while it happens: events, market data, order books, signals and orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from google.protobuf.message import Message

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1 import signal_pb2
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1 import quote_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_mesh.cli import depth, show, trading
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.following import Awaited, Read, followed
from minhos_mesh.cli.mesh import Link
from minhos_mesh.runtime import contracts
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.streams import messages
from minhos_mesh.venue.order_wire import DONE_PB

STREAMS: Final = ("events", "market", "depth", "signals", "orders")
"""What can be followed."""
SERVED_BY: Final = {
    "events": "event_bus", "market": "market_data", "depth": "market_data", "signals": "ai_brain", "orders": "trading_engine"
}  # fmt: skip
BY_SYMBOL: Final = ("market", "depth")
"""What can be followed of one symbol alone."""
_CREDIT: Final = 1_000


async def tail(paths: MeshPaths, what: str, symbol: str | None, count: int | None, *, as_json: bool) -> None:
    """Prints what comes until Ctrl-C, or until `count` lines, or order books; goes on when a service has been away.

    Raises CommandFailed for what cannot be followed.
    """
    sources: dict[str, Callable[[], Read[tuple[Message, str]]]] = {
        "events": _Events,
        "market": lambda: _Market(symbol),
        "signals": _Signals,
        "orders": _Orders,
    }
    if what not in STREAMS:
        raise CommandFailed(f"{what!r} cannot be followed: allowed are {', '.join(STREAMS)}")
    if symbol is not None and what not in BY_SYMBOL:
        raise CommandFailed(f"--symbol is {symbol!r}: allowed with {' and '.join(BY_SYMBOL)} only, and not with {what}")
    if what == "depth":
        async with aclosing(followed(paths, lambda link: depth.books(link, symbol), SERVED_BY[what])) as books:
            await depth.follow(books, count, as_json=as_json)
        return
    shown = 0
    async with aclosing(followed(paths, sources[what](), SERVED_BY[what])) as found:
        async for message, line in found:
            print(show.json_line(message) if as_json else line, flush=True)
            shown += 1
            if count is not None and shown >= count:
                return


class _Events:
    """Events from now on, and after an interruption those that were stored meanwhile."""

    def __init__(self) -> None:
        self._after: int | None = None

    async def __call__(self, link: Link) -> AsyncGenerator[tuple[Message, str] | None, None]:
        contracts.load_all()  # so that every payload can be shown
        start = None if self._after is None else bus_pb.SubscribeStart(after_sequence=self._after)
        asked: asyncio.Queue[bus_pb.SubscribeRequest] = asyncio.Queue()
        asked.put_nowait(bus_pb.SubscribeRequest(open=bus_pb.SubscribeOpen(credit=_CREDIT, start=start)))

        async def requests() -> AsyncIterator[bus_pb.SubscribeRequest]:
            while True:
                yield await asked.get()

        async for answer in messages(link.clients.stub(EventBusServiceStub).Subscribe(requests())):
            if answer.HasField("opened"):
                self._after = max(self._after or 0, answer.opened.after_sequence)
            if answer.HasField("gap"):
                gap = answer.gap
                show.err.print(f"events {gap.first_sequence} to {gap.last_sequence} are no longer there")
            events = answer.delivery.events
            if events:
                asked.put_nowait(bus_pb.SubscribeRequest(credit=bus_pb.SubscribeCredit(count=len(events))))
            yield None
            for delivered in events:
                self._after = delivered.event.sequence
                yield delivered.event, event_line(delivered.event)


def event_line(event: event_pb2.Event) -> str:
    """One event for people."""
    return f"{show.clock(event.event_time)}  {event.sequence:>8}  {event.type:<24} {event.source:<16} {event.subject}"


class _Market:
    """Last values, those that are there first and then as they change; after an interruption nothing that was shown."""

    def __init__(self, symbol: str | None) -> None:
        self._symbols = [symbol] if symbol else []
        self._shown: dict[str, tuple[int, int]] = {}

    async def __call__(self, link: Link) -> AsyncGenerator[tuple[Message, str] | None, None]:
        wanted = market_pb.MarketSubscription(kinds=[market_pb.MARKET_DATA_KIND_QUOTES], symbols=self._symbols)
        request = market_pb.StreamMarketDataRequest(subscription=wanted)
        whose = self._symbols[0] if self._symbols else "any symbol"
        awaited = Awaited(f"no price of {whose} has come yet: `minhos status` says whether its source is well")
        async for answer in messages(link.clients.stub(MarketDataProviderServiceStub).StreamMarketData(request)):
            depth.check_answer(answer)
            quote = answer.quote if answer.HasField("quote") else answer.snapshot.quote
            if quote.symbol and self._shown.get(quote.symbol) != (quote.epoch, quote.sequence):
                self._shown[quote.symbol] = quote.epoch, quote.sequence
                awaited.came()
                yield quote, quote_line(quote, show.out.width)
            else:
                awaited.look()
                yield None


def _size(quote: quote_pb2.Quote) -> str:
    return str(quote.last_size) if quote.HasField("last_size") else "-"


def quote_line(quote: quote_pb2.Quote, width: int) -> str:
    """Last values for people; where the terminal is narrow without what lines them up, and without their sequence."""
    line = _aligned(quote)
    if len(line) <= width:
        return line
    time, last = show.clock(quote.event_time), show.money(show.optional(quote, "last_price_e9"))
    bid, ask = (show.money(show.optional(quote, name)) for name in ("bid_e9", "ask_e9"))
    values = f"{quote.symbol} last {last} x {_size(quote)} bid {bid} ask {ask} {show.enum_name(quote, 'provenance')}"
    return line if len(line := f"{time}  {values}") <= width else f"{time.partition('.')[0]} {values}"


def _aligned(quote: quote_pb2.Quote) -> str:
    return (
        f"{show.clock(quote.event_time)}  {quote.symbol:<12} last {show.money(show.optional(quote, 'last_price_e9')):>12}"
        f" x {_size(quote):<4} bid {show.money(show.optional(quote, 'bid_e9')):>12}"
        f" ask {show.money(show.optional(quote, 'ask_e9')):>12}  #{quote.sequence}  {show.enum_name(quote, 'provenance')}"
    )


class _Signals:
    """The newest signal of each symbol, and then all; after an interruption those that were not shown."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    async def __call__(self, link: Link) -> AsyncGenerator[tuple[Message, str] | None, None]:
        async for answer in messages(
            link.clients.stub(AIBrainServiceStub).WatchSignals(brain_pb.WatchSignalsRequest())
        ):
            kind = answer.WhichOneof("update")
            found = [answer.signal] if kind == "signal" else list(answer.snapshot.signals) if kind == "snapshot" else []
            yield None
            for signal in found:
                if self._shown.get(signal.symbol) != signal.signal_id:
                    self._shown[signal.symbol] = signal.signal_id
                    yield signal, signal_line(signal)


def signal_line(signal: signal_pb2.Signal) -> str:
    """A signal with its first reason for people."""
    why = signal.reasons[0].message if signal.reasons else ""
    return (
        f"{show.clock(signal.decision_time)}  {signal.symbol:<12} {show.enum_name(signal, 'action'):<4}"
        f" {signal.confidence:.2f}  target {show.money(show.optional(signal, 'target_price_e9'))}"
        f" stop {show.money(show.optional(signal, 'stop_price_e9'))}  {why}"
    )


class _Orders:
    """Orders that are not done, and then every change; after an interruption also what became of those that ended in it."""

    def __init__(self) -> None:
        self._working: dict[str, int] = {}
        """Version last shown of each order that was not done."""

    async def __call__(self, link: Link) -> AsyncGenerator[tuple[Message, str] | None, None]:
        stub = link.clients.stub(OrderServiceStub)
        async for answer in messages(stub.WatchOrders(orders_pb.WatchOrdersRequest())):
            kind = answer.WhichOneof("update")
            found = [answer.order] if kind == "order" else []
            if kind == "snapshot":
                found = list(answer.snapshot.orders)
                ended = self._working.keys() - {order.order_id for order in found}
                gone = [await stub.GetOrder(orders_pb.GetOrderRequest(order_id=each)) for each in sorted(ended)]
                found = [*(answer.order for answer in gone), *found]
            yield None
            for order in found:
                if self._working.get(order.order_id) != order.version:
                    if order.state in DONE_PB:
                        self._working.pop(order.order_id, None)
                    else:
                        self._working[order.order_id] = order.version
                    yield order, "  ".join(trading.order_row(order))
