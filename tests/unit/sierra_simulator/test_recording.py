"""Recordings that are played again and with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records
from minhos_mesh.sierra_simulator.domain.feeds import ReplayFeed, SpeedRefused
from minhos_mesh.sierra_simulator.domain.gaps import Gap, outside
from minhos_mesh.sierra_simulator.domain.recording import WEEK_US, Recording, RecordingRefused

NOW_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000


def made(count: int, step_us: int = SECOND) -> Records:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_600_000_000_000_000 + np.arange(count) * step_us
    records["close"] = 100 + np.arange(count)
    records["num_trades"] = 1
    return records


def whole(recording: Recording, count: int) -> Records:
    found: list[Records] = []
    at = 0
    while at < count:
        part = recording.read(at, count - at)
        if not len(part):
            break
        found.append(part)
        at += len(part)
    return np.concatenate(found)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 2 * WEEK_US))
def test_passes_follow_each_other_whole_weeks_later(count: int, passes: int, step_us: int) -> None:
    source = made(count, step_us)
    found = whole(Recording(source, passes=passes), 1000)
    assert len(found) == count * passes == Recording(source, passes=passes).total
    assert (np.diff(found["time_us"]) > 0).all()
    for number in range(passes):
        part = found[number * count : (number + 1) * count]
        shift = part["time_us"] - source["time_us"]
        assert (shift == shift[0]).all()
        assert shift[0] % WEEK_US == 0
        assert part["close"].tobytes() == source["close"].tobytes()


def test_once_is_the_recording_byte_for_byte() -> None:
    assert whole(Recording(made(100)), 100).tobytes() == made(100).tobytes()


@given(
    st.lists(st.integers(0, 10_000), max_size=60),
    st.integers(0, 5_000),
    st.integers(1, 900),
    st.none() | st.integers(901, 3_000),
)
def test_nothing_is_kept_of_a_gap_and_all_of_the_rest(
    times: list[int], after: int, length: int, every: int | None
) -> None:
    kept = outside([Gap(after, length, every)], np.array(times, np.int64))
    for time, stays in zip(times, kept.tolist(), strict=True):
        into = time - after
        within = into >= 0 and (into if every is None else into % every) < length
        assert stays is not within


def test_gaps_of_a_recording_are_left_out_in_every_pass() -> None:
    recording = Recording(
        made(100), passes=2, gaps=[Gap(10 * SECOND, 5 * SECOND), Gap(50 * SECOND, 10 * SECOND, 20 * SECOND)]
    )
    found = whole(recording, 1000)
    left = set(range(10, 15)) | set(range(50, 60)) | set(range(70, 80)) | set(range(90, 100))
    prices = [100 + at for at in range(100) if at not in left]
    assert found["close"].tolist() == prices * 2
    assert (recording.left_out, recording.total) == (len(left), 2 * len(prices))


def test_what_cannot_be_played_so_is_refused() -> None:
    with pytest.raises(RecordingRefused, match="all of its 10 records fall into the gaps"):
        Recording(made(10), gaps=[Gap(0, 60 * SECOND)])
    old = made(10)
    old["time_us"] = np.linspace(44_000.0, 44_001.0, 10).view("<i8")
    assert Recording(old).total == 10
    for values in ({"passes": 2}, {"gaps": [Gap(0, 1)]}):
        with pytest.raises(RecordingRefused, match="can be played once, without gaps"):
            Recording(old, **values)


def test_the_next_pass_begins_at_once_however_far_its_times_are() -> None:
    feed, now = ReplayFeed(Recording(made(10), passes=3), 1.0, 0, NOW_NS), NOW_NS
    written = 0
    for _ in range(200):
        written += len(feed.due(now))
        due = feed.next_due_ns(now)
        if due is None:
            break
        now = max(now + 1, due)
    assert written == 30
    assert now - NOW_NS == pytest.approx(27 * 10**9, rel=0.01), "nine seconds for each pass and nothing between"


def test_a_recording_without_end_needs_a_pace() -> None:
    with pytest.raises(SpeedRefused, match="played for ever"):
        ReplayFeed(Recording(made(10), passes=0), 0.0, 0, NOW_NS)
    feed = ReplayFeed(Recording(made(10), passes=0), 1_000_000.0, 0, NOW_NS)
    assert feed.total is None
    now, written = NOW_NS, 0
    while written < 1000:
        written += len(feed.due(now))
        due = feed.next_due_ns(now)
        assert due is not None
        now = max(now + 1, due)


def test_a_feed_that_is_set_back_goes_on_from_there() -> None:
    feed = ReplayFeed(Recording(made(10)), 0.0, 0, NOW_NS)
    assert len(feed.due(NOW_NS)) == 10
    assert feed.next_due_ns(NOW_NS) is None
    feed.seek(4, NOW_NS)
    assert feed.due(NOW_NS).tobytes() == made(10)[4:].tobytes()
