"""Decides what a reader sees of a service: its instances, its health, its needs, its last errors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minhos_mesh.registry.domain.directory import Known, Present
from minhos_mesh.registry.domain.health import Assessment, Requirement, State, dependency_state
from minhos_mesh.registry.domain.resources import ResourceUse


class ServiceUnknown(LookupError):
    """Expected: neither a service nor a contract has this name."""

    def __init__(self, service: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(service, known, n=1)
        self.service = service
        self.nearest = near[0] if near else None
        self.known = ", ".join(sorted(set(known)))
        hint = f"; was {near[0]} meant?" if near else ""
        super().__init__(f"there is no service {service!r}{hint}; known: {self.known}")


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service at one moment."""

    known: Known
    instances: tuple[Present, ...]
    assessment: Assessment
    requirements: tuple[Requirement, ...]
    states: Mapping[str, State]
    """State of every requirement, by its name."""
    errors: tuple[str, ...]
    """Newest first."""
    state_since_ns: int | None
    uses: Mapping[int, ResourceUse] = field(default_factory=dict)
    """What processes use, by process id."""
    now: float = 0.0
    """The moment of the view, on the monotonic clock."""

    def same(
        self,
        assessment: Assessment,
        requirements: tuple[Requirement, ...],
        states: Mapping[str, State],
        errors: tuple[str, ...],
    ) -> bool:
        """Whether a service whose instances are the same would look like this again."""
        return (
            self.assessment is assessment
            and self.requirements == requirements
            and self.errors == errors
            and all(self.states[need.name] is dependency_state(need, states) for need in requirements)
        )

    def visible(self) -> tuple[object, ...]:
        """What must differ for a watcher to be told; heartbeats and resource use alone are no change."""
        instances = tuple(
            (p.key, p.token, p.address, p.gone, p.rotation(), p.pid, p.version, p.leaving) for p in self.instances
        )
        known = self.known
        return (
            known.name,
            known.contracts,
            known.needs,
            known.wanted,
            known.restarts,
            known.wanted_instances,
            instances,
            self.assessment.key(),
            self.errors,
        )


def view_of(
    known: Known,
    instances: tuple[Present, ...],
    assessment: Assessment,
    requirements: tuple[Requirement, ...],
    states: Mapping[str, State],
    errors: tuple[str, ...],
    state_since_ns: int | None,
) -> ServiceView:
    """Puts a view together."""
    needed = {need.name: dependency_state(need, states) for need in requirements}
    return ServiceView(known, instances, assessment, requirements, needed, errors, state_since_ns)


_WORST_FIRST = (State.UNHEALTHY, State.STARTING, State.STOPPING, State.DEGRADED, State.HEALTHY)


def worst(views: Mapping[str, ServiceView]) -> State:
    """The worst state of any service that should run; STOPPED when none should."""
    states = {v.assessment.state for v in views.values()}
    for state in _WORST_FIRST:
        if state in states:
            return state
    return State.STOPPED
