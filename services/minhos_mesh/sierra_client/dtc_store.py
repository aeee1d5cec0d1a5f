"""Decides how orders at a DTC server are kept: one row each, written before it is sent and before it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from minhos_mesh.dtc.enums import BuySell, OrderType, TimeInForce
from minhos_mesh.dtc.order_state import OrderState, TrackedOrder
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.runtime.storage import Connection, Database

MIGRATIONS: Final = (
    """
    CREATE TABLE dtc_orders (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        client_order_id TEXT NOT NULL UNIQUE,
        done INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX dtc_orders_alive ON dtc_orders (number) WHERE done = 0;
    """,
)

ORDERS_LOADED: Final = 50_000
"""Orders that are taken up after a restart: all that work, and of the others the newest."""


class OrderStore:
    """A journal of orders in an open database that was opened with MIGRATIONS and FULL durability."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, orders: Sequence[TrackedOrder]) -> None:
        """Writes orders as they stand in one transaction; they are on disk when this returns. Raises StorageError."""
        rows = [(order.client_order_id, int(order.state.done), _body(order)) for order in orders]
        await self._database.write(lambda connection: _upsert(connection, rows))

    async def load(self) -> list[TrackedOrder]:
        """The orders that were kept, in the order in which they were placed. Raises StorageError."""
        return await self._database.read(_select)


def _upsert(connection: Connection, rows: Sequence[tuple[str, int, str]]) -> None:
    connection.executemany(
        "INSERT INTO dtc_orders (client_order_id, done, body) VALUES (?, ?, ?) "
        "ON CONFLICT (client_order_id) DO UPDATE SET done = excluded.done, body = excluded.body",
        rows,
    )


def _select(connection: Connection) -> list[TrackedOrder]:
    newest = connection.execute(
        "SELECT number, body FROM dtc_orders ORDER BY done, number DESC LIMIT ?", (ORDERS_LOADED,)
    )
    return [_order(json.loads(body)) for _, body in sorted(newest)]


def _body(order: TrackedOrder) -> str:
    values = asdict(order)
    values["state"] = order.state.value
    return json.dumps(values, separators=(",", ":"))


def _order(values: Mapping[str, Any]) -> TrackedOrder:
    return TrackedOrder(
        **{
            **values,
            "side": BuySell(values["side"]),
            "order_type": OrderType(values["order_type"]),
            "time_in_force": TimeInForce(values["time_in_force"]),
            "state": OrderState(values["state"]),
            "server_order_ids": tuple(values["server_order_ids"]),
            "fills": tuple(FillReport(**{**fill, "side": BuySell(fill["side"])}) for fill in values["fills"]),
        }
    )
