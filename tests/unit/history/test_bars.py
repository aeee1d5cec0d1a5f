"""Bars are the same in one piece and in any pieces, and equal to counting trade by trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.runtime.bar_spans import BarSpan, Measure, SpanError, parse_span
from minhos_mesh.runtime.bars import Bar, BarBuilder, bars_of
from minhos_mesh.runtime.tick_layout import TickArray, TickFlag, TickKind, TradeSide, new_ticks
from minhos_mesh.runtime.trading_sessions import ALWAYS_OPEN, NS, ListedSessions, Session

EVENING, MORNING = 1_000 * NS, 5_000 * NS
SESSIONS = ListedSessions(
    [
        Session(date(2026, 1, 1), EVENING, 4_600 * NS),
        Session(date(2026, 1, 2), MORNING, 9_000 * NS),
        Session(date(2026, 1, 3), 9_000 * NS, 10_000 * NS),
    ]
)
TICKS = st.lists(
    st.tuples(
        st.integers(900, 10_200),
        st.integers(90_000, 90_040),
        st.integers(0, 7),
        st.sampled_from([TradeSide.BUY, TradeSide.SELL, TradeSide.UNSPECIFIED]),
        st.sampled_from([TickKind.TRADE, TickKind.TRADE, TickKind.TRADE, TickKind.QUOTE]),
    ),
    max_size=60,
)
SPANS = st.sampled_from(
    ["1s", "7s", "60s", "3000s", "3601s", "1d", "1t", "2t", "7t", "1000t", "1v", "3v", "10v", "1000v"]
).map(parse_span)
Row = tuple[int, int, int, TradeSide] | tuple[int, int, int, TradeSide, TickKind]
FIRST = 101
EPOCH = 7


def ticks_of(rows: Sequence[Row]) -> TickArray:
    ticks = new_ticks(len(rows))
    for place, row in enumerate(sorted(rows, key=lambda row: row[0])):
        second, price, size, side = row[:4]
        ticks[place]["event_time_ns"] = second * NS
        ticks[place]["price_e9"] = price * 250_000_000
        ticks[place]["size"] = size
        ticks[place]["flags"] = TickFlag.HAS_PRICE | (TickFlag.HAS_SIZE if size else 0)
        ticks[place]["kind"] = row[4] if len(row) > 4 else TickKind.TRADE
        ticks[place]["side"] = side
    return ticks


@dataclass
class Counted:
    """One bar as it is counted tick by tick, from the definition."""

    place: int
    number: int
    end_ns: int
    trades: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Sequence, price, size, side."""
    ticks: list[int] = field(default_factory=list)
    closing: int = 0

    def told(self, *, by_time: bool) -> tuple[object, ...]:
        prices = [price for _, price, _, _ in self.trades]
        numbers = self.ticks if by_time else [sequence for sequence, _, _, _ in self.trades]
        sides = [sum(size for _, _, size, side in self.trades if side == wanted) for wanted in (2, 1)]
        return (
            prices[0], max(prices), min(prices), prices[-1], sum(size for _, _, size, _ in self.trades), *sides,
            len(prices), self.trades[0][0], self.trades[-1][0], numbers[0], numbers[-1], self.closing,
        )  # fmt: skip


def counted(ticks: TickArray, span: BarSpan) -> tuple[list[Counted], int]:
    """All bars with a trade, the open one last, and the trades outside sessions."""
    bars: list[Counted] = []
    outside, full = 0, 0
    by_time = span.measure is Measure.SECONDS
    for index, tick in enumerate(ticks):
        time_ns, sequence, trade = int(tick["event_time_ns"]), FIRST + index, int(tick["kind"]) == 1
        if bars and not bars[-1].closing and time_ns >= bars[-1].end_ns:
            bars[-1].closing = sequence
        place = next((n for n in range(len(SESSIONS)) if SESSIONS[n].open_ns <= time_ns < SESSIONS[n].close_ns), None)
        if place is None:
            outside += trade
            continue
        if not by_time and not trade:
            continue
        session = SESSIONS[place]
        if not bars or bars[-1].place != place:
            full = 0
        if by_time:
            number = 0 if span.size == 86_400 else (time_ns - session.open_ns) // (span.size * NS)
            end_ns = session.close_ns if span.size == 86_400 else session.open_ns + (number + 1) * span.size * NS
        else:
            number, end_ns = full, session.close_ns
        if not bars or (bars[-1].place, bars[-1].number) != (place, number):
            bars.append(Counted(place, number, min(end_ns, session.close_ns)))
        bar = bars[-1]
        bar.ticks.append(sequence)
        if trade:
            bar.trades.append((sequence, int(tick["price_e9"]), int(tick["size"]), int(tick["side"])))
        held = {Measure.SECONDS: 0, Measure.TRADES: len(bar.trades), Measure.VOLUME: sum(t[2] for t in bar.trades)}
        if not by_time and held[span.measure] >= span.size:
            full, bar.closing = full + 1, sequence
    return [bar for bar in bars if bar.trades], outside


def told(bar: Bar) -> tuple[object, ...]:
    return (
        bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trades,
        bar.first_trade, bar.last_trade, bar.first_sequence, bar.last_sequence, bar.closing_sequence,
    )  # fmt: skip


@settings(max_examples=120)
@given(TICKS, SPANS)
def test_bars_equal_counting_tick_by_tick(rows: list[Row], span: BarSpan) -> None:
    ticks, builder = ticks_of(rows), BarBuilder(span, SESSIONS)
    expected, outside = counted(ticks, span)
    bars = builder.add(ticks, FIRST, EPOCH)
    assert all(bar.closed for bar in bars)
    bars += [] if builder.open_bar is None else [builder.open_bar]
    assert [told(bar) for bar in bars] == [bar.told(by_time=span.measure is Measure.SECONDS) for bar in expected]
    assert builder.outside == outside
    for bar in bars:
        session = SESSIONS[SESSIONS.place(bar.open_time_ns)]
        assert session.open_ns <= bar.open_time_ns <= bar.close_time_ns <= session.close_ns
        assert (bar.trading_day, bar.first_epoch, bar.last_epoch) == (session.day, EPOCH, EPOCH)


@settings(max_examples=120)
@given(TICKS, SPANS, st.data())
def test_pieces_of_any_size_and_a_new_builder_in_between_give_the_bars_of_the_whole(
    rows: list[Row], span: BarSpan, data: st.DataObject
) -> None:
    ticks = ticks_of(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ticks)), max_size=6)))
    resumed_at = data.draw(st.integers(0, len(cuts)))
    builder, made = BarBuilder(span, SESSIONS), list[Bar]()
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(ticks)], strict=True)):
        if number == resumed_at and builder.open_bar is not None:
            bar, builder = builder.open_bar, BarBuilder(span, SESSIONS)
            builder.resume(bar)
        if data.draw(st.booleans()):
            made += builder.add(ticks[begin:end], FIRST + begin, EPOCH)
        else:
            for index in range(begin, end):
                made += builder.add(ticks[index : index + 1], FIRST + index, EPOCH)
    whole = BarBuilder(span, SESSIONS)
    assert made == whole.add(ticks, FIRST, EPOCH)
    assert builder.open_bar == whole.open_bar


def test_a_span_without_a_trade_has_no_bar() -> None:
    buy = TradeSide.BUY
    bars = bars_of(ticks_of([(1_000, 4, 1, buy), (1_500, 5, 2, buy)]), parse_span("60s"), SESSIONS)
    assert [(bar.open_time_ns // NS, bar.volume) for bar in bars] == [(1_000, 1), (1_480, 2)]


def test_a_bar_ends_with_its_session() -> None:
    buy = TradeSide.BUY
    last, first = bars_of(ticks_of([(4_599, 4, 1, buy), (5_000, 5, 1, buy)]), parse_span("1h"), SESSIONS)
    assert (last.open_time_ns, last.close_time_ns) == (1_000 * NS, 4_600 * NS)
    assert (first.open_time_ns, first.trading_day) == (MORNING, date(2026, 1, 2))
    assert (last.closed, first.closed) == (True, False)


def test_a_trade_fills_a_volume_bar_and_is_never_split() -> None:
    rows = [(1_000 + n, 4, size, TradeSide.SELL) for n, size in enumerate((2, 9, 1, 3))]
    assert [bar.volume for bar in bars_of(ticks_of(rows), parse_span("4v"), SESSIONS)] == [11, 4]


def test_trades_while_the_market_is_closed_are_counted_and_in_no_bar() -> None:
    maker = BarBuilder(parse_span("1d"), SESSIONS)
    trades = ticks_of([(second, 4, 1, TradeSide.BUY) for second in (999, 1_000, 4_599, 4_600, 4_999, 10_000)])
    assert [bar.volume for bar in maker.add(trades, 1)] == [2]
    assert (maker.open_bar, maker.outside) == (None, 4)


def test_quotes_are_no_trades_and_a_trade_without_size_counts_as_a_trade() -> None:
    ticks = new_ticks(3)
    ticks["event_time_ns"], ticks["price_e9"] = 1_000 * NS, 5
    ticks["kind"] = [TickKind.TRADE, TickKind.QUOTE, TickKind.TRADE]
    ticks["size"], ticks["flags"] = 9, [TickFlag.HAS_PRICE, TickFlag.HAS_BID, TickFlag.HAS_PRICE | TickFlag.HAS_SIZE]
    (bar,) = bars_of(ticks, parse_span("1s"), SESSIONS)
    assert (bar.trades, bar.volume, bar.first_trade, bar.last_trade) == (2, 9, 1, 3)


def test_a_market_that_never_closes_has_sessions_of_utc_days() -> None:
    assert [ALWAYS_OPEN[n].day for n in range(3)] == [date(1970, 1, day) for day in (1, 2, 3)]
    times = np.array([0, 86_400 * NS - 1, 86_400 * NS, 3 * 86_400 * NS])
    assert ALWAYS_OPEN.places(times).tolist() == [0, 0, 1, 3] == [ALWAYS_OPEN.place(int(time)) for time in times]


def test_sessions_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        ListedSessions([Session(date(2026, 1, 1), 0, 10), Session(date(2026, 1, 2), 9, 20)])


@pytest.mark.parametrize("text", ["1s", "30s", "5m", "1h", "4h", "1d", "500t", "1000v"])
def test_a_span_reads_as_it_is_written(text: str) -> None:
    assert str(parse_span(text)) == text


@pytest.mark.parametrize("text", ["", "1", "0s", "2d", "25h", "5x", "-1s", "1.5m", "9999999999v"])
def test_a_span_that_no_bar_can_have_is_refused(text: str) -> None:
    with pytest.raises(SpanError):
        parse_span(text)


@pytest.mark.parametrize("text", ["1M", " 3 M ", "12M"])
def test_a_capital_m_is_refused_because_it_means_a_month_elsewhere(text: str) -> None:
    with pytest.raises(SpanError, match=r"a month elsewhere.*write 1s, 5m \(minutes\), 1h, 1d, 500t"):
        parse_span(text)
    assert [str(parse_span(other)) for other in ("1m", "1MIN", "1H", "1D", "500T", "9V")] == [
        "1m", "1m", "1h", "1d", "500t", "9v",
    ]  # fmt: skip
