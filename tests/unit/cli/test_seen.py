"""What `status` and `top` show of a mesh, at the width of a narrow and of a wide terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from minhos_api.health.v1 import health_monitor_service_pb2 as monitor
from minhos_api.health.v1 import service_health_pb2 as health_pb
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_mesh.cli import seen, show, status, top

NOW = datetime(2026, 11, 22, 19, 30, tzinfo=UTC)
STATES = {name.removeprefix("SERVICE_STATE_"): value for name, value in health_pb.ServiceState.items() if value}


class Mesh:
    """The two answers that a view is made of."""

    def __init__(self) -> None:
        self.listed = registry.ListServicesResponse()
        self.health = monitor.GetMeshHealthResponse()

    def service(self, name: str, state: str = "HEALTHY", *, instances: int = 1, wanted: int = 1, **fields: Any) -> None:
        listed = self.listed.services.add(name=name, state=STATES[state], **fields)
        health = self.health.services.add(service=name, state=STATES[state], wanted_instances=wanted)
        for number in range(1, instances + 1):
            each = listed.instances.add(instance_id=f"{name}-{number}", service=name, address=f"127.0.0.1:4000{number}")
            each.pid, each.start_time.seconds = 1234567 + number, int(NOW.timestamp()) - 3_700
            each.use.cpu_percent, each.use.pss_bytes, each.use.rss_bytes = 12.34, 31_000_000, 90_000_000
            each.use.open_files, each.use.threads, each.use.cpu_seconds = 33, 9, 1.5
            listed.start_time.CopyFrom(each.start_time)
            health.instances.add(
                instance_id=each.instance_id, state=STATES[state], calls_in_flight=number, internal_errors=2
            )

    def fault(self, code: str, message: str, action: str) -> None:
        service, listed = self.health.services[-1], self.listed.services[-1]
        service.reasons.add(code=code, message=message, action=action)
        service.suggested_action = service.suggested_action or action
        listed.reasons.append(message)

    def seen(self) -> tuple[seen.SeenService, ...]:
        return seen.join(self.listed, self.health)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def text(made: RenderableType, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(made)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_status_says_what_runs_and_what_it_uses(mesh: Mesh) -> None:
    mesh.service("ai_brain", restarts=3)
    mesh.service("event_bus", "STOPPED", instances=0)
    head, brain, bus = text(seen.table(mesh.seen(), 80))
    assert head.split() == ["SERVICE", "STATE", "INST", "UPTIME", "RESTARTS", "CPU", "MEMORY", "PID"]
    assert brain.split()[:3] == ["ai_brain", "HEALTHY", "1"]
    assert brain.split()[-5:] == ["3", "12.3%", "31", "MB", "1234568"]
    assert bus.split() == ["event_bus", "STOPPED", "0", "-", "0", "-", "-", "-"]


def test_a_wide_terminal_is_shown_addresses_too(mesh: Mesh) -> None:
    mesh.service("ai_brain")
    assert text(seen.table(mesh.seen(), 160), 160)[1].endswith("127.0.0.1:40001")


def test_several_instances_have_a_row_each(mesh: Mesh) -> None:
    mesh.service("ai_brain", "DEGRADED", instances=2, wanted=3)
    lines = text(seen.table(mesh.seen(), 80))[1:]
    assert lines[0].split()[:3] == ["ai_brain", "DEGRADED", "2/3"]
    assert "24.7%" in lines[0]
    assert "62 MB" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert all(line.startswith("  ") for line in lines[1:])


@pytest.mark.parametrize(("width", "instances"), [(80, 1), (80, 3), (160, 3)])
def test_nothing_is_cut_off(mesh: Mesh, width: int, instances: int) -> None:
    for name in ("sierra_simulator", "trading_engine"):
        mesh.service(name, "UNHEALTHY", instances=instances, wanted=3, restarts=1_234)
    shown = text(seen.table(mesh.seen(), width), width)
    assert not [line for line in shown if "…" in line]
    assert max(map(len, shown)) <= width
    assert not [line for line in text(top.frame(mesh.seen(), "cpu", NOW, width), width) if "…" in line]


def test_what_is_wrong_stands_below_with_what_to_do_the_worst_first_and_the_same_once(mesh: Mesh) -> None:
    for name in ("ai_brain", "market_data"):
        mesh.service(name, "DEGRADED")
        mesh.fault("DEPENDENCY_DOWN", "needs event_bus, which is UNHEALTHY", "Look at event_bus first.")
    mesh.service("event_bus", "UNHEALTHY")
    mesh.fault("LEASE_EXPIRED", "the lease ran out", "Wait.")
    mesh.service("paper_venue", "STOPPED", instances=0)
    mesh.fault("NOT_WANTED", "paper_venue was not asked to run", "Nothing.")
    shown = seen.faults(mesh.seen())
    assert shown is not None
    assert text(shown) == [
        "event_bus: the lease ran out",
        "  -> Wait.",
        "ai_brain, market_data: needs event_bus, which is UNHEALTHY",
        "  -> Look at event_bus first.",
    ]


def test_nothing_stands_below_when_all_is_well(mesh: Mesh) -> None:
    mesh.service("ai_brain")
    mesh.service("event_bus", "STOPPED", instances=0)
    assert seen.faults(mesh.seen()) is None


def test_status_of_a_service_without_an_instance_has_every_key_as_json() -> None:
    listed = registry.ListServicesResponse()
    listed.services.add(name="ai_brain", state=STATES["STOPPED"], errors=["ended with code 1"])
    (found,) = (seen.service_dict(service) for service in seen.join(listed))
    assert (found["state"], found["instances"], found["errors"]) == ("STOPPED", [], ["ended with code 1"])
    assert found["start_time"] is None
    assert {"faults", "suggested_action", "restarts", "contracts", "depends_on", "wanted_instances"} <= set(found)


def test_json_has_what_each_instance_uses(mesh: Mesh) -> None:
    mesh.service("ai_brain", "DEGRADED")
    mesh.fault("NO_TICKS", "no tick", "Look.")
    found = seen.service_dict(mesh.seen()[0])
    assert found["faults"] == [{"code": "NO_TICKS", "message": "no tick", "suggested_action": "Look."}]
    assert found["suggested_action"] == "Look."
    (instance,) = found["instances"]
    assert instance["pid"] == 1234568
    assert (instance["cpu_percent"], instance["cpu_seconds"]) == (12.34, 1.5)
    assert (instance["pss_bytes"], instance["rss_bytes"]) == (31_000_000, 90_000_000)
    assert (instance["open_files"], instance["threads"]) == (33, 9)
    assert (instance["calls_in_flight"], instance["internal_errors"]) == (1, 2)
    assert instance["start_time"] == "2026-11-22T18:28:20+00:00"


def test_what_is_not_known_is_absent_and_never_zero() -> None:
    listed = registry.ListServicesResponse()
    service = listed.services.add(name="x", state=STATES["HEALTHY"])
    service.instances.add(instance_id="x-1", address="127.0.0.1:1")
    (found,) = seen.join(listed)
    (instance,) = seen.service_dict(found)["instances"]
    assert {instance[key] for key in ("pid", "cpu_percent", "pss_bytes", "rss_bytes", "open_files", "threads")} == {
        None
    }
    assert text(seen.table([found], 80))[1].split() == ["x", "HEALTHY", "1", "-", "0", "-", "-", "-"]


def test_memory_is_a_dash_until_the_share_of_every_instance_is_known(mesh: Mesh) -> None:
    mesh.service("x", instances=2)
    mesh.listed.services[0].instances[0].use.ClearField("pss_bytes")
    (found,) = mesh.seen()
    assert found.memory_bytes is None
    service, first, second = text(seen.table([found], 80))[1:]
    assert [line.split()[-2:] for line in (service, first)] == [["24.7%", "-"], ["-", "1234568"]]
    assert second.split()[-3:] == ["31", "MB", "1234569"]
    assert text(top.frame([found], "memory", NOW, 80))[4].split()[:5] == ["x", "HEALTHY", "3", "24.7%", "-"]


def test_a_process_that_is_only_watched_has_a_dash_for_an_address(mesh: Mesh) -> None:
    mesh.service("exporter")
    mesh.listed.services[0].instances[0].address = ""
    (found,) = mesh.seen()
    assert text(seen.table([found], 160), 160)[1].split()[-2:] == ["1234568", "-"]
    (instance,) = seen.service_dict(found)["instances"]
    assert instance["address"] is None
    assert "-" in [str(cell) for cell in status._row(found, NOW.timestamp())]


def test_top_counts_the_states_and_sums_what_is_used(mesh: Mesh) -> None:
    mesh.service("ai_brain")
    mesh.service("event_bus", "UNHEALTHY")
    mesh.service("market_data")
    shown = text(top.frame(mesh.seen(), "name", NOW, 80))
    assert shown[0] == "19:30:00 UTC  3 services  CPU 37.0%  PSS 93 MB"
    assert shown[1] == "2 HEALTHY, 1 UNHEALTHY"
    assert shown[3].split()[:8] == ["SERVICE", "STATE", "CALLS", "CPU", "PSS", "FILES", "THREADS", "ERRORS"]
    assert shown[4].split() == ["ai_brain", "HEALTHY", "1", "12.3%", "31", "MB", "33", "9", "2", "0"]


def test_top_shows_when_each_process_began_where_it_is_wide(mesh: Mesh) -> None:
    mesh.service("ai_brain", instances=2)
    shown = text(top.frame(mesh.seen(), "name", NOW, 160), 160)
    assert shown[3].split()[-2:] == ["RESTARTS", "UPTIME"]
    assert all(line.endswith("1h 1m") for line in shown[4:7])


@pytest.mark.parametrize(("sort", "order"), [("name", "abc"), ("cpu", "cab"), ("memory", "bca"), ("calls", "abc")])
def test_top_is_sorted_as_asked(mesh: Mesh, sort: str, order: str) -> None:
    for name, cpu, memory in (("a", 2.0, 1), ("b", 1.0, 3), ("c", 3.0, 2)):
        mesh.service(name)
        use = mesh.listed.services[-1].instances[0].use
        use.cpu_percent, use.pss_bytes = cpu, memory * 10**6
    shown = text(top.frame(mesh.seen(), sort, NOW, 80))[4:7]
    assert "".join(line[0] for line in shown) == order


@pytest.mark.parametrize(
    ("count", "told"),
    [(None, "-"), (0, "0 MB"), (31_400_000, "31 MB"), (999_000_000, "999 MB"), (2_340_000_000, "2.3 GB")],
)
def test_sizes(count: int | None, told: str) -> None:
    assert show.size(count) == told
