"""Decides which engine keeps the journal, and opens it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS, SqliteEngine
from minhos_mesh.event_bus.engines.sqlite_fold import folding
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.event_bus.engines.sqlite_mark import TailMark
from minhos_mesh.event_bus.engines.sqlite_watch import WatchedDatabase
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.storage import StorageError

READERS = 4
"""Threads that read: one may be busy with a backup, another with a long scan."""


@contextlib.asynccontextmanager
async def open_engine(context: ServiceContext, same: SameContent) -> AsyncIterator[Engine]:
    """The engine of this mesh, ready. Raises StorageError when its store cannot be used."""
    if context.config.event_bus.engine == "jetstream":
        try:
            from minhos_mesh.event_bus.engines.jetstream_opening import open_jetstream
        except ModuleNotFoundError as error:
            raise StorageError(f'event_bus.engine is "jetstream", which needs the package nats-py: {error}') from None

        async with open_jetstream(context, same) as stream:
            yield stream
        return
    path = context.paths.store_file(context.service)
    mark = TailMark(path)
    mark.verify()
    async with WatchedDatabase(
        path, context.conditions, migrations=MIGRATIONS, guard=context.fence(), readers=READERS
    ) as database:
        engine = SqliteEngine(database, context.clock, same, mark)
        with contextlib.closing(mark):
            await engine.start()
            async with folding(database):
                yield engine
