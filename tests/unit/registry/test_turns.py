"""Who gets the lease of a service that one instance alone may hold, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from minhos_mesh.registry.attachment import Claim
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.turns import MAX_WAITING, OwnerReplaced, TooManyWait, Turns


def present(instance_id: str, silence: Silence = Silence.LIVE) -> Present:
    return Present(
        key=InstanceKey("bus", instance_id), host="127.0.0.1", port=1, contracts=(), lease_id="", token=1, version="",
        attached_ns=0, silence=silence,
    )  # fmt: skip


def claim(instance_id: str, *, presented: int | None = None, single_owner: bool = True) -> Claim:
    key = InstanceKey("bus", instance_id)
    return Claim(key, "127.0.0.1", 1, (), {}, presented=presented, single_owner=single_owner)


@dataclass
class Hall:
    """The turns of one service, and what decides about them."""

    there: dict[str, Present] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    board: ReadinessBoard = field(default_factory=ReadinessBoard)
    had: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = Turns(lambda _service: self.there.values(), self.board)
        self.turns.processes = lambda _service: self.running

    def come(self, *instance_ids: str) -> None:
        self.there.update({name: present(name) for name in instance_ids})
        self.turns.look()

    def go(self, instance_id: str) -> None:
        self.there.pop(instance_id, None)
        self.running.discard(instance_id)
        self.turns.look()

    async def take(self, asked: Claim) -> None:
        async with self.turns.turn(asked):
            await asyncio.sleep(0)
            self.had.append(asked.key.instance_id)
            self.come(asked.key.instance_id)

    def stands_by(self, instance_id: str) -> bool:
        return self.board.stands_by("bus", instance_id)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def hall() -> Hall:
    return Hall()


async def test_the_first_one_has_its_turn_at_once(hall: Hall) -> None:
    hall.running = {"bus-1"}
    await hall.take(claim("bus-1"))
    assert hall.had == ["bus-1"]


@pytest.mark.parametrize(
    "held",
    [
        lambda hall: hall.come("bus-1"),
        lambda hall: hall.running.add("bus-1"),
        lambda hall: hall.there.update({"bus-1": present("bus-1", Silence.EXPIRED)}) or hall.running.add("bus-1"),
    ],
    ids=["another is attached", "its process runs still", "it is frozen and its lease ran out"],
)
async def test_the_next_one_stands_by_until_the_one_before_has_gone(hall: Hall, held: Callable[[Hall], None]) -> None:
    held(hall)
    waiting = asyncio.create_task(hall.take(claim("bus-2")))
    await settle()
    assert (hall.stands_by("bus-2"), hall.had) == (True, [])
    hall.go("bus-1")
    await waiting
    assert (hall.stands_by("bus-2"), hall.had) == (False, ["bus-2"])


async def test_what_is_gone_without_a_process_holds_nothing(hall: Hall) -> None:
    hall.there["bus-1"] = present("bus-1", Silence.EXPIRED)
    await hall.take(claim("bus-2"))
    assert hall.had == ["bus-2"]


async def test_of_many_that_wait_one_has_its_turn(hall: Hall) -> None:
    hall.come("bus-1")
    names = ["bus-2", "bus-3", "bus-4"]
    waiting = [asyncio.create_task(hall.take(claim(name))) for name in names]
    await settle()
    hall.running = set(names)
    hall.go("bus-1")
    await settle()
    assert len(hall.had) == 1
    hall.go(hall.had[0])
    await settle()
    assert len(hall.had) == 2
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_one_that_waits_and_goes_away_is_forgotten(hall: Hall) -> None:
    hall.come("bus-1")
    waiting = asyncio.create_task(hall.take(claim("bus-2")))
    await settle()
    waiting.cancel()
    await settle()
    assert not hall.stands_by("bus-2")


async def test_an_owner_whose_stream_broke_comes_back_past_those_that_wait(hall: Hall) -> None:
    hall.come("bus-1")
    hall.running = {"bus-1", "bus-2"}
    waiting = asyncio.create_task(hall.take(claim("bus-2")))
    await settle()
    await hall.take(claim("bus-1", presented=5))
    assert hall.had == ["bus-1"]
    waiting.cancel()
    await settle()


async def test_an_owner_that_comes_back_after_another_took_over_is_refused(hall: Hall) -> None:
    hall.come("bus-2")
    with pytest.raises(OwnerReplaced, match="bus/bus-1 was replaced: bus-2 has taken over"):
        await hall.take(claim("bus-1", presented=5))


async def test_those_that_own_nothing_alone_wait_for_nobody(hall: Hall) -> None:
    hall.come("bus-1")
    await hall.take(claim("bus-2", single_owner=False))
    assert hall.had == ["bus-2"]


async def test_the_crowd_that_waits_is_bounded(hall: Hall) -> None:
    hall.come("bus-0")
    waiting = [asyncio.create_task(hall.take(claim(f"bus-{number}"))) for number in range(1, MAX_WAITING + 1)]
    await settle()
    with pytest.raises(TooManyWait, match=f"{MAX_WAITING} instances stand by"):
        await hall.take(claim("one-too-many"))
    for task in waiting:
        task.cancel()
    await settle()
