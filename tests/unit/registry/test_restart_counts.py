from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minhos_mesh.registry.restart_counts import RestartCounts
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.runtime.storage import Database
from minhos_mesh.runtime.tasks import OwnedTasks


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with Database(tmp_path / "registry.db", migrations=MIGRATIONS) as database:
        yield SqliteStore(database)


class Life:
    """One life of a registry, as far as restarts are concerned."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.tasks = store, OwnedTasks()
        self.counts = RestartCounts(store, self.tasks.start, "registry")

    async def begin(self) -> int:
        return self.counts.take_back(await self.store.restarts())

    async def kept(self) -> dict[str, int]:
        while len(self.tasks):
            await asyncio.sleep(0)
        return dict(await self.store.restarts())


async def test_restarts_of_earlier_lives_are_added(store: SqliteStore) -> None:
    first = Life(store)
    assert await first.begin() == 0
    assert first.counts.total("a", 1, anew=False) == 1
    assert first.counts.total("a", 2, anew=False) == 2
    assert first.counts.total("b", 0, anew=False) == 0
    assert await first.kept() == {"a": 2, "registry": 1}
    second = Life(store)
    await second.begin()
    assert second.counts.total("a", 0, anew=False) == 2
    assert second.counts.total("a", 1, anew=False) == 3
    assert (await second.kept())["a"] == 3


async def test_a_stop_on_purpose_begins_anew(store: SqliteStore) -> None:
    life = Life(store)
    await life.begin()
    life.counts.total("a", 2, anew=False)
    await life.kept()
    second = Life(store)
    await second.begin()
    assert second.counts.total("a", 0, anew=True) == 0
    assert second.counts.total("a", 1, anew=False) == 1
    assert (await second.kept())["a"] == 1


async def test_the_registry_counts_its_own_lives_that_did_not_end_in_order(store: SqliteStore) -> None:
    lives = [Life(store) for _ in range(3)]
    for restarts, life in enumerate(lives):
        assert await life.begin() == restarts
        await life.kept()
    await lives[-1].counts.end_in_order()
    assert await Life(store).begin() == 0
