"""Decides how sequenced ticks are kept: written to the journal beside the tick path, which waits for the disk only at a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.history.domain.ranges import Ranges
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.journal import JournalWriter, held_of, runs_of, seal_all
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.market_data.domain.feed import SymbolFeed
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger

AT_ONCE: Final = 8_192
"""So many ticks, or a quarter of those held, are written as soon as they have come; fewer within a second."""
MOST_WAITING: Final = 32 * 1_048_576
"""Bytes that may wait for the disk before a source is held back."""
HELD_BACK_S: Final = 1.0
"""A source is held back no longer than this for each batch; after it ticks are left out, which the history tells as a gap."""
NOT_RECORDED: Final = "HISTORY_NOT_RECORDED"

_LOG = get_logger("market_data.recorder")


@dataclass(slots=True)
class _Recording:
    """One generation of one symbol while it is recorded."""

    series: Series
    epoch: int
    held: Ranges
    through: int = 0
    """All ticks up to here were handed over, were kept before, or are lost to the history."""
    left_out: int = 0


@dataclass(slots=True)
class Recorder:
    """Records what the feeds of one mesh sequence. `close` writes what is left."""

    places: HistoryPlaces
    provenances: Collection[str]
    """What is recorded."""
    conditions: Conditions
    waiting: int = 0
    """Bytes that wait for the disk."""
    _recordings: dict[str, _Recording] = field(default_factory=dict)
    _writers: dict[Series, tuple[int, JournalWriter]] = field(default_factory=dict)
    """Epoch and writer of each series; only the writing thread touches it."""
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "recorder"))
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def took(self, feed: SymbolFeed) -> None:
        """Something was sequenced."""
        recording = self._recordings.get(feed.symbol)
        if recording is None or recording.epoch != feed.epoch:
            recording = self._begin(feed)
        if recording is not None and feed.sequence - recording.through >= min(AT_ONCE, feed.ring.capacity // 4):
            self._hand_over(feed, recording)

    def flush(self, feed: SymbolFeed) -> None:
        """Hands over what has come; also before a generation is given up."""
        recording = self._recordings.get(feed.symbol)
        if recording is not None and recording.epoch == feed.epoch and feed.sequence > recording.through:
            self._hand_over(feed, recording)

    @property
    def crowded(self) -> bool:
        """Whether as much waits for the disk as may."""
        return self.waiting >= MOST_WAITING

    async def room(self) -> None:
        """Returns when less than the bound waits for the disk, or when that took too long."""
        self._room.clear()
        try:
            async with asyncio.timeout(HELD_BACK_S):
                await self._room.wait()
        except TimeoutError:
            _LOG.warning("history.disk_is_slow", waiting_bytes=self.waiting)

    async def written(self) -> None:
        """Returns when all that was handed over is in the journal."""
        await asyncio.get_running_loop().run_in_executor(self._thread, _nothing)

    async def seal(self) -> bool:
        """Ends the runs that are being written, so that they can be packed; returns whether there is anything to pack."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._seal)

    def close(self) -> None:
        """Writes what was handed over and ends the thread."""
        self._thread.submit(self._seal)
        self._thread.shutdown(wait=True)

    def _begin(self, feed: SymbolFeed) -> _Recording | None:
        source = feed.source
        if source is None or feed.epoch is None or source.provenance.name not in self.provenances:
            return None
        series = Series(source.provenance.name, feed.symbol)
        try:
            if series not in {each.series for each in self._recordings.values()}:
                seal_all(self.places, series)
            held = held_of(self.places, series).get(feed.epoch, Ranges())
        except OSError as error:
            self._failed(HistoryError(f"{self.places.journal_of(series)} cannot be read: {error.strerror}"))
            held = Ranges()
        recording = self._recordings[feed.symbol] = _Recording(series, feed.epoch, held)
        return recording

    def _hand_over(self, feed: SymbolFeed, recording: _Recording) -> None:
        first, last = recording.through + 1, feed.sequence
        recording.through = last
        for begin, end in recording.held.missing(first, last):
            oldest = max(begin, feed.ring.oldest)
            if self.waiting > 2 * MOST_WAITING:
                oldest = end + 1
            if lost := min(oldest, end + 1) - begin:
                recording.left_out += lost
                _LOG.warning("history.left_out", symbol=feed.symbol, ticks=lost, in_all=recording.left_out)
            if oldest <= end:
                wire = feed.ring.wire(oldest, end)
                recording.held.add(oldest, end)
                self._write_later(recording.series, recording.epoch, oldest, wire)

    def _write_later(self, series: Series, epoch: int, first: int, wire: bytes) -> None:
        self.waiting += len(wire)
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._write, series, epoch, first, wire)
        done.add_done_callback(self._written(len(wire)))

    def _written(self, size: int) -> Callable[[asyncio.Future[None]], None]:
        def done(written: asyncio.Future[None]) -> None:
            self.waiting -= size
            if self.waiting < MOST_WAITING:
                self._room.set()
            error = None if written.cancelled() else written.exception()
            if error is None:
                self.conditions.clear(NOT_RECORDED)
            else:
                self._failed(error)

        return done

    def _failed(self, error: BaseException) -> None:
        self.conditions.set(NOT_RECORDED, f"ticks are not kept: {error}")
        _LOG.error("history.not_recorded", message=str(error))

    def _write(self, series: Series, epoch: int, first: int, wire: bytes) -> None:
        known, writer = self._writers.get(series, (None, None))
        if writer is None or known != epoch or writer.next_sequence != first:
            if writer is not None:
                del self._writers[series]
                writer.seal()
            writer = JournalWriter.create(self.places, series, epoch, first)
            self._writers[series] = (epoch, writer)
        writer.append(wire)

    def _seal(self) -> bool:
        for series, (_, writer) in list(self._writers.items()):
            del self._writers[series]
            writer.seal()
        return any(runs_of(self.places, series, sealed_only=True) for series in self.places.series())


def _nothing() -> None:
    """Done when all before it is."""
