"""Decides who feeds a symbol, who is told of its ticks, and when the source of a replay has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from minhos_mesh.market_data.domain.feed import Ingested, Provenance, Source, SymbolFeed
from minhos_mesh.market_data.domain.reading import SymbolReader
from minhos_mesh.market_data.live_depth import LiveDepth
from minhos_mesh.market_data.one_source import OneSource
from minhos_mesh.market_data.ports import Owner
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.tick_layout import Row, TickArray

STEP_TICKS = 65_536
"""So many ticks are taken before the readers get their turn."""


class Recording(Protocol):
    """Keeps what is sequenced."""

    def took(self, feed: SymbolFeed) -> None:
        """Something was sequenced."""

    def flush(self, feed: SymbolFeed) -> None:
        """The generation may be given up next."""

    @property
    def crowded(self) -> bool:
        """Whether to ask for room before more comes."""

    async def room(self) -> None:
        """Returns when more may come."""


class LiveFeed(OneSource):
    """One symbol while the service runs: the feed, its one source and its readers."""

    def __init__(
        self,
        feed: SymbolFeed,
        clock: Clock,
        *,
        replay_readers: int,
        grace_s: float,
        recording: Recording | None = None,
    ) -> None:
        """A replay waits for `replay_readers` lossless readers before it overwrites the first tick that is held.

        A lossless reader that has gone is waited for during `grace_s`, so that it can resume.
        """
        super().__init__(feed.symbol)
        self.feed = feed
        self.depth = LiveDepth(feed.depth)
        """Its order book."""
        self._recording = recording
        # Less than is held, so that what has come is handed to the recording before it is overwritten.
        self._step = STEP_TICKS if recording is None else min(STEP_TICKS, feed.ring.capacity // 2)
        self.ended = False
        """Whether the source said that no more records will come."""
        self.ticked = True
        """Whether something came since it was looked last; `silent_since_s` begins when nothing did."""
        self.silent_since_s = clock.monotonic()
        self.wakers: set[Callable[[], None]] = set()
        """Of those that read anything of it; of its order book others."""
        self._clock = clock
        self._replay_readers, self._grace_s = replay_readers, grace_s
        self._lossless_seen = 0
        self._holders: set[SymbolReader] = set()
        self._releases: set[asyncio.TimerHandle] = set()
        self._room = asyncio.Event()

    def open(self, source: Source, owner: Owner) -> int:
        """Connects a source; returns the position after which it is to send.

        A new stream of the same source and epoch takes the place of the old one, which ends with SourceConflict: it
        may be half open. Raises SourceConflict while another source or epoch is connected, ProvenanceRefused as the
        feed does.
        """
        self._refuse_another(self.feed.source, source)
        epoch = self.feed.epoch
        if self._recording is not None:
            self._recording.flush(self.feed)
        position = self.feed.open(source)
        if self.feed.epoch != epoch:
            self._lossless_seen = len(self._holders)
        self._seat(source, owner)
        self.ended = False
        self._room.set()
        return position

    def ingest_one(self, row: Row, wire: bytes, position: int, owner: Owner) -> Ingested | None:
        """Takes one record at once, as `ingest` would; None when that has to be asked instead."""
        feed, recording = self.feed, self._recording
        if owner is not self.owner or not feed.follows(position) or (recording is not None and recording.crowded):
            return None
        if feed.provenance is Provenance.REPLAY and not self.room():
            return None
        taken = feed.ingest_one(row, wire, self._clock.wall_ns())
        self._took()
        return taken

    async def ingest(self, ticks: TickArray, position: int, owner: Owner) -> Ingested | None:
        """Takes records and tells the readers; waits while a replay is ahead of a lossless reader by all that is held.

        Returns what became of them where all were taken in one step.
        """
        at, count, step = 0, len(ticks), 0
        taken: Ingested | None = None
        while at < count:
            step = min(self._room_now(owner) or await self._room_for(owner), count - at)
            few = ticks[at : at + step] if step < count else ticks
            taken = self.feed.ingest(few, position + at, self._clock.wall_ns())
            self._took()
            at += step
            if self._recording is not None and self._recording.crowded:
                await self._recording.room()
            if at < count:
                await asyncio.sleep(0)
        return taken if step == count else None

    def _took(self) -> None:
        self.ticked = True
        for wake in self.wakers:
            wake()
        if self._recording is not None:
            self._recording.took(self.feed)

    def _room_now(self, owner: Owner) -> int:
        if self.owner is not owner and self.feed.source is not None:
            raise self._replaced(self.feed.source)
        return min(self.room(), self._step)

    async def _room_for(self, owner: Owner) -> int:
        while not (room := self._room_now(owner)):
            self._room.clear()
            await self._room.wait()
        return room

    def room(self) -> int:
        """Ticks that may come now."""
        ring = self.feed.ring
        if self.feed.provenance is not Provenance.REPLAY:
            return ring.capacity
        read_through = min((holder.held_through for holder in self._holders), default=ring.newest)
        if self._lossless_seen < self._replay_readers:
            read_through = 0
        return min(ring.capacity, max(0, ring.capacity - ring.newest + read_through))

    @property
    def readers_missing(self) -> int:
        """Lossless readers that have not come yet and for which a replay now waits; 0 when it does not wait for them."""
        missing = self._replay_readers - self._lossless_seen
        return max(0, missing) if self.room() == 0 else 0

    def silent_for(self) -> float:
        """Seconds without a tick, as far as was looked: call it about once a second."""
        now = self._clock.monotonic()
        if self.ticked:
            self.ticked, self.silent_since_s = False, now
        return now - self.silent_since_s

    def hold(self, reader: SymbolReader) -> None:
        """The source is to wait for this reader."""
        self._holders.add(reader)
        self._lossless_seen += 1
        self._room.set()

    def release(self, reader: SymbolReader) -> None:
        """The reader has gone; the source goes on without it after the time of grace."""
        if reader not in self._holders:
            return

        def let_go() -> None:
            self._holders.discard(reader)
            self._releases.discard(handle)
            self._room.set()

        handle = asyncio.get_running_loop().call_later(self._grace_s, let_go)
        self._releases.add(handle)

    def read_on(self) -> None:
        """A reader has come further."""
        self._room.set()

    def shut(self) -> None:
        """Forgets what was to happen later."""
        for handle in self._releases:
            handle.cancel()
        self._releases.clear()
