"""Decides how order books of the files get to market data: the newest book of each symbol, at a bounded rate, tried for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.depth_tail import DepthLost, DepthTail, newest_depth_file
from minhos_mesh.sierra_client.domain import (
    Provenance,
    ProvenanceRefused,
    check_live,
    check_provenance,
    ingest_pause_s,
    next_epoch,
)
from minhos_mesh.sierra_client.ports import IngestLost, IngestRefused, Opening
from minhos_mesh.sierra_client.wakeups import FolderWakeups, Wakeup
from minhos_mesh.sierra_files.depth_book import BookView, DepthBook
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import MARKER_NAME
from minhos_mesh.sierra_files.marker import read_marker

DEPTH_FOLDER: Final = "MarketDepthData"
PACE_S: Final = 0.05
"""Shortest time between two books of a symbol; those that are read meanwhile are passed over."""
LOOK_S: Final = 1.0
"""How often a file of a newer day is looked for; folders may hold thousands."""
POLL_S: Final = 0.25
"""How often files are looked at where their mount tells no changes."""


class DepthWay(Protocol):
    """One open way for the books of one symbol."""

    async def send(self, book: BookView, sequence: int, receive_ns: int) -> None:
        """Sends a book and waits until it was taken. Raises IngestLost, IngestRefused."""


class DepthPort(Protocol):
    """The way to market data."""

    def connect(self, opening: Opening) -> AbstractAsyncContextManager[DepthWay]:
        """Opens a way. Raises IngestLost, IngestRefused."""


async def keep_sending(
    ingest: DepthPort,
    opening: Opening,
    pump: Callable[[DepthWay], Awaitable[None]],
    *,
    sent: Callable[[], int],
    say: Callable[[str], None],
    randomness: random.Random,
) -> None:
    """Opens a way and has it pumped into until that returns; a way that breaks is opened again, for ever, after pauses.

    `sent` counts the books that were taken: a way that took some begins the pauses anew. `say` is told why one broke.
    """
    failures = 0
    while True:
        before = sent()
        try:
            async with ingest.connect(opening) as way:
                await pump(way)
            return
        except (IngestLost, IngestRefused) as lost:
            failures = 1 if sent() > before else failures + 1
            say(str(lost))
            await asyncio.sleep(ingest_pause_s(failures, randomness, refused=isinstance(lost, IngestRefused)))


@dataclass(frozen=True, slots=True)
class DepthStatus:
    """What is known of the books of one symbol."""

    symbol: str
    file: str = ""
    reason: str = "no .depth file has been looked for yet"
    """Why no book is sent; empty while they are."""
    books_read: int = 0
    books_sent: int = 0
    commands_refused: int = 0
    event_time_ns: int | None = None


class DepthFeed:
    """Follows the newest .depth file of one symbol for ever; run() ends only by cancellation."""

    def __init__(
        self, folder: Path, name: str, symbol: str, tick_e9: int, provenance: Provenance,
        *, wakeup: Wakeup, ingest: DepthPort, clock: Clock, randomness: random.Random, live_refused: Callable[[], str],
        pace_s: float = PACE_S,
    ) -> None:  # fmt: skip
        """`folder` holds the .scid files; `name` is that of the files, `symbol` the canonical one."""
        self._folder, self._name, self._symbol = folder, name, symbol
        self._tick_e9, self._provenance = tick_e9, provenance
        self._wakeup, self._ingest, self._clock, self._random = wakeup, ingest, clock, randomness
        self._live_refused = live_refused
        self._pace_s = pace_s
        self._epoch: int | None = None
        self._newest: BookView | None = None
        self._sequence = 0
        self._looked_s = 0.0
        self.status = DepthStatus(symbol)

    async def run(self) -> None:
        """Follows the files; whatever goes wrong is told in the status and tried again."""
        try:
            while True:
                path = newest_depth_file(self._folder / DEPTH_FOLDER, self._name)
                if path is None:
                    self.status = replace(self.status, file="", reason=f"there is no .depth file of {self._name}")
                else:
                    try:
                        await self._follow(path)
                        continue
                    except (DepthLost, ScidError, ProvenanceRefused) as problem:
                        self.status = replace(self.status, file=path.name, reason=str(problem))
                await self._wakeup.wait()
        finally:
            self._wakeup.close()

    async def _follow(self, path: Path) -> None:
        """Sends the books of one file until a newer one is there. Raises DepthLost, ScidError, ProvenanceRefused."""
        marker = read_marker(self._folder)
        check_provenance(self._provenance, None if marker is None else MARKER_NAME)
        check_live(self._provenance, self._live_refused(), final=False)
        tail = DepthTail(path)
        try:
            book = DepthBook(self._tick_e9)
            self._epoch, self._sequence, self._newest = next_epoch(self._epoch, self._clock.wall_ns()), 0, None
            self.status = replace(self.status, file=path.name, reason="the whole book is awaited")
            opening = Opening(f"sierra_client:{path.name}", self._symbol, self._provenance, self._epoch)

            def say(reason: str) -> None:
                self.status = replace(self.status, reason=reason)

            await keep_sending(
                self._ingest,
                opening,
                lambda way: self._pump(path, tail, book, way),
                sent=lambda: self.status.books_sent,
                say=say,
                randomness=self._random,
            )
        finally:
            tail.close()

    async def _pump(self, path: Path, tail: DepthTail, book: DepthBook, way: DepthWay) -> None:
        """Sends the newest book again and again until a newer file is there."""
        told = 0
        while True:
            await self._read(tail, book)
            if self._newest is not None and self._sequence > told:
                told = self._sequence
                await way.send(self._newest, told, self._clock.wall_ns())
                self.status = replace(self.status, reason="", books_sent=self.status.books_sent + 1)
                await asyncio.sleep(self._pace_s)
                continue
            if self._superseded(path):
                return
            await self._wakeup.wait()

    async def _read(self, tail: DepthTail, book: DepthBook) -> None:
        """Takes what is new; a book in the middle of a batch, or that was never told whole, is none."""
        while len(records := tail.read()):
            for view in book.views(records):
                self._sequence += 1
                if book.cleared:
                    self._newest = view
            await asyncio.sleep(0)
        if self._newest is not None:
            self.status = replace(
                self.status,
                books_read=self._sequence,
                commands_refused=book.refused,
                event_time_ns=self._newest.time_ns,
            )

    def _superseded(self, path: Path) -> bool:
        now_s = self._clock.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        return newest_depth_file(self._folder / DEPTH_FOLDER, self._name) != path


class DepthPart:
    """The order books of all files that are followed."""

    def __init__(
        self, folder: Path, provenance: Provenance, *, ingest: DepthPort, clock: Clock, tasks: OwnedTasks,
        use_inotify: bool = True,
    ) -> None:  # fmt: skip
        self._folder, self._provenance = folder, provenance
        self._ingest, self._clock, self._tasks = ingest, clock, tasks
        self._random = random.Random()
        self._wakeups = FolderWakeups(folder / DEPTH_FOLDER, poll_s=POLL_S, use_inotify=use_inotify)
        self._feeds: dict[str, DepthFeed] = {}

    def start(self) -> None:
        """Begins to listen to the folder."""
        self._wakeups.start()

    def close(self) -> None:
        """Listens no more; the group's tasks must have ended."""
        self._wakeups.close()

    def follow(self, name: str, symbol: str, tick_e9: int, live_refused: Callable[[], str]) -> None:
        """Follows the books of one symbol from now on; a second call changes nothing."""
        if name in self._feeds:
            return
        feed = DepthFeed(
            self._folder, name, symbol, tick_e9, self._provenance, wakeup=self._wakeups.wakeup(), ingest=self._ingest,
            clock=self._clock, randomness=self._random, live_refused=live_refused,
        )  # fmt: skip
        self._feeds[name] = feed
        self._tasks.start(feed.run(), f"order book {name}")

    def status(self) -> tuple[DepthStatus, ...]:
        """What is known of each symbol, in alphabetical order."""
        return tuple(sorted((feed.status for feed in self._feeds.values()), key=lambda status: status.symbol))
