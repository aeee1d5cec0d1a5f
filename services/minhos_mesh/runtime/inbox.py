"""Decides that an event is acted on once: its id is remembered in the same transaction as what it led to."""

from __future__ import annotations

from typing import Final

from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.storage import Connection

INBOX_SCHEMA: Final = """
    CREATE TABLE inbox (
        consumer TEXT NOT NULL,
        event_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (consumer, event_id)
    ) WITHOUT ROWID;
    CREATE INDEX inbox_sequence ON inbox (consumer, sequence);
"""
"""Migration script for the database of a service that has an inbox."""

_PRUNE_EVERY: Final = 1_000
_FORGET: Final = """
    DELETE FROM inbox WHERE consumer = :consumer AND sequence <= (
        SELECT sequence FROM inbox WHERE consumer = :consumer ORDER BY sequence DESC LIMIT 1 OFFSET :keep)
"""
"""By how many there are and not by their sequences: between two events of a consumer may lie any number of others."""


class Inbox:
    """The ids that one consumer has handled, of its newest `keep` events and of a thousand more at the most.

    An event comes again within minutes of being handled, and meanwhile a consumer takes far fewer than `keep` others. What
    is older is handled anew only when a person has the consumer go on from so far back.
    """

    def __init__(self, consumer: str, *, keep: int = 100_000) -> None:
        self._consumer = consumer
        self._keep = keep
        self._taken = 0

    def take(self, connection: Connection, event: event_pb2.Event) -> bool:
        """True the first time the event comes, and remembers it in the transaction that `connection` is in.

        Call it first inside the function given to `write`, and do nothing more there when it is False.
        """
        row = (self._consumer, event.event_id, event.sequence)
        is_new = connection.execute("INSERT OR IGNORE INTO inbox VALUES (?, ?, ?)", row).rowcount == 1
        if self._taken % _PRUNE_EVERY == 0:
            connection.execute(_FORGET, {"consumer": self._consumer, "keep": self._keep})
        self._taken += 1
        return is_new
