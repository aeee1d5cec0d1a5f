from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.depth import Book, BookReason, DepthFeed, Level, reason_against
from minhos_mesh.market_data.domain.feed import Provenance, ProvenanceRefused, Source, SourceConflict, SymbolFeed
from minhos_mesh.market_data.domain.reading import DepthDue, SnapshotDue, SymbolReader, Wants

STEP = 250_000_000
SIMULATED = Source("depth", Provenance.SIMULATED, 3)


def book(sequence: int, bids: tuple[tuple[int, int], ...] = ((99, 5),), asks: tuple[tuple[int, int], ...] = ()) -> Book:
    """Levels of (price in steps, contracts)."""
    sides = [tuple(Level(steps * STEP, size) for steps, size in side) for side in (bids, asks)]
    return Book(sequence, 1, 2, sides[0], sides[1])


@pytest.mark.parametrize(
    ("bids", "asks", "reason"),
    [
        (((99, 5), (98, 7)), ((100, 1), (103, 2)), None),
        ((), (), None),
        (((99, 5),), (), None),
        (((99, 0),), (), BookReason.NON_POSITIVE),
        (((0, 5),), (), BookReason.NON_POSITIVE),
        (((98, 5), (99, 7)), (), BookReason.UNSORTED),
        (((99, 5), (99, 7)), (), BookReason.UNSORTED),
        ((), ((101, 1), (100, 1)), BookReason.UNSORTED),
        (((100, 5),), ((100, 1),), BookReason.CROSSED),
    ],
)
def test_a_book_is_refused_for_a_reason(
    bids: tuple[tuple[int, int], ...], asks: tuple[tuple[int, int], ...], reason: BookReason | None
) -> None:
    assert reason_against(book(1, bids, asks), STEP) is reason


def test_a_price_between_two_steps_is_refused() -> None:
    assert reason_against(Book(1, None, 1, (Level(STEP + 1, 1),), ()), STEP) is BookReason.OFF_TICK


def test_the_newest_book_counts_and_one_that_comes_again_changes_nothing() -> None:
    feed = DepthFeed("NQ", STEP)
    assert feed.open(SIMULATED) == 0
    assert feed.take(book(4))
    assert not feed.take(book(4, ((90, 1),)))
    assert not feed.take(book(5, ((100, 5),), ((100, 1),)))
    assert feed.book == book(4)
    assert (feed.taken, feed.rejected, feed.open(SIMULATED)) == (1, {BookReason.CROSSED: 1}, 5)


def test_another_generation_begins_anew_and_a_changed_provenance_needs_one() -> None:
    feed = DepthFeed("NQ", STEP)
    feed.open(SIMULATED)
    feed.take(book(9))
    with pytest.raises(ProvenanceRefused):
        feed.open(Source("depth", Provenance.LIVE, 3))
    with pytest.raises(SourceConflict):
        feed.open(Source("other", Provenance.SIMULATED, 3))
    assert feed.open(Source("depth", Provenance.LIVE, 4)) == 0
    assert (feed.book, feed.taken) == (None, 0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_reader_ends_with_the_newest_book_and_its_counters_say_what_was_passed_over(pauses: list[int]) -> None:
    feed = SymbolFeed("NQ", Rules(STEP))
    feed.depth.open(SIMULATED)
    feed.depth.take(book(1))
    reader = SymbolReader(feed, Wants(ticks=False, depth=True), None)
    (snapshot,) = reader.take()
    assert isinstance(snapshot, SnapshotDue)
    assert snapshot.depth
    told, numbers = [1], itertools.count(2)
    for pause in pauses:
        for _ in range(pause):
            feed.depth.take(book(next(numbers)))
        told += [piece.sequence for piece in reader.take() if isinstance(piece, DepthDue)]
    assert told == sorted(set(told))
    assert told[-1] == feed.depth.through
    assert reader.books_skipped == feed.depth.through - len(told)


def test_the_first_book_is_told_whenever_it_comes_and_a_new_generation_too() -> None:
    feed = SymbolFeed("NQ", Rules(STEP))
    reader = SymbolReader(feed, Wants(depth=True), None)
    assert [type(piece) for piece in reader.take()] == [SnapshotDue]
    feed.depth.open(SIMULATED)
    assert reader.take() == []
    feed.depth.take(book(7))
    assert reader.take() == [DepthDue(3, 7)]
    feed.depth.open(Source("depth", Provenance.SIMULATED, 8))
    feed.depth.take(book(2))
    assert reader.take() == [DepthDue(8, 2)]
    assert reader.books_skipped == 0
