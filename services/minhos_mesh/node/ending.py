"""How a keeper ends what it started: the services first, the registry last, each asked and then made to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minhos_mesh.node.processes import ProcessTable
from minhos_mesh.runtime.keeper_protocol import ProcessInfo

DEFAULT_DEADLINE_S: Final = 10.0
"""How long services, and then the registry, may take to end in order."""
_AFTER_KILL_S: Final = 5.0
"""How long a killed process may take to be gone; longer means that the kernel holds it."""


class Ending:
    """The end of a keeper, step by step. `step` is called after every wake and says when it wants to be called again."""

    def __init__(self, table: ProcessTable, deadline_s: float, now: float, log: Callable[..., None]) -> None:
        self._table = table
        self._deadline_s = deadline_s
        self._log = log
        self._rooted = False
        self._killed = False
        self.until = now
        self.stuck: list[ProcessInfo] = []
        """Processes that would not end even when killed."""
        self.done = False
        self._ask(now)

    def hurry(self, now: float) -> None:
        """Ends the waiting: what still runs is killed at the next step."""
        self.until = now
        self._deadline_s = 0.0

    def step(self, now: float) -> None:
        """Moves on as far as possible."""
        while not self.done:
            left = self._left()
            if left and now < self.until:
                return
            if left and not self._killed:
                self._kill(left, now)
                return
            self.stuck += left
            if self._rooted:
                self.done = True
                return
            self._rooted = True
            self._killed = False
            self._ask(now)

    def _left(self) -> list[ProcessInfo]:
        stuck = {info.instance_id for info in self.stuck}
        return [info for info in self._table.infos() if info.root == self._rooted and info.instance_id not in stuck]

    def _ask(self, now: float) -> None:
        self.until = now + self._deadline_s
        for info in self._left():
            self._log("terminating", target=info.service, instance_id=info.instance_id, pid=info.pid)
            self._table.terminate(info)

    def _kill(self, left: list[ProcessInfo], now: float) -> None:
        self._killed = True
        self.until = now + _AFTER_KILL_S
        for info in left:
            self._log("killing", level="warning", target=info.service, instance_id=info.instance_id, pid=info.pid)
            self._table.kill(info)
