"""When a source of lone ticks is told that they were taken: a few together, and none waits for more for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

from tests.waiting import eventually

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.feed import Provenance, Source, SymbolFeed
from minhos_mesh.market_data.live_feed import LiveFeed
from minhos_mesh.market_data.source_sessions import ACKNOWLEDGED_BATCHES, SourceSession
from minhos_mesh.market_data.translate import StreamEncoder, read_ingest_request
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.tick_layout import TickArray, wire_of
from minhos_mesh.runtime.ticks import TickBatchView, batch_in_field

SYMBOL, EPOCH, WALL_NS = "NQZ26-CME", 7, 1_790_000_000_000_000_000
MakeTicks = Callable[..., TickArray]


async def test_lone_ticks_are_acknowledged_a_few_together_and_the_rest_by_time(make_ticks: MakeTicks) -> None:
    feed = SymbolFeed(SYMBOL, Rules(250_000_000), 1_024)
    live = LiveFeed(feed, ManualClock(WALL_NS), replay_readers=0, grace_s=0)
    session = SourceSession(lambda _: live, StreamEncoder(lambda: 0.0))
    session.open(SYMBOL, Source("walk", Provenance.SIMULATED, EPOCH))
    ticks = make_ticks([(index, 4, 1, 1) for index in range(2 * ACKNOWLEDGED_BATCHES + 3)])
    told: list[int] = []

    async def say() -> None:
        while messages := await session.due():
            for message in messages:
                answer = ingest_pb2.IngestTicksResponse.FromString(message)
                told.append((answer.ack if answer.HasField("ack") else answer.opened).through_position)

    writer = asyncio.create_task(say())
    await asyncio.sleep(0)
    for index in range(len(ticks)):
        alone = batch_in_field(
            1, SYMBOL, int(Provenance.SIMULATED), EPOCH, index + 1, wire_of(ticks[index : index + 1])
        )
        batch = read_ingest_request(alone)
        assert isinstance(batch, TickBatchView)
        if not session.take_alone(batch):
            await session.take(batch)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await eventually(lambda: told[-1] == len(ticks), "the last few are acknowledged though no more come")
    session.heard_all = True
    session.wake()
    await writer
    session.close()
    apart = [later - earlier for earlier, later in pairwise(told)]
    assert max(apart) <= ACKNOWLEDGED_BATCHES, f"told was {told}"
    assert feed.sequence == len(ticks)
