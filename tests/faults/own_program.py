"""A program of somebody's own beside the services of a mesh, with nothing but gRPC and the contracts.

Usage: own_program.py serve | sleep | end CODE. The mesh tells it by the environment where the registry is and who it is;
`serve` answers each call of its own contract with the name of its instance, until SIGTERM ends it in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import MethodOptions

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

CONTRACT: Final = "acme.v1.AcmeService"
METHOD: Final = f"/{CONTRACT}/WhoServes"
BEAT_S: Final = 0.25
UNUSED_S: Final = 0.2
"""Without a call for so long, after it has left, every caller has heard of it."""
UNUSED_WITHIN_S: Final = 5.0


def descriptors() -> bytes:
    """The contract, as the registry is told of it: one method that may be called again."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="acme/v1/acme_service.proto", package="acme.v1", syntax="proto3")
    file.message_type.add(name="M")
    method = file.service.add(name="AcmeService").method.add(
        name="WhoServes", input_type=".acme.v1.M", output_type=".acme.v1.M"
    )
    method.options.idempotency_level = MethodOptions.NO_SIDE_EFFECTS
    return files.SerializeToString()


async def serve() -> None:
    stopping, left = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    name = os.environ["MINHOS_INSTANCE_ID"]

    called = time.monotonic()

    async def who(_request: bytes, _context: Any) -> bytes:
        nonlocal called
        called = time.monotonic()
        await asyncio.sleep(0.01)
        return name.encode()

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler: Any = grpc.unary_unary_rpc_method_handler(who)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CONTRACT, {"WhoServes": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def said() -> AsyncIterator[pb.AttachRequest]:
        hello = pb.AttachHello(
            service=os.environ["MINHOS_SERVICE"], instance_id=name, address=f"127.0.0.1:{port}", pid=os.getpid(),
            contracts=[CONTRACT], descriptor_set=descriptors(), version="1",
        )  # fmt: skip
        if token is not None:
            hello.fencing_token = token
        yield pb.AttachRequest(hello=hello)
        while not stopping.is_set():
            yield pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True))
            try:
                await asyncio.wait_for(stopping.wait(), BEAT_S)
            except TimeoutError:
                continue
        yield pb.AttachRequest(goodbye=pb.AttachGoodbye(reason="SIGTERM"))

    token: int | None = None
    async with grpc.aio.insecure_channel(os.environ["MINHOS_REGISTRY"]) as channel:
        while not left.is_set():
            try:
                async for answer in RegistryServiceStub(channel).Attach(said()):
                    if answer.HasField("granted"):
                        token = answer.granted.fencing_token
                left.set() if stopping.is_set() else None
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)  # the registry is away: it serves on and comes back
                left.set() if stopping.is_set() else None
    end = time.monotonic() + UNUSED_WITHIN_S
    while time.monotonic() < min(end, called + UNUSED_S):
        await asyncio.sleep(0.01)
    await server.stop(3.0)


def main() -> int:
    what = sys.argv[1]
    if what == "serve":
        asyncio.run(serve())
        return 0
    if what == "sleep":
        time.sleep(600)
        return 0
    print("nothing to do", file=sys.stderr)
    return int(sys.argv[2])


if __name__ == "__main__":
    raise SystemExit(main())
