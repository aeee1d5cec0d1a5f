"""A well-behaved instance of a service that asks the registry about itself twenty times a second until it is told to end.

python registry_witness_child.py   loads, reads the address of the registry from a line of input, says "in rotation" once it is, and at
another line what it has seen, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime.attach import Identity, Lease, SelfView
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.server import MeshServer

SERVICE, INSTANCE = "sierra_simulator", "witness"
CONTRACT = "minhos_api.sierra.v1.SierraSimulatorService"
EVERY_S = 0.05


async def main() -> None:
    load_all()
    async with MeshServer([]) as server:
        registry = await asyncio.to_thread(sys.stdin.readline)
        await watch(registry.strip(), server.address)


async def watch(registry: str, address: str) -> None:
    identity = Identity(SERVICE, INSTANCE, address, (CONTRACT,))
    lease = Lease(registry, identity, lambda: SelfView(True, {}, 0, 0), lambda _command: None)
    beating = asyncio.create_task(lease.run())
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    slowest_s, asked, out, tokens, was_in = 0.0, 0, 0, set[int](), False
    async with grpc.aio.insecure_channel(registry, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub = rpc.RegistryServiceStub(channel)
        while not ended.done():
            began = time.monotonic()
            answer = await stub.Resolve(pb.ResolveRequest(name=SERVICE), timeout=10)
            mine = [instance for instance in answer.instances if instance.instance_id == INSTANCE]
            here = any(instance.in_rotation for instance in mine)
            if here and not was_in:
                was_in = True
                print("in rotation", flush=True)
            if was_in:
                slowest_s, asked = max(slowest_s, time.monotonic() - began), asked + 1
                out += not here
                tokens.update(instance.fencing_token for instance in mine)
            await asyncio.sleep(EVERY_S)
    print(json.dumps({"slowest_s": slowest_s, "asked": asked, "out": out, "tokens": sorted(tokens)}), flush=True)
    beating.cancel()


if __name__ == "__main__":
    asyncio.run(main())
