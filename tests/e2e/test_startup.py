"""How a mesh comes up and goes down: in the order of its contracts, or with a clear error and nothing left."""

from __future__ import annotations

import random
import socket
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from tests.e2e.running_mesh import SERVICES, Mesh, processes_of

from minhos_api.mesh.v1.contract_options_pb2 import DEPENDENCY_KIND_OPTIONAL
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub

pytestmark = pytest.mark.timeout(90)


def required(mesh: Mesh) -> set[tuple[str, str]]:
    """(dependent, dependency), as the registry tells."""
    graph = mesh.stub(RegistryServiceStub).GetDependencyGraph(registry_pb.GetDependencyGraphRequest())
    return {(e.from_service, e.to_service) for e in graph.edges if e.kind != DEPENDENCY_KIND_OPTIONAL}


def supervised(mesh: Mesh) -> dict[tuple[str, str], int]:
    """Place in the registry's log of the first time that a service came into a phase."""
    places: dict[tuple[str, str], int] = {}
    for place, entry in enumerate(mesh.log_entries("registry")):
        if entry["event"] == "supervision":
            places.setdefault((entry["target"], entry["phase"]), place)
    return places


def first(mesh: Mesh, service: str, event: str) -> datetime:
    """When a service first logged an event."""
    return next(datetime.fromisoformat(e["timestamp"]) for e in mesh.log_entries(service) if e["event"] == event)


def test_every_contract_of_the_design_is_an_edge_of_the_graph(mesh: Mesh) -> None:
    assert required(mesh) >= {
        ("event_bus", "registry"),
        ("state_manager", "event_bus"),
        ("market_data", "event_bus"),
        ("sierra_client", "market_data"),
        ("paper_venue", "market_data"),
        ("risk_manager", "state_manager"),
        ("ai_brain", "market_data"),
        ("trading_engine", "risk_manager"),
        ("trading_engine", "paper_venue"),
    }


def test_no_process_is_started_before_what_it_requires_serves(mesh: Mesh) -> None:
    places = supervised(mesh)
    edges = [(low, high) for low, high in required(mesh) if high != "registry"]
    assert edges
    for dependent, dependency in edges:
        assert places[dependency, "SERVING"] < places[dependent, "STARTING"], f"{dependent} before {dependency}"


def test_the_services_own_logs_say_the_same_order(mesh: Mesh) -> None:
    for dependent, dependency in required(mesh):
        assert first(mesh, dependency, "service.serving") < first(mesh, dependent, "service.bound")


def test_each_service_began_exactly_once(mesh: Mesh) -> None:
    for service in SERVICES:
        assert [e["event"] for e in mesh.log_entries(service)].count("service.bound") == 1


def test_down_ends_dependents_first_and_leaves_nothing_and_up_begins_where_it_was(own: Mesh) -> None:
    own.up()
    assert len(processes_of(own.data_dir)) == len(SERVICES) + 1
    edges, address = required(own), own.registry
    said = own.down()
    assert "the mesh is down" in said
    own.assert_nothing_left()
    place = {(line.split()[2], line.split()[3]): n for n, line in enumerate(said.splitlines()) if " s  " in line}
    assert {service for service, phase in place if phase == "stopped"} == SERVICES - {"registry"}
    for dependent, dependency in edges:
        if dependency != "registry":
            assert place[dependent, "stopped"] < place[dependency, "stopping"]
    own.up()
    assert own.registry == address
    assert_a_stopped_service_is_told(own)
    own.down()
    own.assert_nothing_left()


def assert_a_stopped_service_is_told(mesh: Mesh) -> None:
    stub = mesh.stub(SupervisorServiceStub)
    steps = list(stub.StopService(supervisor_pb.StopServiceRequest(service="trading_engine")))
    assert steps[-1].progress.phase == supervisor_pb.SupervisionProgress.PHASE_STOPPED
    refused = mesh.run("orders").refused("does not run at the moment", "minhos status")
    assert len(refused.err.splitlines()) == 1, refused.err
    assert "all services that should run are HEALTHY" in mesh.ok("wait", "--timeout", "5")
    stopped = [service for service in mesh.json("status")["services"] if service["state"] == "STOPPED"]
    assert [(service["name"], service["instances"]) for service in stopped] == [("trading_engine", [])]


def test_a_service_that_cannot_start_is_told_with_the_end_of_its_log_and_nothing_is_left(own: Mesh) -> None:
    store = own.paths.store_file("paper_venue")
    store.parent.mkdir(parents=True)
    store.write_bytes(random.Random(1).randbytes(9_000))
    done = own.run("up", "--detach").refused("paper_venue", "the end of its log", str(store), "not a database")
    assert done.code == 1
    assert "trading_engine: is not started, for it requires paper_venue" in done.err
    assert processes_of(own.data_dir) == {}
    assert store.read_bytes() == random.Random(1).randbytes(9_000), "the broken file was touched"


def test_a_service_that_never_serves_is_told_within_its_deadline_and_nothing_is_left(own: Mesh) -> None:
    store = own.paths.store_file("risk_manager")
    store.parent.mkdir(parents=True)
    own.settings["MINHOS_REGISTRY__READY_DEADLINE_S"] = "1.5"
    own.settings["MINHOS_REGISTRY__STOP_DEADLINE_S"] = "1"  # it waits for the file for longer
    with closing(sqlite3.connect(store, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        done = own.run("up", "--detach").refused("risk_manager", "does not serve 1.5 s after its start")
    assert done.code == 1
    assert "trading_engine: is not started, for it requires risk_manager" in done.err
    assert processes_of(own.data_dir) == {}


def test_a_taken_port_is_told_before_anything_starts(own: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own.settings["MINHOS_MESH__PORT"] = str(port)
        own.run("up", "--detach").refused(f"127.0.0.1:{port}", "taken by another program")
        assert processes_of(own.data_dir) == {}
        taken.getsockname()  # it still listens: nobody took it over


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MINHOS_RISK__MAX_POSITON", "3", ("risk.max_positon", "was max_position meant?")),
        ("MINHOS_MESH__BIND", "0.0.0.0", ("mesh.bind", "loopback", "0.0.0.0")),
    ],
)
def test_a_wrong_setting_in_the_environment_is_told(own: Mesh, name: str, value: str, words: tuple[str, ...]) -> None:
    own.settings[name] = value
    own.run("up", "--detach").refused(*words)
    assert processes_of(own.data_dir) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[risk]\nmax_positon = 3\n", ("minhos.toml", "risk.max_positon", "was max_position meant?")),
        ("[risk\n", ("minhos.toml", "is not TOML")),
    ],
)
def test_a_mistake_in_minhos_toml_is_told(own: Mesh, text: str, words: tuple[str, ...]) -> None:
    own.home().joinpath("minhos.toml").write_text(text, encoding="utf-8")
    own.run("up", "--detach").refused(*words)
    assert processes_of(own.data_dir) == {}


def test_a_configuration_file_that_is_not_there_is_told(own: Mesh, tmp_path: Path) -> None:
    own.run("up", "--detach", "--config", str(tmp_path / "other.toml")).refused("other.toml", "no such file")
