from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minhos_mesh.dtc.enums import BuySell, OrderType, TimeInForce
from minhos_mesh.dtc.order_state import OrderState, TrackedOrder
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.runtime.storage import Database, Durability
from minhos_mesh.sierra_client.dtc_store import MIGRATIONS, OrderStore

FILL = FillReport(
    execution_id="x1", server_order_id="S1", symbol="NQZ26-CME", side=BuySell.SELL, quantity=2,
    price_e9=23_500_250_000_000, on_grid=True, time_ns=None,
)  # fmt: skip
ORDER = TrackedOrder(
    client_order_id="a", symbol="NQZ26-CME", side=BuySell.SELL, order_type=OrderType.STOP_LIMIT, quantity=5,
    time_in_force=TimeInForce.GOOD_TILL_CANCELED, limit_price_e9=23_500_000_000_000, stop_price_e9=23_500_250_000_000,
    account="Sim1", submitted_ns=7, state=OrderState.PARTIALLY_FILLED, text="so far", server_order_ids=("S1", "S2"),
    fills=(FILL,), claimed_quantity=2,
)  # fmt: skip


def opened(folder: Path) -> Database:
    return Database(folder / "dtc.db", migrations=MIGRATIONS, durability=Durability.FULL, readers=1)


async def test_orders_are_there_again_after_a_restart_as_they_stood_in_the_order_of_placing(tmp_path: Path) -> None:
    later = replace(ORDER, client_order_id="b", state=OrderState.FILLED, fills=(), text="")
    async with opened(tmp_path) as database:
        store = OrderStore(database)
        await store.save([replace(ORDER, state=OrderState.SUBMITTED, fills=())])
        await store.save([later, ORDER])
    async with opened(tmp_path) as database:
        assert await OrderStore(database).load() == [ORDER, later]


async def test_an_empty_store_holds_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        assert await OrderStore(database).load() == []
