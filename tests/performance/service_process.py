"""Decides how a benchmark runs one service alone: the real process without a keeper, in a folder of its own."""

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
from tests.performance.mesh_run import MeshFailed, own_mb, pss_mb, serves

from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.paths import MeshPaths

START_S: Final = 30.0
_RUN: Final = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"


@dataclass(slots=True)
class ServiceProcess:
    """A service that serves."""

    process: subprocess.Popen[bytes]
    address: str
    channel: grpc.aio.Channel

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    def cpu_s(self) -> float:
        """CPU that it has used."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)

    def pss_mb(self) -> float:
        """Memory, what it shares with others by its part."""
        return pss_mb(self.pid)

    def own_mb(self) -> float:
        """Memory of its own."""
        return own_mb(self.pid)


@contextlib.asynccontextmanager
async def running_service(
    service: str,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ServiceProcess]:
    """A service with the given tables of configuration; it is killed at the end, or ended where `environment` watches it.

    Raises MeshFailed.
    """
    paths = MeshPaths(folder)
    paths.create()
    config = configuration.load(None, environment={}, overrides=dict(settings or {}))
    configuration.save(config.resolved(datetime.now(UTC)), paths.config_file)
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond, and nothing else runs yet
        [sys.executable, "-c", _RUN, service, f"{service}-1", str(folder)],
        env={**os.environ, "GRPC_VERBOSITY": "NONE", **(environment or {})},
    )
    try:
        address = await bound(service, paths, process)
        end = time.monotonic() + START_S
        while not await serves(address):
            if time.monotonic() > end:
                raise MeshFailed(f"{service} does not serve after {START_S:g} s; see {paths.log_file(service)}")
            await asyncio.sleep(0.05)
        async with grpc.aio.insecure_channel(address, options=own_channel()) as channel:
            yield ServiceProcess(process, address, channel)
    finally:
        process.terminate() if environment else process.kill()
        process.wait(20)


def own_channel() -> channel_options.Options:
    """Options of a channel that shares its connection with no other."""
    return (
        *(o for o in channel_options.CHANNEL if "local_subchannel" not in o[0]),
        ("grpc.use_local_subchannel_pool", 1),
    )


async def bound(service: str, paths: MeshPaths, process: subprocess.Popen[bytes]) -> str:
    """The address that its log names. Raises MeshFailed."""
    log, end = paths.log_file(service), time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise MeshFailed(f"{service} ended with code {process.returncode}; see {log}")
        with contextlib.suppress(OSError):
            for line in log.read_text(encoding="utf-8").splitlines():
                told = json.loads(line)
                if told.get("event") == "service.bound" and told.get("pid") == process.pid:
                    return str(told["address"])
        await asyncio.sleep(0.01)
    raise MeshFailed(f"{service} did not listen within {START_S:g} s")
