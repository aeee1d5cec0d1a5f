"""The promise to a newcomer; the file that comes last, so that the others have used the minute."""

from __future__ import annotations

import pytest
from tests.e2e.books import assert_books_agree, count_events, events, settled
from tests.e2e.running_mesh import Mesh
from tests.waiting import until

from minhos_api.risk.v1 import risk_events_pb2

pytestmark = pytest.mark.timeout(150)


def test_a_signal_a_risk_decision_and_a_fill_come_within_a_minute_of_up(mesh: Mesh) -> None:
    wanted = ("ai.signal_generated", "risk.check_result", "trade.executed")
    until(lambda: all(count_events(mesh).get(kind) for kind in wanted), f"{wanted} were published", 90)
    for kind, source in zip(wanted, ("ai_brain", "risk_manager", "trading_engine"), strict=True):
        first = events(mesh, kind)[0]
        assert first.source == source
        assert first.store_time.ToNanoseconds() / 1e9 - mesh.up_at < 60


def test_the_signal_became_an_order_and_the_order_a_fill(mesh: Mesh) -> None:
    by_signal = until(
        lambda: [o for o in mesh.json("orders", "--count", "1000")["orders"] if o.get("signal_id")], "an order"
    )
    signal_ids = {item.payload.value for item in events(mesh, "ai.signal_generated")}
    assert signal_ids
    first = by_signal[-1]
    assert first["state"] == "ORDER_STATE_FILLED"
    checks = []
    for event in events(mesh, "risk.check_result"):
        check = risk_events_pb2.RiskCheckResult()
        assert event.payload.Unpack(check)
        checks.append(check)
    approved = next(check for check in checks if check.order_id == first["order_id"])
    assert approved.approved
    assert len(approved.checks) >= 8
    assert all(check.observed and check.limit for check in approved.checks)


def test_every_event_stands_in_the_journal_once_and_in_order(mesh: Mesh) -> None:
    stored = events(mesh)
    assert [event.sequence for event in stored] == sorted({event.sequence for event in stored})
    assert len({event.event_id for event in stored}) == len(stored)


def test_all_books_agree(mesh: Mesh) -> None:
    until(lambda: settled(mesh), "no order is on its way")
    books = assert_books_agree(mesh)
    assert books.venue_fills
