"""Events, an engine on a fresh file, and a bus over it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from minhos_mesh.event_bus.domain.records import NewEvent
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.storage import Database

MakeEvent = Callable[..., NewEvent]


@pytest.fixture
def make_event() -> MakeEvent:
    """Makes an event with an id of its own; its envelope says which it is."""

    def make(event_type: str = "trade.executed", subject: str = "NQ", envelope: bytes = b"e", **more: str) -> NewEvent:
        source, correlation = more.get("source", "test"), more.get("correlation_id", "")
        return NewEvent(uuid.uuid4().bytes, event_type, subject, source, correlation, envelope)

    return make


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteEngine]:
    async with Database(tmp_path / "bus.db", migrations=MIGRATIONS) as database:
        engine = SqliteEngine(database, clock)
        await engine.start()
        yield engine


@pytest.fixture
async def bus(engine: SqliteEngine, clock: ManualClock) -> AsyncIterator[EventBus]:
    async with EventBus(engine, clock) as bus:
        yield bus
