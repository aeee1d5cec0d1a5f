"""Decides how orders at the simulator's DTC server outlive its process: each step is in a file before anybody is told of it.

Written at once on the event loop: in a journal that waits for no disk a step takes tens of microseconds, and what must
survive is the end of the process, not the loss of power.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce
from minhos_mesh.matching import Phase, Position
from minhos_mesh.sierra_simulator.dtc_exchange import Changes, Kept, Place
from minhos_mesh.sierra_simulator.dtc_orders import ServedFill, ServedOrder

_SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, ids TEXT NOT NULL, body TEXT NOT NULL, place TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS fills (
        number INTEGER PRIMARY KEY AUTOINCREMENT, order_number INTEGER NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS positions (
        account TEXT NOT NULL, symbol TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (account, symbol)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;
"""


class OrderFile:
    """Orders, fills and positions of one simulated exchange in one file."""

    def __init__(self, path: Path) -> None:
        """Opens the file or makes it. Raises OSError when it cannot be used."""
        self.path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OSError(f"{path} cannot be used for the orders of the DTC server: {error}") from error

    def close(self) -> None:
        """Gives the file back."""
        self._connection.close()

    def save(self, changes: Changes) -> None:
        """Writes one step whole. Raises OSError when it cannot be written; then nothing of it is."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._write(changes)
        except sqlite3.Error as error:
            raise OSError(f"{self.path} cannot be written: {error}") from error

    def _write(self, changes: Changes) -> None:
        run = self._connection.execute
        for order, ids, place in changes.orders:
            row = (order.number, json.dumps(ids), _order_text(order), None if place is None else json.dumps(place))
            run("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", row)
        for number, fill in changes.fills:
            run("INSERT INTO fills (order_number, body) VALUES (?, ?)", (number, json.dumps(asdict(fill))))
        for (account, symbol), position in changes.positions.items():
            body = json.dumps(asdict(position))
            run("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (account, symbol, body))
        for name, value in (("next", changes.next_number), ("executions", changes.next_execution)):
            run("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def load(self) -> Kept:
        """What was written. Raises OSError."""
        try:
            return self._read()
        except sqlite3.Error as error:
            raise OSError(f"{self.path} cannot be read: {error}") from error

    def _read(self) -> Kept:
        run = self._connection.execute
        fills = [
            (number, _fill(json.loads(body)))
            for number, body in run("SELECT order_number, body FROM fills ORDER BY number")
        ]
        by_order: dict[int, list[ServedFill]] = {}
        for number, fill in fills:
            by_order.setdefault(number, []).append(fill)
        orders: list[tuple[ServedOrder, tuple[str, ...], Place | None]] = []
        for number, ids, body, place in run("SELECT number, ids, body, place FROM orders ORDER BY number"):
            order = _order(json.loads(body), by_order.get(number, []))
            orders.append((order, tuple(json.loads(ids)), None if place is None else _place(json.loads(place))))
        positions = {
            (account, symbol): Position(**json.loads(body))
            for account, symbol, body in run("SELECT account, symbol, body FROM positions")
        }
        counters = dict(run("SELECT name, value FROM counters"))
        return Kept(
            orders, [fill for _, fill in fills], positions, counters.get("next", 1), counters.get("executions", 1)
        )


def _order_text(order: ServedOrder) -> str:
    values = asdict(order)
    del values["fills"]
    return json.dumps(values, separators=(",", ":"))


def _order(values: Mapping[str, Any], fills: list[ServedFill]) -> ServedOrder:
    return ServedOrder(
        **{
            **values,
            "side": BuySell(values["side"]),
            "order_type": OrderType(values["order_type"]),
            "time_in_force": TimeInForce(values["time_in_force"]),
            "status": OrderStatus(values["status"]),
            "fills": fills,
        }
    )


def _fill(values: Mapping[str, Any]) -> ServedFill:
    return ServedFill(**{**values, "side": BuySell(values["side"])})


def _place(values: list[Any]) -> Place:
    return (Phase(values[0]).value, int(values[1]))
