"""Decides how order books are followed: in place in a terminal, one below the other for a reader that is none."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from rich.live import Live
from rich.text import Text

from minhos_api.market.v1 import depth_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.following import Awaited
from minhos_mesh.cli.mesh import Link
from minhos_mesh.runtime.config import load_saved
from minhos_mesh.runtime.streams import messages

FRAME_S: Final = 0.25
"""A terminal is drawn anew at most so often; books come up to twenty times a second."""
LEVELS: Final = 10
_SIDE: Final = 35
"""Characters of one side of a book."""


def subscribed_symbols(link: Link, symbol: str | None) -> list[str]:
    """The symbol that is meant: the one that is named, or the primary one of the mesh. Raises ConfigError."""
    return [symbol if symbol is not None else load_saved(link.paths.config_file).primary()]


def check_answer(answer: market_pb.StreamMarketDataResponse) -> None:
    """Raises CommandFailed when a symbol was refused."""
    if answer.subscribed.refused_reason:
        told = answer.subscribed
        reason = told.refused_reason.removeprefix("ERROR_REASON_")
        raise CommandFailed(f"{told.refused_message or told.symbol}  [{reason}]")


async def books(link: Link, symbol: str | None) -> AsyncGenerator[depth_pb2.Depth | None, None]:
    """The newest order book again and again, None as a sign of life.

    Raises CommandFailed for a symbol that is not known, AioRpcError, ConfigError.
    """
    asked = subscribed_symbols(link, symbol)
    wanted = market_pb.MarketSubscription(symbols=asked, kinds=[market_pb.MARKET_DATA_KIND_DEPTH])
    request = market_pb.StreamMarketDataRequest(subscription=wanted)
    awaited = Awaited(
        f"no order book of {asked[0]} has come yet: they come over DTC where dtc.market_data names the symbol, else of .depth"
        " files beside the .scid files (feed.depth_levels of the simulator, Market Depth in Sierra Chart)"
    )
    async for answer in messages(link.clients.stub(MarketDataProviderServiceStub).StreamMarketData(request)):
        check_answer(answer)
        book = answer.depth if answer.HasField("depth") else answer.snapshot.depth
        if book.symbol:
            awaited.came()
            yield book
        else:
            awaited.look()
            yield None


async def follow(found: AsyncIterator[depth_pb2.Depth], count: int | None, *, as_json: bool) -> None:
    """Shows books until Ctrl-C, or until `count` of them."""
    shown = 0
    if as_json or not show.out.is_terminal:
        async for book in found:
            print(show.json_line(book) if as_json else f"{book_text(book)}\n", flush=True)
            shown += 1
            if shown == count:
                return
        return
    with Live(Text("waiting for an order book"), console=show.out, auto_refresh=False) as live:
        drawn = 0.0
        async for book in found:
            shown += 1
            if (now := time.monotonic()) - drawn >= FRAME_S or shown == count:
                live.update(coloured(book), refresh=True)
                drawn = now
            if shown == count:
                return


def coloured(book: depth_pb2.Depth) -> Text:
    """A book for a terminal, bids green and asks red."""
    head, columns, *levels = book_text(book).splitlines()
    text = Text(f"{head}\n", style="bold")
    text.append(f"{columns}\n", style="dim")
    for line in levels:
        text.append(line[:_SIDE], style="green").append(line[_SIDE : _SIDE + 3], style="dim")
        text.append(f"{line[_SIDE + 3 :]}\n", style="red")
    return text


def book_text(book: depth_pb2.Depth) -> str:
    """A book for people, at most 76 characters wide: bids on the left, asks on the right, the best of both on top."""
    lines = [_head(book), f"{'ORDERS':>8}{'SIZE':>10}{'BID':>17} │ {'ASK':<17}{'SIZE':>10}{'ORDERS':>8}"]
    for place in range(max(len(book.bids), len(book.asks), 1)):
        bid = _level(book.bids, place)
        ask = _level(book.asks, place)
        lines.append(f"{bid[2]:>8}{bid[1]:>10}{bid[0]:>17} │ {ask[0]:<17}{ask[1]:>10}{ask[2]:>8}".rstrip())
    return "\n".join(lines)


def _head(book: depth_pb2.Depth) -> str:
    at = f"{show.clock(book.event_time)} UTC" if book.HasField("event_time") else "time not told"
    spread = "-"
    if book.bids and book.asks:
        spread = show.money(book.asks[0].price_e9 - book.bids[0].price_e9)
    return f"{book.symbol}  {at}  #{book.sequence}  spread {spread}  {show.enum_name(book, 'provenance')}"


def _level(levels: Any, place: int) -> tuple[str, str, str]:
    if place >= len(levels):
        return ("-", "", "") if not levels and place == 0 else ("", "", "")
    level = levels[place]
    orders = show.optional(level, "order_count")
    return show.money(level.price_e9), str(level.size), "-" if orders is None else str(orders)
