"""Decides what is asked of the operating system about a process: which one it is, whether it lives, what it uses."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Reading:
    """What costs next to nothing to read of a process: some tens of microseconds."""

    start_ticks: int
    """When it began, in clock ticks since boot; together with the pid it names one process for good."""
    cpu_seconds: float
    rss_bytes: int
    threads: int
    open_files: int | None
    """None when that is not allowed to be read."""


def read(pid: int) -> Reading | None:
    """What a process uses; None when there is no such process."""
    fields = _stat(pid)
    if fields is None:
        return None
    return Reading(
        start_ticks=int(fields[19]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        threads=int(fields[17]),
        open_files=_open_files(pid),
    )


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields is not None else None


def started_ns(ticks: int) -> int:
    """When a process began that was started so many clock ticks after boot; ns since the Unix epoch."""
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return booted_ns + ticks * 10**9 // _TICKS_PER_SECOND


def pss_bytes(pid: int) -> int | None:
    """Its proportional share of memory; None when that cannot be read. Walks its memory map: some milliseconds."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


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


def _open_files(pid: int) -> int | None:
    folder = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 the size of the folder is their number; before, it is 0 and they are counted.
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208 - once a second for each process
    except OSError:
        return None
