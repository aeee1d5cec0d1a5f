"""Decides which event types of attached instances are told: those that the mesh's own contracts do not have, or have otherwise."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.payloads import EventDefinition, definitions, files_of, is_same
from minhos_mesh.registry.contract_gate import ContractGate

MOST_BYTES: Final = 2 * 1_048_576
"""Descriptors that one answer holds; a single set has half of it at the most."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The event types that one build brings, with the instances that were built so."""

    build: str
    instances: tuple[str, ...]
    events: tuple[EventDefinition, ...]
    files: bytes
    """The descriptors of the payloads; empty when they are known to who asks, or have no room."""


class OfferedEvents:
    """Looks at what instances were built with; remembers what it found of each build."""

    def __init__(self, gate: ContractGate) -> None:
        self._gate = gate
        self._found: WeakKeyDictionary[ContractSet, tuple[EventDefinition, ...]] = WeakKeyDictionary()

    def offers(self, known: Collection[str]) -> tuple[Offer, ...]:
        """What all attached instances bring; the descriptors of `known` builds are left out."""
        found: list[Offer] = []
        room = MOST_BYTES
        for built, keys in self._gate.attached().items():
            events = self._own_events(built)
            if not events:
                continue
            files = b"" if built.digest in known else files_of(built, events)
            if len(files) > room:
                files = b""
            room -= len(files)
            found.append(Offer(built.digest, tuple(sorted(str(key) for key in keys)), events, files))
        return tuple(found)

    def _own_events(self, built: ContractSet) -> tuple[EventDefinition, ...]:
        if built not in self._found:
            mesh = self._gate.mesh
            self._found[built] = tuple(event for event in definitions(built) if not is_same(mesh, built, event))
        return self._found[built]
