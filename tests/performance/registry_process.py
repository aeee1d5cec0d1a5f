"""Decides how a benchmark runs a registry alone: one real process without a keeper, in a folder of its own."""

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
from tests.performance.mesh_run import MeshFailed, pss_mb

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.paths import MeshPaths

_RUN: Final = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"
START_S: Final = 30.0


@dataclass(slots=True)
class RegistryProcess:
    """A registry that serves."""

    process: subprocess.Popen[bytes]
    address: str
    channel: grpc.aio.Channel

    @property
    def stub(self) -> Any:
        """RegistryService."""
        return RegistryServiceStub(self.channel)

    def cpu_s(self) -> float:
        """CPU that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    def pss_mb(self) -> float:
        """Memory."""
        return pss_mb(self.process.pid)


@contextlib.asynccontextmanager
async def running_registry(
    folder: Path, settings: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[RegistryProcess]:
    """A registry with the given `[registry]` table; it is killed at the end. Raises MeshFailed."""
    paths = MeshPaths(folder)
    paths.create()
    config = configuration.load(None, environment={}, overrides={"registry": dict(settings or {})})
    configuration.save(config.resolved(datetime.now(UTC)), paths.config_file)
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond, and nothing else runs yet
        [sys.executable, "-c", _RUN, "registry", "registry-1", str(folder)],
        env={**os.environ, "GRPC_VERBOSITY": "NONE", **(environment or {})},
    )
    try:
        address = await _bound(paths, process)
        async with grpc.aio.insecure_channel(address, options=own_channel()) as channel:
            stub: Any = RegistryServiceStub(channel)
            await stub.ListServices(pb.ListServicesRequest(), timeout=START_S, wait_for_ready=True)
            yield RegistryProcess(process, address, channel)
    finally:
        process.terminate() if environment else process.kill()
        process.wait(20)


def own_channel() -> channel_options.Options:
    """Options of a channel that shares its connection with no other."""
    return (
        *(o for o in channel_options.CHANNEL if "local_subchannel" not in o[0]),
        ("grpc.use_local_subchannel_pool", 1),
    )


async def _bound(paths: MeshPaths, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise MeshFailed(f"the registry ended with code {process.returncode}; see {paths.log_file('registry')}")
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(paths.mesh_file.read_text(encoding="utf-8"))
            if told["pid"] == process.pid:
                return str(told["address"])
        await asyncio.sleep(0.01)
    raise MeshFailed(f"the registry did not listen within {START_S:g} s")
