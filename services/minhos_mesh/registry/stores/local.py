"""Decides what a registry keeps on its own machine whatever the engine: wishes, the history of health, its identity.

Everything is committed with synchronous=FULL.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence

from minhos_mesh.registry.domain.health import Assessment, Cause, Reason, State
from minhos_mesh.registry.domain.history import (
    KEPT_PER_SERVICE,
    MOST_IN_ALL,
    MOST_PER_SERVICE,
    HealthChange,
    kept_from,
)
from minhos_mesh.registry.outbox import MIGRATION as OUTBOX
from minhos_mesh.registry.outbox import Fact, add_facts
from minhos_mesh.registry.store import Desired
from minhos_mesh.runtime.storage import Connection, Database

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE fencing (id INTEGER PRIMARY KEY CHECK (id = 1), last_token INTEGER NOT NULL);
    INSERT INTO fencing VALUES (1, 0);
    CREATE TABLE tokens (
        service TEXT NOT NULL, instance_id TEXT NOT NULL, token INTEGER NOT NULL, PRIMARY KEY (service, instance_id)
    ) WITHOUT ROWID;
    CREATE TABLE instances (
        service TEXT NOT NULL, instance_id TEXT NOT NULL, lease_id TEXT NOT NULL, token INTEGER NOT NULL,
        host TEXT NOT NULL, port INTEGER NOT NULL, pid INTEGER, process_started INTEGER, version TEXT NOT NULL,
        contracts TEXT NOT NULL, needs TEXT NOT NULL, ever_ready INTEGER NOT NULL, attached_ns INTEGER NOT NULL,
        PRIMARY KEY (service, instance_id)
    ) WITHOUT ROWID;
    CREATE TABLE services (
        service TEXT PRIMARY KEY, desired TEXT, contracts TEXT NOT NULL, needs TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE health_changes (
        revision INTEGER PRIMARY KEY, service TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, reasons TEXT NOT NULL,
        time_ns INTEGER NOT NULL
    );
    CREATE INDEX health_changes_of_service ON health_changes (service, revision);
    """
    + OUTBOX,
    """
    CREATE TABLE identity (id INTEGER PRIMARY KEY CHECK (id = 1), member TEXT NOT NULL);
    CREATE TABLE documents (
        kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE document_revision (id INTEGER PRIMARY KEY CHECK (id = 1), newest INTEGER NOT NULL);
    INSERT INTO document_revision VALUES (1, 0);
    """,
    """
    CREATE TABLE restarts (service TEXT PRIMARY KEY, restarts INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE instances ADD COLUMN about TEXT NOT NULL DEFAULT '["", 0, {}]';
    """,
)
"""Scripts of the registry's one SQLite file, for both engines; only ever appended."""


class LocalTables:
    """The part of every engine that lies in the registry's own SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_desired(self, service: str, desired: Desired) -> None:
        """Keeps whether a service should run."""
        sql = (
            "INSERT INTO services VALUES (?, ?, '[]', '[]') "
            "ON CONFLICT (service) DO UPDATE SET desired = excluded.desired"
        )

        def run(connection: Connection) -> None:
            connection.execute(sql, (service, desired.value))

        await self._database.write(run)

    async def wishes(self) -> Mapping[str, Desired]:
        """All that was ever desired."""

        def run(connection: Connection) -> Mapping[str, Desired]:
            rows = connection.execute("SELECT service, desired FROM services WHERE desired IS NOT NULL")
            return {str(service): Desired(str(desired)) for service, desired in rows}

        return await self._database.read(run)

    async def forget_service(self, service: str) -> None:
        """Forgets a service of which nothing is attached and that nobody ever wanted here."""
        sql = (
            "DELETE FROM services WHERE service = ? AND desired IS NULL "
            "AND service NOT IN (SELECT service FROM instances)"
        )

        def run(connection: Connection) -> None:
            connection.execute(sql, (service,))

        await self._database.write(run)

    async def keep_restarts(self, service: str, restarts: int) -> None:
        """Keeps how often a service was restarted here; 0 forgets it."""

        def run(connection: Connection) -> None:
            if restarts:
                connection.execute("INSERT OR REPLACE INTO restarts VALUES (?, ?)", (service, restarts))
            else:
                connection.execute("DELETE FROM restarts WHERE service = ?", (service,))

        await self._database.write(run)

    async def restarts(self) -> Mapping[str, int]:
        """How often services were restarted here."""
        sql = "SELECT service, restarts FROM restarts"
        return await self._database.read(lambda c: {str(service): int(count) for service, count in c.execute(sql)})

    async def append_changes(self, changes: Sequence[HealthChange], facts: Sequence[Fact]) -> None:
        """Keeps health changes and, in the same transaction, their events."""

        def run(connection: Connection) -> None:
            for change in changes:
                _append_change(connection, change)
            add_facts(connection, facts)

        await self._database.write(run)

    async def list_changes(
        self,
        *,
        service: str | None,
        since_ns: int | None,
        before_revision: int | None,
        limit: int,
        until_ns: int | None = None,
    ) -> tuple[HealthChange, ...]:
        """Kept changes, newest first: of one service or of all, from a time until before another, before a revision."""

        def run(connection: Connection) -> tuple[HealthChange, ...]:
            rows = connection.execute(
                "SELECT revision, service, before, after, reasons, time_ns FROM health_changes "
                "WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR revision < ?2) "
                "AND (?3 IS NULL OR time_ns >= ?3) AND (?4 IS NULL OR time_ns < ?4) ORDER BY revision DESC LIMIT ?5",
                (service, before_revision, since_ns, until_ns, limit),
            )
            return tuple(_read_change(row) for row in rows)

        return await self._database.read(run)

    async def identity(self) -> str:
        """The name of this registry among those of its mesh, made at its first start."""

        def run(connection: Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (secrets.token_hex(8),))
            (member,) = connection.execute("SELECT member FROM identity").fetchone()
            return str(member)

        return await self._database.write(run)

    async def last_token(self) -> int:
        """The highest fencing token that was ever granted here."""
        return await self._database.read(lambda c: int(c.execute("SELECT last_token FROM fencing").fetchone()[0]))

    async def note_token(self, token: int) -> None:
        """Remembers a token that another engine granted."""

        def run(connection: Connection) -> None:
            connection.execute("UPDATE fencing SET last_token = max(last_token, ?)", (token,))

        await self._database.write(run)


def latest_changes(connection: Connection) -> tuple[HealthChange, ...]:
    """The last health change of each service."""
    rows = connection.execute(
        "SELECT revision, service, before, after, reasons, time_ns FROM health_changes "
        "WHERE revision IN (SELECT max(revision) FROM health_changes GROUP BY service)"
    )
    return tuple(_read_change(row) for row in rows)


def _append_change(connection: Connection, change: HealthChange) -> None:
    reasons = [[r.cause.value, r.subject, r.text] for r in change.after.reasons]
    row = (
        change.revision,
        change.service,
        change.before.value,
        change.after.state.value,
        json.dumps(reasons),
        change.time_ns,
    )
    connection.execute("INSERT INTO health_changes VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.execute("DELETE FROM health_changes WHERE revision <= ?", (change.revision - MOST_IN_ALL,))
    for kept, younger_ns in ((KEPT_PER_SERVICE, kept_from(change.time_ns)), (MOST_PER_SERVICE, change.time_ns + 1)):
        oldest = connection.execute(
            "SELECT revision FROM health_changes WHERE service = ? ORDER BY revision DESC LIMIT 1 OFFSET ?",
            (change.service, kept),
        ).fetchone()
        if oldest is not None:
            sql = "DELETE FROM health_changes WHERE service = ? AND revision <= ? AND time_ns < ?"
            connection.execute(sql, (change.service, oldest[0], younger_ns))


def _read_change(row: tuple[object, ...] | sqlite3.Row) -> HealthChange:
    revision, service, before, after, reasons, time_ns = row
    causes = tuple(Reason(Cause(cause), subject, text) for cause, subject, text in json.loads(str(reasons)))
    return HealthChange(
        revision=int(str(revision)),
        service=str(service),
        before=State(str(before)),
        after=Assessment(State(str(after)), causes),
        time_ns=int(str(time_ns)),
    )
