"""What the store promises: on disk when acknowledged, one bad write undoes only itself, errors that name the file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from minhos_mesh.runtime.storage import (
    Connection,
    Database,
    Durability,
    StorageBusy,
    StorageClosed,
    StorageCorrupt,
    StorageError,
    StorageTooNew,
)

SCHEMA = "CREATE TABLE fact (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"


def put(text: str) -> Callable[[Connection], int]:
    def fn(connection: Connection) -> int:
        return connection.execute("INSERT INTO fact (text) VALUES (?)", (text,)).lastrowid or 0

    return fn


def texts(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM fact ORDER BY id")]


async def test_a_write_returns_its_result_and_a_read_sees_it(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        assert await db.write(put("one")) == 1
        assert await db.read(texts) == ["one"]


@pytest.mark.parametrize(("durability", "value"), [(Durability.FULL, 2), (Durability.NORMAL, 1)])
async def test_durability_and_wal_are_in_force(tmp_path: Path, durability: Durability, value: int) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA], durability=durability) as db:
        assert await db.write(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (value,)
        assert await db.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await db.write(lambda c: c.execute("PRAGMA foreign_keys").fetchone()) == (1,)


async def test_a_failing_write_in_a_group_undoes_only_itself(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:

        def half(connection: Connection) -> None:
            put("half")(connection)
            raise ValueError("no")

        results = await asyncio.gather(
            db.write(put("one")), db.write(half), db.write(put("one")), db.write(put("two")), return_exceptions=True
        )
        assert results[0] == 1
        assert isinstance(results[1], ValueError)
        assert isinstance(results[2], sqlite3.IntegrityError)
        assert await db.read(texts) == ["one", "two"]


async def test_a_failing_write_alone_leaves_nothing(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:

        def half(connection: Connection) -> None:
            put("half")(connection)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await db.write(half)
        await db.write(put("one"))
        assert await db.read(texts) == ["one"]


async def test_concurrent_writes_share_one_commit(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        gate = threading.Event()
        first = asyncio.create_task(db.write(lambda _: gate.wait(5)))
        others = [asyncio.create_task(db.write(put(str(n)))) for n in range(100)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *others)
        assert db.counters.commits <= 3
        assert await db.read(texts) == [str(n) for n in range(100)]


async def test_a_cancelled_caller_still_has_its_write_announced(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        gate = threading.Event()
        announced: list[int] = []
        blocker = asyncio.create_task(db.write(lambda _: gate.wait(5)))
        gone = asyncio.create_task(db.write(put("one"), then=announced.append))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        await blocker
        await db.write(put("two"), then=announced.append)
        assert announced == [1, 2]


async def test_who_does_not_wait_is_told_in_the_order_of_commits(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA], group_limit=3) as db:
        gate = threading.Event()
        seen: list[tuple[object, str]] = []
        blocker = asyncio.create_task(db.write(lambda _: gate.wait(5)))
        await asyncio.sleep(0)
        for number in range(7):
            db.write_soon(put(str(number)), lambda value, error: seen.append((value, type(error).__name__)))
        db.write_soon(put("0"), lambda value, error: seen.append((value, type(error).__name__)))
        others = [
            asyncio.create_task(db.write(put(f"x{n}"), then=lambda row: seen.append((row, "")))) for n in range(2)
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(blocker, *others)
        assert [value for value, _ in seen] == [1, 2, 3, 4, 5, 6, 7, None, 8, 9]
        assert seen[7][1] == "IntegrityError"
        assert await db.read(texts) == ["0", "1", "2", "3", "4", "5", "6", "x0", "x1"]
    with pytest.raises(StorageClosed):
        db.write_soon(put("late"), lambda value, error: None)


async def test_commit_listeners_hear_of_a_commit_right_behind_the_caller_who_waited(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        heard: list[str] = []
        db.on_commit(lambda: heard.append("commit"))
        await db.write(put("one"))
        heard.append("caller")
        await asyncio.sleep(0)
        assert heard == ["caller", "commit"]


async def test_a_full_queue_makes_the_caller_wait_and_loses_nothing(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA], queue_limit=2) as db:
        await asyncio.gather(*(db.write(put(str(n))) for n in range(50)))
        assert len(await db.read(texts)) == 50


async def test_a_write_that_ends_the_transaction_itself_is_refused(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        with pytest.raises(StorageError, match="ended before its commit"):
            await db.write(lambda c: c.execute("ROLLBACK"))
        assert await db.write(put("after")) == 1


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "a.db", migrations=[SCHEMA]) as db:
        with pytest.raises(StorageError, match="readonly"):
            await db.read(put("one"))


async def test_closing_commits_what_was_accepted_and_then_refuses(tmp_path: Path) -> None:
    db = Database(tmp_path / "a.db", migrations=[SCHEMA])
    async with db:
        writes = [asyncio.create_task(db.write(put(str(n)))) for n in range(10)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*writes) == list(range(1, 11))
    with pytest.raises(StorageClosed):
        await db.write(put("late"))
    with pytest.raises(StorageClosed):
        await db.read(texts)


async def test_closing_has_a_deadline(tmp_path: Path) -> None:
    gate = threading.Event()
    db = Database(tmp_path / "a.db", migrations=[SCHEMA], close_deadline_s=0.05)
    await db.__aenter__()
    stuck = asyncio.create_task(db.write(lambda _: gate.wait(5)))
    await asyncio.sleep(0)
    with pytest.raises(StorageError, match="not closed within"):
        await db.close()
    gate.set()
    assert await stuck is True


async def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=[SCHEMA]) as db:
        await db.write(put("one"))
    second = "ALTER TABLE fact ADD COLUMN note TEXT DEFAULT 'none'; CREATE TABLE other (id INTEGER)"
    async with Database(path, migrations=[SCHEMA, second]) as db:
        assert await db.read(lambda c: c.execute("SELECT text, note FROM fact").fetchall()) == [("one", "none")]


async def test_a_failing_migration_leaves_the_version_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(StorageError, match="migration 2 failed"):
        async with Database(path, migrations=[SCHEMA, "CREATE TABLE half (id INTEGER); NONSENSE"]):
            pass
    async with Database(path, migrations=[SCHEMA]) as db:
        tables = await db.read(lambda c: c.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall())
        assert tables == [("fact",)]


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=[SCHEMA, "CREATE TABLE b (id INTEGER)"]):
        pass
    with pytest.raises(StorageTooNew, match="has version 2, this program knows up to 1"):
        async with Database(path, migrations=[SCHEMA]):
            pass


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(StorageCorrupt, match=r"a\.db: not a healthy SQLite database"):
        async with Database(path, migrations=[SCHEMA]):
            pass


async def test_a_damaged_page_is_found_when_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Database(path, migrations=[SCHEMA]) as db:
        rows = [(f"{n:0200}",) for n in range(500)]
        await db.write(lambda c: c.executemany("INSERT INTO fact (text) VALUES (?)", rows))
    with path.open("r+b") as file:
        file.seek(4096 * 6)
        file.write(b"\xff" * 4096)
    with pytest.raises(StorageCorrupt, match=r"a\.db"):
        async with Database(path, migrations=[SCHEMA]):
            pass


async def test_a_foreign_lock_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minhos_mesh.runtime.storage._BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "a.db"
    async with Database(path, migrations=[SCHEMA]) as db:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusy, match="another process holds the write lock"):
            await db.write(put("one"))
        other.execute("ROLLBACK")
        other.close()
        assert await db.write(put("one")) == 1


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        async with Database(tmp_path / "file" / "a.db", migrations=[SCHEMA]):
            pass


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from minhos_mesh.runtime.storage import Database

        async def main():
            async with Database(Path({str(tmp_path / "a.db")!r}), migrations=[{SCHEMA!r}]) as db:
                for n in range(1_000_000):
                    await db.write(lambda c: c.execute("INSERT INTO fact (text) VALUES (?)", (str(n),)).lastrowid)
                    print(n, flush=True)

        asyncio.run(main())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [line for line in child.stdout.readlines() if line.endswith(b"\n")]
    with sqlite3.connect(tmp_path / "a.db") as connection:
        stored = {text for (text,) in connection.execute("SELECT text FROM fact")}
    connection.close()
    assert {line.decode().strip() for line in acknowledged} <= stored
