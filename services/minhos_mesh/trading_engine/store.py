"""Decides what the engine keeps on disk and how it is found again: one transaction for everything that one step changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.runtime.outbox import OUTBOX_SCHEMA
from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.trading_engine.domain.account import OrderChange
from minhos_mesh.trading_engine.domain.control import Control, EmergencyLatch, TradingMode, TradingState
from minhos_mesh.trading_engine.domain.order_events import (
    OrderCreated,
    OrderEvent,
    decode_event,
    decode_fill,
    decode_order,
    encode_event,
    encode_fill,
    encode_order,
)
from minhos_mesh.trading_engine.domain.orders import Fill, Order
from minhos_mesh.trading_engine.domain.positions import Position

_ORDERS: Final = """
    CREATE TABLE orders (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        order_id TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL UNIQUE,
        symbol TEXT NOT NULL,
        state TEXT NOT NULL,
        is_open INTEGER NOT NULL,
        version INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX orders_open ON orders (number) WHERE is_open = 1;
    CREATE TABLE order_events (
        order_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (order_id, version)
    ) WITHOUT ROWID;
    CREATE TABLE fills (
        version INTEGER PRIMARY KEY,
        fill_id TEXT NOT NULL UNIQUE,
        order_id TEXT NOT NULL,
        symbol TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE TABLE positions (
        symbol TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        multiplier_e9 INTEGER NOT NULL,
        quantity INTEGER NOT NULL,
        cost_e9 TEXT NOT NULL,
        closed_points_e9 TEXT NOT NULL,
        commission_e9 TEXT NOT NULL,
        updated_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE control (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE signals (
        signal_id TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        why TEXT NOT NULL,
        order_id TEXT NOT NULL,
        at_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE venue_cursor (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, fill_id TEXT NOT NULL);
    CREATE TABLE replay (symbol TEXT PRIMARY KEY, epoch INTEGER NOT NULL, through INTEGER NOT NULL) WITHOUT ROWID;
"""

_ANSWERS: Final = """
    CREATE TABLE answers (
        kind TEXT NOT NULL,
        request_id TEXT NOT NULL,
        content TEXT NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (kind, request_id)
    ) WITHOUT ROWID;
    UPDATE control SET body = json_remove(
        json_set(body, '$.mode_reason', body ->> '$.reason', '$.state_reason', body ->> '$.reason',
            '$.mode_actor', body ->> '$.actor', '$.state_actor', body ->> '$.actor',
            '$.mode_ns', body ->> '$.changed_ns', '$.state_ns', body ->> '$.changed_ns'),
        '$.reason', '$.actor', '$.changed_ns');
"""
"""First answers by request, and what was one reason of mode and state told apart."""

_FACTS: Final = "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"

_DISPUTED: Final = """
    CREATE INDEX orders_disputed ON orders (number) WHERE body ->> '$.settlement_dispute' <> '';
"""

MIGRATIONS: Final = (_ORDERS, OUTBOX_SCHEMA, _ANSWERS, _FACTS, _DISPUTED)
_HOME: Final = "venue"
"""Name of the fact that says at which venue orders and positions are."""


Also = Callable[[Connection], None]
"""What another part writes in the same transaction: events into the outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledSignal:
    """What was done about a signal; `order_id` is empty when nothing was."""

    signal_id: str
    action: str
    why: str
    order_id: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The first answer to a request of a kind, and what the request asked for, both as text."""

    kind: str
    request_id: str
    content: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueCursor:
    """How far the venue's stream was taken in: its revision and the last fill read in its order."""

    revision: int = 0
    fill_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPosition:
    """How far signals of a replay were acted on."""

    symbol: str
    epoch: int
    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Everything that one step writes, in one transaction."""

    orders: tuple[OrderChange, ...] = ()
    control: Control | None = None
    signal: HandledSignal | None = None
    cursor: VenueCursor | None = None
    replay: ReplayPosition | None = None
    answer: Answered | None = None
    home: str | None = None
    """The venue at which orders and positions are from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is found at the start."""

    open_orders: tuple[Order, ...]
    disputed: tuple[Order, ...]
    """Orders that a person has settled and of which the venue heard otherwise."""
    fills: tuple[Fill, ...]
    positions: dict[str, Position]
    control: Control | None
    cursor: VenueCursor
    replay: tuple[ReplayPosition, ...]
    home: str
    """The venue at which orders and positions are; empty before the first start at one."""


class Store:
    """The engine's facts in its database (SQLite, synchronous=FULL)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, steps: Sequence[tuple[Changes, Also | None]]) -> list[bool]:
        """Write steps in one transaction, each with what another part writes along with it.

        False for a step that began an order whose request id is known already; it is left out whole. Raises
        StorageError when nothing could be written.
        """
        return await self._database.write(lambda connection: [_write(connection, *step) for step in steps])

    async def load(self) -> Kept:
        """Read everything that the engine needs to go on."""
        return await self._database.read(_load)

    async def order(self, order_id: str) -> Order | None:
        """Read one order by its id."""
        return await self._one("SELECT body FROM orders WHERE order_id = ?", order_id)

    async def order_of_request(self, request_id: str) -> Order | None:
        """Read the order that a request led to."""
        return await self._one("SELECT body FROM orders WHERE request_id = ?", request_id)

    async def signal(self, signal_id: str) -> HandledSignal | None:
        """Read what was done about a signal."""
        sql = "SELECT signal_id, action, why, order_id, at_ns FROM signals WHERE signal_id = ?"
        row = self._database.glance(lambda c: c.execute(sql, (signal_id,)).fetchone())
        return None if row is None else HandledSignal(**dict(zip(HandledSignal.__slots__, row, strict=True)))

    async def answer(self, kind: str, request_id: str) -> Answered | None:
        """Read the first answer to a request of a kind."""
        sql = "SELECT kind, request_id, content, answer FROM answers WHERE kind = ? AND request_id = ?"
        row = self._database.glance(lambda c: c.execute(sql, (kind, request_id)).fetchone())
        return None if row is None else Answered(**dict(zip(Answered.__slots__, row, strict=True)))

    async def events(self, order_id: str) -> list[OrderEvent]:
        """Read the history of an order, the oldest first."""
        sql = "SELECT kind, body FROM order_events WHERE order_id = ? ORDER BY version"
        rows = await self._database.read(lambda c: c.execute(sql, (order_id,)).fetchall())
        return [decode_event(kind, body) for kind, body in rows]

    async def orders(
        self, *, symbol: str | None, states: Sequence[str], before: int | None, limit: int
    ) -> tuple[list[tuple[int, Order]], int]:
        """Read orders, the newest first, each with its number; `before` is the number to go on from. And their count."""
        where, values = ["1 = 1"], list[Any]()
        if symbol is not None:
            where.append("symbol = ?")
            values.append(symbol)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values.extend(states)
        if before is not None:
            where.append("number < ?")
            values.append(before)
        sql = f"SELECT number, body FROM orders WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"

        def read(connection: Connection) -> tuple[list[tuple[int, str]], int]:
            (count,) = connection.execute("SELECT count(*) FROM orders").fetchone()
            return connection.execute(sql, (*values, limit)).fetchall(), count

        rows, count = await self._database.read(read)
        return [(number, decode_order(body)) for number, body in rows], count

    async def fills(self, *, symbol: str | None, before: int | None, limit: int) -> list[tuple[int, Fill]]:
        """Read fills, the newest first, each with its version; `before` is the version to go on from."""
        sql = (
            "SELECT version, body FROM fills WHERE (?1 IS NULL OR symbol = ?1) AND (?2 IS NULL OR version < ?2)"
            " ORDER BY version DESC LIMIT ?3"
        )
        rows = await self._database.read(lambda c: c.execute(sql, (symbol, before, limit)).fetchall())
        return [(version, decode_fill(body)) for version, body in rows]

    async def fills_since(self, at_ns: int) -> list[Fill]:
        """Read the fills at or after an instant, the oldest first."""
        sql = "SELECT body FROM fills WHERE at_ns >= ? ORDER BY version"
        rows = await self._database.read(lambda c: c.execute(sql, (at_ns,)).fetchall())
        return [decode_fill(body) for (body,) in rows]

    async def _one(self, sql: str, value: str) -> Order | None:
        row = self._database.glance(lambda c: c.execute(sql, (value,)).fetchone())
        return None if row is None else decode_order(row[0])


def _write(connection: Connection, step: Changes, also: Also | None) -> bool:
    for change in step.orders:
        if not _write_order(connection, change):
            return False
        if change.booking is not None:
            _write_fill(connection, change.booking.fill, change.booking.position)
    if step.control is not None:
        row = (step.control.version, encode_control(step.control))
        connection.execute("INSERT OR REPLACE INTO control VALUES (1, ?, ?)", row)
    if step.signal is not None:
        values = tuple(getattr(step.signal, name) for name in HandledSignal.__slots__)
        connection.execute("INSERT OR IGNORE INTO signals VALUES (?, ?, ?, ?, ?)", values)
    if step.cursor is not None:
        cursor = (step.cursor.revision, step.cursor.fill_id)
        connection.execute("INSERT OR REPLACE INTO venue_cursor VALUES (1, ?, ?)", cursor)
    if step.replay is not None:
        replay = (step.replay.symbol, step.replay.epoch, step.replay.through)
        connection.execute("INSERT OR REPLACE INTO replay VALUES (?, ?, ?)", replay)
    if step.answer is not None:
        answer = tuple(getattr(step.answer, name) for name in Answered.__slots__)
        connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", answer)
    if step.home is not None:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_HOME, step.home))
    if also is not None:
        also(connection)
    return True


def _write_order(connection: Connection, change: OrderChange) -> bool:
    order = change.order
    body = encode_order(order)
    is_open = int(not order.state.is_terminal)
    if isinstance(change.event, OrderCreated):
        sql = (
            "INSERT INTO orders (order_id, request_id, symbol, state, is_open, version, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        row = (order.order_id, order.origin.request_id, order.terms.symbol, order.state.value, is_open, order.sequence)
        if connection.execute(sql, (*row, body)).rowcount == 0:
            return False
    else:
        sql = "UPDATE orders SET state = ?, is_open = ?, version = ?, body = ? WHERE order_id = ? AND version < ?"
        connection.execute(sql, (order.state.value, is_open, order.sequence, body, order.order_id, order.sequence))
    kind, event = encode_event(change.event)
    connection.execute("INSERT INTO order_events VALUES (?, ?, ?, ?)", (order.order_id, order.sequence, kind, event))
    return True


def _write_fill(connection: Connection, fill: Fill, position: Position) -> None:
    row = (position.version, fill.fill_id, fill.order_id, fill.symbol, fill.at_ns, encode_fill(fill))
    connection.execute("INSERT INTO fills VALUES (?, ?, ?, ?, ?, ?)", row)
    held = (position.symbol, position.version, position.multiplier_e9, position.quantity)
    # Sums may outgrow the 64 bits of an SQLite integer, so they are kept as decimal text.
    sums = (str(position.cost_e9), str(position.closed_points_e9), str(position.commission_e9))
    connection.execute(
        "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*held, *sums, position.updated_ns)
    )


def _load(connection: Connection) -> Kept:
    orders = connection.execute("SELECT body FROM orders WHERE is_open = 1 ORDER BY number").fetchall()
    disputed = connection.execute(
        "SELECT body FROM orders WHERE body ->> '$.settlement_dispute' <> '' ORDER BY number"
    ).fetchall()
    fills = connection.execute("SELECT body FROM fills ORDER BY version").fetchall()
    control = connection.execute("SELECT body FROM control").fetchone()
    cursor = connection.execute("SELECT revision, fill_id FROM venue_cursor").fetchone()
    replay = connection.execute("SELECT symbol, epoch, through FROM replay").fetchall()
    home = connection.execute("SELECT value FROM facts WHERE name = ?", (_HOME,)).fetchone()
    return Kept(
        open_orders=tuple(decode_order(body) for (body,) in orders),
        disputed=tuple(decode_order(body) for (body,) in disputed),
        fills=tuple(decode_fill(body) for (body,) in fills),
        positions=_load_positions(connection),
        control=None if control is None else decode_control(control[0]),
        cursor=VenueCursor() if cursor is None else VenueCursor(revision=cursor[0], fill_id=cursor[1]),
        replay=tuple(ReplayPosition(symbol=symbol, epoch=epoch, through=through) for symbol, epoch, through in replay),
        home="" if home is None else home[0],
    )


def _load_positions(connection: Connection) -> dict[str, Position]:
    columns = "symbol, version, multiplier_e9, quantity, cost_e9, closed_points_e9, commission_e9, updated_ns"
    positions = {}
    for row in connection.execute(f"SELECT {columns} FROM positions"):
        symbol, version, multiplier_e9, quantity, cost, points, commission, updated_ns = row
        positions[symbol] = Position(
            symbol=symbol,
            version=version,
            multiplier_e9=multiplier_e9,
            quantity=quantity,
            cost_e9=int(cost),
            closed_points_e9=int(points),
            commission_e9=int(commission),
            updated_ns=updated_ns,
        )
    return positions


def encode_control(control: Control) -> str:
    """Give the JSON body of trading control."""
    latch = control.emergency
    return json.dumps(
        {
            **{name: getattr(control, name) for name in Control.__slots__},
            "mode": control.mode.value,
            "state": control.state.value,
            "emergency": None if latch is None else {name: getattr(latch, name) for name in EmergencyLatch.__slots__},
        }
    )


def decode_control(body: str) -> Control:
    """Give back the control that `encode_control` wrote."""
    values = json.loads(body)
    latch = values.pop("emergency")
    mode, state = TradingMode(values.pop("mode")), TradingState(values.pop("state"))
    return Control(mode=mode, state=state, emergency=None if latch is None else EmergencyLatch(**latch), **values)
