"""Discovery clients that do everything wrong at once, against a registry in a process of its own: it stays small and serves the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.faults.registry_process import OWN, SIMULATOR, RegistryProcess, Witness

from minhos_mesh.registry.ads_limits import LOGGED_AT_ONCE, LOGGED_PER_SECOND
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import CDS, EDS, LDS, RDS

pytestmark = pytest.mark.timeout(120)

METHOD = f"/{ADS_SERVICE}/{ADS_METHOD}"
STORMING_S = 6.0
ENVOY = EnvoyMessages.from_file()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryProcess]:
    running = RegistryProcess(tmp_path / "mesh", {})
    try:
        await running.ready()
        yield running
        assert running.alive
    finally:
        running.stop()


def request(type_url: str, *names: str, node: str = "n", **fields: Any) -> bytes:
    made = ENVOY.discovery_request(type_url=type_url, resource_names=names, node={"id": node}, **fields)
    return made.SerializeToString()


def opened(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(METHOD, None, ENVOY.discovery_response.FromString)()


async def well_behaved(address: str) -> float:
    """Asks for all there is of one contract, as a client does, and returns how long that took, in seconds."""
    begun = time.monotonic()
    async with grpc.aio.insecure_channel(address, options=OWN) as channel, asyncio.timeout(20):
        call = opened(channel)
        for type_url in (LDS, RDS, CDS, EDS):
            await call.write(request(type_url, SIMULATOR))
            answer = await call.read()
            assert [answer.type_url, len(answer.resources)] == [type_url, 1]
            await call.write(
                request(type_url, SIMULATOR, response_nonce=answer.nonce, version_info=answer.version_info)
            )
        call.cancel()
    return time.monotonic() - begun


async def silent(address: str) -> None:
    """Streams on which nothing is said, by the hundred."""
    async with grpc.aio.insecure_channel(address, options=OWN) as channel:
        calls = [opened(channel) for _ in range(300)]
        with contextlib.suppress(grpc.aio.AioRpcError):
            await asyncio.gather(*(call.wait_for_connection() for call in calls))
        await asyncio.sleep(60)


async def greedy(address: str) -> None:
    """Names by the ten thousand, long ones, and a node id of half a megabyte, again and again."""
    asked = [
        request(RDS, *(f"name-{number}" for number in range(10_000))),
        request(EDS, *(f"{number:0500d}" for number in range(500)), node="n" * 100_000),
        request(LDS, *(f"{number:0500d}" for number in range(60)), node="n" * 500_000),
        b"\xff" * 1_000_000,
    ]
    async with grpc.aio.insecure_channel(address, options=OWN) as channel:
        while True:
            for raw in asked:
                call = opened(channel)
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(raw)
                    await call.read()
                call.cancel()
                await asyncio.sleep(0.02)


async def refusing(address: str) -> None:
    """Refuses whatever comes, as fast as it can, and comes back when it is ended."""
    async with grpc.aio.insecure_channel(address, options=OWN) as channel:
        while True:
            call = opened(channel)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(request(CDS, SIMULATOR))
                answer = await call.read()
                wrong = {"code": 3, "message": "no " * 5_000}
                while True:
                    await call.write(request(CDS, SIMULATOR, response_nonce=answer.nonce, error_detail=wrong))
            await asyncio.sleep(0.02)


async def test_everything_at_once_neither_starves_the_others_nor_eats_the_memory(registry: RegistryProcess) -> None:
    witness = Witness()
    try:
        await witness.ready(registry)
        await well_behaved(registry.address)
        before_mb, begun = registry.memory_mb(), time.monotonic()
        storm = [silent, silent, silent, greedy, greedy, refusing, refusing, refusing]
        tasks = [asyncio.create_task(each(registry.address)) for each in storm]
        end, took, highest_mb = time.monotonic() + STORMING_S, [], 0.0
        while time.monotonic() < end:
            took.append(await well_behaved(registry.address))
            highest_mb = max(highest_mb, registry.memory_mb())
            await asyncio.sleep(0.1)
        assert [task.exception() for task in tasks if task.done()] == []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert max(took) < 5.0, took
        assert highest_mb - before_mb < 150, (before_mb, highest_mb)
        await witness.assert_unharmed(slowest_s=5.0)
        log = registry.paths.log_file("registry").read_text(encoding="utf-8")
        lines = log.count("discovery.refused") + log.count("discovery.turned_away")
        assert 0 < lines < LOGGED_AT_ONCE + 2 * LOGGED_PER_SECOND * (time.monotonic() - begun)
        assert '"left_out"' in log
    finally:
        witness.stop()
