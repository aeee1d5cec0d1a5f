from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.e2e.running_mesh import SERVICES, STATES, Mesh
from tests.waiting import alive, until

from minhos_mesh.runtime.contracts import all_contracts

pytestmark = pytest.mark.timeout(90)


def test_status_prints_the_promised_json_with_all_ten_services_healthy(mesh: Mesh) -> None:
    until(mesh.healthy, "all HEALTHY")
    found = mesh.json("status")
    services: list[dict[str, Any]] = found["services"]
    assert {service["name"] for service in services} == SERVICES
    assert len(SERVICES) == 10
    for service in services:
        assert service["state"] in STATES
        assert service["state"] == "HEALTHY", service
        # A busy machine may have been late with a heartbeat, which is told and not to be blamed on the service.
        assert [error for error in service["errors"] if "its lease ran out" not in error] == []
        assert isinstance(service["contracts"], list)
        assert set(service["depends_on"]) <= SERVICES
        (instance,) = service["instances"]
        assert isinstance(instance["id"], str)
        assert instance["address"].startswith("127.0.0.1:")
        assert alive(instance["pid"])
    assert {c for service in services for c in service["contracts"]} == set(all_contracts())


def test_status_for_people_names_every_service_with_its_state(mesh: Mesh) -> None:
    lines = mesh.ok("status").splitlines()
    assert {line.split()[0] for line in lines[1:]} == SERVICES
    assert all(line.split()[1] == "HEALTHY" for line in lines[1:])


def test_each_service_is_its_own_process(mesh: Mesh) -> None:
    assert len(set(mesh.pids().values())) == len(SERVICES)


def test_ports_name_the_address_of_every_service(mesh: Mesh) -> None:
    found = mesh.json("ports")
    assert found["registry"] == mesh.registry
    assert {name: addresses[0] for name, addresses in found["services"].items()} == mesh.addresses()
    assert mesh.addresses()["event_bus"] in mesh.ok("ports")


def test_graph_has_every_dependency_below_its_dependent(mesh: Mesh) -> None:
    found = mesh.json("graph")
    level = {node["name"]: node.get("level", 0) for node in found["nodes"]}
    assert set(level) == SERVICES
    assert found["edges"]
    for edge in found["edges"]:
        assert level[edge["to_service"]] < level[edge["from_service"]], edge
    people = mesh.ok("graph")
    assert "needs event_bus, market_data" in people
    assert "(optional)" in people


def test_wait_returns_when_everything_is_healthy(mesh: Mesh) -> None:
    assert "HEALTHY" in mesh.ok("wait", "--timeout", "30")


def test_tail_stops_after_count_lines(mesh: Mesh) -> None:
    assert len(mesh.ok("tail", "events", "--count", "2").splitlines()) == 2
    (line,) = mesh.ok("tail", "events", "--count", "1", "--json").splitlines()
    assert {"event_id", "type", "sequence", "payload"} <= set(json.loads(line))


def test_tail_of_the_order_book_shows_ten_levels_within_eighty_columns(mesh: Mesh) -> None:
    head, columns, *levels = mesh.ok("tail", "depth", "--count", "1").strip().splitlines()
    assert head.startswith("NQ")
    assert re.search(r"spread \d+\.\d\d  ", head), head
    assert columns.split() == ["ORDERS", "SIZE", "BID", "│", "ASK", "SIZE", "ORDERS"]
    assert (len(levels), max(map(len, (head, columns, *levels))) <= 80) == (10, True)
    book = json.loads(mesh.ok("tail", "depth", "--count", "1", "--json"))
    assert (len(book["bids"]), len(book["asks"])) == (10, 10)


def test_tail_of_the_market_shows_the_primary_symbol_and_its_provenance(mesh: Mesh) -> None:
    (line,) = mesh.ok("tail", "market", "--count", "1").splitlines()
    assert "NQ" in line
    assert "SIMULATED" in line


def test_logs_are_lines_of_json_and_read_well(mesh: Mesh) -> None:
    for service in SERVICES:
        assert all({"event", "level", "timestamp", "service"} <= set(entry) for entry in mesh.log_entries(service))
    raw = mesh.ok("logs", "market_data", "--json", "-n", "3").splitlines()
    assert len(raw) == 3
    assert all({"event", "level", "timestamp"} <= set(json.loads(line)) for line in raw)
    (line,) = mesh.ok("logs", "keeper", "-n", "1").splitlines()
    assert "{" not in line
    assert line[2] == line[5] == ":"


def test_no_service_logged_an_error_or_wrote_to_its_standard_error(mesh: Mesh) -> None:
    for service in SERVICES:
        assert [e for e in mesh.log_entries(service) if e["level"] in {"error", "critical"}] == []
        written = mesh.paths.log_dir.joinpath(f"{service}.stderr.log").read_text(encoding="utf-8").splitlines()
        # A busy machine may be late with a ping, which gRPC itself remarks on.
        assert [line for line in written if not line.startswith("I") or "goaway" not in line] == []


def test_an_order_by_hand_is_filled_and_shown_with_its_whole_id(mesh: Mesh) -> None:
    placed = mesh.json("order", "place", "buy", "1", "--request-id", "by-hand-1")
    assert placed["terms"]["quantity"] == "1"
    assert all(check["passed"] for check in placed["checks"])

    def filled() -> dict[str, Any] | None:
        found = mesh.json("orders", "--count", "100")["orders"]
        return next(
            (o for o in found if o["order_id"] == placed["order_id"] and o["state"] == "ORDER_STATE_FILLED"), None
        )

    order = until(filled, "the order is filled")
    assert order["filled_quantity"] == "1"
    assert order["provenance"] == "PROVENANCE_SIMULATED"
    shown = mesh.ok("orders", "--count", "100")
    assert placed["order_id"] in shown
    assert "FILLED" in shown


def state_of(mesh: Mesh, order_id: str) -> str:
    orders = mesh.json("orders", "--count", "1000")["orders"]
    return str(next(order["state"] for order in orders if order["order_id"] == order_id))


def test_the_same_request_id_is_never_placed_twice(mesh: Mesh) -> None:
    first = mesh.json("order", "place", "sell", "1", "--request-id", "by-hand-2")
    again = mesh.json("order", "place", "sell", "1", "--request-id", "by-hand-2")
    assert again["order_id"] == first["order_id"]
    known = [o for o in mesh.json("orders", "--count", "1000")["orders"] if o["request_id"] == "by-hand-2"]
    assert len(known) == 1


def test_an_order_whose_outcome_is_known_is_settled_by_nobody(mesh: Mesh) -> None:
    placed = mesh.json("order", "place", "buy", "2", "--request-id", "by-hand-3")
    until(lambda: state_of(mesh, placed["order_id"]) == "ORDER_STATE_FILLED", "the order is filled")
    settle = ("order", "settle", placed["order_id"], "--canceled", "--reason", "a drill")
    mesh.run(*settle).refused("no order of the paper venue is ever UNKNOWN", "ORDER_STATE")
    mesh.run("order", "settle", placed["order_id"], "--reason", "a drill").refused("say what became of the order")


def test_a_far_limit_order_works_until_it_is_cancelled(mesh: Mesh) -> None:
    quote = json.loads(mesh.ok("tail", "market", "--count", "1", "--json"))
    price = int(quote["last_price_e9"]) // 10**9 - 50
    placed = mesh.json("order", "place", "buy", "1", "--limit", str(price))
    until(lambda: state_of(mesh, placed["order_id"]) == "ORDER_STATE_WORKING", "the order works")
    assert placed["order_id"] in mesh.ok("order", "cancel", placed["order_id"])
    until(lambda: state_of(mesh, placed["order_id"]) == "ORDER_STATE_CANCELED", "the order is cancelled")
    assert "CANCELED" in mesh.ok("order", "cancel", placed["order_id"])


def test_positions_show_profit_and_loss_in_decimals(mesh: Mesh) -> None:
    found = until(lambda: mesh.json("positions")["positions"], "something was traded")
    assert {"symbol", "quantity", "realized_pnl_e9", "commission_e9", "multiplier_e9"} <= set(found[0])
    said = mesh.ok("positions")
    assert found[0]["symbol"] in said
    assert "realized" in said


def test_mode_is_full_auto_on_simulated_data_and_can_be_changed(mesh: Mesh) -> None:
    assert mesh.json("mode")["mode"] == "TRADING_MODE_FULL_AUTO"
    try:
        assert mesh.json("mode", "manual", "--reason", "a test")["mode"] == "TRADING_MODE_MANUAL"
        assert "MANUAL" in mesh.ok("mode")
    finally:
        mesh.ok("mode", "full_auto")
    mesh.run("mode", "sometimes").refused("sometimes", "MANUAL, SEMI_AUTO, FULL_AUTO")


def test_halt_stops_orders_until_resume(mesh: Mesh) -> None:
    try:
        assert mesh.json("halt", "--reason", "lunch")["state"] == "TRADING_STATE_HALTED"
        mesh.run("order", "place", "buy", "1").refused("HALTED", "lunch", "TRADING_HALTED")
    finally:
        assert mesh.json("resume", "--reason", "back")["state"] == "TRADING_STATE_ACTIVE"


def test_emergency_stop_flattens_and_holds_until_it_is_cleared(mesh: Mesh) -> None:
    try:
        mesh.ok("emergency-stop", "--flatten", "--reason", "a drill")
        assert mesh.json("mode")["emergency_stop"]["latched"] is True
        mesh.run("order", "place", "buy", "1").refused("a drill")
        until(lambda: all(p.get("quantity", "0") == "0" for p in mesh.json("positions")["positions"]), "all is flat")
    finally:
        mesh.ok("emergency-stop", "--clear", "--reason", "the drill is over")
        mesh.ok("resume", "--reason", "the drill is over")
    assert not mesh.json("mode")["emergency_stop"].get("latched", False)
