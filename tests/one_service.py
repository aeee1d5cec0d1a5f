"""One service as its bootstrap builds it, alone in a process of its own, for tests and benchmarks that kill or measure it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load, load_saved, save
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

ROOT: Final = Path(__file__).parents[1]
START_S: Final = 30.0


@dataclass(slots=True)
class OneService:
    """A process that serves."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    async def kill(self) -> None:
        """Ends it by SIGKILL."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


def configured(folder: Path, **sections: Mapping[str, Any]) -> MeshPaths:
    """A data folder with a saved configuration."""
    paths = MeshPaths(folder)
    paths.create()
    save(load(None, environment={}, overrides=dict(sections)).resolved(datetime.now(UTC)), paths.config_file)
    return paths


def path_of_code(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment in which a child finds the project."""
    return {**own, "PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'generated'}:{ROOT}", "GRPC_VERBOSITY": "NONE"}


@contextlib.asynccontextmanager
async def one_service(
    service: str, folder: Path, ways: Mapping[str, str] | None = None, *, port: int = 0
) -> AsyncIterator[OneService]:
    """A service over a folder made by `configured`; `ways` are addresses by contract. It is killed at the end."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), service, str(folder), str(port), json.dumps(dict(ways or {})),
        stdout=asyncio.subprocess.PIPE, env=path_of_code(),
    )  # fmt: skip
    running = OneService(child, 0)
    try:
        assert child.stdout is not None, "started with a pipe"
        async with asyncio.timeout(START_S):
            running.port = int(await child.stdout.readline())
        yield running
    finally:
        await running.kill()


async def _main(service: str, folder: Path, port: int, ways: Mapping[str, str]) -> None:
    paths = MeshPaths(folder)
    context = ServiceContext(service, f"{service}-1", load_saved(paths.config_file), paths, Clients(ways))
    build = importlib.import_module(f"minhos_mesh.{service}.bootstrap").build
    async with build(context) as parts, MeshServer(parts.servicers, errors=parts.errors, port=port) as server:
        await parts.start()
        print(server.port, flush=True)
        await context.stopping.wait()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
