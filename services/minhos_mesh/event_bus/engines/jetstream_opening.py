"""Decides how the engine on JetStream is put together: the log, the stored copies, the copy of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from minhos_mesh.event_bus.engines.jetstream import Copy, JetstreamEngine, Owner
from minhos_mesh.event_bus.engines.jetstream_copies import CopyStore, LogCutter, fetch_if_needed
from minhos_mesh.event_bus.engines.jetstream_log import StreamLog, StreamSettings
from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS
from minhos_mesh.event_bus.engines.sqlite_journal import SameContent
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.storage import Durability

READERS = 4
"""Threads that read: one may be busy with a backup, another with a long scan."""


@contextlib.asynccontextmanager
async def open_jetstream(context: ServiceContext, same: SameContent) -> AsyncIterator[JetstreamEngine]:
    """The engine that the configuration names. Raises StorageError saying what cannot be reached or used."""
    section = context.config.event_bus
    settings = StreamSettings(section.servers, section.stream, section.replicas, section.stream_timeout_s)
    path = context.paths.store_file(f"{context.service}_{section.stream}")
    owner = Owner(context.instance_id, context.fencing_token, context.on_fenced_out)
    copy = Copy(path, migrations=MIGRATIONS, durability=Durability.NORMAL, guard=context.fence(), readers=READERS)
    async with opened(settings, copy, context.clock, same, owner, context.conditions) as engine:
        yield engine


@contextlib.asynccontextmanager
async def opened(
    settings: StreamSettings,
    copy: Copy,
    clock: Clock,
    same: SameContent,
    owner: Owner,
    conditions: Conditions | None = None,
) -> AsyncIterator[JetstreamEngine]:
    """The engine over a stream and a copy; whatever the copy lacks is fetched when it is entered."""
    async with StreamLog(settings, f"minhos event_bus {owner.instance}") as log:
        copies = CopyStore(log)
        await copies.open()
        extent = await fetch_if_needed(log, copies, copy.path)
        async with copy:
            engine = JetstreamEngine(copy, log, clock, same, owner, conditions)
            engine.cutter = LogCutter(copies, copy.path, settings.copy_after_bytes, extent.bytes, engine.backup)
            try:
                await engine.start()
                yield engine
            finally:
                await engine.cutter.close()
                await engine.close()
