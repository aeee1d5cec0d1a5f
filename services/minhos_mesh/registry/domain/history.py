"""Decides what counts as a change of health and which changes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minhos_mesh.registry.domain.health import Assessment, State

KEPT_PER_SERVICE = 100
"""Changes kept for each service."""


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A service went from one state, or set of reasons, to another."""

    revision: int
    """Grows by one with each change of any service, across restarts of the registry."""
    service: str
    before: State
    """STOPPED when it was never seen before."""
    after: Assessment
    time_ns: int


def find_changes(
    before: Mapping[str, Assessment], after: Mapping[str, Assessment], *, revision: int, time_ns: int
) -> tuple[HealthChange, ...]:
    """What changed between two assessments of the mesh, in order of name, numbered from `revision` + 1.

    A service that was never seen and is STOPPED is no change: nothing happened to it.
    """
    changes: list[HealthChange] = []
    for service, assessment in sorted(after.items()):
        earlier = before.get(service)
        if earlier is None and assessment.state is State.STOPPED:
            continue
        if earlier is not None and earlier.key() == assessment.key():
            continue
        revision += 1
        old_state = earlier.state if earlier is not None else State.STOPPED
        changes.append(HealthChange(revision, service, old_state, assessment, time_ns))
    return tuple(changes)
