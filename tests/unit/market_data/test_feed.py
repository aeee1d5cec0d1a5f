from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.bar_lines import MINUTES
from minhos_mesh.market_data.domain.feed import (
    PositionMismatch,
    Provenance,
    ProvenanceRefused,
    Source,
    SourceConflict,
    SymbolFeed,
)
from minhos_mesh.market_data.domain.ring import TickRing
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks, tick_objects

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "MNQU21-CME.scid"
RULES = Rules(tick_e9=250_000_000)
WALL = 1_700_000_000_000_000_000
MakeTicks = Callable[..., TickArray]
SIMULATED = Source("walk", Provenance.SIMULATED, 7)


def _feed(source: Source = SIMULATED, capacity: int = 1024) -> SymbolFeed:
    feed = SymbolFeed("NQZ26-CME", RULES, capacity)
    feed.open(source)
    return feed


def test_read_equals_sequenced_plus_rejected_and_sequences_have_no_hole(make_ticks: MakeTicks) -> None:
    feed = _feed()
    ticks = make_ticks([(0, 4, 1, 1), (5, 4, 0, 1), (6, 5, 1, 2), (1, 5, 1, 1), (9, 6, 3, 1)])
    done = feed.ingest(ticks, 1, WALL)
    assert (done.first_sequence, done.last_sequence) == (1, 3)
    assert feed.read == 5 == feed.sequence + sum(feed.rejected.values())
    assert feed.rejected == {"ZERO_SIZE": 1, "OUT_OF_ORDER": 1}
    assert [tick.price_e9 for view in feed.ring.views(1, 3) for tick in tick_objects(view, 1)] == [
        1_000_000_000,
        1_250_000_000,
        1_500_000_000,
    ]


def test_last_values_come_from_the_newest_tick_that_carries_them_and_are_absent_before(make_ticks: MakeTicks) -> None:
    feed = _feed()
    quote = make_ticks([(0, 1, 0, 0)], kind=2)
    quote["flags"], quote["bid_e9"], quote["bid_size"] = 4 | 16, 1_000_000_000, 3
    feed.ingest(quote, 1, WALL)
    assert (feed.last.bid_e9, feed.last.bid_size, feed.last.ask_e9, feed.last.last_price_e9) == (
        1_000_000_000,
        3,
        None,
        None,
    )
    feed.ingest(make_ticks([(1, 4, 2, 1), (2, 5, 1, 1), (3, 6, 4, 1)]), 2, WALL)
    assert (feed.last.last_price_e9, feed.last.last_size, feed.last.volume) == (1_500_000_000, 4, 7)
    assert (feed.last.bid_e9, feed.last.sequence) == (1_000_000_000, 4)


@given(
    prices=st.lists(st.tuples(st.integers(-1, 9), st.integers(0, 3)), min_size=1, max_size=40),
    cuts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=20),
)
def test_the_same_source_gives_the_same_sequences_after_a_restart_however_it_is_cut(
    prices: list[tuple[int, int]], cuts: list[tuple[int, int]]
) -> None:
    ticks = new_ticks(len(prices))
    ticks["event_time_ns"] = WALL + np.arange(len(prices))
    ticks["price_e9"] = [price * 250_000_000 for price, _ in prices]
    ticks["size"] = [size for _, size in prices]
    ticks["flags"], ticks["kind"] = 3, 1
    whole = _feed()
    whole.ingest(ticks, 1, WALL)
    cut = _feed()
    for back, more in [*cuts, (3, len(ticks))]:
        start = max(0, cut.position - back)
        cut.ingest(ticks[start : cut.position + more], start + 1, WALL)
    assert cut.epoch == whole.epoch
    assert (cut.read, cut.rejected, cut.sequence) == (whole.read, whole.rejected, whole.sequence)
    assert cut.last == whole.last
    assert cut.open_bar == whole.open_bar
    if whole.sequence:
        assert cut.ring.wire(1, cut.sequence) == whole.ring.wire(1, whole.sequence)


def test_records_in_between_that_never_came_are_a_mismatch(make_ticks: MakeTicks) -> None:
    feed = _feed()
    feed.ingest(make_ticks([(0, 4, 1, 1)]), 1, WALL)
    with pytest.raises(PositionMismatch, match="is 3: allowed is at most 2"):
        feed.ingest(make_ticks([(0, 4, 1, 1)]), 3, WALL)
    assert feed.position == 1


def test_another_epoch_begins_anew_and_the_same_one_goes_on(make_ticks: MakeTicks) -> None:
    feed = _feed()
    feed.ingest(make_ticks([(0, 4, 1, 1), (1, 5, 1, 1)]), 1, WALL)
    assert feed.open(SIMULATED) == 2
    assert feed.open(Source("walk", Provenance.SIMULATED, 8)) == 0
    assert (feed.sequence, feed.read, feed.epoch, feed.last.last_price_e9) == (0, 0, None, None)


def test_a_source_that_does_not_begin_with_its_first_record_has_an_epoch_of_its_own(make_ticks: MakeTicks) -> None:
    epochs = set()
    for base in (1, 11, 12):
        feed = _feed()
        feed.ingest(make_ticks([(0, 4, 1, 1)]), base, WALL)
        assert (feed.sequence, feed.position, feed.read) == (1, base, 1)
        epochs.add(feed.epoch)
    assert 7 in epochs
    assert len(epochs) == 3


def test_provenance_cannot_change_within_an_epoch() -> None:
    with pytest.raises(ProvenanceRefused, match="SIMULATED and now says LIVE"):
        _feed().open(Source("walk", Provenance.LIVE, 7))


def test_two_sources_cannot_share_an_epoch() -> None:
    with pytest.raises(SourceConflict, match=r"fed by walk \(epoch 7\): other \(epoch 7\) needs an epoch of its own"):
        _feed().open(Source("other", Provenance.SIMULATED, 7))


@given(batches=st.lists(st.integers(1, 16), max_size=30))
def test_ring_holds_exactly_the_newest_ticks_and_never_grows(batches: list[int]) -> None:
    ring, sequence = TickRing(16), 0
    for count in batches:
        ticks = new_ticks(count)
        ticks["price_e9"] = np.arange(sequence + 1, sequence + count + 1)
        sequence += count
        ring.append(ticks)
    assert (ring.newest, ring.oldest) == (sequence, max(1, sequence - 15))
    if sequence:
        held = [int(price) for view in ring.views(ring.oldest, ring.newest) for price in view["price_e9"]]
        assert held == list(range(ring.oldest, ring.newest + 1))
    with pytest.raises(IndexError):
        ring.wire(ring.oldest - 1, ring.newest)


def test_real_trades_are_all_counted_and_their_bars_hold_their_volume() -> None:
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not there")
    fields = [("time", "<i8"), *[(name, "<f4") for name in ("o", "ask", "bid", "price")]]
    fields += [(name, "<u4") for name in ("n", "volume", "bid_volume", "ask_volume")]
    records = np.fromfile(SAMPLE, np.dtype(fields), offset=56)
    ticks = new_ticks(len(records))
    ticks["event_time_ns"] = (records["time"] - 2_209_161_600_000_000) * 1000
    for name, column in (("price_e9", "price"), ("bid_e9", "bid"), ("ask_e9", "ask")):
        ticks[name] = (records[column].astype(np.float64) * 1e9).astype(np.int64)
    ticks["size"], ticks["flags"], ticks["kind"] = records["volume"], 15, 1
    ticks["side"] = np.where(records["ask_volume"] > 0, 1, 2)
    feed = _feed(Source("file", Provenance.REPLAY, 1), 65_536)
    feed.ingest(ticks, 1, WALL)
    assert (feed.read, feed.sequence, feed.rejected) == (48_737, 48_736, {"NON_POSITIVE_PRICE": 1})
    assert feed.open_bar is not None
    bars = [*feed.lines[MINUTES].newest(feed.bars_closed), feed.open_bar]
    assert sum(bar.volume for bar in bars) == feed.last.volume
    assert sum(bar.trades for bar in bars) == feed.sequence
    assert all(one.last_sequence + 1 == two.first_sequence for one, two in itertools.pairwise(bars))


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("provenance", Provenance)
def test_a_record_of_a_wrong_year_holds_up_none_behind_it(
    make_ticks: MakeTicks, count: int, provenance: Provenance
) -> None:
    feed = _feed(Source("file", provenance, 1))
    ticks = make_ticks([(n, 4, 1, 1) for n in range(40)])
    now_ns = int(ticks["event_time_ns"][-1])
    ticks["event_time_ns"][7] += 5 * 365 * 86_400_000_000_000
    for at in range(0, 40, count):
        feed.ingest(ticks[at : at + count], at + 1, now_ns)
    assert (feed.sequence, feed.rejected) == (39, {"FUTURE": 1})


@pytest.mark.parametrize("count", [1, 4, 40])
def test_a_record_without_a_time_of_receipt_gets_one(make_ticks: MakeTicks, count: int) -> None:
    for source, expected in ((SIMULATED, WALL), (Source("file", Provenance.REPLAY, 7), WALL + 5)):
        feed = _feed(source)
        feed.ingest(make_ticks([(0, 4, 1, 1)]), 1, WALL)
        ticks = make_ticks([(5, 4, 1, 1)] * count)
        ticks["receive_time_ns"] = 0
        feed.ingest(ticks, 2, WALL)
        (view,) = feed.ring.views(2, 1 + count)
        assert view["receive_time_ns"].tolist() == [expected] * count
