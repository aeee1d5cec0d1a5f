"""Decides what a new contract set breaks of an old one, as a whole or for who uses only some contracts of it.

The rules are buf's category WIRE_JSON with RPC_NO_DELETE and PACKAGE_SERVICE_NO_DELETE, under buf's names, and stricter
ones of our own about validation rules, access, heartbeats and events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from minhos_mesh.compatibility import calls, fields, strict, types
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.symbols import Reach
from minhos_mesh.compatibility.violation import Violation, broken

LOST_CALLS: Final = frozenset({"RPC_NO_DELETE", "PACKAGE_SERVICE_NO_DELETE"})
"""Rules about calls that are answered by nobody any more."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The contracts and event types of the old set that somebody relies on."""

    contracts: frozenset[str]
    """Full names."""
    events: frozenset[str] = frozenset()
    """Event types."""
    types: frozenset[str] = frozenset()
    """Full names of messages and enums, whoever uses them."""


def compare(
    old: ContractSet, new: ContractSet, scope: Scope | None = None, *, stricter: bool = True
) -> tuple[Violation, ...]:
    """Everything that the new set breaks, each violation once and in order.

    `scope` None means all of the old set. Without `stricter` only the rules that buf has are applied.
    """
    if old.digest == new.digest or _same(old, new, scope):
        return ()
    found = set(_contracts(old, new, scope, stricter=stricter))
    reach = _reach(old, scope)
    found.update(_types(old, new, reach, stricter=stricter))
    if scope is None:
        found.update(_packages(old, new, {*old.files}))
        found.update(_extensions(old, new))
    else:
        found.update(_packages(old, new, _files_of(old, scope, reach)))
    return tuple(sorted(found))


def missing_contracts(old: ContractSet, new: ContractSet) -> tuple[Violation, ...]:
    """Contracts of the old set that the new one, taken as a whole contract set, has no longer."""
    gone = sorted(old.symbols.services.keys() - new.symbols.services.keys())
    return tuple(calls.deleted(old.symbols.services[name], old.symbols.services[name].file.name) for name in gone)


def _same(old: ContractSet, new: ContractSet, scope: Scope | None) -> bool:
    """Whether all files that are looked at are equal, which is how it is with two builds of one version."""
    names = old.files if scope is None else old.closure(_files_of(old, scope, _reach(old, scope)))
    return all(old.encoded[name] == new.encoded.get(name) for name in names)


def _reach(old: ContractSet, scope: Scope | None) -> Reach:
    if scope is None:
        return old.symbols.everything()
    found = old.symbols.reach(scope.contracts, scope.events)
    return found | old.symbols.everything().only(scope.types) if scope.types else found


def _files_of(old: ContractSet, scope: Scope, reach: Reach) -> set[str]:
    symbols = old.symbols
    named = [symbols.services[name] for name in scope.contracts if name in symbols.services]
    return {
        *(service.file.name for service in named),
        *(symbols.messages[name].file.name for name in reach.all),
        *(symbols.enums[name].file.name for name in reach.enums if name in symbols.enums),
    }


def _contracts(old: ContractSet, new: ContractSet, scope: Scope | None, *, stricter: bool) -> Iterator[Violation]:
    for name, before in old.symbols.services.items():
        if scope is not None and name not in scope.contracts:
            continue
        after = new.symbols.services.get(name)
        if after is None:
            yield calls.deleted(before, before.file.name)
            continue
        yield from calls.compare(before, after)
        if stricter:
            yield from calls.compare_promises(before, after)


def _types(old: ContractSet, new: ContractSet, reach: Reach, *, stricter: bool) -> Iterator[Violation]:
    before, after = old.symbols, new.symbols
    for name in reach.all:
        message, same = before.messages[name], after.messages.get(name)
        if stricter and name in reach.sent:
            yield from calls.compare_events(message, same, message.file.name)
        if same is None:
            continue  # whoever uses it is found where it is used
        yield from types.compare_messages(message, same, before, after)
        if stricter and name in reach.sent:
            yield from strict.compare(message, same, before, after)
    for name in reach.enums:
        if name in before.enums and name in after.enums:
            yield from types.compare_enums(before.enums[name], after.enums[name])


def _packages(old: ContractSet, new: ContractSet, names: Collection[str]) -> Iterator[Violation]:
    for name in names:
        if name in new.files and old.files[name].package != new.files[name].package:
            packages = old.files[name].package, new.files[name].package
            yield broken("FILE_SAME_PACKAGE", name, name, *packages)


def _extensions(old: ContractSet, new: ContractSet) -> Iterator[Violation]:
    for key, before in old.symbols.extensions.items():
        after = new.symbols.extensions.get(key)
        if after is not None:
            places = (
                fields.Place(symbols, each.file, each.proto, each.name)
                for symbols, each in ((old.symbols, before), (new.symbols, after))
            )
            yield from fields.compare(*places)
