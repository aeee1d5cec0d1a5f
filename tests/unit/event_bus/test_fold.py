"""The write-ahead log does not grow for ever, and what is folded in is what was stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.engines import sqlite_fold
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import Database

MakeEvent = Callable[..., NewEvent]
ROUNDS = 60


async def test_the_log_is_begun_anew_while_publishing_goes_on(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_fold, "EVERY_S", 0.002)
    monkeypatch.setattr(sqlite_fold, "LONG_PAGES", 64)
    path = tmp_path / "bus.db"
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        async with sqlite_fold.folding(database):
            rounds, log = 0, path.with_name("bus.db-wal")
            async with asyncio.timeout(30):
                while rounds < ROUNDS or log.stat().st_size >= path.stat().st_size / 2:
                    await engine.append([make_event(envelope=b"x" * 4000) for _ in range(20)])
                    await asyncio.sleep(0.003)
                    rounds += 1
        assert len((await engine.read(0, ALL, 20 * rounds + 1)).events) == 20 * rounds
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        assert engine.bounds.newest == 20 * rounds
