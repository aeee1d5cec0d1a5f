"""Bars are the same in one piece and in any pieces, and equal to counting trade by trade."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.history.domain.bars import BarMaker, HistoryBar, Trades, bars_of
from minhos_mesh.history.domain.sessions import NS, Session, Sessions, always_open
from minhos_mesh.history.domain.spans import BarSpan, Measure, SpanError, parse_span
from minhos_mesh.runtime.tick_layout import TickFlag, TickKind, TradeSide, new_ticks

EVENING, MORNING = 1_000 * NS, 5_000 * NS
SESSIONS = Sessions(
    [
        Session(date(2026, 1, 1), EVENING, 4_600 * NS),
        Session(date(2026, 1, 2), MORNING, 9_000 * NS),
        Session(date(2026, 1, 3), 9_000 * NS, 10_000 * NS),
    ]
)
TRADES = st.lists(
    st.tuples(
        st.integers(900, 10_200),
        st.integers(90_000, 90_040),
        st.integers(0, 7),
        st.sampled_from([TradeSide.BUY, TradeSide.SELL, TradeSide.UNSPECIFIED]),
    ),
    max_size=60,
)
SPANS = st.sampled_from(
    ["1s", "7s", "60s", "3000s", "3601s", "1d", "1t", "2t", "7t", "1000t", "1v", "3v", "10v", "1000v"]
).map(parse_span)


def trades_of(rows: list[tuple[int, int, int, TradeSide]]) -> Trades:
    ticks = new_ticks(len(rows))
    for place, (second, price, size, side) in enumerate(sorted(rows, key=lambda row: row[0])):
        ticks[place]["event_time_ns"] = second * NS
        ticks[place]["price_e9"] = price * 250_000_000
        ticks[place]["size"] = size
        ticks[place]["flags"] = TickFlag.HAS_PRICE | (TickFlag.HAS_SIZE if size else 0)
        ticks[place]["kind"] = TickKind.TRADE
        ticks[place]["side"] = side
    return Trades.of(ticks, 7, 101)


@dataclass
class Counted:
    """One bar as it is counted trade by trade."""

    key: tuple[int, int]
    prices: list[int]
    volume: int
    sides: tuple[int, int]
    sequences: list[int]


def counted(trades: Trades, span: BarSpan) -> list[Counted]:
    bars: list[Counted] = []
    number = full = 0
    for index in range(len(trades)):
        time_ns, size = int(trades.time_ns[index]), int(trades.size[index])
        place = next((n for n in range(len(SESSIONS)) if SESSIONS[n].open_ns <= time_ns < SESSIONS[n].close_ns), None)
        if place is None:
            continue
        if not bars or bars[-1].key[0] != place:
            full = 0
        if span.measure is Measure.SECONDS:
            whole = span.size == 86_400
            number = 0 if whole else (time_ns - SESSIONS[place].open_ns) // (span.size * NS)
        else:
            number = full
        if not bars or bars[-1].key != (place, number):
            bars.append(Counted((place, number), [], 0, (0, 0), []))
        bar = bars[-1]
        bar.prices.append(int(trades.price_e9[index]))
        bar.volume += size
        bar.sides = (bar.sides[0] + int(trades.sold[index]), bar.sides[1] + int(trades.bought[index]))
        bar.sequences.append(int(trades.sequence[index]))
        reached = {Measure.SECONDS: 0, Measure.TRADES: len(bar.prices), Measure.VOLUME: bar.volume}[span.measure]
        full += span.measure is not Measure.SECONDS and reached >= span.size
    return bars


def as_counted(bar: HistoryBar) -> tuple[object, ...]:
    return (
        bar.number, bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume,
        bar.trades, bar.first_sequence, bar.last_sequence,
    )  # fmt: skip


@settings(max_examples=150)
@given(TRADES, SPANS)
def test_bars_equal_counting_trade_by_trade(rows: list[tuple[int, int, int, TradeSide]], span: BarSpan) -> None:
    trades = trades_of(rows)
    expected = [
        (
            bar.key[1], bar.prices[0], max(bar.prices), min(bar.prices), bar.prices[-1], bar.volume, *bar.sides,
            len(bar.prices), bar.sequences[0], bar.sequences[-1],
        )
        for bar in counted(trades, span)
    ]  # fmt: skip
    bars = bars_of(trades, span, SESSIONS)
    assert [as_counted(bar) for bar in bars] == expected
    assert all(bar.session.open_ns <= bar.open_time_ns <= bar.close_time_ns <= bar.session.close_ns for bar in bars)


@settings(max_examples=150)
@given(TRADES, SPANS, st.data())
def test_pieces_of_any_size_give_the_bars_of_the_whole(
    rows: list[tuple[int, int, int, TradeSide]], span: BarSpan, data: st.DataObject
) -> None:
    trades = trades_of(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trades)), max_size=6)))
    maker = BarMaker(span, SESSIONS)
    made: list[HistoryBar] = []
    for begin, end in zip([0, *cuts], [*cuts, len(trades)], strict=True):
        made.extend(maker.add(trades.part(slice(begin, end))))
    assert all(bar.closed for bar in made)
    whole = bars_of(trades, span, SESSIONS)
    assert [*made, *([maker.open_bar] if maker.open_bar else [])] == whole
    inside = SESSIONS.places(trades.time_ns) >= 0
    assert maker.outside == int((~inside).sum())
    assert sum(bar.volume for bar in whole) == int(trades.size[inside].sum())


def test_a_span_without_a_trade_has_no_bar() -> None:
    buy = TradeSide.BUY
    bars = bars_of(trades_of([(1_000, 4, 1, buy), (1_500, 5, 2, buy)]), parse_span("60s"), SESSIONS)
    assert [(bar.number, bar.volume) for bar in bars] == [(0, 1), (8, 2)]


def test_a_bar_ends_with_its_session() -> None:
    buy = TradeSide.BUY
    last, first = bars_of(trades_of([(4_599, 4, 1, buy), (5_000, 5, 1, buy)]), parse_span("1h"), SESSIONS)
    assert (last.open_time_ns, last.close_time_ns) == (1_000 * NS, 4_600 * NS)
    assert (first.open_time_ns, first.session.day) == (MORNING, date(2026, 1, 2))
    assert (last.closed, first.closed) == (True, False)


def test_a_trade_fills_a_volume_bar_and_is_never_split() -> None:
    rows = [(1_000 + n, 4, size, TradeSide.SELL) for n, size in enumerate((2, 9, 1, 3))]
    assert [bar.volume for bar in bars_of(trades_of(rows), parse_span("4v"), SESSIONS)] == [11, 4]


def test_trades_while_the_market_is_closed_are_counted_and_in_no_bar() -> None:
    maker = BarMaker(parse_span("1d"), SESSIONS)
    trades = trades_of([(second, 4, 1, TradeSide.BUY) for second in (999, 1_000, 4_599, 4_600, 4_999, 10_000)])
    assert [bar.volume for bar in maker.add(trades)] == []
    assert maker.open_bar is not None
    assert (maker.open_bar.volume, maker.outside) == (2, 4)


def test_quotes_are_no_trades_and_a_trade_without_size_counts_as_a_trade() -> None:
    ticks = new_ticks(3)
    ticks["event_time_ns"], ticks["price_e9"] = 1_000 * NS, 5
    ticks["kind"] = [TickKind.TRADE, TickKind.QUOTE, TickKind.TRADE]
    ticks["size"], ticks["flags"] = 9, [TickFlag.HAS_PRICE, TickFlag.HAS_BID, TickFlag.HAS_PRICE | TickFlag.HAS_SIZE]
    (bar,) = bars_of(Trades.of(ticks, 1, 1), parse_span("1s"), SESSIONS)
    assert (bar.trades, bar.volume, bar.first_sequence, bar.last_sequence) == (2, 9, 1, 3)


def test_a_market_that_never_closes_has_sessions_of_utc_days() -> None:
    sessions = always_open(0, 2 * 86_400 * NS)
    assert [sessions[n].day for n in range(len(sessions))] == [date(1970, 1, day) for day in (1, 2, 3)]
    assert (
        sessions.places(np.array([-1, 0, 86_400 * NS - 1, 86_400 * NS, 3 * 86_400 * NS])) == [-1, 0, 0, 1, -1]
    ).all()


def test_sessions_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        Sessions([Session(date(2026, 1, 1), 0, 10), Session(date(2026, 1, 2), 9, 20)])


@pytest.mark.parametrize("text", ["1s", "30s", "5m", "1h", "4h", "1d", "500t", "1000v"])
def test_a_span_reads_as_it_is_written(text: str) -> None:
    assert str(parse_span(text)) == text


@pytest.mark.parametrize("text", ["", "1", "0s", "2d", "25h", "5x", "-1s", "1.5m", "9999999999v"])
def test_a_span_that_no_bar_can_have_is_refused(text: str) -> None:
    with pytest.raises(SpanError):
        parse_span(text)
