"""Decides which engine keeps what the registry knows, from the configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from minhos_mesh.registry.store import RegistryStore, StoreRefused, StoreUnavailable
from minhos_mesh.registry.stores.etcd import open_etcd
from minhos_mesh.registry.stores.sqlite import SqliteStore
from minhos_mesh.runtime.config import ConfigError
from minhos_mesh.runtime.config_sections import RegistrySection
from minhos_mesh.runtime.storage import Database


@asynccontextmanager
async def open_store(settings: RegistrySection, database: Database) -> AsyncIterator[RegistryStore]:
    """The configured engine, which answers when it is entered. Raises ConfigError saying what to look at."""
    if settings.store == "sqlite":
        yield SqliteStore(database)
        return
    try:
        store = await open_etcd(database, settings.endpoints, settings.prefix, timeout_s=settings.store_timeout_s)
    except (StoreUnavailable, StoreRefused) as error:
        raise ConfigError(
            f"registry.store is 'etcd' and none of registry.endpoints ({', '.join(settings.endpoints)}) can be used: {error}"
        ) from None
    try:
        yield store
    finally:
        await store.close()
