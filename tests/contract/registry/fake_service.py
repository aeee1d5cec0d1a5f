"""A process that serves contracts with empty answers and holds a lease, for tests that kill, freeze and drain.

python fake_service.py REGISTRY SERVICE INSTANCE_ID CONTRACT...   says its address on standard output; SIGTERM ends it in order.
REGISTRY is an address or the data folder of a mesh, whose registries are tried in turn.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

from minhos_mesh.runtime.attach import Identity, Lease, SelfView
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.paths import MeshPaths, registry_address, registry_peers
from minhos_mesh.runtime.server import MeshServer


def fake_servicer(contract: str, instance_id: str) -> object:
    """Serves a whole contract: every unary call is answered with an empty message and the name of the instance."""
    descriptor = descriptor_pool.Default().FindServiceByName(contract)
    module_name = str(descriptor.file.name).removesuffix(".proto").replace("/", ".") + "_pb2_grpc"
    base = getattr(importlib.import_module(module_name), f"{descriptor.name}Servicer")

    def method(output: Any) -> Any:
        answer = message_factory.GetMessageClass(output)

        async def call(_self: object, _request: Any, context: Any) -> Any:
            # In the trailer: headers that go ahead of the answer would commit the call and end its right to a retry.
            context.set_trailing_metadata((("served-by", instance_id),))
            return answer()

        return call

    methods = {str(m.name): method(m.output_type) for m in descriptor.methods}
    return type(f"Fake{descriptor.name}", (base,), methods)()


async def main(registry: str, service: str, instance_id: str, contracts: list[str]) -> None:
    load_all()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = MeshServer([fake_servicer(contract, instance_id) for contract in contracts])
    await server.start()
    serving = True
    identity = Identity(service, instance_id, server.address, tuple(server.contracts))
    paths = MeshPaths(Path(registry))
    home = registry_address(paths) or registry
    look, obey = lambda: SelfView(serving, {}, 0, 0), lambda _command: stop.set()
    lease = Lease(home, identity, look, obey, lambda: registry_peers(paths))
    task = asyncio.create_task(lease.run())
    await server.set_serving(serving=True)
    print(json.dumps({"address": server.address}), flush=True)
    await stop.wait()
    serving = False
    await server.health.enter_graceful_shutdown()
    await lease.leave("told to end")
    await server.drain(3.0)
    await server.stop(0.1)
    task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
