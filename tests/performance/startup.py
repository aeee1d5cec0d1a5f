"""Measures how long the mesh takes from nothing to HEALTHY and what memory it holds, beside as many bare servers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from tests.performance.bare import bare_servers
from tests.performance.mesh_run import MeshFailed, RunningMesh, pss_mb, running_mesh, serves
from tests.performance.results import Benchmark, Metric, Reach, Settings

from minhos_mesh.runtime.catalogue import service_names

SETTLED_S: Final = 5.0
"""The memory of the mesh is taken after so long, when history is in and trading has begun."""
KILLED: Final = ("market_data", "trading_engine", "event_bus", "risk_manager", "ai_brain")
"""One of them is killed in each round."""
BACK_S: Final = 15.0


async def run(settings: Settings) -> Sequence[Metric]:
    """Alternates mesh and bare servers; one round before the first fills the file cache and does not count."""
    up, memory, back = [], [], []
    bare_up, bare_memory = [], []
    for number in range(settings.rounds + 1):
        async with running_mesh(settings.folder / f"mesh-{number}") as mesh:
            await asyncio.sleep(SETTLED_S if number else 0.0)
            held, killed = mesh.pss_mb(), KILLED[number % len(KILLED)]
            returned = await time_to_return(mesh, killed) if number else 0.0
        begun = time.perf_counter()
        async with bare_servers(len(service_names())) as servers:
            spawned = time.perf_counter() - begun
            bare_held = sum(pss_mb(server.pid) for server in servers)
        again = f"; {killed} back after {returned:.2f} s" if number else ""
        settings.say(
            f"{f'round {number}' if number else 'warm up'}: mesh {mesh.up_s:.2f} s, {held:.0f} MB;"
            f" bare {spawned:.2f} s, {bare_held:.0f} MB{again}"
        )
        if number:
            up.append(mesh.up_s)
            memory.append(held)
            back.append(returned)
            bare_up.append(spawned)
            bare_memory.append(bare_held)
    beside = f"{len(service_names())} bare grpc.aio servers, one process each"
    return [
        Metric("nothing to all HEALTHY", "s", up, beside, bare_up, Reach(2.0)),
        Metric("memory of all processes (PSS)", "MB", memory, beside, bare_memory, Reach(300.0)),
        Metric("SIGKILL of a service to SERVING again", "s", back, reach=Reach(1.0)),
    ]


async def time_to_return(mesh: RunningMesh, name: str) -> float:
    """Seconds from SIGKILL until another process of the service says SERVING."""
    (before,) = (await mesh.service(name)).instances
    begun = time.perf_counter()
    os.kill(before.pid, signal.SIGKILL)
    while time.perf_counter() - begun < BACK_S:
        for instance in (await mesh.service(name)).instances:
            if instance.pid not in {0, before.pid} and instance.address and await serves(instance.address):
                return time.perf_counter() - begun
        await asyncio.sleep(0.01)
    raise MeshFailed(f"{name} was not back {BACK_S:g} s after its process {before.pid} was killed")


BENCHMARK: Final = Benchmark("startup", "from nothing to all HEALTHY, memory, and a killed service's return", 5, run)
