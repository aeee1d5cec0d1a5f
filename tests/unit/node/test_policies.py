from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from minhos_mesh.node.connections import Connection
from minhos_mesh.node.ending import Ending
from minhos_mesh.node.exits import ExitLog
from minhos_mesh.node.record import KeeperRecord
from minhos_mesh.node.root import RootPolicy
from minhos_mesh.runtime import catalogue
from minhos_mesh.runtime.keeper_protocol import ProcessExit, ProcessInfo

if TYPE_CHECKING:
    from minhos_mesh.node.processes import ProcessTable


class FakeTable:
    """Processes that end when they are told to, unless they are deaf or dead to everything."""

    def __init__(self, *names: str, deaf: tuple[str, ...] = (), held: tuple[str, ...] = ()) -> None:
        self.living = {
            name: ProcessInfo(name, f"{name}-1", 10 + number, 1, 0, "", root=name == "registry")
            for number, name in enumerate(names)
        }
        self.deaf, self.held = deaf, held
        self.history: list[str] = []

    def infos(self) -> list[ProcessInfo]:
        return list(self.living.values())

    def terminate(self, info: ProcessInfo) -> None:
        self.history.append(f"terminate {info.service}")
        if info.service not in self.deaf + self.held:
            del self.living[info.service]

    def kill(self, info: ProcessInfo) -> None:
        self.history.append(f"kill {info.service}")
        if info.service not in self.held:
            del self.living[info.service]


class FakeConnection:
    """A client that takes everything, or is gone."""

    def __init__(self, *, gone: bool = False) -> None:
        self.closed = gone
        self.follows: str | None = None
        self.told: list[int] = []

    def send(self, message: dict[str, dict[str, int]]) -> bool:
        if not self.closed:
            self.told.append(message["exit"]["sequence"])
        return not self.closed


def ending(table: FakeTable, deadline_s: float = 10.0) -> Ending:
    return Ending(cast("ProcessTable", table), deadline_s, 0.0, lambda *_, **__: None)


def follow(log: ExitLog, name: str) -> FakeConnection:
    connection = FakeConnection()
    log.follow(cast("Connection", connection), name)
    return connection


def exited(log: ExitLog) -> ProcessExit:
    return ProcessExit(log.next_sequence(), "bus", "bus-1", 1, 0, None, 0, 0.0)


def test_the_registry_ends_after_all_others() -> None:
    table = FakeTable("registry", "bus", "market")
    end = ending(table)
    end.step(0.0)
    assert end.done
    assert table.history == ["terminate bus", "terminate market", "terminate registry"]


def test_what_does_not_end_is_killed_after_the_deadline_and_the_registry_waits_for_it() -> None:
    table = FakeTable("registry", "bus", deaf=("bus",))
    end = ending(table)
    end.step(9.9)
    assert table.history == ["terminate bus"]
    assert end.until == 10.0
    end.step(10.0)
    assert table.history == ["terminate bus", "kill bus"]
    end.step(10.1)
    assert end.done
    assert table.history[-1] == "terminate registry"
    assert end.stuck == []


def test_what_the_kernel_holds_is_named_and_holds_nobody_up() -> None:
    table = FakeTable("registry", "bus", held=("bus",))
    end = ending(table)
    for now in (0.0, 10.0, 15.0):
        end.step(now)
    assert end.done
    assert [info.service for info in end.stuck] == ["bus"]


def test_a_hurry_kills_at_once() -> None:
    table = FakeTable("registry", "bus", deaf=("bus", "registry"))
    end = ending(table)
    end.hurry(1.0)
    for _ in range(4):
        end.step(1.0)
    assert end.done
    assert table.history == ["terminate bus", "kill bus", "terminate registry", "kill registry"]


def test_the_registry_comes_back_at_once_then_later_and_later() -> None:
    root = RootPolicy("registry")
    pauses = []
    for _ in range(5):
        root.started()
        root.ended(lived_s=1.0, now=100.0)
        assert root.retry_at is not None
        pauses.append(root.retry_at - 100.0)
    assert pauses == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8])
    root.ended(lived_s=30.0, now=100.0)
    assert root.retry_at == 100.0


def test_a_named_follower_hears_what_it_missed_and_nothing_twice() -> None:
    record = KeeperRecord()
    log = ExitLog(record)
    log.add(exited(log))
    first = follow(log, "supervisor")
    log.add(exited(log))
    first.closed = True
    log.add(exited(log))
    assert first.told == [1, 2]
    assert follow(log, "supervisor").told == [3]
    assert follow(log, "").told == []
    assert record.heard == {"supervisor": 3}


def test_only_so_many_exits_are_kept() -> None:
    record = KeeperRecord()
    log = ExitLog(record)
    for _ in range(300):
        log.add(exited(log))
    assert [item.sequence for item in record.exits] == list(range(45, 301))
    last = log.last("bus")
    assert last is not None
    assert last.sequence == 300
    assert log.last("market") is None


def test_every_service_names_its_module_and_an_unknown_one_is_refused_with_the_known() -> None:
    assert catalogue.bootstrap_module("paper_venue") == "minhos_mesh.paper_venue.bootstrap"
    assert len(catalogue.service_names()) == 10
    assert catalogue.service_names()[0] == "registry"
    with pytest.raises(catalogue.UnknownService, match="there is no service 'nope'; known: registry, event_bus"):
        catalogue.bootstrap_module("nope")


def test_an_end_in_order_is_no_failure_and_followed_at_once() -> None:
    root = RootPolicy("registry")
    for _ in range(20):
        root.started()
        root.ended(lived_s=1.0, now=100.0, in_order=True)
        assert (root.failures, root.retry_at) == (0, 100.0)


def test_a_registry_that_ends_as_soon_as_it_runs_is_not_started_again_and_again_without_a_pause() -> None:
    root = RootPolicy("registry")
    for _ in range(3):
        root.ended(lived_s=0.1, now=100.0, in_order=True)
    assert root.failures == 3
    assert root.retry_at is not None
    assert root.retry_at > 100.0
