"""Measures how many ticks a second reach the slowest reader, and what CPU they take: all as fast as they can, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from tests.performance.market_scenes import (
    MESH,
    NATS,
    NATS_BATCHES,
    RAW,
    RAW_KEPT,
    RAW_RELAYED,
    ZMQ,
    ZMQ_BATCHES,
    Crowd,
    Scene,
    mesh,
    nats,
    pyzmq,
    raw,
)
from tests.performance.market_ticks import BATCH
from tests.performance.results import Metric, Reach, Settings

TICKS: Final = 1_500_000
"""Of one lap where many go in one message. Market data holds as many, so that its memory is touched once when it is warm."""
FEWER: Final = {ZMQ: 400_000, NATS: 60_000}
"""Of one lap where each goes alone, so that it takes no longer."""
READERS: Final = (1, 4)
REST_S: Final = 0.2


async def one_reader(settings: Settings) -> Sequence[Metric]:
    """All ways with one reader."""
    return await _flood(settings, 1)


async def four_readers(settings: Settings) -> Sequence[Metric]:
    """All ways with four readers in processes of their own."""
    return await _flood(settings, 4)


async def _flood(settings: Settings, count: int) -> Sequence[Metric]:
    crowd, folder = Crowd(count), settings.folder / f"flood-{count}"
    opening: list[Callable[[AsyncExitStack], Awaitable[Scene | None]]] = [
        lambda stack: mesh(stack, folder / "mesh", crowd, ring=TICKS),
        lambda stack: raw(stack, crowd),
        lambda stack: raw(stack, crowd, relayed=True),
        lambda stack: raw(stack, crowd, relayed=True, memory_kept=True),
        lambda stack: pyzmq(stack, crowd),
        lambda stack: pyzmq(stack, crowd, batch=BATCH),
        lambda stack: nats(stack, folder / "nats", crowd, settings),
        lambda stack: nats(stack, folder / "nats-batches", crowd, settings, batch=BATCH),
        lambda stack: mesh(stack, folder / "recorded", crowd, recorded=True, ring=TICKS),
    ]
    async with AsyncExitStack() as stack:
        scenes = [scene for each in opening if (scene := await each(stack)) is not None]
        for number in range(settings.rounds + 1):
            for scene in scenes:
                lap = await scene.flood(FEWER.get(scene.name, TICKS))
                if not number:
                    scene.laps.clear()
                settings.say(
                    f"{count} readers, {f'round {number}' if number else 'warm up'}, {scene.name}:"
                    f" {lap.ticks_per_s / 1e6:.3f} M ticks/s, {lap.cpu_s_per_million:.2f} s of CPU per million,"
                    f" {lap.ticks_per_message:.0f} ticks a message"
                )
                await asyncio.sleep(REST_S)
    return _metrics({scene.name: scene for scene in scenes}, count)


def _metrics(scenes: dict[str, Scene], count: int) -> list[Metric]:
    who = "1 reader" if count == 1 else f"slowest of {count} readers"
    reaches: list[tuple[str, Reach | None]] = [
        (ZMQ, Reach(3.0, at_most=False, of_ratio=True) if count == 4 else None),
        (RAW_RELAYED, Reach(0.8, at_most=False, of_ratio=True) if count == 4 else None),
        (RAW_KEPT, None),
        (RAW, None),
        (ZMQ_BATCHES, None),
        (NATS, None),
        (NATS_BATCHES, None),
    ]
    rates = {name: [lap.ticks_per_s for lap in scene.laps] for name, scene in scenes.items()}
    metrics = [
        Metric(f"ticks to the {who}", "ticks/s", rates[MESH], name, rates[name], reach)
        for name, reach in reaches
        if name in rates
    ]
    metrics += [
        Metric(f"ticks to the {who}: {name}", "ticks/s", values, MESH, rates[MESH])
        for name, values in rates.items()
        if name not in {MESH, *(each for each, _ in reaches)}
    ]
    for name, scene in scenes.items():
        cpu = [lap.cpu_s_per_million for lap in scene.laps]
        ours = [lap.cpu_s_per_million for lap in scenes[MESH].laps]
        beside = (None, ()) if name == MESH else (MESH, ours)
        metrics.append(Metric(f"CPU for a million ticks, {who}: {name}", "s", cpu, *beside))
    return metrics


FLOOD: Final = (one_reader, four_readers)
"""Sections for the benchmark of market data."""
