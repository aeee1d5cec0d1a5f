"""Decides what the registry keeps, and what every engine that keeps it must promise.

Instances with their fencing tokens, what each service serves, and documents (routes, contract sets) belong to the mesh:
all its registries see the same. What should run here, the history of health and the waiting events belong to one
machine. Engines: `stores.sqlite` for one machine, `stores.etcd` beyond it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from minhos_mesh.registry.domain.health import Condition, Serving
from minhos_mesh.registry.domain.history import HealthChange
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.outbox import Fact
from minhos_mesh.registry.plan import Need


class StoreUnavailable(Exception):
    """Expected: the engine does not answer now; nothing is known of what was asked, and asking again is safe."""


class StoreRefused(Exception):
    """Expected: the engine answers and will not do it: no permission, too large, out of space, or another mesh's data."""


class DocumentMoved(Exception):
    """Expected: a document is not at the revision that its writer has read."""

    def __init__(self, kind: str, name: str, *, expected: int, newest: int) -> None:
        super().__init__(f"{kind} {name!r} is at revision {newest}, the change was made for revision {expected}")
        self.kind, self.name = kind, name
        self.expected, self.newest = expected, newest


class Desired(enum.Enum):
    """Whether a service should run."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One attached instance as it is kept."""

    key: InstanceKey
    lease_id: str
    token: int
    host: str
    port: int
    contracts: tuple[str, ...]
    version: str
    attached_ns: int
    needs: tuple[Need, ...] = ()
    pid: int | None = None
    process_started: int | None = None
    """Start time of the process in clock ticks since boot; together with the pid it names one process for good."""
    ever_ready: bool = False
    zone: str = ""
    priority: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    built: str = ""
    """Name of the document that holds what it was built with; empty when there is none."""


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """What the registry that holds an instance tells the others of it; heartbeats are not told."""

    serving: Serving = Serving.UNKNOWN
    late: bool = False
    leaving: bool = False
    check_failures: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """An instance that is attached at another registry of the mesh."""

    record: InstanceRecord
    holder: str
    """The other registry, see Member."""
    report: InstanceReport = field(default_factory=InstanceReport)


@dataclass(frozen=True, slots=True)
class Departure:
    """How an instance went."""

    in_order: bool = True
    how: str = ""


IN_ORDER: Final = Departure()
"""It left by itself or was told to."""


@dataclass(frozen=True, slots=True)
class Member:
    """One registry of the mesh."""

    name: str
    """The same over restarts on one data folder."""
    address: str
    """Where instances attach."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What is remembered of a service, also while no instance of it lives."""

    service: str
    desired: Desired | None
    """None when nobody ever asked for it to run or not to run here: it attached by itself."""
    contracts: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredState:
    """All that is known when a registry starts."""

    instances: tuple[InstanceRecord, ...]
    """Those this registry held, and those whose registry is gone."""
    tokens: tuple[tuple[InstanceKey, int], ...]
    services: tuple[ServiceRecord, ...]
    latest: tuple[HealthChange, ...]
    """The last health change of each service that was seen here."""
    elsewhere: tuple[HeldElsewhere, ...] = ()
    members: tuple[Member, ...] = ()
    """All registries of the mesh that live, this one left out."""


class Neighbours(Protocol):
    """Who is told what other registries of the mesh do; called on the event loop, in the order in which it happened."""

    def seen(self, instance: HeldElsewhere) -> None:
        """An instance attached at another registry, or changed there."""

    def gone(self, key: InstanceKey, token: int, departure: Departure) -> None:
        """An instance left another registry."""

    def inherited(self, record: InstanceRecord) -> None:
        """The registry of an instance is gone and this one holds it now; it may come back here or elsewhere."""

    def service_known(self, service: str, contracts: tuple[str, ...], needs: tuple[Need, ...]) -> None:
        """A service serves and needs this now, as another registry was told."""

    def members_changed(self, members: Sequence[Member]) -> None:
        """These other registries live."""

    def store_trouble(self, text: str | None) -> None:
        """The engine does not answer, as the text says; None when it does again."""


@dataclass(frozen=True, slots=True)
class Document:
    """A named value that all registries of the mesh share."""

    kind: str
    name: str
    value: bytes
    revision: int
    """Above the revisions of all changes before it, of any document."""


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A document was written or, without one, deleted."""

    kind: str
    name: str
    revision: int
    document: Document | None


DocumentListener = Callable[[DocumentChange], None]


class Documents(Protocol):
    """Named values of some kinds, each with a revision; small ones: an engine may refuse more than 1 MiB."""

    async def read(self, kind: str, name: str) -> Document | None:
        """The newest value that was acknowledged anywhere in the mesh; None when there is none."""
        ...

    async def list(self, kind: str) -> tuple[Document, ...]:
        """All of one kind by name, as of one moment."""
        ...

    async def write(self, kind: str, name: str, value: bytes, *, expected: int | None = None) -> int:
        """Keeps a value and returns its revision; durable when it returns.

        With `expected`, only when the document is at that revision, 0 meaning that there is none: else DocumentMoved.
        """
        ...

    async def delete(self, kind: str, name: str, *, expected: int | None = None) -> bool:
        """Removes a document; says whether it was there. `expected` as in `write`."""
        ...

    def on_change(self, kind: str, listener: DocumentListener) -> None:
        """Calls `listener` on the event loop with each change of this kind from now on, whoever made it, in order of
        revision. A change may be told that was also read before.
        """
        ...


class RegistryStore(Protocol):
    """What an engine promises. Every call may raise StoreUnavailable or StoreRefused."""

    @property
    def documents(self) -> Documents:
        """Documents of the mesh."""
        ...

    async def load(self) -> StoredState:
        """Everything as of one moment. `follow` tells what comes after it."""
        ...

    async def follow(self, neighbours: Neighbours) -> None:
        """Tells what other registries do since `load`, until it is cancelled; returns when there can be none."""
        ...

    async def announce(self, address: str) -> None:
        """Tells the other registries where instances can attach here."""
        ...

    async def admit(self, record: InstanceRecord, allowed: Callable[[], None]) -> int:
        """Keeps a new owner of an instance and returns its fencing token, above every token granted before in the mesh
        and above the one in `record`, which is the highest that the instance's own store has seen.

        `allowed` raises to refuse; what it judges by holds until the token is granted. It may be called again.
        """
        ...

    async def mark_ready(self, key: InstanceKey, token: int) -> None:
        """Remembers that an instance has been ready once. Raises StaleToken when its owner was replaced."""
        ...

    def report(self, key: InstanceKey, token: int, report: InstanceReport) -> None:
        """Tells the other registries how an instance is, soon; the newest report counts."""
        ...

    async def remove(self, key: InstanceKey, token: int, departure: Departure = IN_ORDER) -> bool:
        """Forgets an instance, unless it is held under another token by now; says whether it was there."""
        ...

    async def set_desired(self, service: str, desired: Desired) -> None:
        """Keeps whether a service should run on this machine."""
        ...

    async def wishes(self) -> Mapping[str, Desired]:
        """All that was ever desired on this machine."""
        ...

    async def forget_service(self, service: str) -> None:
        """Forgets a service that attached by itself, when no instance of it is attached anywhere in the mesh; whether it
        should run stays known on a machine where somebody ever said so.
        """
        ...

    async def keep_restarts(self, service: str, restarts: int) -> None:
        """Keeps how often a service was restarted on this machine; 0 forgets it."""
        ...

    async def restarts(self) -> Mapping[str, int]:
        """How often services were restarted on this machine."""
        ...

    async def append_changes(self, changes: Sequence[HealthChange], facts: Sequence[Fact]) -> None:
        """Keeps health changes and, in the same transaction, their events."""
        ...

    async def list_changes(
        self,
        *,
        service: str | None,
        since_ns: int | None,
        before_revision: int | None,
        limit: int,
        until_ns: int | None = None,
    ) -> tuple[HealthChange, ...]:
        """Kept changes, newest first: of one service or of all, from a time until before another, before a revision."""
        ...
