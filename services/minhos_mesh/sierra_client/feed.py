"""Decides how one file is followed: opened, resumed where market data stands, tailed, and taken up again for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import StorageError
from minhos_mesh.sierra_client.domain import (
    FeedState,
    Generation,
    Provenance,
    ProvenanceRefused,
    check_live,
    check_provenance,
    history_begins_ns,
    ingest_pause_s,
    may_be_rewritten,
    reads_whole_file,
)
from minhos_mesh.sierra_client.ports import IngestLink, IngestLost, IngestPort, IngestRefused, Opening
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.tail import GenerationLost, ScidTail
from minhos_mesh.sierra_client.wakeups import FolderWakeups, Wake
from minhos_mesh.sierra_files.header import ScidError, ScidIncomplete, ScidMissing
from minhos_mesh.sierra_files.layout import MARKER_NAME, Records
from minhos_mesh.sierra_files.marker import read_marker
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import HAS_PRICE, HAS_TIME, tick_columns, times_ns

CHUNK = 16_384
"""Most records in one batch."""

WINDOW = 65_536
"""Most records that are on their way without acknowledgement."""

_LOG = get_logger("sierra_client.feed")


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """What one feed follows."""

    path: Path
    symbol: str
    """Canonical symbol."""
    tick_e9: int
    """Price step of the instrument in 1e-9 units."""
    provenance: Provenance
    history_ns: int
    """How much is read of a real source that is seen for the first time, before its newest record or before now."""
    place: str = ""
    """What tells the source from a file of the same name elsewhere; empty for those that Sierra Chart writes."""

    @property
    def source(self) -> str:
        """Name of the source for people and logs."""
        return f"sierra_client:{self.place}/{self.path.name}" if self.place else f"sierra_client:{self.path.name}"


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """What a feed is doing, as one value."""

    symbol: str
    file: str
    provenance: Provenance
    state: FeedState
    reason: str = ""
    records_read: int = 0
    records_acknowledged: int = 0
    records_expected: int | None = None
    epoch: int = 0
    event_time_ns: int | None = None
    generation_reason: str = ""
    """Why this generation of the file was begun in the place of another; empty for the first one that was seen."""
    reconnects: int = 0
    connected: bool = False
    refused: bool = False
    """Whether it is in ERROR because of what the file is declared to be, which only another configuration ends."""


class FileFeed:
    """Follows one file for ever; run() ends only by cancellation."""

    def __init__(
        self,
        settings: FeedSettings,
        *,
        store: SourceStore,
        wakeups: FolderWakeups,
        ingest: IngestPort,
        clock: Clock,
        randomness: random.Random,
        on_change: Callable[[], None],
        live_refused: Callable[[], str] = lambda: "",
        live_final: Callable[[], bool] = lambda: False,
    ) -> None:
        """`live_refused` says why what is read here cannot count as LIVE, empty when it can; `live_final` whether for good."""
        self._live_refused, self._live_final = live_refused, live_final
        self.last_price_e9: int | None = None
        """The newest price that was sent; None before the first."""
        self._settings = settings
        self._store = store
        self._ingest = ingest
        self._clock = clock
        self._random = randomness
        self._on_change = on_change
        self._wakeup = wakeups.wakeup(settings.path.name)
        self._link: IngestLink | None = None
        self._lost = ""
        self._status = FeedStatus(
            settings.symbol, settings.path.name, settings.provenance, FeedState.WAITING_FOR_FILE, "not looked for yet"
        )

    @property
    def status(self) -> FeedStatus:
        """What the feed is doing now."""
        acknowledged = self._status.records_acknowledged if self._link is None else self._link.acknowledged
        return replace(self._status, records_acknowledged=acknowledged)

    async def run(self) -> None:
        """Follows the file; whatever goes wrong with it or with market data is a state and is tried again."""
        try:
            while True:
                try:
                    await self._follow()
                except GenerationLost as lost:
                    self._lost = str(lost)
                    _LOG.warning("feed.generation_ended", **self._who, epoch=self._status.epoch, reason=self._lost)
                    self._state(FeedState.READING, f"{lost}; its new generation is read from the beginning")
                    continue
                except (ScidMissing, ScidIncomplete) as waiting:
                    self._state(FeedState.WAITING_FOR_FILE, str(waiting))
                except ProvenanceRefused as error:
                    self._state(FeedState.ERROR, str(error), refused=error.final)
                except (ScidError, StorageError) as error:
                    self._state(FeedState.ERROR, str(error))
                await self._wakeup.wait()
        finally:
            self._wakeup.close()

    @property
    def _who(self) -> dict[str, str]:
        return {"symbol": self._settings.symbol, "file": self._settings.path.name}

    async def _follow(self) -> None:
        settings = self._settings
        marker = read_marker(settings.path.parent)
        check_provenance(settings.provenance, None if marker is None else MARKER_NAME)
        check_live(settings.provenance, self._live_refused(), final=self._live_final())
        with ScidFile(settings.path) as file:
            expected = None if marker is None else marker.records_expected.get(settings.path.name)
            tail = ScidTail(file, hold_last_bar=may_be_rewritten(settings.provenance))
            generation = await self._store.resolve(
                settings.path,
                tail.identity(),
                lambda: self._base_index(file),
                self._clock.wall_ns(),
                renew=bool(self._lost),
            )
            self._begin(generation, expected)
            failures = 0
            while True:
                refused, reason, served = await self._serve(tail, generation)
                failures = 1 if served else failures + 1
                self._disconnected(refused, reason)
                await self._pause(ingest_pause_s(failures, self._random, refused=refused))

    async def _serve(self, tail: ScidTail, generation: Generation) -> tuple[bool, str, bool]:
        """Sends until the way breaks: whether it was refused, why, and whether it had been open."""
        settings = self._settings
        opening = Opening(settings.source, settings.symbol, settings.provenance, generation.epoch)
        served = False
        try:
            async with self._ingest.connect(opening, self._wakeup.poke) as link:
                served = True
                self._link = link
                self._status = replace(self._status, connected=True)
                await self._pump(tail, generation, link)
            return False, "the way to market data was closed", served
        except IngestLost as lost:
            return False, str(lost), served
        except IngestRefused as refused:
            return True, str(refused), served
        finally:
            if self._link is not None:
                self._status = replace(self._status, records_acknowledged=self._link.acknowledged, connected=False)
                self._link = None

    async def _pump(self, tail: ScidTail, generation: Generation, link: IngestLink) -> None:
        sent = link.acknowledged
        tail.seek(generation.base_index + sent)
        self._status = replace(self._status, records_read=sent)
        ended = False
        wake = Wake.POKED
        while True:
            link.check()
            room = WINDOW - (sent - link.acknowledged)
            records = tail.read(min(CHUNK, room)) if room > 0 else None
            if records is not None and len(records):
                self._wakeup.note_growth(wake)
                wake = Wake.POKED
                await self._send(link, records, sent + 1)
                sent += len(records)
                continue
            link.wake_at(sent if room > 0 else sent - WINDOW // 2)
            ended = await self._idle(link, sent, ended) if room > 0 else ended
            wake = await self._wakeup.wait()

    async def _send(self, link: IngestLink, records: Records, first_position: int) -> None:
        columns = tick_columns(records, self._settings.tick_e9)
        replayed = self._settings.provenance is Provenance.REPLAY
        await link.send(columns, first_position, None if replayed else self._clock.wall_ns())
        status = self._status
        timed = bool(columns.flags[-1] & HAS_TIME)
        if columns.flags[-1] & HAS_PRICE:
            self.last_price_e9 = int(columns.price_e9[-1])
        self._status = replace(
            status,
            records_read=first_position + len(records) - 1,
            event_time_ns=int(columns.time_ns[-1]) if timed else status.event_time_ns,
        )
        if len(records) == CHUNK:
            self._state(FeedState.READING, "older records are read")

    async def _idle(self, link: IngestLink, sent: int, ended: bool) -> bool:
        """Says what there is to say when all records of the file are sent; True once the end was said."""
        expected = self._status.records_expected
        complete = expected is not None and sent >= expected
        if not complete:
            self._state(FeedState.TAILING, "")
            return ended
        if not ended:
            await link.end(sent)
        if link.acknowledged >= sent:
            self._state(FeedState.ENDED, "")
        else:
            self._state(FeedState.READING, "the file is complete, market data has yet to take its last records")
        return True

    def _base_index(self, file: ScidFile) -> int:
        if reads_whole_file(self._settings.provenance):
            return 0
        newest = file.read(max(0, file.count() - 1), 1)
        times, known = times_ns(newest["time_us"])
        newest_ns = int(times[0]) if known.any() else None
        return file.first_index_at(history_begins_ns(self._clock.wall_ns(), newest_ns, self._settings.history_ns))

    def _begin(self, generation: Generation, expected: int | None) -> None:
        reason, self._lost = self._lost or generation.instead, ""
        if generation.epoch != self._status.epoch:
            _LOG.info("feed.following", **self._who, epoch=generation.epoch, reason=reason)
            self._status = replace(self._status, generation_reason=reason)
        self._status = replace(
            self._status,
            epoch=generation.epoch,
            records_expected=expected,
            records_read=0,
            records_acknowledged=0,
            event_time_ns=None,
        )
        self._state(FeedState.READING, "market data is being asked where to begin")

    def _disconnected(self, refused: bool, reason: str) -> None:
        self._status = replace(self._status, reconnects=self._status.reconnects + 1)
        self._state(FeedState.ERROR if refused else FeedState.DISCONNECTED, reason)

    def _state(self, state: FeedState, reason: str, *, refused: bool = False) -> None:
        now = self._status
        if (now.state, now.reason, now.refused) == (state, reason, refused):
            return
        self._status = replace(now, state=state, reason=reason, refused=refused)
        self._on_change()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
