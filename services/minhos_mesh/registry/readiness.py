"""Which instances serve now: the board that leases and health write and the supervisor reads."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.registry.domain.leases import InstanceKey


class ReadinessBoard:
    """A `Readiness` that is told what is true."""

    def __init__(self) -> None:
        self._serving: dict[str, set[str]] = {}
        self._listeners: list[Callable[[], None]] = []

    def is_serving(self, service: str, instance_id: str | None = None) -> bool:
        """Whether this instance, or any instance when None, serves."""
        instances = self._serving.get(service, set())
        return bool(instances) if instance_id is None else instance_id in instances

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
        for listener in list(self._listeners):
            listener()

    def replace(self, serving: set[InstanceKey]) -> None:
        """Says at once which instances serve; all others do not."""
        instances: dict[str, set[str]] = {}
        for key in serving:
            instances.setdefault(key.service, set()).add(key.instance_id)
        if instances == {service: held for service, held in self._serving.items() if held}:
            return
        self._serving = instances
        for listener in list(self._listeners):
            listener()
