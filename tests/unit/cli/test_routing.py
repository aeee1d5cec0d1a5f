from __future__ import annotations

import pytest

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1 import route_service_pb2 as pb
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.routing import make_rule, parse_target, passing, rows_of, rule_text, selector_of, service_name

SERVICES = [registry.Service(name="risk_manager"), registry.Service(name="legacy")]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("v2=10", ("v2", 10)), ("v2=10%", ("v2", 10)), ("v2", ("v2", None)), ("legacy=0", ("legacy", 0))],
)
def test_a_target_is_who_and_a_percentage(text: str, parsed: tuple[str, int | None]) -> None:
    assert parse_target(text) == parsed


@pytest.mark.parametrize("text", ["v2=101", "v2=-1", "v2=a", "v2=", "=10", "v2=1.5", "v2=99999999999"])
def test_a_target_that_is_none_is_told_what_is_allowed(text: str) -> None:
    with pytest.raises(CommandFailed, match="allowed is"):
        parse_target(text)


def test_who_is_one_instance_a_known_service_or_a_version() -> None:
    names = {service.name for service in SERVICES}
    assert selector_of("risk_manager/risk_manager-1", names).instance == "risk_manager/risk_manager-1"
    assert selector_of("risk-manager", names).service == "risk_manager"
    assert selector_of("v2", names).version == "v2"


def test_names_may_be_written_with_dashes() -> None:
    assert service_name("trading-engine") == "trading_engine"
    assert service_name("TradingEngineService") == "TradingEngineService"
    assert service_name("minhos_api.risk.v1.RiskManagerService") == "minhos_api.risk.v1.RiskManagerService"


def test_a_rule_is_shares_and_headers() -> None:
    rule = make_rule([("v2", 10)], ["x-canary=1", "X-Any"], SERVICES, strict=True)
    assert rule_text(rule) == "x-canary=1 -> version v2, x-any -> version v2, 10 % -> version v2 (strict)"


def test_a_header_needs_one_who_and_a_share_needs_a_percentage() -> None:
    with pytest.raises(CommandFailed, match="exactly one --to"):
        make_rule([("v2", 1), ("v3", 1)], ["x=1"], SERVICES, strict=False)
    with pytest.raises(CommandFailed, match="--to v2 has no share"):
        make_rule([("v2", None)], [], SERVICES, strict=False)


def test_a_route_is_shown_part_by_part_with_who_does_not_serve() -> None:
    v2 = pb.InstanceSelector(version="v2")
    rule = make_rule([("v2", 10)], ["x=1"], SERVICES, strict=False)
    route = pb.Route(
        contract="C",
        current=pb.RouteRevision(revision=3, rule=rule),
        selectors=[pb.SelectorState(selector=v2, instances=["a/1", "a/2"], serving=["a/1"])],
        notes=["something"],
    )
    assert rows_of(route) == [
        ("C", "3", "x=1 -> version v2", "a/1, a/2 (does not serve)", "something"),
        ("", "", "10 % -> version v2", "a/1, a/2 (does not serve)", ""),
        ("", "", "90 % -> all others", "", ""),
    ]
    assert rows_of(pb.Route(contract="C", current=pb.RouteRevision(revision=4))) == [
        ("C", "4", "all instances in turn", "", "")
    ]


def test_a_target_that_ends_with_its_process_is_warned_of_with_one_that_lasts() -> None:
    targets = ["v2", "worker", "worker/worker-2", "worker/canary-1", "worker/worker-2-1c56e221", "bus/bus-1c56e221"]
    assert [
        (told.partition(" ")[0], told.partition("with it: ")[2].partition(" ")[0]) for told in passing(targets)
    ] == [
        ("worker/worker-2-1c56e221", "worker/worker-2"),
        ("bus/bus-1c56e221", "bus"),
    ]
