"""Decides what counts as a change of health and which changes are kept, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minhos_mesh.registry.domain.health import Assessment, State

KEPT_PER_SERVICE = 100
"""The last changes of each service are kept however old they are."""
KEPT_NS = 24 * 3_600 * 10**9
"""Changes as young as this are kept too, up to the bounds below."""
MOST_PER_SERVICE = 2_000
"""Changes of one service that are kept at the most."""
MOST_IN_ALL = 200_000
"""Changes that are kept at the most; also how far revisions of kept ones lie apart."""


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


def kept_from(time_ns: int) -> int:
    """Changes from this time on are kept for their age, seen from `time_ns`."""
    return time_ns - KEPT_NS


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
