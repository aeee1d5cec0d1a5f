"""Decides where calls of each contract go: which instances, how healthy, and whether callers should wait or fail."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Known, Present, Rotation


class EndpointHealth(enum.Enum):
    """What the clients are told about one endpoint; named as in Envoy's HealthStatus."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that serves a cluster."""

    host: str
    port: int
    health: EndpointHealth = EndpointHealth.HEALTHY

    def sort_key(self) -> tuple[str, int]:
        """Orders endpoints the same way in every push."""
        return (self.host, self.port)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A named group of endpoints; it may be empty while a service restarts, so that calls which wait can wait."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """A share of the calls; the shares of one route are relative to their sum."""

    cluster: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class HeaderRoute:
    """Calls that carry exactly this metadata value go to one cluster, before any weights are looked at."""

    header: str
    exact: str
    cluster: str


@dataclass(frozen=True, slots=True)
class ContractView:
    """How calls of one contract are routed. No clusters means that nobody serves it."""

    contract: str
    retry_methods: tuple[str, ...] = ()
    """Names of the methods whose contract says NO_SIDE_EFFECTS or IDEMPOTENT."""
    clusters: tuple[WeightedCluster, ...] = ()
    header_routes: tuple[HeaderRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingView:
    """Everything the discovery clients are told about."""

    contracts: tuple[ContractView, ...] = ()
    clusters: tuple[ClusterView, ...] = ()


_HEALTH = {
    Rotation.IN: EndpointHealth.HEALTHY,
    Rotation.OUT: EndpointHealth.UNHEALTHY,
    Rotation.DRAINING: EndpointHealth.DRAINING,
}


def routing_view(
    contracts: Mapping[str, ContractShape], services: Collection[Known], instances: Iterable[Present], now: float
) -> RoutingView:
    """What discovery clients are told, for every contract that is known.

    A contract has a route while an instance of it is in rotation or expected back soon; every contract keeps its
    cluster, so that a route never leads to one that a client does not know.
    """
    expected = {c for known in services if known.keeps_route(now) for c in known.contracts}
    endpoints: dict[str, list[Endpoint]] = {}
    for instance in instances:
        rotation = instance.rotation()
        if rotation is None:
            continue
        for contract in instance.contracts:
            endpoints.setdefault(contract, []).append(Endpoint(instance.host, instance.port, _HEALTH[rotation]))
            if rotation is not Rotation.DRAINING:
                expected.add(contract)
    names = sorted({*contracts, *endpoints, *(c for known in services for c in known.contracts)})
    return RoutingView(
        tuple(_contract_view(name, contracts.get(name), name in expected) for name in names),
        tuple(ClusterView(n, tuple(sorted(endpoints.get(n, ()), key=Endpoint.sort_key))) for n in names),
    )


def _contract_view(name: str, shape: ContractShape | None, expected: bool) -> ContractView:
    retry_methods = shape.retry_methods if shape is not None else ()
    return ContractView(name, retry_methods, (WeightedCluster(name),) if expected else ())
