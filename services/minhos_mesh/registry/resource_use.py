"""Decides how often the processes of this machine are looked at for what they use, and how little that may cost.

Each second: processor time, memory held, threads and open files, together some tens of microseconds for a process. Its
proportional share of memory costs a hundred times that and is read in a thread, each process once in thirty seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from minhos_mesh.registry import procfs
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.resources import CpuMark, ResourceUse, cpu_percent
from minhos_mesh.runtime.clock import Clock

LOOK_S: Final = 1.0
"""How often processes are looked at."""
PSS_S: Final = 30.0
"""How often the proportional share of memory of one process is read."""
CPU_MARKS: Final = 4
"""Looks over which the share of a core is taken."""
MOST_AT_ONCE: Final = 100
"""Processes in one look; when there are more, they take turns."""
MOST_PSS_AT_ONCE: Final = 5
"""Memory maps read after one look."""


@dataclass(slots=True)
class _Process:
    start_ticks: int
    marks: deque[CpuMark] = field(default_factory=lambda: deque(maxlen=CPU_MARKS))
    pss_bytes: int | None = None
    pss_due: float = 0.0


class ResourceSampler:
    """Looks at the processes behind all instances, each process once however many instances it has."""

    def __init__(self, instances: Callable[[], Iterable[Present]], clock: Clock) -> None:
        """`instances` gives all that are there; those of other machines have a process that is not the one seen here."""
        self._instances, self._clock = instances, clock
        self._processes: dict[int, _Process] = {}
        self._uses: dict[int, ResourceUse] = {}
        self._turn = 0

    @property
    def uses(self) -> Mapping[int, ResourceUse]:
        """What was seen last, by process id."""
        return self._uses

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self.look()
            await self.weigh()
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_S)

    def look(self) -> None:
        """Reads what is cheap, and forgets processes that are gone."""
        pids = self._pids()
        for pid in self._uses.keys() - pids.keys():
            del self._uses[pid]
        for pid in self._processes.keys() - pids.keys():
            del self._processes[pid]
        for pid in self._next_of(sorted(pids)):
            self._read(pid, pids[pid])

    async def weigh(self) -> None:
        """Reads the proportional share of memory of the processes whose turn it is, off the event loop."""
        now = self._clock.monotonic()
        due = [pid for pid, process in self._processes.items() if process.pss_due <= now][:MOST_PSS_AT_ONCE]
        for pid in due:
            process = self._processes[pid]
            process.pss_due = now + PSS_S
            process.pss_bytes = await asyncio.to_thread(procfs.pss_bytes, pid)
            if (use := self._uses.get(pid)) is not None and self._processes.get(pid) is process:
                self._uses[pid] = replace(use, pss_bytes=process.pss_bytes)

    def _pids(self) -> dict[int, int | None]:
        """The processes to look at, with their starts where these are known."""
        return {p.pid: p.process_started for p in self._instances() if p.pid is not None and not p.gone}

    def _next_of(self, pids: list[int]) -> list[int]:
        if len(pids) <= MOST_AT_ONCE:
            return pids
        begin = self._turn % len(pids)
        self._turn = begin + MOST_AT_ONCE
        return (pids[begin:] + pids[:begin])[:MOST_AT_ONCE]

    def _read(self, pid: int, expected_start: int | None) -> None:
        reading = procfs.read(pid)
        if reading is None or expected_start not in (None, reading.start_ticks):
            self._uses.pop(pid, None)
            self._processes.pop(pid, None)
            return
        process = self._processes.get(pid)
        if process is None or process.start_ticks != reading.start_ticks:
            process = self._processes[pid] = _Process(reading.start_ticks)
        process.marks.append(CpuMark(self._clock.monotonic(), reading.cpu_seconds))
        self._uses[pid] = ResourceUse(
            cpu_seconds=reading.cpu_seconds,
            sampled_ns=self._clock.wall_ns(),
            cpu_percent=cpu_percent(process.marks),
            rss_bytes=reading.rss_bytes,
            pss_bytes=process.pss_bytes,
            open_files=reading.open_files,
            threads=reading.threads,
        )
