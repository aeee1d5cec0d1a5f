"""Decides what it means for this registry that another registry of the mesh did something."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.store import Departure, HeldElsewhere, InstanceRecord, Member
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger

_log = get_logger("registry.neighbours")


class MeshNeighbours:
    """The `Neighbours` of a registry."""

    def __init__(
        self, registry: Registry, conditions: Conditions, on_members: Callable[[Sequence[Member]], None]
    ) -> None:
        """`on_members` is told which other registries live."""
        self._registry, self._conditions, self._on_members = registry, conditions, on_members

    def seen(self, instance: HeldElsewhere) -> None:
        """An instance attached at another registry, or changed there."""
        self._registry.instances.seen_elsewhere(instance)

    def gone(self, key: InstanceKey, token: int, departure: Departure) -> None:
        """An instance left another registry."""
        self._registry.instances.gone_elsewhere(key, token, departure)

    def inherited(self, record: InstanceRecord) -> None:
        """The registry of an instance is gone and this one holds it now."""
        self._registry.instances.inherit(record)

    def service_known(self, service: str, contracts: tuple[str, ...], needs: tuple[Need, ...]) -> None:
        """A service serves and needs this now."""
        self._registry.note_service(service, contracts=contracts, needs=needs)

    def members_changed(self, members: Sequence[Member]) -> None:
        """These other registries live."""
        _log.info("registry.members", others=[f"{member.name} {member.address}" for member in members])
        self._on_members(members)

    def store_trouble(self, text: str | None) -> None:
        """The store does not answer, or does again: meanwhile what is attached stays so, and nothing new is admitted."""
        if text is None:
            self._conditions.clear("STORE_UNREACHABLE")
        else:
            self._conditions.set("STORE_UNREACHABLE", text)
