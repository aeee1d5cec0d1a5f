"""What needs no Python: a client in Node finds, calls and reads the mesh, and a service in Node serves a contract of it whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Final

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tests.e2e.running_mesh import Mesh, environment, state_of
from tests.waiting import until

from minhos_api.brain.v1 import ai_brain_service_pb2 as brain_pb
from minhos_api.brain.v1 import brain_events_pb2, signal_pb2
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1 import tick_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.mesh.v1 import service_control_service_pb2 as control_pb
from minhos_api.mesh.v1.service_control_service_pb2_grpc import ServiceControlServiceStub
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1 import supervisor_service_pb2 as supervisor_pb
from minhos_api.registry.v1.supervisor_service_pb2_grpc import SupervisorServiceStub

pytestmark = pytest.mark.timeout(300)

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = ROOT / "examples" / "node"
BRAIN: Final = "minhos_api.brain.v1.AIBrainService"
REGISTRY: Final = "minhos_api.registry.v1.RegistryService"
CONTROL: Final = "minhos_api.mesh.v1.ServiceControlService"
NAME: Final = "node_brain"
OFFLINE: Final = ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT", "ECONNRESET", "ENETUNREACH", "ENOTCACHED")
OLDEST_NODE: Final = (20, 3)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here: the Node examples need Node {OLDEST_NODE[0]} or newer with npm")
    return path


@pytest.fixture(scope="session")
def packages() -> Path:
    """What the lock file asks for, installed once for each lock file and never into the source tree."""
    said = subprocess.run([tool("node"), "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    if tuple(int(part) for part in said.strip().removeprefix("v").split("."))[:2] < OLDEST_NODE:
        pytest.skip(f"node is {said.strip()}: the Node examples need {'.'.join(map(str, OLDEST_NODE))} or newer")
    digest = hashlib.sha256((EXAMPLE / "package-lock.json").read_bytes()).hexdigest()[:16]
    cached = ROOT / "build" / "node-packages" / digest
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cached.parent))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / name, made)
        npm = [tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        done = subprocess.run(npm, cwd=made, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode != 0:
            shutil.rmtree(made)
            if any(word in done.stderr for word in OFFLINE):
                pytest.skip(f"npm cannot reach its registry: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        made.rename(cached)
    return cached / "node_modules"


@pytest.fixture(scope="session")
def programs(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples beside the contracts and what was installed for them."""
    tree = tmp_path_factory.mktemp("node")
    folder = tree / "examples" / "node"
    folder.mkdir(parents=True)
    for source in (*EXAMPLE.glob("*.mjs"), EXAMPLE / "package.json"):
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(packages)
    (tree / "proto").mkdir()
    shutil.copy(ROOT / "proto" / "contracts.binpb", tree / "proto")
    return folder


def decimal(e9: int) -> str:
    text = f"{Decimal(e9) / 10**9:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- the client ------------------------------------------------------------------------------------------------------


def watch_prices(programs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("node"), "watch_prices.mjs", *arguments],
        cwd=programs, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ticks_from(mesh: Mesh, symbol: str, epoch: int, first: int, last: int) -> dict[int, tick_pb2.Tick]:
    """What Python reads of the same market, by sequence."""
    after = market_pb.MarketPosition(symbol=symbol, epoch=epoch, sequence=first - 1)
    subscription = market_pb.MarketSubscription(
        symbols=[symbol], kinds=[market_pb.MARKET_DATA_KIND_TICKS], resume_after=[after]
    )
    found: dict[int, tick_pb2.Tick] = {}
    stream = mesh.stub(MarketDataProviderServiceStub).StreamMarketData(
        market_pb.StreamMarketDataRequest(subscription=subscription)
    )
    for update in stream:
        if update.WhichOneof("message") == "ticks":
            found.update(enumerate(update.ticks.ticks, update.ticks.first_sequence))
        if found and max(found) >= last:
            break
    stream.cancel()
    return found


def shown(tick: tick_pb2.Tick) -> str:
    """A tick as the example prints it behind its time."""
    parts = [f"{decimal(tick.price_e9)} x {tick.size}"] if tick.flags & tick_pb2.TICK_FLAG_HAS_PRICE else []
    parts += [f"bid {decimal(tick.bid_e9)}"] if tick.flags & tick_pb2.TICK_FLAG_HAS_BID else []
    parts += [f"ask {decimal(tick.ask_e9)}"] if tick.flags & tick_pb2.TICK_FLAG_HAS_ASK else []
    return " ".join(parts)


def test_a_client_in_node_sees_the_prices_and_ticks_that_python_sees(mesh: Mesh, programs: Path) -> None:
    done = watch_prices(programs, mesh.registry, "7")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    where, last, *lines = done.stdout.splitlines()
    assert where == f"market_data at {mesh.addresses()['market_data']}"
    symbol, price, provenance, epoch, sequence = re.fullmatch(r"(\S+) (\S+) (\S+) (\d+):(\d+)", last).groups()  # type: ignore[union-attr] # fails the test when it does not match
    assert provenance == "PROVENANCE_SIMULATED"
    ticks = [re.fullmatch(r"(\d+):(\d+) (\S+)Z (.*)", line).groups() for line in lines]  # type: ignore[union-attr] # likewise
    assert {tick[0] for tick in ticks} == {epoch}
    first = int(ticks[0][1])
    assert [int(tick[1]) for tick in ticks] == list(range(first, first + 7))
    read = ticks_from(mesh, symbol, int(epoch), int(sequence) - 100, first + 6)
    assert [tick[3] for tick in ticks] == [shown(read[int(tick[1])]) for tick in ticks]
    traded = [t.price_e9 for at, t in read.items() if at <= int(sequence) and t.flags & tick_pb2.TICK_FLAG_HAS_PRICE]
    assert price == decimal(traded[-1])


def test_a_client_in_node_loses_no_tick_when_market_data_is_killed(own: Mesh, programs: Path) -> None:
    own.settings["MINHOS_FEED__TICKS_PER_SECOND"] = "25"
    own.up()
    command = [tool("node"), "watch_prices.mjs", own.registry, "60"]
    with subprocess.Popen(command, cwd=programs, env=environment(), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        lines = iter(client.stdout)
        places = [line.split()[0].split(":") for _place, line in zip(range(12), lines, strict=False)][2:]
        os.kill(own.pids()["market_data"], signal.SIGKILL)
        places += [line.split()[0].split(":") for line in lines]
    assert client.returncode == 0
    assert len({epoch for epoch, _sequence in places}) == 1
    first = int(places[0][1])
    assert [int(sequence) for _epoch, sequence in places] == list(range(first, first + 60))


@pytest.mark.parametrize("arguments", [(), ("nowhere",), ("127.0.0.1:1", "0"), ("127.0.0.1:1", "-1")])
def test_the_client_says_how_it_is_used(programs: Path, arguments: tuple[str, ...]) -> None:
    done = watch_prices(programs, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: node watch_prices.mjs")


def test_programs_that_find_no_registry_say_where_they_looked(programs: Path) -> None:
    nobody = "127.0.0.1:1"
    asked = {"env": environment(), "cwd": programs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = {
        program: subprocess.Popen([tool("node"), f"{program}.mjs", nobody], **asked)  # type: ignore[call-overload] # keywords of Popen
        for program in ("watch_prices", "brain")
    }
    for program, code in (("watch_prices", 1), ("brain", 3)):
        out, told = started[program].communicate(timeout=60)
        assert (started[program].returncode, out) == (code, ""), told
        assert told.startswith(f"no registry answers at {nobody} (asked for 3 s: "), told
        assert "`minhos ports registry` prints the address of yours" in told


# --- the service -----------------------------------------------------------------------------------------------------


class Program:
    """A running brain in Node and what it logs."""

    def __init__(self, programs: Path, registry: str) -> None:
        self.process = subprocess.Popen(
            [tool("node"), "brain.mjs", registry],
            cwd=programs, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.entries: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, lines: IO[str]) -> None:
        self.entries.extend(json.loads(line) for line in lines)

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in list(self.entries) if entry["event"] == event]

    def until_said(self, event: str, times: int = 1) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = self.said(event)
            return found[times - 1] if len(found) >= times else None

        return until(there, f"{event} {times} times in {self.entries}")

    def ended(self, within_s: float = 10.0) -> tuple[int, str]:
        """Exit code and what stands on standard error."""
        assert self.process.stderr is not None
        code = self.process.wait(within_s)
        self._reader.join(within_s)
        return code, self.process.stderr.read()

    def kill(self) -> None:
        self.process.kill()
        self.ended()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def run(programs: Path) -> Iterator[Callable[[str], Program]]:
    """Starts a brain at a registry; it is ended after the test."""
    running: list[Program] = []

    def start(registry: str) -> Program:
        running.append(Program(programs, registry))
        return running[-1]

    yield start
    for program in running:
        program.kill()


ASK = """
import asyncio, sys
import grpc
from google.protobuf.json_format import MessageToJson, Parse
from minhos_api.brain.v1 import ai_brain_service_pb2 as pb
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_mesh.runtime.clients import Clients, bootstrap_xds
from minhos_mesh.runtime.errors import read

async def main(registry, method, request):
    bootstrap_xds(registry, "test")
    clients = Clients()
    try:
        answer = await getattr(clients.stub(AIBrainServiceStub), method)(Parse(request, getattr(pb, method + "Request")()))
        print(MessageToJson(answer))
    except grpc.aio.AioRpcError as error:
        told = read(error)
        print(told.code.name, told.reason, told.metadata)
    finally:
        await clients.close()

asyncio.run(main(*sys.argv[1:]))
"""


def ask(mesh: Mesh, method: str, request: dict[str, Any] | None = None) -> str:
    """What a program of its own gets that knows only the registry and the name of the contract."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, mesh.registry, method, json.dumps(request or {})],
        env=environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def instance(mesh: Mesh) -> registry_pb.Instance:
    return mesh.services()[NAME].instances[0]


def healthy(mesh: Mesh) -> bool:
    """Whether the brain in Node is listed HEALTHY and in rotation."""
    try:
        service = mesh.services().get(NAME)
    except grpc.RpcError:
        return False
    return service is not None and state_of(service) == "HEALTHY" and service.instances[0].in_rotation


def told_signals(mesh: Mesh) -> list[signal_pb2.Signal]:
    """Signals in the journal that came from the brain in Node."""
    listed = mesh.stub(EventBusServiceStub).ListEvents(
        bus_pb.ListEventsRequest(types=["ai.signal_generated"], page_size=1000)
    )
    payloads = [event.payload for event in listed.events if event.source == NAME]
    return [brain_events_pb2.SignalGenerated.FromString(payload.value).signal for payload in payloads]


def without_its_brain(mesh: Mesh) -> None:
    """Stops the brain in Python, as the example asks for."""
    request = supervisor_pb.StopServiceRequest(service="ai_brain")
    assert list(SupervisorServiceStub(mesh.channel(mesh.registry)).StopService(request, timeout=30))


def test_a_brain_in_node_replaces_the_one_in_python(own: Mesh, run: Callable[[str], Program]) -> None:
    own.up()
    beside = run(own.registry)
    code, error = beside.ended()
    assert (code, "ai_brain" in error, "stop it first" in error) == (3, True, True), error

    without_its_brain(own)
    brain = run(own.registry)
    until(lambda: healthy(own), "the brain in Node is HEALTHY")
    here = instance(own)
    assert (here.pid, here.version) == (brain.process.pid, "0.1.0")
    assert sorted(own.services()[NAME].contracts) == [BRAIN, CONTROL]
    assert set(here.versions) >= {"node"}
    assert set(own.services()[NAME].depends_on_services) == {"event_bus", "market_data"}

    # It is called by the name of its contract, and answers as the contract says.
    published = brain.until_said("signal.published")["signal_id"]
    current = json.loads(ask(own, "GetCurrentSignal"))["signal"]
    assert current["signalId"] == published
    generated = json.loads(ask(own, "GenerateSignal"))["signal"]
    assert generated["quote"]["provenance"] == "PROVENANCE_SIMULATED"
    assert set(generated["reasons"][0]["values"]) == {"fast", "slow", "range"}
    assert "NOT_FOUND ERROR_REASON_SYMBOL_UNKNOWN" in ask(own, "GetCurrentSignal", {"symbol": "NOPEZ26-CME"})
    listed = json.loads(ask(own, "ListSignals"))
    assert [row["signalId"] for row in listed["signals"]][-1] == published
    assert int(listed["progress"][0]["bars"]) >= 20

    # What it tells is a fact of the mesh, which the engine takes in.
    assert published in {told.signal_id for told in told_signals(own)}
    until(
        lambda: any(entry.get("signal_id") == published for entry in own.log_entries("trading_engine")),
        "the trading engine has decided about the signal",
    )

    # The registry dies: the brain serves on, and comes back to the next one as who it was.
    token, registry = here.fencing_token, own.pids()["registry"]
    os.kill(registry, signal.SIGKILL)
    direct = AIBrainServiceStub(own.channel(here.address))
    assert direct.GetCurrentSignal(brain_pb.GetCurrentSignalRequest(), timeout=5).HasField("signal")
    brain.until_said("attach.granted", times=2)
    until(lambda: healthy(own) and own.pids()["registry"] != registry, "the brain is HEALTHY at the next registry")
    assert instance(own).pid == brain.process.pid
    assert brain.said("attach.granted")[1]["fencing_token"] == str(instance(own).fencing_token)
    assert instance(own).fencing_token >= token
    key = f"{NAME}/{here.instance_id}"
    came = [entry for entry in own.log_entries("registry") if entry["event"] == "instance.attached"]
    assert [entry["resumed"] for entry in came if entry["instance_key"] == key] == [False, True]
    assert json.loads(ask(own, "GenerateSignal"))

    # It leaves in order.
    brain.process.send_signal(signal.SIGTERM)
    assert brain.ended() == (0, "")
    assert brain.entries[-1]["event"] == "service.ended"
    until(lambda: NAME not in own.services(), "the brain in Node is gone from the list")
    gone = [entry for entry in own.log_entries("registry") if entry["event"] == "instance.gone"]
    assert [entry["in_order"] for entry in gone if entry["instance_key"] == key] == [True]

    # A person drains it like any other service.
    brain = run(own.registry)
    until(lambda: healthy(own), "the next brain in Node is HEALTHY")
    control = ServiceControlServiceStub(own.channel(instance(own).address))
    described = control.Describe(control_pb.DescribeRequest(), timeout=5)
    assert (described.name, list(described.contracts)) == (NAME, [BRAIN, CONTROL])
    with pytest.raises(grpc.RpcError) as refusal:
        control.Drain(control_pb.DrainRequest(), timeout=5)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    control.Drain(control_pb.DrainRequest(reason="test", deadline=duration_pb2.Duration(seconds=2)), timeout=5)
    assert brain.ended() == (0, "")
    assert brain.until_said("service.ending")["reason"] == "drain: test"


# --- the lease -------------------------------------------------------------------------------------------------------


@dataclass
class ScriptedRegistry:
    """A registry that grants, and then does to each attached instance what the script says."""

    script: list[str]
    heard: Queue[tuple[int, str, Any]] = field(default_factory=Queue)
    """Number of the stream, kind and content of each message."""
    streams: int = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        """The two methods that an instance needs of it."""
        resolve = grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: registry_pb.ResolveResponse(),
            registry_pb.ResolveRequest.FromString,
            registry_pb.ResolveResponse.SerializeToString,
        )
        attach = grpc.stream_stream_rpc_method_handler(
            self._attach, registry_pb.AttachRequest.FromString, registry_pb.AttachResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(REGISTRY, {"Resolve": resolve, "Attach": attach})

    def _attach(
        self, requests: Iterator[registry_pb.AttachRequest], context: grpc.ServicerContext
    ) -> Iterator[registry_pb.AttachResponse]:
        number, self.streams = self.streams, self.streams + 1
        for request in requests:
            kind = str(request.WhichOneof("message"))
            self.heard.put((number, kind, getattr(request, kind)))
            if kind == "goodbye":
                return
            if kind == "hello":
                granted = registry_pb.AttachGranted(lease_id="l", fencing_token=2**63 + number)
                granted.heartbeat_interval.FromMilliseconds(50)
                yield registry_pb.AttachResponse(granted=granted)
                continue
            action = self.script[number] if number < len(self.script) else "stay"
            if action == "silent":
                continue
            if action == "stale":
                _refuse_as_stale(context)
            if action == "break":
                return
            if action == "drain":
                command = registry_pb.AttachCommand(action=registry_pb.AttachCommand.ACTION_DRAIN, reason="scripted")
                yield registry_pb.AttachResponse(command=command)
            yield registry_pb.AttachResponse(beat=registry_pb.AttachBeat())

    def next(self, kind: str) -> tuple[int, Any]:
        """The next message of a kind, with the number of its stream."""
        while True:
            try:
                number, heard, content = self.heard.get(timeout=15)
            except Empty:
                pytest.fail(f"no {kind} came")
            if heard == kind:
                return number, content


def _refuse_as_stale(context: grpc.ServicerContext) -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="ERROR_REASON_LEASE_STALE", domain="minhos"))
    code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
    context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message="stale", details=[detail])))


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[ScriptedRegistry, str]]]:
    """Starts a registry that follows a script; returns it with its address."""
    servers: list[grpc.Server] = []

    def start(*script: str) -> tuple[ScriptedRegistry, str]:
        registry, server = ScriptedRegistry(list(script)), grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((registry.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return registry, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait(10)


def test_a_lease_in_node_shows_its_token_after_a_break_and_forgets_a_stale_one(
    run: Callable[[str], Program], scripted: Callable[..., tuple[ScriptedRegistry, str]]
) -> None:
    registry, address = scripted("break", "silent", "stale", "stay")
    brain = run(address)
    hellos = [registry.next("hello") for _ in range(4)]
    assert [number for number, _hello in hellos] == [0, 1, 2, 3]
    tokens = [hello.fencing_token if hello.HasField("fencing_token") else None for _number, hello in hellos]
    assert tokens == [None, 2**63, 2**63 + 1, None]
    assert len({(hello.instance_id, hello.address, hello.pid) for _number, hello in hellos}) == 1
    assert brain.process.poll() is None


def test_a_hello_from_node_carries_its_contracts_as_the_image_has_them(
    run: Callable[[str], Program], scripted: Callable[..., tuple[ScriptedRegistry, str]]
) -> None:
    registry, address = scripted()
    run(address)
    _number, hello = registry.next("hello")
    _number, beat = registry.next("heartbeat")
    assert (hello.service, sorted(hello.contracts), beat.serving) == (NAME, [BRAIN, CONTROL], False)
    image = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "proto" / "contracts.binpb").read_bytes())
    known = {file.name: file for file in image.file}
    offered = descriptor_pb2.FileDescriptorSet.FromString(hello.descriptor_set).file
    assert {f"{file.package}.{service.name}" for file in offered for service in file.service} == {BRAIN, CONTROL}
    for place, file in enumerate(offered):
        assert file == known[file.name]
        assert set(file.dependency) <= {before.name for before in offered[:place]}


def test_a_service_in_node_obeys_a_command_to_drain(
    run: Callable[[str], Program], scripted: Callable[..., tuple[ScriptedRegistry, str]]
) -> None:
    registry, address = scripted("drain")
    brain = run(address)
    assert registry.next("goodbye")[1].reason == "registry: scripted"
    assert brain.ended() == (0, "")
