"""In which order services start and stop: computed from what they serve and need, or refused with the path that is wrong."""

from __future__ import annotations

import difflib
import graphlib
import itertools
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """One contract that a service depends on."""

    contract: str
    """Full name, for example `minhos_api.risk.v1.RiskManagerService`."""
    optional: bool = False
    """An optional need gives an order and holds nothing back."""
    provider: str | None = None
    """The one service meant, where several serve the contract; None means all that serve it."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What a plan must know of one service."""

    name: str
    serves: frozenset[str]
    """Full names of its contracts."""
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """One service depends on another, for the sake of a contract."""

    dependent: str
    dependency: str
    contract: str
    optional: bool


class PlanError(Exception):
    """The services as they are described cannot be started in any order."""


class DependencyCycle(PlanError):
    """Expected: services need each other in a circle. `path` names them; the last is the first again."""

    def __init__(self, path: Sequence[str], steps: str) -> None:
        super().__init__(f"services need each other in a circle: {steps}")
        self.path = tuple(path)


class MissingContract(PlanError):
    """Expected: a required contract is served by nobody. `path` leads from a service that nobody needs to the contract."""

    def __init__(self, path: Sequence[str], contract: str, provider: str | None) -> None:
        by = "no service serves" if provider is None else f"{provider} does not serve"
        super().__init__(f"{by} {contract}, which {path[-2]} needs: {' -> '.join(path)}")
        self.path = tuple(path)
        self.contract = contract


class DuplicateService(PlanError):
    """Expected: two services have the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"two services are called {name!r}")
        self.name = name


class UnknownService(LookupError):
    """Expected: the plan has no service of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; was {near[0]} meant?" if near else ""
        super().__init__(f"there is no service {name!r}{hint}; known: {', '.join(names)}")
        self.service = name
        self.nearest = near[0] if near else None
        self.known = ", ".join(names)


@dataclass(frozen=True, slots=True)
class Plan:
    """An order of start in which nothing comes before what it depends on. Made by `make_plan`."""

    levels: tuple[tuple[str, ...], ...]
    """Services by level; those of one level start together, the one that most others depend on first, then by name."""
    edges: tuple[Edge, ...]
    """Who depends on whom, sorted."""
    unserved: tuple[tuple[str, str], ...]
    """(service, contract) of optional needs that nobody serves."""

    @property
    def services(self) -> tuple[str, ...]:
        """All services in the order of their start."""
        return tuple(name for level in self.levels for name in level)

    @property
    def stop_levels(self) -> tuple[tuple[str, ...], ...]:
        """The same services in the order of their stop."""
        return tuple(reversed(self.levels))

    def required(self, service: str) -> frozenset[str]:
        """What must serve before this service is started. Raises UnknownService."""
        return self._neighbours(service, optional=False)

    def optional(self, service: str) -> frozenset[str]:
        """What is started before this service and does not hold it back. Raises UnknownService."""
        return self._neighbours(service, optional=True) - self.required(service)

    def dependents(self, service: str) -> frozenset[str]:
        """Who depends on this service, optionally or not; they stop before it. Raises UnknownService."""
        self.check(service)
        return frozenset(edge.dependent for edge in self.edges if edge.dependency == service)

    def with_required(self, service: str) -> frozenset[str]:
        """The service and all that it requires, directly or not. Raises UnknownService."""
        found, queue = {service}, deque([service])
        while queue:
            new = self.required(queue.popleft()) - found
            found |= new
            queue.extend(new)
        return frozenset(found)

    def check(self, service: str) -> None:
        """Raises UnknownService when the plan does not have it."""
        if not any(service in level for level in self.levels):
            raise UnknownService(service, self.services)

    def _neighbours(self, service: str, *, optional: bool) -> frozenset[str]:
        self.check(service)
        return frozenset(
            edge.dependency for edge in self.edges if edge.dependent == service and edge.optional == optional
        )


def make_plan(specs: Iterable[ServiceSpec]) -> Plan:
    """Orders the services. Raises DuplicateService, MissingContract or DependencyCycle (optional needs count in a circle).

    A need of a contract that the service itself serves is met by itself.
    """
    services: dict[str, ServiceSpec] = {}
    for spec in specs:
        if spec.name in services:
            raise DuplicateService(spec.name)
        services[spec.name] = spec
    edges: set[Edge] = set()
    unserved: list[tuple[str, str]] = []
    missing: list[tuple[str, Need]] = []
    for name in sorted(services):
        for need in services[name].needs:
            found = _edges(name, need, services)
            if found is not None:
                edges |= found
            elif need.optional:
                unserved.append((name, need.contract))
            else:
                missing.append((name, need))
    ordered = tuple(sorted(edges, key=lambda edge: (edge.dependent, edge.dependency, edge.contract, edge.optional)))
    if missing:
        name, need = missing[0]
        path = (*_path_from_top(name, ordered), need.contract)
        raise MissingContract(path, need.contract, need.provider)
    return Plan(levels=_levels(services, ordered), edges=ordered, unserved=tuple(unserved))


def _edges(name: str, need: Need, services: Mapping[str, ServiceSpec]) -> set[Edge] | None:
    """The edges that a need makes; None when nobody serves it."""
    providers = [
        spec.name
        for spec in services.values()
        if need.contract in spec.serves and (need.provider is None or spec.name == need.provider)
    ]
    if not providers:
        return None
    if name in providers:
        return set()
    return {Edge(name, provider, need.contract, need.optional) for provider in providers}


def _levels(services: Collection[str], edges: Sequence[Edge]) -> tuple[tuple[str, ...], ...]:
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter({name: set() for name in services})
    for edge in edges:
        sorter.add(edge.dependent, edge.dependency)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        # graphlib lists each service before the one that depends on it; people read it the other way round.
        path = tuple(reversed(error.args[1]))
        raise DependencyCycle(path, _steps(path, edges)) from None
    dependents = Counter(edge.dependency for edge in edges)
    levels: list[tuple[str, ...]] = []
    while sorter.is_active():
        ready = tuple(sorted(sorter.get_ready(), key=lambda name: (-dependents[name], name)))
        levels.append(ready)
        sorter.done(*ready)
    return tuple(levels)


def _steps(path: Sequence[str], edges: Sequence[Edge]) -> str:
    """The path with the contract of each step, for people."""
    text = path[0]
    for dependent, dependency in itertools.pairwise(path):
        edge = next(item for item in edges if (item.dependent, item.dependency) == (dependent, dependency))
        kind = " optionally" if edge.optional else ""
        text += f" -> {dependency} (for {edge.contract}{kind})"
    return text


def _path_from_top(service: str, edges: Sequence[Edge]) -> tuple[str, ...]:
    """The shortest way from a service that nobody depends on down to this one."""
    path: dict[str, tuple[str, ...]] = {service: (service,)}
    queue = deque([service])
    longest_seen = path[service]
    while queue:
        name = queue.popleft()
        above = [edge.dependent for edge in edges if edge.dependency == name and edge.dependent not in path]
        if not above and all(edge.dependency != name for edge in edges):
            return path[name]
        for dependent in above:
            path[dependent] = (dependent, *path[name])
            longest_seen = path[dependent]
            queue.append(dependent)
    return longest_seen
