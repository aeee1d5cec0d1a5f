from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.registry.domain import supervision
from minhos_mesh.registry.domain.supervision import Act, Phase, Step, SupervisionPolicy, Unit
from minhos_mesh.runtime.backoff import Backoff

POLICY = SupervisionPolicy()


def waiting() -> Unit:
    return supervision.want(Unit("a"), waits_for="waits for b")


def serving(at: float = 0.0) -> Unit:
    return supervision.serving(supervision.spawned(waiting(), "a-1", 7, at, 15.0), at)


def step(unit: Unit, now: float = 0.0, *, may_start: bool = True, may_stop: bool = True) -> Step:
    return supervision.next_step(unit, may_start=may_start, may_stop=may_stop, now=now)


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (9, 25.6), (10, 30.0), (11, 30.0), (10_000, 30.0)],
)
def test_backoff_doubles_from_a_tenth_of_a_second_to_thirty(failures: int, delay: float) -> None:
    assert Backoff().delay(failures) == pytest.approx(delay)


@given(st.integers(0, 2000))
def test_backoff_never_shrinks_and_never_exceeds_its_limit(failures: int) -> None:
    assert Backoff().delay(failures) <= Backoff().delay(failures + 1) <= 30.0


@pytest.mark.parametrize("bad", [{"first": 0.0}, {"factor": 0.5}, {"limit": 0.01}])
def test_a_backoff_that_does_not_grow_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**bad)


def test_an_unwanted_service_is_left_alone() -> None:
    assert step(Unit("a")) == Step()


def test_a_waiting_service_starts_when_its_gate_opens() -> None:
    assert step(waiting(), may_start=False) == Step()
    assert step(waiting()) == Step(Act.SPAWN)


def test_a_crashed_service_starts_again_whatever_its_dependencies_do() -> None:
    crashed = supervision.ended(serving(), "ended with code 1", (), 5.0, POLICY)
    assert step(crashed, 5.0, may_start=False) == Step(until=5.1)
    assert step(crashed, 5.2, may_start=False) == Step(Act.SPAWN)


def test_failures_are_forgotten_after_thirty_seconds_of_health() -> None:
    unit = serving()
    for _ in range(3):
        unit = supervision.ended(unit, "ended with code 1", (), 29.0, POLICY)
        unit = supervision.serving(supervision.spawned(unit, "a-1", 7, 0.0, 15.0), 0.0)
    assert unit.failures == 3
    assert supervision.ended(unit, "ended with code 1", (), 30.0, POLICY).failures == 1


def test_five_failures_in_a_row_are_a_crash_loop_and_it_goes_on_trying() -> None:
    unit = waiting()
    phases = []
    for number in range(6):
        unit = supervision.spawned(unit, f"a-{number}", 7, 0.0, 15.0)
        unit = supervision.ended(unit, "ended with code 1", ("boom",), 0.0, POLICY)
        phases.append(unit.phase)
    assert phases == [Phase.BACKOFF] * 4 + [Phase.CRASH_LOOP] * 2
    assert unit.tail == ("boom",)
    assert unit.retry_at is not None
    assert step(unit, unit.retry_at) == Step(Act.SPAWN)


def test_a_stopping_service_is_killed_after_its_deadline_and_again() -> None:
    unit = supervision.terminated(supervision.unwant(serving()), 0.0, POLICY)
    assert step(unit, 9.9) == Step(until=10.0)
    assert step(unit, 10.0) == Step(Act.KILL)
    unit = supervision.killed(unit, 10.0, POLICY)
    assert step(unit, 10.0) == Step(until=12.0)
    assert step(unit, 12.0) == Step(Act.KILL)


def test_a_stop_waits_for_dependents_and_a_restart_does_not() -> None:
    assert step(supervision.unwant(serving()), may_stop=False) == Step()
    assert step(supervision.cycle(serving(), waits_for=""), may_stop=False) == Step(Act.TERMINATE)


def test_what_was_stopped_by_a_person_is_not_restarted() -> None:
    unit = supervision.terminated(supervision.unwant(serving()), 0.0, POLICY)
    unit = supervision.ended(unit, "ended with code 0", (), 1.0, POLICY)
    assert unit.phase is Phase.STOPPED
    assert step(unit, 1e9) == Step()


def test_a_restart_asked_for_is_no_failure() -> None:
    unit = supervision.terminated(supervision.cycle(serving(), waits_for=""), 0.0, POLICY)
    unit = supervision.ended(unit, "ended with code 0", (), 1.0, POLICY)
    assert (unit.failures, unit.restarts, unit.last_end) == (0, 0, None)
    assert step(unit, 1.0) == Step(Act.SPAWN)


def test_a_start_during_a_stop_starts_again_after_it() -> None:
    unit = supervision.terminated(supervision.unwant(serving()), 0.0, POLICY)
    unit = supervision.ended(supervision.want(unit, waits_for=""), "ended with code 0", (), 1.0, POLICY)
    assert step(unit, 1.0) == Step(Act.SPAWN)


def test_a_condemned_service_is_killed_at_once_and_counts_as_failed() -> None:
    unit = supervision.condemned(serving(), "frozen for 2 s", 3.0)
    assert step(unit, 3.0) == Step(Act.KILL)
    unit = supervision.ended(supervision.killed(unit, 3.0, POLICY), "was ended by SIGKILL", (), 3.1, POLICY)
    assert (unit.phase, unit.failures) == (Phase.BACKOFF, 1)


def test_a_service_that_is_late_is_left_running_and_may_still_come() -> None:
    unit = supervision.late(supervision.spawned(waiting(), "a-1", 7, 0.0, 15.0), 15.0, ("still loading",))
    assert unit.failed
    assert step(unit, 100.0) == Step()
    assert supervision.serving(unit, 101.0).phase is Phase.SERVING


def test_a_person_cuts_a_pause_short() -> None:
    unit = supervision.ended(serving(), "ended with code 1", (), 5.0, POLICY)
    assert step(supervision.want(unit, waits_for=""), 5.0) == Step(Act.SPAWN)
