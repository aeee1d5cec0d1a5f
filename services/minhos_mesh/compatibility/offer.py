"""Decides which promises of a known contract set an offer is measured by: contract by contract, with the events it tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_mesh.compatibility.compare import Scope, compare, missing_contracts
from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid
from minhos_mesh.compatibility.violation import Violation

MOST: Final = 0.5
"""A set with more than this part of the known contracts is taken as a whole contract set when nobody says what it is."""


_IMPORTS: Final = ("google/", "buf/", "grpc/")


_REASONS: Final = ("minhos_api/mesh/v1/error_reason.proto",)
"""Every contract's errors carry a reason of these, and none imports them."""


def is_import(file: str) -> bool:
    """Whether a file comes with the tools: nobody of a mesh promises what stands in it."""
    return file.startswith(_IMPORTS)


def shared_types(known: ContractSet, offered: ContractSet) -> frozenset[str]:
    """Messages and enums of a known set that an offer is about: it has them, or the file that they stood in."""
    stand_in = {each.name: each.file.name for each in known.symbols.messages.values()}
    stand_in |= {each.name: each.file.name for each in known.symbols.enums.values()}
    there = offered.symbols
    return frozenset(
        name
        for name, file in stand_in.items()
        if not is_import(file) and (file in offered.files or name in there.messages or name in there.enums)
    )


def check_known(contracts: Collection[str], new: Collection[str], types: Collection[str]) -> None:
    """Refuses an offer that nothing can be said of. Raises DescriptorsInvalid."""
    if not (contracts or new or types):
        raise DescriptorsInvalid(
            "nothing in it is known here; check the folder that it belongs to",
            seen="no contract, message or enum that is known",
            allowed="contracts, or messages of the mesh's contracts",
        )


def files_of(contracts: ContractSet, name: str) -> tuple[str, ...]:
    """The file of a contract, those of the events that it tells and hears, and that of the reasons of its errors."""
    events = contracts.symbols.events
    named = sorted(published(contracts, [name]) | consumed(contracts, [name]))
    return (
        contracts.symbols.services[name].file.name,
        *(events[kind].file.name for kind in named if kind in events),
        *(file for file in _REASONS if file in contracts.files),
    )


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
    """What an offer breaks of a known set, each with the contracts through which it matters, none where it is none of these."""
    found: dict[Violation, tuple[str, ...]] = {}
    for name in contracts:
        scope = scope_of(known, offered, name, published(known, [name]))
        for violation in compare(known, offered, scope):
            found[violation] = (*found.get(violation, ()), name)
    for violation in compare(known, offered, Scope(frozenset(), types=shared_types(known, offered))):
        found.setdefault(violation, ())
    for violation in missing_contracts(known, offered) if whole else ():
        found.setdefault(violation, (violation.element,))
    return dict(sorted(found.items()))


def _said(contracts: ContractSet, names: Iterable[str]) -> Iterable[options.ServiceContract]:
    services = contracts.symbols.services
    return (services[name].proto.options.Extensions[options.contract] for name in names if name in services)
