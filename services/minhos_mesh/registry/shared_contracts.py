"""Decides how registries tell each other what instances were built with: one document for each different descriptor set.

A registry can judge an offer by dependents that are attached elsewhere, and by those that it has only just taken back
after a restart, without their saying hello again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection
from typing import Final

from google.protobuf import descriptor_pb2

from minhos_mesh.compatibility import limits
from minhos_mesh.compatibility.descriptors import ContractSet, resolve
from minhos_mesh.registry.store import DocumentMoved, Documents, StoreRefused, StoreUnavailable
from minhos_mesh.runtime.log import get_logger

KIND: Final = "contracts"
MAX_BYTES: Final = 1_000_000
"""A larger set, compressed, is not shared: an engine may refuse it, and no real one comes near."""

_log = get_logger("registry.contracts")


class SharedContracts:
    """Descriptor sets by their digest."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._written: set[str] = set()

    async def share(self, built: ContractSet | None) -> str:
        """Sees to it that all registries can read this set; returns the name it has among them, empty when it has none."""
        if built is None:
            return ""
        if built.digest not in self._written:
            value = await asyncio.to_thread(_packed, built)
            if len(value) > MAX_BYTES:
                _log.warning("contracts.not_shared", bytes=len(value), allowed=MAX_BYTES)
                return ""
            try:
                await self._documents.write(KIND, built.digest, value, expected=0)
            except DocumentMoved:
                _log.debug("contracts.known", digest=built.digest)
            self._written.add(built.digest)
        return built.digest

    async def read(self, name: str) -> ContractSet | None:
        """The set of this name; None when it is not there any more or cannot be read."""
        try:
            found = await self._documents.read(KIND, name)
            return None if found is None else await asyncio.to_thread(_unpacked, found.value)
        except (StoreUnavailable, StoreRefused, zlib.error, ValueError) as error:
            _log.warning("contracts.unreadable", name=name, text=str(error))
            return None

    async def forget_but(self, names: Collection[str]) -> None:
        """Removes what no instance was built with. Only a registry that is alone may say so."""
        for document in await self._documents.list(KIND):
            if document.name not in names:
                await self._documents.delete(KIND, document.name, expected=document.revision)


def _packed(built: ContractSet) -> bytes:
    files = descriptor_pb2.FileDescriptorSet(file=built.files.values())
    return zlib.compress(files.SerializeToString(), 6)


def _unpacked(value: bytes) -> ContractSet:
    opened = zlib.decompressobj()
    data = opened.decompress(value, limits.MAX_BYTES)
    if opened.unconsumed_tail:
        raise ValueError(f"it has more than {limits.MAX_BYTES} bytes")
    return resolve(data)
