"""Which encoded messages are kept for the next reader, and for how long."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.domain.feed import Provenance, Source, SymbolFeed
from minhos_mesh.market_data.domain.reading import TickRange
from minhos_mesh.market_data.translate import KEPT_S, StreamEncoder
from minhos_mesh.runtime.tick_layout import TickArray

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
