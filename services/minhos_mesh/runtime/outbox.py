"""Decides how a change and its events become one: both in one transaction, the events relayed afterwards in commit order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.event_envelope import check_event
from minhos_mesh.runtime.event_publisher import EventsRefused, Refusal
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection, Database, StorageClosed
from minhos_mesh.runtime.tasks import OwnedTasks

OUTBOX_SCHEMA: Final = """
    CREATE TABLE outbox (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        envelope BLOB NOT NULL,
        rejected TEXT
    );
"""
"""Migration script for the database of a service that has an outbox."""

BATCH_EVENTS: Final = 256
BATCH_BYTES: Final = 4 * 1024 * 1024
TURNS_LEFT: Final = 8
"""Turns of the event loop left to those who waited for a commit: their answers go out before its events are relayed."""

BATCHES_IN_FLIGHT: Final = 8

_LOG: Final = get_logger("runtime.outbox")
_Row = tuple[int, bytes]
"""Position and encoded envelope."""


@dataclass(slots=True)
class _Batch:
    rows: list[_Row]
    answer: asyncio.Future[list[int]]


class Outbox:
    """The events of one database that are to be published. `start` it once the database is open."""

    def __init__(self, database: Database, events: EventClient) -> None:
        self.rejected = 0
        self._database = database
        self._events = events
        self._added = False
        self._wake = asyncio.Event()
        self._acknowledged = 0
        self._deleted = 0

    def add(self, connection: Connection, events: Iterable[event_pb2.Event]) -> None:
        """Adds events to the transaction that `connection` is in: call it inside the function given to `write`.

        They are published in this order, behind everything committed before. Raises EventInvalid, which undoes the
        write it is raised from.
        """
        rows = []
        for event in events:
            check_event(event)
            rows.append((event.event_id, event.type, event.SerializeToString()))
        if not rows:
            return
        connection.executemany("INSERT INTO outbox (event_id, type, envelope) VALUES (?, ?, ?)", rows)
        self._delete_acknowledged(connection)
        self._added = True

    def start(self, tasks: OwnedTasks) -> None:
        """Begins to relay, with what an earlier life left."""
        self._database.on_commit(self._on_commit)
        tasks.start(self._relay(), "outbox-relay")

    async def pending(self) -> int:
        """How many events are not acknowledged by the bus yet."""
        sql = "SELECT count(*) FROM outbox WHERE position > ? AND rejected IS NULL"
        (count,) = await self._database.read(lambda c: c.execute(sql, (self._acknowledged,)).fetchone())
        return int(count)

    def _on_commit(self) -> None:
        if self._added:
            self._added = False
            self._wake.set()

    async def _relay(self) -> None:
        """Sends batches behind each other without waiting for their answers, which are settled in the same order."""
        sent: asyncio.Queue[_Batch] = asyncio.Queue(BATCHES_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._settle(sent), name="outbox-settle")
                await self._send(sent)
        finally:
            while not sent.empty():
                sent.get_nowait().answer.cancel()
            with contextlib.suppress(StorageClosed):
                await self._database.write(self._delete_acknowledged)

    async def _send(self, sent: asyncio.Queue[_Batch]) -> None:
        through = self._acknowledged
        while True:
            self._wake.clear()
            rows = self._next(through)
            if rows:
                through = rows[-1][0]
                await sent.put(_Batch(rows, asyncio.ensure_future(self._publish(rows))))
                continue
            await self._wake.wait()
            for _ in range(TURNS_LEFT):
                await asyncio.sleep(0)

    def _next(self, after: int) -> list[_Row]:
        sql = "SELECT position, envelope FROM outbox WHERE position > ? AND rejected IS NULL ORDER BY position LIMIT ?"
        rows = self._database.glance(lambda c: c.execute(sql, (after, BATCH_EVENTS)).fetchall())
        return rows[: _within(BATCH_BYTES, [len(envelope) for _, envelope in rows])]

    async def _publish(self, rows: list[_Row]) -> list[int]:
        events = [event_pb2.Event.FromString(envelope) for _, envelope in rows]
        return await self._events.publish(events, timeout_s=None, checked=True)

    async def _settle(self, sent: asyncio.Queue[_Batch]) -> None:
        while True:
            batch = await sent.get()
            rows, answer = batch.rows, batch.answer
            try:
                while rows:
                    try:
                        await answer
                        break
                    except EventsRefused as error:
                        # What the bus takes of this batch now comes behind the batches that were on their way already.
                        rows = await self._set_aside(rows, error.refusals)
                        answer = asyncio.ensure_future(self._publish(rows))
            finally:
                answer.cancel()
            self._acknowledged = batch.rows[-1][0]

    async def _set_aside(self, rows: list[_Row], refusals: Sequence[Refusal]) -> list[_Row]:
        """Keeps what the bus will never take, and gives the rest."""
        refused: list[tuple[str, int]] = []
        for refusal in refusals:
            position, envelope = rows[refusal.index]
            event = event_pb2.Event.FromString(envelope)
            self.rejected += 1
            _LOG.error(
                "outbox.rejected",
                position=position,
                event_id=event.event_id,
                type=event.type,
                reason=refusal.reason,
                because=refusal.message,
            )
            refused.append((f"{refusal.reason}: {refusal.message}", position))
        sql = "UPDATE outbox SET rejected = ? WHERE position = ?"
        await self._database.write(lambda c: c.executemany(sql, refused))
        gone = {position for _, position in refused}
        return [row for row in rows if row[0] not in gone]

    def _delete_acknowledged(self, connection: Connection) -> None:
        """Removes what the bus has; a crash before it only publishes the same ids again, which the bus knows."""
        through = self._acknowledged
        if through > self._deleted:
            connection.execute("DELETE FROM outbox WHERE position <= ? AND rejected IS NULL", (through,))
            self._deleted = through


def _within(limit: int, sizes: list[int]) -> int:
    """How many of these fit into the limit together; at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if total > limit and count:
            return count
    return len(sizes)
