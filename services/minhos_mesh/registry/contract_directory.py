"""Decides what is told of contracts: which there are, who serves and needs them, and what a change of one would break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from minhos_mesh.compatibility import described
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.offer import touched
from minhos_mesh.registry.contract_gate import ContractGate, Standing
from minhos_mesh.registry.domain.contract_gate import Report
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.service import Registry


@dataclass(frozen=True, slots=True)
class Server:
    """An instance that serves a contract."""

    present: Present
    build: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """An instance that needs a contract."""

    key: InstanceKey
    need: Need
    build: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One contract with who is at its two ends."""

    name: str
    set: ContractSet
    """The set that it is read from: the mesh's own, or that of an instance."""
    servers: tuple[Server, ...]
    consumers: tuple[Consumer, ...]


class ContractDirectory:
    """Answers questions about contracts; changes nothing."""

    def __init__(self, registry: Registry, gate: ContractGate) -> None:
        self._registry, self._gate = registry, gate
        self._one_at_a_time = asyncio.Lock()

    def entries(self) -> tuple[Entry, ...]:
        """All contracts, in alphabetical order."""
        return tuple(self._entry(name, where) for name, where in sorted(self._where().items()))

    def entry(self, name: str) -> Entry:
        """One contract by its full or short name or its interface. Raises ContractUnknown."""
        full = self.full_name(name)
        return self._entry(full, self._where()[full])

    def full_name(self, name: str) -> str:
        """Raises ContractUnknown."""
        return described.full_name(name, self._where())

    async def check(self, offered: ContractSet, contracts: Iterable[str], release: str, *, whole: bool) -> Report:
        """What the offer would break; of all that the mesh knows of it when no contracts are named.

        Raises ContractUnknown, or DescriptorsInvalid when nothing of it is known.
        """
        where = self._where()
        asked = [self.full_name(name) for name in contracts]
        named = asked or touched(offered, where)
        standing = Standing(older=self._gate.is_older(release))
        async with self._one_at_a_time:
            report = self._gate.report
            return await asyncio.to_thread(report, offered, named, standing, whole=whole, types=not asked)

    def _where(self) -> dict[str, ContractSet]:
        """The set that each contract is read from; the mesh's own comes first."""
        found: dict[str, ContractSet] = dict.fromkeys(self._gate.mesh.services, self._gate.mesh)
        for built in self._gate.builds():
            for name in built.serves & built.set.symbols.services.keys():
                found.setdefault(name, built.set)
        return found

    def _entry(self, name: str, where: ContractSet) -> Entry:
        servers, consumers = list[Server](), list[Consumer]()
        for key, present in sorted(self._registry.instances.present.items()):
            if present.gone:
                continue
            built = self._gate.built(key)
            build = built.set.build_of(name) if built is not None else ""
            if name in present.contracts:
                servers.append(Server(present, build or self._own_build(key, name)))
            need = next((need for need in self._needs(key) if need.contract == name), None)
            if need is not None:
                consumers.append(Consumer(key, need, build))
        return Entry(name, where, tuple(servers), tuple(consumers))

    def _own_build(self, key: InstanceKey, name: str) -> str:
        own = key.service == self._registry.own_service
        return self._gate.mesh.build_of(name) if own else ""

    def _needs(self, key: InstanceKey) -> tuple[Need, ...]:
        view = self._registry.views().get(key.service)
        return view.known.needs if view is not None else ()
