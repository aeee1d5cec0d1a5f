"""Decides which xDS resources describe the mesh: one listener, route table and cluster for each contract.

Pure: the same view gives the same bytes. No timeouts are ever set here (each call carries its own deadline), and a
contract that nobody serves keeps its listener but has a route table without a match, so that a call fails at once
instead of hanging until the client gives up on the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minhos_mesh.registry.domain.routing import ClusterView, ContractView, Endpoint, RoutingView, WeightedCluster
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

RETRIES = 4
"""Retries after the first attempt: gRPC allows five attempts in all."""
RETRY_BASE_NANOS = 25_000_000
RETRY_MAX_NANOS = 250_000_000
KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_TIMEOUT_SECONDS = 2

_ADS_SOURCE: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}


Resources = Mapping[str, Mapping[str, PackedResource]]
"""Type URL -> resource name -> resource."""


def build_resources(messages: EnvoyMessages, view: RoutingView) -> Resources:
    """All resources of the view, by type and name."""
    return MappingProxyType(
        {
            LDS: {c.contract: listener(messages, c.contract) for c in view.contracts},
            RDS: {c.contract: route_table(messages, c) for c in view.contracts},
            CDS: {c.name: cluster(messages, c.name) for c in view.clusters},
            EDS: {c.name: endpoint_table(messages, c) for c in view.clusters},
        }
    )


def fallback_resource(messages: EnvoyMessages, type_url: str, name: str) -> PackedResource | None:
    """What a client is told about a name nobody knows, so that its calls fail at once; None where silence is right."""
    if type_url == LDS:
        return listener(messages, name)
    if type_url == RDS:
        return route_table(messages, ContractView(contract=name))
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


def route_table(messages: EnvoyMessages, view: ContractView) -> PackedResource:
    """Routes of one contract: header routes first, then each retryable method by its path, then all the rest."""
    virtual_host = {"name": view.contract, "domains": ["*"], "routes": _routes(view)}
    return messages.pack(ROUTES, {"name": view.contract, "virtual_hosts": [virtual_host]})


def cluster(messages: EnvoyMessages, name: str) -> PackedResource:
    """An EDS cluster, balanced round robin; the keepalives are read by proxies and ignored by gRPC clients."""
    interval = {"seconds": KEEPALIVE_INTERVAL_SECONDS}
    return messages.pack(
        CLUSTER,
        {
            "name": name,
            "type": "EDS",
            "lb_policy": "ROUND_ROBIN",
            "eds_cluster_config": {"eds_config": _ADS_SOURCE},
            "upstream_connection_options": {
                "tcp_keepalive": {
                    "keepalive_time": {"value": KEEPALIVE_INTERVAL_SECONDS},
                    "keepalive_interval": {"value": KEEPALIVE_TIMEOUT_SECONDS},
                }
            },
            "http2_protocol_options": {
                "connection_keepalive": {"interval": interval, "timeout": {"seconds": KEEPALIVE_TIMEOUT_SECONDS}}
            },
        },
    )


def endpoint_table(messages: EnvoyMessages, view: ClusterView) -> PackedResource:
    """The endpoints of one cluster, in one locality, with the health the clients must honour."""
    endpoints = sorted(view.endpoints, key=Endpoint.sort_key)
    localities = []
    if endpoints:
        localities.append(
            {
                "locality": {"region": "mesh", "zone": "local"},
                "load_balancing_weight": {"value": 1},
                "lb_endpoints": [_lb_endpoint(endpoint) for endpoint in endpoints],
            }
        )
    return messages.pack(ENDPOINTS, {"cluster_name": view.name, "endpoints": localities})


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address = {"address": endpoint.host, "port_value": endpoint.port}
    return {
        "endpoint": {"address": {"socket_address": address}},
        "health_status": endpoint.health.value,
    }


def _routes(view: ContractView) -> list[dict[str, Any]]:
    if not view.clusters:
        return []
    routes: list[dict[str, Any]] = []
    for header in view.header_routes:
        condition = {"name": header.header, "string_match": {"exact": header.exact}}
        routes.extend(_method_routes(view, {"cluster": header.cluster}, [condition]))
    routes.extend(_method_routes(view, _split(view.clusters), []))
    return routes


def _method_routes(
    view: ContractView, action: Mapping[str, Any], conditions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    retried = {**action, "retry_policy": _retry_policy()}
    routes = [
        {"match": {"path": f"/{view.contract}/{method}", "headers": conditions}, "route": retried}
        for method in sorted(view.retry_methods)
    ]
    routes.append({"match": {"prefix": "", "headers": conditions}, "route": dict(action)})
    return routes


def _split(clusters: tuple[WeightedCluster, ...]) -> dict[str, Any]:
    if len(clusters) == 1:
        return {"cluster": clusters[0].cluster}
    shares = [{"name": share.cluster, "weight": {"value": share.weight}} for share in clusters]
    return {"weighted_clusters": {"clusters": shares}}


def _retry_policy() -> dict[str, Any]:
    return {
        "retry_on": "unavailable",
        "num_retries": {"value": RETRIES},
        "retry_back_off": {
            "base_interval": {"nanos": RETRY_BASE_NANOS},
            "max_interval": {"nanos": RETRY_MAX_NANOS},
        },
    }


def _as_any(resource: PackedResource) -> dict[str, Any]:
    return {"type_url": resource.type_url, "value": resource.value}
