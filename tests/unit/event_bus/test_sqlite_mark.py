"""A journal file that ends before what was acknowledged is noticed before it is opened, and left as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.engines.sqlite_mark import TailMark
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import Database, StorageCorrupt

MakeEvent = Callable[..., NewEvent]

WRITER = textwrap.dedent(
    """
    import asyncio, os, signal, sys, uuid
    from pathlib import Path
    from minhos_mesh.event_bus.domain.records import NewEvent
    from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
    from minhos_mesh.event_bus.engines.sqlite_mark import TailMark
    from minhos_mesh.runtime.clock import SystemClock
    from minhos_mesh.runtime.storage import Database

    async def main(path):
        async with Database(path, migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, SystemClock(), mark=TailMark(path))
            await engine.start()
            for _ in range(30):
                await engine.append([NewEvent(uuid.uuid4().bytes, "a.b", "s", "x", "", b"e" * 500)])
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(Path(sys.argv[1])))
    """
)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A journal of 30 events whose process was killed: they are in the write-ahead log only."""
    path = tmp_path / "a.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False, env=environment, timeout=30)
    assert done.returncode == -9
    return path


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


async def newest(path: Path) -> int:
    mark = TailMark(path)
    mark.verify()
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, ManualClock(), mark=mark)
        await engine.start()
        mark.close()
        return engine.bounds.newest


async def test_a_journal_whose_process_was_killed_is_whole(killed: Path) -> None:
    assert await newest(killed) == 30


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_flipped_bit_in_the_log_is_noticed_though_the_rest_of_it_reads_well(killed: Path, place: float) -> None:
    wal = wal_of(killed)
    content = bytearray(wal.read_bytes())
    content[int(len(content) * place)] ^= 4
    wal.write_bytes(content)
    with pytest.raises(StorageCorrupt, match=r"the journal (ends with event \d+|is empty), acknowledged was event 30"):
        TailMark(killed).verify()
    assert wal.read_bytes() == content


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_cut_log_is_noticed(killed: Path, size: int) -> None:
    os.truncate(wal_of(killed), size)
    with pytest.raises(StorageCorrupt, match="acknowledged was event 30"):
        TailMark(killed).verify()


async def test_an_emptied_and_a_missing_file_are_noticed(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "a.db"
    mark = TailMark(path)
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, ManualClock(), mark=mark)
        await engine.start()
        await engine.append([make_event()])
    mark.close()
    os.truncate(path, 0)
    with pytest.raises(StorageCorrupt, match="the journal is gone, acknowledged was event 1"):
        mark.verify()
    path.unlink()
    with pytest.raises(StorageCorrupt, match=r"remove .*a\.db-mark to go on"):
        mark.verify()
    mark.path.unlink()
    mark.verify()


async def test_an_older_copy_of_the_file_is_noticed_and_a_backup_is_welcome(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    path, copy, backup = tmp_path / "a.db", tmp_path / "copy.db", tmp_path / "backup.db"
    mark = TailMark(path)
    async with Database(path, migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, ManualClock(), mark=mark)
        await engine.start()
        await engine.append([make_event()])
        await engine.backup(backup)
        with sqlite3.connect(copy) as target:
            await database.read(lambda connection: connection.backup(target))
        target.close()
        await engine.append([make_event()])
    mark.close()
    shutil.copy(copy, path)
    with pytest.raises(StorageCorrupt, match="ends with event 1, acknowledged was event 2"):
        mark.verify()
    shutil.copy(backup, path)
    assert await newest(path) == 1
    assert await newest(path) == 1


async def test_the_same_backup_may_be_restored_again_and_each_time_the_end_is_watched_over(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    for restored in range(3):
        mark = TailMark(path)
        mark.verify()
        async with Database(path, migrations=MIGRATIONS) as database:
            engine = SqliteEngine(database, ManualClock(), mark=mark)
            await engine.start()
            await engine.append([make_event()])
            if not restored:
                await engine.backup(backup)
            for _ in range(3):
                await engine.append([make_event()])
            mark.move(engine.bounds.newest)
        mark.close()
        number, newest_marked = TailMark(path)._read() or (0, 0)
        assert number > 0
        assert newest_marked == engine.bounds.newest
        shutil.copy(backup, path)


async def test_a_damaged_mark_is_said_and_made_anew(killed: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = TailMark(killed)
    mark.path.write_bytes(b"nonsense")
    assert await newest(killed) == 30
    assert "is damaged" in caplog.text
    caplog.clear()
    assert await newest(killed) == 30
    assert not caplog.text
