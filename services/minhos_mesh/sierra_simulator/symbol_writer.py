"""Decides what of one symbol is written when: trades that are due, the order book around them, and nothing in gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD
from minhos_mesh.sierra_files.depth_writer import DepthWriter
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import HAS_ASK, HAS_BID, HAS_TIME, TickColumns, tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.domain.depth import DepthChange
from minhos_mesh.sierra_simulator.domain.feeds import SLOWEST_TICKS_PER_S, FeedKind
from minhos_mesh.sierra_simulator.domain.gaps import outside
from minhos_mesh.sierra_simulator.output import Output
from minhos_mesh.sierra_simulator.settings import SimulatorSettings

OnBook = Callable[[str, Mapping[int, int], Mapping[int, int]], None]
"""Given a symbol and its book once it is in the file: contracts by price in ticks, bids and asks."""

LONGEST_WAIT_S: Final = 1.0
"""How long the writer sleeps at most; the wall clock may have been set meanwhile."""

RETRY_S: Final = 1.0
"""Seconds until a disk that refused a write is tried again."""

CARRIED_OVER: Final = 200_000
"""Records of a random walk that another file in its place begins with."""


@dataclass(slots=True)
class Hindrance:
    """What keeps records from being written, on purpose; a number of faults that last."""

    silent: int = 0
    """Nothing is written; what was due comes later."""
    gap: int = 0
    """What is due is left out."""


class SymbolWriter:
    """Writes one feed; run() ends only by cancellation."""

    def __init__(
        self,
        output: Output,
        settings: SimulatorSettings,
        clock: Clock,
        *,
        on_written: Callable[[], None],
        on_problem: Callable[[], None],
        on_records: Callable[[str, Records], None] | None,
        on_book: OnBook | None,
    ) -> None:
        self.output = output
        self.symbol = str(output.symbol)
        self.hindrance = Hindrance()
        self.failure = ""
        """Why nothing can be written; empty when it can."""
        self.event_time_ns: int | None = None
        self.left_out = output.left_out
        """Records that fell into gaps."""
        self.paused = False
        self._writer = output.writer
        self._settings = settings
        self._clock = clock
        self._on_written = on_written
        self._on_problem = on_problem
        self._on_records = on_records
        self._on_book = on_book
        self._wake = asyncio.Event()
        self._depth: DepthWriter | None = None
        if output.book is not None:
            self._depth = DepthWriter(settings.folder, self.symbol, keep_days=settings.keep_depth_days)

    @property
    def path(self) -> Path:
        """The file of trades."""
        return self._writer.path

    @property
    def count(self) -> int:
        """Records in the file."""
        return self._writer.count

    @property
    def depth_path(self) -> Path | None:
        """The file of the order book that is written; None where there is none."""
        return None if self._depth is None else self._depth.path

    @property
    def depth_count(self) -> int:
        """Commands of the order book written so far."""
        return 0 if self._depth is None else self._depth.count

    @property
    def speed(self) -> float:
        """Ticks a second that were asked for, or how many times faster than it happened a recording is played."""
        return self.output.feed.speed / self.output.rate

    @property
    def ended(self) -> bool:
        """True when the recording is at its end."""
        return self.output.feed.next_due_ns(self._clock.wall_ns()) is None

    def wake(self) -> None:
        """Has it look again now."""
        self._wake.set()

    def set_speed(self, speed: float) -> None:
        """Changes the speed from now on. Raises SpeedRefused."""
        feed = self.output.feed
        if feed.kind is FeedKind.RANDOM_WALK and speed > SLOWEST_TICKS_PER_S:
            speed = max(SLOWEST_TICKS_PER_S, speed * self.output.rate)
        if speed != feed.speed:
            feed.set_speed(speed, self._clock.wall_ns())
            self.wake()

    def pause(self) -> None:
        """Writes nothing until resume()."""
        self.paused = True

    def resume(self) -> None:
        """Goes on from now, without making up for the pause."""
        self.paused = False
        self.output.feed.resume(self._clock.wall_ns())
        self.wake()

    def truncate(self) -> int:
        """Takes the last half of the records away and gives their number. Raises ScidError."""
        gone = self._writer.count - self._writer.count // 2
        self._writer.truncate(self._writer.count - gone)
        self.output.feed.seek(self._writer.count, self._clock.wall_ns())
        self.wake()
        return gone

    def replace(self) -> int:
        """Puts another file with the same records in the place of the file, and gives their number. Raises ScidError.

        Of a random walk it has at most CARRIED_OVER, the newest.
        """
        walking = self.output.feed.kind is FeedKind.RANDOM_WALK
        first = max(0, self._writer.count - CARRIED_OVER) if walking else 0
        with ScidFile(self._writer.path) as file:
            records = np.array(file.read(first, self._writer.count - first))
        old, self._writer = self._writer, ScidWriter.create(self._writer.path, records)
        old.close()
        self.wake()
        return len(records)

    def close(self) -> None:
        """Gives files back; run() must have ended."""
        self._writer.close()
        if self._depth is not None:
            self._depth.close()

    async def run(self) -> None:
        """Writes what is due."""
        pending: Records | None = None
        while True:
            if pending is None and not self.paused and not self.hindrance.silent:
                pending = self._due()
            if pending is not None and len(pending) and not self._append(pending):
                await self._sleep(RETRY_S)
                continue
            pending = None
            await self._sleep(self._wait_s())

    def _due(self) -> Records:
        records = self.output.feed.due(self._clock.wall_ns())
        kept = records
        if self.hindrance.gap:
            kept = records[:0]
        elif self._settings.gaps and self.output.feed.kind is FeedKind.RANDOM_WALK:
            since_us = records["time_us"] - EPOCH_SHIFT_US - self.output.since_us
            kept = records[outside(self._settings.gaps, since_us)]
        self.left_out += len(records) - len(kept)
        return kept

    def _append(self, records: Records) -> bool:
        try:
            self._writer.append(records)
        except ScidError as error:
            self._fail(str(error))
            return False
        if self._on_records is not None:
            self._on_records(self.symbol, records)
        columns = tick_columns(records if self._depth is not None else records[-1:], self.output.tick_e9)
        if columns.flags[-1] & HAS_TIME:
            self.event_time_ns = int(columns.time_ns[-1])
        self._fail(self._append_depth(records, columns))
        self._on_written()
        return True

    def _append_depth(self, records: Records, columns: TickColumns) -> str:
        """Why the order book cannot be written; empty when it is. Trades go on without it."""
        book, depth = self.output.book, self._depth
        if book is None or depth is None:
            return ""
        batch: list[NDArray[Any]] = []
        try:
            for at, time_us in enumerate(records["time_us"].tolist()):
                if not columns.flags[at] & HAS_BID or not columns.flags[at] & HAS_ASK:
                    continue
                if depth.begins_day(time_us):
                    _write(depth, batch)
                    book.begin_file()
                bid, ask = (int(side[at]) // self.output.tick_e9 for side in (columns.bid_e9, columns.ask_e9))
                batch.append(_commands(time_us, book.follow(time_us, bid, ask), self.output.tick_e9))
                if depth.begins_day(time_us):
                    _write(depth, batch)
            _write(depth, batch)
            if self._on_book is not None:
                self._on_book(self.symbol, book.bids, book.asks)
        except ScidError as error:
            book.begin_file()
            return str(error)
        return ""

    def _fail(self, failure: str) -> None:
        if failure != self.failure:
            self.failure = failure
            self._on_problem()

    def _wait_s(self) -> float:
        now_ns = self._clock.wall_ns()
        idle = self.paused or self.hindrance.silent
        due_ns = None if idle else self.output.feed.next_due_ns(now_ns)
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


def _write(depth: DepthWriter, batch: list[NDArray[Any]]) -> None:
    if batch:
        depth.append(np.concatenate(batch))
        batch.clear()


def _commands(time_us: int, changes: list[DepthChange], tick_e9: int) -> NDArray[Any]:
    point = tick_e9 / 1e9
    rows = [
        (time_us, change.command, change.flags, change.num_orders, change.price_ticks * point, change.quantity, 0)
        for change in changes
    ]
    return np.array(rows, DEPTH_RECORD)
