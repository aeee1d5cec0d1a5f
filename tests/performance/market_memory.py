"""Measures what memory market data and a reader hold while many millions of ticks go through them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from tests.performance.market_scenes import Crowd, mesh
from tests.performance.mesh_run import own_mb
from tests.performance.results import Metric, Settings

LAP: Final = 2_000_000
LAPS: Final = 25
"""50 million ticks."""
RING: Final = 2_097_152


async def memory(settings: Settings) -> Sequence[Metric]:
    """Before, behind the first lap, which fills what is held, and behind 50 million ticks."""
    held: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        scene = await mesh(stack, settings.folder / "memory", Crowd(1), ring=RING)
        pids = (scene.between[0], scene.readers[0].process.pid)
        for number in range(LAPS + 1):
            if number:
                await scene.flood(LAP)
            held.append((own_mb(pids[0]), own_mb(pids[1])))
            settings.say(
                f"{number * LAP / 1e6:.0f} M ticks: market data {held[-1][0]:.0f} MB, reader {held[-1][1]:.0f} MB"
            )
    through = f"{(len(held) - 1) * LAP / 1e6:.0f} million ticks"
    return [
        metric
        for index, who in enumerate(("market data", "a reader"))
        for metric in (
            Metric(f"memory of {who} before the first tick", "MB", [held[0][index]]),
            Metric(
                f"memory of {who} behind {through}", "MB", [held[-1][index]],
                f"behind the first {LAP / 1e6:.0f} million", [held[1][index]],
            ),
        )
    ]  # fmt: skip


MEMORY: Final = (memory,)
"""Sections for the benchmark of market data."""
