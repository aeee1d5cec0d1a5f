from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minhos_mesh.registry.domain.supervision import Phase, SupervisionPolicy
from minhos_mesh.registry.plan import Need, Plan, ServiceSpec, UnknownService, make_plan
from minhos_mesh.registry.supervision_ports import NotSupervised, ProgressPhase, StartFailed, StopFailed

if TYPE_CHECKING:
    from tests.unit.registry_supervision.conftest import Mesh

MANY = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SMALL = {"bus": (), "market": ("bus",), "risk": ("bus", "market"), "engine": ("risk", "market")}


def plan_of(needs: Mapping[str, Iterable[str]], optional: Mapping[str, Iterable[str]] | None = None) -> Plan:
    """A plan in which every service serves the contract of its own name."""
    soft = optional or {}
    return make_plan(
        ServiceSpec(
            name,
            frozenset({name}),
            (*(Need(item) for item in required), *(Need(item, optional=True) for item in soft.get(name, ()))),
        )
        for name, required in needs.items()
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    needs: dict[str, tuple[str, ...]] = {}
    optional: dict[str, tuple[str, ...]] = {}
    for number in range(draw(st.integers(1, 10))):
        chosen = sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        kinds = [draw(st.booleans()) for _ in chosen]
        needs[f"s{number}"] = tuple(f"s{item}" for item, soft in zip(chosen, kinds, strict=True) if not soft)
        optional[f"s{number}"] = tuple(f"s{item}" for item, soft in zip(chosen, kinds, strict=True) if soft)
    return plan_of(needs, optional)


@MANY
@given(plans(), st.data())
async def test_no_service_starts_before_all_it_requires_serves(
    new_mesh: Callable[[], Mesh], plan: Plan, data: st.DataObject
) -> None:
    mesh = new_mesh()
    mesh.processes.mute = set(plan.services)
    async with mesh.supervisor(plan) as supervisor:
        starting = asyncio.ensure_future(mesh.watch(supervisor.start_all(ready_deadline=1e6)))
        slow = set(plan.services)
        while slow:
            await mesh.settle()
            ready: list[str] = sorted(set(mesh.processes.services()) & slow)
            chosen = data.draw(st.sampled_from(ready))
            unit = supervisor.unit(chosen)
            assert unit.instance_id is not None
            mesh.board.set_serving(chosen, unit.instance_id, True)
            slow.discard(chosen)
        await mesh.settle()
        await starting
    assert sorted(name for name, _ in mesh.processes.serving_at_spawn) == sorted(plan.services)
    for name, serving in mesh.processes.serving_at_spawn:
        assert plan.required(name) | plan.optional(name) <= serving


@MANY
@given(plans())
async def test_no_service_ends_before_its_dependents_have(new_mesh: Callable[[], Mesh], plan: Plan) -> None:
    mesh = new_mesh()
    async with mesh.supervisor(plan) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.history.clear()
        await mesh.run(supervisor.stop_all())
    ended: set[str] = set()
    for what, name in mesh.processes.history:
        if what == "SIGTERM":
            assert plan.dependents(name) <= ended
        if what == "exit":
            ended.add(name)
    assert ended == set(plan.services)


async def test_services_of_one_level_start_together(mesh: Mesh) -> None:
    mesh.processes.mute = {"a", "b"}
    async with mesh.supervisor(plan_of({"a": (), "b": (), "c": ("a", "b")})) as supervisor:
        starting = asyncio.ensure_future(mesh.watch(supervisor.start_all(ready_deadline=1e6)))
        await mesh.settle()
        assert mesh.processes.services() == ["a", "b"]
        for name in ("a", "b"):
            mesh.board.set_serving(name, supervisor.unit(name).instance_id or "", True)
        await starting
        assert mesh.processes.services() == ["a", "b", "c"]


async def test_progress_of_a_start_tells_each_step(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": (), "market": ("bus",)})) as supervisor:
        steps = await mesh.run(supervisor.start_all())
    assert [(step.service, step.phase.value) for step in steps] == [
        ("bus", "WAITING"),
        ("market", "WAITING"),
        ("bus", "STARTING"),
        ("bus", "READY"),
        ("market", "STARTING"),
        ("market", "READY"),
    ]
    assert steps[1].message == "waits for bus"
    assert all(step.elapsed >= 0 for step in steps)


async def test_a_second_start_changes_nothing(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        steps = await mesh.run(supervisor.start_all())
    assert {step.phase for step in steps} == {ProgressPhase.UNCHANGED}
    assert all(mesh.processes.spawns(name) == 1 for name in SMALL)


async def test_a_service_that_never_serves_fails_in_its_deadline_with_its_log(mesh: Mesh) -> None:
    mesh.processes.mute = {"market"}
    mesh.logs.lines["market"] = ("ERROR no file to read",)
    began = mesh.clock.monotonic()
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        with pytest.raises(StartFailed) as caught:
            await mesh.run(supervisor.start_all(ready_deadline=3.0))
        assert mesh.clock.monotonic() - began == pytest.approx(3.0, abs=0.01)
        assert caught.value.service == "market"
        assert "does not serve 3 s after its start" in caught.value.failed["market"]
        assert "ERROR no file to read" in caught.value.failed["market"]
        assert caught.value.failed["engine"].startswith("is not started, for it requires market, which")
        assert mesh.processes.services() == ["bus", "market"]


async def test_a_late_service_lets_its_dependents_start_when_it_serves_after_all(mesh: Mesh) -> None:
    mesh.processes.mute = {"market"}
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        with pytest.raises(StartFailed):
            await mesh.run(supervisor.start_all())
        mesh.board.set_serving("market", supervisor.unit("market").instance_id or "", True)
        await mesh.settle()
        assert {unit.phase for unit in supervisor.units()} == {Phase.SERVING}


async def test_a_crash_loop_ends_the_start_with_the_log(mesh: Mesh) -> None:
    mesh.processes.crashing = {"bus"}
    mesh.logs.lines["bus"] = ("ERROR port taken",)
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        with pytest.raises(StartFailed, match="ended with code 1") as caught:
            await mesh.run(supervisor.start_all())
        assert "ERROR port taken" in str(caught.value)
        assert mesh.processes.spawns("bus") == 5
        mesh.processes.crashing.clear()
        await mesh.advance(30.0)
        assert supervisor.unit("bus").phase is Phase.SERVING


async def test_an_optional_dependency_gives_the_order_and_does_not_gate(mesh: Mesh) -> None:
    mesh.processes.mute = {"brain"}
    plan = plan_of({"brain": (), "engine": ()}, {"engine": ("brain",)})
    async with mesh.supervisor(plan) as supervisor:
        with pytest.raises(StartFailed) as caught:
            await mesh.run(supervisor.start_all())
        assert list(caught.value.failed) == ["brain"]
        assert supervisor.unit("engine").phase is Phase.SERVING
    assert mesh.processes.history[0] == ("spawn", "brain")


async def test_a_killed_service_comes_back_with_growing_pauses(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        await mesh.run(supervisor.start_all())
        for number, pause in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0), start=1):
            mesh.processes.end("bus", number=9)
            await mesh.advance(pause - 0.01)
            assert mesh.processes.spawns("bus") == number
            await mesh.advance(0.02)
            assert mesh.processes.spawns("bus") == number + 1
        await mesh.advance(30.0)
        mesh.processes.end("bus", number=9)
        await mesh.advance(0.11)
        assert mesh.processes.spawns("bus") == 13


async def test_a_crash_restarts_nothing_else(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.end("bus", number=9)
        await mesh.advance(0.2)
        assert mesh.processes.services() == sorted(SMALL)
        assert [mesh.processes.spawns(name) for name in ("bus", "market", "risk", "engine")] == [2, 1, 1, 1]
        assert supervisor.unit("bus").last_end == "was ended by SIGKILL"


async def test_a_restart_stops_in_order_and_touches_nothing_else(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.history.clear()
        steps = await mesh.run(supervisor.restart("bus"))
    assert mesh.processes.history == [("SIGTERM", "bus"), ("exit", "bus"), ("spawn", "bus")]
    phases = [step.phase.value for step in steps]
    assert (phases[0], phases[-2:]) == ("STOPPING", ["STARTING", "READY"])
    assert phases.count("READY") == 1


async def test_a_restart_of_what_does_not_run_is_a_start(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        steps = await mesh.run(supervisor.restart("bus"))
    assert [step.phase.value for step in steps] == ["WAITING", "STARTING", "READY"]


async def test_what_a_person_stopped_stays_stopped(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        steps = await mesh.run(supervisor.stop("bus"))
        assert [step.phase.value for step in steps][-1] == "STOPPED"
        await mesh.advance(100.0)
        assert mesh.processes.services() == ["engine", "market", "risk"]
        assert mesh.wishes.kept["bus"] is False
        again = await mesh.run(supervisor.stop("bus"))
        assert [step.phase for step in again] == [ProgressPhase.UNCHANGED]


async def test_progress_of_a_stop_tells_each_step(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": (), "market": ("bus",), "risk": ("bus",)})) as supervisor:
        await mesh.run(supervisor.start("market"))
        steps = await mesh.run(supervisor.stop_all())
    assert [(step.service, step.phase.value) for step in steps] == [
        ("risk", "UNCHANGED"),
        ("market", "STOPPING"),
        ("market", "STOPPED"),
        ("bus", "STOPPING"),
        ("bus", "STOPPED"),
    ]


async def test_after_stop_all_nothing_is_restarted(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.end("market", number=9)
        await mesh.settle()
        await mesh.run(supervisor.stop_all())
        await mesh.advance(100.0)
        assert mesh.processes.services() == []
        assert set(mesh.wishes.kept.values()) == {False}


async def test_a_service_that_ignores_its_end_is_killed_after_its_deadline(mesh: Mesh) -> None:
    mesh.processes.stubborn = {"bus"}
    async with mesh.supervisor(plan_of({"bus": ()}), SupervisionPolicy(stop_deadline=4.0)) as supervisor:
        await mesh.run(supervisor.start_all())
        began = mesh.clock.monotonic()
        await mesh.run(supervisor.stop_all())
        assert mesh.clock.monotonic() - began == pytest.approx(4.0, abs=0.01)
    assert mesh.processes.history[-3:] == [("SIGTERM", "bus"), ("SIGKILL", "bus"), ("exit", "bus")]


async def test_starting_one_service_starts_what_it_requires(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start("market"))
        assert mesh.processes.services() == ["bus", "market"]


async def test_a_frozen_service_is_killed_and_comes_back(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        await mesh.run(supervisor.start_all())
        supervisor.condemn("bus", "no heartbeat for 2 s")
        await mesh.advance(0.11)
        assert ("SIGKILL", "bus") in mesh.processes.history
        assert supervisor.unit("bus").phase is Phase.SERVING


async def test_a_new_registry_takes_over_what_runs_and_starts_what_does_not(mesh: Mesh) -> None:
    plan = plan_of(SMALL)
    async with mesh.supervisor(plan) as supervisor:
        await mesh.run(supervisor.start_all())
        await mesh.run(supervisor.stop("engine"))
    mesh.processes.end("market", number=9)
    async with mesh.supervisor(plan) as supervisor:
        await mesh.settle()
        assert mesh.processes.services() == ["bus", "market", "risk"]
        assert [mesh.processes.spawns(name) for name in ("bus", "market", "risk", "engine")] == [1, 2, 1, 1]
        assert supervisor.unit("engine").phase is Phase.STOPPED


async def test_a_new_registry_ends_what_was_being_stopped(mesh: Mesh) -> None:
    plan = plan_of({"bus": ()})
    async with mesh.supervisor(plan) as supervisor:
        await mesh.run(supervisor.start_all())
    mesh.wishes.kept["bus"] = False
    async with mesh.supervisor(plan) as supervisor:
        await mesh.settle()
        assert mesh.processes.services() == []
        assert supervisor.unit("bus").phase is Phase.STOPPED


async def test_running_services_survive_the_loss_of_the_wishes(mesh: Mesh) -> None:
    plan = plan_of({"bus": ()})
    async with mesh.supervisor(plan) as supervisor:
        await mesh.run(supervisor.start_all())
    mesh.wishes.kept.clear()
    async with mesh.supervisor(plan) as supervisor:
        await mesh.settle()
        assert supervisor.unit("bus").phase is Phase.SERVING
        assert mesh.processes.spawns("bus") == 1


async def test_a_second_process_of_a_service_is_ended(mesh: Mesh) -> None:
    plan = plan_of({"bus": ()})
    async with mesh.supervisor(plan) as supervisor:
        await mesh.run(supervisor.start_all())
    first = next(iter(mesh.processes.running.values()))
    mesh.processes.running["bus-x"] = type(first)("bus", "bus-x", 999, 1, 0, "/dev/null")
    async with mesh.supervisor(plan) as supervisor:
        await mesh.settle()
        assert len(mesh.processes.running) == 1


async def test_a_lost_answer_of_the_keeper_starts_nothing_twice(mesh: Mesh) -> None:
    mesh.processes.loses_answers = True
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        await mesh.run(supervisor.start_all())
        await mesh.advance(5.0)
        assert mesh.processes.spawns("bus") == 1
        assert supervisor.unit("bus").phase is Phase.SERVING


async def test_services_are_kept_by_a_new_keeper_and_missed_ends_are_noticed(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": (), "market": ("bus",)})) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.die()
        await mesh.settle()
        mesh.processes.end("market", number=9)
        await mesh.advance(5.0)
        assert supervisor.unit("bus").phase is Phase.SERVING
        mesh.processes.away = False
        await mesh.advance(1.1)
        await mesh.advance(0.2)
        assert [mesh.processes.spawns(name) for name in ("bus", "market")] == [1, 2]
        assert supervisor.unit("market").last_end == "ended while nobody watched"


async def test_without_a_keeper_a_start_fails_and_says_so(mesh: Mesh) -> None:
    mesh.processes.away = True
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        with pytest.raises(StartFailed, match="no keeper answers"):
            await mesh.run(supervisor.start_all())


async def test_without_a_keeper_a_stop_fails_and_says_so(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.die()
        with pytest.raises(StopFailed, match="bus"):
            await mesh.run(supervisor.stop_all())


async def test_a_program_that_cannot_be_executed_fails_the_start(mesh: Mesh) -> None:
    mesh.processes.refuses = "cannot execute /nowhere: No such file or directory"
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        with pytest.raises(StartFailed, match="cannot execute /nowhere"):
            await mesh.run(supervisor.start_all())


async def test_a_caller_who_goes_away_changes_nothing(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        watching = asyncio.ensure_future(mesh.watch(supervisor.start_all()))
        await asyncio.sleep(0)
        watching.cancel()
        await mesh.settle()
        assert mesh.processes.services() == sorted(SMALL)


async def test_a_stop_during_a_start_wins(mesh: Mesh) -> None:
    mesh.processes.mute = {"market"}
    async with mesh.supervisor(plan_of(SMALL)) as supervisor:
        starting = asyncio.ensure_future(mesh.watch(supervisor.start_all(ready_deadline=1e6)))
        await mesh.settle()
        await mesh.run(supervisor.stop_all())
        with pytest.raises(StartFailed):
            await starting
        assert mesh.processes.services() == []


async def test_a_start_during_a_stop_wins(mesh: Mesh) -> None:
    mesh.processes.stubborn = {"bus"}
    async with mesh.supervisor(plan_of({"bus": ()})) as supervisor:
        await mesh.run(supervisor.start_all())
        stopping = asyncio.ensure_future(mesh.watch(supervisor.stop_all()))
        await mesh.settle()
        await mesh.run(supervisor.start_all())
        await stopping
        assert supervisor.unit("bus").phase is Phase.SERVING
        assert mesh.processes.spawns("bus") == 2


async def test_the_registry_is_part_of_the_plan_and_not_supervised(mesh: Mesh) -> None:
    async with mesh.supervisor(plan_of({"registry": (), "bus": ("registry",)})) as supervisor:
        await mesh.run(supervisor.start_all())
        assert mesh.processes.services() == ["bus"]
        with pytest.raises(NotSupervised, match="kept by the keeper"):
            supervisor.unit("registry")
        with pytest.raises(UnknownService, match="there is no service 'nope'"):
            await mesh.run(supervisor.stop("nope"))
