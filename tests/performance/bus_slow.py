"""Measures what readers notice of others that are slow: one that stands still, one at a tenth of the speed, one that skips."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Any, Final

from tests.performance.bus_deliver import Scene
from tests.performance.bus_pace import ReaderProcess, readers, to_bus
from tests.performance.bus_process import BusProcess, running_bus
from tests.performance.results import Metric, Reach, Settings

from minhos_api.events.v1 import event_admin_service_pb2 as admin

ORDINARY: Final = 2
LAP_S: Final = 3.0
EVENTS_PER_S: Final = 2_000
"""So few that two cores are not busy with all these processes: else others wait for a core, whatever the bus does."""
TENTH_S: Final = 10 / EVENTS_PER_S
"""How long a reader at a tenth of the speed takes for one event."""
REACH: Final = Reach(1.5, of_ratio=True)


async def slow_readers(settings: Settings) -> Sequence[Metric]:
    """Two buses in turn: one with ordinary readers alone, one with slow ones beside them."""
    lags: dict[str, list[float]] = {"stopped": [], "tenth": [], "skipped": []}
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        alone = await enter(running_bus(settings.folder / "slow" / "alone"))
        shared = await enter(running_bus(settings.folder / "slow" / "shared"))
        scenes = [await _scene(stack, "alone", alone), await _scene(stack, "shared", shared)]
        (stopped,) = await enter(readers(1, "bus", shared.address, "stopped"))
        await enter(readers(1, "bus", shared.address, "tenth", f"{TENTH_S:g}"))
        await enter(readers(1, "bus", shared.address, "latest", f"{TENTH_S:g}"))
        for number in range(settings.rounds + 1):
            if number == 1:
                stopped.process.send_signal(signal.SIGSTOP)
            for scene in scenes:
                await scene.lap(LAP_S, counts=number > 0, per_s=EVENTS_PER_S)
            await _note(shared, lags)
            last = ", ".join(f"{name} {values[-1]:.0f}" for name, values in lags.items())
            settings.say(f"{f'round {number}' if number else 'warm up'}: {last}")
    without, with_them = scenes
    beside = "the same without them"
    return [
        Metric(
            f"deliver p99 of others beside slow readers, {EVENTS_PER_S:,}/s",
            "ms",
            with_them.tails,
            beside,
            without.tails,
            REACH,
        ),
        Metric(
            f"deliver p50 of others beside slow readers, {EVENTS_PER_S:,}/s",
            "ms",
            with_them.halves,
            beside,
            without.halves,
        ),
        Metric("lag of a durable reader that is stopped (SIGSTOP), as GetStats tells", "events", lags["stopped"]),
        Metric("lag of a durable reader at a tenth of the speed, as GetStats tells", "events", lags["tenth"]),
        Metric("skipped by a latest-per-subject reader at a tenth of the speed", "events", lags["skipped"]),
    ]


async def _scene(stack: contextlib.AsyncExitStack, name: str, bus: BusProcess) -> Scene:
    found: list[ReaderProcess] = await stack.enter_async_context(readers(ORDINARY, "bus", bus.address))
    return Scene(name, found, lambda: to_bus(bus.stub))


async def _note(bus: BusProcess, lags: dict[str, list[float]]) -> None:
    stats: Any = await asyncio.wait_for(bus.admin.GetStats(admin.GetStatsRequest()), 10)
    for consumer in stats.consumers:
        lags[consumer.name].append(consumer.lag)
    lags["skipped"].append(sum(reader.skipped for reader in stats.readers))


SLOW: Final = (slow_readers,)
"""Sections for the benchmark of the bus."""
