"""A DTC client of another make trades at the simulator: sockets, JSON and the published layout, nothing of this program.

Offsets and numbers are those of the protocol's own header (version 8, 2022). A client in JSON reads members by name; one
in binary reads them at their offsets.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from socket import create_connection, socket
from typing import Any, TypeVar

import pytest

from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

T = TypeVar("T")

SYMBOL = "NQZ26-CME"
P, TICK = 23_500_000_000_000, 250_000_000
FILLED, CANCELED, OPEN, PARTIAL = 7, 8, 4, 10


class JsonClient:
    """Speaks JSON after the handshake, as most programs beside a real Sierra Chart do."""

    def __init__(self, port: int, *, handshake: bool = True) -> None:
        self._socket, self._left = connected(port), b""
        if handshake:
            self._socket.sendall(bytes.fromhex("10000600080000000200000044544300"))
            assert exactly(self._socket, 16) == bytes.fromhex("10000700080000000200000044544300")
        self.say(Type=1, ProtocolVersion=8, HeartbeatIntervalInSeconds=5, ClientName="by hand", Integer_1=0x180884)
        answer = self.next(2)
        assert (answer["Result"], answer["TradingIsSupported"]) == (1, 1)
        self.server = answer["ServerName"]

    def say(self, **values: Any) -> None:
        self._socket.sendall(json.dumps(values).encode() + b"\0")

    def next(self, kind: int, **wanted: Any) -> dict[str, Any]:
        """The next message of a type with these values."""
        while True:
            while b"\0" not in self._left:
                self._left += some(self._socket)
            text, _, self._left = self._left.partition(b"\0")
            message: dict[str, Any] = json.loads(text)
            if message["Type"] == kind and all(message.get(name) == value for name, value in wanted.items()):
                return message

    def submit(self, name: str, kind: int, side: int, quantity: int, price: float = 0.0) -> None:
        self.say(
            Type=208, Symbol=SYMBOL, TradeAccount="Sim1", ClientOrderID=name, OrderType=kind, BuySell=side, Price1=price,
            Quantity=quantity, TimeInForce=1, IsAutomatedOrder=1,
        )  # fmt: skip

    def cancel(self, server_id: str, name: str) -> None:
        self.say(Type=203, ServerOrderID=server_id, ClientOrderID=name, TradeAccount="Sim1")

    def change(self, server_id: str, name: str, price: float, quantity: float) -> None:
        self.say(
            Type=204, ServerOrderID=server_id, ClientOrderID=name, Price1=price, Price1IsSet=1, Price2IsSet=0, Quantity=quantity
        )  # fmt: skip

    def order(self, name: str, *statuses: int) -> dict[str, Any]:
        """The next update of an order in one of these states."""
        while True:
            update = self.next(301, ClientOrderID=name)
            if update["OrderStatus"] in statuses:
                return update

    def position(self) -> float:
        self.say(Type=305, RequestID=7, TradeAccount="Sim1")
        return float(self.next(306, RequestID=7).get("Quantity", 0.0))

    def open_orders(self) -> list[str]:
        self.say(Type=300, RequestID=8, RequestAllOrders=1, TradeAccount="Sim1")
        found = []
        while True:
            message = self.next(301, RequestID=8)
            if message.get("NoOrders"):
                return []
            found.append(message["ClientOrderID"])
            if message["MessageNumber"] == message["TotalNumMessages"]:
                return found

    def fills(self) -> list[tuple[float, float]]:
        self.say(Type=303, RequestID=9, NumberOfDays=1, TradeAccount="Sim1")
        found = []
        while True:
            message = self.next(304, RequestID=9)
            found.append((message["Quantity"], message["Price"]))
            if message["MessageNumber"] == message["TotalNumberMessages"]:
                return found

    def close(self) -> None:
        self.say(Type=5, Reason="done")
        self._socket.close()


class BinaryClient:
    """Speaks binary with fixed strings: u16 size, u16 type, members at the offsets of the header."""

    def __init__(self, port: int) -> None:
        self._socket = connected(port)
        self._send(6, 16, (4, "<ii4s", (8, 0, b"DTC\0")))
        assert exactly(self._socket, 16) == bytes.fromhex("10000700080000000000000044544300")
        # LOGON_REQUEST: ProtocolVersion 4, Integer_1 136, HeartbeatIntervalInSeconds 144 in the header of 2022.
        self._send(1, 284, (4, "<i", (8,)), (136, "<i", (0x180884,)), (144, "<i", (5,)))
        answer = self._next(2)
        assert (struct.unpack_from("<i", answer, 8), answer[237]) == ((1,), 1)

    def submit(self, name: str, kind: int, side: int, quantity: int, price: float = 0.0) -> None:
        self._send(
            208, 296, (4, "64s", (SYMBOL.encode(),)), (84, "32s", (b"Sim1",)), (116, "32s", (name.encode(),)),
            (148, "<ii", (kind, side)), (160, "<d", (price,)), (176, "<d", (float(quantity),)), (184, "<i", (1,)),
        )  # fmt: skip

    def cancel(self, server_id: str, name: str) -> None:
        self._send(203, 100, (4, "32s", (server_id.encode(),)), (36, "32s", (name.encode(),)), (68, "32s", (b"Sim1",)))

    def change(self, server_id: str, name: str, price: float, quantity: float) -> None:
        self._send(
            204, 192, (4, "32s", (server_id.encode(),)), (36, "32s", (name.encode(),)), (72, "<d", (price,)),
            (88, "<d", (quantity,)), (96, "<BB", (1, 0)),
        )  # fmt: skip

    def order(self, name: str, *statuses: int) -> dict[str, Any]:
        while True:
            data = self._next(301)
            status = struct.unpack_from("<i", data, 224)[0]
            if text(data, 160, 32) == name and status in statuses and not struct.unpack_from("<i", data, 4)[0]:
                return {
                    "ServerOrderID": text(data, 128, 32),
                    "OrderStatus": status,
                    "FilledQuantity": struct.unpack_from("<d", data, 280)[0],
                    "AverageFillPrice": struct.unpack_from("<d", data, 296)[0],
                    "LastFillPrice": struct.unpack_from("<d", data, 304)[0],
                    "OrderQuantity": struct.unpack_from("<d", data, 272)[0],
                    "Price1": struct.unpack_from("<d", data, 240)[0],
                }

    def position(self) -> float:
        self._send(305, 40, (4, "<i", (7,)), (8, "32s", (b"Sim1",)))
        while True:
            data = self._next(306)
            if struct.unpack_from("<i", data, 4) == (7,):
                return float(struct.unpack_from("<d", data, 96)[0])

    def open_orders(self) -> list[str]:
        self._send(300, 76, (4, "<ii", (8, 1)), (44, "32s", (b"Sim1",)))
        found = []
        while True:
            data = self._next(301)
            number, total, at = struct.unpack_from("<iii", data, 4)
            if number == 8 and data[520]:
                return []
            if number == 8:
                found.append(text(data, 160, 32))
                if at == total:
                    return found

    def fills(self) -> list[tuple[float, float]]:
        self._send(303, 88, (4, "<i", (9,)), (40, "<i", (1,)), (44, "32s", (b"Sim1",)))
        found = []
        while True:
            data = self._next(304)
            number, total, at = struct.unpack_from("<iii", data, 4)
            found.append((struct.unpack_from("<d", data, 152)[0], struct.unpack_from("<d", data, 136)[0]))
            if number == 9 and at == total:
                return found

    def close(self) -> None:
        self._send(5, 102)
        self._socket.close()

    def _send(self, kind: int, size: int, *members: tuple[int, str, tuple[Any, ...]]) -> None:
        data = bytearray(size)
        struct.pack_into("<HH", data, 0, size, kind)
        for offset, form, values in members:
            struct.pack_into(form, data, offset, *values)
        self._socket.sendall(data)

    def _next(self, kind: int) -> bytes:
        while True:
            head = exactly(self._socket, 4)
            size, found = struct.unpack("<HH", head)
            data = head + exactly(self._socket, size - 4)
            if found == kind:
                return data


def connected(port: int) -> socket:
    made = create_connection(("127.0.0.1", port), timeout=10)
    made.settimeout(10)
    return made


def some(source: socket) -> bytes:
    data = source.recv(7)  # small pieces, so that every message is cut somewhere
    assert data, "the server closed the connection"
    return data


def exactly(source: socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.recv(min(13, count - len(data)))
        assert piece, "the server closed the connection"
        data += piece
    return data


def text(data: bytes, offset: int, size: int) -> str:
    return data[offset : offset + size].split(b"\0", 1)[0].decode()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DtcServer]:
    clock = SystemClock()
    made = DtcServer(SimulatedExchange(DtcServerSettings(), [SYMBOL]), clock=clock, folder=tmp_path)
    await made.start()
    yield made
    await made.close()


def show(server: DtcServer, bid: int, ask: int, size: int = 5) -> None:
    now = server.clock.wall_ns()
    quote = Quote(time_ns=now, bid_e9=P + bid * TICK, ask_e9=P + ask * TICK, bid_size=size, ask_size=size)
    server.show(SYMBOL, quote, Trade(time_ns=now, price_e9=P + ask * TICK, size=1, aggressor=Side.BUY))


async def in_thread(work: Callable[[], T]) -> T:
    """The client blocks as simple programs do, beside the loop of the server."""
    assert threading.current_thread() is threading.main_thread()
    async with asyncio.timeout(20):
        return await asyncio.to_thread(work)


@pytest.mark.parametrize("make", [JsonClient, BinaryClient], ids=["json", "binary"])
async def test_client_of_another_make_trades(server: DtcServer, make: type[JsonClient | BinaryClient]) -> None:
    show(server, 0, 1, size=3)
    client = await in_thread(lambda: make(server.port))

    def buys_in_two_parts() -> dict[str, Any]:
        client.submit("m1", 1, 1, 5)
        return client.order("m1", PARTIAL)

    partly = await in_thread(buys_in_two_parts)
    assert (partly["FilledQuantity"], partly["LastFillPrice"]) == (3.0, 23_500.25)
    show(server, 1, 2, size=3)
    filled = await in_thread(lambda: client.order("m1", FILLED))
    assert (filled["FilledQuantity"], filled["LastFillPrice"]) == (5.0, 23_500.5)
    assert filled["AverageFillPrice"] == pytest.approx((3 * 23_500.25 + 2 * 23_500.5) / 5)
    assert await in_thread(client.position) == 5.0
    assert await in_thread(client.fills) == [(3.0, 23_500.25), (2.0, 23_500.5)]

    def rests_and_changes() -> tuple[dict[str, Any], dict[str, Any]]:
        client.submit("l1", 2, 2, 2, 23_510.0)
        resting = client.order("l1", OPEN)
        client.change(resting["ServerOrderID"], "l1", 23_512.0, 4)
        return resting, client.order("l1", OPEN)

    resting, changed = await in_thread(rests_and_changes)
    assert (changed["OrderQuantity"], changed["Price1"]) == (4.0, 23_512.0)
    assert changed["ServerOrderID"] != resting["ServerOrderID"]
    assert await in_thread(client.open_orders) == ["l1"]

    def cancels() -> dict[str, Any]:
        client.cancel(changed["ServerOrderID"], "l1")
        return client.order("l1", CANCELED)

    assert (await in_thread(cancels))["FilledQuantity"] == 0.0
    assert await in_thread(client.open_orders) == []
    await in_thread(client.close)
    assert server.exchange.position("Sim1", SYMBOL).quantity == 5


async def test_client_that_begins_in_json_without_a_handshake_is_understood(server: DtcServer) -> None:
    show(server, 0, 1)
    client = await in_thread(lambda: JsonClient(server.port, handshake=False))

    def buys() -> dict[str, Any]:
        client.submit("m1", 1, 1, 1)
        return client.order("m1", FILLED)

    assert (await in_thread(buys))["LastFillPrice"] == 23_500.25
    assert client.server.startswith("MinhOS Sierra Simulator")
    await in_thread(client.close)
