"""Decides what is kept of the venue: orders before they are sent, fills, positions, and the changes that were told last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.enums import OrderType as WireType
from minhos_mesh.dtc.enums import TimeInForce as WireTime
from minhos_mesh.dtc.order_state import OrderState as TrackedState
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.matching import OrderType, Position, Side, TimeInForce
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.sierra_client.venue.book import Step
from minhos_mesh.sierra_client.venue.domain import Asked, Change, OrderRecord
from minhos_mesh.venue.domain.errors import RequestConflict
from minhos_mesh.venue.domain.orders import FillRecord, OrderReason, OrderState, Terms
from minhos_mesh.venue.domain.views import HeldPosition

MIGRATIONS: Final = (
    """
    CREATE TABLE orders (
        client_order_id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, dtc_id TEXT NOT NULL UNIQUE,
        done INTEGER NOT NULL, record TEXT NOT NULL, tracked TEXT
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX orders_alive ON orders (number) WHERE done = 0;
    CREATE TABLE fills (
        number INTEGER PRIMARY KEY AUTOINCREMENT, fill_id TEXT NOT NULL UNIQUE, client_order_id TEXT NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX fills_order ON fills (client_order_id, number);
    CREATE TABLE changes (revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE TABLE positions (symbol TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
    """,
)

CHANGES_KEPT: Final = 10_000
"""Changes that a reader can resume over, also after a restart."""
ORDERS_LOADED: Final = 50_000
"""Orders that are taken up after a restart: all that work, and of the others the newest."""
SERVER: Final = "server"
"""Name of the fact that says which server and account the orders are at."""
CARRIED: Final = "carried"
"""Name of the fact that says what was held before the first order."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was on disk."""

    records: list[OrderRecord]
    tracked: list[TrackedOrder]
    positions: dict[str, HeldPosition]
    changes: list[Change]
    revision: int
    facts: dict[str, str]


def save(
    connection: Connection, step: Step, records: Mapping[str, OrderRecord], tracked: Mapping[str, TrackedOrder]
) -> None:
    """Writes one step: `records` by the client's id and `tracked` by the server's id of what the step touched."""
    for change in step.changes:
        body = _text(change)
        connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (change.revision, type(change).__name__, body))
        if isinstance(change, FillRecord):
            row = (change.fill_id, change.client_order_id, body)
            connection.execute("INSERT INTO fills (fill_id, client_order_id, body) VALUES (?, ?, ?)", row)
    for asked in step.asked:
        _save_order(connection, asked, records[asked.client_order_id], tracked.get(asked.dtc_id))
    for symbol, held in step.positions.items():
        connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (symbol, json.dumps(asdict(held))))
    if step.changes and step.changes[-1].revision % 1_000 < len(step.changes):
        connection.execute("DELETE FROM changes WHERE revision <= ?", (step.changes[-1].revision - CHANGES_KEPT,))


def _save_order(connection: Connection, asked: Asked, record: OrderRecord, tracked: TrackedOrder | None) -> None:
    connection.execute(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (client_order_id) DO UPDATE SET "
        "done = excluded.done, record = excluded.record, tracked = COALESCE(excluded.tracked, tracked)",
        (
            asked.client_order_id,
            asked.number,
            asked.dtc_id,
            int(record.state.done),
            _text(record),
            None if tracked is None else _text(tracked),
        ),
    )


def was_requested(connection: Connection, request_id: str, content: str) -> bool:
    """Whether a request id came before. Raises RequestConflict when it did with other content."""
    row = connection.execute("SELECT content FROM requests WHERE request_id = ?", (request_id,)).fetchone()
    if row is not None and row[0] != content:
        raise RequestConflict(request_id)
    return row is not None


def remember_request(connection: Connection, request_id: str, content: str) -> None:
    """Notes what a request id stands for."""
    connection.execute("INSERT INTO requests VALUES (?, ?)", (request_id, content))


def note_facts(connection: Connection, facts: Mapping[str, str]) -> None:
    """Keeps facts about the server."""
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())


def load(connection: Connection) -> Loaded:
    """What the venue needs to go on."""
    rows = connection.execute("SELECT record, tracked FROM orders ORDER BY done, number DESC LIMIT ?", (ORDERS_LOADED,))
    pairs = [(_record(json.loads(record)), tracked) for record, tracked in rows]
    pairs.sort(key=lambda pair: pair[0].asked.number)
    newest = connection.execute(
        "SELECT kind, body FROM changes ORDER BY revision DESC LIMIT ?", (CHANGES_KEPT,)
    ).fetchall()
    changes = [_change(kind, json.loads(body)) for kind, body in reversed(newest)]
    return Loaded(
        records=[record for record, _ in pairs],
        tracked=[_tracked(json.loads(body)) for _, body in pairs if body is not None],
        positions={
            symbol: _held(json.loads(body)) for symbol, body in connection.execute("SELECT symbol, body FROM positions")
        },
        changes=changes,
        revision=changes[-1].revision if changes else 0,
        facts=dict(connection.execute("SELECT name, value FROM facts").fetchall()),
    )


def find_order(connection: Connection, client_order_id: str) -> OrderRecord | None:
    """An order by the client's id."""
    row = connection.execute("SELECT record FROM orders WHERE client_order_id = ?", (client_order_id,)).fetchone()
    return _record(json.loads(row[0])) if row is not None else None


def client_id_of(connection: Connection, dtc_id: str) -> str | None:
    """The client's id of what the server has under an id."""
    row = connection.execute("SELECT client_order_id FROM orders WHERE dtc_id = ?", (dtc_id,)).fetchone()
    return str(row[0]) if row is not None else None


def list_fills(
    connection: Connection, client_order_id: str | None, after: int, limit: int
) -> list[tuple[int, FillRecord]]:
    """(number, fill) behind a number, oldest first."""
    chosen, values = "number > ?", [after]
    arguments: list[object] = [*values]
    if client_order_id is not None:
        chosen += " AND client_order_id = ?"
        arguments.append(client_order_id)
    sql = f"SELECT number, body FROM fills WHERE {chosen} ORDER BY number LIMIT ?"
    return [(number, _fill(json.loads(body))) for number, body in connection.execute(sql, (*arguments, limit))]


def fill_number(connection: Connection, fill_id: str) -> int | None:
    """The number of a fill."""
    row = connection.execute("SELECT number FROM fills WHERE fill_id = ?", (fill_id,)).fetchone()
    return int(row[0]) if row is not None else None


def _text(value: OrderRecord | FillRecord | TrackedOrder) -> str:
    return json.dumps(_plain(asdict(value)), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.value if isinstance(value, OrderType | TimeInForce | TrackedState) else value


def _terms(values: Mapping[str, Any]) -> Terms:
    return Terms(
        **{
            **values,
            "side": Side(values["side"]),
            "order_type": OrderType(values["order_type"]),
            "time_in_force": TimeInForce(values["time_in_force"]),
        }
    )


def _record(values: Mapping[str, Any]) -> OrderRecord:
    asked = values["asked"]
    return OrderRecord(
        **{
            **values,
            "asked": Asked(**{**asked, "terms": _terms(asked["terms"]), "cancel": OrderReason(asked["cancel"])}),
            "terms": _terms(values["terms"]),
            "state": OrderState(values["state"]),
            "reason": OrderReason(values["reason"]),
        }
    )


def _fill(values: Mapping[str, Any]) -> FillRecord:
    return FillRecord(**{**values, "side": Side(values["side"])})


def _change(kind: str, values: Mapping[str, Any]) -> Change:
    return _record(values) if kind == OrderRecord.__name__ else _fill(values)


def _held(values: Mapping[str, Any]) -> HeldPosition:
    return HeldPosition(Position(**values["position"]), values["update_ns"], values["fills"])


def _tracked(values: Mapping[str, Any]) -> TrackedOrder:
    return TrackedOrder(
        **{
            **values,
            "side": BuySell(values["side"]),
            "order_type": WireType(values["order_type"]),
            "time_in_force": WireTime(values["time_in_force"]),
            "state": TrackedState(values["state"]),
            "server_order_ids": tuple(values["server_order_ids"]),
            "fills": tuple(_execution(fill) for fill in values["fills"]),
            "heard": tuple(_execution(fill) for fill in values.get("heard", ())),
        }
    )


def _execution(values: Mapping[str, Any]) -> FillReport:
    return FillReport(**{**values, "side": BuySell(values["side"])})


def tracked_rows(orders: Sequence[TrackedOrder]) -> dict[str, TrackedOrder]:
    """Orders by the id under which the server has them."""
    return {order.client_order_id: order for order in orders}
