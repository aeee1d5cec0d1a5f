"""Decides what one attached instance and the registry say to each other while the lease lasts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.health import Condition
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need

_OUTGOING: Final = 64
"""Answers that wait for a slow instance; further answers to heartbeats are left out."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An instance asks for its lease."""

    key: InstanceKey
    host: str
    port: int
    contracts: tuple[str, ...]
    offered: Mapping[str, ContractShape]
    """Its contracts as it was built with them."""
    needs: tuple[Need, ...] = ()
    version: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    priority: int = 0
    pid: int | None = None
    presented: int | None = None
    """Token of the lease that it held before; None for a new process."""
    single_owner: bool = False
    """Whether no other instance of its service may hold the lease at the same time."""
    store_token: int = 0
    """Highest token that its own store has seen; it is granted a higher one."""
    built: ContractSet | None = None
    """All that it was built with: what it serves, what it needs, the events that it tells and hears."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life."""

    serving: bool
    conditions: tuple[Condition, ...] = ()
    internal_errors: int = 0
    calls_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Goodbye:
    """An instance leaves in order."""

    reason: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The first answer."""

    lease_id: str
    token: int
    time_to_live: float
    heartbeat_seconds: float


@dataclass(frozen=True, slots=True)
class BeatTaken:
    """The answer to a heartbeat."""

    expires_ns: int


@dataclass(frozen=True, slots=True)
class DrainCommand:
    """The instance must leave."""

    reason: str


Said = Claim | Beat | Goodbye
Answer = Granted | BeatTaken | DrainCommand


class Attachment:
    """One stream of one instance, as long as it holds the lease."""

    def __init__(self, key: InstanceKey, lease_id: str, token: int) -> None:
        self.key = key
        self.lease_id = lease_id
        self.token = token
        self.said_goodbye = False
        self._outgoing: deque[Answer] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Answer) -> None:
        """Sends an answer, unless the instance does not read."""
        if len(self._outgoing) < _OUTGOING:
            self._outgoing.append(answer)
            self._wake()

    def drain(self, reason: str) -> bool:
        """Tells the instance to leave; False when it does not read what it is told."""
        taken = len(self._outgoing) < _OUTGOING
        self.answer(DrainCommand(reason))
        return taken

    def end(self, error: Exception | None) -> None:
        """Ends the stream: with an error that the instance will see, or in order."""
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # an instance that is gone will not come to read it
        self._wake()

    async def next_answer(self) -> Answer | None:
        """The next thing to send; None at the end. Raises what the stream was ended with."""
        while not self._outgoing:
            if self._ended.done():
                self._ended.result()
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._outgoing.popleft()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
