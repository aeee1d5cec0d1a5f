from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

START_NS = 1_790_000_040_000_000_000
"""The begin of a minute."""
TICK_E9 = 250_000_000
MINUTE_NS = 60_000_000_000

Walk = Callable[..., TickArray]


def made(times_ns: list[int], prices: list[int], sizes: list[int] | None = None) -> TickArray:
    """Trades at nanoseconds after the start and prices in ticks, with the quote around them."""
    ticks = new_ticks(len(times_ns))
    ticks["event_time_ns"] = START_NS + np.array(times_ns, np.int64)
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = np.array(prices, np.int64) * TICK_E9
    ticks["bid_e9"], ticks["ask_e9"] = ticks["price_e9"] - TICK_E9, ticks["price_e9"]
    ticks["size"] = 1 if sizes is None else np.array(sizes)
    ticks["flags"], ticks["kind"], ticks["side"] = 15, 1, 1
    return ticks


def walked(count: int, seed: int = 1, gap_ns: int = 2_000_000_000, drift: float = 0.0) -> TickArray:
    """A seeded walk around 94,000 ticks of price."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.integers(1, 2 * gap_ns, count))
    prices = 94_000 + np.rint(np.cumsum(random.normal(drift, 3.0, count))).astype(np.int64)
    return made(times.tolist(), prices.tolist(), random.integers(1, 9, count).tolist())


@pytest.fixture
def walk() -> Walk:
    return walked


@pytest.fixture
def make() -> Walk:
    return made
