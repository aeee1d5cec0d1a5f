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
        awaited = self.awaited(service)
        return f"waits for {', '.join(awaited)}" if awaited else "is about to start"

    def awaited(self, service: str) -> list[str]:
        """What a service requires that does not serve."""
        return sorted(name for name in self._plan.required(service) if not self._serves(name))

    def may_start(self, service: str) -> bool:
        """Whether all it requires serves, and nothing optional is about to come."""
        if not all(self._serves(name) for name in self._plan.required(service)):
            return False
        return all(name in self._external or self._is_past(name) for name in self._plan.optional(service))

    def may_stop(self, service: str) -> bool:
        """Whether no dependent that is to stop, too, is still there."""
        dependents = [unit for name in self._plan.dependents(service) for unit in self._units_of(name)]
        return not any(unit.has_process and not unit.wanted for unit in dependents)

    def obstacle(self, name: str) -> str | None:
        """Why a waiting unit will not be started for now: the required dependency that will not serve."""
        if self._units[name].phase is not Phase.WAITING:
            return None
        for service in sorted(self._plan.required(self._units[name].service)):
            if self._serves(service):
                continue
            unit = self._most_hopeful(service)
            if unit.failed or not unit.wanted:
                state = unit.message if unit.wanted else "is not wanted"
                return f"is not started, for it requires {service}, which {state}"
            if (deeper := self.obstacle(unit.name)) is not None:
                return f"is not started, for it requires {service}, which {deeper}"
        return None

    def _most_hopeful(self, service: str) -> Unit:
        """The instance that will serve soonest, if any will."""
        return min(self._units_of(service), key=lambda unit: (not unit.wanted, unit.failed, unit.slot))

    def _units_of(self, service: str) -> list[Unit]:
        return [unit for unit in self._units.values() if unit.service == service]

    def _serves(self, service: str) -> bool:
        return service in self._external or self._readiness.is_serving(service)

    def _is_past(self, service: str) -> bool:
        """Whether waiting for this optional dependency would be waiting for nothing."""
        return all(
            not unit.wanted or unit.settled or self.obstacle(unit.name) is not None for unit in self._units_of(service)
        )
