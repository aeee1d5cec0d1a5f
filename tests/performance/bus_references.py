"""Decides what the bus is set beside: nats-py on JetStream, Redis Streams, and the least there is: SQLite, a file, a stream."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from tests.performance import bus_events
from tests.performance.bus_publishers import Lap

ROW_BYTES: Final = 350
"""What the plain loops write for an event: as much as one has on its way to the bus, with its envelope."""


class NatsPublisher:
    """nats-py's `publish_async` on JetStream: a new message goes out as soon as another is acknowledged."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name = name
        self._stream = stream

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher; one payload serves for all."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        lap, payload = Lap(), bus_events.payload()
        room = asyncio.Semaphore(in_flight)

        def acknowledged(sent: float, future: asyncio.Future[Any]) -> None:
            future.result()
            lap.acknowledged(sent, 1)
            room.release()

        number = 0
        while time.perf_counter() - lap.begun < seconds:
            await room.acquire()
            number += 1
            sent = time.perf_counter()
            future = await self._stream.publish_async(f"bench.{number % len(bus_events.SUBJECTS)}", payload)
            future.add_done_callback(lambda done, sent=sent: acknowledged(sent, done))
        for _ in range(in_flight):
            await room.acquire()
        return lap


class RedisPublisher:
    """XADD: as many as are in flight in one pipeline, the next when all are answered."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self._client = client

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher; one payload serves for all."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        lap, fields = Lap(), {"p": bus_events.payload()}
        while time.perf_counter() - lap.begun < seconds:
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(in_flight):
                pipeline.xadd("bench", fields)
            sent = time.perf_counter()
            await pipeline.execute()
            lap.acknowledged(sent, in_flight)
        return lap


class SqliteLoop:
    """A table of rows, `synchronous = FULL`, in this thread, without anything around it."""

    def __init__(self, name: str, file: Path, *, batch: bool) -> None:
        """With `batch` one commit takes all events in flight, else each has its own."""
        self.name = name
        self._batch = batch
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE event (sequence INTEGER PRIMARY KEY, body BLOB)")

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        lap, count, row = Lap(), in_flight if self._batch else 1, (b"x" * ROW_BYTES,)
        while time.perf_counter() - lap.begun < seconds:
            sent = time.perf_counter()
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO event (body) VALUES (?)", [row] * count)
            self._connection.execute("COMMIT")
            lap.acknowledged(sent, count)
        return lap

    def close(self) -> None:
        """Gives back the file."""
        self._connection.close()


class BareStream:
    """A stream over grpc.aio whose server only writes to a file: all events in flight in one message."""

    def __init__(self, name: str, call: Any) -> None:
        self.name = name
        self._call = call

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        call, row = self._call(), b"x" * ROW_BYTES * in_flight
        lap = Lap()
        while time.perf_counter() - lap.begun < seconds:
            sent = time.perf_counter()
            await call.write(row)
            await call.read()
            lap.acknowledged(sent, in_flight)
        call.cancel()
        return lap


class FileLoop:
    """The least that is possible: the events in flight are appended to a file in one write, and put on the disk."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        lap, row = Lap(), b"x" * ROW_BYTES * in_flight
        while time.perf_counter() - lap.begun < seconds:
            sent = time.perf_counter()
            os.write(self._file, row)
            os.fdatasync(self._file)
            lap.acknowledged(sent, in_flight)
        return lap

    def close(self) -> None:
        """Gives back the file."""
        os.close(self._file)
