"""The registry's core on a clock that the test moves: leases, recovery, supervision notes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.registry import translate
from minhos_mesh.registry.attachment import Attachment, Beat, Claim
from minhos_mesh.registry.contract_gate import ContractGate
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.graph import graph_of
from minhos_mesh.registry.domain.health import Serving, State
from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.domain.routing import EndpointHealth, RoutingView
from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.facts import FactMakers
from minhos_mesh.registry.mesh_services import EVERYWHERE
from minhos_mesh.registry.outbox import Fact, Outbox
from minhos_mesh.registry.plan import Need, ServiceSpec
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.service import Registry
from minhos_mesh.registry.store import InstanceRecord
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.registry.unit_notes import UnitNotes
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.contracts import whole_set
from minhos_mesh.runtime.storage import Database
from minhos_mesh.runtime.tasks import OwnedTasks

BUS, ENGINE = "events.Bus", "trading.Engine"
SPECS = (ServiceSpec("bus", frozenset({BUS})), ServiceSpec("engine", frozenset({ENGINE}), (Need(BUS),)))


def claim(service: str = "bus", instance_id: str = "bus-1", port: int = 4000, **fields: Any) -> Claim:
    contract = BUS if service == "bus" else ENGINE
    needs = (Need(BUS),) if service == "engine" else ()
    base = Claim(
        InstanceKey(service, instance_id),
        "127.0.0.1",
        port,
        (contract,),
        {contract: ContractShape(contract, {})},
        needs,
    )
    return replace(base, **fields)


class Core:
    """One life of the registry's core."""

    def __init__(self, registry: Registry, clock: ManualClock, board: ReadinessBoard, views: list[RoutingView]) -> None:
        self.registry, self.clock, self.board, self.views = registry, clock, board, views

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)
        assert condition(), what

    async def attach(self, given: Claim, *, serving: bool = True) -> Attachment:
        attachment = await self.registry.attach(given)
        self.registry.instances.beat(attachment, Beat(serving))
        if serving and given.key.service == "bus":
            await self.until(lambda: self.board.is_serving("bus", given.key.instance_id), "let in")
        return attachment

    async def pass_time(self, seconds: float, *beating: Attachment) -> None:
        """Moves the clock in small steps; those that beat do so at each."""
        for _step in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            for attachment in beating:
                self.registry.instances.beat(attachment, Beat(True))
            for _turn in range(5):
                await asyncio.sleep(0)

    def endpoints(self, contract: str = BUS) -> dict[int, EndpointHealth]:
        (cluster,) = [c for c in self.views[-1].clusters if c.name == contract]
        return {endpoint.port: endpoint.health for endpoint in cluster.endpoints}

    def state(self, service: str) -> State:
        return self.registry.views()[service].assessment.state


Life = Callable[..., Any]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    clock, told = ManualClock(), list[Fact]()

    @asynccontextmanager
    async def one_life(
        there: Callable[[InstanceRecord], bool] = lambda _record: True, specs: Sequence[ServiceSpec] = SPECS
    ) -> AsyncIterator[Core]:
        async with Database(tmp_path / "registry.db", migrations=MIGRATIONS) as database:
            failed: list[str] = []
            tasks, board = OwnedTasks(lambda name, error: failed.append(f"{name} {error!r}")), ReadinessBoard()
            views: list[RoutingView] = []

            def fact(present: Present, *_rest: Any) -> Fact:
                made = Fact("service.started", present.key.service, b"", 0)
                told.append(made)
                return made

            async def settled(_timeout: float) -> bool:
                return True

            registry = Registry(
                store=SqliteStore(database),
                outbox=Outbox(database),
                clock=clock,
                contracts={},
                gate=ContractGate(resolve(whole_set()), "1.0.0"),
                specs=specs,
                facts=FactMakers(lambda _change: [], fact, fact),
                publish=views.append,
                board=board,
                tasks=tasks,
                settled=settled,
                lease_seconds=3.0,
                own_service="registry",
            )

            async def still_there(record: InstanceRecord) -> bool:
                return there(record)

            await registry.recover(still_there)
            registry.changed()
            tasks.start(registry.keep_time(), "time")
            await asyncio.sleep(0)
            try:
                yield Core(registry, clock, board, views)
            finally:
                await tasks.close()
            assert failed == []

    return one_life


async def test_a_silent_instance_gets_no_calls_after_two_seconds_and_is_gone_after_three(life: Life) -> None:
    async with life() as core:
        attachment = await core.attach(claim())
        await core.pass_time(1.75)
        assert core.endpoints() == {4000: EndpointHealth.HEALTHY}
        await core.pass_time(0.5)
        assert core.endpoints() == {4000: EndpointHealth.UNHEALTHY}
        await core.pass_time(1.0)
        assert core.endpoints() == {}
        assert core.state("bus") is State.UNHEALTHY
        with pytest.raises(StaleToken, match="let its lease run out"):
            await attachment.next_answer()


async def test_one_that_beats_again_in_time_is_back_at_once(life: Life) -> None:
    async with life() as core:
        attachment = await core.attach(claim())
        await core.pass_time(2.25)
        assert core.endpoints() == {4000: EndpointHealth.UNHEALTHY}
        core.registry.instances.beat(attachment, Beat(True))
        assert core.endpoints() == {4000: EndpointHealth.HEALTHY}


async def test_a_registry_that_stood_still_takes_nobody_the_lease(life: Life) -> None:
    async with life() as core:
        attachment = await core.attach(claim())
        core.clock.advance(30.0)
        for _turn in range(10):
            await asyncio.sleep(0)
        assert core.endpoints() == {4000: EndpointHealth.HEALTHY}
        core.registry.instances.beat(attachment, Beat(True))


async def test_a_restarted_registry_never_publishes_fewer_endpoints_before_a_lease_has_run_out(life: Life) -> None:
    async with life() as core:
        await core.attach(claim("bus", "bus-1", 4000))
        await core.attach(claim("bus", "bus-2", 4001))
    async with life() as core:
        await core.pass_time(2.75)
        seen = [{e.port for e in c.endpoints} for view in core.views for c in view.clusters if c.name == BUS]
        assert seen
        assert all(ports == {4000, 4001} for ports in seen)
        attachment = await core.attach(claim("bus", "bus-2", 4001, presented=2))
        await core.pass_time(0.5, attachment)
        assert core.endpoints() == {4001: EndpointHealth.HEALTHY}


async def test_one_that_comes_back_to_a_restarted_registry_is_in_rotation_without_a_pause(life: Life) -> None:
    async with life() as core:
        await core.attach(claim())
    async with life() as core:
        published = len(core.views)
        await core.registry.attach(claim(presented=1))
        assert core.endpoints() == {4000: EndpointHealth.HEALTHY}
        assert len(core.views) == published, "nothing changed for its callers"


async def test_an_instance_whose_process_is_gone_is_not_taken_back(life: Life) -> None:
    async with life() as core:
        await core.attach(claim("bus", "bus-1", 4000))
        await core.attach(claim("bus", "bus-2", 4001))
    async with life(lambda record: record.port == 4001) as core:
        assert core.endpoints() == {4001: EndpointHealth.HEALTHY}
    async with life() as core:
        assert core.endpoints() == {4001: EndpointHealth.HEALTHY}


async def test_a_service_whose_dependency_was_never_there_waits_and_then_is_let_in(life: Life) -> None:
    async with life() as core:
        engine = await core.attach(claim("engine", "engine-1", 5000))
        assert core.state("engine") is State.STARTING
        assert core.endpoints(ENGINE) == {}
        await core.attach(claim())
        await core.until(lambda: core.endpoints(ENGINE) == {5000: EndpointHealth.HEALTHY}, "let in")
        core.registry.instances.beat(engine, Beat(True))
        assert core.state("engine") is State.HEALTHY


async def test_the_end_of_a_process_takes_its_endpoint_away_and_says_so(life: Life) -> None:
    async with life() as core:
        notes = UnitNotes(core.registry)
        unit = Unit("bus", wanted=True, phase=Phase.SERVING, instance_id="bus-1", pid=17)
        notes.note(unit)
        await core.attach(claim(pid=17))
        message = "process 17 was ended by SIGKILL; starts again in 0.1 s"
        notes.note(
            replace(unit, pid=None, phase=Phase.BACKOFF, message=message, failures=1, last_end="was ended by SIGKILL")
        )
        assert core.endpoints() == {}
        view = core.registry.views()["bus"]
        assert (view.assessment.state, [r.text for r in view.assessment.reasons]) == (State.UNHEALTHY, [message])
        assert core.views[-1].contracts[0].clusters, "it is expected back, so calls may wait"
        notes.note(replace(unit, pid=18, phase=Phase.STARTING, instance_id="bus-2"))
        assert core.state("bus") is State.STARTING


async def test_a_restart_that_was_asked_for_is_never_unhealthy(life: Life) -> None:
    async with life() as core:
        notes = UnitNotes(core.registry)
        unit = Unit("bus", wanted=True, phase=Phase.SERVING, instance_id="bus-1", pid=17)
        notes.note(unit)
        attachment = await core.attach(claim(pid=17))
        states = [core.state("bus")]
        steps: list[Callable[[], None]] = [
            lambda: notes.note(replace(unit, phase=Phase.STOPPING, cycling=True)),
            lambda: core.registry.instances.note(attachment.key, attachment.token, serving=Serving.NOT_SERVING),
            lambda: core.registry.instances.goodbye(attachment, "restart"),
            lambda: core.registry.instances.detach(attachment),
            lambda: notes.note(replace(unit, pid=None, phase=Phase.BACKOFF, message="starts again")),
            lambda: notes.note(replace(unit, pid=18, phase=Phase.STARTING, instance_id="bus-2")),
        ]
        for step in steps:
            step()
            states.append(core.state("bus"))
        assert State.UNHEALTHY not in states, states
        assert states[-1] is State.STARTING


async def test_a_crash_loop_makes_calls_fail_at_once(life: Life) -> None:
    async with life() as core:
        notes = UnitNotes(core.registry)
        unit = Unit("bus", wanted=True, phase=Phase.CRASH_LOOP, message="ended 5 times in a row", failures=5)
        notes.note(unit)
        assert core.state("bus") is State.UNHEALTHY
        assert core.views[-1].contracts[0].clusters == ()
        assert core.registry.views()["bus"].errors[0].endswith("ended 5 times in a row")


async def test_a_supervised_service_is_told_to_the_supervisor_only_while_it_serves(life: Life) -> None:
    async with life() as core:
        changes: list[bool] = []
        core.board.subscribe(lambda: changes.append(core.board.is_serving("bus", "bus-1")))
        attachment = await core.attach(claim())
        core.registry.instances.beat(attachment, Beat(False))
        core.registry.instances.beat(attachment, Beat(True))
        assert changes == [True, False, True]


async def test_a_stranger_that_said_goodbye_is_told_of_no_longer(life: Life) -> None:
    async with life() as core:
        attachment = await core.attach(claim("tool", "tool-1", 4100))
        await core.registry.leave(attachment, "done")
        core.registry.instances.detach(attachment)
        assert "tool" in core.registry.views()
        await core.pass_time(5.5)
        assert "tool" not in core.registry.views()
        assert {"bus", "engine"} <= core.registry.views().keys()


async def test_a_stranger_that_was_lost_is_told_of_for_a_minute_and_may_come_back(life: Life) -> None:
    async with life() as core:
        core.registry.instances.detach(await core.attach(claim("tool", "tool-1", 4100)))
        await core.pass_time(59)
        assert core.state("tool") is State.UNHEALTHY
        back = await core.attach(claim("tool", "tool-2", 4101))
        await core.pass_time(10, back)
        assert [p.key.instance_id for p in core.registry.instances.of_service("tool")] == ["tool-2"]
        core.registry.instances.detach(back)
        await core.pass_time(59)
        assert "tool" in core.registry.views()
        await core.pass_time(1.5)
        assert "tool" not in core.registry.views()


async def test_a_restarted_registry_lists_no_stranger_that_is_gone(life: Life) -> None:
    async with life() as core:
        await core.attach(claim("tool", "tool-1", 4100))
        await core.attach(claim("other", "other-1", 4101))
    async with life(lambda record: record.key.service != "tool") as core:
        await core.pass_time(0.5)
        assert "tool" not in core.registry.views()
        assert "other" in core.registry.views()
    async with life() as core:
        assert set(core.registry.views()) == {"bus", "engine", "other", "registry"}


async def test_what_a_program_needs_by_configuration_stays_beside_what_it_says_itself(life: Life) -> None:
    tool = ServiceSpec("tool", frozenset({EVERYWHERE}), (Need(EVERYWHERE, provider="bus"),))
    async with life(specs=(*SPECS, tool)) as core:
        before = core.registry.views()["tool"].known.needs
        own = {"contracts": ("tool.Tool",), "offered": {"tool.Tool": ContractShape("tool.Tool", {})}}
        await core.attach(claim("tool", "tool-1", 4100, needs=(Need(ENGINE, optional=True),), **own))
        known = core.registry.views()["tool"].known
        assert before == (Need(EVERYWHERE, provider="bus"),)
        assert known.needs == (*before, Need(ENGINE, optional=True))
        graph = graph_of(view.known for view in core.registry.views().values())
        assert {(e.dependency, e.optional) for e in graph.edges if e.dependent == "tool"} == {
            ("bus", False),
            ("engine", True),
        }
        listed = translate.service_to(core.registry.views()["tool"])
        assert list(listed.depends_on_services) == ["bus", "engine"]
        assert [need.contract for need in listed.depends_on] == [ENGINE]
