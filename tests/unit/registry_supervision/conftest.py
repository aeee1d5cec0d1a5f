"""A supervisor over fake processes and a clock that only the test moves."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from minhos_mesh.registry.domain.supervision import SupervisionPolicy, Unit
from minhos_mesh.registry.plan import Plan
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.supervision_ports import Progress
from minhos_mesh.registry.supervisor import Supervisor
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.keeper_client import KeeperRefused, KeeperUnavailable
from minhos_mesh.runtime.keeper_protocol import KeeperState, ProcessExit, ProcessInfo, SpawnRequest

T = TypeVar("T")


class FakeProcesses:
    """A keeper in memory. Services serve at once unless told otherwise."""

    def __init__(self, board: ReadinessBoard, clock: ManualClock) -> None:
        self.board = board
        self.clock = clock
        self.running: dict[str, ProcessInfo] = {}
        self.history: list[tuple[str, str]] = []
        self.serving_at_spawn: list[tuple[str, frozenset[str]]] = []
        self.mute: set[str] = set()
        """Services that never serve."""
        self.crashing: set[str] = set()
        """Services that end with code 1 as soon as they run."""
        self.stubborn: set[str] = set()
        """Services that do not hear SIGTERM."""
        self.away = False
        self.refuses: str | None = None
        self.loses_answers = False
        self._pids = itertools.count(100)
        self._sequence = itertools.count(1)
        self._followers: list[asyncio.Queue[ProcessExit | None]] = []

    async def spawn(self, request: SpawnRequest) -> ProcessInfo:
        self._reach()
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise KeeperRefused("SPAWN_FAILED", self.refuses)
        info = self.running.get(request.instance_id)
        if info is None:
            info = self._run(request)
        if self.loses_answers:
            self.loses_answers = False
            raise KeeperUnavailable("no keeper answers")
        return info

    def _run(self, request: SpawnRequest) -> ProcessInfo:
        served = frozenset(item.service for item in self.running.values() if self.board.is_serving(item.service))
        self.serving_at_spawn.append((request.service, served))
        self.history.append(("spawn", request.service))
        info = ProcessInfo(request.service, request.instance_id, next(self._pids), 1, self.clock.wall_ns(), "/dev/null")
        self.running[info.instance_id] = info
        if request.service in self.crashing:
            self.end(request.service, code=1, instance_id=request.instance_id)
        elif request.service not in self.mute:
            self.board.set_serving(request.service, request.instance_id, True)
        return info

    async def signal(self, instance_id: str, number: int) -> None:
        self._reach()
        await asyncio.sleep(0)
        info = self.running.get(instance_id)
        if info is None:
            raise KeeperRefused("NOT_FOUND", f"no process runs as {instance_id}")
        self.history.append((signal.Signals(number).name, info.service))
        if number == signal.SIGKILL:
            self.end(info.service, number=number, instance_id=instance_id)
        elif info.service not in self.stubborn:
            self.end(info.service, code=0, instance_id=instance_id)

    async def list(self) -> KeeperState:
        self._reach()
        await asyncio.sleep(0)
        return KeeperState(1, "/data", tuple(self.running.values()), None)

    async def follow(self, name: str | None = None) -> AsyncIterator[ProcessExit]:
        self._reach()
        queue: asyncio.Queue[ProcessExit | None] = asyncio.Queue()
        self._followers.append(queue)
        try:
            while (exited := await queue.get()) is not None:
                yield exited
        finally:
            self._followers.remove(queue)
        raise KeeperUnavailable("the keeper went away")

    def end(
        self, service: str, *, code: int | None = None, number: int | None = None, instance_id: str | None = None
    ) -> None:
        """A process ends: the one of an instance, or else the first of its service."""
        info = next(
            item
            for item in self.running.values()
            if item.service == service and instance_id in (None, item.instance_id)
        )
        del self.running[info.instance_id]
        self.board.set_serving(service, info.instance_id, False)
        self.history.append(("exit", service))
        exited = ProcessExit(
            next(self._sequence), service, info.instance_id, info.pid, code, number, self.clock.wall_ns(), 0.0
        )
        for follower in self._followers:
            follower.put_nowait(exited)

    def die(self) -> None:
        """The keeper goes away; what it started runs on."""
        self.away = True
        for follower in self._followers:
            follower.put_nowait(None)

    def services(self) -> builtins.list[str]:
        return sorted(info.service for info in self.running.values())

    def spawns(self, service: str) -> int:
        return self.history.count(("spawn", service))

    def _reach(self) -> None:
        if self.away:
            raise KeeperUnavailable("no keeper answers")


class FakeWishes:
    def __init__(self) -> None:
        self.kept: dict[str, bool] = {}

    async def load(self) -> Mapping[str, bool]:
        return dict(self.kept)

    async def keep(self, wished: Mapping[str, bool]) -> None:
        self.kept.update(wished)


class FakeLogs:
    def __init__(self) -> None:
        self.lines: dict[str, tuple[str, ...]] = {}

    def mark(self, service: str) -> None:
        return

    async def tail(self, service: str, instance_id: str | None = None) -> tuple[str, ...]:
        return self.lines.get(service, ())


@dataclass
class Mesh:
    """All that a test of the supervisor touches."""

    clock: ManualClock = field(default_factory=ManualClock)
    board: ReadinessBoard = field(default_factory=ReadinessBoard)
    wishes: FakeWishes = field(default_factory=FakeWishes)
    logs: FakeLogs = field(default_factory=FakeLogs)
    changes: list[Unit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processes = FakeProcesses(self.board, self.clock)
        self._ids = itertools.count(1)

    def supervisor(self, plan: Plan, policy: SupervisionPolicy | None = None, **options: Any) -> Supervisor:
        return Supervisor(
            plan=plan,
            processes=self.processes,
            readiness=self.board,
            wishes=self.wishes,
            logs=self.logs,
            clock=self.clock,
            policy=policy,
            **options,
            new_id=lambda service: f"{service}-{next(self._ids)}",
            on_change=self.changes.append,
        )

    async def settle(self) -> None:
        """Lets everything happen that needs no time."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.settle()
        self.clock.advance(seconds)
        await self.settle()

    async def run(self, progress: AsyncIterator[Progress]) -> list[Progress]:
        """Takes all progress of a call, moving the clock from one sleeper to the next."""
        return await self.until(collect(progress))

    async def watch(self, progress: AsyncIterator[Progress]) -> list[Progress]:
        """Takes all progress of a call while the test moves the clock."""
        return await collect(progress)

    async def until(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        for _ in range(500):
            await self.settle()
            if task.done():
                return task.result()
            due = self.clock.next_wake()
            assert due is not None, "nothing sleeps and nothing happens"
            self.clock.advance(max(0.0, due - self.clock.monotonic()) + 1e-6)
        raise AssertionError("the call does not end")


async def collect(progress: AsyncIterator[Progress]) -> list[Progress]:
    return [item async for item in progress]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def new_mesh() -> Callable[[], Mesh]:
    """For tests that need many."""
    return Mesh
