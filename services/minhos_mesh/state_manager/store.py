"""What the state manager keeps and how it is found again: state, answers to requests, audit log, fills and what they amount to.

Every function works inside the transaction that its connection is in; who composes them decides what belongs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.matching.position import Position
from minhos_mesh.runtime.inbox import INBOX_SCHEMA
from minhos_mesh.runtime.outbox import OUTBOX_SCHEMA
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.state_manager.domain.audit import AuditEntry
from minhos_mesh.state_manager.domain.portfolio import (
    Day,
    Holding,
    Portfolio,
    Told,
    Trade,
    booked,
    contradictions,
    day_of,
    rebooked,
)
from minhos_mesh.state_manager.domain.state import State, state_from_json, state_to_json

DAYS_SHOWN: Final = 90

MIGRATIONS: Final = (
    INBOX_SCHEMA,
    OUTBOX_SCHEMA,
    """
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
    CREATE TABLE requests (
        request_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE audit (
        entry_id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ns INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
        before_json TEXT NOT NULL, after_json TEXT NOT NULL, reason TEXT NOT NULL
    );
    CREATE INDEX audit_actor ON audit (actor, entry_id);
    CREATE INDEX audit_action ON audit (action, entry_id);
    CREATE TABLE progress (
        id INTEGER PRIMARY KEY CHECK (id = 1), through_sequence INTEGER NOT NULL, trading_sequence INTEGER NOT NULL
    );
    INSERT INTO progress VALUES (1, 0, 0);
    CREATE TABLE trades (
        entry INTEGER PRIMARY KEY,
        fill_id TEXT NOT NULL, order_id TEXT NOT NULL, venue_order_id TEXT NOT NULL, symbol TEXT NOT NULL,
        buy INTEGER NOT NULL, quantity INTEGER NOT NULL, cumulative_quantity INTEGER NOT NULL,
        price_e9 INTEGER NOT NULL, commission_e9 INTEGER NOT NULL, fill_ns INTEGER NOT NULL,
        provenance INTEGER NOT NULL, market_sequence INTEGER, multiplier_e9 INTEGER NOT NULL, version INTEGER NOT NULL,
        date TEXT NOT NULL, realized_e9 INTEGER NOT NULL,
        UNIQUE (order_id, fill_id), UNIQUE (order_id, cumulative_quantity)
    );
    CREATE INDEX trades_symbol ON trades (symbol, version, entry);
    CREATE INDEX trades_version ON trades (version, entry);
    CREATE INDEX trades_date ON trades (date);
    CREATE TABLE holdings (
        symbol TEXT PRIMARY KEY, multiplier_e9 INTEGER NOT NULL, quantity INTEGER NOT NULL, cost_e9 INTEGER NOT NULL,
        closed_points_e9 INTEGER NOT NULL, commission_e9 INTEGER NOT NULL, version INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL, fills INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE told (
        symbol TEXT PRIMARY KEY, quantity INTEGER NOT NULL, cost_e9 INTEGER NOT NULL, realized_e9 INTEGER NOT NULL,
        commission_e9 INTEGER NOT NULL, version INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE days (
        date TEXT PRIMARY KEY, realized_e9 INTEGER NOT NULL, commission_e9 INTEGER NOT NULL, fills INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)

_TRADE_COLUMNS: Final = (
    "fill_id, order_id, venue_order_id, symbol, buy, quantity, cumulative_quantity, price_e9, commission_e9, fill_ns,"
    " provenance, market_sequence, multiplier_e9, version"
)


@dataclass(frozen=True, slots=True)
class TradePosition:
    """Where a page of trades ended: behind it come the older ones."""

    version: int
    entry: int


# The state.


def load_state(connection: Connection) -> State | None:
    """The state that holds; None before the very first start."""
    row = connection.execute("SELECT body FROM state").fetchone()
    return None if row is None else state_from_json(row[0])


def save_state(connection: Connection, state: State) -> None:
    """Replaces the state."""
    connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (state_to_json(state),))


def find_answer(connection: Connection, request_id: str) -> tuple[str, State] | None:
    """Fingerprint and answer of a request that was carried out; None when it was not."""
    row = connection.execute("SELECT fingerprint, answer FROM requests WHERE request_id = ?", (request_id,)).fetchone()
    return None if row is None else (row[0], state_from_json(row[1]))


def save_answer(connection: Connection, request_id: str, fingerprint: str, answer: State) -> None:
    """Remembers what a request was answered."""
    connection.execute("INSERT INTO requests VALUES (?, ?, ?)", (request_id, fingerprint, state_to_json(answer)))


# What was heard.


def note_sequence(connection: Connection, sequence: int) -> None:
    """Remembers that this event was taken in."""
    connection.execute("UPDATE progress SET through_sequence = max(through_sequence, ?)", (sequence,))


def is_newest_trading_news(connection: Connection, sequence: int) -> bool:
    """Whether no newer word of the trading engine was taken in before; remembers this one when so."""
    sql = "UPDATE progress SET trading_sequence = ? WHERE trading_sequence < ?"
    return connection.execute(sql, (sequence, sequence)).rowcount == 1


# The audit log.


def add_audit(connection: Connection, entry: AuditEntry) -> None:
    """Appends an entry; its id is made here."""
    connection.execute(
        "INSERT INTO audit (at_ns, actor, action, subject, before_json, after_json, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (entry.at_ns, entry.actor, entry.action, entry.subject, entry.before_json, entry.after_json, entry.reason),
    )


def newest_after_json(connection: Connection, action: str) -> str:
    """What the newest entry of this action left behind; empty when there is none."""
    row = connection.execute(
        "SELECT after_json FROM audit WHERE action = ? ORDER BY entry_id DESC LIMIT 1", (action,)
    ).fetchone()
    return "" if row is None else str(row[0])


def list_audit(
    connection: Connection, *, actor: str | None, action: str | None, before_id: int | None, limit: int
) -> list[AuditEntry]:
    """The newest entries first, older than `before_id` when it is given."""
    where, values = _where([("actor = ?", actor), ("action = ?", action), ("entry_id < ?", before_id)])
    rows = connection.execute(
        "SELECT entry_id, at_ns, actor, action, subject, before_json, after_json, reason"
        f" FROM audit{where} ORDER BY entry_id DESC LIMIT ?",
        (*values, limit),
    )
    names = ("entry_id", "at_ns", "actor", "action", "subject", "before_json", "after_json", "reason")
    return [AuditEntry(**dict(zip(names, row, strict=True))) for row in rows]


# The portfolio.


def book(connection: Connection, trade: Trade) -> bool:
    """Takes a fill in, whenever it comes; False when it was taken in before. Raises FillUnusable."""
    trade.check()
    row = (*_trade_row(trade), day_of(trade.fill_ns))
    marks = ", ".join("?" * len(row))
    sql = f"INSERT OR IGNORE INTO trades ({_TRADE_COLUMNS}, date, realized_e9) VALUES ({marks}, 0)"
    added = connection.execute(sql, row)
    if added.rowcount == 0:
        return False
    holding = _load_holding(connection, trade.symbol)
    if trade.version < holding.version:
        rebook(connection, trade.symbol)
        return True
    after, realized_e9 = booked(holding, trade)
    _save_holding(connection, after)
    connection.execute("UPDATE trades SET realized_e9 = ? WHERE entry = ?", (realized_e9, added.lastrowid))
    connection.execute(
        "INSERT INTO days VALUES (?, ?, ?, 1) ON CONFLICT (date) DO UPDATE SET realized_e9 = realized_e9 +"
        " excluded.realized_e9, commission_e9 = commission_e9 + excluded.commission_e9, fills = fills + 1",
        (day_of(trade.fill_ns), realized_e9, trade.commission_e9),
    )
    return True


def rebook(connection: Connection, symbol: str) -> None:
    """Computes a symbol anew from all its fills in the order of their versions, with the days that they fell on."""
    rows = connection.execute(
        f"SELECT {_TRADE_COLUMNS}, entry FROM trades WHERE symbol = ? ORDER BY version, entry", (symbol,)
    ).fetchall()
    holding, realized = rebooked(symbol, [_trade(row[:-1]) for row in rows])
    _save_holding(connection, holding)
    connection.executemany(
        "UPDATE trades SET realized_e9 = ? WHERE entry = ?",
        [(realized_e9, row[-1]) for realized_e9, row in zip(realized, rows, strict=True)],
    )
    connection.execute("DELETE FROM days WHERE date IN (SELECT date FROM trades WHERE symbol = ?)", (symbol,))
    connection.execute(
        "INSERT INTO days SELECT date, sum(realized_e9), sum(commission_e9), count(*) FROM trades"
        " WHERE date IN (SELECT date FROM trades WHERE symbol = ?) GROUP BY date",
        (symbol,),
    )


def note_told(connection: Connection, told: Told) -> None:
    """Remembers what the owner says of a position, unless it has said something newer."""
    connection.execute(
        "INSERT INTO told VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (symbol) DO UPDATE SET quantity = excluded.quantity,"
        " cost_e9 = excluded.cost_e9, realized_e9 = excluded.realized_e9, commission_e9 = excluded.commission_e9,"
        " version = excluded.version WHERE excluded.version >= version",
        (told.symbol, told.quantity, told.cost_e9, told.realized_e9, told.commission_e9, told.version),
    )


def find_contradictions(connection: Connection) -> tuple[str, ...]:
    """Symbols whose holding is not what its owner told of the same version."""
    rows = connection.execute("SELECT symbol, quantity, cost_e9, realized_e9, commission_e9, version FROM told")
    told = [
        Told(symbol=s, quantity=q, cost_e9=c, realized_e9=r, commission_e9=m, version=v) for s, q, c, r, m, v in rows
    ]
    return contradictions({holding.symbol: holding for holding in _holdings(connection)}, told)


def load_portfolio(connection: Connection) -> Portfolio:
    """Everything that the fills taken in amount to, at one moment."""
    days = connection.execute(
        "SELECT date, realized_e9, commission_e9, fills FROM days ORDER BY date DESC LIMIT ?", (DAYS_SHOWN,)
    )
    (through,) = connection.execute("SELECT through_sequence FROM progress").fetchone()
    return Portfolio(
        holdings=tuple(_holdings(connection)),
        days=tuple(Day(date=d, realized_e9=r, commission_e9=c, fills=n) for d, r, c, n in days),
        through_sequence=through,
    )


def list_trades(
    connection: Connection, *, symbol: str | None, before: TradePosition | None, limit: int
) -> list[tuple[Trade, TradePosition]]:
    """The newest fills first, older than `before` when it is given."""
    bound = None if before is None else (before.version, before.entry)
    where, values = _where([("symbol = ?", symbol), ("(version, entry) < (?, ?)", bound)])
    rows = connection.execute(
        f"SELECT {_TRADE_COLUMNS}, entry FROM trades{where} ORDER BY version DESC, entry DESC LIMIT ?",
        (*values, limit),
    )
    found = [(_trade(row[:-1]), row[-1]) for row in rows]
    return [(trade, TradePosition(trade.version, entry)) for trade, entry in found]


def _where(terms: Iterable[tuple[str, Any]]) -> tuple[str, list[Any]]:
    """The condition of the terms that have a value."""
    used = [(term, value) for term, value in terms if value is not None]
    values = [item for _, value in used for item in (value if isinstance(value, tuple) else (value,))]
    return (" WHERE " + " AND ".join(term for term, _ in used) if used else ""), values


def _trade_row(trade: Trade) -> tuple[Any, ...]:
    return tuple(getattr(trade, name.strip()) for name in _TRADE_COLUMNS.split(","))


def _trade(row: Sequence[Any]) -> Trade:
    values = dict(zip((name.strip() for name in _TRADE_COLUMNS.split(",")), row, strict=True))
    return Trade(**{**values, "buy": bool(values["buy"])})


_HOLDING_COLUMNS: Final = (
    "symbol, multiplier_e9, quantity, cost_e9, closed_points_e9, commission_e9, version, updated_ns, fills"
)


def _holdings(connection: Connection) -> list[Holding]:
    rows = connection.execute(f"SELECT {_HOLDING_COLUMNS} FROM holdings ORDER BY symbol")
    return [_holding(row) for row in rows]


def _load_holding(connection: Connection, symbol: str) -> Holding:
    row = connection.execute(f"SELECT {_HOLDING_COLUMNS} FROM holdings WHERE symbol = ?", (symbol,)).fetchone()
    return Holding(symbol=symbol) if row is None else _holding(row)


def _holding(row: Sequence[Any]) -> Holding:
    symbol, multiplier_e9, quantity, cost_e9, closed, commission_e9, version, updated_ns, fills = row
    position = Position(quantity=quantity, cost_e9=cost_e9, realized_pnl_e9=closed, commission_e9=commission_e9)
    return Holding(
        symbol=symbol,
        multiplier_e9=multiplier_e9,
        book=position,
        version=version,
        updated_ns=updated_ns,
        fills=fills,
    )


def _save_holding(connection: Connection, holding: Holding) -> None:
    held = holding.book
    connection.execute(
        "INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            holding.symbol,
            holding.multiplier_e9,
            held.quantity,
            held.cost_e9,
            held.realized_pnl_e9,
            held.commission_e9,
            holding.version,
            holding.updated_ns,
            holding.fills,
        ),
    )
