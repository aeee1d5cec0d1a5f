from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from minhos_mesh.registry.plan import ServiceSpec, UnknownService, make_plan
from minhos_mesh.registry.supervision_ports import NotStartedHere, Progress
from minhos_mesh.registry.supervisor import Supervisor
from minhos_mesh.runtime.keeper_client import KeeperUnavailable

PLAN = make_plan([ServiceSpec("bus", frozenset({"Bus"}))])
CALLS: list[Callable[[Supervisor, str], AsyncIterator[Progress]]] = [
    Supervisor.start,
    Supervisor.stop,
    Supervisor.restart,
]


@pytest.mark.parametrize("call", CALLS)
async def test_without_a_keeper_a_service_is_left_as_it_is_at_once_and_up_is_named(mesh: Any, call: Any) -> None:
    async with mesh.supervisor(PLAN) as supervisor:
        await mesh.run(supervisor.start_all())
        mesh.processes.die()
        await mesh.settle()
        began = mesh.clock.monotonic()
        with pytest.raises(KeeperUnavailable, match="no keeper answers; bus is left as it is: `minhos up` starts"):
            await mesh.watch(call(supervisor, "bus"))
        assert mesh.clock.monotonic() == began
        assert mesh.wishes.kept == {"bus": True}


@pytest.mark.parametrize("call", CALLS)
async def test_an_attached_service_that_others_started_is_not_taken_for_a_typing_error(mesh: Any, call: Any) -> None:
    async with mesh.supervisor(PLAN, attached=lambda service: service == "stranger") as supervisor:
        with pytest.raises(NotStartedHere, match="stranger was not started by this keeper: end it where it runs"):
            await mesh.watch(call(supervisor, "stranger"))
        with pytest.raises(UnknownService):
            await mesh.watch(call(supervisor, "nobody"))
