"""When a supervised process is started, given up on, asked to end, killed, restarted and replaced; pure, time is an argument.

A service has one unit for each of its instances. A unit has one process, and a second one while a planned restart replaces
the first.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from minhos_mesh.runtime.backoff import Backoff


class Phase(enum.Enum):
    """Where a supervised process stands."""

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
    ENDED = "ENDED"
    """Its process ended by itself, and its policy says that it is not started again."""
    STOPPING = "STOPPING"
    """Its process was asked to end."""


class Act(enum.Enum):
    """What the supervisor is to do now."""

    SPAWN = "SPAWN"
    TERMINATE = "TERMINATE"
    KILL = "KILL"
    SPAWN_NEXT = "SPAWN_NEXT"
    """Start the process that is to replace the present one."""
    KILL_NEXT = "KILL_NEXT"
    """End the process that was to replace the present one, and does not."""


class Restart(enum.Enum):
    """When a process that ended by itself is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    """When its exit code was not 0, or is not known."""
    NEVER = "never"


class Replacement(enum.Enum):
    """How a planned restart replaces a process."""

    STOP_FIRST = "STOP_FIRST"
    """The old process ends before a new one is started."""
    HAND_OVER = "HAND_OVER"
    """The new process stands by, all but open; the old one lets go of what only one may hold, and the new one takes it."""
    OVERLAP = "OVERLAP"
    """The new process serves before the old one is asked to end."""


@dataclass(frozen=True, slots=True)
class SupervisionPolicy:
    """How one service is supervised; times in seconds."""

    backoff: Backoff = field(default_factory=Backoff)
    healthy_after: float = 30.0
    """A process that has served this long has its failures forgotten."""
    crash_loop_after: int = 5
    """From so many failures in a row on it is a crash loop."""
    ready_deadline: float = 15.0
    """How long a start may take until it serves."""
    stop_deadline: float = 10.0
    """How long a process may take to end before it is killed."""
    kill_again_after: float = 2.0
    """How long after a kill it is killed again, should it still be there."""
    restart: Restart = Restart.ALWAYS
    replacement: Replacement = Replacement.STOP_FIRST
    liveness_deadline: float = 10.0
    """A process that lives and has been silent for this long is killed and started again."""
    watched_only: float | None = None
    """The process tells nothing of itself: it counts as serving once it has lived for so long. None for all others."""


@dataclass(frozen=True, slots=True)
class Next:
    """The process that is to replace the present one."""

    instance_id: str
    pid: int
    by: float
    """When it has taken too long."""
    ready: bool = False
    """Whether the old process may be asked to end."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One supervised process. All times are on the monotonic clock, in seconds."""

    service: str
    slot: int = 1
    """Which instance of its service, from 1."""
    slots: int = 1
    """How many instances of its service there should be."""
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
    replacing: bool = False
    """Whether a planned restart replaces its process."""
    next: Next | None = None
    not_replaced: str = ""
    """Why the last planned restart left the old process as it was; empty when it did not."""
    last_end: str | None = None
    """How its last process ended that nobody had asked to; None when none did."""
    tail: tuple[str, ...] = ()
    """The end of its log when it last failed."""

    @property
    def name(self) -> str:
        """The service, with the number of the instance from the second on."""
        return self.service if self.slot == 1 else f"{self.service}#{self.slot}"

    @property
    def place(self) -> str:
        """How the ids of all its processes begin, one after the other: with the number where there are several."""
        return self.service if self.slots == 1 else f"{self.service}-{self.slot}"

    @property
    def has_process(self) -> bool:
        """Whether a process of it runs, as far as is known."""
        return self.pid is not None

    @property
    def settled(self) -> bool:
        """Whether nothing is expected to happen soon: it serves, does not run, or has failed."""
        return self.phase in (Phase.STOPPED, Phase.SERVING, Phase.NOT_READY, Phase.CRASH_LOOP, Phase.ENDED)

    @property
    def failed(self) -> bool:
        """Whether a person should look."""
        return self.phase in (Phase.NOT_READY, Phase.CRASH_LOOP) or (self.phase is Phase.ENDED and bool(self.failures))

    @property
    def instance_ids(self) -> frozenset[str]:
        """The instances that its processes run as."""
        found = {self.instance_id} if self.has_process else set()
        return frozenset(id_ for id_ in (*found, self.next.instance_id if self.next else None) if id_ is not None)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next: an act now, or nothing until a time (None: until something happens)."""

    act: Act | None = None
    until: float | None = None


def next_step(unit: Unit, *, may_start: bool, may_stop: bool, now: float) -> Step:
    """What the supervisor is to do for a unit.

    `may_start` holds back a first start only: a process that ended is started again whatever its dependencies do.
    `may_stop` holds back a stop, never a restart.
    """
    if unit.next is not None and not unit.wanted:
        return Step(Act.KILL_NEXT)
    if unit.has_process:
        return _step_with_process(unit, may_stop, now)
    if not unit.wanted or unit.phase is Phase.ENDED:
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
    if unit.replacing:
        return _step_of_replacement(unit.next, now)
    return Step(until=unit.ready_by)


def _step_of_replacement(following: Next | None, now: float) -> Step:
    if following is None:
        return Step(Act.SPAWN_NEXT)
    if following.ready:
        return Step(Act.TERMINATE)
    return Step(Act.KILL_NEXT) if now >= following.by else Step(until=following.by)


# What happens to a unit.


def want(unit: Unit, *, waits_for: str) -> Unit:
    """A person, or the store of wishes, wants it to run. A pause after a failure is cut short."""
    wanted = replace(unit, wanted=True, failures=0, restarts=0, retry_at=None, last_end=None, tail=(), not_replaced="")
    if unit.phase is Phase.STOPPING:
        return replace(wanted, cycling=unit.next is None)
    if unit.has_process:
        return wanted
    return replace(wanted, phase=Phase.WAITING, message=waits_for)


def unwant(unit: Unit) -> Unit:
    """A person wants it stopped, and nothing starts it again until somebody wants it."""
    stopped = replace(unit, wanted=False, cycling=False, replacing=False, failures=0, retry_at=None)
    if unit.has_process:
        return stopped
    return replace(stopped, phase=Phase.STOPPED, message="stopped", instance_id=None, ready_by=None)


def cycle(unit: Unit, *, waits_for: str) -> Unit:
    """A person wants it stopped and started again."""
    if unit.phase is Phase.STOPPING and unit.next is not None:
        return want(unit, waits_for=waits_for)  # its successor takes over as soon as it has ended
    return replace(want(unit, waits_for=waits_for), cycling=unit.has_process, replacing=False)


def renew(unit: Unit, policy: SupervisionPolicy, *, waits_for: str) -> Unit:
    """A person wants a new process in the place of the present one, in the way that its policy names."""
    if unit.phase is not Phase.SERVING or not unit.wanted or policy.replacement is Replacement.STOP_FIRST:
        return cycle(unit, waits_for=waits_for)
    message = unit.message if unit.replacing else f"a new process is started, process {unit.pid} serves on"
    return replace(want(unit, waits_for=waits_for), replacing=True, not_replaced="", message=message)


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
    follows = f"; process {unit.next.pid} takes over" if unit.next is not None else ""
    return replace(
        unit,
        phase=Phase.STOPPING,
        message=f"process {unit.pid} was asked to end{follows}",
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


def ended(
    unit: Unit, how: str, tail: tuple[str, ...], now: float, policy: SupervisionPolicy, *, code: int | None = None
) -> Unit:
    """Its process is gone; `how` completes "process 17 ...", `code` is its exit code where there was one."""
    gone = replace(unit, pid=None, instance_id=None, ready_by=None, serving_since=None, kill_at=None)
    if not unit.wanted:
        return replace(gone, phase=Phase.STOPPED, message="stopped", cycling=False, replacing=False)
    if unit.next is not None:
        planned = unit.replacing and unit.next.ready
        return _promoted(gone if planned else replace(gone, last_end=how, tail=tail), unit.next, now, policy)
    if unit.cycling:
        return replace(gone, phase=Phase.BACKOFF, message="starts again", cycling=False, replacing=False, retry_at=now)
    known = replace(gone, last_end=how, tail=tail, replacing=False)
    if policy.restart is Restart.NEVER or (policy.restart is Restart.ON_FAILURE and code == 0):
        told = f"process {unit.pid} {how}; it is not started again (restart = {policy.restart.value})"
        return replace(known, phase=Phase.ENDED, message=told, failures=0 if code == 0 else unit.failures + 1)
    return _failed(known, f"process {unit.pid} {how}", now, policy, good_run=_was_healthy(unit, now, policy))


def not_spawned(unit: Unit, why: str, now: float, policy: SupervisionPolicy) -> Unit:
    """Its process could not be started, or nobody knows whether it was: the instance id is kept and asked for again."""
    return _failed(unit, f"could not be started: {why}", now, policy, good_run=False)


# What happens to the process that is to replace the present one.


def next_spawned(unit: Unit, instance_id: str, pid: int, now: float, ready_deadline: float) -> Unit:
    """The new process runs beside the old one."""
    message = f"process {pid} started, process {unit.pid} serves on"
    return replace(unit, next=Next(instance_id, pid, now + ready_deadline), message=message)


def next_ready(unit: Unit) -> Unit:
    """The new process stands by or serves: the old one may end."""
    return unit if unit.next is None else replace(unit, next=replace(unit.next, ready=True))


def next_failed(unit: Unit, why: str, tail: tuple[str, ...]) -> Unit:
    """There is no new process: the old one serves on, or, if it was asked to end already, is started again after its end."""
    if unit.phase is Phase.STOPPING or not unit.has_process or not unit.wanted:
        return replace(unit, next=None, replacing=False, cycling=unit.wanted and unit.has_process)
    message = f"serves (process {unit.pid})"
    return replace(unit, next=None, replacing=False, not_replaced=why, message=message, tail=tail)


def _promoted(gone: Unit, following: Next, now: float, policy: SupervisionPolicy) -> Unit:
    return replace(
        gone,
        phase=Phase.STARTING,
        message=f"process {following.pid} takes over",
        instance_id=following.instance_id,
        pid=following.pid,
        ready_by=now + policy.ready_deadline,
        cycling=False,
        replacing=False,
        next=None,
        retry_at=None,
    )


def _failed(unit: Unit, how: str, now: float, policy: SupervisionPolicy, *, good_run: bool) -> Unit:
    failures = 1 if good_run else unit.failures + 1
    delay = policy.backoff.delay(failures)
    looping = failures >= policy.crash_loop_after
    return replace(
        unit,
        phase=Phase.CRASH_LOOP if looping else Phase.BACKOFF,
        message=f"{how}; starts again in {delay:g} s" + (f", after {failures} failures in a row" if looping else ""),
        failures=failures,
        restarts=unit.restarts + 1,
        retry_at=now + delay,
    )


def _was_healthy(unit: Unit, now: float, policy: SupervisionPolicy) -> bool:
    return unit.serving_since is not None and now - unit.serving_since >= policy.healthy_after
