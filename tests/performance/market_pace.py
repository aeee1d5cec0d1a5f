"""Measures how long a tick takes to its reader when ticks come at a steady pace, each as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tests.performance.market_scenes import MESH, RAW, RAW_RELAYED, ZMQ, Crowd, Lap, Scene, mesh, pyzmq, raw
from tests.performance.results import Metric, Reach, Settings

PER_S: Final = (500, 2_000, 10_000)
LAP_S: Final = 1.0
WARM: Final = 1_000
"""Ticks before anything is measured."""
REST_S: Final = 0.2
REACH: Final = Reach(1.3, of_ratio=True)
REACHED_AT: Final = 2_000


async def latency_one_reader(settings: Settings) -> Sequence[Metric]:
    """All ways with one reader."""
    return await _pace(settings, 1)


async def latency_four_readers(settings: Settings) -> Sequence[Metric]:
    """All ways with four readers in processes of their own."""
    return await _pace(settings, 4)


async def _pace(settings: Settings, count: int) -> Sequence[Metric]:
    laps: dict[tuple[int, str], list[Lap]] = {}
    for number in range(1, settings.rounds + 1):
        folder = settings.folder / f"pace-{count}-{number}"
        async with AsyncExitStack() as stack:
            scenes = await _scenes(stack, folder, Crowd(count))
            for scene in scenes:
                await scene.pace(WARM, PER_S[-1])
            for per_s in PER_S:
                # There and back, so that none always follows the same one.
                for scene in (*scenes, *reversed(scenes)):
                    lap = await scene.pace(int(per_s * LAP_S), per_s)
                    laps.setdefault((per_s, scene.name), []).append(lap)
                    settings.say(
                        f"{count} readers, round {number}, {per_s:,}/s, {scene.name}:"
                        f" p50 {lap.p50_us:.0f} us, p99 {lap.p99_us:.0f} us"
                    )
                    await asyncio.sleep(REST_S)
    return [metric for per_s in PER_S for metric in _metrics(laps, count, per_s)]


async def _scenes(stack: AsyncExitStack, folder: Path, crowd: Crowd) -> tuple[Scene, ...]:
    """Each round has processes of its own: where the system puts them decides about a tenth of their latency."""
    return (
        await mesh(stack, folder / "mesh", crowd),
        await raw(stack, crowd),
        await raw(stack, crowd, relayed=True),
        await pyzmq(stack, crowd),
    )


def _metrics(laps: dict[tuple[int, str], list[Lap]], count: int, per_s: int) -> list[Metric]:
    who = "1 reader" if count == 1 else f"slowest of {count} readers"
    at = f"at {per_s:,} ticks/s, {who}"
    ours = laps[per_s, MESH]
    metrics: list[Metric] = []
    for share in ("p50", "p99"):
        hops = [getattr(lap, f"hop_{share}_us") for lap in ours]
        direct = [getattr(lap, f"{share}_us") for lap in laps[per_s, RAW]]
        reach = REACH if share == "p50" and per_s == REACHED_AT and count == 1 else None
        metrics.append(Metric(f"market data to reader {at}, {share}", "us", hops, f"{RAW}, {share}", direct, reach))
        whole = [getattr(lap, f"{share}_us") for lap in ours]
        for name in (RAW_RELAYED, ZMQ):
            theirs = [getattr(lap, f"{share}_us") for lap in laps[per_s, name]]
            reach = reach if name == RAW_RELAYED else None
            metrics.append(Metric(f"source to reader {at}, {share}", "us", whole, f"{name}, {share}", theirs, reach))
    for name in (RAW, RAW_RELAYED, ZMQ):
        cpu = [lap.cpu_s_per_million for lap in laps[per_s, name]]
        mine = [lap.cpu_s_per_million for lap in ours]
        metrics.append(Metric(f"CPU for a million ticks {at}", "s", mine, name, cpu))
    return metrics


PACE: Final = (latency_one_reader, latency_four_readers)
"""Sections for the benchmark of market data."""
