"""A whole real mesh, started and ended by the commands of the README, and what it must not leave behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from tests.e2e.loaded_program import program
from tests.waiting import alive

from minhos_api.health.v1.service_health_pb2 import ServiceState
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.paths import MeshPaths, registry_address

MINHOS: Final = Path(sys.executable).with_name("minhos")
"""The command that the README names."""
SERVICES: Final = frozenset(service_names())
WHOLE: Final = ("up", "down")
"""Commands that always load their program as a person's do: they begin and end everything."""
STATES: Final = frozenset({"STARTING", "HEALTHY", "DEGRADED", "UNHEALTHY", "STOPPING", "STOPPED"})
CALL_S: Final = 10.0


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a newcomer: nothing of MinhOS in it but what is given."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MINHOS_", "GRPC_"))}
    return {**plain, **(settings or {})}


def processes_of(data_dir: Path) -> dict[int, str]:
    """Processes that were started for a data folder or hold a file of it open, with their command lines."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if (f"{data_dir} " in f"{command} " or f"{data_dir}/" in command or _holds(entry, data_dir)) and alive(
                int(entry.name)
            ):
                found[int(entry.name)] = command
    return found


def _holds(entry: Path, data_dir: Path) -> bool:
    for link in entry.joinpath("fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(f"{data_dir}/"):
                return True
    return False


def listening() -> set[int]:
    """Local ports on which anything listens."""
    rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return {int(row.split()[1].rpartition(":")[2], 16) for row in rows if row.split()[3] == "0A"}


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self.out + self.err

    def refused(self, *words: str) -> Done:
        """Asserts a clear refusal: a code that is not 0, all words, and no traceback."""
        assert self.code != 0, self.said
        assert "Traceback" not in self.said, self.said
        missing = [word for word in words if word not in self.said]
        assert not missing, f"{missing} not in: {self.said}"
        return self


@dataclass
class Mesh:
    """One mesh in one data folder."""

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    """Environment of its commands, `MINHOS_...`."""
    ports_seen: set[int] = field(default_factory=set)
    up_at: float = 0.0
    """When `up` was typed, seconds since the Unix epoch."""
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)

    @property
    def paths(self) -> MeshPaths:
        """Where its things are."""
        return MeshPaths(self.data_dir)

    def run(self, *arguments: str, timeout_s: float = 60.0) -> Done:
        """Runs `minhos ARGUMENTS --data-dir ...` to its end."""
        return self.run_as(self.settings, *arguments, timeout_s=timeout_s)

    def run_as(self, settings: Mapping[str, str], *arguments: str, timeout_s: float = 60.0) -> Done:
        """The same with other settings in the environment."""
        command, told = self.command(*arguments), environment(settings)
        if arguments[0] not in WHOLE:
            return Done(*program(MINHOS).run(command[1:], told, self.home(), timeout_s))
        done = subprocess.run(
            command, env=told, cwd=self.home(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def command(self, *arguments: str) -> list[str]:
        """The command line; options stand before a `--`."""
        return [str(MINHOS), *_with_folder(arguments, self.data_dir)]

    def home(self) -> Path:
        """A folder without a minhos.toml to run commands in."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        return self.data_dir.parent

    def ok(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Runs a command that must succeed; returns what it printed."""
        done = self.run(*arguments, timeout_s=timeout_s)
        assert done.code == 0, f"minhos {' '.join(arguments)} ended with {done.code}: {done.said}{self.logs()}"
        assert "Traceback" not in done.said, done.said
        return done.out

    def json(self, *arguments: str) -> Any:
        """The one JSON document that a command prints."""
        return json.loads(self.ok(*arguments, "--json"))

    def up(self, *arguments: str) -> str:
        """`minhos up --detach`; returns once everything is HEALTHY."""
        self.up_at = time.time()
        said = self.ok("up", "--detach", *arguments)
        self.services()
        return said

    def down(self) -> str:
        """`minhos down`."""
        self.close_channels()
        return self.ok("down")

    def end(self) -> None:
        """Ends whatever is left, by force if it must, and asserts that force was not needed."""
        if not processes_of(self.data_dir):
            self.close_channels()
            return
        with contextlib.suppress(AssertionError):
            self.services()
        self.close_channels()
        done = self.run("down")
        left = processes_of(self.data_dir)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert done.code == 0, done.said
        assert not left, f"left after `minhos down`: {left}"
        self.assert_no_port()

    def assert_nothing_left(self) -> None:
        """Asserts that no process and no listening port of this mesh is left."""
        assert processes_of(self.data_dir) == {}
        self.assert_no_port()

    def assert_no_port(self) -> None:
        """Asserts that nothing listens where this mesh listened."""
        assert self.ports_seen
        assert not self.ports_seen & listening()

    def close_channels(self) -> None:
        """Lets go of all connections of the test."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def logs(self) -> str:
        """The last lines of what its processes wrote to their standard error."""
        found = sorted(self.paths.log_dir.glob("*.stderr.log")) if self.paths.log_dir.exists() else []
        texts = [(path.name, path.read_text(encoding="utf-8", errors="replace")) for path in found]
        return "".join(f"\n--- {name}\n{text[-1500:]}" for name, text in texts if text)

    @property
    def registry(self) -> str:
        """Address of the registry."""
        address = registry_address(self.paths)
        assert address is not None
        return address

    def services(self) -> dict[str, registry_pb.Service]:
        """All services as the registry lists them, by name."""
        stub = RegistryServiceStub(self.channel(self.registry))
        listed = stub.ListServices(registry_pb.ListServicesRequest(), timeout=CALL_S, wait_for_ready=True)
        for service in listed.services:
            self.ports_seen.update(int(i.address.rpartition(":")[2]) for i in service.instances if i.address)
        return {service.name: service for service in listed.services}

    def addresses(self) -> dict[str, str]:
        """Where each service listens now."""
        return {name: s.instances[0].address for name, s in self.services().items() if s.instances}

    def pids(self) -> dict[str, int]:
        """The process of each service now."""
        return {name: s.instances[0].pid for name, s in self.services().items() if s.instances}

    def channel(self, address: str) -> grpc.Channel:
        """A channel to an address, one for all its calls."""
        if address not in self._channels:
            self._channels[address] = grpc.insecure_channel(address)
        return self._channels[address]

    def stub(self, kind: Callable[[grpc.Channel], object]) -> Any:
        """A stub at the present address of its contract; each call has a deadline and waits for the service."""
        module = kind.__module__.removesuffix("_pb2_grpc")
        contract = f"{module.rpartition('.')[0]}.{getattr(kind, '__name__', '').removesuffix('Stub')}"
        found = [s for s in self.services().values() if contract in s.contracts and s.instances]
        assert found, f"nobody serves {contract}"
        return Calls(kind(self.channel(found[0].instances[0].address)))

    def healthy(self) -> bool:
        """Whether all services are there and HEALTHY."""
        try:
            listed = self.services()
        except grpc.RpcError:
            return False
        return set(listed) == SERVICES and {state_of(service) for service in listed.values()} == {"HEALTHY"}

    def log_entries(self, service: str) -> list[dict[str, Any]]:
        """The log of a service, one dict per line."""
        text = self.paths.log_file(service).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


class Calls:
    """A stub whose calls have a deadline and wait for the service."""

    def __init__(self, stub: object) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._stub, name), timeout=CALL_S, wait_for_ready=True)


def state_of(service: registry_pb.Service) -> str:
    """`HEALTHY` and its like."""
    return ServiceState.Name(service.state).removeprefix("SERVICE_STATE_")


def _with_folder(arguments: Sequence[str], data_dir: Path) -> list[str]:
    """The arguments with the data folder among the options, which stand before a `--`."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], "--data-dir", str(data_dir), *arguments[end:]]


@contextlib.contextmanager
def started(data_dir: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Iterator[Mesh]:
    """A mesh that is up, and down again afterwards."""
    made = Mesh(data_dir, dict(settings or {}))
    try:
        made.up(*arguments)
        yield made
    finally:
        made.end()
