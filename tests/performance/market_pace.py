"""Measures how long a tick takes to its reader when ticks come at a steady pace, each as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from tests.performance.market_scenes import MESH, RAW, RAW_RELAYED, Crowd, Lap, Scene, mesh, pyzmq, raw
from tests.performance.results import Metric, Reach, Settings

PER_S: Final = (500, 2_000, 10_000)
LAP_S: Final = 2.0
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
    crowd, folder = Crowd(count), settings.folder / f"pace-{count}"
    laps: dict[tuple[int, str], list[Lap]] = {}
    async with AsyncExitStack() as stack:
        scenes = [
            await mesh(stack, folder / "mesh", crowd),
            await raw(stack, crowd),
            await raw(stack, crowd, relayed=True),
            await pyzmq(stack, crowd),
        ]
        for number in range(settings.rounds + 1):
            for per_s in PER_S:
                for scene in scenes:
                    lap = await scene.pace(int(per_s * (LAP_S if number else LAP_S / 4)), per_s)
                    if number:
                        laps.setdefault((per_s, scene.name), []).append(lap)
                    settings.say(
                        f"{count} readers, {f'round {number}' if number else 'warm up'}, {per_s:,}/s, {scene.name}:"
                        f" p50 {lap.p50_us:.0f} us, p99 {lap.p99_us:.0f} us"
                    )
                    await asyncio.sleep(REST_S)
    return [metric for per_s in PER_S for metric in _metrics(scenes, laps, count, per_s)]


def _metrics(scenes: Sequence[Scene], laps: dict[tuple[int, str], list[Lap]], count: int, per_s: int) -> list[Metric]:
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
        for scene in scenes[1:]:
            if scene.name != RAW:
                theirs = [getattr(lap, f"{share}_us") for lap in laps[per_s, scene.name]]
                reach = reach if scene.name == RAW_RELAYED else None
                metrics.append(
                    Metric(f"source to reader {at}, {share}", "us", whole, f"{scene.name}, {share}", theirs, reach)
                )
    for scene in scenes[1:]:
        cpu = [lap.cpu_s_per_million for lap in laps[per_s, scene.name]]
        mine = [lap.cpu_s_per_million for lap in ours]
        metrics.append(Metric(f"CPU for a million ticks {at}", "s", mine, scene.name, cpu))
    return metrics


PACE: Final = (latency_one_reader, latency_four_readers)
"""Sections for the benchmark of market data."""
