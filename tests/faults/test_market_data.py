from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.waiting import freeze

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.market import (
    BarClosed,
    EpochChanged,
    Gap,
    MarketClient,
    MarketKind,
    MarketUpdate,
    Position,
    TickBatchView,
)
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field

SYMBOL = "NQZ26-CME"
INGEST = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER = "minhos_api.market.v1.MarketDataProviderService"
CHILD = Path(__file__).with_name("market_data_child.py")
ROOT = Path(__file__).parents[2]
TICKS = 20_000
START_NS = 1_700_000_000_000_000_000


def records() -> TickArray:
    """A source that repeats itself exactly: every tenth record is one that is refused."""
    ticks = new_ticks(TICKS)
    places = np.arange(TICKS)
    ticks["event_time_ns"] = START_NS + places * 250_000_000
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = (places % 400 + 1) * 250_000_000
    ticks["size"] = np.where(places % 10 == 9, 0, 1)
    ticks["flags"], ticks["kind"], ticks["side"] = 3, 1, 1
    return ticks


@asynccontextmanager
async def process(port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'generated'}"}
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), SYMBOL, str(port), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(20):
            bound = int(await child.stdout.readline())
        yield child, bound
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGKILL)
        await child.wait()


async def feed(clients: Clients, through: list[int], pace: asyncio.Semaphore) -> None:
    """Sends all records from where market data stands, again and again when it dies, as far as `pace` lets it."""
    ticks, rng = records(), np.random.default_rng(3)
    method: Any = clients.channel(INGEST).stream_stream(
        f"/{INGEST}/IngestTicks",
        request_serializer=bytes_or_message,
        response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
    )
    while through[0] < TICKS:
        call = method(wait_for_ready=True)
        try:
            opened = ingest_pb2.IngestOpen(source="file", symbol=SYMBOL, provenance=4, epoch=11)  # type: ignore[arg-type]  # SIMULATED
            await call.write(ingest_pb2.IngestTicksRequest(open=opened))
            at = (await call.read()).opened.through_position
            while at < TICKS:
                step = min(int(rng.integers(1, 300)), TICKS - at)
                if at + step > through[0]:
                    await pace.acquire()
                await call.write(in_field(1, encode_batch(SYMBOL, 4, 11, at + 1, ticks[at : at + step])))
                at += step
                while (answer := await call.read()).ack.through_position < at:
                    pass
                through[0] = max(through[0], answer.ack.through_position)
        except (grpc.aio.AioRpcError, AttributeError, asyncio.InvalidStateError):
            await asyncio.sleep(0.01)  # it died: the records are still here
        finally:
            call.cancel()


@pytest.mark.timeout(90)
async def test_ticks_go_on_without_gap_or_double_over_kill_9() -> None:
    through, pace, seen = [0], asyncio.Semaphore(0), list[MarketUpdate]()
    accepted = records()
    accepted = accepted[accepted["size"] > 0]
    async with process(0) as (first, port):
        clients = Clients({INGEST: f"127.0.0.1:{port}", PROVIDER: f"127.0.0.1:{port}"})
        reading = MarketClient(clients).subscribe(
            [SYMBOL], {MarketKind.TICKS, MarketKind.BARS}, resume={SYMBOL: Position(0, 0)}
        )

        async def read() -> None:
            async for update in reading:
                seen.append(update)
                if reading.positions[SYMBOL].sequence == len(accepted):
                    return

        reader, source = asyncio.create_task(read()), asyncio.create_task(feed(clients, through, pace))
        await _step(pace, through, 4_000)
        first.send_signal(signal.SIGKILL)
        await first.wait()
    for target in (9_000, 14_000):
        async with process(port) as (again, _):
            await _step(pace, through, target)
            again.send_signal(signal.SIGKILL)
            await again.wait()
    async with process(port):
        await _step(pace, through, TICKS)
        async with asyncio.timeout(30):
            await asyncio.gather(reader, source)
    await clients.close()
    batches = [update for update in seen if isinstance(update, TickBatchView)]
    numbers = [number for batch in batches for number in range(batch.first_sequence, batch.last_sequence + 1)]
    assert numbers == list(range(1, len(accepted) + 1))
    assert np.concatenate([batch.ticks["price_e9"] for batch in batches]).tolist() == accepted["price_e9"].tolist()
    assert not [update for update in seen if isinstance(update, Gap | EpochChanged)]
    bars = [update.bar for update in seen if isinstance(update, BarClosed)]
    assert bars[0].first_sequence == 1
    assert all(one.last_sequence + 1 == two.first_sequence for one, two in itertools.pairwise(bars))
    assert reading.reconnects >= 3


async def _step(pace: asyncio.Semaphore, through: list[int], target: int) -> None:
    async with asyncio.timeout(30):
        while through[0] < target:
            pace.release()
            await asyncio.sleep(0.001)


FROZEN = """
import sys, grpc
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
with grpc.insecure_channel(sys.argv[1]) as channel:
    wanted = pb2.MarketSubscription(symbols=[sys.argv[2]])
    for answer in MarketDataProviderServiceStub(channel).StreamMarketData(pb2.StreamMarketDataRequest(subscription=wanted)):
        print(answer.WhichOneof("message"), flush=True)
"""


@pytest.mark.timeout(60)
async def test_a_reader_whose_process_is_frozen_delays_nobody() -> None:
    through, pace = [0], asyncio.Semaphore(0)
    accepted = int(np.count_nonzero(records()["size"]))
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'generated'}"}
    async with process(0) as (_, port):
        frozen = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FROZEN, f"127.0.0.1:{port}", SYMBOL, stdout=asyncio.subprocess.PIPE, env=environment
        )
        clients = Clients({INGEST: f"127.0.0.1:{port}", PROVIDER: f"127.0.0.1:{port}"})
        reading = MarketClient(clients).subscribe([SYMBOL], resume={SYMBOL: Position(0, 0)})
        seen: list[MarketUpdate] = []

        async def read() -> None:
            async for update in reading:
                seen.append(update)
                if reading.positions[SYMBOL].sequence == accepted:
                    return

        try:
            assert frozen.stdout is not None
            async with asyncio.timeout(20):
                while await frozen.stdout.readline() != b"snapshot\n":
                    pass
            reader, source = asyncio.create_task(read()), asyncio.create_task(feed(clients, through, pace))
            await _step(pace, through, 1_000)
            await asyncio.to_thread(freeze, frozen.pid)
            await _step(pace, through, TICKS)
            async with asyncio.timeout(30):
                await asyncio.gather(reader, source)
        finally:
            frozen.kill()
            await frozen.wait()
            await clients.close()
    batches = [update for update in seen if isinstance(update, TickBatchView)]
    assert sum(map(len, batches)) == accepted
    assert not [update for update in seen if isinstance(update, Gap | EpochChanged)]
    assert reading.reconnects == 0
