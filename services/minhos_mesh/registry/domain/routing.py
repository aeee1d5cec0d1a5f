"""Decides where calls of each contract go: which instances, how healthy, in which shares, and whether callers should wait or fail."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Known, Present, Rotation
from minhos_mesh.registry.domain.routes import WITHOUT_ROUTE, RouteRule, Selector, Spread, others, spread


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
    priority: int = 0
    """Endpoints of the lowest priority get the calls while one of them serves."""
    zone: str = ""
    """Clients of the same zone prefer it among those of its priority; empty is everywhere."""

    def sort_key(self) -> tuple[str, int]:
        """Orders endpoints the same way in every push."""
        return (self.host, self.port)

    def rank(self, zone: str) -> tuple[int, bool]:
        """How far behind a client of this zone puts it; the lowest first."""
        return (self.priority, self.zone not in ("", zone))


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
    """Calls that carry exactly this metadata value, or any when that is None, go to one cluster, before any weights count."""

    header: str
    exact: str | None
    cluster: str


@dataclass(frozen=True, slots=True)
class ContractView:
    """How calls of one contract are routed. No clusters means that nobody serves it."""

    contract: str
    retry_methods: tuple[str, ...] = ()
    """Names of the methods whose contract says NO_SIDE_EFFECTS or IDEMPOTENT."""
    clusters: tuple[WeightedCluster, ...] = ()
    header_routes: tuple[HeaderRoute, ...] = ()
    notes: tuple[str, ...] = ()
    """What is not as its route says, for people."""
    strict: bool = False
    """Whether calls wait or fail because of that."""


@dataclass(frozen=True, slots=True)
class RoutingView:
    """Everything the discovery clients are told about."""

    contracts: tuple[ContractView, ...] = ()
    clusters: tuple[ClusterView, ...] = ()

    def zones(self) -> frozenset[str]:
        """The zones in which something serves."""
        return frozenset(e.zone for cluster in self.clusters for e in cluster.endpoints if e.zone)

    def notes(self, *, strict: bool | None = None) -> Mapping[str, tuple[str, ...]]:
        """What is not as the routes say, by contract: of all routes, or of those that are strict or that are not."""
        wanted = (view for view in self.contracts if strict is None or view.strict is strict)
        return {view.contract: view.notes for view in wanted if view.notes}


_HEALTH = {
    Rotation.IN: EndpointHealth.HEALTHY,
    Rotation.OUT: EndpointHealth.UNHEALTHY,
    Rotation.DRAINING: EndpointHealth.DRAINING,
}
_NO_ROUTES: Mapping[str, RouteRule] = MappingProxyType({})


def routing_view(
    contracts: Mapping[str, ContractShape],
    services: Collection[Known],
    instances: Iterable[Present],
    now: float,
    routes: Mapping[str, RouteRule] = _NO_ROUTES,
) -> RoutingView:
    """What discovery clients are told, for every contract that is known.

    A contract has a route while an instance of it is in rotation or expected back soon; every contract keeps its
    cluster, so that a route never leads to one that a client does not know.
    """
    expected = {c for known in services if known.keeps_route(now) for c in known.contracts}
    serving: dict[str, list[Present]] = {}
    for instance in instances:
        rotation = instance.rotation()
        if rotation is None:
            continue
        for contract in instance.contracts:
            serving.setdefault(contract, []).append(instance)
            if rotation is not Rotation.DRAINING:
                expected.add(contract)
    names = sorted({*contracts, *serving, *(c for known in services for c in known.contracts)})
    views: list[ContractView] = []
    clusters: list[ClusterView] = []
    for name in names:
        rule, there = routes.get(name), serving.get(name, [])
        followed = spread(rule, there) if rule is not None else WITHOUT_ROUTE
        shape = contracts.get(name)
        retried = shape.retry_methods if shape is not None else ()
        views.append(_contract_view(name, retried, followed, name in expected))
        clusters.extend(_clusters(name, rule, followed, there))
    return RoutingView(tuple(views), tuple(clusters))


def subset_name(contract: str, selector: Selector | None) -> str:
    """Name of the cluster of some instances of a contract; that of all others is the contract's own name."""
    return contract if selector is None else f"{contract}/{selector.kind.value}:{selector.value}"


def _contract_view(name: str, retried: tuple[str, ...], followed: Spread, expected: bool) -> ContractView:
    if not expected:
        return ContractView(name, retried)
    shares = tuple(WeightedCluster(subset_name(name, selector), percent) for selector, percent in followed.shares)
    if len(shares) == 1:
        shares = (WeightedCluster(shares[0].cluster),)
    headers = tuple(HeaderRoute(h.header, h.exact, subset_name(name, h.selector)) for h in followed.headers)
    return ContractView(name, retried, shares, headers, followed.notes, followed.strict)


def _clusters(name: str, rule: RouteRule | None, followed: Spread, there: Sequence[Present]) -> Iterable[ClusterView]:
    rest = there if rule is None or followed.others_are_all else others(rule, there)
    yield _cluster(name, rest)
    for selector in rule.selectors() if rule is not None else ():
        yield _cluster(subset_name(name, selector), [present for present in there if selector.fits(present)])


def _cluster(name: str, instances: Iterable[Present]) -> ClusterView:
    endpoints = (_endpoint(present) for present in instances)
    return ClusterView(name, tuple(sorted(endpoints, key=Endpoint.sort_key)))


def _endpoint(present: Present) -> Endpoint:
    rotation = present.rotation()
    health = EndpointHealth.UNHEALTHY if rotation is None else _HEALTH[rotation]
    return Endpoint(present.host, present.port, health, present.priority, present.zone)


class Ejection(enum.Enum):
    """By what a client tells that an endpoint is sick, so that it stops calling it for a while."""

    OFF = "off"
    FAILURES = "failures"
    """The share of its calls that fail is above a bound."""
    SUCCESS_RATE = "success_rate"
    """It fails clearly more often than the others."""


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """How clients treat the endpoints of every contract. Times are milliseconds."""

    retries: int = 4
    retry_base_ms: int = 25
    retry_max_ms: int = 250
    max_requests: int = 1_024
    """Calls and streams that one client process may have open at once to one contract; more fail at once."""
    ejection: Ejection = Ejection.FAILURES
    ejection_interval_ms: int = 1_000
    ejection_time_ms: int = 5_000
    ejection_max_time_ms: int = 30_000
    ejection_max_percent: int = 50
    ejection_failure_percent: int = 90
    ejection_min_requests: int = 20
    ejection_min_endpoints: int = 2
    ejection_deviations: float = 1.9
