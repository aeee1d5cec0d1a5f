"""Shows what happens while it happens: events, market data, signals, orders, and the logs of services."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

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
from minhos_mesh.cli.mesh import Link, connected
from minhos_mesh.runtime import contracts
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config import ConfigError, load_saved
from minhos_mesh.runtime.paths import MeshPaths

STREAMS: Final = ("events", "market", "depth", "signals", "orders")
"""What can be followed."""
BY_SYMBOL: Final = ("market", "depth")
"""What can be followed of one symbol alone."""
_CREDIT: Final = 1_000
_LOG_POLL_S: Final = 0.2
_SAID: Final = ".stderr"
"""Ends the name of the log that holds what a process printed; a program that has no log of its own has this one."""
_LEVEL_STYLES: Final = {"error": "bold red", "critical": "bold red", "warning": "yellow", "debug": "dim"}


async def tail(paths: MeshPaths, what: str, symbol: str | None, count: int | None, *, as_json: bool) -> None:
    """Prints what comes until Ctrl-C, or until `count` lines, or order books. Raises CommandFailed for what cannot be followed."""
    sources: dict[str, Callable[[Link], AsyncIterator[tuple[Message, str]]]] = {
        "events": _events,
        "market": lambda link: _market(link, symbol),
        "signals": _signals,
        "orders": _orders,
    }
    if what not in STREAMS:
        raise CommandFailed(f"{what!r} cannot be followed: allowed are {', '.join(STREAMS)}")
    if symbol is not None and what not in BY_SYMBOL:
        raise CommandFailed(f"--symbol is {symbol!r}: allowed with {' and '.join(BY_SYMBOL)} only, and not with {what}")
    async with connected(paths) as link:
        if what == "depth":
            await depth.follow(link, symbol, count, as_json=as_json)
            return
        shown = 0
        async for message, line in sources[what](link):
            print(show.json_line(message) if as_json else line, flush=True)
            shown += 1
            if count is not None and shown >= count:
                return


async def _events(link: Link) -> AsyncIterator[tuple[Message, str]]:
    contracts.load_all()  # so that every payload can be shown
    asked: asyncio.Queue[bus_pb.SubscribeRequest] = asyncio.Queue()
    asked.put_nowait(bus_pb.SubscribeRequest(open=bus_pb.SubscribeOpen(credit=_CREDIT)))

    async def requests() -> AsyncIterator[bus_pb.SubscribeRequest]:
        while True:
            yield await asked.get()

    async for answer in link.clients.stub(EventBusServiceStub).Subscribe(requests()):
        events = answer.delivery.events
        if events:
            asked.put_nowait(bus_pb.SubscribeRequest(credit=bus_pb.SubscribeCredit(count=len(events))))
        for delivered in events:
            yield delivered.event, event_line(delivered.event)


def event_line(event: event_pb2.Event) -> str:
    """One event for people."""
    return f"{show.clock(event.event_time)}  {event.sequence:>8}  {event.type:<24} {event.source:<16} {event.subject}"


async def _market(link: Link, symbol: str | None) -> AsyncIterator[tuple[Message, str]]:
    wanted = market_pb.MarketSubscription(kinds=[market_pb.MARKET_DATA_KIND_QUOTES], symbols=[symbol] if symbol else [])
    request = market_pb.StreamMarketDataRequest(subscription=wanted)
    async for answer in link.clients.stub(MarketDataProviderServiceStub).StreamMarketData(request):
        depth.check_answer(answer)
        if answer.HasField("quote"):
            yield answer.quote, quote_line(answer.quote, show.out.width)


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


async def _signals(link: Link) -> AsyncIterator[tuple[Message, str]]:
    async for answer in link.clients.stub(AIBrainServiceStub).WatchSignals(brain_pb.WatchSignalsRequest()):
        kind = answer.WhichOneof("update")
        found = [answer.signal] if kind == "signal" else list(answer.snapshot.signals) if kind == "snapshot" else []
        for signal in found:
            yield signal, signal_line(signal)


def signal_line(signal: signal_pb2.Signal) -> str:
    """A signal with its first reason for people."""
    why = signal.reasons[0].message if signal.reasons else ""
    return (
        f"{show.clock(signal.decision_time)}  {signal.symbol:<12} {show.enum_name(signal, 'action'):<4}"
        f" {signal.confidence:.2f}  target {show.money(show.optional(signal, 'target_price_e9'))}"
        f" stop {show.money(show.optional(signal, 'stop_price_e9'))}  {why}"
    )


async def _orders(link: Link) -> AsyncIterator[tuple[Message, str]]:
    async for answer in link.clients.stub(OrderServiceStub).WatchOrders(orders_pb.WatchOrdersRequest()):
        kind = answer.WhichOneof("update")
        found = [answer.order] if kind == "order" else list(answer.snapshot.orders) if kind == "snapshot" else []
        for order in found:
            yield order, "  ".join(trading.order_row(order))


async def logs(paths: MeshPaths, service: str, lines: int, *, follow: bool, as_json: bool) -> None:
    """The last lines of a service's log, and what follows."""
    known = _logging(paths)
    if service not in known:
        raise CommandFailed(f"there is no service {service!r}: known are {', '.join(known)}")
    path = paths.log_file(service)
    if not path.exists():
        path = paths.log_file(f"{service}{_SAID}")
    if not path.exists():
        raise CommandFailed(f"{service} has not logged anything in {paths.data_dir} yet")
    position = 0
    for line in _last(path, lines):
        _print_log(line, as_json=as_json)
    position = path.stat().st_size
    while follow:
        await asyncio.sleep(_LOG_POLL_S)
        new, position = _since(path, position)
        for line in new:
            _print_log(line, as_json=as_json)


def _logging(paths: MeshPaths) -> tuple[str, ...]:
    """Who may have a log: the keeper, the services, programs of one's own, and whoever has one."""
    own: list[str] = []
    if paths.config_file.exists():
        with contextlib.suppress(
            ConfigError
        ):  # the file of a mesh that could not start; its logs are shown all the more
            own = sorted(load_saved(paths.config_file).services)
    files = sorted(file.stem.removesuffix(_SAID) for file in paths.log_dir.glob("*.log"))
    return tuple(dict.fromkeys(("keeper", *service_names(), *own, *files)))


def _print_log(line: str, *, as_json: bool) -> None:
    if as_json:
        print(line, flush=True)
        return
    text = log_line(line)
    style = next((style for level, style in _LEVEL_STYLES.items() if f"  {level}" in text[:24]), "")
    show.out.print(text, style=style, markup=False)


def log_line(line: str) -> str:
    """One line of JSON for people; anything else as it is."""
    try:
        entry: dict[str, Any] = json.loads(line)
        at = datetime.fromisoformat(entry.pop("timestamp")).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
        level, event = entry.pop("level"), entry.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in ("service", "instance", "exception"))
    trace = f"\n{entry['exception']}" if "exception" in entry else ""
    return f"{at}  {level:<8} {event:<24} {rest}{trace}"


def _last(path: Path, count: int) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if count else []


def _since(path: Path, position: int) -> tuple[list[str], int]:
    size = path.stat().st_size
    if size < position:
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        raw = file.read()
    whole = raw[: raw.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines(), position + len(whole)
