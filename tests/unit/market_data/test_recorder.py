"""What is sequenced is recorded once, beside the ticks; what cannot be is told and never waited for without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from minhos_mesh.history.asking import days_held
from minhos_mesh.history.domain.series import Series
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.journal import JournalRun, JournalWriter, runs_of
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.market_data import recorder as recorders
from minhos_mesh.market_data.domain.feed import Provenance, Source, SymbolFeed
from minhos_mesh.market_data.history_workers import HistoryWorkers
from minhos_mesh.market_data.live_feed import LiveFeed
from minhos_mesh.market_data.recorder import NOT_RECORDED, Recorder
from minhos_mesh.market_data.recording import NOT_PACKED, pack
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

NQ = "NQZ26-CME"
SERIES = Series("SIMULATED", NQ)
WALL_NS = 1_790_000_000_000_000_000


def ticks_of(count: int, after: int = 0) -> TickArray:
    ticks, places = new_ticks(count), np.arange(after, after + count)
    ticks["event_time_ns"] = ticks["receive_time_ns"] = WALL_NS - 10**15 + places * 1_000_000
    ticks["price_e9"] = (places % 100 + 1) * 250_000_000
    ticks["size"], ticks["flags"], ticks["kind"] = 1, 3, 1
    return ticks


class Stream:
    """The stream of a source."""

    def fail(self, failure: Exception) -> None:
        raise AssertionError(failure)


class Bench:
    """One symbol with its recorder."""

    def __init__(self, root: Path, capacity: int = 2_048, provenances: tuple[str, ...] = ("SIMULATED",)) -> None:
        self.conditions = Conditions()
        self.recorder = Recorder(HistoryPlaces(root), provenances, self.conditions)
        feed = SymbolFeed(NQ, Rules(tick_e9=250_000_000), capacity)
        self.live = LiveFeed(feed, ManualClock(WALL_NS), replay_readers=0, grace_s=0, recording=self.recorder)
        self.owner = Stream()

    async def feed(self, count: int, after: int = 0, epoch: int = 7) -> None:
        if self.live.feed.source is None or self.live.feed.source.epoch != epoch:
            self.live.owner = None
            self.live.open(Source("walk", Provenance.SIMULATED, epoch), self.owner)
        for at in range(after, after + count, 1_500):
            await self.live.ingest(ticks_of(min(1_500, after + count - at), at), at + 1, self.owner)
        self.recorder.flush(self.live.feed)
        await self.recorder.written()

    def runs(self) -> list[tuple[int, int, int]]:
        def told(run: JournalRun) -> tuple[int, int, int]:
            expected = ticks_of(len(run.ticks), run.first_sequence - 1)
            assert (run.ticks["event_time_ns"] == expected["event_time_ns"]).all()
            return run.epoch, run.first_sequence, run.last_sequence

        return [told(run) for run in runs_of(self.recorder.places, SERIES)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.recorder.close()


@pytest.mark.parametrize("count", [1, 511, 1_500, 20_000])
async def test_every_tick_is_recorded_however_small_the_memory_is(bench: Bench, count: int) -> None:
    await bench.feed(count)
    assert bench.runs() == [(7, 1, count)]
    assert bench.recorder.waiting == 0


async def test_a_new_generation_begins_a_new_run_and_loses_nothing_of_the_former(bench: Bench) -> None:
    bench.live.open(Source("walk", Provenance.SIMULATED, 7), bench.owner)
    await bench.live.ingest(ticks_of(100), 1, bench.owner)
    await bench.feed(50, epoch=8)
    assert bench.runs() == [(7, 1, 100), (8, 1, 50)]


async def test_what_a_source_sends_again_after_a_restart_is_recorded_once(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    await before.feed(3_000)
    before.recorder.close()
    again = Bench(tmp_path)
    await again.feed(5_000)
    assert again.runs() == [(7, 1, 3_000), (7, 3_001, 5_000)]
    again.recorder.close()


async def test_runs_that_are_sealed_go_on_in_a_new_file(bench: Bench) -> None:
    assert not await bench.recorder.seal()
    await bench.feed(1_000)
    assert await bench.recorder.seal()
    await bench.feed(1_000, after=1_000)
    assert bench.runs() == [(7, 1, 1_000), (7, 1_001, 2_000)]


async def test_packing_while_ticks_come_empties_the_journal_and_loses_none(bench: Bench, tmp_path: Path) -> None:
    workers = HistoryWorkers(tmp_path)
    try:
        for after in (0, 1_000, 2_000):
            await bench.feed(1_000, after=after)
            await pack(bench.recorder, workers, keep_days=0)
            assert bench.runs() == []
            (held,) = days_held(bench.recorder.places)
            assert (held.ticks, len(held.runs)) == (after + 1_000, 1)
        again = Bench(tmp_path)
        await again.feed(3_100)
        assert again.runs() == [(7, 3_001, 3_100)]
        again.recorder.close()
    finally:
        await workers.close()


async def test_only_what_is_wanted_is_recorded(tmp_path: Path) -> None:
    made = Bench(tmp_path, provenances=("LIVE", "DELAYED"))
    await made.feed(1_000)
    assert made.runs() == []
    made.recorder.close()


async def test_a_disk_that_refuses_is_a_condition_and_stops_no_tick(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("no folder", encoding="utf-8")
    made = Bench(tmp_path / "history")
    await made.feed(3_000)
    await asyncio.sleep(0)
    assert made.live.feed.sequence == 3_000
    assert str(tmp_path / "history") in made.conditions.held()[NOT_RECORDED]
    (tmp_path / "history").unlink()
    await made.feed(500, after=3_000)
    await asyncio.sleep(0)
    assert made.conditions.held() == {}
    assert made.runs() == [(7, 3_001, 3_500)]
    made.recorder.close()


async def test_a_slow_disk_holds_a_source_back_for_a_while_and_then_leaves_out_what_is_too_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "MOST_WAITING", 100_000)
    monkeypatch.setattr(recorders, "HELD_BACK_S", 0.01)
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    stuck = loop.run_in_executor(
        bench.recorder._thread, lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
    )
    feeding = asyncio.ensure_future(bench.feed(20_000))
    async with asyncio.timeout(10):
        while bench.live.feed.sequence < 20_000:
            await asyncio.sleep(0.001)
    assert bench.recorder.waiting < 400_000
    gate.set()
    await stuck
    await feeding
    kept = sum(last - first + 1 for _, first, last in bench.runs())
    assert 1_000 < kept < 20_000
    await bench.feed(500, after=20_000)
    assert bench.runs()[-1] == (7, 20_001, 20_500)


async def test_a_broken_day_is_a_condition_that_names_its_file_and_stops_no_other_series(
    bench: Bench, tmp_path: Path
) -> None:
    workers, places = HistoryWorkers(tmp_path), bench.recorder.places
    other = Series("SIMULATED", "ESZ26-CME")
    try:
        await bench.feed(1_000)
        await pack(bench.recorder, workers, keep_days=0)
        assert not bench.conditions.held()
        (path,) = (places.day(SERIES, day) for day in places.days(SERIES))
        whole = path.read_bytes()
        path.write_bytes(whole[:-50])
        await bench.feed(1_000, after=1_000)
        writer = JournalWriter.create(places, other, 7, 1)  # comes behind it in the order of packing, or before
        writer.append(ticks_of(10).tobytes())
        writer.seal()
        for _ in range(2):
            await pack(bench.recorder, workers, keep_days=0)
            assert list(bench.conditions.held()) == [NOT_PACKED]
            assert str(path) in bench.conditions.held()[NOT_PACKED]
            assert runs_of(places, other) == []
            assert bench.runs() == [(7, 1_001, 2_000)]
        path.write_bytes(whole)
        await pack(bench.recorder, workers, keep_days=0)
        assert not bench.conditions.held()
        assert bench.runs() == []
    finally:
        await workers.close()
