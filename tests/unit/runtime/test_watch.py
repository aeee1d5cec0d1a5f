"""Every Watch: changes by revision, resume, a lost position, heartbeats, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.runtime import watch
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.errors import MeshError
from minhos_mesh.runtime.watch import RevisionLog, first_revision

LONG_S = 30.0
SHORT_S = 0.01


async def take(reader: AsyncIterator[tuple[int, str | None]], count: int) -> list[tuple[int, str | None]]:
    async with asyncio.timeout(10):
        return [await anext(reader) for _ in range(count)]


def filled(count: int, first: int = 0, held: int = 100) -> RevisionLog[str]:
    log: RevisionLog[str] = RevisionLog(first, held)
    for number in range(count):
        log.append(f"c{number + 1}")
    return log


async def test_reader_resumes_behind_any_revision_that_is_held() -> None:
    log = filled(3, first=10)
    for after in (10, 11, 12):
        assert await take(log.follow(after, LONG_S), 13 - after) == [(n, f"c{n - 10}") for n in range(after + 1, 14)]


async def test_reader_that_waits_gets_the_change_at_once() -> None:
    log = filled(1)
    reading = asyncio.create_task(take(log.follow(1, LONG_S), 2))
    await asyncio.sleep(0)
    assert log.append("c2") == 2
    log.append("c3")
    assert await reading == [(2, "c2"), (3, "c3")]


async def test_many_readers_get_every_change_in_order() -> None:
    log = filled(0)
    readers = [asyncio.create_task(take(log.follow(0, LONG_S), 50)) for _ in range(5)]
    for number in range(50):
        log.append(f"c{number + 1}")
        if number % 7 == 0:
            await asyncio.sleep(0)
    for reader in readers:
        assert await reader == [(n, f"c{n}") for n in range(1, 51)]


@pytest.mark.parametrize("after", [-1, 0, 6, 14, 99])
async def test_revision_that_is_not_held_is_out_of_range_with_what_is(after: int) -> None:
    log = filled(3, first=10)
    with pytest.raises(MeshError) as caught:
        await take(log.follow(after, LONG_S), 1)
    assert caught.value.code is grpc.StatusCode.OUT_OF_RANGE
    assert caught.value.metadata == {"asked": str(after), "oldest": "10", "newest": "13"}
    assert ("was never told" in caught.value.message) == (after > 13)


async def test_revision_is_lost_once_its_successor_is_dropped() -> None:
    log = filled(5, held=3)
    assert log.oldest_resumable == 2
    assert await take(log.follow(2, LONG_S), 3) == [(3, "c3"), (4, "c4"), (5, "c5")]
    with pytest.raises(MeshError):
        log.check(1)


async def test_reader_that_falls_behind_what_is_held_is_told_and_skips_nothing_silently() -> None:
    log = filled(2, held=2)
    reader = log.follow(0, LONG_S)
    assert await take(reader, 1) == [(1, "c1")]
    for number in range(3, 6):
        log.append(f"c{number}")
    with pytest.raises(MeshError) as caught:
        await take(reader, 1)
    assert caught.value.metadata == {"asked": "1", "oldest": "3", "newest": "5"}


async def test_silence_is_broken_by_heartbeats_with_the_newest_revision() -> None:
    log = filled(2)
    reader = log.follow(2, SHORT_S)
    assert await take(reader, 2) == [(2, None), (2, None)]
    log.append("c3")
    assert await take(reader, 1) == [(3, "c3")]
    assert await take(reader, 1) == [(3, None)]


async def test_a_change_in_the_instant_of_a_heartbeat_is_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(2)

    async def woken_too_late(_event: asyncio.Event, _timeout_s: float) -> bool:
        log.append("c3")
        return False

    monkeypatch.setattr(watch, "_woken", woken_too_late)
    reader = log.follow(2, SHORT_S)
    assert await take(reader, 2) == [(2, None), (3, "c3")], "who resumes behind the heartbeat misses nothing"


async def test_closing_ends_readers_that_wait() -> None:
    log = filled(1)

    async def read_all() -> list[tuple[int, str | None]]:
        return [item async for item in log.follow(0, LONG_S)]

    reading = asyncio.create_task(read_all())
    await asyncio.sleep(0)
    log.close()
    async with asyncio.timeout(10):
        assert await reading == [(1, "c1")]


def test_first_revision_grows_from_life_to_life() -> None:
    clock = ManualClock()
    before = first_revision(clock)
    clock.advance(1)
    assert first_revision(clock) >= before + 1_000_000, "a life may tell a million changes a second"


@given(held=st.integers(1, 8), count=st.integers(0, 20), after=st.integers(-2, 25))
def test_a_revision_is_resumable_exactly_when_all_behind_it_is_held(held: int, count: int, after: int) -> None:
    log = filled(count, held=held)
    resumable = max(0, count - held) <= after <= count
    try:
        log.check(after)
    except MeshError:
        assert not resumable
    else:
        assert resumable
