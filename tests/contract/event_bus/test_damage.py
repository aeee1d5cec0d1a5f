"""What a caller hears of a journal that does not hold what was written to it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.contract.event_bus.conftest import Bus
from tests.contract.event_bus.speaking import code_and_reason, event

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_mesh.runtime.storage import StorageCorrupt

STORE_DAMAGED = ("DATA_LOSS", "STORE_DAMAGED")


def harm(folder: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "bus" / "store" / "event_bus.db", isolation_level=None)) as file:
        file.execute(statement)


async def test_a_damaged_event_is_told_and_the_others_are_read(stub: Any, tmp_path: Path) -> None:
    await stub.Publish(pb.PublishRequest(events=[event(subject=f"s{n}") for n in range(3)]))
    harm(tmp_path, "UPDATE event SET envelope = x'00' WHERE sequence = 2")
    assert await code_and_reason(stub.ListEvents(pb.ListEventsRequest())) == STORE_DAMAGED
    good = await stub.ListEvents(pb.ListEventsRequest(subject="s2"))
    assert [item.sequence for item in good.events] == [3]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE event SET type = 'service.stopped' WHERE sequence = 2", "event 2 does not have the bytes"),
        ("DELETE FROM event WHERE sequence = 2", "some are missing"),
        ("DELETE FROM event WHERE sequence = 3", "head is 3, its newest event 2"),
    ],
)
async def test_a_bus_does_not_start_on_a_journal_whose_newest_events_are_damaged(
    bus: Bus, stub: Any, tmp_path: Path, statement: str, told: str
) -> None:
    await stub.Publish(pb.PublishRequest(events=[event() for _ in range(3)]))
    await bus.stop()
    harm(tmp_path, statement)
    with pytest.raises(StorageCorrupt, match=told):
        await bus.start()


async def test_a_consumer_whose_memory_is_damaged_is_not_guessed(bus: Bus, stub: Any, tmp_path: Path) -> None:
    call = stub.Subscribe()
    opening = pb.SubscribeOpen(credit=1, durable=pb.DurableReader(name="c", member="m"))
    await call.write(pb.SubscribeRequest(open=opening))
    assert (await call.read()).HasField("opened")
    call.cancel()
    await bus.stop()
    harm(tmp_path, "UPDATE consumer SET state = replace(state, '\"position\": 0', '\"position\": 7')")
    with pytest.raises(StorageCorrupt, match="consumer c is not what was written"):
        await bus.start()
