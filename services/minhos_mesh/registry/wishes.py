"""Which services should run, kept in the registry's store so that a new registry knows what the old one was told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from minhos_mesh.registry.store import Desired, RegistryStore


class StoredWishes:
    """`Wishes` in the registry's store."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    async def load(self) -> Mapping[str, bool]:
        """All services that were ever wished for."""
        return {service: desired is Desired.RUNNING for service, desired in (await self._store.wishes()).items()}

    async def keep(self, wished: Mapping[str, bool]) -> None:
        """Keeps wishes; they share a commit."""
        writes = (
            self._store.set_desired(service, Desired.RUNNING if runs else Desired.STOPPED)
            for service, runs in wished.items()
        )
        await asyncio.gather(*writes)
