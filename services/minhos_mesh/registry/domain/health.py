"""Decides what state a service is in, why, and what a person should do about it.

Six states, each with its reasons. An instance is judged from its lease, its gRPC health, its own conditions and its
process; a service from its instances and from the services it needs. A REQUIRED dependency that is not serving makes
a service DEGRADED (or keeps it STARTING when it has never been ready); a dependency that is itself only DEGRADED
still serves and spreads nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from minhos_mesh.registry.domain.actions import action_for

CHECK_FAILURES_UNTIL_UNHEALTHY = 2
"""Unanswered health checks in a row after which an instance counts as UNHEALTHY; one alone makes it DEGRADED."""


class State(enum.Enum):
    """The health of a service or of one instance."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"

    @property
    def serves(self) -> bool:
        """Whether calls to the service can be expected to work."""
        return self in (State.HEALTHY, State.DEGRADED)


class Cause(enum.Enum):
    """Why a service is not simply HEALTHY."""

    NOT_WANTED = "NOT_WANTED"
    NOT_ATTACHED = "NOT_ATTACHED"
    NOT_READY = "NOT_READY"
    DEPENDENCY_AWAITED = "DEPENDENCY_AWAITED"
    DEPENDENCY_DOWN = "DEPENDENCY_DOWN"
    CONDITION = "CONDITION"
    NOT_SERVING = "NOT_SERVING"
    CHECK_FAILED = "CHECK_FAILED"
    HEARTBEAT_LATE = "HEARTBEAT_LATE"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    CONNECTION_LOST = "CONNECTION_LOST"
    PROCESS_EXITED = "PROCESS_EXITED"
    CRASH_LOOP = "CRASH_LOOP"
    START_TIMEOUT = "START_TIMEOUT"
    DRAINING = "DRAINING"
    INSTANCE_DOWN = "INSTANCE_DOWN"
    INSTANCES_MISSING = "INSTANCES_MISSING"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause, what it concerns, and a sentence for people."""

    cause: Cause
    subject: str
    """The instance, dependency or condition the cause is about; empty for the service itself."""
    text: str

    @property
    def code(self) -> str:
        """Machine-readable kind: the cause, or the code of the service's own condition."""
        return self.subject if self.cause is Cause.CONDITION else self.cause.value


class Serving(enum.Enum):
    """What an instance's gRPC health says of it."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"


class Silence(enum.Enum):
    """How the lease of an instance stands."""

    LIVE = "LIVE"
    LATE = "LATE"
    EXPIRED = "EXPIRED"
    LOST = "LOST"
    """The attach stream ended without a goodbye."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something a service reports about itself that is not as it should be; it serves, but less well."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """All that is known of one instance."""

    instance_id: str
    silence: Silence = Silence.LIVE
    serving: Serving = Serving.UNKNOWN
    ever_ready: bool = False
    leaving: bool = False
    """It was told to drain or stop, or said that it will."""
    conditions: tuple[Condition, ...] = ()
    check_failures: int = 0
    """Health checks in a row that were not answered."""
    check_error: str = ""
    silent_seconds: float = 0.0
    exit_text: str | None = None
    """How its process ended; None while it lives or when nobody can know."""


@dataclass(frozen=True, slots=True)
class DependencyFacts:
    """A service that is needed, and how it is."""

    name: str
    state: State
    required: bool = True


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something a service needs, and who can give it: any one of the providers is enough."""

    name: str
    """The service that gives it, or the contract when none or several do."""
    providers: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """All that is known of one service."""

    service: str
    wanted: bool
    """Whether it is meant to run: the supervisor wants it, or it attached by itself and did not say goodbye."""
    instances: tuple[InstanceFacts, ...] = ()
    dependencies: tuple[DependencyFacts, ...] = ()
    trouble: Reason | None = None
    """What the supervisor says is wrong with it; None when nothing is."""
    stopping: bool = False
    """Its process was asked to end and has not yet."""
    wanted_instances: int = 1
    """How many instances should serve at once."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state of a service or an instance, and why; the reason to look at first stands first."""

    state: State
    reasons: tuple[Reason, ...] = ()

    def key(self) -> tuple[State, frozenset[tuple[Cause, str]]]:
        """What must differ for two assessments to count as a change; the wording of a reason does not."""
        return self.state, frozenset((reason.cause, reason.subject) for reason in self.reasons)


def assess_instance(facts: InstanceFacts) -> Assessment:
    """The state of one instance, its dependencies left aside."""
    down = _instance_down(facts)
    if down is not None:
        return Assessment(State.UNHEALTHY, (down,))
    subject = facts.instance_id
    if facts.leaving:
        return Assessment(State.STOPPING, (Reason(Cause.DRAINING, subject, f"{subject} is finishing its last calls"),))
    if not facts.ever_ready:
        reason = Reason(Cause.NOT_READY, subject, f"{subject} is attached and not yet serving")
        return Assessment(State.STARTING, (reason, *_conditions(facts)))
    if facts.serving is not Serving.SERVING:
        text = f"{subject} says that it is not serving"
        return Assessment(State.UNHEALTHY, (Reason(Cause.NOT_SERVING, subject, text), *_conditions(facts)))
    reasons = list(_conditions(facts))
    if facts.check_failures:
        text = f"{subject} did not answer a health check: {facts.check_error}"
        reasons.insert(0, Reason(Cause.CHECK_FAILED, subject, text))
    return Assessment(State.DEGRADED if reasons else State.HEALTHY, tuple(reasons))


def assess_service(facts: ServiceFacts) -> Assessment:
    """The state of a service from its instances and its dependencies."""
    assessed = [(instance, assess_instance(instance)) for instance in facts.instances]
    if any(assessment.state.serves for _i, assessment in assessed):
        return _assess_serving(facts, assessed)
    reasons = tuple(reason for _i, assessment in assessed for reason in assessment.reasons)
    states = {assessment.state for _i, assessment in assessed}
    if facts.trouble is not None:  # it says already what became of those that are gone
        there = tuple(reason for reason in reasons if reason.cause not in (Cause.PROCESS_EXITED, Cause.CONNECTION_LOST))
        return Assessment(State.UNHEALTHY, (facts.trouble, *there))
    if not assessed:
        return _assess_absent(facts)
    if State.STARTING in states:  # one that comes up outweighs those that go or are gone
        return Assessment(State.STARTING, (*_awaited(facts), *reasons))
    return Assessment(State.STOPPING if states == {State.STOPPING} else State.UNHEALTHY, reasons)


def assess_mesh(
    services: Mapping[str, ServiceFacts], needs: Mapping[str, tuple[Requirement, ...]]
) -> Mapping[str, Assessment]:
    """The states of all services. What a service needs can make it DEGRADED but never keeps it from serving, so one
    look at the others is enough.
    """
    states = {name: assess_service(facts).state for name, facts in services.items()}
    return {
        name: assess_service(with_dependencies(facts, needs.get(name, ()), states)) for name, facts in services.items()
    }


def may_serve(needs: tuple[Requirement, ...], states: Mapping[str, State]) -> bool:
    """Whether an instance that is ready for the first time may get calls: everything it requires serves."""
    return all(dependency_state(need, states).serves for need in needs if need.required)


def dependency_state(need: Requirement, states: Mapping[str, State]) -> State:
    """The best state of those who can give what is needed; STOPPED when nobody can."""
    known = [states[name] for name in need.providers if name in states]
    return min(known, key=_BEST_FIRST.index, default=State.STOPPED)


def suggested_action(reason: Reason, service: str) -> str:
    """One sentence for the person who looks at a fault of this service."""
    return action_for(reason.code, service=service, subject=reason.subject)


def with_dependencies(facts: ServiceFacts, needs: tuple[Requirement, ...], states: Mapping[str, State]) -> ServiceFacts:
    """The facts of a service, with the states of what it needs."""
    dependencies = tuple(DependencyFacts(need.name, dependency_state(need, states), need.required) for need in needs)
    return replace(facts, dependencies=dependencies)


def _assess_absent(facts: ServiceFacts) -> Assessment:
    if facts.stopping:
        return Assessment(State.STOPPING, (Reason(Cause.DRAINING, "", f"{facts.service} was asked to end"),))
    if not facts.wanted:
        return Assessment(State.STOPPED, (Reason(Cause.NOT_WANTED, "", f"{facts.service} was not asked to run"),))
    reason = Reason(Cause.NOT_ATTACHED, "", f"{facts.service} has not attached yet")
    return Assessment(State.STARTING, (*_awaited(facts), reason))


def _awaited(facts: ServiceFacts) -> tuple[Reason, ...]:
    return tuple(
        Reason(Cause.DEPENDENCY_AWAITED, d.name, f"waits for {d.name}, which is {d.state.value}")
        for d in facts.dependencies
        if d.required and not d.state.serves
    )


def _assess_serving(facts: ServiceFacts, assessed: list[tuple[InstanceFacts, Assessment]]) -> Assessment:
    missing = [d for d in facts.dependencies if d.required and not d.state.serves]
    reasons = tuple(Reason(Cause.DEPENDENCY_DOWN, d.name, f"needs {d.name}, which is {d.state.value}") for d in missing)
    own: list[Reason] = []
    down = 0
    for instance, assessment in assessed:
        if assessment.state.serves:
            own.extend(assessment.reasons)
        elif assessment.state is State.UNHEALTHY:
            text = f"instance {instance.instance_id} is {assessment.state.value}: {assessment.reasons[0].text}"
            own.append(Reason(Cause.INSTANCE_DOWN, instance.instance_id, text))
            down += 1
    reasons = (*reasons, *own, *_missing(facts, assessed, down))
    return Assessment(State.DEGRADED if reasons else State.HEALTHY, reasons)


def _missing(facts: ServiceFacts, assessed: list[tuple[InstanceFacts, Assessment]], down: int) -> tuple[Reason, ...]:
    """What is missing of the instances that should serve, beside those that are told of as down."""
    serving = sum(assessment.state.serves for _i, assessment in assessed)
    if not facts.wanted or facts.wanted_instances - serving <= down:
        return ()
    text = f"{serving} of {facts.wanted_instances} instances serve"
    reason = Reason(Cause.INSTANCES_MISSING, "", text)
    return (reason,) if facts.trouble is None else (reason, facts.trouble)


def _instance_down(facts: InstanceFacts) -> Reason | None:
    subject = facts.instance_id
    if facts.exit_text is not None:
        return Reason(Cause.PROCESS_EXITED, subject, facts.exit_text)
    silent = f"{facts.silent_seconds:.1f} s"
    match facts.silence:
        case Silence.LOST:
            return Reason(Cause.CONNECTION_LOST, subject, f"{subject} lost its connection without saying goodbye")
        case Silence.EXPIRED:
            return Reason(Cause.LEASE_EXPIRED, subject, f"the lease of {subject} ran out after {silent} of silence")
        case Silence.LATE if not facts.leaving:
            return Reason(Cause.HEARTBEAT_LATE, subject, f"{subject} has sent no heartbeat for {silent}")
        case _:
            pass
    if not facts.leaving and facts.check_failures >= CHECK_FAILURES_UNTIL_UNHEALTHY:
        text = f"{subject} left {facts.check_failures} health checks in a row unanswered: {facts.check_error}"
        return Reason(Cause.CHECK_FAILED, subject, text)
    return None


def _conditions(facts: InstanceFacts) -> tuple[Reason, ...]:
    return tuple(Reason(Cause.CONDITION, condition.code, condition.text) for condition in facts.conditions)


_BEST_FIRST = [State.HEALTHY, State.DEGRADED, State.STARTING, State.STOPPING, State.UNHEALTHY, State.STOPPED]
