"""Decides when a file is looked at again: at once by inotify, and by polling where a mount announces nothing."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path

from minhos_mesh.sierra_client.inotify import FolderWatch, WatchUnavailable

DEFAULT_POLL_S = 0.01
"""So short that a tick of such a mount is delivered within 20 ms; a look takes some 30 us."""
DEFAULT_SAFETY_POLL_S = 1.0


class Wake(enum.Enum):
    """Why a wait ended."""

    ANNOUNCED = "ANNOUNCED"
    """The file changed, inotify says."""
    POKED = "POKED"
    """This process asked for another look."""
    TIMEOUT = "TIMEOUT"
    """Nothing was heard for the poll interval."""


class Wakeup:
    """Waits for one file (or, without a name, for any change in the folder)."""

    def __init__(self, folder: FolderWakeups) -> None:
        self._folder = folder
        self._event = asyncio.Event()
        self._announced = False
        self._silent = False

    def announce(self) -> None:
        """Ends the current or next wait because the file changed."""
        self._announced = True
        self._event.set()

    def poke(self) -> None:
        """Ends the current or next wait for another reason."""
        self._event.set()

    async def wait(self) -> Wake:
        """Waits for a change, a poke or the poll interval, whichever is first."""
        self._folder.rewatch()
        try:
            async with asyncio.timeout(self.interval_s):
                await self._event.wait()
        except TimeoutError:
            return Wake.TIMEOUT
        self._event.clear()
        announced, self._announced = self._announced, False
        return Wake.ANNOUNCED if announced else Wake.POKED

    @property
    def interval_s(self) -> float:
        """Seconds until the file is looked at without an announcement."""
        fast = self._silent or not self._folder.watching
        return self._folder.poll_s if fast else self._folder.safety_poll_s

    def note_growth(self, after: Wake) -> None:
        """Learns how growth was found; a mount that announces none is polled fast from then on."""
        if after is not Wake.POKED:
            self._silent = after is Wake.TIMEOUT

    def close(self) -> None:
        """Is woken no more; a second call does nothing."""
        self._folder.forget(self)


class FolderWakeups:
    """One inotify watch shared by all files of a folder; it starts even when the folder is missing."""

    def __init__(
        self,
        folder: Path,
        *,
        poll_s: float = DEFAULT_POLL_S,
        safety_poll_s: float = DEFAULT_SAFETY_POLL_S,
        use_inotify: bool = True,
    ) -> None:
        """`poll_s`: interval where nothing is announced; `safety_poll_s`: where inotify works (it misses remote writers)."""
        self.folder = folder
        self.poll_s = poll_s
        self.safety_poll_s = max(poll_s, safety_poll_s)
        self.reason = "polling as configured" if not use_inotify else ""
        """Why inotify is not in use; empty when it is."""
        self._use_inotify = use_inotify
        self._watch: FolderWatch | None = None
        self._by_name: dict[str, list[Wakeup]] = {}
        self._any: list[Wakeup] = []

    @property
    def watching(self) -> bool:
        """True while inotify is in use."""
        return self._watch is not None

    def start(self) -> None:
        """Begins to listen; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self.rewatch()

    def close(self) -> None:
        """Listens no more; a second call does nothing."""
        self._unwatch()

    def wakeup(self, name: str | None = None) -> Wakeup:
        """A new waiter for the file of this name, or for any file."""
        waiter = Wakeup(self)
        if name is None:
            self._any.append(waiter)
        else:
            self._by_name.setdefault(name, []).append(waiter)
        return waiter

    def forget(self, waiter: Wakeup) -> None:
        """Wakes this waiter no more."""
        for waiters in (self._any, *self._by_name.values()):
            if waiter in waiters:
                waiters.remove(waiter)

    def rewatch(self) -> None:
        """Starts the watch if it is wanted and does not run, for example because the folder appeared only now."""
        if self._watch is not None or not self._use_inotify:
            return
        try:
            self._watch = FolderWatch(self.folder)
        except WatchUnavailable as error:
            self.reason = str(error)
            return
        self.reason = ""
        self._loop.add_reader(self._watch.fileno(), self._on_readable)
        self._wake_all()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _on_readable(self) -> None:
        if self._watch is None:
            return
        names = self._watch.changed()
        if self._watch.lost:
            self.reason = f"{self.folder} was removed or moved"
            self._unwatch()
        if names is None:
            self._wake_all()
            return
        for name in names:
            for waiter in self._by_name.get(name, ()):
                waiter.announce()
        if names:
            for waiter in self._any:
                waiter.announce()

    def _wake_all(self) -> None:
        for waiters in (self._any, *self._by_name.values()):
            for waiter in waiters:
                waiter.announce()
