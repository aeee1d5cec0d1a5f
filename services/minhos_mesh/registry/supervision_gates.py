"""Who waits for whom: when a service may start, when it may stop, and why it will not be started for now."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.plan import Plan
from minhos_mesh.registry.supervision_ports import Readiness


class Gates:
    """The plan seen against what serves now and how the units stand."""

    def __init__(self, plan: Plan, external: Collection[str], readiness: Readiness, units: Mapping[str, Unit]) -> None:
        """`units` is looked at, not copied."""
        self._plan = plan
        self._external = frozenset(external)
        self._readiness = readiness
        self._units = units

    def waits_for(self, service: str) -> str:
        """What a wanted service waits for, for people."""
        awaited = sorted(name for name in self._plan.required(service) if not self._serves(name))
        return f"waits for {', '.join(awaited)}" if awaited else "is about to start"

    def may_start(self, service: str) -> bool:
        """Whether all it requires serves, and nothing optional is about to come."""
        if not all(self._serves(name) for name in self._plan.required(service)):
            return False
        return all(name in self._external or self._is_past(name) for name in self._plan.optional(service))

    def may_stop(self, service: str) -> bool:
        """Whether no dependent that is to stop, too, is still there."""
        dependents = (self._units[name] for name in self._plan.dependents(service) if name in self._units)
        return not any(unit.has_process and not unit.wanted for unit in dependents)

    def obstacle(self, service: str) -> str | None:
        """Why a waiting service will not be started for now: the required dependency that will not serve."""
        if self._units[service].phase is not Phase.WAITING:
            return None
        for name in sorted(self._plan.required(service)):
            if self._serves(name):
                continue
            unit = self._units[name]
            if unit.failed or not unit.wanted:
                state = unit.message if unit.wanted else "is not wanted"
                return f"is not started, for it requires {name}, which {state}"
            if (deeper := self.obstacle(name)) is not None:
                return f"is not started, for it requires {name}, which {deeper}"
        return None

    def _serves(self, service: str) -> bool:
        return service in self._external or self._readiness.is_serving(service)

    def _is_past(self, service: str) -> bool:
        """Whether waiting for this optional dependency would be waiting for nothing."""
        unit = self._units[service]
        return not unit.wanted or unit.settled or self.obstacle(service) is not None
