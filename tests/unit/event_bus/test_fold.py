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


async def test_a_log_that_is_used_gets_its_whole_length_and_loses_nothing_by_it(
    tmp_path: Path, make_event: MakeEvent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_fold, "EVERY_S", 0.002)
    monkeypatch.setattr(sqlite_fold, "IN_USE_PAGES", 16)
    monkeypatch.setattr(sqlite_fold, "PIECE_BYTES", 1 << 20)
    path = tmp_path / "bus.db"
    log, whole = path.with_name("bus.db-wal"), sqlite_fold.LONG_PAGES * 4120
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        async with sqlite_fold.folding(database):
            count = 0
            async with asyncio.timeout(30):
                while log.stat().st_size < whole:
                    await engine.append([make_event(envelope=b"x" * 4000) for _ in range(5)])
                    count += 5
            await engine.append([make_event()])
            copied = tmp_path / "copied.db"  # as it would be found after the death of the process
            copied.write_bytes(path.read_bytes())
            copied.with_name("copied.db-wal").write_bytes(log.read_bytes())
            async with Database(copied, migrations=MIGRATIONS) as found:
                other = SqliteEngine(found, clock)
                await other.start()
                assert other.bounds.newest == count + 1


async def test_a_log_is_not_lengthened_where_there_is_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "bus.db-wal"
    log.write_bytes(b"")
    assert sqlite_fold._lengthened(log, 1000)
    monkeypatch.setattr(sqlite_fold, "PLENTY", 1 << 60)
    assert not sqlite_fold._lengthened(log, 2000)
    assert log.stat().st_size == 1000
