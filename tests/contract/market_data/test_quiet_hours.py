"""NO_TICKS of a real feed counts only the time in which its exchange was open."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.contract.market_data.market_mesh import NQ, WALL_NS, serving

from minhos_api.market.v1 import provenance_pb2
from minhos_mesh.market_data.service import NO_TICKS

LIVE, DELAYED = provenance_pb2.PROVENANCE_LIVE, provenance_pb2.PROVENANCE_DELAYED
BREAK = datetime(2026, 9, 21, 21, 0, tzinfo=UTC)
"""A Monday, 16:00 in Chicago, some hours after the clock begins; it opens an hour later."""


@pytest.mark.parametrize(("provenance", "due_s"), [(LIVE, 3_900), (DELAYED, 5_100)])
async def test_ticks_are_awaited_once_a_session_has_lasted_long_enough(
    provenance: provenance_pb2.Provenance.ValueType, due_s: int
) -> None:
    async with serving((NQ,)) as mesh:
        mesh.clock.advance_ns(int(BREAK.timestamp()) * 10**9 - WALL_NS)
        async with mesh.source(provenance=provenance) as source:
            await source.feed(1)
            mesh.service.look_for_ticks()
            mesh.clock.advance(due_s - 1)
            mesh.service.look_for_ticks()
            assert not mesh.conditions.held()
            mesh.clock.advance(1.0)
            mesh.service.look_for_ticks()
            assert mesh.conditions.held() == {NO_TICKS: f"no tick of {NQ} for {due_s} s in an open session"}
