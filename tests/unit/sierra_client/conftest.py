from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from minhos_mesh.runtime.storage import Database, Durability
from minhos_mesh.sierra_client.ports import IngestLink, IngestLost, Opening
from minhos_mesh.sierra_client.store import MIGRATIONS, SourceStore
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records
from minhos_mesh.sierra_files.ticks import TickColumns


def make_records(count: int, first: int = 0) -> Records:
    """Single trades with distinct times and prices."""
    records = np.zeros(count, RECORD)
    index = first + np.arange(count)
    records["time_us"] = EPOCH_SHIFT_US + 1_790_000_000_000_000 + index * 1000
    records["close"] = 100.0 + (index % 400) * 0.25
    records["low"], records["high"] = records["close"] - 0.25, records["close"]
    records["num_trades"] = records["total_volume"] = records["ask_volume"] = 1
    return records


async def wait_until(holds: Callable[[], bool], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not holds():
            await asyncio.sleep(0.001)


class FakeLink:
    def __init__(self, market: FakeMarketData, opening: Opening, wake: Callable[[], None]) -> None:
        self._market, self.opening, self._wake = market, opening, wake
        self._wake_at: int | None = None
        self.broken: Exception | None = None
        self.ended: int | None = None
        self.acknowledged = len(market.taken.get(opening.epoch, []))

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def wake_at(self, position: int) -> None:
        self._wake_at = position

    async def send(self, columns: TickColumns, first_position: int, receive_ns: int | None) -> None:
        self.check()
        taken = self._market.taken.setdefault(self.opening.epoch, [])
        assert first_position == len(taken) + 1, "a batch follows the one before"
        taken += [int(time) for time in columns.time_ns]
        self._market.receive_times.append(receive_ns)
        if not self._market.silent:
            self.acknowledge(len(taken))

    def acknowledge(self, position: int) -> None:
        self.acknowledged = position
        if self._wake_at is not None and position >= self._wake_at:
            self._wake()

    async def end(self, through_position: int) -> None:
        self.ended = through_position

    def break_off(self, error: Exception) -> None:
        self.broken = error
        self._wake()


class FakeMarketData:
    """Keeps what it is sent, per epoch, as event times."""

    def __init__(self) -> None:
        self.taken: dict[int, list[int]] = {}
        self.receive_times: list[int | None] = []
        self.openings: list[Opening] = []
        self.links: list[FakeLink] = []
        self.refuse: Exception | None = None
        self.silent = False

    @asynccontextmanager
    async def connect(self, opening: Opening, wake: Callable[[], None]) -> AsyncIterator[IngestLink]:
        self.openings.append(opening)
        if self.refuse is not None:
            raise self.refuse
        link = FakeLink(self, opening, wake)
        self.links.append(link)
        yield link

    def restart(self) -> None:
        """Forgets everything and drops all links, as a killed process does."""
        self.taken.clear()
        links, self.links = self.links, []
        for link in links:
            link.break_off(IngestLost("connection reset"))

    @property
    def newest(self) -> list[int]:
        """What was taken of the newest epoch."""
        return self.taken[max(self.taken)] if self.taken else []


@pytest.fixture
def market() -> FakeMarketData:
    return FakeMarketData()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SourceStore]:
    async with Database(tmp_path / "store.db", migrations=MIGRATIONS, durability=Durability.NORMAL) as database:
        yield SourceStore(database)


@pytest.fixture(scope="session")
def made() -> Callable[..., Records]:
    return make_records


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[None]]:
    return wait_until
