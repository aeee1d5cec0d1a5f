"""Decides that batches which wait for the disk at one time share its transaction, its statements and its commit.

Whatever waits when the writer is free is stored together, in the order in which it came. A batch that is refused leaves the
others as they are; what the disk refuses is refused for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.event_bus.domain.errors import BusError
from minhos_mesh.event_bus.domain.records import Appended, NewEvent
from minhos_mesh.event_bus.engines import sqlite_journal as journal
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import Connection, Database, StorageError

TOGETHER: Final = 2048
"""Events beyond which no further batch is taken into a transaction."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One batch, and who waits for it."""

    batch: journal.Batch
    future: asyncio.Future[Appended]


@dataclass(slots=True)
class _Round:
    """What one transaction took."""

    taken: list[_Waiting] = field(default_factory=list)
    has_run: bool = False


class Appends:
    """Batches on their way into a journal."""

    def __init__(
        self, database: Database, clock: Clock, same: SameContent, remember: Callable[[journal.Committed], None]
    ) -> None:
        """`remember` is told what was stored, in the order of commits, before whoever waits for it."""
        self._database = database
        self._clock = clock
        self._same = same
        self._remember = remember
        self._waiting: deque[_Waiting] = deque()
        self._is_asked = False
        """Whether a round is on its way to the writer that will take what waits."""
        self._rounds: set[asyncio.Task[None]] = set()

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> Appended:
        """See Engine."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(journal.Batch(events, expected), future))
        self._ask()
        return await future

    def _ask(self) -> None:
        if self._waiting and not self._is_asked:
            self._is_asked = True
            task = asyncio.create_task(self._run(), name="event_bus-append-round")
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)

    async def _run(self) -> None:
        this = _Round()
        try:
            await self._database.write(
                lambda connection: self._store(connection, this), then=lambda outcomes: self._tell(this, outcomes)
            )
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits for this round
            self._refuse(this, error)
        except asyncio.CancelledError:
            self._refuse(this, None)
            raise
        self._ask()

    def _store(self, connection: Connection, this: _Round) -> list[journal.Outcome]:
        """In the thread that writes. Who comes after the first line asks for the next round, and may be taken by this one."""
        self._is_asked = False
        this.has_run = True
        count = 0
        while self._waiting and count < TOGETHER:
            taken = self._waiting.popleft()
            this.taken.append(taken)
            count += len(taken.batch.events)
        batches = [taken.batch for taken in this.taken]
        outcomes = journal.append_all(connection, batches, self._clock.wall_ns(), self._same)
        for _ in batches:
            reached("publish.before_commit")
        return outcomes

    def _tell(self, this: _Round, outcomes: list[journal.Outcome]) -> None:
        """On the event loop, behind the commit."""
        events = tuple(e for each in outcomes if isinstance(each, journal.Committed) for e in each.events)
        for _ in outcomes:
            reached("publish.after_commit")
        try:
            if events:
                self._remember(journal.Committed(Appended((), 0), events))
        finally:
            for waiting, outcome in zip(this.taken, outcomes, strict=True):
                _answer(waiting.future, outcome)

    def _refuse(self, this: _Round, error: Exception | None) -> None:
        """Tells everyone of a round that it failed, and everyone who waits: whoever has several batches under way sends them
        all again, and none may be stored before one that came first. None when the program ends.
        """
        refused = this.taken
        if not this.has_run:
            self._is_asked = False
        if not this.has_run or isinstance(error, StorageError):
            refused = [*refused, *self._waiting]
            self._waiting.clear()
        for waiting in refused:
            if waiting.future.done():
                continue
            if error is None:
                waiting.future.cancel()
            else:
                waiting.future.set_exception(error)


def _answer(future: asyncio.Future[Appended], outcome: journal.Outcome) -> None:
    if future.done():
        return  # whoever waited has given up
    if isinstance(outcome, BusError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome.appended)
