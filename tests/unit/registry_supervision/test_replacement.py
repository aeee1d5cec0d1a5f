"""A planned restart: what is started beside what, when the old process is asked to end, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from minhos_mesh.registry.domain import supervision
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.supervision import Act, Phase, Replacement, Restart, SupervisionPolicy, Unit
from minhos_mesh.registry.plan import Need, Plan, ServiceSpec, make_plan
from minhos_mesh.registry.supervision_ports import NotReplaceable, ProgressPhase, StartFailed

if TYPE_CHECKING:
    from tests.unit.registry_supervision.conftest import Mesh

HAND_OVER = SupervisionPolicy(replacement=Replacement.HAND_OVER)
OVERLAP = SupervisionPolicy(replacement=Replacement.OVERLAP)


def one() -> Plan:
    return make_plan([ServiceSpec("bus", frozenset({"bus"})), ServiceSpec("market", frozenset({"m"}), (Need("bus"),))])


def serving(policy: SupervisionPolicy = HAND_OVER) -> Unit:
    unit = supervision.spawned(supervision.want(Unit("bus"), waits_for=""), "bus-1", 7, 0.0, 15.0)
    return supervision.renew(supervision.serving(unit, 0.0), policy, waits_for="")


def act(unit: Unit, now: float = 0.0) -> Act | None:
    return supervision.next_step(unit, may_start=True, may_stop=True, now=now).act


def test_the_new_process_comes_before_the_old_one_is_asked_to_end() -> None:
    unit = serving()
    assert (unit.phase, act(unit)) == (Phase.SERVING, Act.SPAWN_NEXT)
    unit = supervision.next_spawned(unit, "bus-2", 8, 0.0, 15.0)
    assert act(unit) is None
    unit = supervision.next_ready(unit)
    assert act(unit) is Act.TERMINATE
    unit = supervision.terminated(unit, 1.0, HAND_OVER)
    unit = supervision.ended(unit, "ended with code 0", (), 1.1, HAND_OVER)
    assert (unit.phase, unit.pid, unit.instance_id, unit.next) == (Phase.STARTING, 8, "bus-2", None)
    assert (unit.failures, unit.restarts, unit.last_end) == (0, 0, None)


def test_an_old_process_that_will_not_end_is_killed_before_the_new_one_takes_over() -> None:
    unit = supervision.next_ready(supervision.next_spawned(serving(), "bus-2", 8, 0.0, 15.0))
    unit = supervision.terminated(unit, 0.0, HAND_OVER)
    assert act(unit, HAND_OVER.stop_deadline) is Act.KILL
    assert unit.pid == 7, "the new one waits"


def test_a_new_process_that_is_late_is_killed_and_the_old_one_serves_on() -> None:
    unit = supervision.next_spawned(serving(), "bus-2", 8, 0.0, 15.0)
    assert act(unit, 15.0) is Act.KILL_NEXT
    unit = supervision.next_failed(unit, "new process 8 was not ready", ("still loading",))
    assert (unit.phase, unit.pid, unit.replacing, unit.not_replaced) == (
        Phase.SERVING,
        7,
        False,
        "new process 8 was not ready",
    )
    assert act(unit, 16.0) is None


def test_a_new_process_that_dies_while_the_old_one_ends_is_started_again() -> None:
    unit = supervision.next_ready(supervision.next_spawned(serving(), "bus-2", 8, 0.0, 15.0))
    unit = supervision.next_failed(supervision.terminated(unit, 0.0, HAND_OVER), "new process 8 died", ())
    unit = supervision.ended(unit, "ended with code 0", (), 1.0, HAND_OVER)
    assert (unit.failures, act(unit, 1.0)) == (0, Act.SPAWN)


def test_an_old_process_that_dies_by_itself_is_followed_by_the_new_one_at_once() -> None:
    unit = supervision.ended(
        supervision.next_spawned(serving(), "bus-2", 8, 0.0, 15.0), "was ended by SIGKILL", (), 1.0, HAND_OVER
    )
    assert (unit.pid, unit.phase, unit.last_end) == (8, Phase.STARTING, "was ended by SIGKILL")


def test_a_stop_during_a_planned_restart_ends_both() -> None:
    unit = supervision.unwant(supervision.next_spawned(serving(), "bus-2", 8, 0.0, 15.0))
    assert act(unit) is Act.KILL_NEXT
    unit = supervision.next_failed(unit, "", ())
    assert act(unit) is Act.TERMINATE
    unit = supervision.ended(supervision.terminated(unit, 0.0, HAND_OVER), "ended with code 0", (), 1.0, HAND_OVER)
    assert (unit.phase, act(unit)) == (Phase.STOPPED, None)


@pytest.mark.parametrize(
    ("restart", "code", "phase", "failed"),
    [
        (Restart.ALWAYS, 0, Phase.BACKOFF, False),
        (Restart.ON_FAILURE, 1, Phase.BACKOFF, False),
        (Restart.ON_FAILURE, None, Phase.BACKOFF, False),
        (Restart.ON_FAILURE, 0, Phase.ENDED, False),
        (Restart.NEVER, 0, Phase.ENDED, False),
        (Restart.NEVER, 1, Phase.ENDED, True),
        (Restart.NEVER, None, Phase.ENDED, True),
    ],
)
def test_what_ends_by_itself_is_started_again_as_its_policy_says(
    restart: Restart, code: int | None, phase: Phase, failed: bool
) -> None:
    policy = SupervisionPolicy(restart=restart)
    unit = supervision.spawned(supervision.want(Unit("job"), waits_for=""), "job-1", 7, 0.0, 15.0)
    unit = supervision.ended(unit, "ended", (), 1.0, policy, code=code)
    assert (unit.phase, unit.failed) == (phase, failed)
    assert act(unit, 100.0) is (None if phase is Phase.ENDED else Act.SPAWN)
    assert act(supervision.want(unit, waits_for="")) is Act.SPAWN, "a person may always start it"


async def test_a_restart_hands_over_once_the_new_process_stands_by(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.history.clear()
        mesh.processes.mute = {"bus"}
        restarting = asyncio.ensure_future(mesh.watch(supervisor.restart("bus")))
        await mesh.settle()
        assert mesh.processes.history == [("spawn", "bus")], "the old one has heard nothing yet"
        following = supervisor.unit("bus").next
        assert following is not None
        key = InstanceKey("bus", following.instance_id)
        mesh.board.set_standing_by(key, True)
        await mesh.settle()
        assert mesh.processes.history == [("spawn", "bus"), ("SIGTERM", "bus"), ("exit", "bus")]
        mesh.board.set_standing_by(key, False)
        mesh.board.set_serving("bus", key.instance_id, True)
        steps = await restarting
    assert [step.phase.value for step in steps] == ["STARTING", "STARTING", "STOPPING", "STARTING", "READY"]
    assert mesh.processes.spawns("market") == 0


async def test_a_restart_overlaps_where_several_may_run(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), OVERLAP) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.history.clear()
        steps = await mesh.run(supervisor.restart("bus"))
        assert mesh.processes.history == [("spawn", "bus"), ("SIGTERM", "bus"), ("exit", "bus")]
        assert supervisor.unit("bus").phase is Phase.SERVING
    assert steps[-1].phase is ProgressPhase.READY


async def test_a_restart_whose_new_process_fails_leaves_the_old_one_and_says_why(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.run(supervisor.start_all())
        before = supervisor.unit("bus").pid
        mesh.processes.crashing = {"bus"}
        mesh.logs.lines["bus"] = ("ERROR no room",)
        with pytest.raises(StartFailed, match="serves on as before: new process .* ended with code 1") as caught:
            await mesh.run(supervisor.restart("bus"))
        assert "ERROR no room" in str(caught.value)
        assert (supervisor.unit("bus").pid, supervisor.unit("bus").phase) == (before, Phase.SERVING)
        mesh.processes.crashing.clear()
        steps = await mesh.run(supervisor.start("bus"))
        assert {step.phase for step in steps} == {ProgressPhase.UNCHANGED}


async def test_a_new_process_that_never_stands_by_is_given_up_in_its_deadline(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.mute = {"bus"}
        before, began = supervisor.unit("bus").pid, mesh.clock.monotonic()
        with pytest.raises(StartFailed, match="was not ready 15 s after its start and was killed"):
            await mesh.run(supervisor.restart("bus"))
        assert mesh.clock.monotonic() - began == pytest.approx(15.0, abs=0.01)
        assert supervisor.unit("bus").pid == before
        assert mesh.processes.services() == ["bus", "market"]


async def test_every_instance_of_a_service_runs_and_is_replaced(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), OVERLAP, instances={"bus": 3}) as supervisor:
        await mesh.run(supervisor.start_all())
        assert mesh.processes.services() == ["bus", "bus", "bus", "market"]
        before = set(mesh.processes.running)
        steps = await mesh.run(supervisor.restart("bus"))
        assert mesh.processes.services() == ["bus", "bus", "bus", "market"]
        assert len(before & set(mesh.processes.running)) == 1, "only the market is the same"
        assert {step.message.partition(":")[0] for step in steps} == {"instance 1", "instance 2", "instance 3"}
        await mesh.run(supervisor.stop("bus"))
        assert mesh.processes.services() == ["market"]


async def test_one_of_several_instances_that_dies_is_the_only_one_started_again(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), OVERLAP, instances={"bus": 2}) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.end("bus", number=9)
        await mesh.advance(0.11)
        assert mesh.processes.spawns("bus") == 3
        assert [unit.restarts for unit in supervisor.units() if unit.service == "bus"] == [1, 0]


async def test_a_new_registry_takes_all_instances_over_and_starts_none(mesh: Mesh) -> None:
    for _ in range(2):
        async with mesh.supervisor(one(), OVERLAP, instances={"bus": 2}) as supervisor:
            await mesh.run(supervisor.start_all())
            assert [unit.phase for unit in supervisor.units()] == [Phase.SERVING] * 3
    assert mesh.processes.spawns("bus") == 2


async def test_a_planned_restart_that_the_registry_did_not_survive_leaves_the_newest_process(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.clock.advance(1.0)
        mesh.processes.mute = {"bus"}
        restarting = asyncio.ensure_future(mesh.watch(supervisor.restart("bus")))
        await mesh.settle()
        following = supervisor.unit("bus").next
        assert following is not None
        restarting.cancel()
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.settle()
        assert mesh.processes.services() == ["bus", "market"]
        assert supervisor.unit("bus").instance_id == following.instance_id


async def test_what_is_only_watched_serves_by_running(mesh: Mesh) -> None:
    policy = SupervisionPolicy(watched_only=2.0)
    mesh.processes.mute = {"bus"}
    async with mesh.supervisor(one(), policies={"bus": policy}) as supervisor:
        began = mesh.clock.monotonic()
        await mesh.run(supervisor.start("bus"))
        assert mesh.clock.monotonic() - began == pytest.approx(2.0, abs=0.01)
        steps = await mesh.run(supervisor.restart("bus"))
    assert [step.phase.value for step in steps] == ["STOPPING", "STOPPING", "WAITING", "STARTING", "READY"]


async def test_a_process_that_serves_is_not_replaced_by_one_that_would_have_to_wait(mesh: Mesh) -> None:
    async with mesh.supervisor(one(), HAND_OVER) as supervisor:
        await mesh.run(supervisor.start_all())
        await mesh.run(supervisor.stop("bus"))
        with pytest.raises(NotReplaceable, match="market is left as it is: a new process would wait for bus"):
            await mesh.run(supervisor.restart("market"))
        assert mesh.processes.services() == ["market"]
        await mesh.run(supervisor.start("bus"))
        mesh.processes.history.clear()
        await mesh.run(supervisor.restart("market"))
        assert mesh.processes.spawns("market") == 1
