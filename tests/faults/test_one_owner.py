"""Two processes of a service that owns its store alone: one serves, the other stands by; a frozen one comes back to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.e2e.running_mesh import environment
from tests.waiting import freeze, thaw, until

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.health.v1.health_events_pb2 import ServiceUnhealthy
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.runtime import config
from minhos_mesh.runtime.host import EXIT_FAILED, EXIT_FENCED_OUT
from minhos_mesh.runtime.paths import MeshPaths, registry_address

pytestmark = pytest.mark.timeout(90)


class ByHand:
    """A registry and processes of the event bus, each started by hand: no keeper and no supervisor stands over them."""

    def __init__(self, data_dir: Path) -> None:
        self.paths = MeshPaths(data_dir)
        self.paths.create()
        config.save(config.load(None, environment={}).resolved(datetime.now(UTC)), self.paths.config_file)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str, instance_id: str) -> None:
        self.processes[instance_id] = subprocess.Popen(
            [
                *(sys.executable, "-m", "minhos_mesh.runtime.host", service),
                *("--data-dir", str(self.paths.data_dir), "--instance-id", instance_id),
            ],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def registry(self, instance_id: str = "registry-1") -> None:
        self.start("registry", instance_id)
        until(self.listed, "the registry answers")

    def listed(self) -> dict[str, registry_pb.Service]:
        address = registry_address(self.paths)
        if address is None:
            return {}
        try:
            with grpc.insecure_channel(address) as channel:
                listed = RegistryServiceStub(channel).ListServices(registry_pb.ListServicesRequest(), timeout=2)
        except grpc.RpcError:
            return {}
        return {service.name: service for service in listed.services}

    def bus(self) -> dict[str, str]:
        """The instances of the event bus that get calls, with their addresses."""
        services = self.listed()
        if "event_bus" not in services:
            return {}
        return {i.instance_id: i.address for i in services["event_bus"].instances if i.in_rotation}

    def log(self, instance_id: str) -> list[dict[str, Any]]:
        try:
            text = self.paths.log_file("event_bus").read_text(encoding="utf-8")
        except OSError:
            return []
        return [entry for line in text.splitlines() if (entry := json.loads(line))["instance"] == instance_id]

    def events_of(self, instance_id: str) -> list[str]:
        return [entry["event"] for entry in self.log(instance_id)]

    def end(self) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                thaw(process.pid)
                process.kill()
            process.wait(timeout=10)


def publish(address: str) -> int:
    """Publishes one event there; returns its sequence."""
    now = Timestamp()
    now.GetCurrentTime()
    event = event_pb2.Event(event_id=str(uuid.uuid4()), type="service.unhealthy", version=1, source="t", subject="s")
    event.event_time.CopyFrom(now)
    event.payload.Pack(ServiceUnhealthy(service="nobody"))
    with grpc.insecure_channel(address) as channel:
        answer = EventBusServiceStub(channel).Publish(
            bus_pb.PublishRequest(events=[event]), timeout=5, wait_for_ready=True
        )
    return int(answer.sequences[0])


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    made = ByHand(tmp_path / "data")
    yield made
    made.end()


def started(mesh: ByHand) -> str:
    """A registry and one event bus that serves; its address."""
    mesh.registry()
    mesh.start("event_bus", "bus-1")
    until(lambda: "bus-1" in mesh.bus(), "the first one serves")
    return mesh.bus()["bus-1"]


def test_a_frozen_owner_that_wakes_up_after_it_was_replaced_cannot_write_and_ends(by_hand: ByHand) -> None:
    address = started(by_hand)
    first = publish(address)
    old = by_hand.processes["bus-1"]
    freeze(old.pid)
    by_hand.start("event_bus", "bus-2")
    until(lambda: "bus-2" in by_hand.bus(), "the second one took over")
    assert publish(by_hand.bus()["bus-2"]) > first
    thaw(old.pid)
    with pytest.raises(grpc.RpcError):
        publish(address)
    assert old.wait(timeout=10) == EXIT_FENCED_OUT
    told = [entry for entry in by_hand.log("bus-1") if entry["event"] == "store.fenced_out"]
    assert len(told) == 1
    assert "bus-2 owns it with token" in told[0]["message"]
    assert publish(by_hand.bus()["bus-2"]) > first + 1


def test_a_frozen_owner_that_nobody_asks_ends_too_once_it_hears_that_it_was_replaced(by_hand: ByHand) -> None:
    started(by_hand)
    old = by_hand.processes["bus-1"]
    freeze(old.pid)
    by_hand.start("event_bus", "bus-2")
    until(lambda: "bus-2" in by_hand.bus(), "the second one took over")
    thaw(old.pid)
    assert old.wait(timeout=20) in (EXIT_FAILED, EXIT_FENCED_OUT)
    assert set(by_hand.bus()) == {"bus-2"}


def test_an_owner_that_was_frozen_for_a_moment_and_not_replaced_serves_on(by_hand: ByHand) -> None:
    address = started(by_hand)
    old = by_hand.processes["bus-1"]
    freeze(old.pid)
    until(lambda: not by_hand.bus(), "its lease ran out")
    thaw(old.pid)
    until(lambda: "bus-1" in by_hand.bus(), "it serves again")
    assert publish(address) >= 1
    assert old.poll() is None


def test_a_second_process_stands_by_with_the_store_shut_until_the_first_has_ended(by_hand: ByHand) -> None:
    address = started(by_hand)
    by_hand.start("event_bus", "bus-2")
    until(lambda: "service.stands_by" in by_hand.events_of("bus-2"), "the second one waits")
    store = by_hand.paths.store_file("event_bus")
    held = [
        link
        for link in Path(f"/proc/{by_hand.processes['bus-2'].pid}/fd").iterdir()
        if os.path.realpath(link) == str(store)
    ]
    assert held == []
    publish(address)
    by_hand.processes["bus-1"].terminate()
    until(lambda: set(by_hand.bus()) == {"bus-2"}, "the second one serves")
    assert publish(by_hand.bus()["bus-2"]) >= 2
    assert by_hand.processes["bus-1"].wait(timeout=10) == 0


def test_a_registry_that_has_lost_its_memory_grants_tokens_above_those_of_the_stores(by_hand: ByHand) -> None:
    publish(started(by_hand))
    for instance_id in ("bus-1", "registry-1"):
        by_hand.processes[instance_id].terminate()
        by_hand.processes[instance_id].wait(timeout=10)
    for file in by_hand.paths.store_dir.glob("registry.db*"):
        file.unlink()
    by_hand.registry("registry-2")
    by_hand.start("event_bus", "bus-2")
    until(lambda: "bus-2" in by_hand.bus(), "it opens its store")
    assert publish(by_hand.bus()["bus-2"]) >= 2
