"""Background tasks have an owner: failures are reported once, and none is left behind."""

from __future__ import annotations

import asyncio

import pytest

from minhos_mesh.runtime import tasks
from minhos_mesh.runtime.tasks import OwnedTasks


class Broken(Exception):
    pass


async def fail() -> None:
    raise Broken("broken")


async def until_done(owned: OwnedTasks) -> None:
    async with asyncio.timeout(10):
        while len(owned):
            await asyncio.sleep(0)


async def test_failure_is_reported_with_the_name_of_the_task() -> None:
    told: list[tuple[str, str]] = []
    owned = OwnedTasks(lambda name, error: told.append((name, str(error))))
    owned.start(fail(), "relay")
    await until_done(owned)
    assert told == [("relay", "broken")]
    await owned.close()


async def test_task_that_returns_or_is_cancelled_is_no_failure() -> None:
    told: list[str] = []
    owned = OwnedTasks(lambda name, _: told.append(name))
    owned.start(asyncio.sleep(0), "short")
    owned.start(asyncio.sleep(1000), "long").cancel()
    await until_done(owned)
    assert told == []
    await owned.close()


async def test_closing_cancels_and_waits_for_what_tasks_still_have_to_do() -> None:
    done: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            done.append("tidied")

    owned = OwnedTasks()
    owned.start(tidy(), "tidy")
    await asyncio.sleep(0)
    await owned.close()
    assert done == ["tidied"]
    assert len(owned) == 0


async def test_failure_while_closing_is_no_failure_of_the_service() -> None:
    told: list[str] = []

    async def fail_late() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise Broken

    owned = OwnedTasks(lambda name, _: told.append(name))
    owned.start(fail_late(), "late")
    await asyncio.sleep(0)
    await owned.close()
    assert told == []


async def test_task_that_will_not_end_is_left_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CLOSE_DEADLINE_S", 0.02)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    owned = OwnedTasks()
    task = owned.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await owned.close()
    assert not task.done()
    release.set()
    await task


async def test_nothing_is_started_once_the_group_closes() -> None:
    owned = OwnedTasks()
    await owned.close()
    with pytest.raises(RuntimeError, match="task late was started while its group closes"):
        owned.start(asyncio.sleep(0), "late")
