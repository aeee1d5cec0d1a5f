from __future__ import annotations

from dataclasses import replace

import pytest

from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import (
    ROUTE_GRACE_SECONDS,
    SETTLE_SECONDS,
    Known,
    Present,
    Rotation,
    provider_names,
    requirements,
    service_facts,
)
from minhos_mesh.registry.domain.graph import graph_of
from minhos_mesh.registry.domain.health import Cause, Reason, Requirement, Serving, Silence, State, assess_service
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.routing import EndpointHealth, routing_view
from minhos_mesh.registry.plan import Need

BUS, VENUE = "events.Bus", "venue.Venue"
IN = Present(
    key=InstanceKey("bus", "bus-1"),
    host="127.0.0.1",
    port=4000,
    contracts=(BUS,),
    lease_id="l",
    token=1,
    version="1",
    attached_ns=0,
    serving=Serving.SERVING,
    ever_ready=True,
)

ROTATIONS = [
    ("serving", IN, Rotation.IN),
    ("never ready", replace(IN, ever_ready=False), None),
    ("says it does not serve", replace(IN, serving=Serving.NOT_SERVING), Rotation.OUT),
    ("its health service says so", replace(IN, watched=Serving.NOT_SERVING), Rotation.OUT),
    ("late", replace(IN, silence=Silence.LATE), Rotation.OUT),
    ("one check unanswered", replace(IN, check_failures=1), Rotation.IN),
    ("two checks unanswered", replace(IN, check_failures=2), Rotation.OUT),
    ("leaving", replace(IN, leaving=True), Rotation.DRAINING),
    ("lost", replace(IN, silence=Silence.LOST), None),
    ("expired", replace(IN, silence=Silence.EXPIRED), None),
    ("its process ended", replace(IN, exit_text="ended"), None),
    ("degraded by its own word", replace(IN, conditions=()), Rotation.IN),
]


@pytest.mark.parametrize(("_name", "present", "rotation"), ROTATIONS, ids=[row[0] for row in ROTATIONS])
def test_who_is_in_rotation(_name: str, present: Present, rotation: Rotation | None) -> None:
    assert present.rotation() is rotation


def test_one_that_ends_in_order_is_not_unhealthy_between_its_last_heartbeat_and_its_goodbye() -> None:
    present = replace(IN, serving=Serving.NOT_SERVING, not_serving_at=10.0)
    known = Known("bus", (BUS,))
    assert present.rotation() is Rotation.OUT
    assert assess_service(service_facts(known, [present], 10.1)).state is State.HEALTHY
    assert assess_service(service_facts(known, [present], 10.0 + SETTLE_SECONDS)).state is State.UNHEALTHY


WANTED = [
    ("wanted", Known("bus", (BUS,), wanted=True), True),
    ("not wanted", Known("bus", (BUS,), wanted=False, lost_at=0.0), False),
    ("nobody's and never there", Known("bus", (BUS,)), False),
    ("nobody's and just lost", Known("bus", (BUS,), lost_at=0.0), True),
    ("in a crash loop", Known("bus", (BUS,), wanted=True, trouble=Reason(Cause.CRASH_LOOP, "", "x")), False),
    ("restarting", Known("bus", (BUS,), wanted=True, trouble=Reason(Cause.PROCESS_EXITED, "", "x")), True),
]


@pytest.mark.parametrize(("_name", "known", "routed"), WANTED, ids=[row[0] for row in WANTED])
def test_a_route_stays_while_the_service_is_expected_back(_name: str, known: Known, routed: bool) -> None:
    view = routing_view({}, [known], [], now=1.0)
    assert [bool(contract.clusters) for contract in view.contracts] == [routed]


def test_calls_to_a_lost_service_that_nobody_supervises_fail_at_once_after_a_while() -> None:
    known, shapes = Known("bus", (BUS,), lost_at=0.0), {BUS: ContractShape(BUS, {})}
    assert routing_view(shapes, [known], [], ROUTE_GRACE_SECONDS - 0.1).contracts[0].clusters
    late = routing_view(shapes, [known], [], ROUTE_GRACE_SECONDS)
    assert late.contracts[0].clusters == ()
    assert [cluster.name for cluster in late.clusters] == [BUS], "its cluster stays known"


def test_endpoints_of_all_instances_stand_under_each_of_their_contracts() -> None:
    second = replace(IN, key=InstanceKey("bus", "bus-2"), port=4001, contracts=(BUS, VENUE), leaving=True)
    view = routing_view({}, [Known("bus", (BUS,))], [IN, second], now=0.0)
    clusters = {c.name: [(e.port, e.health) for e in c.endpoints] for c in view.clusters}
    assert clusters == {
        BUS: [(4000, EndpointHealth.HEALTHY), (4001, EndpointHealth.DRAINING)],
        VENUE: [(4001, EndpointHealth.DRAINING)],
    }
    assert {c.contract: bool(c.clusters) for c in view.contracts} == {BUS: True, VENUE: False}


def test_needs_are_met_by_those_who_serve_the_contract() -> None:
    services = {
        "engine": Known("engine", ("E",), (Need(BUS), Need(VENUE), Need("ghost", optional=True), Need("E"))),
        "bus": Known("bus", (BUS,)),
        "paper": Known("paper", (VENUE,)),
        "sierra": Known("sierra", (VENUE,)),
    }
    needs = requirements(services)["engine"]
    assert needs == (
        Requirement("bus", ("bus",)),
        Requirement(VENUE, ("paper", "sierra")),
        Requirement("ghost", (), required=False),
    )
    assert provider_names(needs) == ("bus", "paper", "sierra")


def test_two_contracts_of_one_service_are_one_need_and_the_stronger_word_counts() -> None:
    services = {
        "engine": Known("engine", ("E",), (Need("A", optional=True), Need("B"))),
        "bus": Known("bus", ("A", "B")),
    }
    assert requirements(services)["engine"] == (Requirement("bus", ("bus",), required=True),)


def test_the_graph_can_be_shown_even_when_it_could_not_be_started() -> None:
    cycle = [Known("a", ("A",), (Need("B"),)), Known("b", ("B",), (Need("A"),))]
    assert graph_of(cycle).levels == {"a": 0, "b": 0}
    missing = [Known("a", ("A",), (Need("ghost"),)), Known("b", ("B",), (Need("A"),))]
    assert graph_of(missing).levels == {"a": 0, "b": 1}
