"""Decides what the dependency graph of the mesh looks like to a reader, also when it could not be started as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minhos_mesh.registry.domain.directory import Known
from minhos_mesh.registry.plan import DependencyCycle, Edge, ServiceSpec, make_plan


@dataclass(frozen=True, slots=True)
class Graph:
    """Who needs whom."""

    levels: Mapping[str, int]
    """Level in which each service is started; 0 for all when they need each other in a circle."""
    edges: tuple[Edge, ...]


def graph_of(services: Iterable[Known]) -> Graph:
    """The graph of what is known; a need that nobody serves has no edge."""
    known = list(services)
    served = {contract for service in known for contract in service.contracts}
    specs = [
        ServiceSpec(s.name, frozenset(s.contracts), tuple(need for need in s.needs if need.contract in served))
        for s in known
    ]
    try:
        plan = make_plan(specs)
    except DependencyCycle:
        return Graph({service.name: 0 for service in known}, ())
    return Graph({name: n for n, level in enumerate(plan.levels) for name in level}, plan.edges)
