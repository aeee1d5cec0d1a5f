"""A keeper whose services are the registry and any number of bare ones: each a forked gRPC server with health and a lease.

python many_keeper.py DATA_DIR COUNT   keeps `bare_1` to `bare_COUNT` beside the registry; they are started on request.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from minhos_mesh.node.command import load_common, run
from minhos_mesh.node.keeper import Entry, KeeperOptions
from minhos_mesh.runtime import catalogue

CONTRACT: Final = "minhos_api.sierra.v1.SierraSimulatorService"
"""What every bare service says it serves."""
PREFIX: Final = "bare_"


def load() -> Entry:
    """What the real keeper preloads; a bare service is run by this module and everything else as ever."""
    real = load_common()

    def entry(service: str, instance_id: str, data_dir: str, config_path: str | None) -> int:
        if not service.startswith(PREFIX):
            return real(service, instance_id, data_dir, config_path)
        asyncio.run(_serve(service, instance_id, Path(data_dir)))
        return 0

    return entry


async def _serve(service: str, instance_id: str, data_dir: Path) -> None:
    """Binds, attaches and serves until it is asked to end. Loaded here: nothing of gRPC may be made before the fork."""
    from minhos_mesh.runtime.attach import Identity, Lease, SelfView
    from minhos_mesh.runtime.paths import MeshPaths, registry_address
    from minhos_mesh.runtime.server import MeshServer

    registry = registry_address(MeshPaths(data_dir))
    if registry is None:
        raise SystemExit(f"no registry runs in {data_dir}")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with MeshServer([]) as server:
        identity = Identity(service, instance_id, server.address, (CONTRACT,))
        lease = Lease(registry, identity, lambda: SelfView(True, {}, 0, 0), lambda _command: ended.set())
        held = asyncio.create_task(lease.run())
        await ended.wait()
        held.cancel()


def main() -> int:
    """Runs it to its end."""
    data_dir, count = Path(sys.argv[1]), int(sys.argv[2])
    services = {catalogue.REGISTRY: catalogue.bootstrap_module(catalogue.REGISTRY)}
    bare = dict.fromkeys(f"{PREFIX}{number}" for number in range(1, count + 1))
    config = data_dir / "run" / "config.json"
    return run(KeeperOptions(data_dir, config, {**services, **bare}, catalogue.REGISTRY, load))


if __name__ == "__main__":
    raise SystemExit(main())
