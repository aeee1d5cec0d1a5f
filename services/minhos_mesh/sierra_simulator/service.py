"""Decides when records are written, and what is told about it; one task writes, and is woken by every change."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.errors import position_lost
from minhos_mesh.runtime.instruments import InstrumentError
from minhos_mesh.runtime.symbols import SymbolError
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.runtime.watch import first_revision
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.ticks import HAS_TIME, tick_columns
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.output import Output, open_output
from minhos_mesh.sierra_simulator.settings import SettingsRefused, SimulatorSettings

LONGEST_WAIT_S = 1.0
"""How long the writer sleeps at most; the wall clock may have been set meanwhile."""

RETRY_S = 1.0
"""Seconds until a disk that refused a write is tried again."""


class Activity(enum.Enum):
    """Whether the simulator writes."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ENDED = "ENDED"
    FAILED = "FAILED"


class SimulatorFailed(Exception):
    """Expected: nothing can be written; the text says why."""


@dataclass(frozen=True, slots=True)
class SimulatorStatus:
    """What the simulator is doing."""

    feed: FeedKind
    activity: Activity
    symbol: str
    file: Path | None
    records_written: int
    """Records in the file, history included."""
    records_total: int | None
    event_time_ns: int | None
    speed: float
    seed: int | None
    failure: str = ""


class SierraSimulator:
    """Writes one feed from start() on, with a task that belongs to the group it is given."""

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        clock: Clock,
        tasks: OwnedTasks,
        on_problem: Callable[[str], None] | None = None,
        on_records: Callable[[str, Records], None] | None = None,
        open_feed: Callable[[SimulatorSettings, int], Output] = open_output,
    ) -> None:
        """`on_problem` is told why nothing can be written, and the empty text once it can.

        `on_records` is given the symbol and the records of each write once they are in the file.
        """
        self._settings = settings
        self._tasks = tasks
        self._on_problem = on_problem
        self._on_records = on_records
        self._clock = clock
        self._open = open_feed
        self._output: Output | None = None
        self._paused = False
        self._failure = ""
        self._event_time_ns: int | None = None
        self._wake = asyncio.Event()
        self._first_revision = self._revision = first_revision(clock)
        self._progress = asyncio.Event()

    async def start(self) -> None:
        """Writes marker and history and goes on from there. Raises SimulatorFailed with what is wrong."""
        try:
            self._output = self._open(self._settings, self._clock.wall_ns())
        except (ScidError, SettingsRefused, SymbolError, InstrumentError, OSError) as error:
            self._failure = str(error)
            raise SimulatorFailed(self._failure) from error
        self._tasks.start(self._write(self._output), "simulator writer")

    def close(self) -> None:
        """Closes the file; the group's tasks must have ended."""
        if self._output is not None:
            self._output.writer.close()

    def status(self) -> SimulatorStatus:
        """What is written and how far."""
        output, settings = self._output, self._settings
        walking = settings.feed is FeedKind.RANDOM_WALK
        return SimulatorStatus(
            settings.feed,
            self._activity(),
            "" if output is None else str(output.symbol),
            None if output is None else output.writer.path,
            0 if output is None else output.writer.count,
            None if output is None else output.feed.total,
            self._event_time_ns,
            0.0 if output is None else output.feed.speed,
            settings.seed if walking else None,
            self._failure,
        )

    @property
    def revision(self) -> int:
        """Counts writes and changes, from a number that no earlier life of the service has reached."""
        return self._revision

    def check_revision(self, after: int) -> None:
        """Raises MeshError OUT_OF_RANGE for a revision that this life of the service has not told."""
        if not self._first_revision <= after <= self._revision:
            raise position_lost(after, self._first_revision, self._revision)

    async def wait_progress(self, after: int, timeout_s: float) -> None:
        """Returns once there is a revision behind `after`, or when the time is over."""
        progress = self._progress
        if self._revision > after:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await progress.wait()
        except TimeoutError:
            return

    def set_speed(self, speed: float) -> None:
        """Changes the speed from now on. Raises SpeedRefused, SimulatorFailed."""
        feed = self._running_output().feed
        if speed != feed.speed:
            feed.set_speed(speed, self._clock.wall_ns())
            self._changed()

    def pause(self) -> None:
        """Stops writing; a second call changes nothing. Raises SimulatorFailed."""
        self._running_output()
        if not self._paused:
            self._paused = True
            self._changed()

    def resume(self) -> None:
        """Writes again after a pause; a second call changes nothing. Raises SimulatorFailed."""
        output = self._running_output()
        if self._paused:
            self._paused = False
            output.feed.resume(self._clock.wall_ns())
            self._changed()

    def _running_output(self) -> Output:
        if self._output is None:
            raise SimulatorFailed(self._failure or "the simulator has not begun")
        return self._output

    def _activity(self) -> Activity:
        if self._output is None or self._failure:
            return Activity.FAILED
        if self._output.feed.next_due_ns(self._clock.wall_ns()) is None:
            return Activity.ENDED
        return Activity.PAUSED if self._paused else Activity.RUNNING

    def _changed(self) -> None:
        self._wake.set()
        self._tell()

    def _tell(self) -> None:
        self._revision += 1
        self._progress.set()
        self._progress = asyncio.Event()

    async def _write(self, output: Output) -> None:
        pending: Records | None = None
        while True:
            if pending is None and not self._paused:
                pending = output.feed.due(self._clock.wall_ns())
            if pending is not None and len(pending) and not self._append(output, pending):
                await self._sleep(RETRY_S)
                continue
            pending = None
            await self._sleep(self._wait_s(output))

    def _append(self, output: Output, records: Records) -> bool:
        try:
            output.writer.append(records)
        except ScidError as error:
            self._fail(str(error))
            return False
        self._fail("")
        if self._on_records is not None:
            self._on_records(str(output.symbol), records)
        columns = tick_columns(records[-1:], 1)
        if columns.flags[0] & HAS_TIME:
            self._event_time_ns = int(columns.time_ns[0])
        self._tell()
        return True

    def _fail(self, failure: str) -> None:
        if failure != self._failure:
            self._failure = failure
            self._tell()
            if self._on_problem is not None:
                self._on_problem(failure)

    def _wait_s(self, output: Output) -> float:
        now_ns = self._clock.wall_ns()
        due_ns = None if self._paused else output.feed.next_due_ns(now_ns)
        return LONGEST_WAIT_S if due_ns is None else min(LONGEST_WAIT_S, max(0, due_ns - now_ns) / 1e9)

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
