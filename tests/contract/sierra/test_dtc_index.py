"""Prices of an index over DTC: nobody trades it, so it has neither sizes nor quotes, and its price comes all the same."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contract.sierra.sierra_mesh import Mesh, config
from tests.contract.test_dtc_by_hand import BinaryClient, JsonClient, in_thread
from tests.waiting import eventually

from minhos_api.market.v1 import tick_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_feed import DtcFeed
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

INDEX = "VIX-CGI"


class Index:
    """The simulator's server with an index, shown as the simulator writes it into its file."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.server = DtcServer(SimulatedExchange(DtcServerSettings(), [INDEX]), clock=self.clock, folder=folder)
        self.feed = DtcFeed(self.server, self.clock)

    def shows(self, price: float) -> None:
        record = np.zeros(1, RECORD)
        record["time_us"] = EPOCH_SHIFT_US + self.clock.wall_ns() // 1000
        record["close"], record["num_trades"] = price, 1
        self.feed.on_records(INDEX, record)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    made = Index(tmp_path)
    await made.server.start()
    yield made
    await made.server.close()


async def test_client_of_another_make_is_told_the_price_of_an_index_in_json(index: Index) -> None:
    index.shows(17.21)
    client = await in_thread(lambda: JsonClient(index.server.port))

    def asks() -> dict[str, Any]:
        client.say(Type=101, RequestAction=1, SymbolID=7, Symbol=INDEX)
        return client.next(104)

    snapshot = await in_thread(asks)
    assert (snapshot["LastTradePrice"], snapshot["LastTradeVolume"]) == (17.21, 0)
    assert not {"BidPrice", "AskPrice"} & set(snapshot)
    index.shows(17.24)
    trade = await in_thread(lambda: client.next(146))
    assert trade["SymbolID"] == 7
    assert trade["Price"] == pytest.approx(17.24)
    assert not trade.get("Volume"), "an index has no size"
    await in_thread(client.close)


async def test_client_of_another_make_is_told_the_price_of_an_index_in_binary(index: Index) -> None:
    index.shows(17.21)
    client = await in_thread(lambda: BinaryClient(index.server.port))

    def asks() -> bytes:
        client._send(101, 96, (4, "<iI", (1, 7)), (12, "64s", (INDEX.encode(),)))
        return client._next(104)

    snapshot = await in_thread(asks)
    last_price, last_volume = struct.unpack_from("<dd", snapshot, 88)
    assert (last_price, last_volume) == (17.21, 0.0)
    index.shows(17.24)
    number, price, volume = struct.unpack_from("<IfI", await in_thread(lambda: client._next(146)), 4)
    assert (number, price, volume) == (7, pytest.approx(17.24), 0)
    await in_thread(client.close)


@pytest.mark.parametrize("encoding", ["json", "binary", "binary_variable"])
async def test_index_over_dtc_becomes_ticks_that_have_a_price_and_no_size(
    mesh: Mesh, index: Index, encoding: str
) -> None:
    dtc = {"port": index.server.port, "market_data": [INDEX], "encoding": encoding}
    await mesh.start_client(config(market_data={"symbols": [INDEX]}, dtc=dtc))

    async def granted() -> bool:
        (data,) = (await mesh.stub.GetStatus(pb2.GetStatusRequest())).status.dtc.market_data
        return bool(data.state == pb2.SIERRA_DTC_DATA_STATE_GRANTED)

    await eventually(granted, "the snapshot shows that the index is granted")
    for price in (17.21, 17.24, 17.19):
        index.shows(price)
    await eventually(lambda: len(mesh.market.newest) == 3, "three ticks")
    assert [tick.price_e9 for tick in mesh.market.newest] == [17_210_000_000, 17_240_000_000, 17_190_000_000]
    for tick in mesh.market.newest:
        assert tick.flags == tick_pb2.TICK_FLAG_HAS_PRICE
        assert tick.size == 0
