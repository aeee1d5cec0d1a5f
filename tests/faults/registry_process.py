"""A registry in a process of its own, and a well-behaved instance whose life is watched while others misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import psutil

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.contracts import descriptor_set
from minhos_mesh.runtime.paths import MeshPaths

SIMULATOR: Final = "minhos_api.sierra.v1.SierraSimulatorService"
OWN: Final = (("grpc.use_local_subchannel_pool", 1),)
"""A connection of its own for a channel."""
RUN: Final = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"


class RegistryProcess:
    """A registry that a test may treat badly."""

    def __init__(self, data_dir: Path, settings: dict[str, str]) -> None:
        self.paths = MeshPaths(data_dir)
        self.paths.create()
        config = configuration.load(None, environment=settings).resolved(datetime.now(UTC))
        configuration.save(config, self.paths.config_file)
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN, "registry", "registry-1", str(data_dir)],
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )
        self.address = ""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def memory_mb(self) -> float:
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6

    def cpu_s(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    async def ready(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, grpc.aio.AioRpcError):
                self.address = str(json.loads(self.paths.mesh_file.read_text(encoding="utf-8"))["address"])
                await self.services()
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the registry did not come up")

    async def services(self) -> dict[str, pb.Service]:
        async with grpc.aio.insecure_channel(self.address, options=OWN) as channel:
            answer = await rpc.RegistryServiceStub(channel).ListServices(pb.ListServicesRequest(), timeout=5)
        return {service.name: service for service in answer.services}

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def hello(service: str, instance_id: str, **fields: Any) -> pb.AttachRequest:
    """A hello that is as it should be, but for `fields`."""
    given = {
        "service": service,
        "instance_id": instance_id,
        "address": "127.0.0.1:9",
        "version": "1",
        "contracts": (SIMULATOR,),
        "descriptor_set": descriptor_set((SIMULATOR,)),
    }
    return pb.AttachRequest(hello=pb.AttachHello(**{**given, **fields}))


class Witness:
    """An instance that does everything right, in a process of its own; what it sees says whether the mesh is harmed.

    It loads while the registry does.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("registry_witness_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    async def ready(self, registry: RegistryProcess) -> None:
        """Attaches; returns once it is in rotation."""
        print(registry.address, file=self._stdin, flush=True)
        await self._line("in rotation")

    async def _line(self, begin: str) -> str:
        """The next line of its output that begins so; its log goes there too."""
        async with asyncio.timeout(15):
            while not (line := await asyncio.to_thread(self._stdout.readline)).startswith(begin):
                assert line, "the witness is gone"
        return line

    async def assert_unharmed(self, slowest_s: float = 1.0) -> None:
        """It never lost its lease or its place, and no question took long."""
        self._stdin.write("end\n")
        self._stdin.flush()
        saw = json.loads(await self._line("{"))
        assert saw["asked"] > 0
        assert saw["out"] == 0, saw
        assert len(saw["tokens"]) == 1, saw
        assert saw["slowest_s"] < slowest_s, saw

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()
