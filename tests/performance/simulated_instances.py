"""Decides how many instances are simulated in one process: real attach streams, heartbeats and health, no service behind.

Each instance has a loopback address of its own at one port, so that the registry holds a connection to each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.performance.registry_process import RegistryProcess
from tests.performance.service_process import own_channel

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.contracts import descriptor_set, load_all

PER_SERVICE: Final = 20
PER_CHANNEL: Final = 50
"""Streams of one connection; real instances have one each, which a single process cannot hold by the thousand cheaply."""
GRANT_S: Final = 60.0
_SERVING: Final = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
_WEIGHT: Final = ("minhos_api.sierra.v1.SierraSimulatorService",)
"""Each instance brings a descriptor set as large as that of a real service with this contract."""


@dataclass(slots=True)
class SimulatedInstance:
    """One attach stream."""

    service: str
    instance_id: str
    call: Any
    token: int = 0
    serving: bool = True
    beats: int = 0
    heartbeat_s: float = 0.5
    now: asyncio.Event = field(default_factory=asyncio.Event)

    async def attach(self, hello: pb.AttachHello) -> None:
        """Says hello and takes the lease."""
        await self.call.write(pb.AttachRequest(hello=hello))
        answer = await self.call.read()
        if answer is grpc.aio.EOF or not answer.HasField("granted"):
            raise ConnectionError(f"{self.instance_id} was not granted its lease: {await self.call.details()}")
        self.token = answer.granted.fencing_token
        self.heartbeat_s = answer.granted.heartbeat_interval.ToTimedelta().total_seconds()

    async def live(self, first_s: float) -> None:
        """Sends heartbeats until it is cancelled; a first pause spreads those of many over the interval."""
        reader = asyncio.create_task(self._read())
        try:
            pause_s = first_s
            while True:
                await self.beat()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self.now.wait()
                self.now.clear()
                pause_s = self.heartbeat_s
        finally:
            reader.cancel()

    async def beat(self) -> None:
        """One heartbeat."""
        self.beats += 1
        await self.call.write(pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=self.serving)))

    async def _read(self) -> None:
        while await self.call.read() is not grpc.aio.EOF:
            pass


@contextlib.asynccontextmanager
async def attached(registry: RegistryProcess, count: int) -> AsyncIterator[tuple[list[SimulatedInstance], float]]:
    """So many instances, attached all at once, with the seconds until the last was granted; they beat until the end."""
    async with _health_server() as port, _beating(registry, count, port) as found:
        yield found


@contextlib.asynccontextmanager
async def _beating(
    registry: RegistryProcess, count: int, port: int
) -> AsyncIterator[tuple[list[SimulatedInstance], float]]:
    channels = [
        grpc.aio.insecure_channel(registry.address, options=own_channel()) for _ in range(-(-count // PER_CHANNEL))
    ]
    beating: list[asyncio.Task[None]] = []
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        hellos = [_hello(number, port) for number in range(count)]
        stubs: list[Any] = [RegistryServiceStub(channel) for channel in channels]
        instances = [
            SimulatedInstance(hello.service, hello.instance_id, stubs[number // PER_CHANNEL].Attach())
            for number, hello in enumerate(hellos)
        ]
        loop = asyncio.get_running_loop()
        begun, granted = loop.time(), list[float]()

        async def come(number: int) -> None:
            await instances[number].attach(hellos[number])
            granted.append(loop.time())
            first_s = (number % 97) / 97 * instances[number].heartbeat_s
            beating.append(asyncio.create_task(instances[number].live(first_s)))

        async with asyncio.timeout(GRANT_S):
            await asyncio.gather(*(come(number) for number in range(count)))
        yield instances, max(granted) - begun
    finally:
        for task in beating:
            task.cancel()
        results = await asyncio.gather(*beating, return_exceptions=True)
        for channel in channels:
            await channel.close()
        broken = [r for r in results if isinstance(r, Exception)]
        if broken:
            raise ConnectionError(f"{len(broken)} of {count} instances lost their lease; the first: {broken[0]!r}")


class _Health(health_pb2_grpc.HealthServicer):
    """The standard health service of all instances; its watches end when they are told to."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Check(self, _request: Any, _context: Any) -> Any:
        return _SERVING

    async def Watch(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        yield _SERVING
        await self.ended.wait()


@contextlib.asynccontextmanager
async def _health_server() -> AsyncIterator[int]:
    """Serves health on all loopback addresses; gives the port."""
    server = grpc.aio.server(options=channel_options.SERVER)
    health = _Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("0.0.0.0:0")
    await server.start()
    try:
        yield port
    finally:
        health.ended.set()
        await server.stop(2)


def _hello(number: int, port: int) -> pb.AttachHello:
    service = f"bench_{number // PER_SERVICE:03}"
    contract, files = _contract(service)
    return pb.AttachHello(
        service=service,
        instance_id=f"{service}-{number % PER_SERVICE:02}",
        address=f"127.1.{number // 250}.{number % 250 + 1}:{port}",
        version="1",
        contracts=[contract],
        descriptor_set=files,
        versions={"python": "3"},
    )


_made: dict[str, tuple[str, bytes]] = {}


def _contract(service: str) -> tuple[str, bytes]:
    """A contract of one method for each service, beside the files of a real one."""
    if service not in _made:
        load_all()
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set(_WEIGHT))
        own = files.file.add(name=f"bench/{service}/v1/service.proto", package=f"bench.{service}.v1", syntax="proto3")
        own.message_type.add(name="AskRequest")
        own.message_type.add(name="AskResponse")
        offered = own.service.add(name="BenchService")
        kinds = {"input_type": f".{own.package}.AskRequest", "output_type": f".{own.package}.AskResponse"}
        offered.method.add(name="Ask", **kinds)
        _made[service] = (f"{own.package}.BenchService", files.SerializeToString())
    return _made[service]
