"""A bus with its publishers and readers for tests of faults: everything goes on while the bus goes down and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self

import grpc
from tests.faults.bus.bus_process import BusEnded, BusProcess
from tests.faults.bus.history import Fault, History, Kept, Letter, Outcome, Rules
from tests.faults.bus.publishing import LOST, Maker, Publisher, StreamPublisher, UnaryPublisher
from tests.faults.bus.reading import Listener, Member, Ways, kept_of, replay

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub

_CHANNEL: Final = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]
CONSUMERS: Final = {
    "archive": (Rules(), {"a": Ways(), "b": Ways(works_s=0.02)}),
    "flaky": (
        Rules(),
        {
            "a": Ways(fails=0.02, poison=60, vanishes=0.02),
            "b": Ways(poison=60, leaves=0.05),
            "c": Ways(fails=0.02, poison=60, vanishes=0.01, works_s=0.05),
        },
    ),
    "started": (Rules(types=("service.started",), max_attempts=2), {"a": Ways(fails=0.05)}),
}
LIMITS: Final = {"max_events": 300, "keep_ns": 60 * 10**9}
GO_ON_S: Final = 30.0
WRITTEN_S: Final = 0.5
"""After this at the latest the bus has written down what its consumers did."""
PROGRESS: Final = 30
"""Events that must be acknowledged behind each fault."""


class World:
    """One bus and everybody around it. Use as an async context manager; `finish` gives the whole history."""

    def __init__(self, folder: Path, seed: int, settings: dict[str, Any] | None = None, padding: int = 0) -> None:
        self.bus = BusProcess(folder / "bus", {"limits": LIMITS, **(settings or {})})
        self.history = History(consumers={name: rules for name, (rules, _) in CONSUMERS.items()})
        self.random = random.Random(seed)
        self.missed: list[str] = []
        """Faults that did not happen, or after which nothing went on."""
        self.forgotten = 0
        """How many events had been acknowledged when old ones were removed the last time."""
        self.latest_s = 0.0
        """How far the bus's clock was ahead of the machine's at the most."""
        self._seed = seed
        self._padding = padding
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.publishers: list[Publisher] = []
        self._publishing: list[asyncio.Task[None]] = []
        self.members: list[Member] = []
        self.live = Listener(None, self.history, "live", position=-1)

    async def __aenter__(self) -> Self:
        await self.bus.start()
        self._make_publishers()
        for name, (_, members) in CONSUMERS.items():
            stub = await self._stub()
            self.members += [Member(stub, self.history, name, each, ways, self._seed) for each, ways in members.items()]
        self.live.stub = await self._stub()
        latest = Listener(self.live.stub, self.history, "latest", latest=True, credit=4, works_s=0.2)
        actors = [member.run() for member in self.members]
        actors += [self.live.run(), latest.run(), self._replay_now_and_then()]
        self._tasks = [asyncio.create_task(actor) for actor in actors]
        self._publishing = [asyncio.create_task(await self._publisher(each)) for each in self.publishers]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end_everybody()
        await self._stack.aclose()
        await self.bus.close()

    async def _end_everybody(self) -> None:
        for task in (*self._publishing, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._publishing, *self._tasks, return_exceptions=True)

    def _make_publishers(self) -> None:
        for number in range(4):
            kind = "unary" if number < 2 else "stream"
            maker = Maker(f"{kind}{number}", self._seed, self.history, 0.02, padding=self._padding)
            self.publishers.append((UnaryPublisher if number < 2 else StreamPublisher)(None, maker))

    async def _publisher(self, publisher: Publisher) -> Coroutine[Any, Any, None]:
        publisher.stub = await self._stub()
        return publisher.run()

    async def _stub(self, kind: Any = EventBusServiceStub) -> Any:
        channel = grpc.aio.insecure_channel(self.bus.address, options=_CHANNEL)
        await self._stack.enter_async_context(channel)
        return kind(channel)

    async def _replay_now_and_then(self) -> None:
        stub = await self._stub()
        while True:
            await asyncio.sleep(self.random.random() * 2)
            with contextlib.suppress(*LOST):
                self.history.replays.append(await replay(stub))

    # What happens to the bus.

    def note(self, kind: str, *, stops: bool = True) -> None:
        """Writes down a fault."""
        self.history.faults.append(Fault(self.history.now(), kind, stops))

    async def up(self, point: str | None = None) -> None:
        """Has the bus run, with a point from its start; one that runs is killed for that."""
        if self.bus.is_alive:
            if point is None:
                return
            self.note("kill")
            await self.bus.kill()
        await self.bus.start(point)
        self.note("up")

    def acked(self) -> int:
        """How many events were acknowledged so far."""
        return sum(attempt.outcome is Outcome.ACKED for attempt in self.history.attempts)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = GO_ON_S) -> bool:
        """Waits for a condition; says in `missed` when it did not come."""
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            if asyncio.get_running_loop().time() > end:
                self.missed.append(f"{what}: not within {seconds:g} s")
                return False
            await asyncio.sleep(0.01)
        return True

    async def progress(self, behind: str) -> None:
        """Returns once enough was published behind a fault."""
        before = self.acked()
        await self.until(lambda: self.acked() >= before + PROGRESS, f"publishing behind {behind}")

    async def drained(self) -> None:
        """Holds the publishers until everything that they sent is answered, and has them forget what to send again."""
        for publisher in self.publishers:
            publisher.maker.go_on.clear()
        await self.until(lambda: not any(p.maker.unanswered for p in self.publishers), "answers to all that was sent")
        for publisher in self.publishers:
            publisher.maker.acked.clear()

    def publish_on(self) -> None:
        """Lets the publishers go on."""
        for publisher in self.publishers:
            publisher.maker.go_on.set()

    # The end.

    async def finish(self) -> History:
        """Lets everything come to rest and reads what is held then."""
        await self.up()
        for publisher in self.publishers:
            publisher.maker.ending = True
        for member in self.members:
            member.calm = True
        self.publish_on()
        self.missed += [f"somebody gave up: {task.exception()!r}" for task in self._tasks if task.done()]
        _, late = await asyncio.wait(self._publishing, timeout=GO_ON_S)
        if late:
            self.missed.append(f"{len(late)} publishers did not come to their end")
        await self._settled()
        await asyncio.sleep(WRITTEN_S)
        await self._read_the_end()
        await self._end_everybody()
        await self.bus.kill()
        self.history.removed_through = removed_through(self.bus.folder)
        return self.history

    async def _settled(self) -> None:
        admin, end = await self._stub(EventAdminServiceStub), asyncio.get_running_loop().time() + GO_ON_S
        while True:
            response = await admin.ListConsumers(admin_pb.ListConsumersRequest(), timeout=10)
            waiting = {each.name: each.lag for each in response.consumers if each.lag}
            if not waiting and len(response.consumers) == len(CONSUMERS):
                break
            if asyncio.get_running_loop().time() > end:
                self.missed.append(f"consumers did not come to their end: {waiting}")
                return
            await asyncio.sleep(0.05)
        stub = await self._stub()
        listed = await stub.ListEvents(pb.ListEventsRequest(page_size=1), timeout=10)
        await self.until(lambda: self.live.position >= listed.newest_sequence, "the reader that listens has everything")

    async def _read_the_end(self) -> None:
        stub, admin = await self._stub(), await self._stub(EventAdminServiceStub)
        request = pb.ListEventsRequest(ascending=True, page_size=1000)
        self.history.journal = [kept_of(e) async for page in _pages(stub.ListEvents, request) for e in page.events]
        asked = admin_pb.ListDeadLettersRequest(page_size=1000, with_requeued=True)
        self.history.letters = [
            Letter(each.consumer, kept_of(each.event), tuple(attempt.error for attempt in each.attempts))
            async for page in _pages(admin.ListDeadLetters, asked)
            for each in page.dead_letters
        ]
        newest: Kept | None = self.history.journal[-1] if self.history.journal else None
        if newest is not None:
            self.history.replays.append(await replay(stub, through=newest.sequence))


async def _pages(call: Any, request: Any) -> AsyncIterator[Any]:
    while True:
        page = await call(request, timeout=30, wait_for_ready=True)
        yield page
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def removed_through(folder: Path) -> int:
    """Up to where retention removed events, as the journal in a folder says; the bus must be down."""
    newest = 0
    for path in (folder / "store").glob("event_bus*.db"):
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT max(horizon) FROM type_count").fetchone()
            newest = max(newest, row[0] or 0)
    return newest


__all__ = ["CONSUMERS", "BusEnded", "World"]
