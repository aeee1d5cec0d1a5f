"""Decides which promises of a known contract set an offer is measured by: contract by contract, with the events it tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_mesh.compatibility.compare import Scope, compare, missing_contracts
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.violation import Violation

MOST: Final = 0.5
"""A set with more than this part of the known contracts is taken as a whole contract set when nobody says what it is."""


def published(contracts: ContractSet, names: Iterable[str]) -> frozenset[str]:
    """Event types that the servers of these contracts publish."""
    return frozenset(event for each in _said(contracts, names) for event in each.publishes)


def consumed(contracts: ContractSet, names: Iterable[str]) -> frozenset[str]:
    """Event types that the servers of these contracts consume."""
    return frozenset(event for each in _said(contracts, names) for event in each.consumes)


def scope_of(old: ContractSet, new: ContractSet, contract: str, events: Collection[str]) -> Scope:
    """One contract and those of these events whose payload both sets hold: an offer need not bring payloads, but those
    that it brings count.
    """
    known, there = old.symbols.events, new.symbols.messages
    return Scope(
        frozenset({contract}), frozenset(kind for kind in events if kind in known and known[kind].name in there)
    )


def touched(offered: ContractSet, known: Mapping[str, ContractSet]) -> tuple[str, ...]:
    """The known contracts that an offer is about: those it has, and those it lacks though it has the file they stood in."""
    return tuple(
        name
        for name, where in sorted(known.items())
        if name in offered.symbols.services or where.symbols.services[name].file.name in offered.files
    )


def looks_whole(offered: ContractSet, known: ContractSet) -> bool:
    """Whether an offer seems to be meant as a whole contract set."""
    there = sum(name in offered.symbols.services for name in known.services)
    return there > MOST * len(known.services)


def broken_promises(
    known: ContractSet, offered: ContractSet, contracts: Iterable[str], *, whole: bool = False
) -> dict[Violation, tuple[str, ...]]:
    """What an offer breaks of a known set, each with the contracts through which it matters."""
    found: dict[Violation, tuple[str, ...]] = {}
    for name in contracts:
        scope = scope_of(known, offered, name, published(known, [name]))
        for violation in compare(known, offered, scope):
            found[violation] = (*found.get(violation, ()), name)
    for violation in missing_contracts(known, offered) if whole else ():
        found.setdefault(violation, (violation.element,))
    return dict(sorted(found.items()))


def _said(contracts: ContractSet, names: Iterable[str]) -> Iterable[options.ServiceContract]:
    services = contracts.symbols.services
    return (services[name].proto.options.Extensions[options.contract] for name in names if name in services)
