"""When prices that are too old for orders are a condition: as soon as an order would be refused, and not before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from minhos_mesh.matching import OrderType, Side
from minhos_mesh.risk_manager.bootstrap import desk_of
from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.question import AccountView, CheckCode, Evidence, Provenance, Question
from minhos_mesh.risk_manager.watch import FEED_QUIET, StopsWatch
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import load
from minhos_mesh.venue.domain.orders import Terms

NQ, VIX, E9 = "NQZ26-CME", "VIX-CGI", 1_000_000_000
OPEN = datetime(2026, 11, 18, 17, 0, tzinfo=UTC)
CLOSED = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)
"""A Wednesday and a Saturday."""
SUNDAY = datetime(2026, 11, 22, 22, 59, 50, tzinfo=UTC)
"""Ten seconds before the week begins at 17:00 in Chicago."""
LIVE, DELAYED, SIMULATED, REPLAY = Provenance.LIVE, Provenance.DELAYED, Provenance.SIMULATED, Provenance.REPLAY


class Watched:
    """A watch over a desk that hears prices of NQ by a clock that is moved by hand."""

    def __init__(self, at: datetime = OPEN, *, symbols: tuple[str, ...] = (NQ, VIX)) -> None:
        self.clock = ManualClock(wall_ns=int(at.timestamp()) * E9)
        self.desk: RiskDesk = desk_of(load(None, environment={}))
        self.conditions = Conditions()
        self.watch = StopsWatch(self.desk, symbols, self.clock, self.conditions, lambda: None)

    def price(self, provenance: Provenance = SIMULATED, *, age_s: float = 0) -> None:
        now_ns = self.clock.wall_ns()
        price = Evidence(event_time_ns=now_ns - round(age_s * E9), last_e9=25_000 * E9, provenance=provenance)
        self.desk.take_price(NQ, price, now_ns)

    def told_after(self, seconds: float) -> str | None:
        self.clock.advance(seconds)
        self.watch.look()
        return self.conditions.held().get(FEED_QUIET)

    def refused_for_age(self) -> bool:
        terms: dict[str, Any] = {"symbol": NQ, "side": Side.BUY, "order_type": OrderType.MARKET, "quantity": 1}
        kept: dict[str, Any] = {"evidence": None, "decision_time_ns": None, "dry_run": True}
        question = Question(request_id="q", order_id="q", terms=Terms(**terms), account=AccountView(), **kept)
        checks = self.desk.decide(question, self.clock.wall_ns()).verdict.checks
        return not next(check for check in checks if check.code is CheckCode.FRESH_PRICE).passed


@pytest.mark.parametrize(("provenance", "allowed_s"), [(SIMULATED, 10), (LIVE, 10), (DELAYED, 1_210)])
def test_old_price_is_a_condition_from_the_moment_on_that_orders_are_refused_for_it(
    provenance: Provenance, allowed_s: int
) -> None:
    seen = Watched()
    seen.price(provenance)
    assert seen.told_after(allowed_s) is None
    assert not seen.refused_for_age()
    told = seen.told_after(1)
    assert seen.refused_for_age()
    assert told == (
        f"no newer price: NQZ26-CME since 2026-11-18 17:00:00 UTC ({allowed_s} s are allowed);"
        " no order passes there, not even a closing one"
    )
    assert seen.told_after(1_000) == told, "it is told once, not every second anew"
    seen.price(provenance)
    assert seen.told_after(0) is None


def test_feed_that_goes_on_far_behind_is_told_too() -> None:
    seen = Watched()
    seen.price()
    assert seen.told_after(5) is None
    seen.price(age_s=12)
    seen.price(age_s=11)
    assert seen.told_after(6) is not None, "what came was older than what was known"


def test_start_has_time_until_the_first_fresh_price_comes() -> None:
    seen = Watched()
    seen.price(age_s=3_600)
    assert seen.told_after(29) is None
    assert "NQZ26-CME since 2026-11-18 16:00:00 UTC" in (seen.told_after(1) or "")
    never = Watched()
    assert never.told_after(29) is None
    assert "NQZ26-CME has no price yet" in (never.told_after(1) or "")


def test_no_price_is_awaited_in_a_closed_session_nor_right_after_it_opens() -> None:
    shut = Watched(CLOSED)
    shut.price(LIVE)
    assert shut.told_after(3_600) is None
    assert Watched(CLOSED).told_after(3_600) is None
    monday = Watched(SUNDAY)
    monday.price(LIVE, age_s=2 * 86_400)
    assert monday.told_after(39) is None, "the session is open for 29 s"
    assert monday.told_after(1) is not None
    invented = Watched(CLOSED)
    invented.price(SIMULATED)
    assert invented.told_after(0) is None
    assert invented.told_after(11) is not None, "a simulated market never closes"


def test_replay_has_its_own_clock_and_is_never_quiet() -> None:
    seen = Watched()
    seen.price(REPLAY)
    assert seen.told_after(86_400) is None


def test_changed_limit_holds_for_the_condition_too() -> None:
    seen = Watched()
    seen.price()
    assert seen.told_after(0) is None
    assert seen.told_after(11) is not None
    seen.desk.limits = type(seen.desk.limits)(max_price_age_ns=60 * E9)
    assert seen.told_after(1) is None


def test_symbol_that_cannot_be_traded_is_not_awaited() -> None:
    assert Watched(symbols=(VIX,)).told_after(3_600) is None


async def test_watch_looks_every_second_and_at_the_losses_too() -> None:
    import asyncio

    seen, looks = Watched(), []
    watch = StopsWatch(seen.desk, (NQ,), seen.clock, seen.conditions, lambda: looks.append(1))
    task = asyncio.create_task(watch.run())
    for _ in range(3):
        await asyncio.sleep(0)
        seen.clock.advance(1.0)
    await asyncio.sleep(0)
    assert len(looks) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
