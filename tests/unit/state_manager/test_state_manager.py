"""The state manager over a real file: what is written together, what a restart finds, what is done once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.state_manager.domain.audit import AuditEntry, TradingNews
from minhos_mesh.state_manager.domain.errors import FieldInvalid, RequestConflict, StateConflict, VersionMismatch
from minhos_mesh.state_manager.domain.portfolio import Told, Trade
from minhos_mesh.state_manager.domain.state import Patch, State, SystemState
from minhos_mesh.state_manager.ports import Receipt
from minhos_mesh.state_manager.service import DIFFERS, StateManager, Update
from minhos_mesh.state_manager.store import MIGRATIONS

NOW_NS = 1_790_000_000 * E9
NOTHING_TOLD = Told(symbol="NQZ26-CME", quantity=0, cost_e9=0, realized_e9=0, commission_e9=0, version=0)


class BusRefuses(Exception):
    """What an announcer raises that cannot write its event."""


@dataclass
class RememberingAnnouncer:
    told: list[tuple[State, str]] = field(default_factory=list)
    refuses: bool = False

    def changed(self, connection: Connection, state: State, *, actor: str, reason: str, cause: Receipt | None) -> None:
        assert connection.in_transaction
        if self.refuses:
            raise BusRefuses
        self.told.append((state, actor))


@dataclass
class Desk:
    manager: StateManager
    announcer: RememberingAnnouncer
    conditions: Conditions

    async def audit(self) -> list[AuditEntry]:
        entries, _ = await self.manager.list_audit(actor=None, action=None, before_id=None, limit=1000)
        return entries

    async def contracts(self) -> int:
        return sum(held.book.quantity for held in (await self.manager.portfolio()).holdings)


OpenDesk = Callable[[], AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(tmp_path: Path) -> OpenDesk:
    """Opens the same file each time, as a restart does."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Desk]:
        announcer, conditions = RememberingAnnouncer(), Conditions()
        async with Database(tmp_path / "state_manager.db", migrations=MIGRATIONS) as database:
            manager = await StateManager.open(database, State(), announcer, ManualClock(NOW_NS), conditions)
            yield Desk(manager, announcer, conditions)
            manager.close()

    return opening


@pytest.fixture
async def desk(open_desk: OpenDesk) -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def receipt(sequence: int, *, first: bool = True) -> Receipt:
    return Receipt(sequence=sequence, is_first=lambda _: first, event_id=f"e-{sequence}")


def update(request_id: str = "r-1", *, expected: int | None = None, fingerprint: str = "f", patch: Patch) -> Update:
    return Update(
        request_id=request_id,
        fingerprint=fingerprint,
        patch=patch,
        expected_version=expected,
        actor="anna",
        reason="because",
    )


def news(*, latched: bool, action: str = "trading_state.changed", note: str = "") -> TradingNews:
    return TradingNews(
        action=action,
        actor="bert",
        reason="fire",
        at_ns=NOW_NS,
        after_json=f'{{"latched":{str(latched).lower()},"note":"{note}"}}',
        latched=latched,
        latch_reason="fire",
    )


def trade(version: int, quantity: int) -> Trade:
    return Trade(
        fill_id=f"f-{version}",
        order_id=f"o-{version}",
        venue_order_id="",
        symbol="NQZ26-CME",
        buy=quantity > 0,
        quantity=abs(quantity),
        cumulative_quantity=abs(quantity),
        price_e9=100 * E9,
        commission_e9=E9,
        fill_ns=NOW_NS,
        provenance=4,
        market_sequence=None,
        multiplier_e9=20 * E9,
        version=version,
    )


async def test_system_comes_online_once_and_tells_it(desk: Desk) -> None:
    await desk.manager.go_online(auto_trade=True)
    await desk.manager.go_online(auto_trade=True)
    state = desk.manager.state
    assert (state.system_state, state.auto_trade_enabled, state.version) == (SystemState.ONLINE, True, 2)
    assert desk.announcer.told == [(state, "state_manager")]
    assert [(entry.actor, entry.action) for entry in await desk.audit()] == [("state_manager", "state.update")]


async def test_restart_keeps_state_answers_and_portfolio(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        await desk.manager.go_online(auto_trade=True)
        first = await desk.manager.update(update(patch=Patch(order_quantity=3, flags={"a": "b"})))
        await desk.manager.take_trade(receipt(4), trade(1, 2), NOTHING_TOLD)
        portfolio = await desk.manager.portfolio()
    async with open_desk() as desk:
        assert desk.manager.state == first
        await desk.manager.go_online(auto_trade=True)
        assert desk.manager.state == first, "a restart is no change"
        assert await desk.manager.update(update(patch=Patch(order_quantity=3, flags={"a": "b"}))) == first
        assert await desk.manager.portfolio() == portfolio
        assert portfolio.through_sequence == 4


async def test_operator_who_took_the_system_offline_finds_it_offline_after_a_restart(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        await desk.manager.go_online(auto_trade=True)
        await desk.manager.update(update(patch=Patch(system_state=SystemState.OFFLINE)))
    async with open_desk() as desk:
        await desk.manager.go_online(auto_trade=True)
        assert desk.manager.state.system_state is SystemState.OFFLINE
        assert not desk.manager.state.auto_trade_enabled


async def test_same_request_gives_the_first_answer_even_after_other_changes(desk: Desk) -> None:
    first = await desk.manager.update(update(patch=Patch(order_quantity=2)))
    await desk.manager.update(update("r-2", patch=Patch(order_quantity=5)))
    assert await desk.manager.update(update(patch=Patch(order_quantity=2))) == first
    assert desk.manager.state.order_quantity == 5
    with pytest.raises(RequestConflict):
        await desk.manager.update(update(fingerprint="other", patch=Patch(order_quantity=9)))


async def test_update_against_an_old_version_changes_nothing(desk: Desk) -> None:
    await desk.manager.update(update(expected=1, patch=Patch(order_quantity=2)))
    with pytest.raises(VersionMismatch) as caught:
        await desk.manager.update(update("r-2", expected=1, patch=Patch(order_quantity=3)))
    assert (caught.value.expected, caught.value.current) == (1, 2)
    assert desk.manager.state.order_quantity == 2


async def test_refused_update_can_be_repeated_under_its_id(desk: Desk) -> None:
    wanted = update(patch=Patch(auto_trade_enabled=True))
    with pytest.raises(StateConflict):
        await desk.manager.update(wanted)
    assert await desk.audit() == []
    await desk.manager.go_online(auto_trade=False)
    assert (await desk.manager.update(wanted)).auto_trade_enabled


async def test_update_that_changes_nothing_is_no_version_event_or_audit_entry(desk: Desk) -> None:
    answer = await desk.manager.update(update(patch=Patch(order_quantity=1)))
    assert answer.version == 1
    assert desk.announcer.told == []
    assert await desk.audit() == []


async def test_state_audit_answer_and_event_are_written_together_or_not_at_all(desk: Desk) -> None:
    desk.announcer.refuses = True
    with pytest.raises(BusRefuses):
        await desk.manager.update(update(patch=Patch(order_quantity=2)))
    assert desk.manager.state.order_quantity == 1
    assert await desk.audit() == []
    desk.announcer.refuses = False
    assert (await desk.manager.update(update(patch=Patch(order_quantity=2)))).version == 2


async def test_audit_entry_says_who_what_before_after_and_why(desk: Desk) -> None:
    await desk.manager.update(update(patch=Patch(order_quantity=2)))
    (entry,) = await desk.audit()
    assert (entry.actor, entry.action, entry.subject, entry.reason) == ("anna", "state.update", "state", "because")
    assert '"order_quantity":1' in entry.before_json
    assert '"order_quantity":2' in entry.after_json


@pytest.mark.parametrize("action", ["emergency_stop.triggered", "trading_state.changed"])
async def test_emergency_stop_of_the_engine_stops_the_system(desk: Desk, action: str) -> None:
    await desk.manager.go_online(auto_trade=True)
    await desk.manager.take_news(receipt(7), news(latched=True, action=action))
    state = desk.manager.state
    assert (state.system_state, state.auto_trade_enabled) == (SystemState.EMERGENCY_STOP, False)
    assert desk.announcer.told[-1] == (state, "bert")
    assert [entry.action for entry in await desk.audit()] == ["state.update", action, "state.update"]


async def test_cleared_stop_brings_the_system_back_without_auto_trade(desk: Desk) -> None:
    await desk.manager.go_online(auto_trade=True)
    await desk.manager.take_news(receipt(7), news(latched=True))
    await desk.manager.take_news(receipt(8), news(latched=False))
    assert desk.manager.state.system_state is SystemState.ONLINE
    assert not desk.manager.state.auto_trade_enabled


async def test_stop_that_is_delivered_behind_its_clearing_does_not_stop_again(desk: Desk) -> None:
    await desk.manager.go_online(auto_trade=False)
    await desk.manager.take_news(receipt(8), news(latched=False))
    await desk.manager.take_news(receipt(7), news(latched=True, action="emergency_stop.triggered"))
    assert desk.manager.state.system_state is SystemState.ONLINE
    assert len(await desk.audit()) == 3


async def test_trading_news_is_audited_with_what_held_before(desk: Desk) -> None:
    await desk.manager.take_news(receipt(1), news(latched=False, note="one"))
    await desk.manager.take_news(receipt(2), news(latched=False, note="two"))
    newest, oldest = await desk.audit()
    assert oldest.before_json == ""
    assert newest.before_json == oldest.after_json
    assert (newest.actor, newest.action, newest.reason) == ("bert", "trading_state.changed", "fire")


async def test_event_that_was_heard_before_leads_to_nothing(desk: Desk) -> None:
    await desk.manager.go_online(auto_trade=True)
    await desk.manager.take_trade(receipt(5, first=False), trade(1, 2), NOTHING_TOLD)
    await desk.manager.take_news(receipt(6, first=False), news(latched=True))
    await desk.manager.take_position(receipt(7, first=False), NOTHING_TOLD)
    portfolio = await desk.manager.portfolio()
    assert (portfolio.holdings, portfolio.through_sequence) == ((), 0)
    assert desk.manager.state.system_state is SystemState.ONLINE


async def test_projection_that_contradicts_its_owner_is_a_condition_until_it_agrees(open_desk: OpenDesk) -> None:
    told = Told(symbol="NQZ26-CME", quantity=3, cost_e9=300 * E9, realized_e9=0, commission_e9=2 * E9, version=2)
    async with open_desk() as desk:
        await desk.manager.take_trade(receipt(3), trade(2, 1), told)
        assert DIFFERS in desk.conditions.held()
    async with open_desk() as desk:
        assert DIFFERS in desk.conditions.held(), "a restart must not hide it"
        await desk.manager.take_trade(receipt(4), trade(1, 2), NOTHING_TOLD)
        assert await desk.contracts() == 3
        assert desk.conditions.held() == {}
        await desk.manager.take_position(receipt(5), told)
        assert desk.conditions.held() == {}


async def test_watch_gives_the_state_then_each_change_by_version(desk: Desk) -> None:
    seen = []
    with suppress(TimeoutError):
        async for revision, state in desk.manager.watch(None, heartbeat_s=5):
            assert state is not None
            seen.append((revision, state.version, state.order_quantity))
            if len(seen) == 3:
                break
            await desk.manager.update(update(f"r-{len(seen)}", patch=Patch(order_quantity=len(seen) + 1)))
    assert seen == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


async def test_watch_resumes_behind_a_version_after_a_restart_when_nothing_was_missed(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        await desk.manager.update(update(patch=Patch(order_quantity=2)))
    async with open_desk() as desk:
        watching = desk.manager.watch(2, heartbeat_s=5)
        await desk.manager.update(update("r-2", patch=Patch(order_quantity=3)))
        revision, state = await anext(watching)
        assert state is not None
        assert (revision, state.order_quantity) == (3, 3)


async def test_bad_value_leaves_the_request_id_free(desk: Desk) -> None:
    with pytest.raises(FieldInvalid):
        await desk.manager.update(update(patch=Patch(order_quantity=0)))
    assert (await desk.manager.update(update(patch=Patch(order_quantity=4)))).order_quantity == 4


async def test_pages_of_fills_are_disjoint_and_whole_though_fills_arrive_between_them(desk: Desk) -> None:
    for n in range(1, 8):
        await desk.manager.take_trade(receipt(n), trade(n, 1), NOTHING_TOLD)
    first, end = await desk.manager.list_trades(symbol=None, before=None, limit=3)
    await desk.manager.take_trade(receipt(8), trade(8, 1), NOTHING_TOLD)
    second, end = await desk.manager.list_trades(symbol=None, before=end, limit=3)
    third, end = await desk.manager.list_trades(symbol=None, before=end, limit=3)
    assert [item.version for item in (*first, *second, *third)] == [7, 6, 5, 4, 3, 2, 1]
    assert end is None
    assert await desk.manager.list_trades(symbol="ESZ26-CME", before=None, limit=3) == ([], None)
