"""Whether the server that answers is the one that has the orders."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from minhos_mesh.sierra_client.venue.views import Server, other_server

HERE, THERE = "192.168.1.20:11099", "192.168.1.21:11099"
REAL = Server(account="U-1", simulated=False, live=True, name="SierraChart 2600", address=HERE)
SIM = replace(REAL, account="Sim1")
OURS = Server(account="Sim1", simulated=True, live=False, name="MinhOS Sierra Simulator", address=HERE)


@pytest.mark.parametrize("server", [REAL, SIM, OURS])
@pytest.mark.parametrize("changed", [{}, {"name": "SierraChart 2601"}, {"live": False}])
def test_same_server_is_known_again_also_in_a_later_version(server: Server, changed: dict[str, Any]) -> None:
    if server is OURS and "name" in changed:
        changed = {"name": "MinhOS Sierra Simulator 2"}
    assert other_server(server.identity, replace(server, **changed), "", "") == ""


@pytest.mark.parametrize(
    ("server", "changed"),
    [
        (REAL, {"account": "U-2"}),
        (REAL, {"account": "Sim1"}),
        (REAL, {"name": "Other Broker"}),
        (SIM, {"address": THERE}),
        (SIM, {"simulated": True}),
        (OURS, {"simulated": False}),
    ],
)
def test_other_server_or_account_is_told_with_what_is_open_and_both_ways_out(
    server: Server, changed: dict[str, Any]
) -> None:
    said = other_server(server.identity, replace(server, **changed), "", "2 open orders")
    assert ", with 2 open orders, and what answers is " in said
    assert repr(server.account) in said
    assert "nothing is compared or sent" in said
    assert "in [dtc]" in said
    assert "`minhos up --data-dir ANOTHER_FOLDER`" in said
    assert ("dtc.formerly" in said) == ("address" in changed), "only who has moved can be the same"


@pytest.mark.parametrize("server", [REAL, OURS])
def test_real_account_and_the_simulator_may_be_reached_at_another_address(server: Server) -> None:
    assert other_server(server.identity, replace(server, address=THERE), "", "") == ""


def test_simulation_that_has_moved_is_the_same_once_that_is_declared() -> None:
    moved = replace(SIM, address=THERE)
    assert f'set dtc.formerly = "{HERE}"' in other_server(SIM.identity, moved, "", "")
    assert other_server(SIM.identity, moved, HERE, "") == ""
    assert other_server(SIM.identity, moved, "192.168.1.99:11099", "")


def test_what_an_earlier_version_has_kept_is_compared_as_far_as_it_goes() -> None:
    kept = json.dumps({"account": "Sim1", "simulator": False})
    assert other_server(kept, SIM, "", "") == ""
    assert "Sierra Chart, account 'Sim1', and what answers is Sierra Chart, account 'Sim2'" in other_server(
        kept, replace(SIM, account="Sim2"), "", ""
    )
