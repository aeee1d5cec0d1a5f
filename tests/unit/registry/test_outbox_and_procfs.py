from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from minhos_mesh.registry import outbox as outbox_module
from minhos_mesh.registry.outbox import Fact, Outbox
from minhos_mesh.registry.procfs import connects, pss_bytes, read, start_ticks
from minhos_mesh.registry.stores.sqlite import MIGRATIONS
from minhos_mesh.runtime.storage import Database


def fact(number: int) -> Fact:
    return Fact("service.started", f"s{number}", b"payload", number)


async def test_facts_wait_in_order_under_ids_that_stay(tmp_path: Path) -> None:
    async with Database(tmp_path / "r.db", migrations=MIGRATIONS) as database:
        await Outbox(database).add([fact(1), fact(2), fact(3)])
    async with Database(tmp_path / "r.db", migrations=MIGRATIONS) as database:
        outbox = Outbox(database)
        waiting = await outbox.first(2)
        assert [item.fact for item in waiting] == [fact(1), fact(2)]
        assert [item.event_id for item in await outbox.first(2)] == [item.event_id for item in waiting]
        assert {uuid.UUID(item.event_id).version for item in waiting} == {7}
        await outbox.forget(waiting[-1].position)
        assert [item.fact for item in await outbox.first(10)] == [fact(3)]


async def test_the_oldest_facts_are_given_up_when_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "KEPT_EVENTS", 3)
    async with Database(tmp_path / "r.db", migrations=MIGRATIONS) as database:
        outbox = Outbox(database)
        for number in range(5):
            await outbox.add([fact(number)])
        assert [item.fact.time_ns for item in await outbox.first(10)] == [2, 3, 4]


def test_a_process_is_told_from_its_successor_by_its_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = start_ticks(os.getpid())
    assert own is not None
    started = start_ticks(child.pid)
    assert started is not None
    assert started >= own
    child.kill()
    deadline = 200
    while start_ticks(child.pid) is not None and deadline:
        deadline -= 1
        os.sched_yield()
    child.wait()
    assert child.stdin is not None
    child.stdin.close()
    assert start_ticks(child.pid) is None
    assert read(child.pid) is None
    assert pss_bytes(child.pid) is None


async def test_a_port_is_known_to_be_open_or_closed() -> None:
    async def bye(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(bye, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await connects("127.0.0.1", port, 1.0) is True
    server.close()
    await server.wait_closed()
    assert await connects("127.0.0.1", port, 1.0) is False
