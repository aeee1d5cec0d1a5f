"""Decides which xDS resources describe the mesh: a listener and a route table for each contract, its clusters and endpoints.

Pure: the same view gives the same bytes. No timeouts are ever set here (each call carries its own deadline), and a
contract that nobody serves keeps its listener but has a route table without a match, so that a call fails at once
instead of hanging until the client gives up on the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from minhos_mesh.registry.domain.routing import (
    ClusterView,
    ContractView,
    Ejection,
    Endpoint,
    HeaderRoute,
    RoutingView,
    TrafficPolicy,
    WeightedCluster,
)
from minhos_mesh.registry.envoy import TYPE_PREFIX, EnvoyMessages, PackedResource

LISTENER = "envoy.config.listener.v3.Listener"
ROUTES = "envoy.config.route.v3.RouteConfiguration"
CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"

LDS = TYPE_PREFIX + LISTENER
RDS = TYPE_PREFIX + ROUTES
CDS = TYPE_PREFIX + CLUSTER
EDS = TYPE_PREFIX + ENDPOINTS
PUSH_ORDER = (CDS, EDS, LDS, RDS)
"""Make before break: clusters and their endpoints are known before a route leads to them."""

KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_TIMEOUT_SECONDS = 2
NO_ZONE = ""

_ADS_SOURCE: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}
V = TypeVar("V")


Resources = Mapping[str, Mapping[str, PackedResource]]
"""Type URL -> resource name -> resource."""


class ResourceBuilder:
    """Builds resources and keeps each until what it is made of changes: one endpoint more is one table, not a thousand."""

    def __init__(self, messages: EnvoyMessages, policy: TrafficPolicy) -> None:
        self._messages, self._policy = messages, policy
        self._kept: dict[tuple[str, str, str], tuple[Any, PackedResource]] = {}

    def build(self, view: RoutingView, zone: str = NO_ZONE) -> Resources:
        """All resources of the view as clients of a zone are to see them, by type and name."""
        messages, policy = self._messages, self._policy
        built: dict[str, dict[str, PackedResource]] = {LDS: {}, RDS: {}, CDS: {}, EDS: {}}
        for contract in view.contracts:
            name = contract.contract
            built[LDS][name] = self._once(LDS, "", name, None, lambda c: listener(messages, c.contract), contract)
            built[RDS][name] = self._once(RDS, "", name, contract, lambda c: route_table(messages, c, policy), contract)
        for each in view.clusters:
            built[CDS][each.name] = self._once(
                CDS, "", each.name, None, lambda c: cluster(messages, c.name, policy), each
            )
            built[EDS][each.name] = self._once(
                EDS, zone, each.name, each, lambda c: endpoint_table(messages, c, zone), each
            )
        return MappingProxyType(built)

    def forget_others(self, view: RoutingView) -> None:
        """Lets go of what the view has no more."""
        names = {c.contract for c in view.contracts} | {c.name for c in view.clusters}
        zones = view.zones() | {NO_ZONE}
        self._kept = {key: kept for key, kept in self._kept.items() if key[2] in names and key[1] in zones}

    def _once(
        self, type_url: str, zone: str, name: str, made_of: object, make: Callable[[V], PackedResource], given: V
    ) -> PackedResource:
        kept = self._kept.get((type_url, zone, name))
        if kept is not None and kept[0] == made_of:
            return kept[1]
        resource = make(given)
        self._kept[type_url, zone, name] = (made_of, resource)
        return resource


def fallback_resource(messages: EnvoyMessages, type_url: str, name: str) -> PackedResource | None:
    """What a client is told about a name nobody knows, so that its calls fail at once; None where silence is right."""
    if type_url == LDS:
        return listener(messages, name)
    if type_url == RDS:
        return route_table(messages, ContractView(contract=name), TrafficPolicy())
    if type_url == EDS:
        return endpoint_table(messages, ClusterView(name=name))
    return None


def listener(messages: EnvoyMessages, contract: str) -> PackedResource:
    """The API listener of a contract: it only points at the route table of the same name."""
    router = messages.pack(_ROUTER, {})
    connection_manager = messages.pack(
        _CONNECTION_MANAGER,
        {
            "rds": {"config_source": _ADS_SOURCE, "route_config_name": contract},
            "http_filters": [{"name": "router", "typed_config": _as_any(router)}],
        },
    )
    return messages.pack(LISTENER, {"name": contract, "api_listener": {"api_listener": _as_any(connection_manager)}})


def route_table(messages: EnvoyMessages, view: ContractView, policy: TrafficPolicy) -> PackedResource:
    """Routes of one contract: header routes first, then each retryable method by its path, then all the rest."""
    virtual_host = {"name": view.contract, "domains": ["*"], "routes": _routes(view, policy)}
    return messages.pack(ROUTES, {"name": view.contract, "virtual_hosts": [virtual_host]})


def cluster(messages: EnvoyMessages, name: str, policy: TrafficPolicy) -> PackedResource:
    """An EDS cluster, balanced round robin; the keepalives are read by proxies and ignored by gRPC clients."""
    interval = {"seconds": KEEPALIVE_INTERVAL_SECONDS}
    fields: dict[str, Any] = {
        "name": name,
        "type": "EDS",
        "lb_policy": "ROUND_ROBIN",
        "eds_cluster_config": {"eds_config": _ADS_SOURCE},
        "circuit_breakers": {"thresholds": [{"max_requests": {"value": policy.max_requests}}]},
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_time": {"value": KEEPALIVE_INTERVAL_SECONDS},
                "keepalive_interval": {"value": KEEPALIVE_TIMEOUT_SECONDS},
            }
        },
        "http2_protocol_options": {
            "connection_keepalive": {"interval": interval, "timeout": {"seconds": KEEPALIVE_TIMEOUT_SECONDS}}
        },
    }
    if policy.ejection is not Ejection.OFF:
        fields["outlier_detection"] = _ejection(policy)
    return messages.pack(CLUSTER, fields)


def _ejection(policy: TrafficPolicy) -> dict[str, Any]:
    """Only what gRPC clients follow: shares of failed calls and rates of success; failures in a row they ignore, so those are off."""
    by_rate = policy.ejection is Ejection.SUCCESS_RATE
    return {
        "interval": _duration(policy.ejection_interval_ms),
        "base_ejection_time": _duration(policy.ejection_time_ms),
        "max_ejection_time": _duration(max(policy.ejection_max_time_ms, policy.ejection_time_ms)),
        "max_ejection_percent": {"value": policy.ejection_max_percent},
        "enforcing_consecutive_5xx": {"value": 0},
        "enforcing_consecutive_gateway_failure": {"value": 0},
        "enforcing_success_rate": {"value": 100 if by_rate else 0},
        "success_rate_minimum_hosts": {"value": policy.ejection_min_endpoints},
        "success_rate_request_volume": {"value": policy.ejection_min_requests},
        "success_rate_stdev_factor": {"value": round(policy.ejection_deviations * 1_000)},
        "enforcing_failure_percentage": {"value": 0 if by_rate else 100},
        "failure_percentage_threshold": {"value": policy.ejection_failure_percent},
        "failure_percentage_minimum_hosts": {"value": policy.ejection_min_endpoints},
        "failure_percentage_request_volume": {"value": policy.ejection_min_requests},
    }


def endpoint_table(messages: EnvoyMessages, view: ClusterView, zone: str = NO_ZONE) -> PackedResource:
    """The endpoints of one cluster as a zone sees them: one locality for each rank, with the health the clients must honour.

    Ranks are numbered without gaps, as gRPC clients demand.
    """
    ranks: dict[tuple[int, bool], list[Endpoint]] = {}
    for endpoint in sorted(view.endpoints, key=Endpoint.sort_key):
        ranks.setdefault(endpoint.rank(zone), []).append(endpoint)
    localities = [
        {
            "locality": {"region": "mesh", "zone": f"rank-{number}"},
            "priority": number,
            "load_balancing_weight": {"value": 1},
            "lb_endpoints": [_lb_endpoint(endpoint) for endpoint in ranks[rank]],
        }
        for number, rank in enumerate(sorted(ranks))
    ]
    return messages.pack(ENDPOINTS, {"cluster_name": view.name, "endpoints": localities})


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address = {"address": endpoint.host, "port_value": endpoint.port}
    return {
        "endpoint": {"address": {"socket_address": address}},
        "health_status": endpoint.health.value,
    }


def _routes(view: ContractView, policy: TrafficPolicy) -> list[dict[str, Any]]:
    if not view.clusters:
        return []
    routes: list[dict[str, Any]] = []
    for header in view.header_routes:
        routes.extend(_method_routes(view, {"cluster": header.cluster}, [_condition(header)], policy))
    routes.extend(_method_routes(view, _split(view.clusters), [], policy))
    return routes


def _condition(header: HeaderRoute) -> dict[str, Any]:
    if header.exact is None:
        return {"name": header.header, "present_match": True}
    return {"name": header.header, "string_match": {"exact": header.exact}}


def _method_routes(
    view: ContractView, action: Mapping[str, Any], conditions: Iterable[Mapping[str, Any]], policy: TrafficPolicy
) -> list[dict[str, Any]]:
    headers = list(conditions)
    routes = []
    if policy.retries:
        retried = {**action, "retry_policy": _retry_policy(policy)}
        routes = [
            {"match": {"path": f"/{view.contract}/{method}", "headers": headers}, "route": retried}
            for method in sorted(view.retry_methods)
        ]
    return [*routes, {"match": {"prefix": "", "headers": headers}, "route": dict(action)}]


def _split(clusters: tuple[WeightedCluster, ...]) -> dict[str, Any]:
    if len(clusters) == 1:
        return {"cluster": clusters[0].cluster}
    shares = [{"name": share.cluster, "weight": {"value": share.weight}} for share in clusters]
    return {"weighted_clusters": {"clusters": shares}}


def _retry_policy(policy: TrafficPolicy) -> dict[str, Any]:
    return {
        "retry_on": "unavailable",
        "num_retries": {"value": policy.retries},
        "retry_back_off": {
            "base_interval": _duration(policy.retry_base_ms),
            "max_interval": _duration(max(policy.retry_base_ms, policy.retry_max_ms)),
        },
    }


def _duration(milliseconds: int) -> dict[str, int]:
    return {"seconds": milliseconds // 1_000, "nanos": milliseconds % 1_000 * 1_000_000}


def _as_any(resource: PackedResource) -> dict[str, Any]:
    return {"type_url": resource.type_url, "value": resource.value}
