"""A real trading engine in a process of its own, beside peers whose addresses it is given; for tests that kill it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from minhos_mesh.runtime import log
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.trading_engine.bootstrap import build


async def serve(data_dir: Path, targets: dict[str, str], overrides: dict[str, object]) -> None:
    """Serve until killed; the address is printed once the engine has recovered."""
    paths = MeshPaths(data_dir)
    paths.create()
    log.configure("trading_engine", "trading_engine-1", paths.log_file("trading_engine"))
    config = load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))
    context = ServiceContext(
        service="trading_engine",
        instance_id="trading_engine-1",
        config=config,
        paths=paths,
        clients=Clients(targets),
        tasks=OwnedTasks(lambda name, error: os._exit(7)),
    )
    async with build(context) as parts, MeshServer(parts.servicers, errors=parts.errors) as server:
        await parts.start()
        print(server.address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
