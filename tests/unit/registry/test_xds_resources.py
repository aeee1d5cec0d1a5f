from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.registry.domain.routing import (
    ClusterView,
    ContractView,
    Endpoint,
    EndpointHealth,
    HeaderRoute,
    RoutingView,
    WeightedCluster,
)
from minhos_mesh.registry.envoy import EnvoyDescriptorsUnreadable, EnvoyMessages, PackedResource
from minhos_mesh.registry.xds_resources import CDS, EDS, LDS, RDS, build_resources, fallback_resource

RISK = "minhos_api.risk.v1.RiskManagerService"


def parse(envoy: EnvoyMessages, resource: PackedResource | None) -> Any:
    assert resource is not None
    return envoy.message_class(resource.type_url.split("/")[1]).FromString(resource.value)


def view(**changes: Any) -> RoutingView:
    contract = ContractView(RISK, ("CheckTrade",), (WeightedCluster(RISK),))
    fields = {f: changes.get(f, getattr(contract, f)) for f in ("retry_methods", "clusters", "header_routes")}
    return RoutingView((ContractView(RISK, **fields),), (ClusterView(RISK, changes.get("endpoints", ())),))


def routes(envoy: EnvoyMessages, v: RoutingView) -> list[Any]:
    table = parse(envoy, build_resources(envoy, v)[RDS][RISK])
    assert [list(host.domains) for host in table.virtual_hosts] == [["*"]]
    return list(table.virtual_hosts[0].routes)


def test_each_contract_has_a_listener_that_leads_to_its_route_table(envoy: EnvoyMessages) -> None:
    listener = parse(envoy, build_resources(envoy, view())[LDS][RISK])
    packed = listener.api_listener.api_listener
    manager = envoy.message_class(packed.type_url.split("/")[1]).FromString(packed.value)
    assert manager.rds.route_config_name == RISK  # type: ignore[attr-defined] # made at run time
    assert manager.rds.config_source.HasField("ads")  # type: ignore[attr-defined] # made at run time


def test_only_methods_that_are_safe_to_repeat_are_retried(envoy: EnvoyMessages) -> None:
    retried, rest = routes(envoy, view())
    assert retried.match.path == f"/{RISK}/CheckTrade"
    assert retried.route.retry_policy.retry_on == "unavailable"
    assert retried.route.retry_policy.num_retries.value == 4
    assert rest.match.HasField("prefix")
    assert not rest.route.HasField("retry_policy")


def test_no_route_sets_a_timeout(envoy: EnvoyMessages) -> None:
    for route in routes(envoy, view()):
        assert not route.route.HasField("timeout")
        assert not route.route.HasField("max_stream_duration")


def test_a_contract_that_nobody_serves_has_a_route_table_without_a_match(envoy: EnvoyMessages) -> None:
    assert routes(envoy, view(clusters=())) == []


def test_a_service_that_restarts_keeps_its_route_while_it_has_no_endpoint(envoy: EnvoyMessages) -> None:
    resources = build_resources(envoy, view(endpoints=()))
    assert len(routes(envoy, view(endpoints=()))) == 2
    assert len(parse(envoy, resources[EDS][RISK]).endpoints) == 0


def test_endpoints_carry_their_health(envoy: EnvoyMessages) -> None:
    endpoints = tuple(Endpoint("127.0.0.1", 4000 + n, health) for n, health in enumerate(EndpointHealth))
    table = parse(envoy, build_resources(envoy, view(endpoints=endpoints))[EDS][RISK])
    enum = table.endpoints[0].lb_endpoints[0].DESCRIPTOR.fields_by_name["health_status"].enum_type
    seen = {e.endpoint.address.socket_address.port_value: e.health_status for e in table.endpoints[0].lb_endpoints}
    assert {port: enum.values_by_number[n].name for port, n in seen.items()} == {
        4000: "HEALTHY",
        4001: "UNHEALTHY",
        4002: "DRAINING",
    }


def test_the_order_of_endpoints_does_not_change_the_bytes(envoy: EnvoyMessages) -> None:
    a, b = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)
    assert build_resources(envoy, view(endpoints=(a, b))) == build_resources(envoy, view(endpoints=(b, a)))


def test_calls_can_be_split_by_weight_and_by_header(envoy: EnvoyMessages) -> None:
    header = HeaderRoute("x-canary", "1", "new")
    split = (WeightedCluster(RISK, 90), WeightedCluster("new", 10))
    by_header, by_header_rest, weighted, _rest = routes(envoy, view(clusters=split, header_routes=(header,)))
    assert by_header.route.cluster == by_header_rest.route.cluster == "new"
    assert by_header.match.headers[0].string_match.exact == "1"
    assert [(c.name, c.weight.value) for c in weighted.route.weighted_clusters.clusters] == [(RISK, 90), ("new", 10)]


def test_a_cluster_takes_its_endpoints_from_the_same_stream(envoy: EnvoyMessages) -> None:
    cluster = parse(envoy, build_resources(envoy, view())[CDS][RISK])
    assert cluster.eds_cluster_config.eds_config.HasField("ads")


def test_an_unknown_name_gets_a_listener_and_an_empty_route_table_but_no_cluster(envoy: EnvoyMessages) -> None:
    assert parse(envoy, fallback_resource(envoy, LDS, "x")).name == "x"
    assert list(parse(envoy, fallback_resource(envoy, RDS, "x")).virtual_hosts[0].routes) == []
    assert fallback_resource(envoy, CDS, "x") is None


def test_descriptors_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvoyDescriptorsUnreadable, match=r"absent\.binpb: No such file"):
        EnvoyMessages.from_file(tmp_path / "absent.binpb")
    (tmp_path / "bad").write_bytes(b"\xff\xff\xff")
    with pytest.raises(EnvoyDescriptorsUnreadable, match="not a descriptor set"):
        EnvoyMessages.from_file(tmp_path / "bad")
