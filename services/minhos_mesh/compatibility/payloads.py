"""Decides which event types a descriptor set defines, and what of one definition of a payload another one breaks."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_mesh.compatibility.compare import Scope, compare
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.violation import Violation


@dataclass(frozen=True, slots=True, order=True)
class EventDefinition:
    """One event type in one version."""

    type: str
    version: int
    payload: str
    """Full name of the message that carries it."""


def definitions(contracts: ContractSet) -> tuple[EventDefinition, ...]:
    """All event types of a set, in order."""
    found: list[EventDefinition] = []
    for message in contracts.symbols.messages.values():
        event = message.proto.options.Extensions[options.event]
        if event.type:
            found.append(EventDefinition(event.type, event.version, message.name))
    return tuple(sorted(found))


def files_of(contracts: ContractSet, events: tuple[EventDefinition, ...]) -> bytes:
    """The files of these payloads with all that they import, as a serialized FileDescriptorSet."""
    return contracts.part(sorted({contracts.symbols.messages[event.payload].file.name for event in events}))


def broken(old: ContractSet, new: ContractSet, payload: str) -> tuple[Violation, ...]:
    """What the message of this name in the new set breaks of the one in the old; empty when it may stand for it."""
    return compare(old, new, Scope(frozenset(), types=old.symbols.held_by(payload)))


def is_same(one: ContractSet, other: ContractSet, event: EventDefinition) -> bool:
    """Whether both sets have this event type with the same payload, to the last rule of it."""
    if event not in definitions(other):
        return False
    return not broken(one, other, event.payload) and not broken(other, one, event.payload)
