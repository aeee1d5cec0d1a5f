"""Decides which event types the bus knows and how their payloads are read: those of this program, and those that were learned."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from google.protobuf import descriptor_pool, message_factory

from minhos_mesh.compatibility import limits, payloads
from minhos_mesh.compatibility.descriptors import ContractSet, resolve
from minhos_mesh.event_bus.domain.records import TypeDefinition, TypeFiles
from minhos_mesh.runtime import contracts
from minhos_mesh.runtime.contracts import EventType
from minhos_mesh.runtime.event_envelope import OWN
from minhos_mesh.runtime.validation import own_rules

LARGEST_PACKED: Final = 512 * 1024
"""Bytes of packed descriptors that one build may bring, so that they go through every engine in one piece."""


class DefinitionUnusable(ValueError):
    """Expected of a faulty offer: nothing can be built or checked by its descriptors."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One event type in one version, ready to be used."""

    type: EventType
    offered_by: str
    """Service whose instance brought it; empty for one of this program."""
    set: ContractSet
    """The set that its message is of."""

    @property
    def payload(self) -> str:
        """Full name of its message."""
        return str(self.type.payload.full_name)

    def breaks(self, other: Definition) -> str:
        """What stands in the way of this one in the place of the other, as a sentence; empty when nothing does."""
        if self.payload != other.payload:
            return f"the payload is {other.payload} and not {self.payload}"
        found = payloads.broken(other.set, self.set, self.payload)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{found[0].element}: {found[0].old} became {found[0].new}{more}" if found else ""

    def files(self) -> bytes:
        """The file of its message with all that it imports, as a serialized FileDescriptorSet."""
        return self.set.part([self.set.symbols.messages[self.payload].file.name])


@dataclass
class Payloads:
    """The event types that are known; see Catalogue. What was learned stays until something takes its place."""

    refused: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    """By type and version the services that offer what cannot be taken, with why."""
    readers: dict[tuple[str, int, str], Callable[[bytes], bool]] = field(default_factory=dict)
    """How payloads are read by type, version and URL, for whoever keeps that here as long as nothing else is learned."""
    _learned: dict[str, tuple[Definition, ...]] = field(default_factory=dict)
    _types: dict[str, tuple[EventType, ...]] = field(default_factory=dict)

    def names(self) -> Collection[str]:
        """See Catalogue."""
        return OWN.names() | self._learned.keys() if self._learned else OWN.names()

    def versions(self, event_type: str) -> Sequence[EventType]:
        """See Catalogue."""
        return self._types.get(event_type) or OWN.versions(event_type)

    def definitions(self, event_type: str) -> tuple[Definition, ...]:
        """What is known of a type, the oldest version first."""
        learned = self._learned.get(event_type, ())
        versions = {each.type.version for each in learned}
        own = [self._own(each) for each in OWN.versions(event_type) if each.version not in versions]
        return tuple(sorted((*own, *learned), key=lambda each: each.type.version))

    def definition(self, event_type: str, version: int) -> Definition | None:
        """What is known of a type in exactly this version."""
        return next((each for each in self.definitions(event_type) if each.type.version == version), None)

    def take(self, found: Definition) -> None:
        """Reads payloads of its type and version by it from now on."""
        name, version = found.type.type, found.type.version
        others = [each for each in self._learned.get(name, ()) if each.type.version != version]
        self._learned[name] = tuple(sorted((*others, found), key=lambda each: each.type.version))
        self.readers.clear()
        self._types[name] = tuple(each.type for each in self.definitions(name))

    def sets(self) -> Collection[ContractSet]:
        """The sets that what was learned is of."""
        return [each.set for known in self._learned.values() for each in known]

    def refusal(self, event_type: str, version: int, source: str) -> str:
        """Why what this service publishes of a type and version is not taken; empty when nothing stands in the way."""
        return self.refused.get((event_type, version), {}).get(source, "") if self.refused else ""

    @property
    def learned(self) -> int:
        """How many types were learned."""
        return len(self._learned)

    @cached_property
    def _own_set(self) -> ContractSet:
        return resolve(contracts.whole_set())

    def _own(self, known: EventType) -> Definition:
        return Definition(known, "", self._own_set)


class PayloadFiles:
    """Descriptors of payloads that came from outside, with one pool for each set of them."""

    def __init__(self, data: bytes) -> None:
        """Raises DefinitionUnusable."""
        try:
            self.set = resolve(data)
        except ValueError as error:
            raise DefinitionUnusable(str(error)) from None
        self.digest = hashlib.sha256(data).hexdigest()
        self.packed = zlib.compress(data, 6)
        if len(self.packed) > LARGEST_PACKED:
            seen = f"its descriptors have {len(self.packed)} bytes when packed"
            raise DefinitionUnusable(f"{seen}: allowed are {LARGEST_PACKED}")
        self._pool = descriptor_pool.DescriptorPool()
        for name in self.set.files:
            self._pool.AddSerializedFile(self.set.files[name].SerializeToString())

    def definition(self, told: TypeDefinition) -> Definition:
        """One event type of them. Raises DefinitionUnusable when it is not there, or its rules cannot be compiled."""
        wanted = payloads.EventDefinition(told.type, told.version, told.payload)
        if wanted not in payloads.definitions(self.set):
            raise DefinitionUnusable(f"{told.payload} of {told.type} version {told.version} is not in its descriptors")
        descriptor = self._pool.FindMessageTypeByName(told.payload)
        try:
            validator = own_rules(message_factory.GetMessageClass(descriptor))
        except ValueError as error:
            raise DefinitionUnusable(str(error)) from None
        return Definition(EventType(told.type, told.version, descriptor, validator), told.offered_by, self.set)


def unpacked(files: TypeFiles) -> PayloadFiles:
    """Files as they were written down. Raises DefinitionUnusable when they are not what was written."""
    opened = zlib.decompressobj()
    try:
        data = opened.decompress(files.packed, limits.MAX_BYTES)
    except zlib.error as error:
        raise DefinitionUnusable(f"they cannot be unpacked: {error}") from None
    if hashlib.sha256(data).hexdigest() != files.digest:
        raise DefinitionUnusable("they are not what was written down")
    return PayloadFiles(data)
