from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from minhos_mesh.registry import attach_limits
from minhos_mesh.registry.attach_limits import AttachLimits, Bounds, Bucket, TooMuch
from minhos_mesh.registry.domain.directory import Known, Present
from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.instances import Instances
from minhos_mesh.runtime.clock import ManualClock

BUS = InstanceKey("bus", "bus-1")


class Listener:
    """Told of everything, and interested in nothing."""

    def arrived(self, *_told: object) -> None: ...

    def departed(self, *_told: object) -> None: ...

    def moved(self, *_told: object) -> None: ...

    def failed(self, *_told: object) -> None: ...

    def changed(self) -> None: ...


class Room:
    """A registry that plans one service, `bus`, as far as its limits are concerned."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.clock = ManualClock()
        self.instances = Instances(None, self.clock, 3.0, Listener())  # type: ignore[arg-type] # nothing is stored here
        self.limits = AttachLimits(self.clock, ["bus"], self.instances, bounds or Bounds())
        self.known: dict[str, Known] = {"bus": Known("bus")}

    def there(self, service: str, number: int, **fields: object) -> None:
        self.known.setdefault(service, Known(service))
        present = Present(InstanceKey(service, f"{service}-{number}"), "127.0.0.1", 1, (), "", 0, "", 0)
        self.instances.add_unleased(replace(present, **fields))  # type: ignore[arg-type] # fields of a test by name

    def enter(self, service: str, instance: str = "new") -> None:
        with self.limits.entering(InstanceKey(service, instance), self.known):
            pass


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(attach_limits, "MAX_INSTANCES", 6)
    monkeypatch.setattr(attach_limits, "KEPT_FOR_PLAN", 2)
    monkeypatch.setattr(attach_limits, "MAX_STRANGERS", 2)
    return Room(Bounds(of_service=3))


def refused(limit: str, seen: object, allowed: object) -> AbstractContextManager[object]:
    return pytest.raises(TooMuch, match=f"^{limit}: {seen}, allowed are {allowed}$")


def test_a_bucket_lets_its_burst_through_at_once_and_its_rate_in_the_long_run() -> None:
    bucket = Bucket.full(rate=10, burst=5, now=0.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(0.1), bucket.take(0.1)] == [True, False]
    assert sum(bucket.take(1.0 + n / 100) for n in range(1_000)) == pytest.approx(5 + 100, abs=2)


def test_a_service_may_have_so_many_instances(room: Room) -> None:
    for number in range(3):
        room.enter("bus")
        room.there("bus", number)
    with refused("attached instances of bus", 3, 3):
        room.enter("bus")
    room.enter("bus", "bus-2")  # which comes back


def test_instances_that_are_gone_take_no_room(room: Room) -> None:
    for number in range(3):
        room.there("bus", number, silence=Silence.LOST)
    room.enter("bus", "bus-1")


def test_instances_that_are_being_admitted_count(room: Room) -> None:
    room.there("bus", 0)
    with room.limits.entering(BUS, room.known), room.limits.entering(BUS, room.known), refused("attached.*", 3, 3):
        room.enter("bus")
    room.enter("bus")


def test_strangers_cannot_take_the_room_that_is_kept_for_the_plan(room: Room) -> None:
    for number in range(2):
        room.there("one", number)
        room.there("two", number)
    with refused("attached instances", 4, 4):
        room.enter("one")
    room.enter("bus")


def test_so_many_services_may_attach_that_nobody_planned(room: Room) -> None:
    room.there("one", 1)
    room.there("two", 1)
    assert room.limits.to_forget(room.known) is None
    with refused("services that attached by themselves", 2, 2):
        room.enter("three")
    room.enter("two")


def test_the_stranger_that_was_lost_longest_ago_is_forgotten_for_another(room: Room) -> None:
    for name, lost_at in (("one", 7.0), ("two", 5.0)):
        room.there(name, 1, silence=Silence.LOST)
        room.known[name] = replace(room.known[name], lost_at=lost_at)
    assert room.limits.to_forget(room.known) == "two"


def test_a_service_that_somebody_wants_is_not_forgotten(room: Room) -> None:
    room.known |= {"one": Known("one", wanted=True), "two": Known("two", wanted=False)}
    assert room.limits.to_forget(room.known) is None


def test_hellos_of_strangers_do_not_use_up_those_of_the_plan(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        room.enter("one")
    with refused("hellos of services that nobody planned, a second", "more than 200", 200):
        room.enter("two")
    room.enter("bus")
    room.clock.advance(0.01)
    room.enter("two")


def test_heartbeats_faster_than_allowed_are_refused() -> None:
    room = Room()
    beats = room.limits.beats()
    for _second in range(20):
        for _beat in range(50):
            room.limits.check_beat(beats)
        room.clock.advance(1.0)
    with refused("heartbeats a second", "more than 50", 50):
        for _beat in range(300):
            room.limits.check_beat(beats)


async def test_the_stream_that_was_silent_longest_gives_way() -> None:
    few = Room(Bounds(silent=2))
    ended: list[str] = []

    async def stream(name: str) -> None:
        told = None
        try:
            async with asyncio.timeout(30) as deadline:
                with few.limits.silence(deadline) as told:
                    await asyncio.Event().wait()
        except TimeoutError:
            assert told is not None
            ended.append(f"{name}: {told.too_many()}")

    tasks = []
    for name in "abcd":
        tasks.append(asyncio.create_task(stream(name)))
        await asyncio.sleep(0)
    await asyncio.wait(tasks[:2])
    assert [line[0] for line in ended] == ["a", "b"]
    assert ended[0] == "a: streams that have not said hello: more than 2, allowed are 2"
    assert few.limits.silent == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert few.limits.silent == 0
