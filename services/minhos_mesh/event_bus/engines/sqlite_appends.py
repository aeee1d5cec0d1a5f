"""Decides that batches which wait for the disk at one time share its transaction, its statements and its commit.

Whatever waits when the writer is free is stored together, in the order in which it came. A batch that is refused leaves the
others as they are; what the disk refuses is refused for all of them. Nothing on this way is a task or waits for one: what a
batch costs beside its events is one change to the thread that writes, and one back.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from minhos_mesh.event_bus.domain.errors import BusError
from minhos_mesh.event_bus.domain.records import Appended, NewEvent
from minhos_mesh.event_bus.engines import sqlite_journal as journal
from minhos_mesh.event_bus.engines.interface import Told
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import Connection, Database, StorageError, of_ones_own

T = TypeVar("T")

TOGETHER: Final = 2048
"""Events beyond which no further batch is taken into a transaction."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One batch, and who is told what becomes of it."""

    batch: journal.Batch
    told: Told


@dataclass(slots=True)
class _Round:
    """What one transaction took."""

    taken: list[_Waiting] = field(default_factory=list)
    has_run: bool = False
    is_late: bool = False
    """Whether a failure became known behind its asking: who waited then was told of that, and who came since asked anew."""


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
        self._rounds: list[_Round] = []
        """Those of which it is not known yet what came of them."""

    def submit(self, events: Sequence[NewEvent], expected: Mapping[str, int], told: Told) -> None:
        """See Engine."""
        self._waiting.append(_Waiting(journal.Batch(events, expected), told))
        if not self._is_asked:
            self._ask()

    def _ask(self) -> None:
        self._is_asked = True
        this = _Round()
        self._rounds.append(this)
        try:
            self._database.write_soon(functools.partial(self._store, this), functools.partial(self._end, this))
        except StorageError as error:
            self._end(this, None, error)

    def _store(self, this: _Round, connection: Connection) -> list[journal.Outcome]:
        """In the thread that writes. Who comes when everything is taken asks for the next round."""
        this.has_run = True
        taken, count = this.taken, 0
        while True:
            while self._waiting and count < TOGETHER:
                taken.append(self._waiting.popleft())
                count += len(taken[-1].batch.events)
            self._is_asked = False
            if not self._waiting or count >= TOGETHER:
                break  # else one came just before that, and did not ask
        outcomes = journal.append_all(connection, [each.batch for each in taken], self._clock.wall_ns(), self._same)
        for _ in taken:
            reached("publish.before_commit")
        return outcomes

    def _end(self, this: _Round, outcomes: list[journal.Outcome] | None, error: Exception | None) -> None:
        """On the event loop, behind the commit or the failure."""
        self._rounds.remove(this)
        try:
            if outcomes is None:
                self._refuse(this, error or StorageError("nothing is known of the write"))
            else:
                self._tell(this, outcomes)
        finally:
            if self._waiting and not self._is_asked:
                self._ask()

    def _tell(self, this: _Round, outcomes: list[journal.Outcome]) -> None:
        committed = [each for each in outcomes if isinstance(each, journal.Committed)]
        for _ in outcomes:
            reached("publish.after_commit")
        try:
            if len(committed) == 1:
                self._remember(committed[0])
            elif committed:
                events = tuple(event for each in committed for event in each.events)
                self._remember(journal.Committed(Appended((), 0), events))
        finally:
            for waiting, outcome in zip(this.taken, outcomes, strict=True):
                waiting.told(outcome if isinstance(outcome, BusError) else outcome.appended)

    def _refuse(self, this: _Round, error: Exception) -> None:
        """Tells everyone of a round that it failed, and everyone who waits: whoever has several batches under way sends them
        all again, and none may be stored before one that came first.
        """
        refused = this.taken
        was_to_take_them = not this.has_run and not this.is_late
        if was_to_take_them or (refused and isinstance(error, StorageError)):
            refused = [*refused, *self._waiting]
            self._waiting.clear()
            self._is_asked = False
            for other in self._rounds:
                other.is_late = True
        for waiting in refused:
            waiting.told(of_ones_own(error))


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Gives the outcome to who waits for it, unless they have given up."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
