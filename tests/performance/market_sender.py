"""The sending side of the benchmark of market data, in a process of its own.

Arguments: what it is (`mesh`: a source of market data; `raw`: a bare grpc.aio server whose readers come to it, or, with an
address, one that feeds such a server; `raw-kept`: the same with freed memory kept; `zmq`: a PUB socket; `nats`), the address or `-`, symbols with commas between, and the
readers that it waits for. It says `{"address": ...}` when it is ready. Asked `{"do": "prepare", "count": N}` it makes ticks, which
`{"do": "flood", "batch": B}` sends as fast as it can and `{"do": "pace", "per_s": R}` one after the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import grpc
import uvloop

AHEAD = 64
"""A bare server takes no more from its source while so many messages wait for its slowest reader."""


class Sender(Protocol):
    """One way to send."""

    async def flood(self, batches: Sequence[tuple[int, TickArray]]) -> None:
        """Sends all as fast as it can: each with the number of its symbol."""

    async def one(self, place: int, ticks: TickArray) -> None:
        """Sends a few now."""


class MeshSource:
    """What the Sierra client is to market data: one stream for each symbol."""

    def __init__(self, sources: Sequence[TickSource]) -> None:
        self._sources = sources

    async def flood(self, batches: Sequence[tuple[int, TickArray]]) -> None:
        for place, ticks in batches:
            await self._sources[place].send(ticks)

    async def one(self, place: int, ticks: TickArray) -> None:
        await self._sources[place].send(ticks)


class RawServer:
    """A server of which each reader gets the same bytes, and nothing else is done."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._begin = 0
        self._readers: dict[int, int] = {}
        self._news: set[asyncio.Event] = set()
        self._read_on = asyncio.Event()

    def put(self, message: bytes) -> None:
        """A message for all readers."""
        self._messages.append(message)
        for news in self._news:
            news.set()

    async def flood(self, batches: Sequence[tuple[int, TickArray]]) -> None:
        for _, ticks in batches:
            self.put(ticks.tobytes())
            await self._room()

    async def one(self, place: int, ticks: TickArray) -> None:
        self.put(ticks.tobytes())
        await self._room()

    async def _room(self) -> None:
        done = min(self._readers.values(), default=self._begin)
        if done - self._begin > 4 * AHEAD:
            del self._messages[: done - self._begin]
            self._begin = done
        while self._begin + len(self._messages) - min(self._readers.values(), default=0) > AHEAD and self._readers:
            self._read_on.clear()
            await self._read_on.wait()

    async def read(self, _request: bytes, context: Any) -> None:
        """The RPC of a reader."""
        news, me = asyncio.Event(), id(context)
        self._news.add(news)
        at = self._readers[me] = self._begin + len(self._messages)
        try:
            await context.write(b"open")
            while True:
                while at - self._begin < len(self._messages):
                    await context.write(self._messages[at - self._begin])
                    at = self._readers[me] = at + 1
                    self._read_on.set()
                news.clear()
                await news.wait()
        finally:
            del self._readers[me]
            self._news.discard(news)

    async def take(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        """The RPC of a source."""
        async for message in requests:
            self.put(message)
            await self._room()
        return b""

    async def serve(self) -> str:
        """Its address."""
        server = grpc.aio.server(options=SERVER)
        handlers: dict[str, Any] = {
            "Read": grpc.unary_stream_rpc_method_handler(self.read),
            "Put": grpc.stream_unary_rpc_method_handler(self.take),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw.Ticks", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._server = server
        return f"127.0.0.1:{port}"


class RawSource:
    """Feeds a bare server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=own_channel())
        self._call: Any = self._channel.stream_unary("/raw.Ticks/Put")()

    async def flood(self, batches: Sequence[tuple[int, TickArray]]) -> None:
        for _, ticks in batches:
            await self._call.write(ticks.tobytes())

    async def one(self, place: int, ticks: TickArray) -> None:
        await self._call.write(ticks.tobytes())


class NatsSender:
    """Publishes by nats-py and a nats-server."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def flood(self, batches: Sequence[tuple[int, TickArray]]) -> None:
        for _, ticks in batches:
            await self._connection.publish("ticks", ticks.tobytes())
        await self._connection.flush(60)

    async def one(self, place: int, ticks: TickArray) -> None:
        data = ticks.tobytes()
        for at in range(0, len(data), TICK_BYTES):
            await self._connection.publish("ticks", data[at : at + TICK_BYTES])


def batches_of(ticks: TickArray, batch: int, places: int) -> list[tuple[int, TickArray]]:
    """A flood in the order in which it is sent: each symbol gets all of the ticks."""
    return [(place, ticks[at : at + batch]) for at in range(0, len(ticks), batch) for place in range(places)]


async def _flood(sender: Sender, ticks: TickArray, batch: int, places: int) -> None:
    ticks["event_time_ns"] = ticks["receive_time_ns"] = time.time_ns()
    batches = batches_of(ticks, batch, places)
    began = time.perf_counter_ns()
    await sender.flood(batches)
    say(began_ns=began, ended_ns=time.perf_counter_ns())


async def _pace(sender: Sender, ticks: TickArray, per_s: int, places: int) -> None:
    sent, calls, count, last_ns = 0, 0, len(ticks), 0
    began = time.perf_counter_ns()
    with every(per_s) as timer:
        while sent < count:
            due = min(count - sent, await timer.wait())
            if due:
                few = ticks[sent : sent + due]
                last_ns = stamp(few, per_s, last_ns)
                await sender.one(calls % places, few)
                sent, calls = sent + due, calls + 1
    say(began_ns=began, ended_ns=time.perf_counter_ns(), calls=calls)


async def _sender(what: str, address: str, symbols: Sequence[str], stack: AsyncExitStack) -> tuple[Sender, str]:
    if what in {"mesh", "raw-kept"}:
        keep_freed_memory(READER_BYTES if address != "-" else SERVER_BYTES)
    if what == "mesh":
        clients = Clients({INGEST: address})
        opening: list[Awaitable[TickSource]] = [
            stack.enter_async_context(ticking(clients, symbol)) for symbol in symbols
        ]
        return MeshSource([await source for source in opening]), address
    if what == "nats":
        import nats

        connection = await nats.connect(f"nats://{address}", pending_size=512 * 1024 * 1024)
        return NatsSender(connection), address
    if address != "-":
        return RawSource(address), address
    server = RawServer()
    return server, await server.serve()


async def main(what: str, address: str, names: str) -> None:
    """Until whoever asks is gone."""
    symbols = names.split(",")
    async with AsyncExitStack() as stack:
        sender, at = await _sender(what, address, symbols, stack)
        say(address=at)
        ticks = made(0)
        async for question in questions():
            if question["do"] == "prepare":
                ticks = made(question["count"])
                say(sums=sums(ticks))
            elif question["do"] == "flood":
                await _flood(sender, ticks, question["batch"], len(symbols))
            else:
                await _pace(sender, ticks, question["per_s"], len(symbols))


def main_zmq(readers: int) -> None:
    """The same by a PUB socket without bounds in a plain loop, which is the fastest way that pyzmq has."""
    import zmq

    socket = zmq.Context().socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each reader is told, not only the first
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    say(address=f"127.0.0.1:{port}")
    for _ in range(readers):
        socket.recv()
    ticks = made(0)
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "prepare":
            ticks = made(question["count"])
            say(sums=sums(ticks))
        elif question["do"] == "flood":
            _flood_zmq(socket, ticks, question["batch"])
        else:
            _pace_zmq(socket, ticks, question["per_s"])


def _flood_zmq(socket: Any, ticks: TickArray, batch: int) -> None:
    data, size = ticks.tobytes(), batch * TICK_BYTES
    messages = [data[at : at + size] for at in range(0, len(data), size)]
    del data
    send, began = socket.send, time.perf_counter_ns()
    for message in messages:
        send(message)
    say(began_ns=began, ended_ns=time.perf_counter_ns())


def _pace_zmq(socket: Any, ticks: TickArray, per_s: int) -> None:
    sent, count, last_ns = 0, len(ticks), 0
    began = time.perf_counter_ns()
    with every(per_s, waits=True) as timer:
        while sent < count:
            due = min(count - sent, timer.due())
            few = ticks[sent : sent + due]
            last_ns = stamp(few, per_s, last_ns)
            for index in range(due):
                socket.send(few[index : index + 1].tobytes())
            sent += due
    say(began_ns=began, ended_ns=time.perf_counter_ns(), calls=sent)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.performance.children import questions, say  # noqa: E402 - the folder of the project comes first
from tests.performance.every import every  # noqa: E402 - the folder of the project comes first
from tests.performance.market_ticks import (  # noqa: E402 - the folder of the project comes first
    TICK_BYTES,
    made,
    stamp,
    sums,
)
from tests.performance.service_process import own_channel  # noqa: E402 - the folder of the project comes first
from tests.performance.tick_source import (  # noqa: E402 - the folder of the project comes first
    INGEST,
    TickSource,
    ticking,
)

from minhos_mesh.runtime.channel_options import SERVER  # noqa: E402 - the folder of the project comes first
from minhos_mesh.runtime.clients import Clients  # noqa: E402 - the folder of the project comes first
from minhos_mesh.runtime.memory import READER_BYTES, SERVER_BYTES, keep_freed_memory  # noqa: E402 - the folder of the project comes first
from minhos_mesh.runtime.tick_layout import TickArray  # noqa: E402 - the folder of the project comes first

if __name__ == "__main__":
    if sys.argv[1] == "zmq":
        main_zmq(int(sys.argv[4]))
    else:
        uvloop.run(main(*sys.argv[1:4]))
