"""What a service said last: the end of its own log and of its crash output, as lines for people."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from minhos_mesh.runtime.keeper_protocol import KeeperPaths

_READ_BYTES: Final = 32 * 1024
_MAX_LINE: Final = 400
_PLAIN_FIELDS: Final = frozenset(
    {"timestamp", "time", "level", "event", "message", "service", "instance", "instance_id"}
)


class LogTails:
    """`Logs` over the log folder of a mesh."""

    def __init__(self, data_dir: Path, *, lines: int = 10) -> None:
        self._paths = KeeperPaths(data_dir)
        self._lines = lines
        self._marks: dict[Path, int] = {}

    def mark(self, service: str) -> None:
        """Remembers where the logs of a service end now."""
        for path in self._files(service):
            self._marks[path] = _size(path)

    async def tail(self, service: str, instance_id: str | None = None) -> tuple[str, ...]:
        """The last lines of the log and of the crash output since the mark, at most so many of each.

        With an instance, lines that name another instance are left out: all instances of a service share its log.
        """
        return await asyncio.to_thread(self.read, service, instance_id)

    def read(self, service: str, instance_id: str | None = None) -> tuple[str, ...]:
        """As `tail`, at once."""
        return tuple(
            _readable(line)
            for path in self._files(service)
            for line in _last_lines(path, self._marks.get(path, 0), self._lines, instance_id)
        )

    def _files(self, service: str) -> tuple[Path, Path]:
        return self._paths.service_log(service), self._paths.service_stderr_log(service)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_lines(path: Path, mark: int, count: int, instance_id: str | None) -> list[str]:
    size = _size(path)
    start = max(mark if mark <= size else 0, size - _READ_BYTES)
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read(_READ_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip() and _may_be_of(instance_id, line)][-count:]


def _may_be_of(instance_id: str | None, line: str) -> bool:
    """Whether a line was written by this instance, as far as the line says."""
    if instance_id is None or '"instance":' not in line:
        return True
    return f'"instance": "{instance_id}"' in line or f'"instance":"{instance_id}"' in line


def _readable(line: str) -> str:
    """`ERROR port taken port=8888` for a line of JSON; any other line as it is."""
    try:
        value = json.loads(line)
    except ValueError:
        return line[:_MAX_LINE]
    if not isinstance(value, dict):
        return line[:_MAX_LINE]
    event = value.get("event", value.get("message", ""))
    fields = " ".join(f"{key}={_short(item)}" for key, item in value.items() if key not in _PLAIN_FIELDS)
    return f"{str(value.get('level', '')).upper()} {event} {fields}".strip()[:_MAX_LINE]


def _short(item: object) -> str:
    """The last line of a text of many, which is what a traceback ends with."""
    lines = str(item).strip().splitlines()
    return lines[-1] if lines else ""
