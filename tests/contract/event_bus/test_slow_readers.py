"""Readers that stand still or are slow hold up nobody else, and what they miss can be seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.event_bus.conftest import Bus
from tests.performance.bus_pace import readers
from tests.waiting import freeze, thaw

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, Gap, Reading

EVENTS = 1_000
SUBJECTS = 5


async def publish(client: EventClient) -> None:
    for first in range(0, EVENTS, 50):
        payloads = [ServiceStarted(service=f"s{number}", instance_id="i") for number in range(first, first + 50)]
        events = [client.event(each, subject=f"s{number % SUBJECTS}") for number, each in enumerate(payloads)]
        await client.publish(events, timeout_s=10)


@pytest.mark.timeout(60)
async def test_a_reader_that_is_stopped_dead_holds_up_nobody_and_gets_everything_when_it_goes_on(
    bus: Bus, context: ServiceContext, admin: Any
) -> None:
    client, seen = EventClient(context), asyncio.Queue[int]()

    async def handle(event: event_pb2.Event) -> None:
        seen.put_nowait(event.sequence)

    await client.subscribe_types([], handle, Reading()).wait_open(10)
    async with readers(1, "bus", bus.address, "stopped") as (stopped,):
        await asyncio.to_thread(freeze, stopped.process.pid)
        await publish(client)
        async with asyncio.timeout(10):
            assert [await seen.get() for _ in range(EVENTS)] == list(range(1, EVENTS + 1))
        (consumer,) = (await admin.GetStats(admin_pb.GetStatsRequest())).consumers
        assert (consumer.name, consumer.lag) == ("stopped", EVENTS)
        thaw(stopped.process.pid)
        await stopped.settled(EVENTS)


@pytest.mark.timeout(60)
async def test_what_a_slow_reader_skips_is_counted_and_told(context: ServiceContext, admin: Any) -> None:
    client, goes_on, first = EventClient(context), asyncio.Event(), asyncio.Event()
    handled: list[int] = []
    gaps: list[Gap] = []

    async def handle(event: event_pb2.Event) -> None:
        handled.append(event.sequence)
        first.set()
        await goes_on.wait()

    reading = Reading(latest_per_subject=True, credit=1, on_gap=gaps.append)
    await client.subscribe_types([], handle, reading).wait_open(10)
    await publish(client)
    await asyncio.wait_for(first.wait(), 10)
    (reader,) = (await admin.GetStats(admin_pb.GetStatsRequest())).readers
    assert reader.lag > 0
    goes_on.set()
    async with asyncio.timeout(10):
        while not handled or handled[-1] < EVENTS:
            await asyncio.sleep(0.01)
    (reader,) = (await admin.GetStats(admin_pb.GetStatsRequest())).readers
    assert reader.skipped == sum(gap.skipped for gap in gaps) == EVENTS - len(handled)
    assert handled[-SUBJECTS:] == list(range(EVENTS - SUBJECTS + 1, EVENTS + 1))
