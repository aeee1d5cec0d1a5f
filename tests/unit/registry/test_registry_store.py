from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from minhos_mesh.registry.domain.health import Assessment, Cause, Reason, State
from minhos_mesh.registry.domain.history import HealthChange
from minhos_mesh.registry.domain.leases import InstanceHeld, InstanceKey, StaleToken
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import Desired, InstanceRecord
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.runtime.storage import Database

KEY = InstanceKey("risk_manager", "risk_manager-1")
RECORD = InstanceRecord(
    key=KEY,
    lease_id="l1",
    token=0,
    host="127.0.0.1",
    port=4000,
    contracts=("minhos_api.risk.v1.RiskManagerService",),
    version="0.1.0",
    attached_ns=5,
    needs=(Need("minhos_api.events.v1.EventBusService"), Need("minhos_api.venue.v1.VenueService", True, "paper_venue")),
    pid=12,
    process_started=99,
)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with Database(path / "registry.db", migrations=MIGRATIONS) as database:
        yield SqliteStore(database)


def allow() -> None:
    """Refuses nobody."""


async def test_tokens_grow_over_restarts_and_instances_come_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert [await store.admit(RECORD, allow), await store.admit(RECORD, allow)] == [1, 2]
        await store.mark_ready(KEY, 2)
    async with opened(tmp_path) as store:
        state = await store.load()
        assert state.instances == (replace(RECORD, token=2, ever_ready=True),)
        assert state.tokens == ((KEY, 2),)
        assert [(s.service, s.desired, s.contracts, s.needs) for s in state.services] == [
            ("risk_manager", None, RECORD.contracts, RECORD.needs)
        ]
        assert await store.admit(RECORD, allow) == 3


async def test_a_refused_claim_spends_no_token(tmp_path: Path) -> None:
    def refuse() -> None:
        raise InstanceHeld(KEY, 1)

    async with opened(tmp_path) as store:
        with pytest.raises(InstanceHeld):
            await store.admit(RECORD, refuse)
        assert (await store.load()).instances == ()
        assert await store.admit(RECORD, allow) == 1


async def test_a_replaced_owner_can_neither_mark_nor_remove(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.admit(RECORD, allow)
        await store.admit(RECORD, allow)
        with pytest.raises(StaleToken) as caught:
            await store.mark_ready(KEY, 1)
        assert caught.value.newest == 2
        assert await store.remove(KEY, 1) is False
        assert await store.remove(KEY, 2) is True
        assert (await store.load()).tokens == ((KEY, 2),)


async def test_what_should_run_is_kept_beside_what_it_serves(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.admit(RECORD, allow)
        await store.set_desired("risk_manager", Desired.STOPPED)
        await store.set_desired("ai_brain", Desired.RUNNING)
    async with opened(tmp_path) as store:
        services = {s.service: (s.desired, len(s.contracts)) for s in (await store.load()).services}
        assert services == {"risk_manager": (Desired.STOPPED, 1), "ai_brain": (Desired.RUNNING, 0)}


def change(revision: int, service: str = "a") -> HealthChange:
    reason = Reason(Cause.LEASE_EXPIRED, "a-1", "ran out")
    return HealthChange(revision, service, State.HEALTHY, Assessment(State.UNHEALTHY, (reason,)), revision * 10)


async def test_latest_states_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.append_changes([change(1), change(2), change(3, "b")], [])
    async with opened(tmp_path) as store:
        state = await store.load()
        assert sorted(c.revision for c in state.latest) == [2, 3]
