from __future__ import annotations

import pytest

from minhos_api.health.v1 import service_health_pb2 as health_pb
from minhos_api.mesh.v1.contract_options_pb2 import DEPENDENCY_KIND_OPTIONAL, DEPENDENCY_KIND_REQUIRED
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_mesh.cli import graph

HEALTHY, DEGRADED, UNHEALTHY = (
    health_pb.SERVICE_STATE_HEALTHY,
    health_pb.SERVICE_STATE_DEGRADED,
    health_pb.SERVICE_STATE_UNHEALTHY,
)
NODES = [
    ("bus", 0, UNHEALTHY),
    ("feed", 1, HEALTHY),
    ("state", 1, DEGRADED),
    ("risk", 2, DEGRADED),
    ("engine", 3, HEALTHY),
]
EDGES = [
    ("feed", "bus", "required"),
    ("state", "bus", "optional"),
    ("risk", "bus", "optional"),
    ("risk", "bus", "required"),
    ("risk", "state", "required"),
    ("engine", "risk", "required"),
    ("engine", "feed", "optional"),
    ("engine", "bus", "required"),
]
DRAWN = """\
0 bus    UNHEALTHY ●
1 feed   HEALTHY   ◆─●
  state  DEGRADED  ◇─┼─●
2 risk   DEGRADED  ◆─┼─◆─●
3 engine HEALTHY   ◆─◇───◆─●
● a service  ◆ needs  ◇ can do without; each lane in the colour of its service"""


@pytest.fixture
def services() -> tuple[graph.Drawn, ...]:
    found = registry.GetDependencyGraphResponse()
    for name, level, state in reversed(NODES):
        found.nodes.add(name=name, level=level, state=state)
    for number, (low, high, kind) in enumerate(EDGES):
        made = found.edges.add(from_service=low, to_service=high, contract=f"c{number}")
        made.kind = DEPENDENCY_KIND_OPTIONAL if kind == "optional" else DEPENDENCY_KIND_REQUIRED
    return graph.services_of(found)


def test_each_service_has_a_lane_down_to_the_last_that_needs_it(services: tuple[graph.Drawn, ...]) -> None:
    assert graph.terminal(services, 60).plain == DRAWN


def test_a_need_for_several_contracts_counts_once_as_the_strongest(services: tuple[graph.Drawn, ...]) -> None:
    assert {service.name: dict(service.needs) for service in services}["risk"] == {"bus": False, "state": False}


def test_names_stand_beside_the_lanes_where_they_fit(services: tuple[graph.Drawn, ...]) -> None:
    lines = graph.terminal(services, 120).plain.splitlines()
    assert lines[-2] == "3 engine HEALTHY   ◆─◇───◆─●   needs bus, risk, feed (optional)"
    assert len({line.index("needs") for line in lines[1:-1]}) == 1


def test_names_stand_instead_of_the_lanes_where_these_do_not_fit(services: tuple[graph.Drawn, ...]) -> None:
    lines = graph.terminal(services, 25).plain.splitlines()
    assert lines[-1] == "3 engine HEALTHY   needs bus, risk, feed (optional)"
    assert "●" not in "".join(lines)


def test_what_hangs_on_a_service_that_is_down_is_seen_in_its_colour(services: tuple[graph.Drawn, ...]) -> None:
    drawn = graph.terminal(services, 60)
    red = [drawn.plain[span.start : span.end] for span in drawn.spans if span.style == "bold red"]
    assert red.count("◆") + red.count("◇") == 4


def test_a_need_of_a_service_that_nobody_knows_is_still_named() -> None:
    found = registry.GetDependencyGraphResponse()
    found.nodes.add(name="engine", state=HEALTHY)
    found.edges.add(from_service="engine", to_service="ghost", kind=DEPENDENCY_KIND_REQUIRED)
    assert "needs ghost" in graph.terminal(graph.services_of(found), 200).plain


def test_graphviz_has_every_service_and_dashes_what_can_be_done_without(services: tuple[graph.Drawn, ...]) -> None:
    drawn = graph.dot(services)
    assert drawn.startswith("digraph mesh {")
    assert drawn.endswith("}")
    assert '"bus" [label="bus\\nUNHEALTHY", fillcolor="#ffc7ce"];' in drawn
    assert '"engine" -> "bus";' in drawn
    assert '"engine" -> "feed" [style=dashed];' in drawn
    assert '{ rank=same; "feed"; "state"; }' in drawn


def test_mermaid_has_every_service_and_dots_what_can_be_done_without(services: tuple[graph.Drawn, ...]) -> None:
    lines = graph.mermaid(services).splitlines()
    assert lines[0] == "flowchart BT"
    assert '  bus["bus<br/>UNHEALTHY"]:::UNHEALTHY' in lines
    assert "  engine --> bus" in lines
    assert "  engine -.-> feed" in lines
    assert "  classDef UNHEALTHY fill:#ffc7ce,stroke:#555,color:#000" in lines
