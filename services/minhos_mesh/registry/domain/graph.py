"""Decides what the dependency graph of the mesh looks like to a reader, also when it could not be started as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minhos_mesh.registry.domain.directory import Known
from minhos_mesh.registry.plan import DependencyCycle, Edge, Need, ServiceSpec, make_plan


@dataclass(frozen=True, slots=True)
class Graph:
    """Who needs whom."""

    levels: Mapping[str, int]
    """Level in which each service is started; 0 for all when they need each other in a circle."""
    edges: tuple[Edge, ...]


def graph_of(services: Iterable[Known]) -> Graph:
    """The graph of what is known; a need that nobody serves has no edge."""
    known = {service.name: service for service in services}
    serves = {name: set(service.contracts) for name, service in known.items()}
    for service in known.values():
        for need in service.needs:
            if need.provider in serves:  # it is needed as a whole, whatever it has said so far of what it serves
                serves[need.provider].add(need.contract)
    served = set().union(*serves.values())
    specs = [
        ServiceSpec(name, frozenset(serves[name]), tuple(need for need in service.needs if _met(need, serves, served)))
        for name, service in known.items()
    ]
    try:
        plan = make_plan(specs)
    except DependencyCycle:
        return Graph(dict.fromkeys(known, 0), ())
    return Graph({name: n for n, level in enumerate(plan.levels) for name in level}, plan.edges)


def _met(need: Need, serves: Mapping[str, set[str]], served: set[str]) -> bool:
    return need.contract in served if need.provider is None else need.provider in serves
