"""Decides how one contract of a set is described in the messages of ContractService, and under which names it is found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_mesh.compatibility.descriptors import ContractSet


class ContractUnknown(LookupError):
    """Expected: no contract has this name, or several have that short name."""

    def __init__(self, contract: str, known: Mapping[str, tuple[str, ...]], same: Sequence[str] = ()) -> None:
        near = difflib.get_close_matches(contract, known, n=1)
        self.contract = contract
        self.nearest = near[0] if near else None
        self.known = ", ".join(sorted({name.rpartition(".")[2] for names in known.values() for name in names}))
        hint = f"; was {near[0]} meant?" if near else ""
        several = f"several contracts are called {contract!r}: {', '.join(same)}"
        super().__init__(several if same else f"there is no contract {contract!r}{hint}; known: {self.known}")


def entry_of(contracts: ContractSet, name: str) -> pb.ContractEntry:
    """A contract without who serves and needs it."""
    service = contracts.symbols.services[name]
    said = service.proto.options.Extensions[options.contract]
    access = {method.options.Extensions[options.method].access for method in service.proto.method}
    return pb.ContractEntry(
        name=name,
        interface=said.interface,
        file=service.file.name,
        methods_count=len(service.proto.method),
        access=sorted(access),
        publishes=said.publishes,
        consumes=said.consumes,
        build=contracts.build_of(name),
    )


def full_name(name: str, contracts: Mapping[str, ContractSet]) -> str:
    """The one contract that a name means, of contracts by full name with the set of each. Raises ContractUnknown."""
    known = _names_of(contracts)
    found = known.get(name, ())
    if len(found) != 1:
        raise ContractUnknown(name, known, found)
    return found[0]


def _names_of(contracts: Mapping[str, ContractSet]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for full, where in contracts.items():
        short = full.rpartition(".")[2]
        interface = where.symbols.services[full].proto.options.Extensions[options.contract].interface
        for name in (full, short, short.removesuffix("Service"), interface):
            if name:
                found.setdefault(name, set()).add(full)
    return {name: tuple(sorted(full)) for name, full in found.items()}
