"""Decides what must be derived anew when something changed: only what belongs to services that are touched.

What `domain` says of all services together holds here too, one service at a time: facts and endpoints of a service that
nothing has touched are those of the last time, so that one change costs the same however many instances there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Known, Present, Rotation, requirements, service_facts
from minhos_mesh.registry.domain.health import (
    Assessment,
    DependencyFacts,
    Requirement,
    ServiceFacts,
    State,
    assess_service,
    dependency_state,
    with_dependencies,
)
from minhos_mesh.registry.domain.routes import RouteRule
from minhos_mesh.registry.domain.routing import ClusterView, ContractView, RoutingView, routing_view

Needs = Mapping[str, tuple[Requirement, ...]]
_Routed = tuple[bool, tuple[str, ...], tuple[tuple[Any, ...], ...]]
"""Whether calls wait for a service, its contracts, and what clients are told of its instances, their contracts first."""


class Derived:
    """What follows from services and instances, as of the last look."""

    def __init__(self, of_service: Callable[[str], tuple[Present, ...]]) -> None:
        """`of_service` gives the instances of a service in order."""
        self._of_service = of_service
        self._known: dict[str, Known] = {}
        self._facts: dict[str, ServiceFacts] = {}
        self._own: dict[str, State] = {}
        self._assessed: dict[str, tuple[tuple[DependencyFacts, ...], Assessment]] = {}
        self._routed: dict[str, _Routed] = {}
        self.instances: dict[str, tuple[Present, ...]] = {}
        """Instances by service."""
        self.needs: Needs = MappingProxyType({})
        self.serving: dict[str, frozenset[str]] = {}
        """Ids of the instances that are in rotation, by service."""
        self.moved: set[str] = set()
        """Contracts of which clients may have to be told something else; whoever tells them takes them out."""

    def look(self, known: Mapping[str, Known], touched: Collection[str], now: float) -> set[str]:
        """Takes in what has changed; returns the services that were looked at, those that are no more among them."""
        changed = {name for name, service in known.items() if self._known.get(name) is not service}
        gone = self._known.keys() - known.keys()
        if changed or gone:
            self.needs = requirements(known)
        for name in gone:
            self._forget(name)
        looked = changed | {name for name in touched if name in known}
        for name in looked:
            self._look_at(known[name], now)
        for service in known.values():
            if service.lost_at is not None:  # how long calls wait for it is a matter of time alone
                self._route(service, now)
        return looked | gone

    def assess(self) -> Mapping[str, Assessment]:
        """The states of all services, as `assess_mesh` gives them."""
        return {name: self._assess(name, facts) for name, facts in self._facts.items()}

    def _forget(self, name: str) -> None:
        if (routed := self._routed.get(name)) is not None:
            self.moved |= _contracts_of(routed)
        held_of = (self._known, self._facts, self._own, self._assessed, self._routed, self.instances, self.serving)
        for held in held_of:
            held.pop(name, None)

    def _look_at(self, known: Known, now: float) -> None:
        name = known.name
        self._known[name] = known
        self.instances[name] = self._of_service(name)
        facts = service_facts(known, self.instances[name], now)
        if facts != self._facts.get(name):
            self._facts[name] = facts
            self._own[name] = assess_service(facts).state
            self._assessed.pop(name, None)
        self._route(known, now)
        ids = (p.key.instance_id for p in self.instances[name] if p.rotation() is Rotation.IN)
        self.serving[name] = frozenset(ids)

    def _route(self, known: Known, now: float) -> None:
        there = tuple(
            (p.contracts, p.key, p.address, rotation, p.zone, p.priority, p.version)
            for p in self.instances.get(known.name, ())
            if (rotation := p.rotation()) is not None
        )
        routed = (known.keeps_route(now), known.contracts, there)
        before = self._routed.get(known.name)
        if routed != before:
            self._routed[known.name] = routed
            self.moved |= _contracts_of(routed) | (_contracts_of(before) if before is not None else set())

    def _assess(self, name: str, facts: ServiceFacts) -> Assessment:
        dependencies = tuple(
            DependencyFacts(need.name, dependency_state(need, self._own), need.required)
            for need in self.needs.get(name, ())
        )
        before = self._assessed.get(name)
        if before is not None and before[0] == dependencies:
            return before[1]
        assessed = assess_service(with_dependencies(facts, self.needs.get(name, ()), self._own))
        self._assessed[name] = (dependencies, assessed)
        return assessed


class Routes:
    """What discovery clients are told, kept by contract."""

    def __init__(self) -> None:
        self._contracts: Mapping[str, ContractShape] = {}
        self._rules: Mapping[str, RouteRule] = {}
        self._views: dict[str, ContractView] = {}
        self._clusters: dict[str, tuple[ClusterView, ...]] = {}
        self._told: RoutingView | None = None

    def look(
        self,
        derived: Derived,
        contracts: Mapping[str, ContractShape],
        known: Mapping[str, Known],
        rules: Mapping[str, RouteRule],
        now: float,
    ) -> RoutingView | None:
        """The routes of the mesh as `routing_view` gives them, None when they are those of the last time."""
        everything = contracts != self._contracts or rules != self._rules
        self._contracts, self._rules = contracts, rules
        if everything:
            self._views, self._clusters = {}, {}
        elif not derived.moved:
            return None
        moved, derived.moved = derived.moved, set()
        services = [s for s in known.values() if everything or not moved.isdisjoint(_served(s, derived))]
        shapes = contracts if everything else {name: contracts[name] for name in moved if name in contracts}
        present = [p for service in services for p in derived.instances[service.name]]
        view = routing_view(shapes, services, present, now, rules)
        for name in moved:
            self._views.pop(name, None)
            self._clusters.pop(name, None)
        self._views.update((c.contract, c) for c in view.contracts if everything or c.contract in moved)
        clusters: dict[str, list[ClusterView]] = {}
        for cluster in view.clusters:
            clusters.setdefault(cluster.name.partition("/")[0], []).append(cluster)
        self._clusters.update((name, tuple(found)) for name, found in clusters.items() if everything or name in moved)
        whole = RoutingView(
            tuple(self._views[name] for name in sorted(self._views)),
            tuple(cluster for name in sorted(self._clusters) for cluster in self._clusters[name]),
        )
        if whole == self._told:
            return None
        self._told = whole
        return whole


def _contracts_of(routed: _Routed) -> set[str]:
    return {*routed[1], *(contract for present in routed[2] for contract in present[0])}


def _served(known: Known, derived: Derived) -> set[str]:
    return {*known.contracts, *(c for present in derived.instances[known.name] for c in present.contracts)}
