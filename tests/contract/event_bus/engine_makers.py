"""How the engines of the bus are opened by tests: on a fresh journal, again, and on another machine."""

from __future__ import annotations

import contextlib
import itertools
import operator
import uuid
from pathlib import Path
from typing import Any

from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.engines.jetstream import Copy, Owner
from minhos_mesh.event_bus.engines.jetstream_log import StreamSettings
from minhos_mesh.event_bus.engines.jetstream_opening import opened
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.storage import Database, Durability

_numbers = itertools.count(1)


def new_event(event_type: str = "trade.executed", subject: str = "NQ", envelope: bytes = b"e", **more: str) -> NewEvent:
    """An event with an id of its own."""
    source, correlation = more.get("source", "test"), more.get("correlation_id", "")
    return NewEvent(uuid.uuid4().bytes, event_type, subject, source, correlation, envelope)


class SqliteJournal:
    """A journal in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.AsyncExitStack()

    async def open(self, clock: Clock) -> Any:
        """The engine; one that was open is closed before."""
        await self.close()
        database = Database(self.folder / "bus.db", migrations=MIGRATIONS)
        engine = SqliteEngine(await self._stack.enter_async_context(database), clock)
        await engine.start()
        return engine

    async def close(self) -> None:
        await self._stack.aclose()


class StreamJournal:
    """A journal in a stream, with the copy of this machine or each time with that of a machine that never saw it."""

    def __init__(
        self,
        folder: Path,
        servers: tuple[str, ...],
        *,
        replicas: int = 1,
        elsewhere: bool = False,
        timeout_s: float = 10.0,
        copy_after_bytes: int = 256_000_000,
    ) -> None:
        self.folder = folder
        self.settings = StreamSettings(servers, f"S{uuid.uuid4().hex}", replicas, timeout_s, copy_after_bytes)
        self.conditions = Conditions()
        self._elsewhere = elsewhere
        self._stack = contextlib.AsyncExitStack()

    async def open(self, clock: Clock, *, name: str = "copy", owner: Owner | None = None) -> Any:
        """The engine; one that was open is closed before."""
        await self.close()
        name = f"{name}-{next(_numbers)}" if self._elsewhere else name
        copy = Copy(self.folder / f"{name}.db", migrations=MIGRATIONS, durability=Durability.NORMAL)
        owner = owner or Owner("event_bus-1")
        return await self._stack.enter_async_context(
            opened(self.settings, copy, clock, operator.eq, owner, self.conditions)
        )

    async def close(self) -> None:
        await self._stack.aclose()
