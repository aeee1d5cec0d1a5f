"""What comes back from the venue's disk is what was written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from minhos_mesh.matching import OrderType, Phase, Position, Side, TimeInForce
from minhos_mesh.paper_venue import store
from minhos_mesh.paper_venue.domain.orders import OrderRecord
from minhos_mesh.venue.domain.errors import RequestConflict
from minhos_mesh.venue.domain.orders import FillRecord, OrderState, Terms
from minhos_mesh.venue.domain.views import HeldPosition, ProgressRecord

TERMS = Terms(
    symbol="NQZ26-CME",
    side=Side.SELL,
    order_type=OrderType.STOP_LIMIT,
    quantity=3,
    time_in_force=TimeInForce.GTC,
    limit_price_e9=1,
    stop_price_e9=2,
)


def order(number: int, revision: int, state: OrderState = OrderState.WORKING) -> OrderRecord:
    return OrderRecord(
        client_order_id=f"o-{number}",
        number=number,
        asked=TERMS,
        terms=TERMS,
        provenance=4,
        reduce_only=True,
        state=state,
        reason="",
        filled_quantity=1,
        filled_value_e9=5,
        fills=1,
        effective_ns=6,
        phase=Phase.RESTING,
        priority=7,
        create_ns=8,
        update_ns=9,
        revision=revision,
    )


def fill(number: int, revision: int) -> FillRecord:
    return FillRecord(
        fill_id=f"o-1/{number}",
        client_order_id="o-1",
        venue_order_id="paper-o-1",
        symbol="NQZ26-CME",
        side=Side.SELL,
        quantity=1,
        cumulative_quantity=number,
        price_e9=5,
        commission_e9=2,
        time_ns=9,
        provenance=4,
        market_sequence=None,
        revision=revision,
    )


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(tmp_path / "venue.db")
    for script in store.MIGRATIONS:
        made.executescript(script)
    yield made
    made.close()


def test_everything_written_is_loaded_again(connection: sqlite3.Connection) -> None:
    held = HeldPosition(Position(quantity=-1, cost_e9=-5, realized_pnl_e9=3, commission_e9=2), 9, 1)
    changes = (fill(1, 1), order(1, 2), ProgressRecord(symbol="NQZ26-CME", epoch=4, through_sequence=9, revision=3))
    store.save(connection, store.Commit(changes=changes, positions={"NQZ26-CME": held}))
    loaded = store.load(connection)
    assert loaded.orders == [order(1, 2)]
    assert loaded.positions == {"NQZ26-CME": held}
    assert tuple(loaded.changes) == changes
    assert loaded.revision == 3


def test_newest_state_of_an_order_is_kept(connection: sqlite3.Connection) -> None:
    store.save(connection, store.Commit(changes=(order(1, 1), order(1, 2, OrderState.CANCELED))))
    assert store.find_order(connection, "o-1") == order(1, 2, OrderState.CANCELED)
    assert store.find_order(connection, "o-2") is None


def test_fill_is_stored_once(connection: sqlite3.Connection) -> None:
    store.save(connection, store.Commit(changes=(fill(1, 1),)))
    with pytest.raises(sqlite3.IntegrityError):
        store.save(connection, store.Commit(changes=(fill(1, 2),)))


def test_old_changes_are_dropped_and_orders_and_fills_stay(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHANGES_KEPT", 10)
    for number in range(1, 1_001):
        store.save(connection, store.Commit(changes=(fill(number, number),)))
    loaded = store.load(connection)
    assert [change.revision for change in loaded.changes] == list(range(991, 1_001))
    assert len(store.list_fills(connection, "o-1", 0, 5_000)) == 1_000


def test_request_id_stands_for_one_content(connection: sqlite3.Connection) -> None:
    store.save(connection, store.Commit(changes=(), request=("r", "one")))
    store.save(connection, store.Commit(changes=(), request=("r", "one")))
    assert store.find_request(connection, "r") == "one"
    with pytest.raises(RequestConflict):
        store.save(connection, store.Commit(changes=(), request=("r", "two")))


def test_a_fill_of_an_older_file_has_the_id_that_the_venue_gave_its_order(connection: sqlite3.Connection) -> None:
    store.save(connection, store.Commit(changes=(fill(1, 1),)))
    connection.execute("UPDATE fills SET body = json_remove(body, '$.venue_order_id')")
    assert store.list_fills(connection, None, 0, 10) == [(1, fill(1, 1))]
