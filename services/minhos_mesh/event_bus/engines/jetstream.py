"""The journal in a JetStream stream: what is acknowledged is on the disks of the servers, and read from a copy on this one.

Each commit is decided in a transaction on the copy, written to the stream as one record of facts, and committed to the copy
when the servers have acknowledged it. So the copy never holds what the stream does not; when the stream one day ends before
the copy does, the servers lost what they acknowledged, and the bus says so and serves nothing. A bus on another machine
makes its copy from the stream. Servers must run with `sync_interval: always`, else their acknowledgements are worth less.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from minhos_mesh.event_bus.domain.errors import BusError
from minhos_mesh.event_bus.domain.records import Appended, Change, NewEvent
from minhos_mesh.event_bus.engines import jetstream_record as record
from minhos_mesh.event_bus.engines import sqlite_journal as journal
from minhos_mesh.event_bus.engines import sqlite_memory as memory
from minhos_mesh.event_bus.engines.interface import Told
from minhos_mesh.event_bus.engines.jetstream_copies import LogCutter
from minhos_mesh.event_bus.engines.jetstream_log import (
    Extent,
    LogMoved,
    LogUnreachable,
    Outgoing,
    StreamLog,
    TailLost,
)
from minhos_mesh.event_bus.engines.sqlite import Removal, SqliteEngine, note_saved, remove, save
from minhos_mesh.event_bus.engines.sqlite_appends import settle
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.fencing import FencedOut
from minhos_mesh.runtime.storage import Connection, Database, StorageClosed, StorageCorrupt, StorageError, of_ones_own

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")

GROUP_JOBS: Final = 512
GROUP_EVENTS: Final = 2048
"""Most calls, and most events, that one record holds; a single larger call goes alone."""

APPLY_RECORDS: Final = 64
"""Records of the stream that are brought into the copy in one transaction."""

CONFIRM_S: Final = 1.5
"""How long a stream must be shorter than it was before that is believed: a new leader may not have caught up."""

UNREACHABLE: Final = "EVENT_STREAM_UNREACHABLE"
BROKEN: Final = "EVENT_STREAM_BROKEN"

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS stream_place (
    one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL, chain TEXT NOT NULL, token INTEGER NOT NULL,
    instance TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far the copy is: the last message applied, the chain there, and who took the log over last."""

    position: int = 0
    chain: str = record.NO_CHAIN
    token: int = 0
    instance: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wants to write: the instance, its fencing token if it was granted one, and who is told when that is over."""

    instance: str
    token: int | None = None
    on_lost: Callable[[FencedOut], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Done:
    """What one call led to: its result, what is to be written to the log, and what the memory of the engine is told."""

    result: Any
    fact: record.Fact | None = None
    committed: journal.Committed | None = None
    removed: Removal | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    run: Callable[[Connection], _Done]
    told: Callable[[Any], None]
    """Is given the result, or the error."""
    events: int = 0


@dataclass(frozen=True, slots=True)
class _Decided:
    outcomes: list[_Done | Exception]
    place: Place
    bytes: int = 0


class Copy(Database):
    """The copy of this machine; once the log is broken nothing of it is served any more."""

    broken: StorageError | None = None

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """See Database. Raises what broke the log."""
        if self.broken is not None:
            raise self.broken
        return await super().read(fn)


class JetstreamEngine(SqliteEngine):
    """Engine over a stream and its copy. Call `start` once before anything else, and `close` at the end."""

    def __init__(
        self,
        database: Copy,
        log: StreamLog,
        clock: Clock,
        same: SameContent,
        owner: Owner,
        conditions: Conditions | None = None,
    ) -> None:
        super().__init__(database, clock, same)
        self._copy = database
        self._log = log
        self._owner = owner
        self._owner_id = uuid.uuid4().hex
        self._conditions = conditions or Conditions()
        self._place = Place()
        self._end = 0
        self._records = 0
        self._calls: list[_Call] = []
        self._wake = log.wake
        self.cutter: LogCutter | None = None
        """Keeps the log short, where it is to be."""
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Brings the copy up to the end of the stream and takes the stream over.

        Raises FencedOut when a bus with a higher token has it, TailLost or StorageCorrupt when stream and copy do not
        belong together, LogUnreachable.
        """
        self._loop = asyncio.get_running_loop()
        self._place = await self._copy.write(_load_place)
        await super().start()
        end = self._loop.time() + self._log.settings.timeout_s
        while True:
            try:
                await self._catch_up(taking_over=True)
                await self._take_over()
                break
            except (LogMoved, LogUnreachable):
                if self._loop.time() > end:
                    raise
                await asyncio.sleep(0.05)
        self._writer = asyncio.create_task(self._write_all(), name="event_bus-stream")

    async def _take_over(self) -> None:
        token = self._place.token + 1 if self._owner.token is None else self._owner.token
        if token <= self._place.token:
            holder = f"{self._place.instance} did with token {self._place.token}"
            raise FencedOut(self._log.title, f"token {token} cannot open it, {holder}")
        await self._log.claim(token)
        opened = _Done(None, record.Opened(token, self._owner.instance))
        decided = await self._copy.write(lambda connection: self._commit(connection, [opened]))
        self._place, self._end = decided.place, decided.place.position

    async def close(self) -> None:
        """Ends the writing; what waits is refused."""
        self._closing = True
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        self._refuse(self._calls, StorageClosed(f"{self._log.title}: the journal is closed"))
        self._calls = []

    # Writing, see Engine.

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> Appended:
        """See Engine."""
        appended: Appended = await self._called(self._appending(events, expected or {}), len(events))
        return appended

    def submit(self, events: Sequence[NewEvent], expected: Mapping[str, int], told: Told) -> None:
        """See Engine."""
        try:
            self._call(_Call(self._appending(events, expected), told, len(events)))
        except StorageError as error:
            told(error)

    def _appending(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> Callable[[Connection], _Done]:
        def run(connection: Connection) -> _Done:
            done = journal.append(connection, events, expected, self._clock.wall_ns(), self._same)
            reached("publish.before_commit")
            return _Done(done.appended, _appended_fact(events, done), committed=done)

        return run

    async def save(self, change: Change) -> None:
        """See Engine."""

        def run(connection: Connection) -> _Done:
            save(connection, change)
            return _Done(None, record.Saved(change))

        await self._called(run)
        note_saved(change)

    async def _drop(self, found: journal.Candidates) -> None:
        def run(connection: Connection) -> _Done:
            return _Done(None, record.Removed(found.events, dict(found.bytes)), removed=remove(connection, found))

        await self._called(run)

    async def _called(self, run: Callable[[Connection], _Done], events: int = 0) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._call(_Call(run, functools.partial(settle, future), events))
        return await future

    def _call(self, call: _Call) -> None:
        """Has it written behind those that wait. Raises StorageError when nothing is written any more."""
        if self._copy.broken is not None:
            raise self._copy.broken
        if self._writer is None or self._writer.done():
            raise StorageClosed(f"{self._log.title}: the journal is closed")
        self._calls.append(call)
        self._wake.set()

    async def _write_all(self) -> None:
        while not self._closing and self._copy.broken is None:
            await self._wake.wait()
            self._wake.clear()
            if self._log.doubtful and not self._calls:
                await self._settle([])
            while self._calls:
                count, events = 1, self._calls[0].events
                while count < min(len(self._calls), GROUP_JOBS):
                    events += self._calls[count].events
                    if events > GROUP_EVENTS:
                        break
                    count += 1
                group, self._calls = self._calls[:count], self._calls[count:]
                try:
                    await self._settle(group)
                except asyncio.CancelledError:
                    self._refuse(group, StorageClosed(f"{self._log.title}: the journal is closed"))
                    raise

    async def _settle(self, group: list[_Call]) -> None:
        """Writes a group, looking first at what the stream holds when that is in doubt; every caller gets its answer."""
        end = self._loop.time() + self._log.settings.timeout_s
        while True:
            try:
                is_claimed = self._log.is_claimed(self._place.token)
                if self._log.doubtful or is_claimed:
                    self._log.doubtful = False
                    await self._catch_up()
                if group and is_claimed:
                    raise LogMoved("another bus is about to take it over")
                if group:
                    await self._copy.write(
                        functools.partial(self._decide, group=group), then=functools.partial(self._answer, group)
                    )
                self._conditions.clear(UNREACHABLE)
                return None
            except LogMoved as error:
                self._log.doubtful, trouble = True, LogUnreachable(f"{self._log.title}: {error}")
            except LogUnreachable as error:
                self._log.doubtful, trouble = True, error
                self._conditions.set(UNREACHABLE, str(error))
            except (TailLost, StorageCorrupt, FencedOut) as error:
                self._break(error)
                return self._refuse(group, error)
            except Exception as error:  # noqa: BLE001 - handed to every caller of the group
                self._log.doubtful = True
                return self._refuse(group, error)
            if self._closing or self._loop.time() >= end:
                if not group:
                    self._loop.call_later(1.0, self._wake.set)
                    return None
                behind, self._calls = self._calls, []  # what came behind is not stored before what is sent again
                return self._refuse([*group, *behind], trouble)
            await asyncio.sleep(0.02)

    def _decide(self, connection: Connection, group: list[_Call]) -> _Decided:
        """In the writer thread: runs each call on the copy, then writes the facts of all that were not refused."""
        outcomes: list[_Done | Exception] = []
        for call in group:
            connection.execute("SAVEPOINT one")
            try:
                outcomes.append(call.run(connection))
            except (BusError, sqlite3.IntegrityError) as error:
                connection.execute("ROLLBACK TO one")
                outcomes.append(error)
            connection.execute("RELEASE one")
        return self._commit(connection, outcomes)

    def _commit(self, connection: Connection, outcomes: list[_Done | Exception]) -> _Decided:
        """Writes one record and waits for its acknowledgement; when this raises the transaction is undone."""
        facts = [item.fact for item in outcomes if isinstance(item, _Done) and item.fact is not None]
        if not facts:
            return _Decided(outcomes, self._place)
        body = record.encode(facts)
        self._records += 1
        (newest,) = connection.execute("SELECT sequence FROM head").fetchone()
        chain = record.chained(self._place.chain, body)
        outgoing = Outgoing(self._owner_id, f"{self._owner_id}-{self._records}", chain, newest, body)
        reached("stream.before_write")
        writing = asyncio.run_coroutine_threadsafe(self._log.write(self._end, outgoing), self._loop)
        position = writing.result()
        reached("stream.after_write")
        place = _moved(self._place, position, chain, facts)
        _save_place(connection, place)
        return _Decided(outcomes, place, len(body))

    def _answer(self, group: list[_Call], decided: _Decided) -> None:
        """On the event loop, behind the commit: the engine's memory first, then the callers."""
        if decided.place is not self._place:
            self._place, self._end = decided.place, decided.place.position
        self._take([item for item in decided.outcomes if isinstance(item, _Done)])
        if self.cutter is not None:
            self.cutter.note(decided.bytes)
        for call, item in zip(group, decided.outcomes, strict=True):
            call.told(item if isinstance(item, Exception) else item.result)

    def _take(self, done: Sequence[_Done]) -> None:
        """Tells the engine's memory what was committed: events of one record together."""
        events = tuple(event for item in done if item.committed is not None for event in item.committed.events)
        if events:
            reached("publish.after_commit")
            self._remember(journal.Committed(Appended((), 0), events))
        for item in done:
            if item.removed is not None:
                self._forget_removed(item.removed)

    # Following the stream.

    async def _catch_up(self, *, taking_over: bool = False) -> None:
        """Applies what the stream holds behind the copy.

        Unless it is about to be taken over, a record of another bus there means that this one was replaced.
        """
        extent = await self._confirmed_extent()
        found: list[tuple[int, record.Record]] = []
        async for position, item in self._log.records(self._place.position + 1, extent.last, self._place.chain):
            if not taking_over and item.owner != self._owner_id:
                raise self._replaced_by(item, position)
            found.append((position, item))
            if len(found) == APPLY_RECORDS:
                await self._apply(found)
                found = []
        if found:
            await self._apply(found)
        self._end = extent.last

    async def _confirmed_extent(self) -> Extent:
        """What the stream holds. Raises TailLost when it certainly lacks what was acknowledged."""
        place, end = self._place, self._loop.time() + CONFIRM_S
        while True:
            extent = await self._log.extent()
            chain = await self._log.header_at(place.position, "Chain") if extent.last >= place.position else None
            if not place.position or chain == place.chain:
                return extent
            if extent.first > place.position and extent.last > place.position:
                raise FencedOut(self._log.title, "another bus wrote on and cut the log behind this one's copy")
            if self._loop.time() > end:
                break
            await asyncio.sleep(0.05)
        if extent.last >= place.position:
            raise TailLost(
                f"{self._log.title}: message {place.position} is not the one that was acknowledged to this bus: the stream"
                " was set back or replaced and written to since"
            )
        held = int(await self._log.header_at(extent.last, "Newest") or 0)
        raise TailLost(
            f"{self._log.title}: ends at message {extent.last} (event {held}), acknowledged were {place.position} (event"
            f" {self._newest}): the servers lost {place.position - extent.last} records with {self._newest - held} events."
            f" This bus's copy {self._copy.path} holds them; give the servers their data back, or begin another stream"
        )

    def _replaced_by(self, found: record.Record, position: int) -> FencedOut:
        opened = [fact for fact in found.facts if isinstance(fact, record.Opened)]
        who = f"{opened[0].instance} with token {opened[0].token}" if opened else "another bus"
        return FencedOut(self._log.title, f"{who} took it over and writes it as of message {position}")

    async def _apply(self, found: Sequence[tuple[int, record.Record]]) -> None:
        """Brings records of the stream into the copy, all or none."""
        place = self._place
        for position, item in found:
            place = _moved(place, position, item.chain, item.facts)

        def run(connection: Connection) -> list[_Done]:
            done = [self._apply_fact(connection, fact) for _, item in found for fact in item.facts]
            _save_place(connection, place)
            return done

        await self._copy.write(run, then=self._take)
        self._place = place

    def _apply_fact(self, connection: Connection, fact: record.Fact) -> _Done:
        match fact:
            case record.Appended():
                done = journal.append(connection, fact.events, {}, fact.stored_ns, self._same)
                first = done.events[0].sequence if done.events else 0
                if len(done.events) != len(fact.events) or first != fact.first:
                    raise StorageCorrupt(
                        f"{self._log.title}: says that event {fact.first} comes next, in this bus's copy it is {first}"
                    )
                return _Done(None, committed=done)
            case record.Saved():
                memory.save(connection, fact.change)
            case record.Removed():
                return _Done(None, removed=remove(connection, journal.Candidates(fact.events, 0, fact.bytes)))
        return _Done(None)

    def _break(self, error: StorageError) -> None:
        """Serves nothing from now on, and says why."""
        _LOG.error("the journal is not served any more: %s", error)
        self._copy.broken = error
        self._recent, self._recent_bytes = [], 0
        self._conditions.set(BROKEN, str(error))
        if isinstance(error, FencedOut):
            self._owner.on_lost(error)
        self._refuse(self._calls, error)
        self._calls = []

    @staticmethod
    def _refuse(calls: Sequence[_Call], error: Exception) -> None:
        for call in calls:
            call.told(of_ones_own(error))


def _appended_fact(events: Sequence[NewEvent], done: journal.Committed) -> record.Appended | None:
    """Those of a batch that are new, in order, as the log keeps them; None when all were stored before."""
    if not done.events:
        return None
    first, next_new = done.events[0].sequence, done.events[0].sequence
    new: list[NewEvent] = []
    for event, sequence in zip(events, done.appended.sequences, strict=True):
        if sequence == next_new:
            new.append(event)
            next_new += 1
    return record.Appended(first, done.events[0].store_time_ns, tuple(new))


def _moved(place: Place, position: int, chain: str, facts: Sequence[record.Fact]) -> Place:
    place = replace(place, position=position, chain=chain)
    for fact in facts:
        if isinstance(fact, record.Opened):
            place = replace(place, token=fact.token, instance=fact.instance)
    return place


def _load_place(connection: Connection) -> Place:
    connection.execute(_TABLE)
    row = connection.execute("SELECT position, chain, token, instance FROM stream_place").fetchone()
    if row is not None:
        return Place(*row)
    (head,) = connection.execute("SELECT sequence FROM head").fetchone()
    if head:
        raise StorageCorrupt(f"the copy holds {head} events that are of no stream: it is the journal of another engine")
    return Place()


def _save_place(connection: Connection, place: Place) -> None:
    row = (place.position, place.chain, place.token, place.instance)
    connection.execute("INSERT OR REPLACE INTO stream_place VALUES (1, ?, ?, ?, ?)", row)
