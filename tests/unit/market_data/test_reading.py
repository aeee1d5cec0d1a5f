from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.bar_lines import MINUTES
from minhos_mesh.market_data.domain.feed import LARGE, Provenance, Source, SymbolFeed
from minhos_mesh.market_data.domain.reading import (
    CHUNK_TICKS,
    EpochBegan,
    LosslessRefused,
    Missed,
    Piece,
    Position,
    PositionLost,
    QuoteDue,
    SnapshotDue,
    SymbolReader,
    TickRange,
    Wants,
)
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

WALL = 1_700_000_000_000_000_000
MakeTicks = Callable[..., TickArray]


def _ticks(count: int, after: int = 0, apart_ns: int = 1_000_000) -> TickArray:
    ticks = new_ticks(count)
    ticks["event_time_ns"] = ticks["receive_time_ns"] = WALL + (np.arange(count) + after) * apart_ns
    ticks["price_e9"], ticks["size"], ticks["flags"], ticks["kind"] = 1_000_000_000, 1, 3, 1
    return ticks


def _feed(
    count: int = 0, capacity: int = 16_384, provenance: Provenance = Provenance.SIMULATED, epoch: int = 7
) -> SymbolFeed:
    feed = SymbolFeed("NQZ26-CME", Rules(250_000_000), capacity)
    feed.open(Source(f"walk {epoch}", provenance, epoch))
    _grow(feed, count)
    return feed


def _grow(feed: SymbolFeed, count: int, apart_ns: int = 1_000_000) -> None:
    while count > 0:
        step = min(count, feed.ring.capacity)
        feed.ingest(_ticks(step, feed.position, apart_ns), feed.position + 1, WALL + 10**15)
        count -= step


def _all(reader: SymbolReader) -> list[Piece]:
    pieces: list[Piece] = []
    while more := reader.take():
        pieces += more
    return pieces


def test_a_new_reader_gets_a_snapshot_and_then_only_what_comes_after() -> None:
    feed = _feed(5)
    reader = SymbolReader(feed, Wants(bars_back=3), None)
    assert reader.position == Position(7, 5)
    assert _all(reader) == [SnapshotDue(3)]
    _grow(feed, 2)
    assert _all(reader) == [TickRange(7, 6, 7)]
    assert _all(reader) == []


def test_a_reader_that_came_before_the_first_tick_gets_all_of_them() -> None:
    feed = _feed()
    reader = SymbolReader(feed, Wants(), None)
    assert reader.position is None
    assert _all(reader) == [SnapshotDue(0)]
    _grow(feed, 3)
    assert _all(reader) == [TickRange(7, 1, 3)]


def test_resume_goes_on_behind_the_position_without_a_snapshot() -> None:
    feed = _feed(9)
    assert _all(SymbolReader(feed, Wants(), Position(7, 4))) == [TickRange(7, 5, 9)]
    assert _all(SymbolReader(feed, Wants(), Position(0, 0))) == [TickRange(7, 1, 9)]


def test_resume_ahead_of_a_source_that_is_catching_up_waits_and_repeats_nothing() -> None:
    feed = _feed()
    reader = SymbolReader(feed, Wants(bars=True), Position(7, 100))
    assert reader.position == Position(7, 100)
    for _ in range(50):
        _grow(feed, 2, 10_000_000_000)
        assert _all(reader) == []
    _grow(feed, 3, 10_000_000_000)
    pieces = _all(reader)
    assert pieces[0] == TickRange(7, 101, 103)
    assert all(isinstance(piece, Bar) and piece.last_sequence >= 100 for piece in pieces[1:])


def test_resume_after_a_position_that_is_gone_names_the_oldest_held() -> None:
    feed = _feed(40, capacity=16)
    with pytest.raises(PositionLost, match="oldest held is 25; take a snapshot, or resume after 24"):
        SymbolReader(feed, Wants(), Position(7, 23))
    assert _all(SymbolReader(feed, Wants(), Position(7, 24))) == [TickRange(7, 25, 40)]


def test_a_reader_that_falls_out_of_the_ring_is_told_the_exact_range() -> None:
    feed = _feed(0, capacity=8)
    reader = SymbolReader(feed, Wants(), None)
    _all(reader)
    _grow(feed, 3)
    assert _all(reader) == [TickRange(7, 1, 3)]
    _grow(feed, 8)
    _grow(feed, 5)
    assert _all(reader) == [Missed(7, 4, 8), TickRange(7, 9, 16)]
    assert (reader.sent, reader.missed) == (11, 5)


def test_a_reader_far_behind_goes_on_with_the_newest() -> None:
    feed = _feed(0, capacity=3 * CHUNK_TICKS)
    reader = SymbolReader(feed, Wants(), None)
    _all(reader)
    _grow(feed, 4 * CHUNK_TICKS)
    assert _all(reader) == [Missed(7, 1, 3 * CHUNK_TICKS), TickRange(7, 3 * CHUNK_TICKS + 1, 4 * CHUNK_TICKS)]


def test_readers_that_are_behind_come_to_want_the_same_ranges() -> None:
    feed = _feed(2 * CHUNK_TICKS + 5, capacity=4 * CHUNK_TICKS)
    one = _all(SymbolReader(feed, Wants(), Position(7, 10)))
    two = _all(SymbolReader(feed, Wants(), Position(7, 2000)))
    newest = 2 * CHUNK_TICKS + 5
    assert one[1:] == [TickRange(7, CHUNK_TICKS + 1, newest - 5), TickRange(7, newest - 4, newest)]
    assert two[1:] == one[1:]


def test_a_reader_that_is_behind_gets_large_batches_as_they_came() -> None:
    feed = _feed(100, capacity=8 * CHUNK_TICKS)
    sizes = [CHUNK_TICKS, LARGE, 3, CHUNK_TICKS + 9, CHUNK_TICKS]
    ends = list(itertools.accumulate(sizes, initial=100))
    for size in sizes:
        _grow(feed, size)
    behind = [one for one in _all(SymbolReader(feed, Wants(), Position(7, 10))) if isinstance(one, TickRange)]
    assert behind[:3] == [TickRange(7, 11, 100), TickRange(7, 101, ends[1]), TickRange(7, ends[1] + 1, ends[2])]
    assert behind[-1] == TickRange(7, ends[-2] + 1, ends[-1])
    assert [one.first for one in behind[1:]] == [one.last + 1 for one in behind[:-1]], "nothing twice, nothing left out"
    assert all(one.last - one.first < CHUNK_TICKS for one in behind)
    later = _all(SymbolReader(feed, Wants(), Position(7, 5_000)))
    assert later[1:] == behind[2:], "who stands within one goes on at its end"


def test_another_epoch_is_told_and_read_from_its_beginning() -> None:
    feed = _feed(5)
    reader = SymbolReader(feed, Wants(), None)
    _all(reader)
    feed.open(Source("next file", Provenance.SIMULATED, 8))
    assert _all(reader) == []
    _grow(feed, 4)
    assert _all(reader) == [EpochBegan(8, Provenance.SIMULATED), TickRange(8, 1, 4)]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Position(7, 41), "sequence 41 of NQZ26-CME is ahead of the newest: held are 25 to 40"),
        (Position(0, 49_999_999), "ahead of the newest"),
        (Position(1, 30), "epoch 1 of NQZ26-CME is not the one that is current: held are 25 to 40 of 7"),
        (Position(7, 23), "after sequence 23 are no longer held: the oldest held is 25"),
    ],
)
@pytest.mark.parametrize("wants", [Wants(), Wants(bars=True)])
def test_resume_after_a_position_that_is_not_held_is_lost(asked: Position, says: str, wants: Wants) -> None:
    feed = _feed(40, capacity=16)
    with pytest.raises(PositionLost, match=says) as raised:
        SymbolReader(feed, wants, asked)
    assert (raised.value.epoch, raised.value.oldest, raised.value.newest) == (7, 25, 40)
    assert _all(SymbolReader(feed, wants, Position(7, 40))) == []


@pytest.mark.parametrize("wants", [Wants(ticks=False, quotes=True), Wants(ticks=False, bars=True)])
def test_a_reader_without_ticks_cannot_resume_ahead_or_in_another_epoch_either(wants: Wants) -> None:
    feed = _feed(40, capacity=16)
    for asked in (Position(7, 41), Position(6, 3)):
        with pytest.raises(PositionLost):
            SymbolReader(feed, wants, asked)
    SymbolReader(feed, wants, Position(7, 3))


def test_resume_while_nothing_is_held_waits_and_is_told_of_another_epoch() -> None:
    feed = _feed()
    reader = SymbolReader(feed, Wants(), Position(6, 5))
    assert _all(reader) == []
    _grow(feed, 4)
    assert _all(reader) == [EpochBegan(7, Provenance.SIMULATED), TickRange(7, 1, 4)]


def test_only_a_replay_can_be_held_back() -> None:
    with pytest.raises(LosslessRefused, match="SIMULATED: only REPLAY"):
        SymbolReader(_feed(1), Wants(lossless=True), None)
    feed = SymbolFeed("NQZ26-CME", Rules(250_000_000))
    early = SymbolReader(feed, Wants(lossless=True), Position(0, 0))
    feed.open(Source("live", Provenance.LIVE, 9))
    feed.ingest(_ticks(1), 1, WALL)
    with pytest.raises(LosslessRefused):
        early.take()


def test_a_lossless_reader_needs_what_it_has_not_read_or_not_finished() -> None:
    feed = _feed(5, provenance=Provenance.REPLAY)
    reader = SymbolReader(feed, Wants(lossless=True), Position(0, 0))
    assert reader.held_through == 0
    _all(reader)
    assert reader.held_through == 5
    reader.progress(Position(7, 2))
    assert reader.held_through == 2
    reader.progress(Position(6, 5))
    assert reader.held_through == 2


def test_a_bar_follows_the_batch_with_the_tick_that_closed_it() -> None:
    feed = _feed(0)
    reader = SymbolReader(feed, Wants(bars=True), None)
    _all(reader)
    _grow(feed, 7, 20_000_000_000)
    pieces = _all(reader)
    bars = [piece for piece in pieces if isinstance(piece, Bar)]
    assert pieces[0] == TickRange(7, 1, 7)
    assert [bar.last_sequence for bar in bars] == [bar.last_sequence for bar in feed.lines[MINUTES].bars]
    assert len(bars) == 2


def test_quotes_are_conflated_to_the_newest() -> None:
    feed = _feed(2)
    reader = SymbolReader(feed, Wants(ticks=False, quotes=True), None)
    assert _all(reader) == [SnapshotDue(0)]
    _grow(feed, 1)
    _grow(feed, 1)
    assert _all(reader) == [QuoteDue(4)]
    assert _all(reader) == []


@given(steps=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40), start=st.integers(0, 3))
def test_every_tick_is_given_or_told_as_missed_exactly_once(steps: list[tuple[int, bool]], start: int) -> None:
    feed = _feed(start, capacity=16)
    reader = SymbolReader(feed, Wants(bars=True), Position(7 if start else 0, start))
    expected, seen_bars = start + 1, 0
    for count, reads in [*steps, (0, True)]:
        _grow(feed, count, 15_000_000_000)
        for piece in _all(reader) if reads else []:
            if isinstance(piece, TickRange | Missed):
                assert piece.first == expected
                expected = piece.last + 1
            elif isinstance(piece, Bar):
                assert piece.last_sequence + 1 < expected
                seen_bars += 1
    assert expected == feed.sequence + 1
    assert seen_bars == feed.bars_closed
