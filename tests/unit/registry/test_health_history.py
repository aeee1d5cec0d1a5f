from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.registry.domain.health import Assessment, Cause, Reason, State
from minhos_mesh.registry.domain.history import (
    KEPT_NS,
    KEPT_PER_SERVICE,
    MOST_IN_ALL,
    MOST_PER_SERVICE,
    HealthChange,
)
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.runtime.storage import Database

HOUR_NS = 3_600 * 10**9
NOW = 100 * KEPT_NS
SICK = Assessment(State.UNHEALTHY, (Reason(Cause.LEASE_EXPIRED, "a-1", "ran out"),))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with Database(tmp_path / "registry.db", migrations=MIGRATIONS) as database:
        yield SqliteStore(database)


def change(revision: int, time_ns: int, service: str = "a") -> HealthChange:
    return HealthChange(revision, service, State.HEALTHY, SICK, time_ns)


async def kept(store: SqliteStore, service: str | None = None, **bounds: int) -> list[int]:
    asked: dict[str, Any] = {"since_ns": None, "before_revision": None, "limit": 10_000, **bounds}
    return [c.revision for c in await store.list_changes(service=service, **asked)]


async def test_the_last_hundred_are_kept_however_old_they_are(store: SqliteStore) -> None:
    old = [change(n, n) for n in range(1, KEPT_PER_SERVICE + 51)]
    await store.append_changes([*old, change(200, NOW)], [])
    assert await kept(store) == [200, *range(KEPT_PER_SERVICE + 50, 51, -1)]


async def test_a_day_is_kept_even_when_it_has_more_than_a_hundred(store: SqliteStore) -> None:
    day = [change(n, NOW - KEPT_NS + n) for n in range(1, 500)]
    await store.append_changes([*day, change(500, NOW)], [])
    assert await kept(store) == list(range(500, 0, -1))
    await store.append_changes([change(501, NOW + 250)], [])
    assert await kept(store) == list(range(501, 249, -1))


async def test_a_service_that_flaps_all_day_is_bounded(store: SqliteStore) -> None:
    await store.append_changes([change(n, NOW + n) for n in range(1, MOST_PER_SERVICE + 500)], [])
    assert len(await kept(store)) == MOST_PER_SERVICE


async def test_all_services_together_are_bounded(store: SqliteStore) -> None:
    await store.append_changes([change(1, NOW, "b"), change(2, NOW, "c"), change(MOST_IN_ALL + 1, NOW)], [])
    assert await kept(store) == [MOST_IN_ALL + 1, 2]


async def test_one_service_does_not_push_another_out(store: SqliteStore) -> None:
    await store.append_changes([change(1, 0, "b"), *(change(n, NOW + n) for n in range(2, 3_000))], [])
    assert await kept(store, "b") == [1]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"since_ns": NOW + 3}, [5, 4, 3]),
        ({"until_ns": NOW + 3}, [2, 1]),
        ({"since_ns": NOW + 2, "until_ns": NOW + 4}, [3, 2]),
        ({"since_ns": NOW + 4, "until_ns": NOW + 4}, []),
        ({"until_ns": NOW + 5, "before_revision": 4}, [3, 2, 1]),
        ({"limit": 2}, [5, 4]),
    ],
)
async def test_a_range_of_time_holds_its_begin_and_not_its_end(
    store: SqliteStore, bounds: dict[str, int], expected: list[int]
) -> None:
    await store.append_changes([change(n, NOW + n) for n in range(1, 6)], [])
    assert await kept(store, None, **bounds) == expected


async def test_a_change_comes_back_as_it_was(store: SqliteStore) -> None:
    told = replace(change(1, NOW), after=Assessment(State.DEGRADED, (Reason(Cause.CONDITION, "NO_TICKS", "none"),)))
    await store.append_changes([told], [])
    assert await store.list_changes(service="a", since_ns=None, before_revision=None, limit=1) == (told,)
