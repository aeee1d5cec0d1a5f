from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records
from minhos_mesh.sierra_simulator.domain.feeds import CHUNK, RandomWalkFeed, ReplayFeed, SpeedRefused
from minhos_mesh.sierra_simulator.domain.recording import Recording
from minhos_mesh.sierra_simulator.domain.regimes import RegimeSchedule
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkSettings, WalkState

NOW_US = 1_790_000_000_000_000
NOW_NS = NOW_US * 1000
SECOND = 1_000_000_000


def walking(rate: float = 10.0) -> RandomWalkFeed:
    schedule = RegimeSchedule((1,), NOW_US - 10**9, NOW_US)
    market = RandomWalk(WalkSettings(1, 250_000_000, 23_500 * 10**9), schedule)
    return RandomWalkFeed(market, WalkState(NOW_US, NOW_US, 94_000.0), rate)


def recording(count: int, gap_us: int = 1_000_000) -> Records:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_600_000_000_000_000 + np.arange(count) * gap_us
    records["close"] = 100 + np.arange(count) % 50
    return records


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=40))
@settings(max_examples=25)
def test_walk_is_the_same_however_often_it_is_asked(waits_ms: list[int]) -> None:
    often, once = walking(), walking()
    now = NOW_NS
    pieces = []
    for wait in waits_ms:
        now += wait * 1_000_000
        pieces.append(often.due(now))
    joined = np.concatenate(pieces)
    assert joined.tobytes() == once.due(now).tobytes()
    assert not len(joined) or int(joined["time_us"][-1]) - EPOCH_SHIFT_US <= now // 1000 + 11


def test_walk_has_about_its_rate() -> None:
    feed = walking(10.0)
    count = len(feed.due(NOW_NS + 300 * SECOND))
    assert 2_700 < count < 3_700


def test_walk_says_when_the_next_trade_is_due() -> None:
    feed, now = walking(), NOW_NS
    for _ in range(50):
        due = feed.next_due_ns(now)
        assert due is not None
        assert due >= now
        assert len(feed.due(due - 1000)) == 0
        assert len(feed.due(due)) >= 1
        now = due


def test_backlog_comes_in_chunks_without_loss() -> None:
    feed, whole = walking(1000.0), walking(1000.0)
    now = NOW_NS + 20 * SECOND
    pieces = []
    while len(found := feed.due(now)):
        assert len(found) <= CHUNK
        pieces.append(found)
    assert len(pieces) > 3
    half = whole.due(now - 10 * SECOND), whole.due(now - 10 * SECOND)
    assert np.concatenate(pieces)[: len(half[0])].tobytes() == half[0].tobytes()


def test_other_rate_counts_from_now_and_times_go_on_rising() -> None:
    feed = walking(1.0)
    before = feed.due(NOW_NS + 30 * SECOND)
    feed.set_speed(200.0, NOW_NS + 30 * SECOND)
    after = feed.due(NOW_NS + 40 * SECOND)
    assert 1_700 < len(after) < 2_600
    times = np.concatenate([before["time_us"], after["time_us"]])
    assert (np.diff(times) > 0).all()


def test_paused_walk_does_not_make_up_for_the_pause() -> None:
    feed = walking()
    feed.due(NOW_NS + 10 * SECOND)
    feed.resume(NOW_NS + 100 * SECOND)
    found = feed.due(NOW_NS + 101 * SECOND)
    assert 0 < len(found) < 40
    assert int(found["time_us"][0]) - EPOCH_SHIFT_US >= NOW_US + 100_000_000 - 1000


@pytest.mark.parametrize("rate", [0.0, 0.05, 10_001.0, -1.0, float("nan")])
def test_rate_outside_of_what_is_allowed_is_refused(rate: float) -> None:
    feed = walking()
    with pytest.raises(SpeedRefused, match="a random walk has 0.1 to 10000 ticks a second"):
        feed.set_speed(rate, NOW_NS)
    assert feed.speed == 10.0


def test_replay_at_full_speed_writes_the_recording_bit_for_bit() -> None:
    source = recording(3 * CHUNK + 5)
    feed = ReplayFeed(Recording(source), 0.0, 0, NOW_NS)
    pieces = []
    while feed.next_due_ns(NOW_NS) is not None:
        pieces.append(feed.due(NOW_NS))
    assert [len(piece) for piece in pieces] == [CHUNK, CHUNK, CHUNK, 5]
    assert np.concatenate(pieces).tobytes() == source.tobytes()
    assert feed.total == len(source)


def test_replay_at_a_speed_keeps_the_distances() -> None:
    feed = ReplayFeed(Recording(recording(100)), 10.0, 0, NOW_NS)
    assert len(feed.due(NOW_NS)) == 1
    assert feed.next_due_ns(NOW_NS) == NOW_NS + SECOND // 10 + 1
    assert len(feed.due(NOW_NS + SECOND)) == 10
    feed.set_speed(1.0, NOW_NS + SECOND)
    assert len(feed.due(NOW_NS + 3 * SECOND)) == 3
    feed.resume(NOW_NS + 60 * SECOND)
    assert len(feed.due(NOW_NS + 61 * SECOND)) == 2


def test_replay_goes_on_at_an_index_and_ends() -> None:
    source = recording(10)
    feed = ReplayFeed(Recording(source), 0.0, 7, NOW_NS)
    assert feed.due(NOW_NS).tobytes() == source[7:].tobytes()
    assert feed.next_due_ns(NOW_NS) is None
    assert len(feed.due(NOW_NS)) == 0
    with pytest.raises(SpeedRefused, match="as fast as it can be"):
        feed.set_speed(-1.0, NOW_NS)
