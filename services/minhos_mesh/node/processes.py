"""The living processes of one keeper: own children, whose ends it sees in full, and adopted ones, whose ends it sees."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
from dataclasses import dataclass

from minhos_mesh.node.identity import ProcessHandle
from minhos_mesh.runtime.keeper_protocol import ProcessInfo


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that is gone; `code` and `signal` are both None when it was adopted."""

    info: ProcessInfo
    code: int | None
    signal: int | None


class ProcessTable:
    """All processes that run, by instance id."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._infos: dict[str, ProcessInfo] = {}
        self._handles: dict[str, ProcessHandle] = {}

    def infos(self) -> list[ProcessInfo]:
        """In the order in which they came."""
        return list(self._infos.values())

    def find(self, instance_id: str) -> ProcessInfo | None:
        """The process that runs as this instance."""
        return self._infos.get(instance_id)

    def add_child(self, info: ProcessInfo) -> None:
        """Takes in a process that this keeper forked."""
        self._infos[info.instance_id] = info

    def adopt(self, info: ProcessInfo) -> bool:
        """Takes in a process that an earlier keeper started; False when it has ended."""
        handle = ProcessHandle.take(info.pid, info.start_ticks)
        if handle is None:
            return False
        self._infos[info.instance_id] = info
        self._handles[info.instance_id] = handle
        self._selector.register(handle, selectors.EVENT_READ, _wake)
        return True

    def send(self, info: ProcessInfo, number: int) -> bool:
        """Sends a signal; False when the process has just ended. A child's pid is its own until it is reaped."""
        handle = self._handles.get(info.instance_id)
        if handle is not None:
            return handle.send(number)
        try:
            os.kill(info.pid, number)
        except ProcessLookupError:
            return False
        return True

    def terminate(self, info: ProcessInfo) -> None:
        """Asks a process to end, a stopped one too."""
        self.send(info, signal.SIGTERM)
        self.send(info, signal.SIGCONT)

    def kill(self, info: ProcessInfo) -> None:
        """Ends a process at once; a child with all that it started in its session."""
        if info.instance_id not in self._handles:
            _kill_group(info.pid)
        self.send(info, signal.SIGKILL)

    def reap(self) -> list[Ended]:
        """Takes out the processes that have ended, children with whatever they left running."""
        ended = [done for info in self.infos() if (done := self._ended(info)) is not None]
        for done in ended:
            del self._infos[done.info.instance_id]
            handle = self._handles.pop(done.info.instance_id, None)
            if handle is not None:
                self._selector.unregister(handle)
                handle.close()
        return ended

    def abandon(self) -> None:
        """Closes, in a forked child, what is the parent's."""
        for handle in self._handles.values():
            handle.close()

    def _ended(self, info: ProcessInfo) -> Ended | None:
        handle = self._handles.get(info.instance_id)
        if handle is not None:
            return Ended(info, None, None) if select.select([handle], [], [], 0)[0] else None
        try:
            peeked = os.waitid(os.P_PID, info.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return Ended(info, None, None)
        if peeked is None:
            return None
        _kill_group(info.pid)
        status = os.waitstatus_to_exitcode(os.waitpid(info.pid, 0)[1])
        return Ended(info, status, None) if status >= 0 else Ended(info, None, -status)


def _kill_group(leader: int) -> None:
    """Ends the process group of a child that is not reaped yet, so that the group's number is surely its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _wake(_events: int) -> None:
    """The loop reaps after every wake; there is nothing more to do."""
