"""How a service follows the state: at once, over kills of its owner, and with the last word in force meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.state_peer import STATE, FakeState

from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.state import CONDITION, StateFollower, StateView, view_of
from minhos_mesh.runtime.tasks import OwnedTasks


class Owner:
    """A state manager that can be killed and served again at its address, and a service that follows it."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeState()
        self.failures: list[str] = []
        self.seen: list[StateView] = []
        self._folder = folder
        self._server: MeshServer | None = None
        self._port = 0
        self._stack = contextlib.AsyncExitStack()
        self.context: ServiceContext
        self.follower: StateFollower

    async def serve(self) -> None:
        self._server = MeshServer([self.fake], port=self._port)
        await self._server.start()
        self._port = self._server.port

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
        self._server = None

    def follow(self, silence_s: float = 15.0) -> StateFollower:
        clients = Clients({STATE: f"127.0.0.1:{self._port}"})
        self.context = ServiceContext(
            "risk_manager",
            "risk_manager-1",
            load(None, environment={}).resolved(datetime.now(UTC)),
            MeshPaths(self._folder),
            clients,
            tasks=OwnedTasks(lambda name, error: self.failures.append(f"{name}: {error!r}")),
        )
        self._stack.push_async_callback(clients.close)
        self._stack.push_async_callback(self.context.tasks.close)
        self.follower = StateFollower(self.context, silence_s=silence_s)
        self.follower.listen(self.seen.append)
        self.follower.start()
        return self.follower

    async def close(self) -> None:
        await self._stack.aclose()
        await self.kill()
        assert self.failures == []

    def is_away(self) -> bool:
        return CONDITION in self.context.conditions.held()


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Owner]:
    owner = Owner(tmp_path)
    await owner.serve()
    yield owner
    await owner.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_first_state_comes_at_once_and_every_change_is_told(owner: Owner) -> None:
    follower = owner.follow()
    first = await follower.wait_first(10)
    assert (first.auto_trade_enabled, first.auto_threshold, first.order_quantity, first.version) == (True, 0.75, 1, 2)
    assert not owner.is_away()
    owner.fake.change(auto_trade_enabled=False)
    owner.fake.change(order_quantity=3)
    last = await follower.wait_until(lambda view: view.order_quantity == 3, 10)
    assert (follower.current, owner.seen[-1], last.version, last.auto_trade_enabled) == (last, last, 4, False)
    assert [view.version for view in owner.seen] == [2, 3, 4]


async def test_state_that_was_never_heard_is_absent_and_held_against_the_service(owner: Owner) -> None:
    await owner.kill()
    follower = owner.follow()
    with pytest.raises(TimeoutError):
        await follower.wait_first(0.1)
    assert follower.current is None
    assert "has not been heard since the start" in owner.context.conditions.held()[CONDITION]
    await owner.serve()
    await follower.wait_first(10)
    assert not owner.is_away()


async def test_killed_owner_leaves_the_last_state_in_force_and_is_followed_again_from_there(owner: Owner) -> None:
    follower = owner.follow()
    first = await follower.wait_first(10)
    await owner.kill()
    await until(owner.is_away)
    assert "its state of version 2 stays in force" in owner.context.conditions.held()[CONDITION]
    assert follower.current == first
    owner.fake.change(trading_enabled=False)
    await owner.serve()
    after = await follower.wait_until(lambda view: not view.trading_enabled, 10)
    assert (after.version, owner.is_away(), owner.fake.asked[-1]) == (3, False, 2)


async def test_owner_that_comes_back_unchanged_is_known_to_be_back_at_once(owner: Owner) -> None:
    owner.fake.heartbeat_s = 60
    follower = owner.follow()
    await follower.wait_first(10)
    await owner.kill()
    await until(owner.is_away)
    await owner.serve()
    await until(lambda: not owner.is_away())
    assert [view.version for view in owner.seen] == [2]


async def test_revision_that_is_gone_leads_to_a_snapshot(owner: Owner) -> None:
    follower = owner.follow()
    await follower.wait_first(10)
    await owner.kill()
    owner.fake.change(order_quantity=2)
    owner.fake.change(order_quantity=5)
    owner.fake.forget()
    await owner.serve()
    after = await follower.wait_until(lambda view: view.order_quantity == 5, 10)
    assert after.version == 4
    assert owner.fake.asked[-2:] == [2, None]
    assert [view.version for view in owner.seen] == [2, 4]


async def test_silent_stream_is_opened_again(owner: Owner) -> None:
    owner.fake.silent = True
    follower = owner.follow(silence_s=0.2)
    await follower.wait_first(10)
    await until(lambda: len(owner.fake.asked) >= 3)
    assert follower.current is not None


async def test_three_kills_in_a_row_lose_nothing(owner: Owner) -> None:
    follower = owner.follow()
    await follower.wait_first(10)
    for quantity in (2, 3, 4):
        await owner.kill()
        owner.fake.change(order_quantity=quantity)
        await owner.serve()
        await until(lambda: owner.seen and owner.seen[-1].version == owner.fake.state.version)
    assert [view.order_quantity for view in owner.seen] == [1, 2, 3, 4]


def test_starting_state_is_not_settled_and_an_unknown_one_is_shown_by_number() -> None:
    assert not view_of(pb.State(system_state=pb.SYSTEM_STATE_STARTING)).settled
    strange = pb.State.FromString(b"\x08\x63")
    assert (view_of(strange).system_state, view_of(strange).settled) == ("99", True)
