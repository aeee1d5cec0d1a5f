from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.symbols import current_contract, date_of_ns
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_files.header import ScidError, write_header
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records
from minhos_mesh.sierra_files.marker import read_marker
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.ticks import tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind
from minhos_mesh.sierra_simulator.output import open_output
from minhos_mesh.sierra_simulator.service import Activity, SierraSimulator, SimulatorFailed
from minhos_mesh.sierra_simulator.settings import SettingsRefused, SimulatorSettings

NOW_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


def recording(folder: Path, count: int, name: str = "MNQU21-CME.scid") -> Path:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_600_000_000_000_000 + np.arange(count) * 1_000_000
    records["close"] = 100
    records["num_trades"] = 1
    path = folder / name
    ScidWriter.create(path, records).close()
    return path


@pytest.fixture
def settings(tmp_path: Path) -> SimulatorSettings:
    return SimulatorSettings(tmp_path / "sierra", history_s=7200, run_id="a")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


class Running:
    def __init__(self) -> None:
        self.clock = ManualClock(NOW_NS)
        self.problems: list[str] = []
        self.tasks = OwnedTasks()

    async def start(self, settings: SimulatorSettings) -> SierraSimulator:
        self.simulator = SierraSimulator(settings, clock=self.clock, tasks=self.tasks, on_problem=self.problems.append)
        await self.simulator.start()
        return self.simulator

    def advance(self, seconds: float) -> None:
        """Moves the clock and lets the writer look at it now."""
        self.clock.advance(seconds)
        for writer in self.simulator._writers:
            writer.wake()

    async def kill(self) -> None:
        await self.tasks.close()
        self.simulator.close()
        self.tasks = OwnedTasks()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    found = Running()
    yield found
    await found.tasks.close()


def written(simulator: SierraSimulator) -> Records:
    path = simulator.status().file
    assert path is not None
    return read_scid(path)


async def test_random_walk_begins_with_history_of_the_current_contract(
    running: Running, settings: SimulatorSettings
) -> None:
    simulator = await running.start(settings)
    status = simulator.status()
    assert status.symbol == str(current_contract("NQ", "CME", date_of_ns(NOW_NS)))
    times = tick_columns(written(simulator), 250_000_000).time_ns
    assert 3_300 < len(times) < 4_200
    assert times[0] >= NOW_NS - 7200 * SECOND
    assert times[-1] <= NOW_NS
    assert read_marker(settings.folder) is not None
    assert (status.activity, status.records_total, status.seed) == (Activity.RUNNING, None, 1)


async def test_live_trades_follow_the_clock_without_a_gap_in_order(
    running: Running, settings: SimulatorSettings
) -> None:
    simulator = await running.start(settings)
    history = simulator.status().records_written
    for _ in range(3):
        running.advance(10)
        await asyncio.sleep(0.002)
    await until(lambda: simulator.status().records_written > history + 200)
    times = tick_columns(written(simulator), 250_000_000).time_ns
    assert (np.diff(times) > 0).all()
    assert running.clock.wall_ns() - SECOND < times[-1] <= running.clock.wall_ns() + 20_000
    assert simulator.status().event_time_ns == times[-1]


async def test_pause_and_resume_change_nothing_twice(running: Running, settings: SimulatorSettings) -> None:
    simulator = await running.start(settings)
    simulator.pause()
    simulator.pause()
    before = simulator.status().records_written
    running.clock.advance(100)
    await asyncio.sleep(0.01)
    assert simulator.status().activity is Activity.PAUSED
    assert simulator.status().records_written == before
    simulator.resume()
    simulator.resume()
    assert simulator.status().activity is Activity.RUNNING
    running.advance(10)
    await until(lambda: simulator.status().records_written > before + 60)
    assert simulator.status().records_written < before + 160
    simulator.set_speed(11.0)
    assert simulator.status().speed == 11.0


async def test_killed_random_walk_goes_on_in_the_same_file(running: Running, settings: SimulatorSettings) -> None:
    simulator = await running.start(settings)
    path = simulator.status().file
    assert path is not None
    first, inode = read_scid(path), path.stat().st_ino
    await running.kill()
    with path.open("ab") as torn:
        torn.write(b"half a record")
    running.clock.advance(3)
    simulator = await running.start(settings)
    running.clock.advance(20)
    await until(lambda: simulator.status().records_written > len(first))
    after = read_scid(path)
    assert path.stat().st_ino == inode
    assert after[: len(first)].tobytes() == first.tobytes()
    assert (np.diff(after["time_us"]) > 0).all()
    assert abs(float(after["close"][len(first)]) - float(first["close"][-1])) < 20


@pytest.mark.parametrize("run_id", ["a", "b"])
@pytest.mark.parametrize("pause_s", [1, 40, 7000])
async def test_random_walk_goes_on_in_another_run_and_fills_the_pause(
    running: Running, settings: SimulatorSettings, run_id: str, pause_s: int
) -> None:
    simulator = await running.start(settings)
    path = simulator.status().file
    assert path is not None
    first, inode = read_scid(path), path.stat().st_ino
    await running.kill()
    running.clock.advance(pause_s)
    simulator = await running.start(replace(settings, run_id=run_id))
    filled = len(read_scid(path)) - len(first)
    assert pause_s / 2 * 0.8 - 8 < filled < pause_s / 2 * 1.3 + 8
    running.advance(30)
    await until(lambda: simulator.status().records_written > len(first) + filled + 100)
    after = read_scid(path)
    assert path.stat().st_ino == inode
    assert after[: len(first)].tobytes() == first.tobytes()
    times = after["time_us"][len(first) - 1 :]
    assert (np.diff(times) > 0).all()
    assert int(np.diff(times).max()) < 40_000_000
    assert float(np.abs(np.diff(after["close"][len(first) - 1 :])).max()) < 20


async def test_pause_longer_than_the_history_begins_a_new_file_at_the_last_price(
    running: Running, settings: SimulatorSettings
) -> None:
    simulator = await running.start(replace(settings, start_price_e9=30_000 * 10**9))
    path = simulator.status().file
    assert path is not None
    first, inode = read_scid(path), path.stat().st_ino
    await running.kill()
    running.clock.advance(settings.history_s + 60)
    await running.start(settings)
    after = read_scid(path)
    assert path.stat().st_ino != inode
    assert float(first["close"][-1]) > 28_000
    assert abs(float(after["close"][0]) - float(first["close"][-1])) < 20
    times = tick_columns(after, 250_000_000).time_ns
    assert (np.diff(times) > 0).all()
    assert running.clock.wall_ns() - settings.history_s * SECOND <= times[0]
    assert times[-1] > running.clock.wall_ns() - 60 * SECOND


async def test_same_pause_is_filled_alike(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        settings = SimulatorSettings(tmp_path / name, history_s=3600, run_id="a", seed=5)
        open_output(settings, NOW_NS).writer.close()
        output = open_output(replace(settings, run_id="b"), NOW_NS + 600 * SECOND)
        output.writer.close()
        contents.append(output.writer.path.read_bytes())
    assert contents[0] == contents[1]


async def test_file_that_is_too_long_is_begun_anew_by_the_next_run_with_its_newest_history(
    settings: SimulatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = open_output(settings, NOW_NS)
    output.writer.close()
    path = output.writer.path
    first, inode = read_scid(path), path.stat().st_ino
    monkeypatch.setattr("minhos_mesh.sierra_simulator.output.LONGEST_FILE", 100)
    open_output(settings, NOW_NS + SECOND).writer.close()
    assert path.stat().st_ino == inode
    open_output(replace(settings, run_id="b"), NOW_NS + 3600 * SECOND).writer.close()
    after = read_scid(path)
    assert path.stat().st_ino != inode
    assert (np.diff(after["time_us"]) > 0).all()
    assert abs(int(after["time_us"][0] - first["time_us"][0]) - 3600 * 10**6) < 60 * 10**6
    carried = int(np.searchsorted(first["time_us"], after["time_us"][0]))
    assert after[: len(first) - carried].tobytes() == first[carried:].tobytes()


async def test_clock_that_was_set_back_breaks_no_order(running: Running, settings: SimulatorSettings) -> None:
    open_output(settings, NOW_NS + 20 * SECOND).writer.close()
    simulator = await running.start(settings)
    path = simulator.status().file
    assert path is not None
    before = simulator.status().records_written
    running.advance(40)
    await until(lambda: simulator.status().records_written > before)
    assert (np.diff(read_scid(path)["time_us"]) > 0).all()


async def test_walk_behind_a_replay_of_the_same_symbol_begins_a_new_file_at_its_own_price(
    settings: SimulatorSettings, tmp_path: Path
) -> None:
    first = open_output(settings, NOW_NS)
    first.writer.close()
    source = recording(tmp_path, 10, f"{first.symbol}.scid")
    replay = replace(settings, feed=FeedKind.REPLAY, replay_file=source)
    open_output(replay, NOW_NS).writer.close()
    again = open_output(settings, NOW_NS + SECOND)
    again.writer.close()
    assert len(read_scid(again.writer.path)) > 3_000
    assert float(read_scid(again.writer.path)["close"][0]) > 20_000


async def test_replay_of_another_symbol_does_not_end_the_walk(settings: SimulatorSettings, tmp_path: Path) -> None:
    output = open_output(settings, NOW_NS)
    output.writer.close()
    inode = output.writer.path.stat().st_ino
    source = recording(tmp_path, 10)
    open_output(replace(settings, feed=FeedKind.REPLAY, replay_file=source, run_id="b"), NOW_NS).writer.close()
    open_output(replace(settings, run_id="c"), NOW_NS + SECOND).writer.close()
    assert output.writer.path.stat().st_ino == inode


async def test_replay_writes_the_recording_and_ends(
    running: Running, settings: SimulatorSettings, tmp_path: Path
) -> None:
    source = recording(tmp_path, 10_000)
    simulator = await running.start(replace(settings, feed=FeedKind.REPLAY, replay_file=source))
    await until(lambda: simulator.status().activity is Activity.ENDED)
    status = simulator.status()
    assert (status.records_written, status.records_total, status.symbol) == (10_000, 10_000, "MNQU21-CME")
    assert status.seed is None
    assert status.file is not None
    assert status.file.read_bytes() == source.read_bytes()
    marker = read_marker(settings.folder)
    assert marker is not None
    assert marker.records_expected == {"MNQU21-CME.scid": 10_000}


async def test_killed_replay_goes_on_and_another_run_begins_anew(
    running: Running, settings: SimulatorSettings, tmp_path: Path
) -> None:
    source = recording(tmp_path, 100)
    slow = replace(settings, feed=FeedKind.REPLAY, replay_file=source, replay_speed=1.0)
    simulator = await running.start(slow)
    running.clock.advance(9.5)
    await until(lambda: simulator.status().records_written == 10)
    await running.kill()
    simulator = await running.start(slow)
    assert simulator.status().records_written >= 10
    await until(lambda: simulator.status().records_written == 11)
    await running.kill()
    simulator = await running.start(replace(slow, run_id="b"))
    await until(lambda: simulator.status().records_written == 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty: 0 bytes"),
        (b"PK\x03\x04", "is not a .scid file"),
        (write_header()[:20], "truncated header: 20 of 56"),
        (write_header(), "holds no record: there is nothing to replay"),
    ],
)
async def test_recording_that_cannot_be_read_is_named(
    running: Running, settings: SimulatorSettings, tmp_path: Path, content: bytes | None, message: str
) -> None:
    source = tmp_path / "MNQU21-CME.scid"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(SimulatorFailed, match=message) as raised:
        await running.start(replace(settings, feed=FeedKind.REPLAY, replay_file=source))
    assert "MNQU21-CME.scid" in str(raised.value)
    assert running.simulator.status().activity is Activity.FAILED
    with pytest.raises(SimulatorFailed, match=message):
        running.simulator.pause()


async def test_recording_of_an_unknown_name_or_in_the_same_folder_is_refused(
    running: Running, settings: SimulatorSettings, tmp_path: Path
) -> None:
    with pytest.raises(SimulatorFailed, match="symbol 'notes' is not understood"):
        await running.start(replace(settings, feed=FeedKind.REPLAY, replay_file=recording(tmp_path, 1, "notes.scid")))
    with pytest.raises(SimulatorFailed, match="instrument 'XX' is unknown"):
        await running.start(
            replace(settings, feed=FeedKind.REPLAY, replay_file=recording(tmp_path, 1, "XXZ26-CME.scid"))
        )
    with pytest.raises(SimulatorFailed, match="is the file that would be written"):
        await running.start(replace(settings, feed=FeedKind.REPLAY, replay_file=recording(settings.folder, 1)))


async def test_full_disk_is_a_problem_until_it_is_over(
    running: Running, settings: SimulatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, fail = ScidWriter.append, [True]

    def refusing(writer: ScidWriter, records: Records) -> None:
        if fail[0]:
            raise ScidError("No space left on device")
        append(writer, records)

    monkeypatch.setattr("minhos_mesh.sierra_simulator.symbol_writer.RETRY_S", 0.005)
    monkeypatch.setattr(ScidWriter, "append", refusing)
    source = tmp_path / "MNQU21-CME.scid"
    fail[0] = False
    recording(tmp_path, 50)
    fail[0] = True
    simulator = await running.start(replace(settings, feed=FeedKind.REPLAY, replay_file=source))
    await until(lambda: simulator.status().activity is Activity.FAILED)
    fail[0] = False
    await until(lambda: simulator.status().activity is Activity.ENDED)
    assert written(simulator).tobytes() == read_scid(source).tobytes()
    assert running.problems == ["No space left on device", ""]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"ticks_per_s": 0.0}, "0.1 to 10000"),
        ({"history_s": -1}, "history_s is -1"),
        ({"replay_speed": -2.0}, "replay_speed is -2"),
        ({"feed": FeedKind.REPLAY}, "replay_file is not set"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsRefused, match=message):
        SimulatorSettings(tmp_path, **values)  # type: ignore[arg-type]  # each case is one wrong value


def test_index_is_walked_under_its_own_name_and_grid(tmp_path: Path) -> None:
    output = open_output(SimulatorSettings(tmp_path, root="VIX", history_s=600), NOW_NS)
    output.writer.close()
    assert str(output.symbol) == "VIX-CGI"
    columns = tick_columns(read_scid(tmp_path / "VIX-CGI.scid"), 10_000_000)
    assert columns.price_e9.min() > 10 * 10**9
    assert columns.price_e9.max() < 30 * 10**9
