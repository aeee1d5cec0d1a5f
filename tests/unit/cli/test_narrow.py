"""What is wider than a terminal: columns go whole, and what they said stands below."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from minhos_api.health.v1 import service_health_pb2
from minhos_api.registry.v1 import contract_service_pb2 as contracts
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_api.registry.v1 import route_service_pb2 as routes
from minhos_mesh.cli import contract_check, contract_show, live, logs, narrow, routing, show
from minhos_mesh.cli.contract_source import own
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.compatibility.described import entry_of
from minhos_mesh.runtime import config
from minhos_mesh.runtime.paths import MeshPaths

ORDER = "minhos_api.trading.v1.OrderUpdated.order"
Draw = Callable[[RenderableType, int], str]


@pytest.fixture
def draw() -> Draw:
    def drawn(what: RenderableType, width: int) -> str:
        console = Console(file=io.StringIO(), width=width)
        console.print(what)
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert "…" not in text, text
        assert all(len(line.rstrip()) <= width for line in text.splitlines()), text
        return text

    return drawn


def test_columns_are_left_out_one_by_one_until_a_row_fits() -> None:
    rows = [("a" * 10, "b" * 10, "c" * 10)]
    assert narrow.fitting(("A", "B", "C"), rows, 34, ("C", "B"))[0] == ["A", "B", "C"]
    assert narrow.fitting(("A", "B", "C"), rows, 33, ("C", "B"))[0] == ["A", "B"]
    assert narrow.fitting(("A", "B", "C"), rows, 12, ("C", "B")) == (["A"], [["a" * 10]])


def test_a_violation_is_a_block_where_no_row_fits(draw: Draw) -> None:
    violation = contracts.ContractViolation(
        rule="FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
        file="minhos_api/trading/v1/trading_events.proto",
        element=ORDER,
        old="order = 1",
        new="gone, number 1 not reserved",
        consumers=["risk_manager/risk_manager-1"],
    )
    text = draw(contract_check.violations_shown([violation], 80), 80)
    for part in (
        violation.rule,
        ORDER,
        "order = 1 -> gone, number 1",
        "harms risk_manager/risk_manager-1",
        "events.proto",
    ):
        assert part in text
    assert "RULE" in draw(contract_check.violations_shown([violation], 250), 250)


@pytest.mark.parametrize("width", [80, 120, 160, 300])
def test_all_contracts_fit_every_terminal(width: int, draw: Draw) -> None:
    known = own().set
    entries = [entry_of(known, name) for name in known.services]
    for entry in entries:
        entry.servers.add(service="trading_engine", instance_id="trading_engine-1")
        for service in ("risk_manager", "state_manager", "ai_brain", "paper_venue"):
            entry.consumers.add(service=service, instance_id="1")
    text = draw(contract_show.contracts_table(entries, width), width)
    assert "TradingEngineService" in text
    assert "trading_engine" in text


def route() -> routes.Route:
    v2 = routes.InstanceSelector(version="v2")
    rule = routing.make_rule([("v2", 10)], [], [], strict=False)
    return routes.Route(
        contract="minhos_api.risk.v1.RiskManagerService",
        current=routes.RouteRevision(revision=3, rule=rule),
        selectors=[routes.SelectorState(selector=v2, instances=["risk_manager/a-long-name", "risk_manager/another"])],
        notes=["nobody of version v2 serves now, so that its calls go to all others"],
    )


@pytest.mark.parametrize("width", [80, 160, 300])
def test_the_note_of_a_route_is_told_in_every_width(width: int, draw: Draw) -> None:
    text = " ".join(draw(routing.routes_shown([route()], width), width).split())
    assert "nobody of version v2 serves now, so that its calls go to all others" in text
    assert "risk_manager/another" in text
    assert ("NOTE" in text) is (width == 300)


def test_the_screen_of_a_running_mesh_leaves_out_whole_columns(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = registry.ListServicesResponse()
    service = listed.services.add(
        name="sierra_simulator",
        state=service_health_pb2.SERVICE_STATE_DEGRADED,
        reasons=["it cannot write its file since the disk is full and nobody has made room on it yet"],
    )
    service.instances.add(instance_id="sierra_simulator-1", address="127.0.0.1:40000", pid=1234567)
    for width, there in ((80, False), (200, True)):
        monkeypatch.setattr(show.out, "width", width)
        text = draw(live.Screen(services=listed).render(), width)
        assert "UPTIME" in text
        assert "RESTARTS" in text
        assert ("ADDRESS" in text) is there
        assert "the disk is full" in text


def test_a_name_of_a_contract_is_not_called_a_service() -> None:
    told = "there is no service 'Foo'; known: risk_manager"
    assert "no contract 'Foo'" in routing.unknown_text("Foo", told)
    assert routing.unknown_text("foo", told).startswith("there is no service or contract")


async def test_logs_of_a_program_of_ones_own_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = MeshPaths(tmp_path)
    paths.create()
    paths.log_file("acme").write_text("hello\n", encoding="utf-8")
    await logs.logs(paths, "acme", 5, follow=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["hello"]


async def test_a_program_of_the_configuration_is_known_before_its_first_line(tmp_path: Path) -> None:
    paths = MeshPaths(tmp_path)
    paths.create()
    table = tmp_path / "minhos.toml"
    table.write_text('[services.acme]\ncommand = ["/bin/true"]\n', encoding="utf-8")
    config.save(config.load(table, environment={}).resolved(datetime(2026, 11, 22, tzinfo=UTC)), paths.config_file)
    with pytest.raises(CommandFailed, match="acme has not logged anything"):
        await logs.logs(paths, "acme", 5, follow=False, as_json=False)
    with pytest.raises(CommandFailed, match="there is no service '../run/mesh'"):
        await logs.logs(paths, "../run/mesh", 5, follow=False, as_json=False)


async def test_a_program_without_a_log_shows_what_it_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = MeshPaths(tmp_path)
    paths.create()
    paths.log_file("acme.stderr").write_text("boom\n", encoding="utf-8")
    await logs.logs(paths, "acme", 5, follow=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["boom"]
