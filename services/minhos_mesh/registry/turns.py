"""Decides when an instance gets its lease where only one of its service may have it: when the one before it has let go.

Whoever holds a store or a feed alone says so in its hello. Its grant waits until no other instance of the service is there
and no other process of it runs, as far as the supervisor knows; a frozen owner is there until it was killed. Meanwhile it
stands by. An instance that held the lease before and shows its token waits for nobody; if another holds it now, it is refused
for good, and ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final

from minhos_mesh.registry.attachment import Claim
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.runtime.log import get_logger

MAX_WAITING: Final = 64
"""Instances that may stand by at once."""

_log = get_logger("registry.turns")


class TooManyWait(Exception):
    """Expected of a broken or hostile client only: more instances stand by than a mesh can have."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"{seen} instances stand by: allowed are {MAX_WAITING}")
        self.limit = "instances that stand by"
        self.seen = seen
        self.allowed = MAX_WAITING


class OwnerReplaced(Exception):
    """Expected of a process that was frozen: meanwhile another instance took over what its service owns alone."""

    def __init__(self, key: InstanceKey, owner: str) -> None:
        super().__init__(f"{key} was replaced: {owner} has taken over what one instance alone may own")
        self.service = key.service
        self.instance_id = key.instance_id
        self.owner = owner


class Turns:
    """Lets one instance at a time hold what its service owns."""

    def __init__(self, present: Callable[[str], Iterable[Present]], board: ReadinessBoard) -> None:
        """`present` gives the instances of a service, gone ones among them; `board` is told who stands by."""
        self._present, self._board = present, board
        self.processes: Callable[[str], Collection[str]] = lambda _service: ()
        """The instances of a service whose process runs, as the supervisor knows; set once there is one."""
        self._granting: set[str] = set()
        self._waiting: set[InstanceKey] = set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, claim: Claim) -> AsyncIterator[None]:
        """Waits for the claim's turn; nobody else of its service has one before the block is left.

        Raises OwnerReplaced for one that had its turn before another had, or TooManyWait.
        """
        if not claim.single_owner:
            yield
            return
        if claim.presented is not None:
            self._check_not_replaced(claim.key)
            yield
            return
        if self._held_by(claim.key):
            await self._wait(claim.key)
        self._granting.add(claim.key.service)
        try:
            yield
        finally:
            self._granting.discard(claim.key.service)
            self.look()

    def look(self) -> None:
        """Something may be different: whoever waits looks again."""
        self._changed.set()

    async def _wait(self, key: InstanceKey) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise TooManyWait(len(self._waiting))
        self._waiting.add(key)
        self._board.set_standing_by(key, True)
        _log.info("instance.stands_by", instance_key=str(key), held_by=self._held_by(key))
        try:
            while self._held_by(key):
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waiting.discard(key)
            self._board.set_standing_by(key, False)

    def _check_not_replaced(self, key: InstanceKey) -> None:
        for other in self._present(key.service):
            if not other.gone and other.key != key:
                raise OwnerReplaced(key, other.key.instance_id)

    def _held_by(self, key: InstanceKey) -> list[str]:
        """Who holds it or is about to; one that stands by holds nothing."""
        there = {p.key.instance_id for p in self._present(key.service) if not p.gone}
        running = {name for name in self.processes(key.service) if InstanceKey(key.service, name) not in self._waiting}
        granting = {"another one"} if key.service in self._granting else set()
        return sorted((there | running | granting) - {key.instance_id})
