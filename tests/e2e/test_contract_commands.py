"""`minhos contract` with a running mesh: what live dependents were built with counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tests.e2e.running_mesh import Mesh

from minhos_mesh.runtime.contracts import all_contracts, built_with, load_all, whole_set

pytestmark = pytest.mark.timeout(90)
RISK = "minhos_api.risk.v1.RiskManagerService"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The contracts of the risk manager, with the first field of a question gone."""
    load_all()
    files = descriptor_pb2.FileDescriptorSet.FromString(built_with([RISK]))
    (message,) = [m for f in files.file for m in f.message_type if m.name == "CheckTradeRequest"]
    del message.field[0]
    path = tmp_path / "broken.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def test_a_break_names_the_running_instance_that_it_would_harm(mesh: Mesh, broken: Path) -> None:
    done = mesh.run("contract", "check", str(broken), "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert found["mesh_runs"] is True
    assert {v["rule"] for v in found["violations"]} == {
        "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
    }
    (harmed,) = {name for v in found["violations"] for name in v["consumers"]}
    assert harmed.startswith("trading_engine/")
    people = mesh.run("contract", "check", str(broken))
    assert people.code == 1
    assert "refused: it breaks 2 promises" in people.out


def test_what_runs_breaks_nothing_of_itself(mesh: Mesh, tmp_path: Path) -> None:
    load_all()
    image = tmp_path / "whole.binpb"
    image.write_bytes(whole_set())
    assert "admitted: it breaks nothing" in mesh.ok("contract", "check", str(image))
    assert "admitted: it breaks nothing" in mesh.ok("contract", "check", mesh.addresses()["risk_manager"])


def test_every_contract_has_a_server_and_every_dependency_a_consumer(mesh: Mesh) -> None:
    listed = {each["name"]: each for each in mesh.json("contract", "list")["contracts"]}
    assert set(listed) == set(all_contracts())
    for name, entry in listed.items():
        assert entry["servers"], name
        assert {server["build"] for server in entry["servers"]} == {entry["build"]}, name
    assert "trading_engine" in {each["service"] for each in listed[RISK]["consumers"]}


def test_a_contract_is_shown_with_what_its_server_was_made_with(mesh: Mesh) -> None:
    people = mesh.ok("contract", "show", "IRiskManager")
    assert "served by risk_manager/" in people
    assert "generator grpcio-tools" in people
    assert "needed by trading_engine/" in people


def test_the_versions_of_every_instance_are_in_the_status(mesh: Mesh) -> None:
    for service in mesh.json("status")["services"]:
        for instance in service["instances"]:
            assert {"python", "grpcio", "protobuf", "generator"} <= instance["versions"].keys()
