"""Decides what a registry knows of its mesh from etcd: takes each change in once, in order, and says what it means.

The mirror is written by the watch and by the answers to the registry's own writes; whichever comes later with the
older revision is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import IN_ORDER, Departure, HeldElsewhere, Member
from minhos_mesh.registry.stores import etcd_layout as layout
from minhos_mesh.registry.stores import etcd_messages as wire


class Witness(Protocol):
    """Who is told what the mirror saw."""

    def instance_written(self, held: HeldElsewhere) -> None:
        """An instance is like this now."""

    def instance_deleted(self, last: HeldElsewhere, departure: Departure) -> None:
        """An instance is gone."""

    def member_written(self, member: Member) -> None:
        """A registry lives."""

    def member_deleted(self, name: str) -> None:
        """The lease of a registry has run out."""

    def service_written(self, service: str, contracts: tuple[str, ...], needs: tuple[Need, ...]) -> None:
        """A service serves and needs this."""

    def document_written(self, pair: Any) -> None:
        """A document was written."""

    def document_deleted(self, pair: Any) -> None:
        """A document was deleted."""


class Mirror:
    """All keys of the mesh but its documents, as last seen."""

    def __init__(self, keys: layout.Layout) -> None:
        self._keys = keys
        self.revision = 0
        """All changes up to it are in."""
        self.floor, self.floor_revision = 0, 0
        self.tokens: dict[InstanceKey, int] = {}
        self.token_revisions: dict[InstanceKey, int] = {}
        self.instances: dict[InstanceKey, HeldElsewhere] = {}
        self.members: dict[str, Member] = {}
        self.services: dict[str, tuple[tuple[str, ...], tuple[Need, ...]]] = {}
        self._revisions: dict[bytes, int] = {}
        self._departures: dict[InstanceKey, Departure] = {}

    def take(self, pairs: Iterable[Any], revision: int, witness: Witness | None) -> None:
        """Takes in all keys as of one revision; what is no longer among them is gone."""
        there = set()
        for pair in pairs:
            there.add(pair.key)
            self.put(pair, witness)
        for key, known in list(self._revisions.items()):
            if key not in there and known <= revision:
                self.delete(wire.KeyValue(key=key, mod_revision=revision), witness)
        self.revision = max(self.revision, revision)

    def apply(self, events: Iterable[Any], witness: Witness) -> None:
        """Takes in changes that the watch saw."""
        for event in events:
            if event.type == wire.DELETED:
                self.delete(event.kv, witness)
            else:
                self.put(event.kv, witness)
            self.revision = max(self.revision, event.kv.mod_revision)

    def put(self, pair: Any, witness: Witness | None) -> None:
        """A key was written."""
        if pair.mod_revision <= self._revisions.get(pair.key, 0):
            return
        self._revisions[pair.key] = pair.mod_revision
        match self._keys.parts(pair.key):
            case (layout.INSTANCES, service, instance):
                key = InstanceKey(service, instance)
                held = self.instances[key] = layout.read_instance(key, pair.value, pair.mod_revision)
                if witness is not None:
                    witness.instance_written(held)
            case (layout.TOKENS, service, instance):
                key = InstanceKey(service, instance)
                token, self._departures[key] = layout.read_token(pair.value, pair.mod_revision)
                self.tokens[key], self.token_revisions[key] = token, pair.mod_revision
            case (layout.MEMBERS, name):
                member = self.members[name] = layout.read_member(name, pair.value)
                if witness is not None:
                    witness.member_written(member)
            case (layout.SERVICES, service):
                self.services[service] = layout.read_service(pair.value)
                if witness is not None:
                    witness.service_written(service, *self.services[service])
            case ("floor",):
                self.floor, self.floor_revision = int(pair.value), pair.mod_revision
            case (layout.DOCUMENTS, *_):
                if witness is not None:
                    witness.document_written(pair)

    def delete(self, pair: Any, witness: Witness | None) -> None:
        """A key was deleted."""
        if pair.mod_revision < self._revisions.get(pair.key, 0):
            return
        self._revisions.pop(pair.key, None)
        match self._keys.parts(pair.key):
            case (layout.INSTANCES, service, instance):
                key = InstanceKey(service, instance)
                last = self.instances.pop(key, None)
                if last is not None and witness is not None:
                    witness.instance_deleted(last, self._departures.get(key, IN_ORDER))
            case (layout.TOKENS, service, instance):
                key = InstanceKey(service, instance)
                for table in (self.tokens, self.token_revisions, self._departures):
                    table.pop(key, None)
            case (layout.MEMBERS, name):
                self.members.pop(name, None)
                if witness is not None:
                    witness.member_deleted(name)
            case (layout.SERVICES, service):
                self.services.pop(service, None)
            case (layout.DOCUMENTS, *_):
                if witness is not None:
                    witness.document_deleted(pair)

    def wrote(self, values: Mapping[bytes, bytes], revision: int) -> None:
        """The registry's own write has been taken: known now, not only when the watch shows it."""
        for key, value in values.items():
            self.put(wire.KeyValue(key=key, value=value, mod_revision=revision), None)

    def revision_of(self, key: bytes) -> int:
        """Revision of the last known change of a key; 0 when it is not there."""
        return self._revisions.get(key, 0)

    def orphans(self, but: str) -> list[HeldElsewhere]:
        """Instances whose registry is gone; those of `but` are not."""
        return [held for held in self.instances.values() if held.holder != but and held.holder not in self.members]
