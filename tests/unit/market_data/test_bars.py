from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.runtime.bars import MINUTE_NS, Bar, BarBuilder
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

START_NS = 1_700_000_000_000_000_000

TICKS = st.lists(
    st.tuples(
        st.integers(0, 90_000_000_000),  # ns since the tick before
        st.integers(1, 400),  # price in steps
        st.integers(0, 50),  # size
        st.integers(0, 3),  # side, one of them not known here
        st.sampled_from([1, 1, 1, 2]),  # kind
        st.booleans(),  # has a size
    ),
    max_size=60,
)


@dataclass
class _Slow:
    """Bars told one tick after the other, from the definition."""

    done: list[Bar] = field(default_factory=list)
    minute: int | None = None
    trades: list[tuple[int, int, int]] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    traded: list[int] = field(default_factory=list)

    def bar(self, closing: int = 0) -> Bar | None:
        if not self.trades or self.minute is None:
            return None
        prices = [price for price, _, _ in self.trades]
        day = datetime.fromtimestamp(self.minute * 60, UTC).date()
        return Bar(
            open_time_ns=self.minute * MINUTE_NS,
            close_time_ns=(self.minute + 1) * MINUTE_NS,
            trading_day=day,
            first_trade=self.traded[0],
            last_trade=self.traded[-1],
            closing_sequence=closing,
            closed=closing > 0,
            open_e9=prices[0],
            high_e9=max(prices),
            low_e9=min(prices),
            close_e9=prices[-1],
            volume=sum(size for _, size, _ in self.trades),
            bid_volume=sum(size for _, size, side in self.trades if side == 2),
            ask_volume=sum(size for _, size, side in self.trades if side == 1),
            trades=len(self.trades),
            first_sequence=self.sequences[0],
            last_sequence=self.sequences[-1],
        )

    def tick(self, sequence: int, time_ns: int, trade: tuple[int, int, int] | None) -> None:
        if time_ns // MINUTE_NS != self.minute:
            finished = self.bar(sequence)
            if finished is not None:
                self.done.append(finished)
            self.minute, self.trades, self.sequences, self.traded = time_ns // MINUTE_NS, [], [], []
        self.sequences.append(sequence)
        if trade is not None:
            self.trades.append(trade)
            self.traded.append(sequence)


def _array(rows: list[tuple[int, int, int, int, int, bool]]) -> TickArray:
    ticks, now = new_ticks(len(rows)), START_NS
    for index, (later, price, size, side, kind, has_size) in enumerate(rows):
        now += later
        ticks["event_time_ns"][index] = now
        ticks["price_e9"][index], ticks["size"][index], ticks["side"][index] = price, size, side
        ticks["kind"][index] = kind
        ticks["flags"][index] = (1 if kind == 1 else 4) | (2 if has_size else 0)
    return ticks


@given(rows=TICKS, cuts=st.lists(st.integers(1, 9), max_size=60))
def test_bars_equal_an_independent_computation_however_the_ticks_are_cut(
    rows: list[tuple[int, int, int, int, int, bool]], cuts: list[int]
) -> None:
    ticks, slow, builder = _array(rows), _Slow(), BarBuilder()
    for index, tick in enumerate(ticks):
        size = int(tick["size"]) if tick["flags"] & 2 else 0
        trade = (int(tick["price_e9"]), size, int(tick["side"])) if tick["kind"] == 1 else None
        slow.tick(index + 1, int(tick["event_time_ns"]), trade)
    closed: list[Bar] = []
    at = 0
    for cut in [*cuts, len(ticks)]:
        closed += builder.add(ticks[at : at + cut], at + 1)
        at += len(ticks[at : at + cut])
    assert closed == slow.done
    assert builder.open_bar == slow.bar()


def test_a_quote_of_the_next_minute_closes_the_bar() -> None:
    builder = BarBuilder()
    assert builder.add(_array([(0, 4, 1, 1, 1, True)]), 1) == []
    closed = builder.add(_array([(60_000_000_000, 4, 1, 1, 2, True)]), 2)
    assert [(bar.last_sequence, bar.trades) for bar in closed] == [(1, 1)]
    assert builder.open_bar is None


def test_prices_are_summed_without_floats_at_the_largest_size() -> None:
    ticks = _array([(0, 10**7, 2**32 - 1, 1, 1, True)] * 5)
    builder = BarBuilder()
    builder.add(ticks, 1)
    assert builder.open_bar is not None
    assert builder.open_bar.volume == builder.open_bar.ask_volume == 5 * (2**32 - 1)
