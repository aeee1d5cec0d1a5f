"""Every state that an instance and a service can go to from each of theirs, found by trying everything that can happen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from minhos_mesh.registry.domain.health import (
    Cause,
    Condition,
    DependencyFacts,
    InstanceFacts,
    Reason,
    ServiceFacts,
    Serving,
    Silence,
    State,
    assess_instance,
    assess_service,
)

STARTING, HEALTHY, DEGRADED = State.STARTING, State.HEALTHY, State.DEGRADED
UNHEALTHY, STOPPING, STOPPED = State.UNHEALTHY, State.STOPPING, State.STOPPED
NO_TICKS = Condition("NO_TICKS", "no tick")

# One instance.

NEW = InstanceFacts("a-1")
READY = replace(NEW, serving=Serving.SERVING, ever_ready=True)
LIMPING = replace(READY, conditions=(NO_TICKS,))
LATE = replace(READY, silence=Silence.LATE)
LEAVING = replace(READY, leaving=True)


def gone(facts: InstanceFacts) -> bool:
    return facts.exit_text is not None or facts.silence in (Silence.EXPIRED, Silence.LOST)


def happenings(facts: InstanceFacts) -> Iterator[tuple[str, InstanceFacts]]:
    """All that can happen to an instance, and what is known of it then."""
    if gone(facts):
        return
    for serving in Serving:
        for conditions in ((), (NO_TICKS,)):
            beat = replace(facts, silence=Silence.LIVE, serving=serving, conditions=conditions)
            yield f"beats, {serving.value}, {len(conditions)} conditions", beat
    if facts.serving is Serving.SERVING and not facts.leaving:
        yield "is let in", replace(facts, ever_ready=True)
    yield "check answered", replace(facts, check_failures=0)
    yield "check unanswered", replace(facts, check_failures=min(2, facts.check_failures + 1), check_error="no answer")
    yield "beats late", replace(facts, silence=Silence.LATE, silent_seconds=2.0)
    yield "its lease runs out", replace(facts, silence=Silence.EXPIRED, silent_seconds=3.0)
    yield "its connection breaks", replace(facts, silence=Silence.LOST)
    yield "its process ends", replace(facts, exit_text="process 7 was ended by SIGKILL")
    yield "says goodbye", replace(facts, leaving=True)


INSTANCE_STEPS = {
    STARTING: {HEALTHY, DEGRADED, UNHEALTHY, STOPPING},
    HEALTHY: {DEGRADED, UNHEALTHY, STOPPING},
    DEGRADED: {HEALTHY, UNHEALTHY, STOPPING},
    UNHEALTHY: {STARTING, HEALTHY, DEGRADED, STOPPING},
    STOPPING: {UNHEALTHY},
}
"""From state to states. What has served is never STARTING again, what leaves never serves again, and none is STOPPED."""


def test_an_instance_goes_from_each_state_to_exactly_these() -> None:
    seen, steps, queue = {NEW}, dict[State, set[State]](), [NEW]
    while queue:
        facts = queue.pop()
        before = assess_instance(facts).state
        for _name, after in happenings(facts):
            state = assess_instance(after).state
            if state is not before:
                steps.setdefault(before, set()).add(state)
            if after not in seen:
                seen.add(after)
                queue.append(after)
    assert steps == INSTANCE_STEPS
    assert len(seen) > 400


IMPOSSIBLE_FOR_AN_INSTANCE = [
    (before, after)
    for before in State
    for after in State
    if before is not after and after not in INSTANCE_STEPS.get(before, set())
]


@pytest.mark.parametrize(("before", "after"), IMPOSSIBLE_FOR_AN_INSTANCE)
def test_nothing_leads_an_instance_there(before: State, after: State) -> None:
    for facts in (NEW, READY, LIMPING, LATE, replace(NEW, silence=Silence.LATE), LEAVING):
        if assess_instance(facts).state is before:
            assert {assess_instance(then).state for _name, then in happenings(facts)}.isdisjoint({after})


INSTANCE_ROWS = [
    (NEW, "is let in", STARTING, HEALTHY, []),
    (replace(NEW, conditions=(NO_TICKS,)), "is let in", STARTING, DEGRADED, [Cause.CONDITION]),
    (NEW, "its process ends", STARTING, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (NEW, "beats late", STARTING, UNHEALTHY, [Cause.HEARTBEAT_LATE]),
    (NEW, "says goodbye", STARTING, STOPPING, [Cause.DRAINING]),
    (READY, "beats, SERVING, 1 conditions", HEALTHY, DEGRADED, [Cause.CONDITION]),
    (READY, "check unanswered", HEALTHY, DEGRADED, [Cause.CHECK_FAILED]),
    (READY, "beats, NOT_SERVING, 0 conditions", HEALTHY, UNHEALTHY, [Cause.NOT_SERVING]),
    (READY, "beats late", HEALTHY, UNHEALTHY, [Cause.HEARTBEAT_LATE]),
    (READY, "its lease runs out", HEALTHY, UNHEALTHY, [Cause.LEASE_EXPIRED]),
    (READY, "its connection breaks", HEALTHY, UNHEALTHY, [Cause.CONNECTION_LOST]),
    (READY, "its process ends", HEALTHY, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (READY, "says goodbye", HEALTHY, STOPPING, [Cause.DRAINING]),
    (LIMPING, "beats, SERVING, 0 conditions", DEGRADED, HEALTHY, []),
    (replace(READY, check_failures=1), "check answered", DEGRADED, HEALTHY, []),
    (replace(READY, check_failures=1), "check unanswered", DEGRADED, UNHEALTHY, [Cause.CHECK_FAILED]),
    (LIMPING, "says goodbye", DEGRADED, STOPPING, [Cause.DRAINING]),
    (replace(NEW, silence=Silence.LATE), "beats, UNKNOWN, 0 conditions", UNHEALTHY, STARTING, [Cause.NOT_READY]),
    (LATE, "beats, SERVING, 0 conditions", UNHEALTHY, HEALTHY, []),
    (LATE, "beats, SERVING, 1 conditions", UNHEALTHY, DEGRADED, [Cause.CONDITION]),
    (LATE, "says goodbye", UNHEALTHY, STOPPING, [Cause.DRAINING]),
    (LEAVING, "its lease runs out", STOPPING, UNHEALTHY, [Cause.LEASE_EXPIRED]),
    (LEAVING, "check unanswered", STOPPING, STOPPING, [Cause.DRAINING]),
    (LEAVING, "beats late", STOPPING, STOPPING, [Cause.DRAINING]),
]


@pytest.mark.parametrize(
    ("facts", "name", "before", "after", "causes"),
    INSTANCE_ROWS,
    ids=[f"{row[2].value} {row[1]} {row[3].value}" for row in INSTANCE_ROWS],
)
def test_a_step_of_an_instance_has_its_reason(
    facts: InstanceFacts, name: str, before: State, after: State, causes: list[Cause]
) -> None:
    assert assess_instance(facts).state is before
    if name == "is let in":
        facts = replace(facts, serving=Serving.SERVING)
    assessment = assess_instance(dict(happenings(facts))[name])
    assert (assessment.state, [reason.cause for reason in assessment.reasons]) == (after, causes)


def test_every_step_of_an_instance_has_a_row() -> None:
    rows = {(before, after) for _facts, _name, before, after, _causes in INSTANCE_ROWS if before is not after}
    assert rows == {(before, after) for before, many in INSTANCE_STEPS.items() for after in many}


# A service, with up to two instances.

FALLEN = replace(READY, exit_text="process 7 was ended by SIGKILL")
TROUBLE = Reason(Cause.PROCESS_EXITED, "", "process 7 was ended by SIGKILL; starts again in 0.1 s")
KINDS = {"new": NEW, "ready": READY, "limping": LIMPING, "late": LATE, "leaving": LEAVING, "fallen": FALLEN}
NEXT = {
    "new": ("ready", "limping", "leaving", "fallen"),
    "ready": ("limping", "late", "leaving", "fallen"),
    "limping": ("ready", "late", "leaving", "fallen"),
    "late": ("ready", "limping", "fallen", "leaving"),
    "leaving": ("fallen",),
    "fallen": (),
}
"""How instances go on; those that leave or have fallen may also be forgotten."""


@dataclass(frozen=True)
class Situation:
    """A service as its supervisor, what it needs and its instances make it."""

    wanted: bool = False
    stopping: bool = False
    troubled: bool = False
    needs_down: bool = False
    instances: tuple[str, ...] = ()

    def facts(self) -> ServiceFacts:
        needs = (DependencyFacts("bus", UNHEALTHY if self.needs_down else HEALTHY),)
        # An instance that is gone is not told of when nobody wants the service: see directory.service_facts.
        counted = [kind for kind in self.instances if kind != "fallen" or self.wanted]
        instances = tuple(replace(KINDS[kind], instance_id=f"a-{n}") for n, kind in enumerate(counted))
        return ServiceFacts("a", self.wanted, instances, needs, TROUBLE if self.troubled else None, self.stopping)

    @property
    def alive(self) -> bool:
        return any(kind != "fallen" for kind in self.instances)


def next_situations(now: Situation) -> Iterator[Situation]:
    """All that can happen to a supervised service."""
    yield replace(now, needs_down=not now.needs_down)
    if not now.wanted:
        yield replace(now, wanted=True)
    if now.wanted:
        yield replace(now, wanted=False, troubled=False)
        if not now.alive:
            yield replace(now, troubled=not now.troubled)
        else:
            yield replace(now, troubled=True)  # it does not serve within its deadline
    if now.alive and not now.stopping:
        yield replace(now, stopping=True)  # it was asked to end, for good or to be started again
    if now.stopping and not now.alive:
        yield replace(now, stopping=False)
    if now.wanted and len(now.instances) < 2:
        yield replace(now, troubled=False, instances=tuple(sorted((*now.instances, "new"))))
    for place, kind in enumerate(now.instances):
        others = now.instances[:place] + now.instances[place + 1 :]
        for then in NEXT[kind]:
            yield replace(now, instances=tuple(sorted((*others, then))))
        if kind in ("leaving", "fallen"):
            yield replace(now, instances=others)


SERVICE_STEPS = {
    STOPPED: {STARTING, UNHEALTHY},
    STARTING: {HEALTHY, DEGRADED, UNHEALTHY, STOPPING, STOPPED},
    HEALTHY: {DEGRADED, UNHEALTHY, STARTING, STOPPING, STOPPED},
    DEGRADED: {HEALTHY, UNHEALTHY, STARTING, STOPPING, STOPPED},
    UNHEALTHY: {HEALTHY, DEGRADED, STARTING, STOPPING, STOPPED},
    STOPPING: {STARTING, UNHEALTHY, STOPPED},
}
"""From state to states. None serves that was STOPPED or STOPPING without having been STARTING between."""


def test_a_service_goes_from_each_state_to_exactly_these() -> None:
    seen, steps, queue = {Situation()}, dict[State, set[State]](), [Situation()]
    while queue:
        now = queue.pop()
        before = assess_service(now.facts()).state
        for then in next_situations(now):
            after = assess_service(then.facts()).state
            if after is not before:
                steps.setdefault(before, set()).add(after)
            if then not in seen:
                seen.add(then)
                queue.append(then)
    assert steps == SERVICE_STEPS
    assert len(seen) > 200


def at(*instances: str, **known: bool) -> Situation:
    return Situation(**{"wanted": True, **known}, instances=instances)


SERVICE_ROWS = [
    (at(wanted=False), at(), STOPPED, STARTING, [Cause.NOT_ATTACHED]),
    (at("fallen", wanted=False), at("fallen"), STOPPED, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (at("new"), at("ready"), STARTING, HEALTHY, []),
    (at("new"), at("limping"), STARTING, DEGRADED, [Cause.CONDITION]),
    (at("new", needs_down=True), at("ready", needs_down=True), STARTING, DEGRADED, [Cause.DEPENDENCY_DOWN]),
    (at(), at(troubled=True), STARTING, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (at("new"), at("fallen"), STARTING, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (at("new"), at("leaving"), STARTING, STOPPING, [Cause.DRAINING]),
    (at(), at(wanted=False), STARTING, STOPPED, [Cause.NOT_WANTED]),
    (at("ready"), at("limping"), HEALTHY, DEGRADED, [Cause.CONDITION]),
    (at("ready"), at("ready", needs_down=True), HEALTHY, DEGRADED, [Cause.DEPENDENCY_DOWN]),
    (at("ready", "ready"), at("fallen", "ready"), HEALTHY, DEGRADED, [Cause.INSTANCE_DOWN]),
    (at("ready"), at("late"), HEALTHY, UNHEALTHY, [Cause.HEARTBEAT_LATE]),
    (at("ready"), at("fallen"), HEALTHY, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (at("new", "ready"), at("late", "new"), HEALTHY, STARTING, [Cause.HEARTBEAT_LATE, Cause.NOT_READY]),
    (at("ready"), at("leaving"), HEALTHY, STOPPING, [Cause.DRAINING]),
    (at("ready", wanted=False), at("fallen", wanted=False), HEALTHY, STOPPED, [Cause.NOT_WANTED]),
    (at("limping"), at("ready"), DEGRADED, HEALTHY, []),
    (at("ready", needs_down=True), at("ready"), DEGRADED, HEALTHY, []),
    (at("fallen", "ready"), at("ready"), DEGRADED, HEALTHY, []),
    (at("fallen", "ready"), at("fallen", "late"), DEGRADED, UNHEALTHY, [Cause.PROCESS_EXITED, Cause.HEARTBEAT_LATE]),
    (at("limping", "new"), at("late", "new"), DEGRADED, STARTING, [Cause.HEARTBEAT_LATE, Cause.NOT_READY]),
    (at("limping"), at("leaving"), DEGRADED, STOPPING, [Cause.DRAINING]),
    (at("limping", wanted=False), at("fallen", wanted=False), DEGRADED, STOPPED, [Cause.NOT_WANTED]),
    (at("late"), at("ready"), UNHEALTHY, HEALTHY, []),
    (at("late"), at("limping"), UNHEALTHY, DEGRADED, [Cause.CONDITION]),
    (at("fallen"), at("fallen", "new"), UNHEALTHY, STARTING, [Cause.PROCESS_EXITED, Cause.NOT_READY]),
    (at("late"), at("leaving"), UNHEALTHY, STOPPING, [Cause.DRAINING]),
    (at("fallen"), at("fallen", wanted=False), UNHEALTHY, STOPPED, [Cause.NOT_WANTED]),
    (at(stopping=True), at(), STOPPING, STARTING, [Cause.NOT_ATTACHED]),
    (at("leaving"), at("leaving", "new"), STOPPING, STARTING, [Cause.DRAINING, Cause.NOT_READY]),
    (at("leaving"), at("fallen"), STOPPING, UNHEALTHY, [Cause.PROCESS_EXITED]),
    (at("leaving", wanted=False), at(wanted=False), STOPPING, STOPPED, [Cause.NOT_WANTED]),
]


@pytest.mark.parametrize(
    ("now", "then", "before", "after", "causes"),
    SERVICE_ROWS,
    ids=[f"{row[2].value} {'+'.join(row[1].instances)} {row[3].value}" for row in SERVICE_ROWS],
)
def test_a_step_of_a_service_has_its_reason(
    now: Situation, then: Situation, before: State, after: State, causes: list[Cause]
) -> None:
    assert assess_service(now.facts()).state is before
    assessment = assess_service(then.facts())
    assert (assessment.state, [reason.cause for reason in assessment.reasons]) == (after, causes)


def test_every_step_of_a_service_has_a_row() -> None:
    rows = {(before, after) for _now, _then, before, after, _causes in SERVICE_ROWS}
    assert rows == {(before, after) for before, many in SERVICE_STEPS.items() for after in many}
