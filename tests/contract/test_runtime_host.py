"""The life of a service process, seen from outside: its lease, and the only right order of its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.mesh.v1 import service_control_service_pb2 as control_pb
from minhos_api.mesh.v1.service_control_service_pb2_grpc import ServiceControlServiceStub
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer
from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_mesh.runtime.attach import AttachRefused, Identity, Lease, SelfView
from minhos_mesh.runtime.config import load, save
from minhos_mesh.runtime.contracts import contract
from minhos_mesh.runtime.errors import MeshError
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer

STATE = "minhos_api.state.v1.StateManagerService"
CONTROL = "minhos_api.mesh.v1.ServiceControlService"
REGISTRY = "minhos_api.registry.v1.RegistryService"
CHILD = Path(__file__).with_name("runtime_child.py")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
OWN = (("grpc.use_local_subchannel_pool", 1),)

health_stub: Any = health_pb2_grpc.HealthStub
"""Its package leaves the asynchronous side without types."""
OnGoodbye = Callable[[], Any]


async def _nothing() -> None:
    return


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (found := condition()):
            await asyncio.sleep(0.005)
        return found


class FakeRegistry(RegistryServiceServicer):
    """Grants leases and remembers what it hears; `on_goodbye` is done before the stream of a leaver is ended."""

    def __init__(self) -> None:
        self.hellos: list[registry_pb.AttachHello] = []
        self.beats: list[registry_pb.AttachHeartbeat] = []
        self.goodbyes: list[str] = []
        self.on_goodbye: OnGoodbye = _nothing
        self.refuse: MeshError | None = None
        self.commands: asyncio.Queue[registry_pb.AttachResponse | None] = asyncio.Queue()

    async def Attach(
        self, requests: AsyncIterator[registry_pb.AttachRequest], context: Any
    ) -> AsyncIterator[registry_pb.AttachResponse]:
        hello = await anext(requests)
        self.hellos.append(hello.hello)
        if self.refuse is not None:
            raise self.refuse
        granted = registry_pb.AttachGranted(lease_id="l", fencing_token=len(self.hellos))
        granted.heartbeat_interval.FromMilliseconds(50)
        yield registry_pb.AttachResponse(granted=granted)
        hearing = asyncio.create_task(self._hear(requests))
        try:
            while (command := await self.commands.get()) is not None:
                yield command
        finally:
            hearing.cancel()

    async def _hear(self, requests: AsyncIterator[registry_pb.AttachRequest]) -> None:
        async for request in requests:
            if request.HasField("heartbeat"):
                self.beats.append(request.heartbeat)
            else:
                self.goodbyes.append(request.goodbye.reason)
                await self.on_goodbye()
                self.commands.put_nowait(None)

    async def _unused(self, _request: Any, _context: Any) -> Any:
        raise AssertionError("not called")

    Resolve: Any = _unused
    ListServices: Any = _unused
    WatchServices: Any = _unused
    GetDependencyGraph: Any = _unused


@pytest.fixture
async def registry() -> AsyncIterator[tuple[FakeRegistry, MeshServer]]:
    fake = FakeRegistry()
    async with MeshServer([fake]) as server:
        yield fake, server


class Child:
    """The process of a service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = MeshPaths(folder)
        self.paths.create()
        config = load(None, environment={}).resolved(datetime.now(UTC))
        save(config, self.paths.config_file)
        self._process: subprocess.Popen[str] | None = None
        self._channels: list[grpc.aio.Channel] = []

    def attach_to(self, address: str) -> None:
        self.paths.mesh_file.write_text(json.dumps({"address": address}), encoding="utf-8")

    def start(self, kind: str = "") -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "MINHOS_"))}
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), str(self.folder), kind],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    async def channel(self) -> grpc.aio.Channel:
        await until((self.folder / "address").exists)
        channel = grpc.aio.insecure_channel((self.folder / "address").read_text(encoding="utf-8"), options=OWN)
        self._channels.append(channel)
        return channel

    async def serving(self) -> grpc.aio.Channel:
        channel = await self.channel()
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        while (await watch.read()).status != SERVING:
            pass
        watch.cancel()
        return channel

    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def logged(self) -> list[dict[str, Any]]:
        text = self.paths.log_file("state_manager").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, standard output and error."""
        async with asyncio.timeout(20):
            out, err = await asyncio.to_thread(self.process.communicate)
        return self.process.returncode, out, err

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            await self.ended()


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    child = Child(tmp_path)
    yield child
    await child.close()


async def health_of(channel: grpc.aio.Channel, name: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=name)
    return (await health_stub(channel).Check(request, timeout=5)).status


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_end_is_not_serving_then_goodbye_then_calls_in_flight_then_exit_0(
    child: Child, registry: tuple[FakeRegistry, MeshServer], number: signal.Signals
) -> None:
    fake, server = registry
    child.attach_to(server.address)
    child.start()
    channel = await child.serving()
    stub: Any = StateManagerServiceStub(channel)
    stream = stub.WatchState(pb.WatchStateRequest(), timeout=20)
    await stream.read()
    call = asyncio.ensure_future(stub.GetState(pb.GetStateRequest(), timeout=20))
    await until(lambda: "call began" in child.journal())
    seen: list[Any] = []

    async def look_when_it_says_goodbye() -> None:
        seen.extend([await health_of(channel), await health_of(channel, STATE), call.done(), stream.done()])
        (child.folder / "release").touch()

    fake.on_goodbye = look_when_it_says_goodbye
    child.process.send_signal(number)
    answer = await call
    code, out, err = await child.ended()
    assert seen == [NOT_SERVING, NOT_SERVING, False, False]
    assert answer.state.version == 7
    assert fake.goodbyes == [number.name]
    assert (code, out, err) == (0, "", "")
    with pytest.raises(grpc.aio.AioRpcError):
        await stream.read()
    assert child.journal() == [
        "built",
        "start",
        "call began",
        "call ended",
        "drain, stopping True",
        "stream closed",
        "task ended",
        "closed",
    ]
    events = [line["event"] for line in child.logged()]
    assert events.index("service.bound") < events.index("service.serving") < events.index("service.ending")
    assert events[-1] == "service.ended"


async def test_call_that_does_not_end_is_cut_at_the_deadline_of_the_drain(child: Child) -> None:
    child.start()
    channel = await child.serving()
    call = asyncio.ensure_future(StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=20))
    await until(lambda: "call began" in child.journal())
    request = control_pb.DrainRequest(reason="a test")
    request.deadline.FromMilliseconds(100)
    control = ServiceControlServiceStub(channel)
    answer = await control.Drain(request, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    assert answer.calls_in_flight == 1
    assert (await child.ended())[0] == 0
    assert "call ended" not in child.journal()
    events = {line["event"]: line for line in child.logged()}
    assert events["service.drain_cut"]["calls"] == 1
    assert events["service.ended"]["reason"] == "drain: a test"


async def test_registry_can_drain_an_instance(child: Child, registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    child.attach_to(server.address)
    child.start()
    await child.serving()
    command = registry_pb.AttachCommand(action=registry_pb.AttachCommand.ACTION_DRAIN, reason="stop all")

    fake.commands.put_nowait(registry_pb.AttachResponse(command=command))
    assert (await child.ended())[0] == 0
    assert fake.goodbyes == ["registry: stop all"]


async def test_dead_registry_does_not_hold_up_the_end(child: Child) -> None:
    fake = FakeRegistry()
    async with MeshServer([fake]) as server:
        child.attach_to(server.address)
        child.start()
        await child.serving()
        await until(lambda: fake.beats)
    began = asyncio.get_running_loop().time()
    child.process.terminate()
    assert (await child.ended())[0] == 0
    assert asyncio.get_running_loop().time() - began < 5


# The beginning.


async def test_instance_that_starts_is_bound_and_attached_before_it_serves(
    child: Child, registry: tuple[FakeRegistry, MeshServer]
) -> None:
    fake, server = registry
    child.attach_to(server.address)
    child.start("stuck")
    channel = await child.channel()
    await until(lambda: len(fake.beats) > 1)
    assert await health_of(channel, STATE) == NOT_SERVING
    assert not any(beat.serving for beat in fake.beats)
    hello = fake.hellos[0]
    assert (hello.service, hello.instance_id, hello.pid) == ("state_manager", "state_manager-1", child.process.pid)
    assert list(hello.contracts) == [STATE, CONTROL]
    assert hello.address == (child.folder / "address").read_text(encoding="utf-8")
    child.process.terminate()
    assert (await child.ended())[0] == 0
    assert child.journal() == ["built", "start", "drain, stopping True", "task ended", "closed"]


async def test_service_that_serves_says_so_and_describes_itself(
    child: Child, registry: tuple[FakeRegistry, MeshServer]
) -> None:
    fake, server = registry
    child.attach_to(server.address)
    child.start()
    channel = await child.serving()
    await until(lambda: fake.beats and fake.beats[-1].serving)
    answer = await ServiceControlServiceStub(channel).Describe(control_pb.DescribeRequest(), timeout=5)
    assert (answer.name, answer.instance_id) == ("state_manager", "state_manager-1")
    assert list(answer.contracts) == [STATE, CONTROL]
    assert [need.contract for need in answer.depends_on] == [need.contract for need in contract(STATE).needs]


@pytest.mark.parametrize(("kind", "words"), [("broken", "the start broke"), ("task", "the task broke")])
async def test_defect_ends_the_process_with_1_and_is_in_the_log(child: Child, kind: str, words: str) -> None:
    child.start(kind)
    code, out, err = await child.ended()
    assert (code, out, err) == (1, "", "")
    assert child.journal()[-1] == "closed"
    assert words in child.paths.log_file("state_manager").read_text(encoding="utf-8")


async def test_contract_that_is_not_served_whole_is_refused_with_3_and_a_sentence(child: Child) -> None:
    child.start("half")
    code, out, err = await child.ended()
    assert (code, out) == (3, "")
    assert err == f"state_manager: ChildServicer does not serve {STATE} whole: GetPortfolio missing\n"


async def test_wrong_configuration_is_refused_with_3_and_a_sentence(child: Child) -> None:
    child.paths.config_file.write_text('{"risk": {"max_positon": 3}}', encoding="utf-8")
    child.start()
    code, _, err = await child.ended()
    assert code == 3
    assert "risk.max_positon is no key of the configuration; was max_position meant?" in err
    assert "Traceback" not in err


async def test_instance_that_the_registry_will_never_admit_ends_with_a_sentence(
    child: Child, registry: tuple[FakeRegistry, MeshServer]
) -> None:
    fake, server = registry
    fake.refuse = MeshError(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_CONTRACT_VIOLATION, "GetPositions is missing"
    )
    child.attach_to(server.address)
    child.start()
    code, _, err = await child.ended()
    assert code != 0
    assert err == "state_manager: GetPositions is missing\n"


# The lease.


IDENTITY = Identity("state_manager", "state_manager-9", "127.0.0.1:9", (STATE,))


@contextlib.asynccontextmanager
async def leased(address: str, commands: list[Any] | None = None) -> AsyncIterator[tuple[Lease, asyncio.Task[None]]]:
    heard = [] if commands is None else commands
    lease = Lease(address, IDENTITY, lambda: SelfView(True, {"A": "b"}, 2, 1), heard.append)
    task = asyncio.create_task(lease.run())
    try:
        yield lease, task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


async def test_lease_beats_with_what_the_instance_says_of_itself(registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    commands: list[Any] = []
    async with leased(server.address, commands):
        await until(lambda: len(fake.beats) >= 3)
        fake.commands.put_nowait(registry_pb.AttachResponse(command=registry_pb.AttachCommand(reason="x")))
        await until(lambda: commands)
    beat = fake.beats[0]
    assert (beat.serving, dict(beat.conditions), beat.calls_in_flight, beat.internal_errors) == (True, {"A": "b"}, 2, 1)
    assert not fake.hellos[0].fencing_token
    assert fake.hellos[0].descriptor_set


async def test_change_is_told_at_once(registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    async with leased(server.address) as (lease, _):
        await until(lambda: fake.beats)
        before = len(fake.beats)
        began = asyncio.get_running_loop().time()
        lease.changed()
        await until(lambda: len(fake.beats) > before)
        assert asyncio.get_running_loop().time() - began < 5


async def test_lease_comes_back_with_its_token_when_the_stream_breaks(
    registry: tuple[FakeRegistry, MeshServer],
) -> None:
    fake, server = registry
    async with leased(server.address):
        await until(lambda: fake.beats)
        fake.commands.put_nowait(None)
        await until(lambda: len(fake.hellos) == 2)
    assert fake.hellos[1].fencing_token == 1


async def test_stale_lease_is_taken_anew_without_its_token(registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    async with leased(server.address) as (lease, _):
        await until(lambda: fake.beats)
        fake.refuse = MeshError(grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_LEASE_STALE, "newer: 9")
        fake.commands.put_nowait(None)
        await until(lambda: len(fake.hellos) == 2)
        fake.refuse = None
        await until(lease.granted.is_set)
    assert [hello.fencing_token for hello in fake.hellos[1:3]] == [1, 0]


async def test_lease_waits_for_a_registry_that_is_not_there_yet(registry: tuple[FakeRegistry, MeshServer]) -> None:
    _, server = registry
    port = server.port
    await server.stop(0)
    async with leased(f"127.0.0.1:{port}") as (lease, task):
        await asyncio.sleep(0.1)
        assert not task.done()
        fake = FakeRegistry()
        async with MeshServer([fake], port=port):
            await until(lease.granted.is_set)


async def test_refused_lease_is_given_up_with_what_the_registry_said(registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    fake.refuse = MeshError(grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELD, "no such service")
    async with leased(server.address) as (_, task):
        async with asyncio.timeout(10):
            with pytest.raises(AttachRefused, match="no such service"):
                await task


async def test_leaving_ends_the_lease_once_the_goodbye_was_heard(registry: tuple[FakeRegistry, MeshServer]) -> None:
    fake, server = registry
    async with leased(server.address) as (lease, task):
        await until(lambda: fake.beats)
        await lease.leave("the test is over")
        assert fake.goodbyes == ["the test is over"]
        async with asyncio.timeout(10):
            await task
    assert len(fake.hellos) == 1
