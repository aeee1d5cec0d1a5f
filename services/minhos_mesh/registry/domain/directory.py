"""Decides, from what is known of services and instances, which facts health is judged by and where calls may go."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from minhos_mesh.registry.domain.health import (
    CHECK_FAILURES_UNTIL_UNHEALTHY,
    Cause,
    Condition,
    InstanceFacts,
    Reason,
    Requirement,
    ServiceFacts,
    Serving,
    Silence,
)
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need

SETTLE_SECONDS = 0.5
"""How long an instance may be out of rotation by its own word before that counts against its health: one that ends in
order says first that it does not serve, and then goodbye.
"""
ROUTE_GRACE_SECONDS = 10.0
"""How long calls to a service that nobody supervises wait for it after it was lost; then they fail at once."""


class Rotation(enum.Enum):
    """How clients are told of an instance."""

    IN = "IN"
    OUT = "OUT"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a service, running or not."""

    name: str
    contracts: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    wanted: bool | None = None
    """Whether the supervisor wants it to run; None when the supervisor has no opinion."""
    trouble: Reason | None = None
    """What the supervisor says is wrong with it; None when nothing is."""
    stopping: bool = False
    """Its process was asked to end and has not yet."""
    restarts: int = 0
    wanted_instances: int = 1
    """How many instances should serve at once."""
    lost_at: float | None = None
    """When its last instance was lost, on the monotonic clock."""

    def keeps_route(self, now: float) -> bool:
        """Whether it is expected back soon, so that calls should wait rather than fail."""
        given_up = self.trouble is not None and self.trouble.cause is Cause.CRASH_LOOP
        if given_up or self.wanted is False:
            return False
        if self.wanted:
            return True
        return self.lost_at is not None and now - self.lost_at < ROUTE_GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Present:
    """One instance that is attached, or whose end is still to be told."""

    key: InstanceKey
    host: str
    port: int
    contracts: tuple[str, ...]
    lease_id: str
    token: int
    version: str
    attached_ns: int
    versions: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    """Where it stands; clients of the same zone prefer it."""
    priority: int = 0
    """Calls go to the instances of the lowest priority while one of them serves."""
    pid: int | None = None
    process_started: int | None = None
    heartbeat_ns: int | None = None
    silence: Silence = Silence.LIVE
    silent_seconds: float = 0.0
    serving: Serving = Serving.UNKNOWN
    watched: Serving = Serving.UNKNOWN
    """What its standard health service says; the worse of this and `serving` counts."""
    not_serving_at: float | None = None
    """Since when it does not serve, on the monotonic clock; None while it does."""
    ever_ready: bool = False
    leaving: bool = False
    conditions: tuple[Condition, ...] = ()
    check_failures: int = 0
    check_error: str = ""
    exit_text: str | None = None
    gone_at: float | None = None
    """When it was found to be gone, on the monotonic clock; None while it is there."""
    internal_errors: int = 0
    calls_in_flight: int = 0
    built: str = ""
    """Name under which what it was built with is shared; empty when it is not."""
    holder: str = ""
    """The other registry of the mesh that it is attached to; empty when it is this one."""
    started_ns: int | None = None
    """When its process began, ns since the Unix epoch; None when that is not known."""

    @property
    def since_ns(self) -> int:
        """When it began, as far as is known: its process, or else its lease."""
        return self.attached_ns if self.started_ns is None else self.started_ns

    @property
    def address(self) -> str:
        """Where it listens; empty for a process that is only watched."""
        if not self.port:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def gone(self) -> bool:
        """Whether it has ended and is only remembered."""
        return self.silence in (Silence.LOST, Silence.EXPIRED) or self.exit_text is not None

    @property
    def says(self) -> Serving:
        """What it says of itself: the worse of its heartbeat and its health service."""
        return Serving.NOT_SERVING if self.watched is Serving.NOT_SERVING else self.serving

    def facts(self, now: float) -> InstanceFacts:
        """What its health is judged by."""
        settling = self.not_serving_at is not None and now - self.not_serving_at < SETTLE_SECONDS
        return InstanceFacts(
            instance_id=self.key.instance_id,
            silence=self.silence,
            serving=Serving.SERVING if settling and self.ever_ready else self.says,
            ever_ready=self.ever_ready,
            leaving=self.leaving,
            conditions=self.conditions,
            check_failures=self.check_failures,
            check_error=self.check_error,
            silent_seconds=self.silent_seconds,
            exit_text=self.exit_text,
        )

    def rotation(self) -> Rotation | None:
        """How clients are told of it; None when they are not."""
        if self.gone or not self.ever_ready:
            return None
        if self.leaving:
            return Rotation.DRAINING
        if self.silence is Silence.LATE or self.check_failures >= CHECK_FAILURES_UNTIL_UNHEALTHY:
            return Rotation.OUT
        return Rotation.OUT if self.says is Serving.NOT_SERVING else Rotation.IN


def service_facts(known: Known, present: Sequence[Present], now: float) -> ServiceFacts:
    """What the health of one service is judged by, its dependencies left aside."""
    counted = [p for p in present if not (p.gone and known.wanted is False)]
    return ServiceFacts(
        service=known.name,
        wanted=bool(counted) if known.wanted is None else known.wanted,
        instances=tuple(p.facts(now) for p in counted),
        trouble=known.trouble,
        stopping=known.stopping,
        wanted_instances=known.wanted_instances,
    )


def requirements(services: Mapping[str, Known]) -> Mapping[str, tuple[Requirement, ...]]:
    """What each service needs, with the services that could give it; needs it meets itself are left out."""
    providers: dict[str, list[str]] = {}
    for name, known in sorted(services.items()):
        for contract in known.contracts:
            providers.setdefault(contract, []).append(name)
    return {name: tuple(_requirements_of(known, providers)) for name, known in services.items()}


def provider_names(needs: Iterable[Requirement]) -> tuple[str, ...]:
    """The services behind a service's needs, required ones first, each once."""
    ordered = sorted(needs, key=lambda need: not need.required)
    return tuple(dict.fromkeys(name for need in ordered for name in need.providers))


def _requirements_of(known: Known, providers: Mapping[str, list[str]]) -> Iterable[Requirement]:
    strongest: dict[tuple[str, ...], Requirement] = {}
    for need in known.needs:
        served_by = tuple(providers.get(need.contract, ()))
        if need.provider is not None:
            served_by = (need.provider,)
        if known.name in served_by:
            continue
        name = served_by[0] if len(served_by) == 1 else need.contract
        key = served_by or (need.contract,)
        required = not need.optional or (key in strongest and strongest[key].required)
        strongest[key] = Requirement(name, served_by, required)
    return strongest.values()
