"""Decides what the registry keeps on disk: instances with their tokens, what should run, and the health history.

Everything is committed with synchronous=FULL: tokens must never be granted twice, not even after a loss of power,
since other stores remember them. The token of an instance is checked inside each transaction that changes it.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minhos_mesh.registry.domain.health import Assessment, Cause, Reason, State
from minhos_mesh.registry.domain.history import KEPT_PER_SERVICE, HealthChange
from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.outbox import MIGRATION as OUTBOX
from minhos_mesh.registry.plan import Need
from minhos_mesh.runtime.storage import Connection, Database

KEPT_TOKENS = 1_000
"""Instances whose last token is remembered; the oldest are forgotten, and their owners count as new."""

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
)


class Desired(enum.Enum):
    """Whether a service should run."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One attached instance as it is kept."""

    key: InstanceKey
    lease_id: str
    token: int
    host: str
    port: int
    contracts: tuple[str, ...]
    version: str
    attached_ns: int
    needs: tuple[Need, ...] = ()
    pid: int | None = None
    process_started: int | None = None
    """Start time of the process in clock ticks since boot; together with the pid it names one process for good."""
    ever_ready: bool = False


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What is remembered of a service, also while no instance of it lives."""

    service: str
    desired: Desired | None
    """None when nobody ever asked for it to run or not to run: it attached by itself."""
    contracts: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredState:
    """All that an earlier life of the registry left."""

    instances: tuple[InstanceRecord, ...]
    tokens: tuple[tuple[InstanceKey, int], ...]
    services: tuple[ServiceRecord, ...]
    latest: tuple[HealthChange, ...]
    """The last health change of each service."""


class RegistryStore:
    """The registry's tables in one SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> StoredState:
        """Reads everything back in one snapshot."""
        return await self._database.read(_load)

    async def admit(self, record: InstanceRecord, allowed: Callable[[], None]) -> int:
        """Keeps a new owner of an instance and returns its fencing token, which is above every earlier one.

        `allowed` is called inside the transaction, right before the token is taken, and raises to refuse.
        """

        def run(connection: Connection) -> int:
            allowed()
            (token,) = connection.execute(
                "UPDATE fencing SET last_token = last_token + 1 WHERE id = 1 RETURNING last_token"
            ).fetchone()
            _write_instance(connection, record, token)
            return int(token)

        return await self._database.write(run)

    async def mark_ready(self, key: InstanceKey, token: int) -> None:
        """Remembers that an instance has been ready once. Raises StaleToken when its owner was replaced."""

        def run(connection: Connection) -> None:
            changed = connection.execute(
                "UPDATE instances SET ever_ready = 1 WHERE service = ? AND instance_id = ? AND token = ?",
                (key.service, key.instance_id, token),
            ).rowcount
            if not changed:
                newest = _newest(connection, key)
                raise StaleToken(key, f"is not held under token {token}", shown=token, newest=newest)

        await self._database.write(run)

    async def remove(self, key: InstanceKey, token: int) -> bool:
        """Forgets an instance, unless it is held under another token by now; says whether it was there."""

        def run(connection: Connection) -> bool:
            sql = "DELETE FROM instances WHERE service = ? AND instance_id = ? AND token = ?"
            return connection.execute(sql, (key.service, key.instance_id, token)).rowcount > 0

        return await self._database.write(run)

    async def set_desired(self, service: str, desired: Desired) -> None:
        """Keeps whether a service should run."""
        sql = (
            "INSERT INTO services VALUES (?, ?, '[]', '[]') "
            "ON CONFLICT (service) DO UPDATE SET desired = excluded.desired"
        )
        await self._database.write(lambda connection: _execute(connection, sql, (service, desired.value)))

    async def append_changes(self, changes: Sequence[HealthChange], also: Callable[[Connection], None]) -> None:
        """Keeps health changes; `also` runs in the same transaction, so that their events are kept with them."""

        def run(connection: Connection) -> None:
            for change in changes:
                _append_change(connection, change)
            also(connection)

        await self._database.write(run)

    async def list_changes(
        self, *, service: str | None, since_ns: int | None, before_revision: int | None, limit: int
    ) -> tuple[HealthChange, ...]:
        """Kept changes, newest first: of one service or of all, not older than a time, those before a revision."""

        def run(connection: Connection) -> tuple[HealthChange, ...]:
            rows = connection.execute(
                "SELECT revision, service, before, after, reasons, time_ns FROM health_changes "
                "WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR revision < ?2) "
                "AND (?3 IS NULL OR time_ns >= ?3) ORDER BY revision DESC LIMIT ?4",
                (service, before_revision, since_ns, limit),
            )
            return tuple(_read_change(row) for row in rows)

        return await self._database.read(run)


def _newest(connection: Connection, key: InstanceKey) -> int:
    sql = "SELECT token FROM tokens WHERE service = ? AND instance_id = ?"
    row = connection.execute(sql, (key.service, key.instance_id)).fetchone()
    return int(row[0]) if row is not None else 0


def _execute(connection: Connection, sql: str, parameters: tuple[object, ...]) -> None:
    connection.execute(sql, parameters)


def _write_instance(connection: Connection, record: InstanceRecord, token: int) -> None:
    key = record.key
    names = json.dumps(record.contracts)
    needs = json.dumps([[need.contract, need.optional, need.provider] for need in record.needs])
    connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (key.service, key.instance_id, token))
    connection.execute(
        "DELETE FROM tokens WHERE token <= ? AND (service, instance_id) NOT IN "
        "(SELECT service, instance_id FROM instances)",
        (token - KEPT_TOKENS,),
    )
    connection.execute(
        "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.service,
            key.instance_id,
            record.lease_id,
            token,
            record.host,
            record.port,
            record.pid,
            record.process_started,
            record.version,
            names,
            needs,
            int(record.ever_ready),
            record.attached_ns,
        ),
    )
    connection.execute(
        "INSERT INTO services VALUES (?, NULL, ?, ?) "
        "ON CONFLICT (service) DO UPDATE SET contracts = excluded.contracts, needs = excluded.needs",
        (key.service, names, needs),
    )


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
    oldest = connection.execute(
        "SELECT revision FROM health_changes WHERE service = ? ORDER BY revision DESC LIMIT 1 OFFSET ?",
        (change.service, KEPT_PER_SERVICE),
    ).fetchone()
    if oldest is not None:
        sql = "DELETE FROM health_changes WHERE service = ? AND revision <= ?"
        connection.execute(sql, (change.service, oldest[0]))


def _load(connection: Connection) -> StoredState:
    instances = connection.execute("SELECT * FROM instances ORDER BY service, instance_id")
    tokens = connection.execute("SELECT service, instance_id, token FROM tokens")
    services = connection.execute("SELECT service, desired, contracts, needs FROM services")
    latest = connection.execute(
        "SELECT revision, service, before, after, reasons, time_ns FROM health_changes "
        "WHERE revision IN (SELECT max(revision) FROM health_changes GROUP BY service)"
    )
    return StoredState(
        tuple(_read_instance(row) for row in instances),
        tuple((InstanceKey(service, instance), token) for service, instance, token in tokens),
        tuple(_read_service(row) for row in services),
        tuple(_read_change(row) for row in latest),
    )


def _read_service(row: tuple[object, ...] | sqlite3.Row) -> ServiceRecord:
    name, desired, contracts, needs = row
    wish = None if desired is None else Desired(str(desired))
    return ServiceRecord(str(name), wish, tuple(json.loads(str(contracts))), _read_needs(str(needs)))


def _read_needs(text: str) -> tuple[Need, ...]:
    return tuple(Need(contract, optional, provider) for contract, optional, provider in json.loads(text))


def _read_instance(row: tuple[object, ...] | sqlite3.Row) -> InstanceRecord:
    service, instance, lease, token, host, port, pid, started, version, contracts, needs, ready, attached = row
    return InstanceRecord(
        key=InstanceKey(str(service), str(instance)),
        lease_id=str(lease),
        token=int(str(token)),
        host=str(host),
        port=int(str(port)),
        contracts=tuple(json.loads(str(contracts))),
        version=str(version),
        attached_ns=int(str(attached)),
        needs=_read_needs(str(needs)),
        pid=None if pid is None else int(str(pid)),
        process_started=None if started is None else int(str(started)),
        ever_ready=bool(ready),
    )


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
