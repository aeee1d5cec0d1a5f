"""Measures how the registry's cost grows with the number of instances: registration, heartbeats, and how fast changes are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.performance.registry_process import RegistryProcess, running_registry
from tests.performance.results import Metric, Reach, Settings, percentile
from tests.performance.simulated_instances import SimulatedInstance, attached

from minhos_api.registry.v1 import registry_service_pb2 as pb

COUNTS: Final = (100, 300, 1_000)
ROUNDS: Final = 3
QUIET_S: Final = 4.0
"""How long heartbeats alone are measured."""
SETTLED_S: Final = 60.0
WATCHERS: Final = 10
"""Streams of WatchServices that are told of each change."""
CHANGES: Final = 100
CHANGE_EVERY_S: Final = 0.02
TOLD_S: Final = 10.0


@dataclass(slots=True)
class Figures:
    """What one number of instances gave, a value for each round."""

    registered: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    beat_us: list[float] = field(default_factory=list)
    delay_p50: list[float] = field(default_factory=list)
    delay_p99: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


async def scale(settings: Settings) -> Sequence[Metric]:
    """As many rounds of all counts; the counts alternate."""
    figures = {count: Figures() for count in COUNTS}
    for number in range(min(settings.rounds, ROUNDS)):
        for count in COUNTS:
            await one(settings, figures[count], count, f"scale-{number}-{count}")
    metrics: list[Metric] = []
    for count, found in figures.items():
        at = f"{count} instances: "
        metrics += [
            Metric(f"{at}registration", "1/s", found.registered),
            Metric(f"{at}CPU of the registry at heartbeats", "% of a core", found.cpu),
            Metric(f"{at}CPU of one heartbeat", "us", found.beat_us),
            Metric(f"{at}watch delay p50", "ms", found.delay_p50),
            Metric(f"{at}watch delay p99", "ms", found.delay_p99, reach=Reach(50.0)),
            Metric(f"{at}memory (PSS)", "MB", found.memory),
        ]
    return metrics


async def one(settings: Settings, figures: Figures, count: int, name: str) -> None:
    """One registry with so many instances."""
    async with running_registry(settings.folder / name) as registry, attached(registry, count) as (instances, took_s):
        settled_s = await all_in_rotation(registry, count)
        begun, cpu, beats = time.perf_counter(), registry.cpu_s(), sum(i.beats for i in instances)
        await asyncio.sleep(QUIET_S)
        used = registry.cpu_s() - cpu
        beats = sum(i.beats for i in instances) - beats
        share = used / (time.perf_counter() - begun)
        delays = await watch_delays(registry, instances)
        memory = registry.pss_mb()
    figures.registered.append(count / took_s)
    figures.cpu.append(share * 100)
    figures.beat_us.append(used / beats * 1e6)
    figures.delay_p50.append(percentile(delays, 0.5) * 1e3)
    figures.delay_p99.append(percentile(delays, 0.99) * 1e3)
    figures.memory.append(memory)
    settings.say(
        f"{count}: {count / took_s:.0f}/s registered, all in rotation after {settled_s:.1f} s more,"
        f" {share * 100:.1f} % CPU for {beats / QUIET_S:.0f} heartbeats/s, delay p50 {figures.delay_p50[-1]:.1f} ms"
        f" p99 {figures.delay_p99[-1]:.1f} ms, {memory:.0f} MB"
    )


async def all_in_rotation(registry: RegistryProcess, count: int) -> float:
    """Seconds until all instances get calls."""
    begun, serving = time.perf_counter(), 0
    while time.perf_counter() - begun < SETTLED_S:
        listed = await registry.stub.ListServices(pb.ListServicesRequest(), timeout=10)
        serving = sum(i.in_rotation for s in listed.services if s.name.startswith("bench_") for i in s.instances)
        if serving == count:
            return time.perf_counter() - begun
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{serving} of {count} instances were in rotation after {SETTLED_S:g} s")


async def watch_delays(registry: RegistryProcess, instances: Sequence[SimulatedInstance]) -> list[float]:
    """Seconds from the heartbeat that says a change until each watcher is told of it."""
    async with watching(registry) as seen:
        gc.freeze()  # what measures must not stand still itself
        delays: list[float] = []
        for number in range(CHANGES):
            changing = instances[number * 7 % len(instances)]
            changing.serving = not changing.serving
            waiting = [s.expect(changing.service, changing.instance_id, changing.serving) for s in seen]
            begun = time.perf_counter()
            changing.now.set()
            async with asyncio.timeout(TOLD_S):
                delays += [at - begun for at in await asyncio.gather(*waiting)]
            await asyncio.sleep(CHANGE_EVERY_S)
        return delays


class Watcher:
    """One stream of WatchServices."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._expected: tuple[str, str, bool] | None = None
        self._seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def expect(self, service: str, instance_id: str, in_rotation: bool) -> asyncio.Future[float]:
        """Done, with the time, when the stream has told that."""
        self._expected = (service, instance_id, in_rotation)
        self._seen = asyncio.get_running_loop().create_future()
        return self._seen

    async def read(self) -> None:
        """Reads until cancelled."""
        while True:
            update = await self.call.read()
            if self._expected is None or not update.HasField("changed") or update.changed.name != self._expected[0]:
                continue
            _, wanted, rotation = self._expected
            there = {i.instance_id: i.in_rotation for i in update.changed.instances}
            if there.get(wanted) is rotation and not self._seen.done():
                self._seen.set_result(time.perf_counter())


@contextlib.asynccontextmanager
async def watching(registry: RegistryProcess, count: int = WATCHERS) -> AsyncIterator[list[Watcher]]:
    """Watchers that have had their snapshot."""
    watchers = [Watcher(registry.stub.WatchServices(pb.WatchServicesRequest())) for _ in range(count)]
    for watcher in watchers:
        await watcher.call.read()
    readers = [asyncio.create_task(watcher.read()) for watcher in watchers]
    try:
        yield watchers
    finally:
        for reader, watcher in zip(readers, watchers, strict=True):
            reader.cancel()
            watcher.call.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


SCALE: Final = (scale,)
"""Sections for a benchmark of the registry."""
