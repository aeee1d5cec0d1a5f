"""Two owners of one store: the one with the higher token writes, the other is refused and told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from minhos_mesh.runtime.fencing import Fence, FencedOut, newest_token
from minhos_mesh.runtime.storage import Database

MIGRATION = "CREATE TABLE facts (fact TEXT NOT NULL)"


def store(path: Path, fence: Fence | None) -> Database:
    return Database(path, migrations=[MIGRATION], guard=fence)


async def add(database: Database, fact: str) -> None:
    await database.write(lambda connection: connection.execute("INSERT INTO facts VALUES (?)", (fact,)))


def facts(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [fact for (fact,) in connection.execute("SELECT fact FROM facts ORDER BY rowid")]
    finally:
        connection.close()


async def test_an_owner_that_was_replaced_cannot_write_and_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "a.db", list[FencedOut]()
    async with store(path, Fence("a-1", 5, told.append)) as old:
        await add(old, "of the first")
        async with store(path, Fence("a-2", 7)) as new:
            with pytest.raises(FencedOut, match="a-2 owns it with token 7, this process had 5"):
                await add(old, "of the first, too late")
            await add(new, "of the second")
    assert [str(error) for error in told] == [f"{path}: a-2 owns it with token 7, this process had 5"]
    assert facts(path) == ["of the first", "of the second"]


async def test_an_owner_whose_token_was_renewed_meanwhile_is_still_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fence = Fence("a-1", 5)
    async with store(path, fence) as old, store(path, Fence("a-2", 7)):
        fence.token = 9  # a lease that it got after it had been frozen
        with pytest.raises(FencedOut):
            await add(old, "too late")


@pytest.mark.parametrize("token", [1, 6, 7])
async def test_a_store_is_not_opened_with_a_token_that_is_not_higher(tmp_path: Path, token: int) -> None:
    path = tmp_path / "a.db"
    async with store(path, Fence("a-2", 7)) as owner:
        await add(owner, "x")
        with pytest.raises(FencedOut, match=f"token {token} cannot open it, a-2 did with token 7"):
            async with store(path, Fence("a-1", token)):
                pass
        await add(owner, "y")
    assert facts(path) == ["x", "y"]


async def test_the_newest_token_outlives_its_owner_and_can_be_read_without_owning(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert newest_token(path) is None
    async with store(path, None):
        assert newest_token(path) is None
    async with store(path, Fence("a-1", 12)):
        assert newest_token(path) == 12
    assert newest_token(path) == 12


async def test_without_a_registry_the_last_to_open_a_store_owns_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with store(path, Fence("a-1", None)) as first:
        await add(first, "x")
        async with store(path, Fence("a-2", None)) as second:
            await add(second, "y")
            with pytest.raises(FencedOut):
                await add(first, "z")
    assert facts(path) == ["x", "y"]


async def test_all_writes_of_a_group_are_refused_together(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with store(path, Fence("a-1", 1)) as old, store(path, Fence("a-2", 2)):
        first = old.write(lambda connection: connection.execute("INSERT INTO facts VALUES ('p')"))
        second = old.write(lambda connection: connection.execute("INSERT INTO facts VALUES ('q')"))
        for writing in (first, second):
            with pytest.raises(FencedOut):
                await writing
    assert facts(path) == []


def test_a_file_that_is_no_store_has_no_token(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database, and long enough to be looked at as one" * 20)
    assert newest_token(path) is None
