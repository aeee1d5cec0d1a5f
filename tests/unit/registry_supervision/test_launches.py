"""What the configuration says of a service, as the supervisor takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.registry.domain.supervision import Replacement, Restart
from minhos_mesh.registry.launches import ServiceRules, rules_of
from minhos_mesh.registry.mesh_services import planned_services, specs_of
from minhos_mesh.registry.plan import make_plan
from minhos_mesh.runtime import catalogue
from minhos_mesh.runtime.config import ConfigError, load
from minhos_mesh.runtime.paths import MeshPaths

ACME: dict[str, Any] = {"command": ["/opt/acme", "serve"], "needs": ["market_data"]}


def rules(folder: Path, **services: dict[str, Any]) -> ServiceRules:
    return rules_of(load(None, environment={}, overrides={"services": services}), MeshPaths(folder))


def refused(**services: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, environment={}, overrides={"services": services})
    return str(caught.value)


def test_every_service_of_the_program_hands_over(tmp_path: Path) -> None:
    made = rules(tmp_path)
    names = [name for name in catalogue.service_names() if name != catalogue.REGISTRY]
    assert {made.policies[name].replacement for name in names} == {Replacement.HAND_OVER}
    assert {made.instances[name] for name in names} == {1}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, Replacement.OVERLAP),
        ({"single_owner": True}, Replacement.HAND_OVER),
        ({"attaches": False}, Replacement.STOP_FIRST),
    ],
)
def test_a_program_is_replaced_as_it_says_of_itself(
    tmp_path: Path, section: dict[str, Any], expected: Replacement
) -> None:
    assert rules(tmp_path, acme={**ACME, **section}).policies["acme"].replacement is expected


def test_each_service_has_its_own_times_and_those_of_the_registry_otherwise(tmp_path: Path) -> None:
    own = {
        "restart": "on-failure",
        "backoff_first_s": 1,
        "backoff_max_s": 5,
        "backoff_reset_s": 60,
        "crash_loop_after": 2,
        "ready_deadline_s": 3,
        "stop_deadline_s": 4,
        "liveness_deadline_s": 6,
    }
    made = rules(tmp_path, ai_brain=own)
    brain, bus = made.policies["ai_brain"], made.policies["event_bus"]
    assert (brain.restart, brain.backoff.first, brain.backoff.limit) == (Restart.ON_FAILURE, 1, 5)
    assert (brain.healthy_after, brain.crash_loop_after) == (60, 2)
    assert (brain.ready_deadline, brain.stop_deadline, brain.liveness_deadline) == (3, 4, 6)
    assert (bus.ready_deadline, bus.stop_deadline, bus.liveness_deadline) == (15, 10, 10)


def test_a_program_is_started_by_its_command_line_and_told_where_the_mesh_is(tmp_path: Path) -> None:
    paths = MeshPaths(tmp_path)
    paths.create()
    paths.mesh_file.write_text(json.dumps({"address": "127.0.0.1:4711"}))
    made = rules(tmp_path, acme={**ACME, "environment": {"COLOUR": "blue"}})
    launch = made.launches("acme", "acme-7")
    assert launch.argv == ("/opt/acme", "serve")
    assert launch.environment is not None
    assert launch.environment["COLOUR"] == "blue"
    assert launch.environment["MINHOS_REGISTRY"] == "127.0.0.1:4711"
    assert launch.environment["MINHOS_INSTANCE_ID"] == "acme-7"
    bootstrap = json.loads(launch.environment["GRPC_XDS_BOOTSTRAP_CONFIG"])
    assert bootstrap["xds_servers"][0]["server_uri"] == "127.0.0.1:4711"
    assert made.launches("event_bus", "event_bus-1").argv is None


def test_a_program_is_in_the_plan_behind_what_it_needs() -> None:
    config = load(None, environment={}, overrides={"services": {"acme": ACME, "tail": {**ACME, "needs": ["acme"]}}})
    plan = make_plan(specs_of(planned_services(config), config))
    assert plan.required("acme") == {"market_data"}
    assert plan.required("tail") == {"acme"}
    order = plan.services
    assert order.index("market_data") < order.index("acme") < order.index("tail")


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"acme": {"instances": 2}}, ["services.acme.command is missing", "its command line is needed"]),
        ({"ai_brain": {"instances": 2}}, ["services.ai_brain.instances is 2", "allowed is 1", "series of its signals"]),
        ({"ai_brain": {"command": ["x"]}}, ["services.ai_brain.command is for programs of your own"]),
        ({"registry": {"restart": "never"}}, ["the registry is kept by the keeper"]),
        ({"acme": {**ACME, "instances": 17}}, ["services.acme.instances is 17", "16"]),
        ({"acme": {**ACME, "instances": 2, "single_owner": True}}, ["instances is 2", "single_owner"]),
        ({"acme": {**ACME, "single_owner": True, "attaches": False}}, ["single_owner", "attaches is true"]),
        ({"acme": {**ACME, "needs": ["nobody"]}}, ["services.acme.needs names 'nobody'", "market_data"]),
        ({"acme": {**ACME, "needs": ["acme"]}}, ["services.acme.needs names 'acme'"]),
        ({"Acme": ACME}, ["services.Acme", "lower-case letters"]),
        ({"acme": {**ACME, "comand": ["x"]}}, ["services.acme.comand is no key", "was command meant?"]),
        ({"acme": {**ACME, "restart": "often"}}, ["services.acme.restart is 'often'", "'on-failure'"]),
        ({"acme": {**ACME, "backoff_max_s": 0.01}}, ["backoff_max_s is 0.01", "backoff_first_s (0.1) or more"]),
        ({"acme": {**ACME, "environment": {"A B": "x"}}}, ["environment.A B"]),
        ({"acme": {"command": ["x", ""]}}, ["command has an empty part"]),
    ],
)
def test_a_mistake_in_the_table_of_a_service_is_told_with_what_is_allowed(
    services: dict[str, Any], words: list[str]
) -> None:
    told = refused(**services)
    assert [word for word in words if word not in told] == [], told
