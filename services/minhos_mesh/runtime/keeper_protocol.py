"""What the keeper and its clients say to each other: JSON lines over a Unix socket in the run folder of a mesh.

A request is one line `{"op": ..., ...}`. The answer is one line `{"ok": true, ...}` or
`{"ok": false, "code": ..., "error": ...}`; `follow` and `shutdown` send lines `{"event": "exit", "exit": {...}}` before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

MAX_LINE_BYTES: Final = 1024 * 1024
"""A longer line is refused."""

MAX_SOCKET_PATH_BYTES: Final = 100
"""Linux takes 107; a longer path is replaced by a short one that keeper.json names."""

MAX_SILENCE_S: Final = 600.0
"""Longest silence after which a keeper can be told to give up the registry."""


@dataclass(frozen=True, slots=True)
class KeeperPaths:
    """Where the keeper of one data folder keeps its things."""

    data_dir: Path

    @property
    def run_dir(self) -> Path:
        """For what is there while a keeper runs."""
        return self.data_dir / "run"

    @property
    def log_dir(self) -> Path:
        """All logs of the mesh."""
        return self.data_dir / "log"

    @property
    def lock(self) -> Path:
        """Held by the keeper for its life; names its pid."""
        return self.run_dir / "keeper.lock"

    @property
    def record(self) -> Path:
        """What the keeper runs, for its successor."""
        return self.run_dir / "keeper.json"

    @property
    def socket(self) -> Path:
        """The usual place of the socket; `current_socket` says where it is."""
        return self.run_dir / "keeper.sock"

    @property
    def log(self) -> Path:
        """The keeper's own log, JSON lines."""
        return self.log_dir / "keeper.log"

    @property
    def stderr_log(self) -> Path:
        """What a keeper said that could not start."""
        return self.log_dir / "keeper.stderr.log"

    def service_stderr_log(self, service: str) -> Path:
        """Where a service's standard output and crash output go."""
        return self.log_dir / f"{service}.stderr.log"

    def service_log(self, service: str) -> Path:
        """Where a service writes its own log."""
        return self.log_dir / f"{service}.log"

    def socket_fits(self) -> bool:
        """Whether the usual place has a path that a socket can have."""
        return len(str(self.socket).encode()) <= MAX_SOCKET_PATH_BYTES

    def current_socket(self) -> Path | None:
        """Where a running keeper listens; None when the path is too long for a socket and no keeper has noted another."""
        if self.socket_fits():
            return self.socket
        try:
            noted = json.loads(self.record.read_text()).get("socket")
        except (OSError, ValueError, AttributeError):
            return None
        return Path(noted) if isinstance(noted, str) and noted else None


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One process to start. The same `instance_id` again, while it runs, answers with the running process."""

    service: str
    instance_id: str
    argv: tuple[str, ...] | None = None
    """Command line of a program that is not one of the mesh's own services; None forks the service of that name."""
    environment: Mapping[str, str] | None = None
    """The whole environment of the child; None gives it the keeper's."""
    log_path: str | None = None
    """Absolute file for standard output and error, appended to; None is `<data>/log/<service>.stderr.log`."""

    def to_json(self) -> dict[str, Any]:
        """As it stands on the wire."""
        argv = None if self.argv is None else list(self.argv)
        environment = None if self.environment is None else dict(self.environment)
        return {
            "op": "spawn",
            "service": self.service,
            "instance_id": self.instance_id,
            "argv": argv,
            "environment": environment,
            "log_path": self.log_path,
        }


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process that the keeper runs."""

    service: str
    instance_id: str
    pid: int
    start_ticks: int
    """Start of the process in clock ticks since boot; with the pid it names one process and no other."""
    started_ns: int
    """When it was started, ns since the Unix epoch."""
    log_path: str
    adopted: bool = False
    """Whether an earlier keeper started it; its exit status will not be known."""
    root: bool = False
    """Whether the keeper itself restarts it."""

    def to_json(self) -> dict[str, Any]:
        """As it stands on the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises ValueError when a field is missing."""
        return cls(**_checked(cls, value))


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """The end of a process. `code` and `signal` are both None when nobody could see how it ended."""

    sequence: int
    """Grows by one with every exit that this data folder's keepers saw."""
    service: str
    instance_id: str
    pid: int
    code: int | None
    signal: int | None
    time_ns: int
    """When the keeper saw it, ns since the Unix epoch."""
    lived_s: float
    """How long it ran, seconds."""

    def to_json(self) -> dict[str, Any]:
        """As it stands on the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises ValueError when a field is missing."""
        return cls(**_checked(cls, value))


@dataclass(frozen=True, slots=True)
class RootState:
    """How the service stands that the keeper itself restarts."""

    service: str
    running: bool
    failures: int
    """Ends in a row without a good run between them."""
    retry_in_s: float | None
    """Seconds until the next attempt; None while it runs."""
    last_exit: ProcessExit | None

    def to_json(self) -> dict[str, Any]:
        """As it stands on the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises ValueError when a field is missing."""
        checked = _checked(cls, value)
        last_exit = checked["last_exit"]
        checked["last_exit"] = None if last_exit is None else ProcessExit.from_json(last_exit)
        return cls(**checked)


@dataclass(frozen=True, slots=True)
class KeeperState:
    """What a keeper runs."""

    pid: int
    data_dir: str
    processes: tuple[ProcessInfo, ...]
    root: RootState | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError or ValueError when a field is missing."""
        root = value["root"]
        return cls(
            pid=value["pid"],
            data_dir=value["data_dir"],
            processes=tuple(ProcessInfo.from_json(item) for item in value["processes"]),
            root=None if root is None else RootState.from_json(root),
        )


def encode(message: Mapping[str, Any]) -> bytes:
    """One line of the protocol."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _checked(cls: type[Any], value: object) -> dict[str, Any]:
    """The fields of a dataclass out of JSON. Raises ValueError naming the missing field."""
    if not isinstance(value, dict):
        raise ValueError(f"{cls.__name__}: not an object: {value!r}")  # noqa: TRY004 - wrong data, not a wrong call
    names = [field.name for field in fields(cls)]
    missing = [name for name in names if name not in value]
    if missing:
        raise ValueError(f"{cls.__name__}: without {', '.join(missing)}")
    return {name: value[name] for name in names}
