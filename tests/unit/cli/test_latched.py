"""What `minhos up` waits for: not for what a person ends with commands to a mesh that runs, nor for what nothing ends."""

from __future__ import annotations

import pytest
from tests.unit.cli.test_declared import Monitor

from minhos_api.health.v1.service_health_pb2 import SERVICE_STATE_DEGRADED, HealthReason, ServiceHealth
from minhos_mesh.cli.start import DOUBTFUL, HOPELESS, LATCHED, NotAllHealthy, all_healthy, only_latched
from minhos_mesh.registry.domain.actions import ACTIONS
from minhos_mesh.runtime.server import MeshServer

ENDED_BY_A_COMMAND = {
    "BREAKER_TRIPPED": "minhos risk reset",
    "DTC_ORDERS_UNKNOWN": "minhos order settle",
    "DTC_SETTLED_OTHERWISE": "minhos order confirm",
    "LOSS_LIMIT_PASSED": "minhos risk limits",
    "ORDERS_UNKNOWN": "minhos order settle",
    "SETTLED_OTHERWISE": "minhos order confirm",
}


def test_each_condition_is_told_with_what_to_do_and_is_of_one_kind() -> None:
    assert len(LATCHED | HOPELESS | DOUBTFUL) == len(LATCHED) + len(HOPELESS) + len(DOUBTFUL)
    assert set(ACTIONS) >= LATCHED | HOPELESS | DOUBTFUL


@pytest.mark.parametrize(("code", "command"), ENDED_BY_A_COMMAND.items())
def test_condition_that_needs_the_mesh_to_run_does_not_keep_it_from_coming_up(code: str, command: str) -> None:
    reasons = [HealthReason(code=code), HealthReason(code="BREAKER_TRIPPED")]
    assert only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED, reasons=reasons))
    assert only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED, reasons=reasons), LATCHED) == (code in LATCHED)
    assert command in ACTIONS[code]


def test_what_may_end_by_itself_is_waited_for() -> None:
    for code in ("DTC_AWAY", "FILE_MISSING", "FEED_QUIET", "VENUE_AWAY"):
        assert not only_latched(ServiceHealth(state=SERVICE_STATE_DEGRADED, reasons=[HealthReason(code=code)]))


async def test_order_of_which_nobody_knows_keeps_the_mesh_up_when_the_time_to_start_is_over() -> None:
    async with MeshServer([Monitor("ORDERS_UNKNOWN")]) as server:
        with pytest.raises(NotAllHealthy):
            await all_healthy(server.address, 0.1)
        assert await all_healthy(server.address, 0.1, latched_too=True) >= 0.1
    async with MeshServer([Monitor("DTC_AWAY")]) as server:
        with pytest.raises(NotAllHealthy):
            await all_healthy(server.address, 0.1, latched_too=True)
