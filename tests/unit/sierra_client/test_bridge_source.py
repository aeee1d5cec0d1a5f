"""What the bridge as a source does with bridges of both versions, in all the states in which they are met."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sierra_client.fake_bridge import LAST_PRICE, PRICE, FakeBridge
from tests.waiting import eventually

from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.bridge_orders import TradeStatus
from minhos_mesh.sierra_client.bridge_source import BridgeSettings, BridgeSource
from minhos_mesh.sierra_client.bridge_status import BridgeState, Way
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.ticks import HAS_ASK, HAS_BID, HAS_PRICE, HAS_SIZE, HAS_TIME, tick_columns

NQ, ES = "NQZ26-CME", "ESZ26-CME"
TICK = 250_000_000


class Reader:
    """A bridge source over a fake market data."""

    def __init__(self, folder: Path, store: SourceStore, market: Any) -> None:
        self.folder, self.store, self.market = folder, store, market
        self.settings = BridgeSettings(
            address="", ticks_e9={NQ: TICK, ES: TICK}, folder=folder / "bridge", provenance=Provenance.DELAYED,
            poll_s=0.02, silent_s=0.15, tried_again_s=2.0, open_s=2.0, first_pause_s=0.01, longest_pause_s=0.05,
        )  # fmt: skip
        self.states: list[tuple[BridgeState, str]] = []

    async def start(self, address: str, **changes: Any) -> BridgeSource:
        self.tasks = OwnedTasks(lambda name, error: self.failed.append(f"{name}: {error!r}"))
        self.failed: list[str] = []
        self.source = BridgeSource(
            replace(self.settings, address=address, **changes), store=self.store, ingest=self.market,
            clock=SystemClock(), tasks=self.tasks, randomness=random.Random(1),
        )  # fmt: skip
        self.source.on_change = lambda: self.states.append((self.source.status.state, self.source.status.reason))
        await self.source.start()
        return self.source

    async def stop(self) -> None:
        await self.tasks.close()
        self.source.close()
        assert self.failed == []

    def prices(self, symbol: str = NQ) -> list[int]:
        path = self.settings.folder / f"{symbol}.scid"
        return [int(price) for price in tick_columns(read_scid(path), TICK).price_e9] if path.exists() else []

    async def sees(self, state: BridgeState) -> None:
        await eventually(lambda: self.source.status.state is state, f"the bridge is {state.value}")


@pytest.fixture
async def reader(tmp_path: Path, store: SourceStore, market: Any) -> AsyncIterator[Reader]:
    found = Reader(tmp_path, store, market)
    yield found
    await found.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as found:
        yield found


async def moved(bridge: FakeBridge, reader: Reader, prices: list[float], symbol: str = NQ) -> None:
    """Moves a price step by step, each of which becomes a tick before the next one."""
    await eventually(lambda: reader.source.status.quotes_read > 0, "a first price was seen")
    for price in prices:
        bridge.set(symbol, price)
        await eventually(partial(stands_last, reader, symbol, round(price * 10**9)), f"{price} is a tick")
    await read_again(reader, 1)


def stands_last(reader: Reader, symbol: str, price_e9: int) -> bool:
    return reader.prices(symbol)[-1:] == [price_e9]


async def read_again(reader: Reader, count: int) -> None:
    target = reader.source.status.quotes_read + count
    await eventually(lambda: reader.source.status.quotes_read >= target, "it was read again")


@pytest.mark.parametrize("dialect", [PRICE, LAST_PRICE])
async def test_changes_of_both_versions_reach_market_data_once_each(
    reader: Reader, market: Any, stack: AsyncExitStack, dialect: str
) -> None:
    bridge = await stack.enter_async_context(FakeBridge(dialect).running())
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address)
    await moved(bridge, reader, [23500.5, 23501.0, 23500.75])
    assert reader.prices() == [23_500_500_000_000, 23_501_000_000_000, 23_500_750_000_000]
    await eventually(lambda: len(market.newest) == 3, "market data has three ticks")
    status = source.status
    assert (status.state, status.dialect, status.version) == (BridgeState.STREAMING, dialect, "3.1.0")
    assert status.ticks_written == 3
    assert status.quotes_read > 3
    assert {opening.source for opening in market.openings} == {f"sierra_client:bridge/{s}.scid" for s in (NQ, ES)}
    assert {opening.provenance for opening in market.openings} == {Provenance.DELAYED}
    assert source.problems() == {}


async def test_a_tick_has_the_time_of_its_receipt_and_nothing_that_the_bridge_invents(
    reader: Reader, stack: AsyncExitStack
) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.set(NQ, 23500.25)
    await reader.start(bridge.address)
    clock = SystemClock()
    before = clock.wall_ns()
    await moved(bridge, reader, [23500.5])
    bridge.set(NQ, 23501.0, 23500.75, 23501.0)
    await eventually(lambda: len(reader.prices()) == 2, "two ticks")
    columns = tick_columns(read_scid(reader.settings.folder / f"{NQ}.scid"), TICK)
    assert int(columns.flags[0]) == HAS_PRICE | HAS_TIME
    assert int(columns.flags[1]) == HAS_PRICE | HAS_TIME | HAS_BID | HAS_ASK
    assert not columns.flags[1] & HAS_SIZE
    assert (int(columns.bid_e9[1]), int(columns.ask_e9[1])) == (23_500_750_000_000, 23_501_000_000_000)
    assert before - 1000 <= columns.time_ns[0] < columns.time_ns[1] <= clock.wall_ns()


@pytest.mark.parametrize(
    ("dialect", "live", "market_data", "way", "state"),
    [
        (PRICE, "deltas", "repeats", Way.LIVE_DATA, BridgeState.STREAMING),
        (PRICE, "silent", "repeats", Way.MARKET_DATA, BridgeState.STREAMING),
        (PRICE, "absent", "repeats", Way.MARKET_DATA, BridgeState.STREAMING),
        (PRICE, "silent", "silent", Way.POLLING, BridgeState.POLLING),
        (LAST_PRICE, "silent", "absent", Way.POLLING, BridgeState.POLLING),
        (LAST_PRICE, "absent", "absent", Way.POLLING, BridgeState.POLLING),
    ],
)
async def test_prices_come_by_the_first_way_that_speaks(
    reader: Reader, stack: AsyncExitStack, dialect: str, live: str, market_data: str, way: Way, state: BridgeState
) -> None:
    bridge = await stack.enter_async_context(FakeBridge(dialect).running())
    bridge.live_data, bridge.market_data = live, market_data
    bridge.set(NQ, 23500.25)
    bridge.set(ES, 6500.25)
    wanted = {NQ: TICK, ES: TICK} if dialect == PRICE else {NQ: TICK}  # One by one, two are asked once a second.
    source = await reader.start(bridge.address, ticks_e9=wanted)
    await reader.sees(state)
    await eventually(lambda: source.status.way is way, f"prices come by {way.value}")
    await moved(bridge, reader, [23500.5], NQ)
    if ES in wanted:
        await moved(bridge, reader, [6501.0], ES)
        assert reader.prices(ES) == [6_501_000_000_000]


async def test_nothing_but_reading_is_ever_asked_and_an_invented_fill_is_told(
    reader: Reader, stack: AsyncExitStack
) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.market_data = "silent"
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address)
    await reader.sees(BridgeState.POLLING)
    assert {method for method, _ in bridge.asked} == {"GET"}
    assert not any("execute" in path for _, path in bridge.asked)
    assert source.status.trade_status is TradeStatus.INVENTED
    assert "at 18000.0, as every order: nothing it says of orders is believed" in source.status.trade_status_reason
    assert not any(path.startswith("/api/market_data?") or path == f"/api/data/{NQ}" for _, path in bridge.asked)


async def test_a_bridge_that_was_away_is_found_again_for_ever_and_what_changed_meanwhile_is_no_tick(
    reader: Reader, stack: AsyncExitStack
) -> None:
    bridge = FakeBridge()
    async with bridge.running():
        bridge.set(NQ, 23500.25)
        source = await reader.start(bridge.address)
        await moved(bridge, reader, [23500.5])
    for price in (23600.0, 23700.0):
        await reader.sees(BridgeState.DISCONNECTED)
        assert "BRIDGE_UNREACHABLE" in source.problems()
        source._prices.known_for_s = 0.0  # As if it had been away for long.
        async with bridge.running():
            await reader.sees(BridgeState.STREAMING)
            bridge.set(NQ, price)
            await read_again(reader, 3)
            source._prices.known_for_s = 5.0
    assert reader.prices() == [23_500_500_000_000]
    assert source.status.reconnects >= 2


async def test_a_stream_that_dies_in_the_middle_of_a_message_loses_only_that(
    reader: Reader, stack: AsyncExitStack
) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.live_data = "absent"
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address)
    await moved(bridge, reader, [23500.5])
    for transport in bridge.transports:
        transport.write(b"\x81\x7e\x10\x00" + b'{"type":"market_data","data":{"symbol":"NQZ26-CME","price":9')
    await asyncio.sleep(0)
    bridge.cut()
    await eventually(lambda: source.status.reconnects >= 1, "it connects again")
    await moved(bridge, reader, [23501.0])
    assert reader.prices() == [23_500_500_000_000, 23_501_000_000_000]


GARBAGE: list[str | bytes] = [
    "", "{", "null", "[]", "17", '"x"', "NaN", '{"type":"market_data"}', '{"type":"market_data","data":null}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":NaN}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":0.0}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":-23500}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":"23500"}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":1e400}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":23500,"last_price":23501}}',
    '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":23500.1}}',
    '{"type":"market_data","data":{"price":23500}}', "[" * 100_000, b"\xff\xfe\x00", "\x00" * 1000,
]  # fmt: skip


async def test_garbage_is_counted_and_no_price(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.live_data = "absent"
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address, silent_s=5.0)
    await moved(bridge, reader, [23500.5])
    for raw in GARBAGE:
        bridge.raw = raw
        quotes = source.status.quotes_read
        bridge.changed.set()
        bridge.changed = asyncio.Event()
        await asyncio.sleep(0.003)
        assert source.status.quotes_read - quotes <= 1, raw
    bridge.raw = None
    await moved(bridge, reader, [23501.0])
    assert reader.prices() == [23_500_500_000_000, 23_501_000_000_000]
    assert sum(source.status.refused.values()) > 5


async def test_a_huge_message_ends_the_connection_and_is_not_held(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.live_data = "absent"
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address)
    await moved(bridge, reader, [23500.5])
    bridge.raw = json_of(3_000_000)
    await eventually(lambda: source.status.reconnects >= 1, "the connection was ended")
    bridge.market_data = "silent"
    await eventually(
        lambda: any("more than" in reason for _, reason in reader.states), "the answer is too large as well"
    )
    bridge.raw, bridge.market_data = None, "repeats"
    await moved(bridge, reader, [23501.0])


def json_of(size: int) -> str:
    return '{"type":"market_data","data":{"symbol":"NQZ26-CME","price":23500,"note":"' + "x" * size + '"}}'


async def test_a_slow_bridge_is_unreachable_and_holds_up_nothing(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.set(NQ, 23500.25)
    bridge.delay_s = 60.0
    source = await reader.start(bridge.address, open_s=0.1)
    await eventually(lambda: source.status.reconnects >= 2, "it is tried again")
    assert any("did not answer /health within 0.1 s" in reason for _, reason in reader.states)
    bridge.delay_s = 0.0
    await reader.sees(BridgeState.STREAMING)


async def test_what_is_no_bridge_is_told(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.service = "another_program"
    source = await reader.start(bridge.address)
    await eventually(lambda: any("is no bridge" in reason for _, reason in reader.states), "it is told")
    assert "BRIDGE_UNREACHABLE" in source.problems()
    assert not any(path.startswith("/ws") for _, path in bridge.asked)


async def test_a_bridge_without_data_is_silent_until_it_has_some(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    source = await reader.start(bridge.address)
    await eventually(lambda: any("the bridge has none" in reason for _, reason in reader.states), "it is told")
    assert "BRIDGE_SILENT" in source.problems()
    assert reader.prices() == []
    bridge.set(NQ, 23500.25)
    await eventually(lambda: source.status.state in {BridgeState.POLLING, BridgeState.STREAMING}, "prices come")
    await moved(bridge, reader, [23500.5])
    assert source.problems() == {}


async def test_other_symbols_are_never_taken_for_the_wanted_one(reader: Reader, stack: AsyncExitStack) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    for price in (46000.0, 46001.0, 46002.0):
        bridge.set("YMZ26-CBOT", price)
    source = await reader.start(bridge.address)
    await eventually(lambda: source.status.refused.get("OTHER_SYMBOL", 0) > 2, "others are refused")
    assert reader.prices(NQ) == reader.prices(ES) == []
    assert source.status.symbols_offered == ("YMZ26-CBOT",)
    await eventually(lambda: any(f"it has no {NQ}, {ES}" in reason for _, reason in reader.states), "it is told")


async def test_a_restart_goes_on_in_the_same_file_and_epoch_and_doubles_nothing(
    reader: Reader, market: Any, stack: AsyncExitStack
) -> None:
    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.set(NQ, 23500.25)
    await reader.start(bridge.address)
    await moved(bridge, reader, [23500.5, 23500.75])
    await eventually(lambda: len(market.newest) == 2, "market data has two")
    await reader.stop()
    bridge.set(NQ, 23600.0)
    await reader.start(bridge.address)
    await moved(bridge, reader, [23600.25])
    await eventually(lambda: len(market.newest) == 3, "market data has three")
    market.restart()
    await eventually(lambda: len(market.newest) == 3, "market data has them again")
    nq = {opening.epoch for opening in market.openings if opening.symbol == NQ}
    assert len(nq) == 1
    assert reader.prices() == [23_500_500_000_000, 23_500_750_000_000, 23_600_250_000_000]


async def test_a_disk_that_refuses_is_told_and_left_out(
    reader: Reader, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minhos_mesh.sierra_client.bridge_journal import BridgeJournal
    from minhos_mesh.sierra_files.header import ScidError

    bridge = await stack.enter_async_context(FakeBridge().running())
    bridge.set(NQ, 23500.25)
    source = await reader.start(bridge.address)
    await moved(bridge, reader, [23500.5])

    def refusing(*_: object) -> None:
        raise ScidError("NQZ26-CME.scid cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(BridgeJournal, "write", refusing)
        bridge.set(NQ, 23501.0)
        await reader.sees(BridgeState.ERROR)
        assert "No space left" in source.problems()["FILE_NOT_WRITTEN"]
    await moved(bridge, reader, [23502.0])
    await reader.sees(BridgeState.STREAMING)
    assert reader.prices() == [23_500_500_000_000, 23_502_000_000_000]
