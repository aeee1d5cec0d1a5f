"""Decides what the venue keeps on disk: orders, fills, positions, place in the market, and the changes it told last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from minhos_mesh.matching import OrderType, Phase, Position, Quote, Side, TimeInForce, Trade
from minhos_mesh.paper_venue.domain.market import SymbolMarket
from minhos_mesh.paper_venue.domain.orders import Change, OrderRecord, venue_order_id
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.venue.domain.errors import RequestConflict
from minhos_mesh.venue.domain.orders import FillRecord, OrderState, Terms
from minhos_mesh.venue.domain.views import HeldPosition, ProgressRecord

MIGRATIONS: Final = (
    """
    CREATE TABLE orders (
        client_order_id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, done INTEGER NOT NULL, body TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX orders_alive ON orders (number) WHERE done = 0;
    CREATE TABLE fills (
        number INTEGER PRIMARY KEY AUTOINCREMENT, fill_id TEXT NOT NULL UNIQUE, client_order_id TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX fills_order ON fills (client_order_id, number);
    CREATE TABLE changes (revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL);
    CREATE TABLE positions (symbol TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE markets (symbol TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
    """,
)

CHANGES_KEPT: Final = 10_000
"""Changes that a reader can resume over, also after a restart."""
ORDERS_LOADED: Final = 50_000
"""Orders in memory; older ones that are done are looked up on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Everything that one step of the venue changed, to be written in one transaction."""

    changes: tuple[Change, ...]
    positions: Mapping[str, HeldPosition] = field(default_factory=dict)
    markets: Mapping[str, str] = field(default_factory=dict)
    """Place in the market by symbol, as `market_body` writes it."""
    request: tuple[str, str] | None = None
    """Id and content of a request that must not be done twice."""


@dataclass(slots=True)
class Loaded:
    """What was on disk."""

    orders: list[OrderRecord]
    positions: dict[str, HeldPosition]
    markets: dict[str, dict[str, Any]]
    changes: list[Change]
    revision: int


def save(connection: Connection, commit: Commit) -> None:
    """Write one step. Raises RequestConflict when its request id was used for something else."""
    if commit.request is not None:
        _remember_request(connection, *commit.request)
    for change in commit.changes:
        body = json.dumps(_plain(change), separators=(",", ":"))
        connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (change.revision, type(change).__name__, body))
        if isinstance(change, OrderRecord):
            row = (change.client_order_id, change.number, int(change.state.done), body)
            connection.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", row)
        elif isinstance(change, FillRecord):
            fill = (change.fill_id, change.client_order_id, body)
            connection.execute("INSERT INTO fills (fill_id, client_order_id, body) VALUES (?, ?, ?)", fill)
    for symbol, held in commit.positions.items():
        connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (symbol, json.dumps(asdict(held))))
    for symbol, body in commit.markets.items():
        connection.execute("INSERT OR REPLACE INTO markets VALUES (?, ?)", (symbol, body))
    if commit.changes and commit.changes[-1].revision % 1_000 < len(commit.changes):
        connection.execute("DELETE FROM changes WHERE revision <= ?", (commit.changes[-1].revision - CHANGES_KEPT,))


def find_request(connection: Connection, request_id: str) -> str | None:
    """Return the content that a request id stands for."""
    row = connection.execute("SELECT content FROM requests WHERE request_id = ?", (request_id,)).fetchone()
    return str(row[0]) if row is not None else None


def _remember_request(connection: Connection, request_id: str, content: str) -> None:
    known = find_request(connection, request_id)
    if known is not None and known != content:
        raise RequestConflict(request_id)
    connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (request_id, content))


def load(connection: Connection) -> Loaded:
    """Return what a venue needs to go on: living orders, the newest done ones, positions and the last changes."""
    rows = connection.execute("SELECT body FROM orders ORDER BY done, number DESC LIMIT ?", (ORDERS_LOADED,))
    orders = [_order(json.loads(body)) for (body,) in rows]
    positions = {
        symbol: _held(json.loads(body)) for symbol, body in connection.execute("SELECT symbol, body FROM positions")
    }
    markets = {symbol: json.loads(body) for symbol, body in connection.execute("SELECT symbol, body FROM markets")}
    newest = connection.execute(
        "SELECT kind, body FROM changes ORDER BY revision DESC LIMIT ?", (CHANGES_KEPT,)
    ).fetchall()
    changes = [_change(kind, json.loads(body)) for kind, body in reversed(newest)]
    return Loaded(orders, positions, markets, changes, changes[-1].revision if changes else 0)


def find_order(connection: Connection, client_order_id: str) -> OrderRecord | None:
    """Return an order by the client's id."""
    row = connection.execute("SELECT body FROM orders WHERE client_order_id = ?", (client_order_id,)).fetchone()
    return _order(json.loads(row[0])) if row is not None else None


def list_fills(
    connection: Connection, client_order_id: str | None, after: int, limit: int
) -> list[tuple[int, FillRecord]]:
    """Return (number, fill) behind a number, oldest first."""
    chosen, arguments = "number > ?", [after]
    values: list[object] = [*arguments]
    if client_order_id is not None:
        chosen += " AND client_order_id = ?"
        values.append(client_order_id)
    sql = f"SELECT number, body FROM fills WHERE {chosen} ORDER BY number LIMIT ?"
    return [(number, _fill(json.loads(body))) for number, body in connection.execute(sql, (*values, limit))]


def fill_number(connection: Connection, fill_id: str) -> int | None:
    """Return the number of a fill."""
    row = connection.execute("SELECT number FROM fills WHERE fill_id = ?", (fill_id,)).fetchone()
    return int(row[0]) if row is not None else None


def market_body(market: SymbolMarket) -> str:
    """Return a place in the market as text for the disk."""
    quote, trade = market.book.quote, market.book.last_trade
    values = {
        "epoch": market.epoch,
        "provenance": market.provenance,
        "sequence": market.sequence,
        "event_time_ns": market.event_time_ns,
        "quote": asdict(quote) if quote is not None else None,
        "trade": asdict(trade) if trade is not None else None,
    }
    return json.dumps(values, separators=(",", ":"))


def restore_market(market: SymbolMarket, values: Mapping[str, Any]) -> None:
    """Put a market back to where it was."""
    market.epoch, market.provenance = values["epoch"], values["provenance"]
    market.sequence, market.event_time_ns = values["sequence"], values["event_time_ns"]
    trade = values["trade"]
    if trade is not None and trade["aggressor"] is not None:
        trade = {**trade, "aggressor": Side(trade["aggressor"])}
    market.book.observe(
        Quote(**values["quote"]) if values["quote"] is not None else None, Trade(**trade) if trade is not None else None
    )


def _plain(change: Change) -> dict[str, Any]:
    values = asdict(change)
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain_value(inner) for name, inner in value.items()}
    return value.value if isinstance(value, OrderType | TimeInForce | Phase) else value


def _terms(values: Mapping[str, Any]) -> Terms:
    return Terms(
        **{
            **values,
            "side": Side(values["side"]),
            "order_type": OrderType(values["order_type"]),
            "time_in_force": TimeInForce(values["time_in_force"]),
        }
    )


def _order(values: Mapping[str, Any]) -> OrderRecord:
    return OrderRecord(
        **{
            **values,
            "asked": _terms(values["asked"]),
            "terms": _terms(values["terms"]),
            "state": OrderState(values["state"]),
            "phase": Phase(values["phase"]),
        }
    )


def _fill(values: Mapping[str, Any]) -> FillRecord:
    named = {"venue_order_id": venue_order_id(values["client_order_id"]), **values}  # which older files leave out
    return FillRecord(**{**named, "side": Side(values["side"])})


def _held(values: Mapping[str, Any]) -> HeldPosition:
    return HeldPosition(Position(**values["position"]), values["update_ns"], values["fills"])


def _change(kind: str, values: Mapping[str, Any]) -> Change:
    if kind == OrderRecord.__name__:
        return _order(values)
    return _fill(values) if kind == FillRecord.__name__ else ProgressRecord(**values)


def touched_symbols(changes: Iterable[Change]) -> frozenset[str]:
    """Return the symbols whose position a step may have changed."""
    return frozenset(change.symbol for change in changes if isinstance(change, FillRecord))
