"""Decides how the registry's own events wait for the event bus: on disk, in order, bounded, the oldest given up first.

The registry must work without a bus, so an event that cannot be told is kept and not waited for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minhos_mesh.runtime.storage import Connection, Database

KEPT_EVENTS = 10_000
"""Events that wait at most."""

MIGRATION = """
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    payload BLOB NOT NULL, time_ns INTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to be told: the payload is the serialized message that is registered for the type."""

    type: str
    subject: str
    payload: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A fact that waits, with its place and the id it will always be sent under."""

    position: int
    event_id: str
    fact: Fact


class Outbox:
    """The table of waiting events; shares the registry's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after commits, new events among them."""
        self._database.on_commit(listener)

    async def add(self, facts: Sequence[Fact]) -> None:
        """Keeps facts; on disk when it returns."""
        await self._database.write(lambda connection: add_facts(connection, facts))

    async def first(self, limit: int) -> tuple[Waiting, ...]:
        """The oldest waiting facts."""

        def run(connection: Connection) -> tuple[Waiting, ...]:
            rows = connection.execute(
                "SELECT position, event_id, type, subject, payload, time_ns FROM outbox ORDER BY position LIMIT ?",
                (limit,),
            )
            return tuple(Waiting(row[0], row[1], Fact(*row[2:])) for row in rows)

        return await self._database.read(run)

    async def forget(self, through: int) -> None:
        """Removes all facts up to a position, because the bus has them or will never take them."""

        def run(connection: Connection) -> None:
            connection.execute("DELETE FROM outbox WHERE position <= ?", (through,))

        await self._database.write(run)


def add_facts(connection: Connection, facts: Sequence[Fact]) -> None:
    """Keeps facts inside the transaction of the caller and gives up the oldest ones beyond the limit."""
    rows = [(uuid7(), fact.type, fact.subject, fact.payload, fact.time_ns) for fact in facts]
    sql = "INSERT INTO outbox (event_id, type, subject, payload, time_ns) VALUES (?, ?, ?, ?, ?)"
    connection.executemany(sql, rows)
    connection.execute(
        "DELETE FROM outbox WHERE position <= (SELECT position FROM outbox ORDER BY position DESC LIMIT 1 OFFSET ?)",
        (KEPT_EVENTS,),
    )


def uuid7() -> str:
    """A new UUIDv7: milliseconds since the Unix epoch, then random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
