"""Bars of real trades equal what pandas makes of the same file by other means, to the unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minhos_mesh.history.calendars import sessions_over
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import BarBuilder, bars_of
from minhos_mesh.runtime.tick_layout import TickArray
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, Sessions
from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.ticks import tick_columns

TICK_E9 = 250_000_000
GOOD_FRIDAY = "2021-04-02"
"""Globex traded in the morning of that holiday; to the calendar it was closed, so these trades are in no bar."""
COLUMNS = ["open", "high", "low", "close", "volume", "sold", "bought", "trades"]


@pytest.fixture(scope="module")
def trades(sample: Path) -> TickArray:
    return as_ticks(tick_columns(read_scid(sample), TICK_E9), None)


@pytest.fixture(scope="module")
def sessions(trades: TickArray) -> Sessions:
    return sessions_over("CME", int(trades["event_time_ns"][0]), int(trades["event_time_ns"][-1]))


@pytest.fixture(scope="module")
def frame(sample: Path) -> Any:
    """The file read by pandas alone: times, prices in quarter points, volumes."""
    pandas = pytest.importorskip("pandas")
    layout = [("t", "<i8"), *((name, "<f4") for name in "ohlc"), *((name, "<u4") for name in ("n", "v", "b", "a"))]
    raw = np.frombuffer(sample.read_bytes()[56:], np.dtype(layout))
    frame = pandas.DataFrame(
        {
            "time": pandas.Timestamp("1899-12-30", tz="UTC") + pandas.to_timedelta(raw["t"], unit="us"),
            "price": (raw["c"].astype(np.float64) * 4).astype(np.int64),
            "volume": raw["v"].astype(np.int64),
            "sold": raw["b"].astype(np.int64),
            "bought": raw["a"].astype(np.int64),
        }
    )
    chicago = frame["time"].dt.tz_convert("America/Chicago")
    frame["day"] = (chicago.dt.tz_localize(None) + pandas.Timedelta(hours=7)).dt.floor("D")
    return frame


@pytest.fixture(scope="module")
def in_sessions(frame: Any) -> Any:
    return frame[frame["day"] != GOOD_FRIDAY]


def summed(frame: Any, keys: list[Any]) -> list[list[int]]:
    table = frame.groupby(keys, sort=False).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"), close=("price", "last"),
        volume=("volume", "sum"), sold=("sold", "sum"), bought=("bought", "sum"), trades=("price", "size"),
    )  # fmt: skip
    return [[int(value) for value in row] for row in table[COLUMNS].to_numpy()]


def made(trades: TickArray, span: str, sessions: Sessions) -> list[list[int]]:
    bars = bars_of(trades, parse_span(span), sessions)
    assert not any(price % TICK_E9 for bar in bars for price in (bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9))
    return [
        [
            *(price // TICK_E9 for price in (bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9)),
            bar.volume, bar.bid_volume, bar.ask_volume, bar.trades,
        ]
        for bar in bars
    ]  # fmt: skip


@pytest.mark.parametrize("span", ["1s", "15s", "1m", "5m", "30m", "1h", "4h"])
def test_bars_by_time_equal_pandas(trades: TickArray, sessions: Sessions, in_sessions: Any, span: str) -> None:
    chicago = in_sessions["time"].dt.tz_convert("America/Chicago").dt.tz_localize(None)
    from_open = chicago - in_sessions["day"] + np.timedelta64(7, "h")
    seconds = parse_span(span).size
    assert made(trades, span, sessions) == summed(
        in_sessions, [in_sessions["day"], from_open // np.timedelta64(seconds, "s")]
    )


def test_a_day_of_bars_equals_pandas_by_trading_day(trades: TickArray, sessions: Sessions, in_sessions: Any) -> None:
    assert made(trades, "1d", sessions) == summed(in_sessions, [in_sessions["day"]])
    assert len(made(trades, "1d", sessions)) == in_sessions["day"].nunique()


@pytest.mark.parametrize("count", [1, 100, 1_597])
def test_bars_by_trades_equal_pandas(trades: TickArray, sessions: Sessions, in_sessions: Any, count: int) -> None:
    number = in_sessions.groupby("day").cumcount() // count
    assert made(trades, f"{count}t", sessions) == summed(in_sessions, [in_sessions["day"], number])


@pytest.mark.parametrize("volume", [10, 500])
def test_bars_by_volume_equal_pandas(trades: TickArray, sessions: Sessions, in_sessions: Any, volume: int) -> None:
    numbers, number, held, day = [], 0, 0, None
    for row in in_sessions.itertuples():
        if row.day != day:
            day, number, held = row.day, 0, 0
        numbers.append(number)
        held += row.volume
        if held >= volume:
            number, held = number + 1, 0
    assert made(trades, f"{volume}v", sessions) == summed(in_sessions, [in_sessions["day"], numbers])


def test_calendar_days_equal_pandas_where_the_market_never_closes(trades: TickArray, frame: Any) -> None:
    assert made(trades, "1d", ALWAYS_OPEN) == summed(frame, [frame["time"].dt.floor("D")])


def test_every_trade_is_in_a_bar_or_counted_as_outside_the_sessions(
    trades: TickArray, sessions: Sessions, in_sessions: Any
) -> None:
    maker = BarBuilder(parse_span("1m"), sessions)
    bars = maker.add(trades, 1)
    assert maker.open_bar is not None
    assert maker.outside == 172
    assert sum(bar.trades for bar in (*bars, maker.open_bar)) == 48_737 - 172 == len(in_sessions)
    whole = bars_of(trades, parse_span("1m"), ALWAYS_OPEN)
    assert (sum(bar.trades for bar in whole), sum(bar.volume for bar in whole)) == (48_737, 79_040)
