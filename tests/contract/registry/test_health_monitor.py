"""HealthMonitorService over a real registry, with instances that beat by hand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tests.contract.registry.fake_service import fake_servicer

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.health.v1 import health_events_pb2, service_health_pb2
from minhos_api.health.v1 import health_monitor_service_pb2 as pb
from minhos_api.registry.v1 import registry_events_pb2
from minhos_api.registry.v1 import registry_service_pb2 as rpb
from minhos_api.registry.v1 import supervisor_service_pb2 as spb
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.contracts import load_all
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.validation import violations_of

load_all()
SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
BUS = "minhos_api.events.v1.EventBusService"
STATE = "minhos_api.state.v1.StateManagerService"
STARTING = service_health_pb2.SERVICE_STATE_STARTING
HEALTHY = service_health_pb2.SERVICE_STATE_HEALTHY
DEGRADED = service_health_pb2.SERVICE_STATE_DEGRADED
UNHEALTHY = service_health_pb2.SERVICE_STATE_UNHEALTHY
STOPPING = service_health_pb2.SERVICE_STATE_STOPPING
STOPPED = service_health_pb2.SERVICE_STATE_STOPPED
Attach = Callable[..., Any]


async def health(mesh: Any, service: str) -> service_health_pb2.ServiceHealth:
    answer = await mesh.health.GetServiceHealth(pb.GetServiceHealthRequest(service=service))
    assert isinstance(answer.health, service_health_pb2.ServiceHealth)
    return answer.health


async def until(mesh: Any, service: str, state: Any) -> service_health_pb2.ServiceHealth:
    async def there() -> service_health_pb2.ServiceHealth | None:
        found = await health(mesh, service)
        return found if found.state == state else None

    name = service_health_pb2.ServiceState.Name(state)
    found = await mesh.eventually(there, f"{service} is {name}", 5.0)
    assert isinstance(found, service_health_pb2.ServiceHealth)
    return found


class Beating:
    """An instance that beats in the background as told."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.serving, self.conditions = stream, True, dict[str, str]()
        self.now = asyncio.Event()
        self._task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await self.stream.beat(serving=self.serving, conditions=self.conditions)
            self.now.clear()
            try:
                async with asyncio.timeout(0.3):
                    await self.now.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def beating(mesh: Any, attach: Attach) -> AsyncIterator[Attach]:
    running: list[Beating] = []

    async def start(service: str, instance_id: str, contract: str, **fields: Any) -> Beating:
        running.append(Beating(await attach(service, instance_id, contract, **fields)))
        return running[-1]

    yield start
    for one in running:
        await one.stop()


async def test_a_service_goes_through_the_states_of_its_life(mesh: Any, beating: Attach) -> None:
    watch = mesh.health.WatchHealth(pb.WatchHealthRequest())
    snapshot = await watch.read()
    assert {s.service: s.state for s in snapshot.snapshot.services}["sierra_simulator"] == STOPPED
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR)
    await until(mesh, "sierra_simulator", HEALTHY)
    sim.conditions = {"NO_FILE": "the folder cannot be written"}
    sim.now.set()
    told = await until(mesh, "sierra_simulator", DEGRADED)
    assert [(r.code, r.message) for r in told.reasons] == [("NO_FILE", "the folder cannot be written")]
    sim.conditions, sim.serving = {}, False
    sim.now.set()
    told = await until(mesh, "sierra_simulator", UNHEALTHY)
    assert told.reasons[0].code == "NOT_SERVING"
    assert told.reasons[0].action.startswith("Read why in `minhos logs sierra_simulator`")
    assert told.suggested_action == told.reasons[0].action
    sim.serving = True
    sim.now.set()
    await until(mesh, "sierra_simulator", HEALTHY)
    await sim.stop()
    await sim.stream.say(goodbye=rpb.AttachGoodbye(reason="test"))
    await until(mesh, "sierra_simulator", STOPPING)
    seen, revision = [], snapshot.revision
    async with asyncio.timeout(5):
        while STOPPING not in seen:
            update = await watch.read()
            if update.HasField("change"):
                assert update.revision == update.change.revision == revision + 1
                revision = update.revision
                seen.append(update.change.new_state)
    assert seen == [STARTING, HEALTHY, DEGRADED, HEALTHY, UNHEALTHY, HEALTHY, STOPPING]
    watch.cancel()


async def test_an_instance_that_left_is_forgotten_even_if_nobody_sees_its_process_end(
    mesh: Any, beating: Attach
) -> None:
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR)
    await until(mesh, "sierra_simulator", HEALTHY)
    await sim.stop()
    await sim.stream.say(goodbye=rpb.AttachGoodbye(reason="test"))
    registry = mesh.parts.servicers[0]._registry
    await until(mesh, "sierra_simulator", STOPPING)
    registry.instances.process_ended("sierra_simulator", 0, "ended")
    await until(mesh, "sierra_simulator", STOPPING)

    async def forgotten() -> bool:
        return (await health(mesh, "sierra_simulator")).state == STOPPED

    await mesh.eventually(forgotten, "forgotten after five seconds", 8.0)


async def test_dependents_are_degraded_with_the_reason_and_come_back(mesh: Any, beating: Attach) -> None:
    bus = await beating("event_bus", "bus-1", BUS)
    await beating("state_manager", "state-1", STATE)
    await until(mesh, "state_manager", HEALTHY)
    await bus.stop()
    bus.stream.call.cancel()
    told = await until(mesh, "state_manager", DEGRADED)
    assert [(r.code, r.message) for r in told.reasons] == [("DEPENDENCY_DOWN", "needs event_bus, which is UNHEALTHY")]
    assert told.reasons[0].action == "Look at event_bus first; what needs it recovers by itself when it is back."
    assert dict(told.dependencies) == {"event_bus": UNHEALTHY}
    mesh_health = await mesh.health.GetMeshHealth(pb.GetMeshHealthRequest())
    assert mesh_health.state == UNHEALTHY
    await beating("event_bus", "bus-2", BUS)
    await until(mesh, "state_manager", HEALTHY)
    assert (await mesh.health.GetMeshHealth(pb.GetMeshHealthRequest())).state == HEALTHY


async def test_changes_are_listed_newest_first_in_pages(mesh: Any, beating: Attach) -> None:
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR)
    await until(mesh, "sierra_simulator", HEALTHY)
    for number in range(3):
        sim.conditions = {f"C{number}": "sentence"}
        sim.now.set()
        await until(mesh, "sierra_simulator", DEGRADED)
        sim.conditions = {}
        sim.now.set()
        await until(mesh, "sierra_simulator", HEALTHY)
    request = pb.ListHealthChangesRequest(service="sierra_simulator", page_size=5)

    async def written() -> bool:
        whole = pb.ListHealthChangesRequest(service="sierra_simulator", page_size=50)
        return len((await mesh.health.ListHealthChanges(whole)).changes) >= 8

    await mesh.eventually(written, "all is written")
    page = await mesh.health.ListHealthChanges(request)
    request.page_token = page.next_page_token
    rest = await mesh.health.ListHealthChanges(request)
    revisions = [change.revision for change in [*page.changes, *rest.changes]]
    assert revisions == sorted(revisions, reverse=True)
    assert (len(page.changes), len(rest.changes), rest.next_page_token) == (5, 3, "")
    assert rest.changes[-1].old_state == STOPPED


async def test_the_history_survives_a_restart_of_the_registry(tmp_path: Path, new_registry: Any) -> None:
    first = new_registry(tmp_path)
    await first.start()

    async def listed() -> Any:
        answer = await first.health.ListHealthChanges(pb.ListHealthChangesRequest())
        return answer if answer.changes else None

    before = await first.eventually(listed, "the registry's own start is written")
    await first.stop()
    second = new_registry(tmp_path)
    await second.start()
    after = await second.health.ListHealthChanges(pb.ListHealthChangesRequest())
    await second.stop()
    assert list(after.changes)[-len(before.changes) :] == list(before.changes)


@pytest.mark.parametrize("token", ["x", "-1", "1" * 30])
async def test_a_page_token_of_somebody_else_is_refused(token: str, mesh: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.health.ListHealthChanges(pb.ListHealthChangesRequest(page_token=token))
    assert errors.read(caught.value).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_an_unknown_service_is_told_with_the_nearest_name(mesh: Any) -> None:
    for call, request in (
        (mesh.health.GetServiceHealth, pb.GetServiceHealthRequest(service="evnt_bus")),
        (mesh.health.ListHealthChanges, pb.ListHealthChangesRequest(service="evnt_bus")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        told = errors.read(caught.value)
        assert (told.code.name, told.metadata["nearest"]) == ("NOT_FOUND", "event_bus")


async def test_starting_an_unknown_service_or_the_registry_itself_is_refused(mesh: Any) -> None:
    for name, code in (("evnt_bus", "NOT_FOUND"), ("registry", "FAILED_PRECONDITION")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in mesh.supervisor.StartService(spb.StartServiceRequest(service=name)):
                pass
        assert errors.read(caught.value).code.name == code
        assert name in errors.read(caught.value).message


WholeBus: Any = type(fake_servicer(BUS, "bus-1"))
"""Serves every call of the contract with nothing."""


class Bus(WholeBus):  # type: ignore[misc] # made from the contract
    """An event bus that keeps what it is sent and checks it."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.down = True

    async def Publish(self, request: bus_pb.PublishRequest, context: Any) -> bus_pb.PublishResponse:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.events.extend(request.events)
        return bus_pb.PublishResponse(sequences=range(len(request.events)))


async def test_events_wait_for_the_bus_and_then_come_in_order_and_once(mesh: Any, beating: Attach) -> None:
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR)
    await until(mesh, "sierra_simulator", HEALTHY)
    await sim.stop()
    sim.stream.call.cancel()
    await until(mesh, "sierra_simulator", UNHEALTHY)
    bus = Bus()
    async with MeshServer([bus]) as server:
        await beating("event_bus", "bus-1", BUS, address=server.address)
        await until(mesh, "event_bus", HEALTHY)
        bus.down = False

        def about() -> list[str]:
            return [event.type for event in bus.events if event.subject == "sierra_simulator"]

        expected = ["service.health_changed"] * 2 + ["service.started", "service.health_changed", "service.unhealthy"]
        await mesh.eventually(lambda: len(about()) >= 6, "published")
        assert sorted(about()) == sorted([*expected, "service.stopped"])
        assert len({event.event_id for event in bus.events}) == len(bus.events)
        for event in bus.events:
            assert violations_of(event) == (), event
            assert event.source == "registry"
        stopped = registry_events_pb2.ServiceStopped()
        (found,) = [event for event in bus.events if event.type == "service.stopped"]
        assert found.payload.Unpack(stopped)
        assert (stopped.instance_id, stopped.in_order) == ("sim-1", False)
        changed = health_events_pb2.ServiceHealthChanged()
        (last, *_) = [
            event
            for event in reversed(bus.events)
            if event.type == "service.health_changed" and event.subject == "sierra_simulator"
        ]
        assert last.payload.Unpack(changed)
        assert changed.change.new_state == UNHEALTHY


async def test_memory_and_cpu_of_an_instance_are_measured(mesh: Any) -> None:
    async def measured() -> Any:
        (own,) = (await mesh.services())["registry"].instances
        return own if own.HasField("memory_bytes") else None

    own = await mesh.eventually(measured, "measured")
    assert own.memory_bytes > 1_000_000
    assert own.cpu_seconds > 0


async def test_an_instance_that_answers_no_health_check_is_told(mesh: Any, beating: Attach) -> None:
    mesh.parts.servicers[0]._registry  # noqa: B018 - the registry is there
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR, address="127.0.0.1:1")
    told = await until(mesh, "sierra_simulator", DEGRADED)
    assert told.reasons[0].code == "CHECK_FAILED"
    assert "DEADLINE_EXCEEDED" in told.reasons[0].message
    await sim.stop()


async def test_a_health_watch_of_an_instance_takes_it_out_before_its_next_heartbeat(mesh: Any, beating: Attach) -> None:
    async with MeshServer([Bus()]) as server:
        await beating("event_bus", "bus-1", BUS, address=server.address)
        await until(mesh, "event_bus", HEALTHY)

        async def out() -> bool:
            (instance,) = (await mesh.services())["event_bus"].instances
            return not instance.in_rotation

        await asyncio.sleep(0)
        registry = mesh.parts.servicers[0]._registry
        (present,) = registry.resolve("event_bus")
        await mesh.eventually(lambda: registry.resolve("event_bus")[0].watched.value == "SERVING", "watched")
        await server.set_serving(serving=False)
        await mesh.eventually(out, f"{present.key} is out of rotation", 1.0)


async def test_use_uptime_and_health_of_each_instance_are_told(mesh: Any, beating: Attach) -> None:
    begun = time.time()
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR, pid=os.getpid())
    await beating("sierra_simulator", "sim-2", SIMULATOR)
    sim.conditions = {"NO_FILE": "the folder cannot be written"}
    sim.now.set()
    await until(mesh, "sierra_simulator", DEGRADED)

    async def used() -> Any:
        found = (await health(mesh, "sierra_simulator")).instances[0]
        return found if found.HasField("use") and found.use.HasField("cpu_percent") else None

    first = await mesh.eventually(used, "looked at twice", 5.0)
    assert (first.instance_id, first.state, first.in_rotation) == ("sim-1", DEGRADED, True)
    assert [reason.code for reason in first.reasons] == ["NO_FILE"]
    # The kernel counts the two at different moments, so a shared page may be in one and not yet in the other.
    assert first.use.rss_bytes * 1.1 > first.use.pss_bytes > 1_000_000
    assert first.use.open_files > 3
    assert first.use.threads >= 1
    assert abs(first.use.sample_time.ToNanoseconds() / 1e9 - time.time()) < 5
    assert first.start_time.ToNanoseconds() / 1e9 == pytest.approx(psutil.Process().create_time(), abs=1)
    told = await health(mesh, "sierra_simulator")
    assert [instance.instance_id for instance in told.instances] == ["sim-1", "sim-2"]
    assert not told.instances[1].HasField("use")
    assert told.instances[1].start_time.ToNanoseconds() / 1e9 >= begun - 1
    assert told.start_time == first.start_time
    listed = (await mesh.services())["sierra_simulator"]
    assert listed.start_time == first.start_time
    assert listed.instances[0].use.pss_bytes == listed.instances[0].memory_bytes > 1_000_000


async def test_one_of_two_instances_dead_is_degraded_with_the_reason(mesh: Any, beating: Attach) -> None:
    await beating("sierra_simulator", "sim-1", SIMULATOR)
    other = await beating("sierra_simulator", "sim-2", SIMULATOR)

    async def both() -> bool:
        found = await health(mesh, "sierra_simulator")
        return [instance.state for instance in found.instances] == [HEALTHY, HEALTHY]

    await mesh.eventually(both, "both serve")
    await other.stop()
    other.stream.call.cancel()
    told = await until(mesh, "sierra_simulator", DEGRADED)
    assert [reason.code for reason in told.reasons] == ["INSTANCE_DOWN"]
    assert "sim-2 lost its connection" in told.reasons[0].message
    assert told.suggested_action.startswith("Look at instance sim-2")
    assert [instance.state for instance in told.instances] == [HEALTHY, UNHEALTHY]


async def test_calls_in_flight_and_defects_of_an_instance_are_told(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await stream.beat(calls_in_flight=7, internal_errors=2)
    (told,) = (await health(mesh, "sierra_simulator")).instances
    assert (told.calls_in_flight, told.internal_errors) == (7, 2)


async def test_changes_are_listed_by_a_range_of_time(mesh: Any, beating: Attach) -> None:
    sim = await beating("sierra_simulator", "sim-1", SIMULATOR)
    await until(mesh, "sierra_simulator", HEALTHY)
    sim.conditions = {"NO_FILE": "sentence"}
    sim.now.set()
    await until(mesh, "sierra_simulator", DEGRADED)

    async def written() -> Any:
        answer = await mesh.health.ListHealthChanges(pb.ListHealthChangesRequest(service="sierra_simulator"))
        return answer.changes if answer.changes and answer.changes[0].new_state == DEGRADED else None

    changes = list(await mesh.eventually(written, "all is written"))
    for first in range(len(changes)):
        for last in range(first, len(changes)):
            request = pb.ListHealthChangesRequest(
                service="sierra_simulator",
                since_time=changes[last].change_time,
                until_time=changes[first].change_time,
                page_size=1,
            )
            found: list[Any] = []
            while True:
                page = await mesh.health.ListHealthChanges(request)
                found += page.changes
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            assert found == changes[first + 1 : last + 1]


async def test_restarts_and_uptime_go_on_over_a_restart_of_the_registry(tmp_path: Path, new_registry: Any) -> None:
    first = new_registry(tmp_path)
    await first.start()
    registry = first.parts.servicers[0]._registry
    registry.note_service("event_bus", wanted=True, restarts=2)

    async def kept() -> bool:
        return bool((await registry._store.restarts()).get("event_bus") == 2)

    await first.eventually(kept, "on disk")
    await first.stop()
    second = new_registry(tmp_path)
    await second.start()
    registry = second.parts.servicers[0]._registry

    async def told(restarts: int) -> bool:
        return bool((await second.services())["event_bus"].restarts == restarts)

    registry.note_service("event_bus", wanted=True, restarts=1)
    await second.eventually(lambda: told(3), "those of both lives")
    registry.note_service("event_bus", anew=True, wanted=True, restarts=0)
    await second.eventually(lambda: told(0), "counted anew")
    await second.stop()
