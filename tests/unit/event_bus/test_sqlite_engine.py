"""What the journal in a file promises of its file; what every engine promises stands in the contract tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import Database, StorageCorrupt

MakeEvent = Callable[..., NewEvent]


async def test_a_changed_event_is_never_served_as_good(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock
) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.append([make_event(), make_event()])
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("UPDATE event SET envelope = x'00' WHERE sequence = 2")
        connection.close()
        with pytest.raises(StorageCorrupt, match="event 2"):
            await engine.read(0, ALL, 10)
    async with Database(path, migrations=MIGRATIONS) as database:
        with pytest.raises(StorageCorrupt, match="event 2"):
            await SqliteEngine(database, clock).start()


async def test_an_event_that_is_missing_or_not_found_by_its_id_is_noticed_at_the_start(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock
) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        await SqliteEngine(database, clock).append([make_event() for _ in range(5)])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM event WHERE sequence = 3")
    connection.close()
    async with Database(path, migrations=MIGRATIONS) as database:
        with pytest.raises(StorageCorrupt, match="from 1 to 5 some are missing"):
            await SqliteEngine(database, clock).start()


async def test_a_journal_without_its_end_is_not_opened(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock
) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        await SqliteEngine(database, clock).append([make_event(), make_event()])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM event WHERE sequence = 2")
    connection.close()
    async with Database(path, migrations=MIGRATIONS) as database:
        with pytest.raises(StorageCorrupt, match="head is 2, its newest event 1"):
            await SqliteEngine(database, clock).start()
