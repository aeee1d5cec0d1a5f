"""Measures how rate, latency, CPU and memory grow with symbols and with readers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from tests.performance.market_scenes import MESH, Crowd, Lap, Scene, mesh, pyzmq, raw
from tests.performance.results import Metric, Settings

SYMBOLS: Final = (1, 10, 100)
READERS: Final = (1, 4, 16, 64)
PROCESSES: Final = 4
"""Readers beyond so many share these processes, each with a connection of its own."""
TICKS: Final = 2_000_000
"""Of all symbols together, and of one symbol to all readers together as long as it is not fewer than `FEWEST` for each."""
PACED: Final = 1_000
PACE_S: Final = 2.0
FEWEST: Final = 250_000
RING: Final = 2_097_152
ZMQ_SHARE: Final = 4
"""One tick per message goes for so much longer."""

_Open = Callable[[AsyncExitStack], Awaitable[Scene]]


async def symbols(settings: Settings) -> Sequence[Metric]:
    """The same ticks over more symbols, to one reader of all of them."""
    metrics: list[Metric] = []
    first: list[Lap] = []
    for count in SYMBOLS:
        folder = settings.folder / f"symbols-{count}"
        laps, paced = await _measured(
            settings, f"{count} symbols", functools.partial(mesh, folder=folder, crowd=Crowd(1, 1, count), ring=RING // count),
            TICKS // count,
        )  # fmt: skip
        first = first or laps
        metrics += _grown(f"{count} symbols, 1 reader", laps, paced, first, "1 symbol")
    return metrics


async def readers(settings: Settings) -> Sequence[Metric]:
    """The same ticks to more readers."""
    metrics: list[Metric] = []
    first: list[Lap] = []
    for count in READERS:
        processes = min(count, PROCESSES)
        crowd = Crowd(processes, count // processes)
        folder, ticks = settings.folder / f"readers-{count}", max(FEWEST, TICKS // count)
        laps, paced = await _measured(
            settings, f"{count} readers", functools.partial(mesh, folder=folder, crowd=crowd, ring=RING), ticks
        )
        first = first or laps
        metrics += _grown(f"{count} readers", laps, paced, first, "1 reader")
        for name, opened, share in (
            ("raw gRPC bytes", functools.partial(raw, crowd=crowd, relayed=True), 1),
            ("pyzmq, a message per tick", functools.partial(pyzmq, crowd=crowd), ZMQ_SHARE),
        ):
            if count > PROCESSES and share > 1:
                continue  # its readers have one socket for each process
            others, _ = await _measured(settings, f"{count} readers, {name}", opened, ticks // share, paced=False)
            rates = [lap.ticks_per_s for lap in laps]
            theirs = [lap.ticks_per_s for lap in others]
            metrics.append(Metric(f"ticks to the slowest of {count} readers", "ticks/s", rates, name, theirs))
    return metrics


async def _measured(
    settings: Settings, what: str, opened: _Open, ticks: int, *, paced: bool = True
) -> tuple[list[Lap], list[Lap]]:
    laps: list[Lap] = []
    waits: list[Lap] = []
    async with AsyncExitStack() as stack:
        scene = await opened(stack)
        for number in range(settings.rounds + 1):
            lap = await scene.flood(ticks)
            settings.say(f"{what}: {lap.ticks_per_s / 1e6:.3f} M ticks/s, {lap.cpu_s_per_million:.2f} s per million")
            await asyncio.sleep(0.2)
            if number:
                laps.append(lap)
                if paced:
                    waits.append(await scene.pace(int(PACED * PACE_S), PACED))
                    settings.say(f"{what}: p50 {waits[-1].p50_us:.0f} us, p99 {waits[-1].p99_us:.0f} us at {PACED:,}/s")
    return laps, waits


def _grown(what: str, laps: Sequence[Lap], paced: Sequence[Lap], first: Sequence[Lap], base: str) -> list[Metric]:
    beside = None if laps is first else f"{MESH}, {base}"

    def against(values: list[float]) -> Sequence[float]:
        return () if beside is None else values

    return [
        Metric(
            f"ticks to the slowest, {what}", "ticks/s", [lap.ticks_per_s for lap in laps],
            beside, against([lap.ticks_per_s for lap in first]),
        ),
        Metric(
            f"CPU for a million ticks sent, {what}", "s", [lap.cpu_s_per_million for lap in laps],
            beside, against([lap.cpu_s_per_million for lap in first]),
        ),
        Metric(
            f"memory of market data, {what}", "MB", [lap.served_mb for lap in laps],
            beside, against([lap.served_mb for lap in first]),
        ),
        Metric(f"source to reader at {PACED:,} ticks/s, {what}, p50", "us", [lap.p50_us for lap in paced]),
        Metric(f"source to reader at {PACED:,} ticks/s, {what}, p99", "us", [lap.p99_us for lap in paced]),
    ]  # fmt: skip


GROWTH: Final = (symbols, readers)
"""Sections for the benchmark of market data."""
