"""Which process is meant: a pid together with its start time, held by a pidfd so that a reused pid is never taken for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_DEAD_STATES: Final = frozenset("ZXx")


def boot_id() -> str:
    """Names this boot of the machine; start times of another boot mean nothing."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """Start of a living process in clock ticks since boot; None when it has ended, reaped or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(")") + 2 :].split()
    return None if state in _DEAD_STATES else int(rest[18])


class ProcessHandle:
    """A hold on one living process that is not our child. Its pidfd becomes readable when the process ends."""

    def __init__(self, pid: int, ticks: int, pidfd: int) -> None:
        self.pid = pid
        self.ticks = ticks
        self._pidfd = pidfd

    @classmethod
    def take(cls, pid: int, ticks: int) -> ProcessHandle | None:
        """Holds the process that has this pid and start time; None when it has ended.

        The pidfd is opened first: if the start time is right afterwards, no other process can have been meant.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if start_ticks(pid) != ticks:
            os.close(pidfd)
            return None
        return cls(pid, ticks, pidfd)

    def fileno(self) -> int:
        """The pidfd, for a selector."""
        return self._pidfd

    def send(self, number: int) -> bool:
        """Sends a signal; False when the process has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Lets go of the process."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
