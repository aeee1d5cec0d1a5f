"""What is told of a file that another one takes the place of, and how much is read of one that is seen first."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.unit.sierra_client.test_feed import SYMBOL, Running, started, times

from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.sierra_client.domain import FeedState, Provenance, history_begins_ns
from minhos_mesh.sierra_client.service import ClientSettings
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, HEADER_SIZE, RECORD_SIZE, Records
from minhos_mesh.sierra_files.writer import ScidWriter

if TYPE_CHECKING:
    from tests.unit.sierra_client.conftest import FakeMarketData

Made = Callable[..., Records]
Eventually = Callable[..., Awaitable[None]]
HOUR_NS = 3_600 * 10**9


@pytest.fixture
async def running(tmp_path: Path, store: SourceStore, market: FakeMarketData) -> AsyncIterator[Running]:
    settings = ClientSettings(tmp_path / "sierra", (SYMBOL,), poll_s=0.005)
    async with started(Running(settings, store, market)) as found:
        yield found


@pytest.fixture
def path(running: Running) -> Path:
    return running.path


def truncate(path: Path, made: Made) -> None:
    os.truncate(path, HEADER_SIZE + 4 * RECORD_SIZE)


def rewrite(path: Path, made: Made) -> None:
    with path.open("r+b") as file:
        file.seek(HEADER_SIZE)
        file.write(made(12, 500).tobytes())


def put_another_there(path: Path, made: Made) -> None:
    ScidWriter.create(path.with_suffix(".new"), made(7, 100)).close()
    path.with_suffix(".new").replace(path)


def delete_and_make(path: Path, made: Made) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (truncate, "was truncated: it holds 4 records, 12 were read"),
        (rewrite, "was rewritten: record 11 is another one now"),
        (put_another_there, "was replaced by another file"),
        (delete_and_make, "was deleted"),
    ],
)
async def test_why_a_generation_took_the_place_of_another_is_logged_once_and_told(
    running: Running, path: Path, made: Made, eventually: Eventually, change: Callable[[Path, Made], None], told: str
) -> None:
    with capture_logs() as logs:
        ScidWriter.create(path, made(12)).close()
        await eventually(lambda: running.feed.state is FeedState.TAILING)
        first = running.feed
        assert first.generation_reason == ""
        change(path, made)
        if change is delete_and_make:
            await eventually(lambda: running.feed.state is FeedState.WAITING_FOR_FILE)
            ScidWriter.create(path, made(5)).close()
        await eventually(lambda: running.feed.epoch > first.epoch and running.feed.state is FeedState.TAILING)
    assert running.feed.generation_reason == f"{path} {told}"
    (ended,) = [line for line in logs if line["event"] == "feed.generation_ended"]
    assert (ended["symbol"], ended["file"], ended["epoch"]) == (SYMBOL, path.name, first.epoch)
    assert ended["reason"] == f"{path} {told}"
    followed = [(line["epoch"], line["reason"]) for line in logs if line["event"] == "feed.following"]
    assert followed == [(first.epoch, ""), (running.feed.epoch, f"{path} {told}")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put_another_there, "was replaced by another file while it was not read"),
        (rewrite, "was rewritten from its first record on while it was not read"),
    ],
)
async def test_file_that_changed_while_nobody_read_it_is_told_with_its_reason(
    running: Running, path: Path, made: Made, eventually: Eventually, change: Callable[[Path, Made], None], told: str
) -> None:
    ScidWriter.create(path, made(12)).close()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    await running.stop()
    change(path, made)
    with capture_logs() as logs:
        await running.start()
        await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert running.feed.generation_reason == f"{path} {told}"
    assert [line["reason"] for line in logs if line["event"] == "feed.following"] == [f"{path} {told}"]


async def test_same_generation_after_a_restart_has_no_reason(
    running: Running, path: Path, made: Made, eventually: Eventually
) -> None:
    ScidWriter.create(path, made(12)).close()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    await running.stop()
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert running.feed.generation_reason == ""


async def test_real_file_that_was_not_written_for_days_gives_the_hours_before_its_newest_record(
    running: Running, path: Path, market: FakeMarketData, eventually: Eventually, made: Made
) -> None:
    await running.stop()
    records = made(100)
    newest_ns = SystemClock().wall_ns() - 70 * HOUR_NS
    records["time_us"] = EPOCH_SHIFT_US + (newest_ns - np.arange(99, -1, -1) * HOUR_NS) // 1000
    running.settings = replace(running.settings, provenance=Provenance.DELAYED, history_hours=48.0)
    ScidWriter.create(path, records).close()
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert market.newest == times(records[-49:])
    assert running.feed.event_time_ns == times(records)[-1], "its age is that of its records"


async def test_without_history_only_what_is_written_from_now_on_is_read(
    running: Running, path: Path, market: FakeMarketData, eventually: Eventually, made: Made
) -> None:
    await running.stop()
    old, new = made(5), made(1)
    for records, age_s in ((old, 3600), (new, -60)):
        records["time_us"] = EPOCH_SHIFT_US + SystemClock().wall_ns() // 1000 - age_s * 10**6 + np.arange(len(records))
    running.settings = replace(running.settings, provenance=Provenance.DELAYED, history_hours=0.0)
    writer = ScidWriter.create(path, old)
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert market.newest == []
    writer.append(new)
    await eventually(lambda: market.newest == times(new))
    writer.close()


TIMES = st.integers(0, 2**60)


@given(TIMES, st.none() | TIMES, st.integers(0, 2**50))
@settings(max_examples=30)
def test_history_never_begins_later_than_before_now_and_always_reaches_the_newest_record(
    now_ns: int, newest_ns: int | None, history_ns: int
) -> None:
    begins = history_begins_ns(now_ns, newest_ns, history_ns)
    assert begins <= now_ns - history_ns
    if newest_ns is not None and history_ns:
        assert begins < newest_ns
        assert begins == min(now_ns, newest_ns) - history_ns
