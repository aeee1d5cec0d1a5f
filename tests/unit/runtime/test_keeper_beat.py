from __future__ import annotations

import asyncio

from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.keeper_beat import keep_beating
from minhos_mesh.runtime.keeper_client import KeeperRefused, KeeperUnavailable


class Keeper:
    """Takes words, and is away or older for the first two."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float]] = []
        self.failures: list[Exception] = [KeeperUnavailable("away"), KeeperRefused("BAD_REQUEST", "op: 'beat'")]

    async def beat(self, instance_id: str, silence_s: float) -> None:
        self.heard.append((instance_id, silence_s))
        if self.failures:
            raise self.failures.pop()


async def test_it_goes_on_over_a_keeper_that_is_away_and_within_what_a_keeper_takes() -> None:
    keeper, clock = Keeper(), ManualClock()
    task = asyncio.create_task(keep_beating(keeper, "registry-1", 100_000.0, clock))
    for _ in range(4):
        for _ in range(10):
            await asyncio.sleep(0)
        clock.advance(1.0)
    task.cancel()
    assert keeper.heard == [("registry-1", 600.0)] * 4
