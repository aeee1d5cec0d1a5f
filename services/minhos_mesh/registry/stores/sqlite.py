"""Decides how one machine keeps the registry's knowledge: everything in one SQLite file, with one writer.

Everything is committed with synchronous=FULL: tokens must never be granted twice, not even after a loss of power,
since other stores remember them. The token of an instance is checked inside each transaction that changes it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final

from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.store import (
    IN_ORDER,
    Departure,
    Desired,
    Document,
    DocumentChange,
    DocumentListener,
    DocumentMoved,
    InstanceRecord,
    InstanceReport,
    Neighbours,
    ServiceRecord,
    StoredState,
)
from minhos_mesh.registry.stores.local import MIGRATIONS, LocalTables, latest_changes
from minhos_mesh.registry.stores.records import needs_text, read_needs
from minhos_mesh.runtime.storage import Connection, Database

__all__ = ["MIGRATIONS", "SqliteDocuments", "SqliteStore"]

KEPT_TOKENS: Final = 1_000
"""Instances whose last token is remembered; the oldest are forgotten, and their owners count as new."""


class SqliteStore(LocalTables):
    """A RegistryStore in one SQLite file."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.documents = SqliteDocuments(database)

    async def load(self) -> StoredState:
        """Reads everything back in one snapshot."""
        return await self._database.read(_load)

    async def follow(self, neighbours: Neighbours) -> None:
        """Returns at once: nobody else writes."""

    async def announce(self, address: str) -> None:
        """Tells nobody: there are no other registries."""

    def report(self, key: InstanceKey, token: int, report: InstanceReport) -> None:
        """Tells nobody: there are no other registries."""

    async def admit(self, record: InstanceRecord, allowed: Callable[[], None]) -> int:
        """Keeps a new owner of an instance and returns its fencing token, which is above every earlier one and
        above the token in the record.

        `allowed` is called inside the transaction, right before the token is taken, and raises to refuse.
        """

        def run(connection: Connection) -> int:
            allowed()
            (token,) = connection.execute(
                "UPDATE fencing SET last_token = max(last_token, ?) + 1 WHERE id = 1 RETURNING last_token",
                (record.token,),
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

    async def remove(self, key: InstanceKey, token: int, departure: Departure = IN_ORDER) -> bool:
        """Forgets an instance, unless it is held under another token by now; says whether it was there."""

        def run(connection: Connection) -> bool:
            sql = "DELETE FROM instances WHERE service = ? AND instance_id = ? AND token = ?"
            return connection.execute(sql, (key.service, key.instance_id, token)).rowcount > 0

        return await self._database.write(run)


class SqliteDocuments:
    """Documents in the registry's SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[tuple[str, DocumentListener]] = []

    async def read(self, kind: str, name: str) -> Document | None:
        """The newest value; None when there is none."""
        sql = "SELECT kind, name, value, revision FROM documents WHERE kind = ? AND name = ?"

        def run(connection: Connection) -> Document | None:
            row = connection.execute(sql, (kind, name)).fetchone()
            return None if row is None else Document(*row)

        return await self._database.read(run)

    async def list(self, kind: str) -> tuple[Document, ...]:
        """All of one kind by name."""
        sql = "SELECT kind, name, value, revision FROM documents WHERE kind = ? ORDER BY name"
        return await self._database.read(lambda c: tuple(Document(*row) for row in c.execute(sql, (kind,))))

    async def write(self, kind: str, name: str, value: bytes, *, expected: int | None = None) -> int:
        """Keeps a value and returns its revision. Raises DocumentMoved."""

        def run(connection: Connection) -> int:
            _check_revision(connection, kind, name, expected)
            revision = _next_revision(connection)
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (kind, name, value, revision))
            return revision

        def tell(revision: int) -> None:
            self._tell(DocumentChange(kind, name, revision, Document(kind, name, value, revision)))

        return await self._database.write(run, then=tell)

    async def delete(self, kind: str, name: str, *, expected: int | None = None) -> bool:
        """Removes a document; says whether it was there. Raises DocumentMoved."""

        def run(connection: Connection) -> int:
            _check_revision(connection, kind, name, expected)
            sql = "DELETE FROM documents WHERE kind = ? AND name = ?"
            there = connection.execute(sql, (kind, name)).rowcount > 0
            return _next_revision(connection) if there else 0

        def tell(revision: int) -> None:
            if revision:
                self._tell(DocumentChange(kind, name, revision, None))

        return await self._database.write(run, then=tell) > 0

    def on_change(self, kind: str, listener: DocumentListener) -> None:
        """Calls `listener` with each change of this kind, in order of revision."""
        self._listeners.append((kind, listener))

    def _tell(self, change: DocumentChange) -> None:
        for kind, listener in list(self._listeners):
            if kind == change.kind:
                listener(change)


def _check_revision(connection: Connection, kind: str, name: str, expected: int | None) -> None:
    if expected is None:
        return
    sql = "SELECT revision FROM documents WHERE kind = ? AND name = ?"
    row = connection.execute(sql, (kind, name)).fetchone()
    newest = 0 if row is None else int(row[0])
    if newest != expected:
        raise DocumentMoved(kind, name, expected=expected, newest=newest)


def _next_revision(connection: Connection) -> int:
    row = connection.execute("UPDATE document_revision SET newest = newest + 1 RETURNING newest").fetchone()
    return int(row[0])


def _newest(connection: Connection, key: InstanceKey) -> int:
    sql = "SELECT token FROM tokens WHERE service = ? AND instance_id = ?"
    row = connection.execute(sql, (key.service, key.instance_id)).fetchone()
    return int(row[0]) if row is not None else 0


def _write_instance(connection: Connection, record: InstanceRecord, token: int) -> None:
    key = record.key
    names = json.dumps(record.contracts)
    needs = needs_text(record.needs)
    connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (key.service, key.instance_id, token))
    if token % KEPT_TOKENS == 0:
        connection.execute(
            "DELETE FROM tokens WHERE token <= ? AND (service, instance_id) NOT IN "
            "(SELECT service, instance_id FROM instances)",
            (token - KEPT_TOKENS,),
        )
    connection.execute(
        "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            json.dumps([record.zone, record.priority, dict(record.versions), record.built]),
        ),
    )
    connection.execute(
        "INSERT INTO services VALUES (?, NULL, ?, ?) "
        "ON CONFLICT (service) DO UPDATE SET contracts = excluded.contracts, needs = excluded.needs",
        (key.service, names, needs),
    )


def _load(connection: Connection) -> StoredState:
    instances = connection.execute("SELECT * FROM instances ORDER BY service, instance_id")
    tokens = connection.execute("SELECT service, instance_id, token FROM tokens")
    services = connection.execute("SELECT service, desired, contracts, needs FROM services")
    return StoredState(
        tuple(_read_instance(row) for row in instances),
        tuple((InstanceKey(service, instance), token) for service, instance, token in tokens),
        tuple(_read_service(row) for row in services),
        latest_changes(connection),
    )


def _read_service(row: tuple[object, ...] | sqlite3.Row) -> ServiceRecord:
    name, desired, contracts, needs = row
    wish = None if desired is None else Desired(str(desired))
    return ServiceRecord(str(name), wish, tuple(json.loads(str(contracts))), read_needs(str(needs)))


def _read_instance(row: tuple[object, ...] | sqlite3.Row) -> InstanceRecord:
    service, instance, lease, token, host, port, pid, started, version, contracts, needs, ready, attached, about = row
    zone, priority, of_versions, *built = json.loads(str(about))
    return InstanceRecord(
        key=InstanceKey(str(service), str(instance)),
        lease_id=str(lease),
        token=int(str(token)),
        host=str(host),
        port=int(str(port)),
        contracts=tuple(json.loads(str(contracts))),
        version=str(version),
        attached_ns=int(str(attached)),
        needs=read_needs(str(needs)),
        pid=None if pid is None else int(str(pid)),
        process_started=None if started is None else int(str(started)),
        ever_ready=bool(ready),
        zone=zone,
        priority=priority,
        versions=of_versions,
        built=built[0] if built else "",
    )
