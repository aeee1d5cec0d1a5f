"""What goes wrong on purpose: begins at once, does what it says, ends in time, and is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.waiting import eventually

from minhos_mesh.dtc.enums import OrderStatus
from minhos_mesh.matching import Quote
from minhos_mesh.runtime.clock import ManualClock, SystemClock
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_files.depth import read_depth
from minhos_mesh.sierra_files.depth_book import DepthBook
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.ticks import tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.domain.faults import (
    MOST_ACTIVE,
    Fault,
    FaultConflict,
    FaultKind,
    FaultNotPossible,
    FaultOrder,
    FaultRefused,
    FaultUnknown,
    TooManyFaults,
)
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.domain.gaps import Gap
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings
from minhos_mesh.sierra_simulator.fault_dtc import ServerFaults
from minhos_mesh.sierra_simulator.service import Activity, SierraSimulator
from minhos_mesh.sierra_simulator.settings import SimulatorSettings

NOW_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
NQ, ES = "NQZ26-CME", "ESZ26-CME"


class Running:
    """A simulator of two symbols under a clock that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOW_NS)
        self.tasks = OwnedTasks()
        self.settings = SimulatorSettings(folder / "sierra", symbol=NQ, history_s=600, depth_levels=10, run_id="a")

    async def start(self, settings: SimulatorSettings | None = None, *others: SimulatorSettings) -> SierraSimulator:
        self.simulator = SierraSimulator(settings or self.settings, clock=self.clock, tasks=self.tasks, others=others)
        await self.simulator.start()
        return self.simulator

    async def advance(self, seconds: float) -> None:
        """Moves the clock and lets everything that is due happen."""
        self.clock.advance(seconds)
        self.simulator._board._wake.set()
        for writer in self.simulator._writers:
            writer.wake()
        for _ in range(40):
            await asyncio.sleep(0)

    def records(self, symbol: str = NQ) -> int:
        return next(each.records_written for each in self.simulator.status().symbols if each.symbol == symbol)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    found = Running(tmp_path)
    yield found
    await found.tasks.close()
    found.simulator.close()


def fault(kind: FaultKind, request_id: str = "f", **values: Any) -> FaultOrder:
    return FaultOrder(request_id, kind, **values)


async def test_silence_holds_everything_back_and_nothing_is_lost(running: Running) -> None:
    simulator = await running.start()
    await running.advance(5)
    before = running.records()
    made = simulator.inject(fault(FaultKind.FEED_SILENCE, duration_ns=10 * SECOND))
    assert (made.active, made.end_ns, made.effect) == (True, made.begin_ns + 10 * SECOND, "nothing is written")
    await running.advance(9)
    assert running.records() == before
    assert [each.order.kind for each in simulator.status().faults] == [FaultKind.FEED_SILENCE]
    await running.advance(2)
    assert running.records() > before + 50
    assert simulator.status().faults == ()
    (over,) = simulator.faults()
    assert (over.active, over.end_ns, over.effect) == (False, made.end_ns, "nothing was written until its end")
    assert simulator.status().records_left_out == 0


async def test_a_gap_leaves_out_what_falls_due_of_one_symbol_alone(running: Running) -> None:
    simulator = await running.start(None, replace(running.settings, symbol=ES, root="ES"))
    await running.advance(5)
    nq, es = running.records(NQ), running.records(ES)
    simulator.inject(fault(FaultKind.FEED_GAP, symbol=NQ))
    await running.advance(10)
    assert running.records(NQ) == nq
    assert running.records(ES) > es + 50
    (lasting,) = simulator.status().faults
    left_out = simulator.status().records_left_out
    assert lasting.effect == f"{left_out} records were left out"
    assert left_out > 50
    (ended,) = simulator.clear_faults("f")
    assert not ended.active
    assert simulator.clear_faults("") == []
    await running.advance(5)
    assert running.records(NQ) > nq + 20
    times = tick_columns(read_scid(running.settings.folder / f"{NQ}.scid"), 250_000_000).time_ns
    assert np.diff(times).max() > 8 * SECOND


async def test_a_truncated_file_goes_on_and_a_replaced_one_is_another(running: Running) -> None:
    simulator = await running.start()
    await running.advance(5)
    path = running.settings.folder / f"{NQ}.scid"
    before, inode = running.records(), path.stat().st_ino
    cut = simulator.inject(fault(FaultKind.FILE_TRUNCATED, "cut"))
    assert cut.effect == f"{before - before // 2} records were taken from {NQ}.scid"
    assert (cut.active, cut.end_ns) == (False, cut.begin_ns)
    assert running.records() == len(read_scid(path)) == before // 2
    await running.advance(5)
    grown, data = running.records(), path.read_bytes()
    assert grown > before // 2
    assert path.stat().st_ino == inode
    simulator.inject(fault(FaultKind.FILE_REPLACED, "new"))
    assert path.stat().st_ino != inode
    assert path.read_bytes() == data
    await running.advance(5)
    assert len(read_scid(path)) == running.records() > grown
    assert [each.order.request_id for each in simulator.faults()] == ["new", "cut"]


async def test_a_recording_is_whole_at_its_end_after_its_file_was_truncated(running: Running, tmp_path: Path) -> None:
    records = np.zeros(1000, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_600_000_000_000_000 + np.arange(1000) * 1_000_000
    records["close"], records["num_trades"] = 100, 1
    source = tmp_path / "MNQU21-CME.scid"
    ScidWriter.create(source, records).close()
    simulator = await running.start(
        replace(running.settings, feed=FeedKind.REPLAY, replay_file=source, replay_speed=1.0)
    )
    await running.advance(400)
    simulator.inject(fault(FaultKind.FILE_TRUNCATED))
    with pytest.raises(FaultNotPossible, match="a recording is played whole"):
        simulator.inject(fault(FaultKind.FEED_GAP, "gap"))
    for _ in range(4):
        await running.advance(400)
    assert simulator.status().activity is Activity.ENDED
    assert (running.settings.folder / source.name).read_bytes() == source.read_bytes()


async def test_what_makes_no_sense_is_refused_in_words(running: Running) -> None:
    simulator = await running.start()
    wrong = [
        (fault(FaultKind.FEED_GAP, probability=0.5), "probability is 0.5: allowed is unset for FEED_GAP"),
        (fault(FaultKind.FILE_TRUNCATED, duration_ns=SECOND), "duration is 1 s: allowed is unset for FILE_TRUNCATED"),
        (fault(FaultKind.FEED_GAP, delay_ns=SECOND), "delay is 1 s: allowed is unset for FEED_GAP"),
        (
            fault(FaultKind.FEED_GAP, symbol="YMZ26-CBOT"),
            f"symbol is YMZ26-CBOT: allowed is one that is written ({NQ})",
        ),
        (fault(FaultKind.DTC_DISCONNECT, duration_ns=SECOND), "unset unless a probability is given"),
        (fault(FaultKind.DTC_REJECTS, symbol=NQ), f"symbol is {NQ}: allowed is unset for DTC_REJECTS"),
    ]
    for order, words in wrong:
        with pytest.raises(FaultRefused) as raised:
            simulator.inject(order)
        assert words in str(raised.value)
    with pytest.raises(FaultNotPossible, match="feed.dtc_port is not set"):
        simulator.inject(fault(FaultKind.DTC_REJECTS))
    assert simulator.faults() == []


async def test_the_same_id_gives_the_first_answer_and_other_values_are_a_conflict(running: Running) -> None:
    simulator = await running.start()
    first = simulator.inject(fault(FaultKind.FEED_GAP))
    assert simulator.inject(fault(FaultKind.FEED_GAP)) == first
    with pytest.raises(FaultConflict):
        simulator.inject(fault(FaultKind.FEED_SILENCE))
    with pytest.raises(FaultUnknown, match="fault 'g' is not known: active are f"):
        simulator.clear_faults("g")
    simulator.clear_faults("f")
    again = simulator.inject(fault(FaultKind.FEED_GAP))
    assert (again.active, again.begin_ns) == (False, first.begin_ns)
    for number in range(MOST_ACTIVE):
        simulator.inject(fault(FaultKind.FEED_SILENCE, f"many-{number}"))
    with pytest.raises(TooManyFaults):
        simulator.inject(fault(FaultKind.FEED_SILENCE, "one too many"))
    assert len(simulator.clear_faults("")) == MOST_ACTIVE
    await running.advance(1)
    assert running.records() > 0


async def test_scheduled_gaps_are_left_out_of_a_walk(running: Running) -> None:
    settings = replace(running.settings, gaps=[Gap(5_000_000, 10_000_000)], depth_levels=0)
    simulator = await running.start(settings)
    for _ in range(30):
        await running.advance(1)
    times = tick_columns(read_scid(settings.folder / f"{NQ}.scid"), 250_000_000).time_ns
    inside = (times >= NOW_NS + 5 * SECOND) & (times < NOW_NS + 15 * SECOND)
    assert not inside.any()
    assert (times > NOW_NS + 15 * SECOND).sum() > 50
    assert simulator.status().records_left_out > 50


async def test_the_order_book_is_written_beside_the_trades_and_agrees_with_them(running: Running) -> None:
    simulator = await running.start(None, replace(running.settings, symbol=None, root="VIX"))
    for _ in range(20):
        await running.advance(1)
    nq, vix = simulator.status().symbols
    assert nq.depth_file == running.settings.folder / "MarketDepthData" / f"{NQ}.2026-09-21.depth"
    assert vix.depth_file is None, "an index has no order book"
    commands = read_depth(nq.depth_file)
    assert len(commands) == nq.depth_records_written
    trades = read_scid(nq.file)
    trades = trades[trades["time_us"] >= commands["time_us"][0]]
    views = list(DepthBook(250_000_000).views(commands, levels=10))
    assert len(views) == len(trades) > 100
    for view, low, high in zip(views, trades["low"].tolist(), trades["high"].tolist(), strict=True):
        assert (view.bids[0].price_e9, view.asks[0].price_e9) == (round(low * 1e9), round(high * 1e9))
        assert len(view.bids) == len(view.asks) == 10


# --- over DTC -------------------------------------------------------------------------------------------------------


class Client:
    """A DTC client that speaks JSON from the first byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(Type=1, ProtocolVersion=8, HeartbeatIntervalInSeconds=10, ClientName="test")
        return client

    def send(self, **message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\0")

    async def read(self, kind: int) -> dict[str, Any]:
        """The next message of this type."""
        async with asyncio.timeout(10):
            while True:
                message: dict[str, Any] = json.loads((await self.reader.readuntil(b"\0"))[:-1])
                if message["Type"] == kind:
                    return message

    def buy(self, client_order_id: str, quantity: int = 1) -> None:
        self.send(
            Type=208, Symbol=NQ, TradeAccount="Sim1", ClientOrderID=client_order_id, OrderType=1, BuySell=1,
            Quantity=quantity, TimeInForce=1,
        )  # fmt: skip

    async def close(self) -> None:
        self.writer.close()


class Served:
    """A simulator with a DTC server."""

    def __init__(self, folder: Path) -> None:
        exchange = SimulatedExchange(DtcServerSettings(), [NQ])
        self.server = DtcServer(exchange, clock=SystemClock(), folder=folder)
        self.tasks = OwnedTasks()
        settings = SimulatorSettings(folder / "sierra", symbol=NQ, history_s=10, ticks_per_s=0.1, run_id="a")
        self.simulator = SierraSimulator(settings, clock=SystemClock(), tasks=self.tasks, dtc=ServerFaults(self.server))
        self.clients: list[Client] = []

    async def client(self) -> Client:
        client = await Client.connect(self.server.port)
        self.clients.append(client)
        return client

    async def trader(self) -> Client:
        client = await self.client()
        await client.read(2)
        return client

    def show(self) -> None:
        price = 23_500 * 10**9
        quote = Quote(time_ns=SystemClock().wall_ns(), bid_e9=price, ask_e9=price + 250_000_000)
        self.server.show(NQ, quote, None)

    def effect(self) -> Fault:
        return self.simulator.faults()[0]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(tmp_path)
    await found.server.start()
    await found.simulator.start()
    yield found
    for client in found.clients:
        await client.close()
    await found.server.close()
    await found.tasks.close()
    found.simulator.close()


async def test_orders_are_rejected_while_the_fault_lasts(served: Served) -> None:
    client = await served.trader()
    served.show()
    served.simulator.inject(fault(FaultKind.DTC_REJECTS))
    client.buy("a")
    update = await client.read(301)
    assert (update["ClientOrderID"], update["OrderStatus"]) == ("a", int(OrderStatus.REJECTED))
    assert "rejected on purpose" in update["InfoText"]
    assert served.effect().effect == "1 orders were rejected"
    served.simulator.clear_faults("")
    client.buy("b")
    while (update := await client.read(301)).get("LastFillQuantity") != 1.0:
        assert update["ClientOrderID"] == "b"


async def test_orders_fill_in_parts_of_one_contract(served: Served) -> None:
    client = await served.trader()
    served.simulator.inject(fault(FaultKind.DTC_PARTIAL_FILLS))
    served.show()
    client.buy("a", 3)
    fills: list[tuple[float, float]] = []
    while len(fills) < 3:
        update = await client.read(301)
        if update.get("LastFillQuantity"):
            fills.append((update["LastFillQuantity"], update["RemainingQuantity"]))
            served.show()
    assert fills == [(1.0, 2.0), (1.0, 1.0), (1.0, 0.0)]
    assert "quotes were shown with one contract" in served.effect().effect


async def test_messages_come_twice_and_late(served: Served) -> None:
    client = await served.trader()
    served.show()
    served.simulator.inject(fault(FaultKind.DTC_DUPLICATES, "twice"))
    client.buy("a")
    first, second = await client.read(301), await client.read(301)
    assert first == second
    served.simulator.clear_faults("twice")
    served.simulator.inject(fault(FaultKind.DTC_LATE_FILLS, "late", delay_ns=5_000_000))
    client.buy("b")
    while (await client.read(301))["ClientOrderID"] != "b":
        pass
    assert served.effect().effect.endswith("messages were late")
    assert not served.effect().effect.startswith("0")


async def test_connections_are_cut_at_once(served: Served) -> None:
    clients = [await served.trader(), await served.trader()]
    assert served.simulator.inject(fault(FaultKind.DTC_DISCONNECT)).effect == "2 connections were cut"
    for client in clients:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.read(999)
    assert served.simulator.status().faults == ()


async def test_silence_says_nothing_to_anybody_and_ends_by_cutting(served: Served) -> None:
    old = await served.trader()
    served.simulator.inject(fault(FaultKind.DTC_SILENCE))
    fresh = await served.client()
    old.buy("a")
    await eventually(lambda: served.server.clients == 2, "both are connected")
    for client in (old, fresh):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.reader.readuntil(b"\0")
    assert served.effect().effect == "1 connections fell silent"
    served.simulator.clear_faults("")
    for client in (old, fresh):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.read(999)
    again = await served.trader()
    served.show()
    again.buy("b")
    assert (await again.read(301))["ClientOrderID"] == "b"
