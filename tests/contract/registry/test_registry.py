"""RegistryService as services and people see it, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2

from minhos_api.health.v1 import service_health_pb2 as hpb
from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_mesh.registry.mesh_services import SERVES, specs_of
from minhos_mesh.registry.plan import make_plan
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.contracts import all_contracts, descriptor_set
from minhos_mesh.runtime.server import BindError

SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
BUS = "minhos_api.events.v1.EventBusService"
STATE = "minhos_api.state.v1.StateManagerService"
Attach = Callable[..., Any]


async def refusal(mesh: Any, *messages: pb.AttachRequest) -> errors.CallError:
    call = mesh.registry.Attach()
    for message in messages:
        await call.write(message)
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(8):
            async for _answer in call:
                pass
    return errors.read(caught.value)


async def in_rotation(mesh: Any, service: str) -> list[str]:
    found = (await mesh.services())[service].instances
    return [instance.instance_id for instance in found if instance.in_rotation]


async def test_an_instance_is_granted_a_lease_and_let_in_once_it_serves(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR, pid=1)
    assert stream.granted.fencing_token == 1
    assert stream.granted.heartbeat_interval.ToMilliseconds() == 500
    assert stream.granted.time_to_live.ToMilliseconds() == 1500
    await stream.beat(serving=False)
    service = (await mesh.services())["sierra_simulator"]
    assert (service.state, list(service.reasons)) == (
        hpb.SERVICE_STATE_STARTING,
        ["sim-1 is attached and not yet serving"],
    )
    assert (await stream.beat()).HasField("beat")
    await mesh.eventually(lambda: in_rotation(mesh, "sierra_simulator"), "in rotation")
    (instance,) = (await mesh.registry.Resolve(pb.ResolveRequest(name="SierraSimulatorService"))).instances
    assert (instance.address, instance.in_rotation, instance.service) == ("127.0.0.1:9", True, "sierra_simulator")


async def test_the_registry_lists_all_services_of_the_mesh_running_or_not(mesh: Any) -> None:
    services = await mesh.services()
    assert set(services) == set(service_names())
    assert services["trading_engine"].state == hpb.SERVICE_STATE_STOPPED
    assert services["registry"].state == hpb.SERVICE_STATE_HEALTHY
    assert services["registry"].instances[0].address == mesh.address
    assert list(services["event_bus"].depends_on_services) == ["registry"]


async def test_an_instance_whose_dependency_is_missing_is_admitted_and_gets_no_traffic(
    mesh: Any, attach: Attach
) -> None:
    state = await attach("state_manager", "state-1", STATE)
    await state.beat()
    service = (await mesh.services())["state_manager"]
    assert service.state == hpb.SERVICE_STATE_STARTING
    assert service.reasons[0] == "waits for event_bus, which is STOPPED"
    assert await in_rotation(mesh, "state_manager") == []
    bus = await attach("event_bus", "bus-1", BUS)
    await bus.beat()
    await state.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "state_manager"), "let in")


async def test_a_goodbye_takes_the_instance_out_of_rotation_at_once(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await stream.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "sierra_simulator"), "in rotation")
    await stream.beat(serving=False)
    await stream.say(goodbye=pb.AttachGoodbye(reason="test"))
    async with asyncio.timeout(10):
        assert await stream.call.read() is grpc.aio.EOF
    assert await stream.call.code() is grpc.StatusCode.OK
    service = (await mesh.services())["sierra_simulator"]
    assert service.state == hpb.SERVICE_STATE_STOPPING
    assert await in_rotation(mesh, "sierra_simulator") == []


async def test_a_stream_that_breaks_without_goodbye_takes_the_endpoint_away_at_once(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await stream.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "sierra_simulator"), "in rotation")
    stream.call.cancel()

    async def gone() -> bool:
        return bool((await mesh.services())["sierra_simulator"].state == hpb.SERVICE_STATE_UNHEALTHY)

    await mesh.eventually(gone, "unhealthy", 1.0)
    service = (await mesh.services())["sierra_simulator"]
    assert list(service.instances) == []
    assert list(service.reasons) == ["sim-1 lost its connection without saying goodbye"]
    assert service.errors[0].endswith("sim-1: it lost its connection without saying goodbye")


async def test_a_silent_instance_loses_its_lease(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await stream.beat()
    with pytest.raises(grpc.aio.AioRpcError, match="let its lease run out") as caught:
        await stream.heard()
    assert errors.read(caught.value).reason == "ERROR_REASON_LEASE_STALE"
    assert (await mesh.services())["sierra_simulator"].state == hpb.SERVICE_STATE_UNHEALTHY


async def test_tokens_grow_and_the_owner_takes_its_lease_again(mesh: Any, attach: Attach) -> None:
    first = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await first.beat()
    second = await attach("sierra_simulator", "sim-1", SIMULATOR, fencing_token=first.granted.fencing_token)
    assert second.granted.fencing_token > first.granted.fencing_token
    with pytest.raises(grpc.aio.AioRpcError, match="attached again"):
        await first.heard()
    await second.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "sierra_simulator"), "in rotation")


async def test_a_command_to_drain_reaches_the_instance(mesh: Any, attach: Attach) -> None:
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    registry = mesh.parts.servicers[0]._registry
    assert registry.instances.command_drain("sierra_simulator", "maintenance") == 1
    answer = await stream.heard()
    assert (answer.command.action, answer.command.reason) == (pb.AttachCommand.ACTION_DRAIN, "maintenance")


# Hostile and broken instances: (what is said, code, reason, part of the message).


Say = Callable[..., pb.AttachRequest]


@pytest.fixture
def said(mesh: Any) -> Say:
    """Makes a hello with some fields broken."""
    return lambda **fields: pb.AttachRequest(hello=mesh.hello("sierra_simulator", "sim-1", SIMULATOR, **fields))


def cut(drop: str) -> bytes:
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set([SIMULATOR]))
    for file in files.file:
        for service in file.service:
            kept = [m for m in service.method if m.name != drop]
            del service.method[:]
            service.method.extend(kept)
    return files.SerializeToString()


def bent() -> bytes:
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set([SIMULATOR]))
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.name == "GetStatus":
                    method.server_streaming = True
    return files.SerializeToString()


HOSTILE: list[tuple[str, Callable[[Say], list[pb.AttachRequest]], str, str, str]] = [
    (
        "garbage for descriptors",
        lambda said: [said(descriptor_set=b"\xff\xfe garbage")],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "hello.descriptor_set",
    ),
    (
        "no descriptors",
        lambda said: [said(descriptor_set=b"")],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "hello.descriptor_set",
    ),
    ("no contracts", lambda said: [said(contracts=[])], "INVALID_ARGUMENT", "INVALID_FIELD", "hello.contracts"),
    (
        "a contract that is not in the offer",
        lambda said: [said(contracts=[BUS])],
        "FAILED_PRECONDITION",
        "CONTRACT_VIOLATION",
        f"{BUS} is claimed but not served whole: {BUS} is not in the offer",
    ),
    (
        "a method less",
        lambda said: [said(descriptor_set=cut("Pause"))],
        "FAILED_PRECONDITION",
        "CONTRACT_VIOLATION",
        f"{SIMULATOR} is claimed but not served whole: it does not serve Pause",
    ),
    (
        "a method that streams instead",
        lambda said: [said(descriptor_set=bent())],
        "FAILED_PRECONDITION",
        "CONTRACT_VIOLATION",
        "RPC_SAME_SERVER_STREAMING minhos_api.sierra.v1.SierraSimulatorService.GetStatus: unary -> streaming",
    ),
    ("a token never granted", lambda said: [said(fencing_token=77)], "FAILED_PRECONDITION", "LEASE_STALE", "token 77"),
    ("no service name", lambda said: [said(service="")], "INVALID_ARGUMENT", "INVALID_FIELD", "hello.service"),
    (
        "a name with spaces",
        lambda said: [said(service="Risk Manager")],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "hello.service",
    ),
    ("no instance id", lambda said: [said(instance_id="")], "INVALID_ARGUMENT", "INVALID_FIELD", "hello.instance_id"),
    ("no address", lambda said: [said(address="")], "INVALID_ARGUMENT", "INVALID_FIELD", "hello.address"),
    (
        "a host name",
        lambda said: [said(address="localhost:80")],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "127.0.0.1:40112",
    ),
    ("an address outside", lambda said: [said(address="10.0.0.1:80")], "INVALID_ARGUMENT", "INVALID_FIELD", "loopback"),
    ("port 0", lambda said: [said(address="127.0.0.1:0")], "INVALID_ARGUMENT", "INVALID_FIELD", "hello.address"),
    (
        "a heartbeat first",
        lambda said: [pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True))],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "allowed is hello as the first message",
    ),
    (
        "hello twice",
        lambda said: [said(), said()],
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "allowed is heartbeat or goodbye",
    ),
    ("an empty message", lambda said: [pb.AttachRequest()], "INVALID_ARGUMENT", "INVALID_FIELD", "message"),
    ("nothing at all", lambda said: [], "INVALID_ARGUMENT", "INVALID_FIELD", "allowed is hello"),
]


@pytest.mark.parametrize(("_name", "messages", "code", "reason", "text"), HOSTILE, ids=[row[0] for row in HOSTILE])
async def test_a_hostile_attach_gets_a_clear_refusal(
    _name: str,
    messages: Callable[[Say], list[pb.AttachRequest]],
    code: str,
    reason: str,
    text: str,
    mesh: Any,
    said: Say,
) -> None:
    told = await refusal(mesh, *messages(said))
    assert (told.code.name, told.reason) == (code, f"ERROR_REASON_{reason}")
    assert text in told.message


async def test_a_second_process_under_the_same_id_is_refused_and_the_first_lives_on(
    mesh: Any, attach: Attach, said: Say
) -> None:
    first = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await first.beat()
    told = await refusal(mesh, said())
    assert (told.code.name, told.reason) == ("ALREADY_EXISTS", "ERROR_REASON_INSTANCE_TAKEN")
    assert told.metadata["instance_id"] == "sim-1"
    assert (await first.beat()).HasField("beat")


async def test_more_instances_than_a_mesh_can_have_are_refused(
    mesh: Any, attach: Attach, said: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minhos_mesh.registry.instances.MAX_INSTANCES", 1)
    await attach("sierra_simulator", "sim-0", SIMULATOR)
    told = await refusal(mesh, said())
    assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_LIMIT_REACHED")


async def test_many_that_attach_at_once_under_one_id_leave_one_owner(mesh: Any) -> None:
    streams = [mesh.stream() for _ in range(8)]

    async def grab(stream: Any) -> bool:
        await stream.say(hello=mesh.hello("sierra_simulator", "sim-1", SIMULATOR))
        try:
            return bool((await stream.heard()).HasField("granted"))
        except grpc.aio.AioRpcError:
            return False

    won = await asyncio.gather(*(grab(stream) for stream in streams))
    assert sum(won) == 1
    owner = streams[won.index(True)]
    await owner.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "sierra_simulator"), "the owner is let in")


async def test_an_owner_that_was_replaced_is_refused_with_both_tokens(mesh: Any, attach: Attach, said: Say) -> None:
    first = await attach("sierra_simulator", "sim-1", SIMULATOR)
    first.call.cancel()

    async def taken() -> Any:
        told = mesh.stream()
        await told.say(hello=mesh.hello("sierra_simulator", "sim-1", SIMULATOR))
        try:
            return (await told.heard()).granted
        except grpc.aio.AioRpcError:
            return None

    second = await mesh.eventually(taken, "taken over")
    told = await refusal(mesh, said(fencing_token=first.granted.fencing_token))
    assert told.reason == "ERROR_REASON_LEASE_STALE"
    assert told.metadata["fencing_token"] == str(first.granted.fencing_token)
    assert told.metadata["newest"] == str(second.fencing_token)


async def test_a_contract_that_only_the_instance_knows_is_admitted_and_resolved(mesh: Any, attach: Attach) -> None:
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="acme.proto", package="acme.v1")
    file.message_type.add(name="M")
    service = file.service.add(name="AcmeService")
    service.method.add(name="Do", input_type=".acme.v1.M", output_type=".acme.v1.M")
    stream = await attach("acme", "acme-1", descriptor_set=files.SerializeToString(), contracts=["acme.v1.AcmeService"])
    await stream.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "acme"), "let in")
    assert len((await mesh.registry.Resolve(pb.ResolveRequest(name="acme.v1.AcmeService"))).instances) == 1


async def test_an_instance_may_state_its_own_needs(mesh: Any, attach: Attach) -> None:
    need = options.Dependency(contract=BUS, kind=options.DEPENDENCY_KIND_OPTIONAL)
    stream = await attach("state_manager", "state-1", STATE, depends_on=[need])
    await stream.beat()
    await mesh.eventually(lambda: in_rotation(mesh, "state_manager"), "an optional need holds nothing back")


async def test_resolving_a_known_contract_that_nobody_serves_gives_nothing(mesh: Any) -> None:
    assert list((await mesh.registry.Resolve(pb.ResolveRequest(name="trading_engine"))).instances) == []


async def test_resolving_an_unknown_name_says_what_was_probably_meant(mesh: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.registry.Resolve(pb.ResolveRequest(name="trading_angine"))
    told = errors.read(caught.value)
    assert (told.code.name, told.reason) == ("NOT_FOUND", "ERROR_REASON_SERVICE_UNKNOWN")
    assert (told.metadata["service"], told.metadata["nearest"]) == ("trading_angine", "trading_engine")
    assert "trading_engine" in told.metadata["known"].split(", ")


async def test_a_watch_begins_with_a_snapshot_and_tells_each_change(mesh: Any, attach: Attach) -> None:
    watch = mesh.registry.WatchServices(pb.WatchServicesRequest())
    first = await watch.read()
    assert len(first.snapshot.services) == len(service_names())
    stream = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await stream.beat()
    states, revision = [], first.revision
    async with asyncio.timeout(5):
        while hpb.SERVICE_STATE_HEALTHY not in states:
            update = await watch.read()
            assert update.revision == revision + 1
            revision = update.revision
            assert update.changed.name == "sierra_simulator"
            states.append(update.changed.state)
    assert states[0] == hpb.SERVICE_STATE_STARTING
    resumed = mesh.registry.WatchServices(pb.WatchServicesRequest(after_revision=first.revision))
    again = await resumed.read()
    assert (again.revision, again.changed.name) == (first.revision + 1, "sierra_simulator")
    watch.cancel()
    resumed.cancel()


@pytest.mark.parametrize("after", [0, 1, 2**62])
async def test_a_watch_cannot_resume_behind_a_revision_that_is_not_held(after: int, mesh: Any) -> None:
    watch = mesh.registry.WatchServices(pb.WatchServicesRequest(after_revision=after))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in watch:
            pass
    assert errors.read(caught.value).reason == "ERROR_REASON_POSITION_LOST"
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_the_graph_has_every_service_above_what_it_needs(mesh: Any) -> None:
    graph = await mesh.registry.GetDependencyGraph(pb.GetDependencyGraphRequest())
    levels = {node.name: node.level for node in graph.nodes}
    assert levels["registry"] == 0
    assert graph.edges
    for edge in graph.edges:
        assert levels[edge.from_service] > levels[edge.to_service], edge
    kinds = {(e.from_service, e.to_service): e.kind for e in graph.edges}
    assert kinds["trading_engine", "ai_brain"] == options.DEPENDENCY_KIND_OPTIONAL
    assert kinds["trading_engine", "risk_manager"] == options.DEPENDENCY_KIND_REQUIRED


def test_every_contract_has_exactly_one_service_that_serves_it_and_the_plan_can_be_made() -> None:
    served = [f"minhos_api.{name}" for contracts in SERVES.values() for name in contracts]
    assert sorted(served) == sorted(set(all_contracts()) - {"minhos_api.mesh.v1.ServiceControlService"})
    assert set(SERVES) == set(service_names())
    plan = make_plan(specs_of(service_names()))
    assert plan.levels[0] == ("registry", "sierra_simulator")
    assert plan.unserved == ()


async def test_the_registry_keeps_its_port_and_its_tokens_over_a_restart(tmp_path: Path, new_registry: Any) -> None:
    first = new_registry(tmp_path)
    await first.start()
    address = first.address
    stream = first.stream()
    await stream.say(hello=first.hello("sierra_simulator", "sim-1", SIMULATOR))
    token = (await stream.heard()).granted.fencing_token
    await first.stop()
    second = new_registry(tmp_path)
    await second.start()
    assert second.address == address
    again = second.stream()
    await again.say(hello=second.hello("sierra_simulator", "sim-2", SIMULATOR))
    assert (await again.heard()).granted.fencing_token > token
    again.call.cancel()
    await second.stop()


async def test_a_port_that_is_taken_is_a_clear_error(mesh: Any, tmp_path: Path, new_registry: Any) -> None:
    port = mesh.address.rpartition(":")[2]
    other = new_registry(tmp_path / "other", {"MINHOS_MESH__PORT": port})
    with pytest.raises(BindError, match=f"127.0.0.1:{port} cannot be listened on"):
        await other.start()
    await other._stack.aclose()
