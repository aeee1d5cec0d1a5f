"""Decides how a benchmark runs a bus alone: the real process without a registry, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from tests.performance.mesh_run import MeshFailed
from tests.performance.registry_process import own_channel

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.paths import MeshPaths

_RUN: Final = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"
START_S: Final = 30.0
CONTRACT: Final = "minhos_api.events.v1.EventBusService"


@dataclass(slots=True)
class BusProcess:
    """A bus that serves."""

    process: subprocess.Popen[bytes]
    address: str
    channel: grpc.aio.Channel

    @property
    def stub(self) -> Any:
        """EventBusService."""
        return EventBusServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        """EventAdminService."""
        return EventAdminServiceStub(self.channel)

    def cpu_s(self) -> float:
        """CPU that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    def memory_mb(self) -> float:
        """Memory of its own, MB (10^6 bytes): what it shares with others weighs more when those end."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise MeshFailed(f"/proc/{self.process.pid}/status has no line RssAnon")


@contextlib.asynccontextmanager
async def running_bus(folder: Path, settings: Mapping[str, Any] | None = None) -> AsyncIterator[BusProcess]:
    """A bus with the given `[event_bus]` table; it is killed at the end. Raises MeshFailed."""
    paths = MeshPaths(folder)
    paths.create()
    config = configuration.load(None, environment={}, overrides={"event_bus": dict(settings or {})})
    configuration.save(config.resolved(datetime.now(UTC)), paths.config_file)
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond, and nothing else runs yet
        [sys.executable, "-c", _RUN, "event_bus", "event_bus-1", str(folder)],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    try:
        address = await _bound(paths, process)
        async with grpc.aio.insecure_channel(address, options=own_channel()) as channel:
            stub: Any = EventBusServiceStub(channel)
            await stub.ListEvents(pb.ListEventsRequest(), timeout=START_S, wait_for_ready=True)
            yield BusProcess(process, address, channel)
    finally:
        process.kill()
        process.wait(20)


async def _bound(paths: MeshPaths, process: subprocess.Popen[bytes]) -> str:
    """The address that its log names."""
    log, end = paths.log_file("event_bus"), time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise MeshFailed(f"the event bus ended with code {process.returncode}; see {log}")
        with contextlib.suppress(OSError):
            for line in log.read_text(encoding="utf-8").splitlines():
                told = json.loads(line)
                if told.get("event") == "service.bound" and told.get("pid") == process.pid:
                    return str(told["address"])
        await asyncio.sleep(0.01)
    raise MeshFailed(f"the event bus did not listen within {START_S:g} s")
