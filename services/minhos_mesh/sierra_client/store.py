"""Decides what is kept of each source: the file's identity, its epoch and the record at which its ticks begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.sierra_client.domain import Generation, Identity, continues, next_epoch, why_another

MIGRATIONS = (
    """
    CREATE TABLE sources (
        path TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,
        base_index INTEGER NOT NULL,
        device INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        first_record BLOB
    ) STRICT;
    """,
)


class SourceStore:
    """The generations of the files, one row per path."""

    def __init__(self, database: Database) -> None:
        """Uses an open database that was opened with MIGRATIONS.

        NORMAL durability is enough: after a loss of power a new epoch begins, and so it does for all who read it.
        """
        self._database = database

    async def resolve(
        self, path: Path, seen: Identity, base_index: Callable[[], int], now_ns: int, *, renew: bool = False
    ) -> Generation:
        """The kept generation when the file is still that one, else a new one, kept before it is returned.

        `base_index` is asked only for a new generation. `renew` begins a new one in any case. Raises StorageError.
        """
        kept = await self._database.read(lambda connection: _select(connection, path))
        if kept is not None and not renew and continues(kept.identity, seen):
            if kept.identity == seen:
                return kept
            generation = Generation(kept.epoch, kept.base_index, seen)
        else:
            epoch = next_epoch(None if kept is None else kept.epoch, now_ns)
            instead = "" if kept is None or renew else f"{path} {why_another(kept.identity, seen)}"
            generation = Generation(epoch, base_index(), seen, instead)
        await self._database.write(lambda connection: _upsert(connection, path, generation))
        return generation


def _select(connection: Connection, path: Path) -> Generation | None:
    row = connection.execute(
        "SELECT epoch, base_index, device, inode, first_record FROM sources WHERE path = ?", (str(path),)
    ).fetchone()
    if row is None:
        return None
    return Generation(row[0], row[1], Identity(row[2], row[3], row[4]))


def _upsert(connection: Connection, path: Path, generation: Generation) -> None:
    identity = generation.identity
    connection.execute(
        "INSERT INTO sources (path, epoch, base_index, device, inode, first_record) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (path) DO UPDATE SET epoch = excluded.epoch, base_index = excluded.base_index, "
        "device = excluded.device, inode = excluded.inode, first_record = excluded.first_record",
        (str(path), generation.epoch, generation.base_index, identity.device, identity.inode, identity.first_record),
    )
