"""Ticks for the store."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from minhos_mesh.history.domain.rows import Rows, joined
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.packing import Written, put_day
from minhos_mesh.history.parquet import DayFile
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.runtime.tick_layout import TickArray, TickFlag, TickKind, TradeSide, new_ticks

NS = 1_000_000_000
DAY_NS = 86_400 * NS
FIRST_NS = 20_000 * DAY_NS
"""Midnight of 2024-10-04."""
STEP_E9 = 250_000_000
SERIES = Series("SIMULATED", "NQZ24-CME")


def ticks_at(times_ns: list[int], first_price: int = 80_000, receive_ns: int | None = None) -> TickArray:
    """One trade at each time: the price rises by a step, sizes go round."""
    ticks = new_ticks(len(times_ns))
    for place, time_ns in enumerate(times_ns):
        ticks[place]["event_time_ns"] = time_ns
        ticks[place]["receive_time_ns"] = time_ns if receive_ns is None else receive_ns
        ticks[place]["price_e9"] = (first_price + place) * STEP_E9
        ticks[place]["size"] = place % 5 + 1
        ticks[place]["flags"] = TickFlag.HAS_PRICE | TickFlag.HAS_SIZE
        ticks[place]["kind"] = TickKind.TRADE
        ticks[place]["side"] = TradeSide.BUY if place % 2 else TradeSide.SELL
    return ticks


def put(places: HistoryPlaces, series: Series, day: date, rows: Rows) -> Written:
    """Rows of one generation into the file of a day."""
    written = Written()
    put_day(places, series, day, int(rows.epoch[0]), [rows], written)
    return written


def rows_of_day(path: Path) -> Rows:
    with DayFile(path) as file:
        return joined(list(file.rows()))


def ticks_every(step_ns: int, count: int, start_ns: int = FIRST_NS) -> TickArray:
    return ticks_at([start_ns + place * step_ns for place in range(count)])
