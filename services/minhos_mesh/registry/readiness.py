"""Which instances serve now: the board that leases and health write and the supervisor reads."""

from __future__ import annotations

from collections.abc import Callable, Collection

from minhos_mesh.registry.domain.leases import InstanceKey


class ReadinessBoard:
    """A `Readiness` that is told what is true."""

    def __init__(self) -> None:
        self._serving: dict[str, set[str]] = {}
        self._standing_by: set[InstanceKey] = set()
        self._listeners: list[Callable[[], None]] = []

    def is_serving(self, service: str, instance_id: str | None = None) -> bool:
        """Whether this instance, or any instance when None, serves."""
        instances = self._serving.get(service, set())
        return bool(instances) if instance_id is None else instance_id in instances

    def stands_by(self, service: str, instance_id: str) -> bool:
        """Whether this instance waits only for what another instance of its service still holds."""
        return InstanceKey(service, instance_id) in self._standing_by

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each change; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def set_serving(self, service: str, instance_id: str, serving: bool) -> None:
        """Says whether an instance serves."""
        if serving == self.is_serving(service, instance_id):
            return
        instances = self._serving.setdefault(service, set())
        if serving:
            instances.add(instance_id)
        else:
            instances.remove(instance_id)
        self._tell()

    def set_standing_by(self, key: InstanceKey, stands_by: bool) -> None:
        """Says whether an instance stands by."""
        if stands_by == (key in self._standing_by):
            return
        (self._standing_by.add if stands_by else self._standing_by.discard)(key)
        self._tell()

    def serving_are(self, service: str, instance_ids: Collection[str]) -> None:
        """Says at once which instances of a service serve; its others do not."""
        before = self._serving.get(service, set())
        if before == set(instance_ids):
            return
        self._serving[service] = set(instance_ids)
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()
