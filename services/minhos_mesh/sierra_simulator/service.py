"""Decides what the simulator does with all its symbols together, and what is told about it; one task for each of them writes."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
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
from minhos_mesh.sierra_simulator.domain.faults import Fault, FaultOrder
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind, SpeedRefused
from minhos_mesh.sierra_simulator.faults import DtcFaults, FaultBoard
from minhos_mesh.sierra_simulator.output import Output, open_output
from minhos_mesh.sierra_simulator.settings import SettingsRefused, SimulatorSettings
from minhos_mesh.sierra_simulator.symbol_writer import OnBook, SymbolWriter


class Activity(enum.Enum):
    """Whether the simulator writes."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ENDED = "ENDED"
    FAILED = "FAILED"


class SimulatorFailed(Exception):
    """Expected: nothing can be written; the text says why."""


@dataclass(frozen=True, slots=True)
class SymbolStatus:
    """What is written of one symbol."""

    symbol: str
    file: Path
    records_written: int
    event_time_ns: int | None
    depth_file: Path | None
    depth_records_written: int


@dataclass(frozen=True, slots=True)
class SimulatorStatus:
    """What the simulator is doing; where one symbol is told of, it is the first."""

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
    faults: tuple[Fault, ...] = ()
    """What goes wrong on purpose now, the oldest first."""
    symbols: tuple[SymbolStatus, ...] = ()
    passes: int | None = None
    records_left_out: int = 0


class SierraSimulator:
    """Writes its feeds from start() on, with tasks that belong to the group it is given."""

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        clock: Clock,
        tasks: OwnedTasks,
        others: Sequence[SimulatorSettings] = (),
        on_problem: Callable[[str], None] | None = None,
        on_records: Callable[[str, Records], None] | None = None,
        on_book: OnBook | None = None,
        open_feed: Callable[[SimulatorSettings, int], Output] = open_output,
        dtc: DtcFaults | None = None,
    ) -> None:
        """`others` are further symbols. `on_problem` is told why nothing can be written, and the empty text once it can.

        `on_records` is given the symbol and the records of each write once they are in the file, `on_book` the order
        book behind them. `dtc` is what can go
        wrong with a DTC server; None where none is served.
        """
        self._settings = (settings, *others)
        self._tasks = tasks
        self._on_problem = on_problem
        self._on_records = on_records
        self._on_book = on_book
        self._clock = clock
        self._open = open_feed
        self._writers: list[SymbolWriter] = []
        self._failure = ""
        self._first_revision = self._revision = first_revision(clock)
        self._progress = asyncio.Event()
        self._board = FaultBoard(self._writers, clock, dtc, self._tell)

    async def start(self) -> None:
        """Writes marker and history and goes on from there. Raises SimulatorFailed with what is wrong."""
        try:
            for settings in self._settings:
                self._writers.append(self._opened(settings))
        except (ScidError, SettingsRefused, SpeedRefused, SymbolError, InstrumentError, OSError) as error:
            self._failure = str(error)
            raise SimulatorFailed(self._failure) from error
        for writer in self._writers:
            self._tasks.start(writer.run(), f"simulator writer {writer.symbol}")
        self._tasks.start(self._board.run(), "simulator faults")

    def close(self) -> None:
        """Closes the files; the group's tasks must have ended."""
        for writer in self._writers:
            writer.close()

    def status(self) -> SimulatorStatus:
        """What is written and how far."""
        settings = self._settings[0]
        walking = settings.feed is FeedKind.RANDOM_WALK
        first = self._writers[0] if self._writers else None
        return SimulatorStatus(
            settings.feed,
            self._activity(),
            "" if first is None else first.symbol,
            None if first is None else first.path,
            0 if first is None else first.count,
            None if first is None else first.output.feed.total,
            None if first is None else first.event_time_ns,
            0.0 if first is None else first.speed,
            settings.seed if walking else None,
            self._problem(),
            tuple(self._board.active()),
            tuple(_symbol_status(writer) for writer in self._writers),
            None if walking or settings.passes == 0 else settings.passes,
            sum(writer.left_out for writer in self._writers),
        )

    # What goes wrong on purpose.

    def inject(self, order: FaultOrder) -> Fault:
        """Begins a fault. Raises FaultRefused, FaultNotPossible, FaultConflict, TooManyFaults, SimulatorFailed."""
        self._running()
        try:
            return self._board.inject(order)
        except ScidError as error:
            raise SimulatorFailed(str(error)) from error

    def faults(self) -> list[Fault]:
        """Faults that last and the last of those that are over, the newest first."""
        return self._board.listing()

    def clear_faults(self, request_id: str) -> list[Fault]:
        """Ends one fault, or all with the empty id. Raises FaultUnknown."""
        return self._board.clear(request_id)

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
        writers = self._running()
        if speed == writers[0].speed:
            return
        for writer in writers:
            writer.set_speed(speed)
        self._tell()

    def pause(self) -> None:
        """Stops writing; a second call changes nothing. Raises SimulatorFailed."""
        writers = self._running()
        if not writers[0].paused:
            for writer in writers:
                writer.pause()
            self._tell()

    def resume(self) -> None:
        """Writes again after a pause; a second call changes nothing. Raises SimulatorFailed."""
        writers = self._running()
        if writers[0].paused:
            for writer in writers:
                writer.resume()
            self._tell()

    def _opened(self, settings: SimulatorSettings) -> SymbolWriter:
        output = self._open(settings, self._clock.wall_ns())
        return SymbolWriter(
            output, settings, self._clock,
            on_written=self._tell, on_problem=self._problem_changed, on_records=self._on_records,
            on_book=self._on_book,
        )  # fmt: skip

    def _running(self) -> list[SymbolWriter]:
        if not self._writers or self._failure:
            raise SimulatorFailed(self._failure or "the simulator has not begun")
        return self._writers

    def _activity(self) -> Activity:
        if not self._writers or self._problem():
            return Activity.FAILED
        if all(writer.ended for writer in self._writers):
            return Activity.ENDED
        return Activity.PAUSED if self._writers[0].paused else Activity.RUNNING

    def _problem(self) -> str:
        return self._failure or next((writer.failure for writer in self._writers if writer.failure), "")

    def _problem_changed(self) -> None:
        self._tell()
        if self._on_problem is not None:
            self._on_problem(self._problem())

    def _tell(self) -> None:
        self._revision += 1
        self._progress.set()
        self._progress = asyncio.Event()


def _symbol_status(writer: SymbolWriter) -> SymbolStatus:
    return SymbolStatus(
        writer.symbol, writer.path, writer.count, writer.event_time_ns, writer.depth_path, writer.depth_count
    )
