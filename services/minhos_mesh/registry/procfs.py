"""Decides what is asked of the operating system about a process: which one it is, whether it lives, what it uses."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has taken."""

    memory_bytes: int | None
    """Its proportional share of memory; None when that is not allowed to be read."""
    cpu_seconds: float


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields is not None else None


def usage(pid: int) -> Usage | None:
    """What a process uses; None when there is no such process. Reads the memory map: about a millisecond."""
    fields = _stat(pid)
    if fields is None:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return Usage(_proportional_bytes(pid), cpu)


async def connects(host: str, port: int, timeout: float) -> bool | None:
    """Whether somebody listens there: False when the connection is refused, None when there is no answer in time."""
    try:
        async with asyncio.timeout(timeout):
            _reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return None
    except OSError:
        return False
    writer.close()
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name of the program, from the state on; zombies count as gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def _proportional_bytes(pid: int) -> int | None:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None
