"""When a supervised service is started, given up on, asked to end, killed and restarted; pure, time is an argument."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from minhos_mesh.runtime.backoff import Backoff


class Phase(enum.Enum):
    """Where a supervised service stands."""

    STOPPED = "STOPPED"
    """It does not run and is not wanted."""
    WAITING = "WAITING"
    """It is wanted and waits for what it depends on."""
    STARTING = "STARTING"
    """Its process runs and does not serve yet."""
    SERVING = "SERVING"
    """Its process has served since it was started."""
    NOT_READY = "NOT_READY"
    """Its process runs and has not served within its deadline; it is left running and may still come."""
    BACKOFF = "BACKOFF"
    """Its process ended; it is started again after a pause."""
    CRASH_LOOP = "CRASH_LOOP"
    """As BACKOFF, after so many ends in a row that a person should look."""
    STOPPING = "STOPPING"
    """Its process was asked to end."""


class Act(enum.Enum):
    """What the supervisor is to do now."""

    SPAWN = "SPAWN"
    TERMINATE = "TERMINATE"
    KILL = "KILL"


@dataclass(frozen=True, slots=True)
class SupervisionPolicy:
    """The times of supervision, in seconds."""

    backoff: Backoff = field(default_factory=Backoff)
    healthy_after: float = 30.0
    """A service that has served this long has its failures forgotten."""
    crash_loop_after: int = 5
    """From so many failures in a row on it is a crash loop."""
    ready_deadline: float = 15.0
    """How long a start may take until the service serves."""
    stop_deadline: float = 10.0
    """How long a service may take to end before it is killed."""
    kill_again_after: float = 2.0
    """How long after a kill it is killed again, should it still be there."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One supervised service. All times are on the monotonic clock, in seconds."""

    service: str
    wanted: bool = False
    phase: Phase = Phase.STOPPED
    message: str = ""
    """The phase for people, with the reason where there is one."""
    instance_id: str | None = None
    """The instance that runs, or that the keeper has been asked to run."""
    pid: int | None = None
    ready_by: float | None = None
    """When the start has taken too long."""
    serving_since: float | None = None
    failures: int = 0
    """Ends in a row without a good run between them."""
    restarts: int = 0
    """Ends without being asked since the service was last started by a person."""
    retry_at: float | None = None
    """When it is started again."""
    kill_at: float | None = None
    """When the patience with a stopping process ends."""
    cycling: bool = False
    """Whether it is being stopped only to be started again."""
    last_end: str | None = None
    """How its last process ended that nobody had asked to; None when none did."""
    tail: tuple[str, ...] = ()
    """The end of its log when it last failed."""

    @property
    def has_process(self) -> bool:
        """Whether a process of it runs, as far as is known."""
        return self.pid is not None

    @property
    def settled(self) -> bool:
        """Whether nothing is expected to happen soon: it serves, does not run, or has failed."""
        return self.phase in (Phase.STOPPED, Phase.SERVING, Phase.NOT_READY, Phase.CRASH_LOOP)

    @property
    def failed(self) -> bool:
        """Whether a person should look."""
        return self.phase in (Phase.NOT_READY, Phase.CRASH_LOOP)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next: an act now, or nothing until a time (None: until something happens)."""

    act: Act | None = None
    until: float | None = None


def next_step(unit: Unit, *, may_start: bool, may_stop: bool, now: float) -> Step:
    """What the supervisor is to do for a unit.

    `may_start` holds back a first start only: a service that ended is started again whatever its dependencies do.
    `may_stop` holds back a stop, never a restart.
    """
    if unit.has_process:
        return _step_with_process(unit, may_stop, now)
    if not unit.wanted:
        return Step()
    if unit.phase is Phase.WAITING and not may_start:
        return Step()
    if unit.retry_at is not None and now < unit.retry_at:
        return Step(until=unit.retry_at)
    return Step(Act.SPAWN)


def _step_with_process(unit: Unit, may_stop: bool, now: float) -> Step:
    if unit.phase is Phase.STOPPING:
        due = unit.kill_at is not None and now >= unit.kill_at
        return Step(Act.KILL) if due else Step(until=unit.kill_at)
    if unit.cycling:
        return Step(Act.TERMINATE)
    if not unit.wanted:
        return Step(Act.TERMINATE) if may_stop else Step()
    return Step(until=unit.ready_by)


# What happens to a unit.


def want(unit: Unit, *, waits_for: str) -> Unit:
    """A person, or the store of wishes, wants it to run. A pause after a failure is cut short."""
    wanted = replace(unit, wanted=True, failures=0, restarts=0, retry_at=None, last_end=None, tail=())
    if unit.phase is Phase.STOPPING:
        return replace(wanted, cycling=True)
    if unit.has_process:
        return wanted
    return replace(wanted, phase=Phase.WAITING, message=waits_for)


def unwant(unit: Unit) -> Unit:
    """A person wants it stopped, and nothing starts it again until somebody wants it."""
    stopped = replace(unit, wanted=False, cycling=False, failures=0, retry_at=None)
    if unit.has_process:
        return stopped
    return replace(stopped, phase=Phase.STOPPED, message="stopped", instance_id=None, ready_by=None)


def cycle(unit: Unit, *, waits_for: str) -> Unit:
    """A person wants it stopped and started again."""
    return replace(want(unit, waits_for=waits_for), cycling=unit.has_process)


def spawned(unit: Unit, instance_id: str, pid: int, now: float, ready_deadline: float) -> Unit:
    """Its process runs, new or adopted, and has so many seconds to serve."""
    return replace(
        unit,
        phase=Phase.STARTING,
        message=f"process {pid} started",
        instance_id=instance_id,
        pid=pid,
        ready_by=now + ready_deadline,
        serving_since=None,
        retry_at=None,
    )


def serving(unit: Unit, now: float) -> Unit:
    """Its process serves."""
    if unit.phase not in (Phase.STARTING, Phase.NOT_READY):
        return unit
    return replace(unit, phase=Phase.SERVING, message=f"serves (process {unit.pid})", serving_since=now, ready_by=None)


def late(unit: Unit, ready_deadline: float, tail: tuple[str, ...]) -> Unit:
    """It has not served within its deadline."""
    message = f"does not serve {ready_deadline:g} s after its start (process {unit.pid} still runs)"
    return replace(unit, phase=Phase.NOT_READY, message=message, ready_by=None, tail=tail)


def terminated(unit: Unit, now: float, policy: SupervisionPolicy) -> Unit:
    """It was asked to end."""
    return replace(
        unit,
        phase=Phase.STOPPING,
        message=f"process {unit.pid} was asked to end",
        ready_by=None,
        serving_since=None,
        kill_at=now + policy.stop_deadline,
    )


def condemned(unit: Unit, reason: str, now: float) -> Unit:
    """It does not react any more and is killed at once; that counts as a failure, and it is started again."""
    return replace(unit, phase=Phase.STOPPING, message=reason, ready_by=None, kill_at=now)


def killed(unit: Unit, now: float, policy: SupervisionPolicy) -> Unit:
    """It was killed, and is killed again should it still be there later."""
    return replace(unit, message=f"process {unit.pid} was killed", kill_at=now + policy.kill_again_after)


def ended(unit: Unit, how: str, tail: tuple[str, ...], now: float, policy: SupervisionPolicy) -> Unit:
    """Its process is gone; `how` completes "process 17 ..."."""
    gone = replace(unit, pid=None, instance_id=None, ready_by=None, serving_since=None, kill_at=None)
    if not unit.wanted:
        return replace(gone, phase=Phase.STOPPED, message="stopped", cycling=False)
    if unit.cycling:
        return replace(gone, phase=Phase.BACKOFF, message="starts again", cycling=False, retry_at=now)
    known = replace(gone, last_end=how, tail=tail)
    return _failed(known, f"process {unit.pid} {how}", now, policy, good_run=_was_healthy(unit, now, policy))


def not_spawned(unit: Unit, why: str, now: float, policy: SupervisionPolicy) -> Unit:
    """Its process could not be started, or nobody knows whether it was: the instance id is kept and asked for again."""
    return _failed(unit, f"could not be started: {why}", now, policy, good_run=False)


def _failed(unit: Unit, how: str, now: float, policy: SupervisionPolicy, *, good_run: bool) -> Unit:
    failures = 1 if good_run else unit.failures + 1
    delay = policy.backoff.delay(failures)
    looping = failures >= policy.crash_loop_after
    return replace(
        unit,
        phase=Phase.CRASH_LOOP if looping else Phase.BACKOFF,
        message=f"{how}; starts again in {delay:g} s",
        failures=failures,
        restarts=unit.restarts + 1,
        retry_at=now + delay,
    )


def _was_healthy(unit: Unit, now: float, policy: SupervisionPolicy) -> bool:
    return unit.serving_since is not None and now - unit.serving_since >= policy.healthy_after
