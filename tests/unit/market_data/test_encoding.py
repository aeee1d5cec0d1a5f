"""Which encoded messages are kept for the next reader, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.feed import Ingested, Provenance, Source, SymbolFeed
from minhos_mesh.market_data.domain.reading import TickRange
from minhos_mesh.market_data.translate import KEPT_S, StreamEncoder
from minhos_mesh.runtime.tick_layout import TickArray, wire_of
from minhos_mesh.runtime.ticks import TickBatchView, batch_in_field, message_or_batch

MakeTicks = Callable[..., TickArray]


def test_a_batch_is_encoded_once_for_readers_in_step_and_not_kept_after(make_ticks: MakeTicks) -> None:
    feed = SymbolFeed("NQZ26-CME", Rules(250_000_000), 1_024)
    feed.open(Source("walk", Provenance.SIMULATED, 7))
    ticks = make_ticks([(index, 4, 1, 1) for index in range(100)])
    feed.ingest(ticks, 1, int(ticks["event_time_ns"][-1]))
    now = [0.0]
    encoder = StreamEncoder(lambda: now[0])
    large, small = TickRange(7, 1, 90), TickRange(7, 91, 100)
    first = encoder.piece(feed, large)
    encoder.piece(feed, small)
    assert encoder.piece(feed, large) is first
    now[0] = KEPT_S + 0.1
    encoder.piece(feed, TickRange(7, 95, 100))
    assert encoder.piece(feed, large) == first
    assert encoder.batches_encoded == 4


def came(feed: SymbolFeed, ticks: TickArray, position: int) -> tuple[bytes, TickBatchView, Ingested]:
    """A message of a source, as it is read, and what became of it."""
    message = batch_in_field(1, feed.symbol, int(Provenance.SIMULATED), 7, position, wire_of(ticks))
    read = message_or_batch(1, lambda _: pytest.fail("it is a batch"))
    read(message)  # from then on batches that begin in the same way are read without a copy
    batch = read(message)
    return message, batch, feed.ingest(batch.ticks, position, int(ticks["event_time_ns"][-1]))


@pytest.mark.parametrize("count", [1, 2, 16, 17, 100])
def test_a_batch_goes_in_the_bytes_in_which_it_came(make_ticks: MakeTicks, count: int) -> None:
    feed, encoder = SymbolFeed("NQZ26-CME", Rules(250_000_000), 1_024), StreamEncoder(lambda: 0.0)
    feed.open(Source("walk", Provenance.SIMULATED, 7))
    ticks = make_ticks([(index, 4, 1, 1) for index in range(count)])
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    message, batch, taken = came(feed, ticks, 1)
    assert taken.as_given
    encoder.came(feed, batch)
    assert encoder.piece(feed, TickRange(7, 1, count)) is message
    assert encoder.batches_encoded == 0
    assert message == StreamEncoder(lambda: 0.0).piece(feed, TickRange(7, 1, count)), "it is what would be written anew"


def test_a_tick_that_came_alone_goes_in_its_bytes_with_its_time_of_receipt(make_ticks: MakeTicks) -> None:
    feed, encoder = SymbolFeed("NQZ26-CME", Rules(250_000_000), 1_024), StreamEncoder(lambda: 0.0)
    feed.open(Source("walk", Provenance.SIMULATED, 7))
    ticks = make_ticks([(index, 4, 1, 1) for index in range(2)])
    ticks["receive_time_ns"] = 0
    came(feed, ticks[:1], 1)
    message = batch_in_field(1, feed.symbol, int(Provenance.SIMULATED), 7, 2, wire_of(ticks[1:]))
    read = message_or_batch(1, lambda _: pytest.fail("it is a batch"))
    read(message)
    batch = read(message)
    assert batch.row is not None
    now_ns = int(ticks["event_time_ns"][1]) + 5
    taken = feed.ingest_one(batch.row, batch.wire, now_ns)
    assert not taken.as_given
    encoder.came(feed, batch, taken.stamped)
    given = encoder.piece(feed, TickRange(7, 2, 2))
    assert encoder.batches_encoded == 0
    assert given == StreamEncoder(lambda: 0.0).piece(feed, TickRange(7, 2, 2)), "it is what would be written anew"
    assert [tick.receive_time_ns for tick in read(given).objects()] == [now_ns]


@pytest.mark.parametrize("count", [1, 2, 16, 17, 100])
def test_a_batch_that_was_changed_is_not_given_as_it_came(make_ticks: MakeTicks, count: int) -> None:
    feed = SymbolFeed("NQZ26-CME", Rules(250_000_000), 1_024)
    feed.open(Source("walk", Provenance.SIMULATED, 7))
    ticks = make_ticks([(index, 4, 1, 1) for index in range(count)])
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["receive_time_ns"][-1] = 0
    assert not came(feed, ticks, 1)[2].as_given, "one was stamped"
    ticks["receive_time_ns"] = ticks["event_time_ns"] = int(ticks["event_time_ns"][-1])
    ticks["price_e9"][-1] = -1
    assert not came(feed, ticks, count + 1)[2].as_given, "one was refused"
    ticks["price_e9"][-1] = ticks["price_e9"][0] if count > 1 else 250_000_000
    assert not came(feed, ticks, 2 * count)[2].as_given, "one was known"
    assert feed.sequence == 3 * count - 2
