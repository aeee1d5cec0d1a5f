from __future__ import annotations

import asyncio

import pytest

from minhos_mesh.runtime.clock import ManualClock, SystemClock


async def test_a_manual_clock_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(wall_ns=5_000_000_000, monotonic=1.0)
    assert (clock.wall_ns(), clock.monotonic()) == (5_000_000_000, 1.0)
    clock.advance(0.25)
    assert (clock.wall_ns(), clock.monotonic()) == (5_250_000_000, 1.25)


async def test_advancing_wakes_those_who_are_due_and_no_others() -> None:
    clock = ManualClock(monotonic=0.0)
    early = asyncio.ensure_future(clock.sleep_until(1.0))
    late = asyncio.ensure_future(clock.sleep_until(2.0))
    await asyncio.sleep(0)
    assert clock.next_wake() == 1.0
    clock.advance(1.0)
    await asyncio.sleep(0)
    assert (early.done(), late.done(), clock.next_wake()) == (True, False, 2.0)
    late.cancel()
    await asyncio.wait([late])
    assert clock.next_wake() is None


async def test_a_time_that_has_passed_is_not_waited_for() -> None:
    clock = ManualClock(monotonic=10.0)
    await clock.sleep_until(10.0)
    await SystemClock().sleep_until(0.0)


async def test_many_small_steps_lose_nothing() -> None:
    clock = ManualClock(wall_ns=0, monotonic=0.0)
    for _ in range(1000):
        clock.advance(0.001)
    assert clock.wall_ns() == 1_000_000_000
    assert clock.monotonic() == 1.0


def test_a_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="cannot be advanced by -1 ns"):
        ManualClock().advance_ns(-1)


async def test_the_system_clock_sleeps_at_least_as_long_as_asked() -> None:
    clock = SystemClock()
    until = clock.monotonic() + 0.01
    await clock.sleep_until(until)
    assert clock.monotonic() >= until
