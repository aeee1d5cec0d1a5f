"""Feeds of real exchanges are quiet on holidays, in breaks and, with a delay, a while behind: no fault is told then."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.risk_manager.test_stops import DELAYED, LIVE, SIMULATED, Watched

from minhos_mesh.risk_manager.domain.question import Provenance

THANKSGIVING = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)
"""12:00 in Chicago, when trading ends on that day."""
CHRISTMAS = datetime(2026, 12, 25, 15, 0, tzinfo=UTC)
BREAK = datetime(2026, 11, 18, 22, 0, tzinfo=UTC)
"""A Wednesday, 16:00 in Chicago; it opens an hour later."""


@pytest.mark.parametrize("began", [THANKSGIVING, CHRISTMAS, BREAK])
@pytest.mark.parametrize("provenance", [LIVE, DELAYED])
def test_real_feed_may_be_quiet_while_its_exchange_is_closed(began: datetime, provenance: Provenance) -> None:
    seen = Watched(began)
    if provenance is DELAYED:
        seen.clock.advance(1_200)  # until then its last prices come
    seen.price(provenance, age_s=1_200 if provenance is DELAYED else 0)
    assert [seen.told_after(60) for _ in range(39)] == [None] * 39
    assert Watched(began).told_after(3_000) is None, "one that has told no price yet, too"


def test_invented_feed_is_always_open() -> None:
    seen = Watched(CHRISTMAS)
    seen.price(SIMULATED)
    assert seen.told_after(31) is not None


@pytest.mark.parametrize(("provenance", "quiet_s"), [(LIVE, 30), (DELAYED, 1_230)])
def test_first_price_of_a_session_is_awaited_for_a_while_and_for_its_delay(
    provenance: Provenance, quiet_s: int
) -> None:
    seen = Watched(BREAK)
    seen.price(provenance, age_s=1_200 if provenance is DELAYED else 0)
    assert seen.told_after(3_600 + quiet_s - 1) is None
    assert "NQZ26-CME since" in (seen.told_after(1) or "")


def test_last_delayed_prices_of_a_session_are_missed_when_they_do_not_come() -> None:
    seen = Watched(BREAK)
    seen.price(DELAYED, age_s=1_800)
    assert seen.told_after(60) is not None, "prices of 15:40 are due at 16:01"
    assert seen.told_after(1_200) is None
