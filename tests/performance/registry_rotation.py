"""Measures how fast calls follow the instances of a contract: one that comes, one that crashes, one that freezes, one that leaves.

The registry, each instance that is killed or frozen, and the clients are processes of their own; the clients are stock
gRPC with `xds:///` and nothing of this project in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from tests.performance.mesh_run import MeshFailed
from tests.performance.results import Metric, Reach, Settings, percentile
from tests.performance.rotation_instance import CONTRACT, ONCE, REPEATABLE, SERVICE, RotationInstance

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.paths import MeshPaths

_CALLER: Final = Path(__file__).parents[1] / "contract" / "discovery" / "caller.py"
_INSTANCE: Final = Path(__file__).with_name("rotation_instance.py")
_RUN: Final = "import sys; from minhos_mesh.runtime.host import run_service; sys.exit(run_service(*sys.argv[1:]))"
_READY_S: Final = 20.0
_TARGET: Final = f"xds:///{CONTRACT}"
_CALL_TIMEOUT_S: Final = 0.2
_WORKERS: Final = 4
_PAUSE_S: Final = 0.001
JOINS: Final = 10
"""New endpoints in each round."""


class Piped:
    """A process that is spoken to in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> Any:
        """The next line. Raises MeshFailed when there is none."""
        assert self.process.stdout is not None, "stdout is a pipe"
        line = await asyncio.wait_for(self.process.stdout.readline(), _READY_S)
        if not line:
            raise MeshFailed("a process of the measurement ended by itself")
        return json.loads(line)

    async def ask(self, op: str, **given: Any) -> Any:
        """One question and its answer."""
        assert self.process.stdin is not None, "stdin is a pipe"
        self.process.stdin.write((json.dumps({"op": op, **given}) + "\n").encode())
        return await self.read()


class Rotation:
    """A registry process, and what is measured on it."""

    def __init__(self, folder: Path) -> None:
        self.paths = MeshPaths(folder)
        self.address = ""
        self._processes: list[asyncio.subprocess.Process] = []

    async def spawn(self, *command: str) -> Piped:
        """A Python process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._processes.append(process)
        return Piped(process)

    async def start(self) -> None:
        """Starts the registry and waits until it answers. Raises MeshFailed."""
        self.paths.create()
        configuration.save(configuration.load(None, environment={}).resolved(datetime.now(UTC)), self.paths.config_file)
        await self.spawn("-c", _RUN, "registry", "registry-1", str(self.paths.data_dir))
        end = time.monotonic() + _READY_S
        while not self.paths.mesh_file.exists():
            if time.monotonic() > end:
                raise MeshFailed(f"the registry was not there after {_READY_S:g} s")
            await asyncio.sleep(0.01)
        self.address = json.loads(self.paths.mesh_file.read_text(encoding="utf-8"))["address"]
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = rpc.RegistryServiceStub(channel)
            await stub.ListServices(pb.ListServicesRequest(), timeout=_READY_S, wait_for_ready=True)

    async def stop(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))

    async def client(self) -> Piped:
        """A stock client."""
        client = await self.spawn(str(_CALLER), self.address, "local")
        await client.read()
        return client

    async def instance(self, instance_id: str, clients: Sequence[Piped]) -> asyncio.subprocess.Process:
        """An instance in a process of its own that all these clients call. Raises MeshFailed."""
        made = await self.spawn(str(_INSTANCE), self.address, instance_id)
        await made.read()
        for client in clients:
            found = await client.ask(
                "until", path=REPEATABLE, target=_TARGET, wanted=instance_id, limit=_READY_S, timeout=1.0
            )
            if found["at"] is None:
                raise MeshFailed(f"{instance_id} was not called within {_READY_S:g} s; the last answer: {found['who']}")
        return made.process


@contextlib.asynccontextmanager
async def rotation(folder: Path) -> AsyncIterator[Rotation]:
    """A registry in a folder of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    made = Rotation(folder)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def load(client: Piped, path: str) -> None:
    """Lets a client call without end."""
    await client.ask("start", path=path, target=_TARGET, timeout=_CALL_TIMEOUT_S, workers=_WORKERS, pause=_PAUSE_S)


class Failed:
    """What a client saw go wrong after an instant of the monotonic clock."""

    def __init__(self, report: dict[str, Any], instant: float) -> None:
        wrong = [who for who in report["by"] if ": " in who]
        self.texts = {who: report["by"][who] for who in wrong}
        self.calls = sum(self.texts.values())
        self.last_start_ms = max((1_000 * (report["last"][who] - instant) for who in wrong), default=0.0)
        self.last_end_ms = max((1_000 * (report["ended"][who] - instant) for who in wrong), default=0.0)


async def new_endpoint(settings: Settings) -> Sequence[Metric]:
    """From the first word of an instance to the registry until a client's first call on it, under load."""
    rounds: list[list[float]] = []
    async with rotation(settings.folder / "new-endpoint") as mesh:
        client = await mesh.client()
        await mesh.instance("steady", [client])
        await load(client, REPEATABLE)
        for number in range(settings.rounds + 1):
            delays = [await _join(mesh, f"new-{number}-{join}") for join in range(JOINS)]
            if number:
                rounds.append(delays)
                settings.say(f"round {number}: a new endpoint was called after {percentile(delays, 0.5):.1f} ms (p50)")
        failed = Failed(await client.ask("stop"), 0.0)
    every = [delay for delays in rounds for delay in delays]
    return [
        Metric("new instance -> first call on it, p50", "ms", [percentile(delays, 0.5) for delays in rounds]),
        Metric(
            f"new instance -> first call on it, p99 of {len(every)}",
            "ms",
            [percentile(delays, 0.99) for delays in rounds],
            over_all=percentile(every, 0.99),
        ),
        Metric("failed calls while they came and went", "calls", [float(failed.calls)], reach=Reach(1.0)),
    ]


async def _join(mesh: Rotation, instance_id: str) -> float:
    instance = RotationInstance(mesh.address, instance_id)
    await instance.listen()
    begun = time.monotonic()
    instance.attach()
    first = await asyncio.wait_for(instance.first_call_at, _READY_S)
    await instance.leave()
    return 1_000 * (first - begun)


async def crash(settings: Settings) -> Sequence[Metric]:
    """SIGKILL of one of two instances under load, as clients see it that may repeat their calls and that may not."""
    last, once, repeated = [], [], []
    async with _two_clients(settings, "crash") as (mesh, never, may):
        for number in range(1, settings.rounds + 1):
            killed = await mesh.instance(f"victim-{number}", [never, may])
            instant = await _after_load(never, may, killed, signal.SIGKILL, 0.5)
            seen, spared = Failed(await never.ask("stop"), instant), Failed(await may.ask("stop"), instant)
            last.append(seen.last_end_ms)
            once.append(float(seen.calls))
            repeated.append(float(spared.calls))
            settings.say(
                f"round {number}: {seen.calls} calls failed, the last after {seen.last_end_ms:.1f} ms;"
                f" of those that may be repeated {spared.calls}"
            )
    return [
        Metric("crash of one of two: time to the last failed call", "ms", last, reach=Reach(50.0)),
        Metric("crash: failed calls that may not be repeated", "calls", once),
        Metric("crash: failed calls that may be repeated", "calls", repeated, reach=Reach(1.0)),
    ]


async def freeze(settings: Settings) -> Sequence[Metric]:
    """SIGSTOP of one of two instances under load: when the last call was sent to it, and how many failed."""
    out, once = [], []
    async with _two_clients(settings, "freeze") as (mesh, never, may):
        for number in range(1, settings.rounds + 1):
            frozen = await mesh.instance(f"victim-{number}", [never, may])
            instant = await _after_load(never, may, frozen, signal.SIGSTOP, 3.0)
            seen, same = Failed(await never.ask("stop"), instant), Failed(await may.ask("stop"), instant)
            out.append(max(seen.last_start_ms, same.last_start_ms) / 1_000)
            once.append(float(seen.calls))
            settings.say(f"round {number}: out of rotation after {out[-1]:.2f} s, {seen.calls} calls failed")
            frozen.kill()
            await frozen.wait()
    return [
        Metric("SIGSTOP of one of two: out of rotation after", "s", out, reach=Reach(2.0)),
        Metric(f"SIGSTOP: calls that failed at their deadline of {_CALL_TIMEOUT_S:g} s", "calls", once),
    ]


async def leave(settings: Settings) -> Sequence[Metric]:
    """An instance of two ends in order under load: no call fails, not even one that may not be repeated."""
    once, after = [], []
    async with _two_clients(settings, "leave") as (mesh, never, may):
        for number in range(1, settings.rounds + 1):
            name = f"victim-{number}"
            leaving = await mesh.instance(name, [never, may])
            instant = await _after_load(never, may, leaving, signal.SIGTERM, 0.5)
            report, other = await never.ask("stop"), await may.ask("stop")
            once.append(float(Failed(report, instant).calls + Failed(other, instant).calls))
            after.append(1_000 * (report["last"].get(name, instant) - instant))
            settings.say(f"round {number}: {once[-1]:g} calls failed, the last began {after[-1]:.1f} ms after SIGTERM")
    return [
        Metric("planned end of one of two: failed calls", "calls", once, reach=Reach(1.0)),
        Metric("planned end: last new call on it after SIGTERM", "ms", after),
    ]


@contextlib.asynccontextmanager
async def _two_clients(settings: Settings, name: str) -> AsyncIterator[tuple[Rotation, Piped, Piped]]:
    """One client whose calls are never repeated and one whose calls may be, on an instance that stays."""
    async with rotation(settings.folder / name) as mesh:
        never, may = await mesh.client(), await mesh.client()
        await mesh.instance("steady", [never, may])
        yield mesh, never, may


async def _after_load(
    never: Piped, may: Piped, process: asyncio.subprocess.Process, number: signal.Signals, wait_s: float
) -> float:
    """Sends a signal in the middle of the load, and says when that was on the monotonic clock."""
    await load(never, ONCE)
    await load(may, REPEATABLE)
    await asyncio.sleep(0.2)
    instant = time.monotonic()
    process.send_signal(number)
    await asyncio.sleep(wait_s)
    return instant


ROTATION: Final = (new_endpoint, crash, freeze, leave)
"""The parts in the order in which they are measured."""

__all__ = ["ROTATION", "SERVICE", "Failed", "Rotation", "crash", "freeze", "leave", "load", "new_endpoint", "rotation"]
