from __future__ import annotations

from collections.abc import Callable

import pytest

from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

START_NS = 1_700_000_000_000_000_000
STEP_E9 = 250_000_000

Row = tuple[int, int, int, int]
MakeTicks = Callable[..., TickArray]


def _make_ticks(rows: list[Row], kind: int = 1) -> TickArray:
    """Ticks of (ns after the start, price in steps of 0.25, size, side)."""
    ticks = new_ticks(len(rows))
    for index, (after_ns, steps, size, side) in enumerate(rows):
        ticks["event_time_ns"][index] = START_NS + after_ns
        ticks["price_e9"][index] = steps * STEP_E9
        ticks["size"][index] = size
        ticks["side"][index] = side
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["kind"] = kind
    ticks["flags"] = 3
    return ticks


@pytest.fixture
def make_ticks() -> MakeTicks:
    return _make_ticks
