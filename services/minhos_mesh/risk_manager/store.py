"""Decides what the risk manager keeps on disk: limits, breaker, answers, reservations, and its projection of the account."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

from minhos_mesh.matching import OrderType, Side, TimeInForce
from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.daily import DayPeak
from minhos_mesh.risk_manager.domain.desk import Decision, RiskDesk
from minhos_mesh.risk_manager.domain.limits import RiskLimits
from minhos_mesh.risk_manager.domain.projection import LiveOrder, Projection
from minhos_mesh.risk_manager.domain.question import CheckCode, CheckResult, Held, Provenance, Verdict
from minhos_mesh.risk_manager.domain.recent import Approval, Stage
from minhos_mesh.risk_manager.domain.reservations import Reservation
from minhos_mesh.runtime.inbox import INBOX_SCHEMA
from minhos_mesh.runtime.outbox import OUTBOX_SCHEMA
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.venue.domain.orders import Terms

MIGRATIONS: Final = (
    """
    CREATE TABLE limits (
        version INTEGER PRIMARY KEY, body TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, time_ns INTEGER NOT NULL,
        request_id TEXT UNIQUE, content TEXT NOT NULL
    );
    CREATE TABLE breaker (
        number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
        time_ns INTEGER NOT NULL
    );
    CREATE TABLE answers (
        request_id TEXT PRIMARY KEY, content TEXT NOT NULL, verdict TEXT NOT NULL, approval TEXT, time_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX answers_approved ON answers (time_ns) WHERE approval IS NOT NULL;
    CREATE TABLE reservations (order_id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE peaks (stage TEXT PRIMARY KEY, day TEXT NOT NULL, peak_e9 INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE projection (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
    """,
    INBOX_SCHEMA,
    OUTBOX_SCHEMA,
    """
    CREATE TABLE requests (request_id TEXT PRIMARY KEY, content TEXT NOT NULL, breaker TEXT NOT NULL) WITHOUT ROWID;
    """,
)

APPROVALS_LOADED: Final = 10_000
"""Newest approvals that the checks of rate and repetition see after a restart."""


@dataclass(frozen=True, slots=True)
class StoredLimits:
    """Limits with who set them."""

    limits: RiskLimits
    version: int
    actor: str


@dataclass(slots=True)
class Loaded:
    """What was on disk."""

    limits: StoredLimits | None
    breaker: Breaker
    projection: Projection
    reservations: list[Reservation]
    approvals: list[Approval]
    peaks: dict[Stage, DayPeak]


def load(connection: Connection) -> Loaded:
    """Return the whole state of risk."""
    breaker = connection.execute("SELECT body FROM breaker ORDER BY number DESC LIMIT 1").fetchone()
    projection = connection.execute("SELECT body FROM projection").fetchone()
    approvals = connection.execute(
        "SELECT approval FROM answers WHERE approval IS NOT NULL ORDER BY time_ns DESC LIMIT ?", (APPROVALS_LOADED,)
    ).fetchall()
    return Loaded(
        limits=load_limits(connection),
        breaker=Breaker(**json.loads(breaker[0])) if breaker is not None else Breaker(),
        projection=_projection(json.loads(projection[0])) if projection is not None else Projection(),
        reservations=[
            _reservation(json.loads(body)) for (body,) in connection.execute("SELECT body FROM reservations")
        ],
        approvals=[_approval(json.loads(body)) for (body,) in reversed(approvals)],
        peaks={
            _stage(stage): DayPeak(date.fromisoformat(day), peak_e9)
            for stage, day, peak_e9 in connection.execute("SELECT stage, day, peak_e9 FROM peaks")
        },
    )


def load_limits(connection: Connection) -> StoredLimits | None:
    """Return the newest limits, None before the first start."""
    row = connection.execute("SELECT body, version, actor FROM limits ORDER BY version DESC LIMIT 1").fetchone()
    return StoredLimits(RiskLimits(**json.loads(row[0])), row[1], row[2]) if row is not None else None


def save_limits(
    connection: Connection,
    limits: RiskLimits,
    version: int,
    *,
    actor: str,
    reason: str,
    time_ns: int,
    request_id: str | None = None,
    content: str = "",
) -> None:
    """Add a version of the limits; earlier ones stay."""
    row = (version, json.dumps(asdict(limits)), actor, reason, time_ns, request_id, content)
    connection.execute("INSERT INTO limits VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def find_limits(connection: Connection, request_id: str) -> tuple[str, RiskLimits, int] | None:
    """Return content, limits and version of an earlier change."""
    sql = "SELECT content, body, version FROM limits WHERE request_id = ?"
    row = connection.execute(sql, (request_id,)).fetchone()
    return (row[0], RiskLimits(**json.loads(row[1])), row[2]) if row is not None else None


def save_breaker(connection: Connection, breaker: Breaker, *, actor: str, reason: str, time_ns: int) -> None:
    """Add a state of the breaker; earlier ones stay."""
    row = (json.dumps(asdict(breaker)), actor, reason, time_ns)
    connection.execute("INSERT INTO breaker (body, actor, reason, time_ns) VALUES (?, ?, ?, ?)", row)


def save_request(connection: Connection, request_id: str, content: str, answer: Breaker) -> None:
    """Remember what a change of the breaker was answered."""
    connection.execute("INSERT INTO requests VALUES (?, ?, ?)", (request_id, content, json.dumps(asdict(answer))))


def find_request(connection: Connection, request_id: str) -> tuple[str, Breaker] | None:
    """Return content and answer of an earlier change of the breaker."""
    row = connection.execute("SELECT content, breaker FROM requests WHERE request_id = ?", (request_id,)).fetchone()
    return (row[0], Breaker(**json.loads(row[1]))) if row is not None else None


def save_decision(connection: Connection, decision: Decision, content: str) -> None:
    """Write an answer with everything that it changed."""
    approval, reservation, breaker = decision.approval, decision.reservation, decision.tripped
    verdict = json.dumps(asdict(decision.verdict), separators=(",", ":"))
    approved = json.dumps(_approval_values(approval)) if approval is not None else None
    row = (decision.question.request_id, content, verdict, approved, decision.now_ns)
    connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", row)
    if reservation is not None:
        values = (reservation.order_id, json.dumps(asdict(reservation)))
        connection.execute("INSERT OR REPLACE INTO reservations VALUES (?, ?)", values)
    if breaker is not None:
        actor, reason = breaker.tripped_by, breaker.reason
        save_breaker(connection, breaker, actor=actor, reason=reason, time_ns=decision.now_ns)
    if decision.peak is not None:
        save_peak(connection, decision.stage, decision.peak)


def save_peak(connection: Connection, stage: Stage, peak: DayPeak) -> None:
    """Write the highest profit of a day."""
    row = (f"{stage.provenance.name}/{stage.epoch}", peak.day.isoformat(), peak.peak_e9)
    connection.execute("INSERT OR REPLACE INTO peaks VALUES (?, ?, ?)", row)


def find_answer(connection: Connection, request_id: str) -> tuple[str, Verdict] | None:
    """Return content and verdict of an earlier question."""
    row = connection.execute("SELECT content, verdict FROM answers WHERE request_id = ?", (request_id,)).fetchone()
    return (row[0], _verdict(json.loads(row[1]))) if row is not None else None


def projection_body(projection: Projection) -> str:
    """Return a projection as text for the disk."""
    values = {
        "positions": {symbol: _flat(held) for symbol, held in projection.positions.items()},
        "position_versions": projection.position_versions,
        "live_orders": {order_id: _flat(order) for order_id, order in projection.live_orders.items()},
        "version": projection.version,
        "day": projection.day.isoformat() if projection.day is not None else None,
        "realized_today_e9": projection.realized_today_e9,
    }
    return json.dumps(values, separators=(",", ":"))


def _flat(value: Held | LiveOrder) -> dict[str, Any]:
    """The fields of a value without further ones inside; `asdict` copies deeply, and this runs for every event."""
    return {name: getattr(value, name) for name in value.__slots__}


def save_projection(connection: Connection, body: str, released: Iterable[str]) -> None:
    """Write a projection and drop the reservations of orders."""
    connection.execute("INSERT OR REPLACE INTO projection VALUES (1, ?)", (body,))
    connection.executemany("DELETE FROM reservations WHERE order_id = ?", [(order_id,) for order_id in released])


def restore(desk: RiskDesk, loaded: Loaded) -> None:
    """Put a desk back to where it was."""
    desk.breaker, desk.projection, desk.peaks = loaded.breaker, loaded.projection, loaded.peaks
    for approval in loaded.approvals:
        desk.approvals.add(approval)
    for reservation in loaded.reservations:
        desk.reservations.hold(reservation)


def _approval_values(approval: Approval) -> dict[str, Any]:
    values = asdict(approval)
    values["terms"]["order_type"] = approval.terms.order_type.value
    values["terms"]["time_in_force"] = approval.terms.time_in_force.value
    return values


def _approval(values: dict[str, Any]) -> Approval:
    terms, stage = values["terms"], values["stage"]
    restored = Terms(
        **{
            **terms,
            "side": Side(terms["side"]),
            "order_type": OrderType(terms["order_type"]),
            "time_in_force": TimeInForce(terms["time_in_force"]),
        }
    )
    return Approval(**{**values, "terms": restored, "stage": Stage(Provenance(stage["provenance"]), stage["epoch"])})


def _stage(text: str) -> Stage:
    name, _, epoch = text.partition("/")
    return Stage(Provenance[name], int(epoch))


def _reservation(values: dict[str, Any]) -> Reservation:
    return Reservation(**{**values, "side": Side(values["side"])})


def _verdict(values: dict[str, Any]) -> Verdict:
    checks = tuple(CheckResult(**{**check, "code": CheckCode(check["code"])}) for check in values["checks"])
    return Verdict(**{**values, "checks": checks})


def _projection(values: dict[str, Any]) -> Projection:
    return Projection(
        positions={symbol: Held(**held) for symbol, held in values["positions"].items()},
        position_versions=values["position_versions"],
        live_orders={
            order_id: LiveOrder(**{**order, "side": Side(order["side"])})
            for order_id, order in values["live_orders"].items()
        },
        version=values["version"],
        day=date.fromisoformat(values["day"]) if values["day"] is not None else None,
        realized_today_e9=values["realized_today_e9"],
    )
