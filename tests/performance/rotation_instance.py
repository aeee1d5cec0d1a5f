"""Decides how an instance is simulated: a real server with a real lease that answers every call with its own id in the trailer.

python rotation_instance.py REGISTRY INSTANCE_ID   says when it serves; SIGTERM ends it in order.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool, message_factory

from minhos_api.sierra.v1 import sierra_simulator_service_pb2_grpc as rpc
from minhos_mesh.runtime.attach import Identity, Lease, SelfView
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.server import MeshServer

SERVICE: Final = "sierra_simulator"
CONTRACT: Final = "minhos_api.sierra.v1.SierraSimulatorService"
REPEATABLE: Final = f"/{CONTRACT}/GetStatus"
"""Its contract lets a call be repeated."""
ONCE: Final = "/bench.Raw/Once"
"""Served beside the contract, and never repeated by a client."""


class RotationInstance:
    """One instance, in whatever process."""

    def __init__(self, registry: str, instance_id: str) -> None:
        self.instance_id = instance_id
        self.first_call_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """When its first call came, on the monotonic clock."""
        self._registry = registry
        self._serving = True

    async def listen(self) -> None:
        """Binds; nobody knows it yet."""
        load_all()
        self._server = MeshServer([_servicer(self)], handlers=[self._raw()])
        await self._server.start()
        await self._server.set_serving(serving=True)

    def attach(self) -> None:
        """Begins to hold its lease."""
        identity = Identity(SERVICE, self.instance_id, self._server.address, tuple(self._server.contracts))
        view = lambda: SelfView(self._serving, {}, 0, 0)
        self._lease = Lease(self._registry, identity, view, lambda _command: None)
        self._task = asyncio.create_task(self._lease.run())

    async def leave(self) -> None:
        """Ends in the order in which a service does."""
        self._serving = False
        await self._server.health.enter_graceful_shutdown()
        await self._lease.leave("told to end")
        await self._server.drain(3.0)
        await self._server.stop(0.1)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def note(self, context: Any) -> None:
        """Counts a call and says whose it was."""
        if not self.first_call_at.done():
            self.first_call_at.set_result(time.monotonic())
        context.set_trailing_metadata((("served-by", self.instance_id),))

    def _raw(self) -> grpc.GenericRpcHandler:
        async def once(_request: bytes, context: Any) -> bytes:
            self.note(context)
            return b""

        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(once)
        made: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler("bench.Raw", {"Once": method})
        return made


def _servicer(instance: RotationInstance) -> object:
    """Serves the whole contract: every call is answered with an empty message."""

    def method(output: Any) -> Any:
        answer = message_factory.GetMessageClass(output)

        async def call(_self: object, _request: Any, context: Any) -> Any:
            instance.note(context)
            return answer()

        return call

    described = descriptor_pool.Default().FindServiceByName(CONTRACT)
    methods = {str(each.name): method(each.output_type) for each in described.methods}
    return type("EmptySimulator", (rpc.SierraSimulatorServiceServicer,), methods)()


async def main(registry: str, instance_id: str) -> None:
    """One instance in this process, until it is told to end."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    instance = RotationInstance(registry, instance_id)
    await instance.listen()
    instance.attach()
    print(json.dumps({"serves": instance_id}), flush=True)
    await stop.wait()
    await instance.leave()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
