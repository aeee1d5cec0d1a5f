"""What a keeper leaves for its successor: who holds the data folder, and which processes were started from it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from minhos_mesh.node import identity
from minhos_mesh.runtime.keeper_protocol import ProcessExit, ProcessInfo

_VERSION: Final = 1


class KeeperAlreadyRunning(Exception):
    """Expected: another keeper holds this data folder."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"a keeper already runs for {data_dir}: {holder}")
        self.pid = pid


class RecordUnreadable(Exception):
    """Unexpected: keeper.json is damaged, so processes may run that nobody knows of."""


class KeeperLock:
    """The lock that makes a keeper the only one of its data folder; the kernel frees it when the keeper ends."""

    def __init__(self, path: Path, data_dir: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).split()
            self.close()
            raise KeeperAlreadyRunning(data_dir, int(holder[0]) if holder and holder[0].isdigit() else None) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Closes this process's hold; the lock itself is freed when all who inherited it have closed theirs."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(slots=True)
class KeeperRecord:
    """The content of keeper.json."""

    sequence: int = 0
    """Sequence of the last exit."""
    socket: str = ""
    """Where the last keeper listened."""
    processes: list[ProcessInfo] = field(default_factory=list)
    exits: list[ProcessExit] = field(default_factory=list)
    """The latest exits, the oldest first."""
    heard: dict[str, int] = field(default_factory=dict)
    """Last exit that each named follower was told of."""


def load(path: Path) -> KeeperRecord:
    """Reads what the last keeper left; empty when there was none or the machine has booted since.

    Raises RecordUnreadable.
    """
    try:
        value = json.loads(path.read_text())
        if value["version"] != _VERSION:
            raise ValueError(f"version {value['version']}, this program knows {_VERSION}")
        if value["boot_id"] != identity.boot_id():
            return KeeperRecord(sequence=value["sequence"], socket=value["socket"])
        return KeeperRecord(
            sequence=value["sequence"],
            socket=value["socket"],
            processes=[ProcessInfo.from_json(item) for item in value["processes"]],
            exits=[ProcessExit.from_json(item) for item in value["exits"]],
            heard=dict(value["heard"]),
        )
    except FileNotFoundError:
        return KeeperRecord()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordUnreadable(
            f"{path}: {error}; end the processes of this mesh by hand, then remove the file"
        ) from error


def save(path: Path, record: KeeperRecord, processes: Iterable[ProcessInfo]) -> None:
    """Replaces keeper.json at once: a reader sees the old content or the new one.

    It outlives the keeper's death; loss of power makes its content moot, so it is not forced to disk.
    """
    value: dict[str, Any] = {
        "version": _VERSION,
        "pid": os.getpid(),
        "start_ticks": identity.start_ticks(os.getpid()),
        "boot_id": identity.boot_id(),
        "socket": record.socket,
        "sequence": record.sequence,
        "processes": [process.to_json() for process in processes],
        "exits": [item.to_json() for item in record.exits],
        "heard": record.heard,
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)
