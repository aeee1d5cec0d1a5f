from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.registry.domain.routing import (
    ClusterView,
    ContractView,
    Ejection,
    Endpoint,
    EndpointHealth,
    HeaderRoute,
    RoutingView,
    TrafficPolicy,
    WeightedCluster,
)
from minhos_mesh.registry.envoy import EnvoyDescriptorsUnreadable, EnvoyMessages, PackedResource
from minhos_mesh.registry.xds_resources import CDS, EDS, LDS, RDS, ResourceBuilder, fallback_resource

RISK = "minhos_api.risk.v1.RiskManagerService"


def build_resources(envoy: EnvoyMessages, v: RoutingView, zone: str = "", **policy: Any) -> Any:
    return ResourceBuilder(envoy, TrafficPolicy(**policy)).build(v, zone)


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


def test_a_header_may_count_with_any_value(envoy: EnvoyMessages) -> None:
    by_header = routes(envoy, view(header_routes=(HeaderRoute("x-canary", None, "new"),)))[0]
    (condition,) = by_header.match.headers
    assert (condition.name, condition.present_match) == ("x-canary", True)


def test_without_retries_there_is_one_route_for_all_methods(envoy: EnvoyMessages) -> None:
    table = parse(envoy, build_resources(envoy, view(), retries=0)[RDS][RISK])
    (only,) = table.virtual_hosts[0].routes
    assert not only.route.HasField("retry_policy")


def test_the_bounds_of_a_client_stand_in_the_cluster(envoy: EnvoyMessages) -> None:
    cluster = parse(envoy, build_resources(envoy, view(), max_requests=7, ejection_failure_percent=60)[CDS][RISK])
    assert cluster.circuit_breakers.thresholds[0].max_requests.value == 7
    assert cluster.outlier_detection.failure_percentage_threshold.value == 60
    assert cluster.outlier_detection.enforcing_failure_percentage.value == 100
    assert cluster.outlier_detection.enforcing_success_rate.value == 0


def test_sick_endpoints_may_be_told_by_their_rate_of_success_or_not_at_all(envoy: EnvoyMessages) -> None:
    by_rate = parse(envoy, build_resources(envoy, view(), ejection=Ejection.SUCCESS_RATE)[CDS][RISK])
    assert by_rate.outlier_detection.enforcing_success_rate.value == 100
    assert by_rate.outlier_detection.enforcing_failure_percentage.value == 0
    off = parse(envoy, build_resources(envoy, view(), ejection=Ejection.OFF)[CDS][RISK])
    assert not off.HasField("outlier_detection")


def ranks(table: Any) -> list[list[int]]:
    assert [locality.priority for locality in table.endpoints] == list(range(len(table.endpoints)))
    return [[e.endpoint.address.socket_address.port_value for e in each.lb_endpoints] for each in table.endpoints]


def test_priorities_have_no_gaps_and_the_own_zone_comes_first(envoy: EnvoyMessages) -> None:
    endpoints = (
        Endpoint("127.0.0.1", 1, priority=9, zone="here"),
        Endpoint("127.0.0.1", 2, priority=3, zone="there"),
        Endpoint("127.0.0.1", 3, priority=3, zone="here"),
        Endpoint("127.0.0.1", 4, priority=3),
    )
    seen = view(endpoints=endpoints)
    assert ranks(parse(envoy, build_resources(envoy, seen, "here")[EDS][RISK])) == [[3, 4], [2], [1]]
    assert ranks(parse(envoy, build_resources(envoy, seen, "there")[EDS][RISK])) == [[2, 4], [3], [1]]
    assert ranks(parse(envoy, build_resources(envoy, seen)[EDS][RISK])) == [[4], [2, 3], [1]]
    assert seen.zones() == {"here", "there"}


def test_what_did_not_change_is_not_made_again(envoy: EnvoyMessages) -> None:
    builder = ResourceBuilder(envoy, TrafficPolicy())
    one, two = view(endpoints=(Endpoint("127.0.0.1", 1),)), view(endpoints=(Endpoint("127.0.0.1", 2),))
    first, second = builder.build(one), builder.build(two)
    assert first[RDS][RISK] is second[RDS][RISK]
    assert first[EDS][RISK] != second[EDS][RISK]
    assert builder.build(two, "here")[EDS][RISK] is not second[EDS][RISK]
    builder.forget_others(RoutingView())
    assert builder.build(two)[RDS][RISK] is not second[RDS][RISK]
    assert builder.build(two)[RDS][RISK] == second[RDS][RISK]


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
