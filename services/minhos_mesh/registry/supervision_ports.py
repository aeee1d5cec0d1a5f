"""What the supervisor needs from outside, and what it tells: processes, readiness, wishes, logs; progress and failures."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from minhos_mesh.runtime.keeper_protocol import KeeperState, ProcessExit, ProcessInfo, SpawnRequest


class Processes(Protocol):
    """Starts and ends processes; `AsyncKeeperClient` is one. Every call raises KeeperUnavailable or KeeperRefused."""

    async def spawn(self, request: SpawnRequest) -> ProcessInfo:
        """Starts a process; the same instance id again answers with the process that runs."""
        ...

    async def signal(self, instance_id: str, number: int) -> None:
        """Sends a signal to a process."""
        ...

    async def list(self) -> KeeperState:
        """What runs."""
        ...

    def follow(self, name: str | None = None) -> AsyncIterator[ProcessExit]:
        """Yields exits, also those that this name missed."""
        ...


class Readiness(Protocol):
    """Knows which services serve now, from their leases and their health."""

    def is_serving(self, service: str, instance_id: str | None = None) -> bool:
        """Whether this instance, or any instance when None, serves."""
        ...

    def stands_by(self, service: str, instance_id: str) -> bool:
        """Whether this instance waits only for what another instance of its service still holds."""
        ...

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` on the event loop whenever any answer may have changed; the result ends that."""
        ...


class Wishes(Protocol):
    """Keeps which services a person wants to run; survives the registry."""

    async def load(self) -> Mapping[str, bool]:
        """All that was ever wished: True for running, False for stopped."""
        ...

    async def keep(self, wished: Mapping[str, bool]) -> None:
        """Keeps wishes; on disk when it returns."""
        ...


class Logs(Protocol):
    """Finds the last words of a service."""

    def mark(self, service: str) -> None:
        """Remembers where the logs end now: what is written from here on belongs to the next process."""
        ...

    async def tail(self, service: str, instance_id: str | None = None) -> tuple[str, ...]:
        """The last lines since the mark, without those that name another instance than the given one."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """How a service is started that is not one of the program's own, or that needs its own environment."""

    argv: tuple[str, ...] | None = None
    environment: Mapping[str, str] | None = None


Launches = Callable[[str, str], Launch]
"""How an instance is started, by its service and its id."""


class ProgressPhase(enum.Enum):
    """What happened to a service."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    READY = "READY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step on the way of a service up or down."""

    service: str
    phase: ProgressPhase
    message: str
    elapsed: float
    """Seconds since the call began."""


class SupervisionError(Exception):
    """What was asked of the supervisor did not come true."""


class StartFailed(SupervisionError):
    """Expected: services do not serve within their deadline, or were not replaced and serve on as they were.

    `failed` has a message with the end of its log for each.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{service}: {message}" for service, message in failed.items()))
        self.failed = dict(failed)

    @property
    def service(self) -> str:
        """The first one that failed."""
        return next(iter(self.failed))


class StopFailed(SupervisionError):
    """Unexpected: services have not ended although they were killed, or nobody could kill them."""

    def __init__(self, left: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{service}: {message}" for service, message in left.items()))
        self.left = dict(left)

    @property
    def service(self) -> str:
        """The first one that is left."""
        return next(iter(self.left))


class NotReplaceable(SupervisionError):
    """Expected: a new process could not serve now, so that the one that serves is left as it is."""

    def __init__(self, service: str, awaited: Collection[str]) -> None:
        names = ", ".join(sorted(awaited))
        self.service, self.state = service, f"requires {names}, which does not serve"
        super().__init__(
            f"{service} is left as it is: a new process would wait for {names}, which does not serve;"
            f" `minhos start` brings that up, `minhos stop {service}` ends this one all the same"
        )


class NotSupervised(SupervisionError):
    """Expected: this service is kept by the keeper itself and cannot be started or stopped here."""

    def __init__(self, service: str) -> None:
        self.service, self.state = service, "kept by the keeper"
        super().__init__(f"{service} is {self.state} and cannot be started or stopped alone; stop the whole mesh")


class NotStartedHere(SupervisionError):
    """Expected: somebody else started this service, which is attached and is no part of the configuration."""

    def __init__(self, service: str) -> None:
        self.service, self.state = service, "not started by this keeper"
        super().__init__(f"{service} was {self.state}: end it where it runs")
