"""A state manager over a real file, a clock that stands still, and an announcer that remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.state_manager.domain.audit import AuditEntry, TradingNews
from minhos_mesh.state_manager.domain.portfolio import Told, Trade
from minhos_mesh.state_manager.domain.state import Patch, State
from minhos_mesh.state_manager.ports import Receipt
from minhos_mesh.state_manager.service import StateManager, Update
from minhos_mesh.state_manager.store import MIGRATIONS

E9 = 1_000_000_000
DAY_NS = 86_400 * E9
NOW_NS = 1_790_000_000 * E9


@dataclass
class RememberingAnnouncer:
    told: list[tuple[State, str, str]] = field(default_factory=list)

    def changed(
        self, connection: Connection, state: State, *, actor: str, reason: str, cause: Receipt | None
    ) -> None:
        assert connection.in_transaction
        self.told.append((state, actor, reason))


@dataclass
class Desk:
    """What a test works with."""

    manager: StateManager
    announcer: RememberingAnnouncer
    clock: ManualClock
    conditions: Conditions

    async def audit(self) -> list[AuditEntry]:
        entries, _ = await self.manager.list_audit(actor=None, action=None, before_id=None, limit=1000)
        return entries

    async def hear(self, *trades: Trade, sequence: int = 0) -> None:
        for number, item in enumerate(trades, start=sequence + 1):
            await self.manager.take_trade(receipt(number), item, told_of(item))


OpenDesk = Callable[[], AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(tmp_path: Path) -> OpenDesk:
    """Opens the same file each time, as a restart does."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Desk]:
        announcer, clock, conditions = RememberingAnnouncer(), ManualClock(NOW_NS), Conditions()
        async with Database(tmp_path / "state_manager.db", migrations=MIGRATIONS) as database:
            manager = await StateManager.open(database, State(), announcer, clock, conditions)
            yield Desk(manager, announcer, clock, conditions)
            manager.close()

    return opening


@pytest.fixture
async def desk(open_desk: OpenDesk) -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def receipt(sequence: int, *, first: bool = True) -> Receipt:
    return Receipt(sequence=sequence, is_first=lambda _: first, event_id=f"e-{sequence}")


def update(request_id: str = "r-1", *, expected: int | None = None, fingerprint: str = "f", **values: object) -> Update:
    return Update(
        request_id=request_id,
        fingerprint=fingerprint,
        patch=Patch(**values),  # type: ignore[arg-type] # values by field name
        expected_version=expected,
        actor="anna",
        reason="because",
    )


def news(*, latched: bool, action: str = "trading_state.changed") -> TradingNews:
    return TradingNews(
        action=action,
        actor="anna",
        reason="fire",
        at_ns=NOW_NS,
        after_json=f'{{"latched":{str(latched).lower()}}}',
        latched=latched,
        latch_reason="fire",
    )


def trade(version: int, quantity: int, price: int = 100, *, symbol: str = "NQZ26-CME", **more: int) -> Trade:
    """A fill of `quantity` contracts, negative when it sells, that is the whole of its order."""
    return Trade(
        fill_id=f"f-{version}",
        order_id=f"o-{version}",
        venue_order_id=f"v-{version}",
        symbol=symbol,
        buy=quantity > 0,
        quantity=abs(quantity),
        cumulative_quantity=abs(quantity),
        price_e9=price * E9,
        commission_e9=more.get("commission_e9", E9),
        fill_ns=more.get("fill_ns", NOW_NS),
        provenance=4,
        market_sequence=version,
        multiplier_e9=more.get("multiplier_e9", 20 * E9),
        version=version,
    )


def told_of(item: Trade) -> Told:
    """What an owner says of another position than the one that is looked at: nothing to compare."""
    return Told(symbol=item.symbol, quantity=0, cost_e9=0, realized_e9=0, commission_e9=0, version=0)
