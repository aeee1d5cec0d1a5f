"""A bus process for tests of faults: `bus_child.py FOLDER PORT SETTINGS`, which waits for a line that lets it start.

SETTINGS and the line are JSON; the line says at which fault point it is to die and how far its wall clock is from the machine's.
SIGUSR1 sets that clock five hours forward, SIGUSR2 five hours back.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from minhos_mesh.event_bus import bootstrap, retention
from minhos_mesh.event_bus.domain.retention import Limits
from minhos_mesh.runtime import contracts, fault_points
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.config_sections import EventBusSection
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

JUMP_NS = 5 * 3_600 * 1_000_000_000


class JumpingClock(SystemClock):
    """The clock of the machine, set forward and back by signals."""

    def __init__(self, offset_s: float) -> None:
        self._offset_ns = int(offset_s * 1e9)
        self._passed_s = 0.0

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() + self._passed_s

    def let_pass(self, seconds: float) -> None:
        """As if it had run longer than it has, before anybody waits for it."""
        self._passed_s += seconds

    def wall_ns(self) -> int:
        """See `Clock`."""
        return super().wall_ns() + self._offset_ns

    def jump(self, by_ns: int) -> None:
        """Sets it."""
        self._offset_ns += by_ns


async def main(folder: str, port: int, settings: dict[str, Any], order: dict[str, Any]) -> None:
    """Serves until it is killed."""
    fault_points._armed = fault_points.armed(order["point"])  # type: ignore[misc]  # it was not known at the import
    limits_of = bootstrap.limits_of

    def limits(section: EventBusSection) -> Limits:
        return replace(limits_of(section), **settings.get("limits", {}))

    bootstrap.limits_of = limits
    retention.ROUND_S = 0.1  # type: ignore[misc]  # so that a test need not wait for it
    clock = JumpingClock(order["offset_s"])
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, clock.jump, JUMP_NS)
    loop.add_signal_handler(signal.SIGUSR2, clock.jump, -JUMP_NS)
    config = MeshConfig.model_validate({"event_bus": settings.get("event_bus", {})})
    context = ServiceContext("event_bus", "event_bus-1", config, MeshPaths(Path(folder)), Clients(), clock=clock)
    async with (
        bootstrap.build(context) as parts,
        MeshServer(parts.servicers, errors=parts.errors, port=port),
    ):
        clock.let_pass(order["passed_s"])
        if parts.start is not None:
            await parts.start()
        print("serving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    contracts.event_catalogue()
    line = sys.stdin.readline()
    if line:
        uvloop.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(line)))
