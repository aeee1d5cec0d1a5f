"""`minhos top`, `status` and `graph` before a person: what a terminal shows, and what it is like afterwards."""

from __future__ import annotations

import json

import pytest
from tests.e2e.running_mesh import SERVICES, Mesh
from tests.e2e.test_terminal import CTRL_C, terminal
from tests.waiting import freeze, thaw, until

pytestmark = pytest.mark.timeout(90)
NOT_WELL = 3


@pytest.mark.parametrize("key", [b"q", CTRL_C, b"\x1b"], ids=["q", "ctrl-c", "escape"])
def test_top_is_renewed_until_a_key_ends_it(mesh: Mesh, key: bytes) -> None:
    with terminal(mesh, "top") as top:
        top.read_until("UTC  10 services", "trading_engine +HEALTHY", r"\d+\.\d%", r"\d+ MB")
        shown = top.text.count("UTC")
        top.read_until(rf"(?s)(UTC.*){{{shown + 1}}}", within_s=10)
        top.type(key)
        assert top.wait(10) == 0
        assert "\x1b[?1049l" in top.raw.decode(), "the screen that was there before is there again"
        assert "Traceback" not in top.text


def test_top_prints_one_frame_for_a_script(mesh: Mesh) -> None:
    for arguments in (("top", "--once"), ("top",)):
        lines = mesh.ok(*arguments).splitlines()
        assert {line.split()[0] for line in lines[4:]} == SERVICES
    mesh.run("top", "--sort", "size").refused("--sort is 'size'", "name, cpu, memory, calls")


def test_graph_is_told_in_other_forms(mesh: Mesh) -> None:
    assert mesh.ok("graph", "--dot").startswith("digraph mesh {")
    assert mesh.ok("graph", "--mermaid").startswith("flowchart BT")
    mesh.run("graph", "--dot", "--json").refused("do not go together")


def test_status_tells_a_frozen_service_with_what_to_do_and_by_its_exit_code(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY")
    pid = mesh.pids()["paper_venue"]
    freeze(pid)
    try:

        def told() -> bool:
            done = mesh.run("status", "--json")
            states = {service["name"]: service for service in json.loads(done.out)["services"]}
            assert done.code in (0, NOT_WELL)
            found = states["paper_venue"]["state"], states["trading_engine"]["state"]
            return found == ("UNHEALTHY", "DEGRADED")

        until(told, "the venue is frozen", 8)
        done = mesh.run("status")
        assert done.code == NOT_WELL
        assert "trading_engine: needs paper_venue, which is UNHEALTHY" in done.out
        assert "-> Look at paper_venue first" in done.out
    finally:
        thaw(pid)
    until(mesh.healthy, "all HEALTHY again", 30)
