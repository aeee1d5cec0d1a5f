"""SierraSimulatorService as its clients see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from grpclib.client import Channel
from tests.waiting import eventually

from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as pb2
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_dataclasses.sierra import v1 as dataclasses
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import ConfigError, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.errors import read
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_files.marker import read_marker
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.bootstrap import build

CONTRACT = "minhos_api.sierra.v1.SierraSimulatorService"


class Simulator:
    """A simulator on a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = MeshPaths(folder)
        self.paths.create()
        self._stack = contextlib.AsyncExitStack()

    async def start(self, **feed: Any) -> Any:
        config = load(None, environment={}, overrides={"feed": {"history_hours": 1.0, **feed}})
        clients = Clients()
        self._stack.push_async_callback(clients.close)
        context = ServiceContext(
            "sierra_simulator", "sierra_simulator-1", config.resolved(datetime.now(UTC)), self.paths, clients
        )
        parts = await self._stack.enter_async_context(build(context))
        self._stack.push_async_callback(context.tasks.close)
        await parts.start()
        self.server = await self._stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        own = Clients({CONTRACT: self.server.address})
        self._stack.push_async_callback(own.close)
        return own.stub(SierraSimulatorServiceStub)

    async def stop(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    found = Simulator(tmp_path / "mesh")
    yield found
    await found.stop()


def recording(folder: Path, count: int) -> Path:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1_600_000_000_000_000 + np.arange(count) * 1_000_000
    records["close"] = 100
    records["num_trades"] = 1
    path = folder / "MNQU21-CME.scid"
    ScidWriter.create(path, records).close()
    return path


async def state(stub: Any) -> pb2.SimulatorState:
    response = await stub.GetStatus(pb2.SierraSimulatorServiceGetStatusRequest())
    assert isinstance(response.simulator, pb2.SimulatorState)
    return response.simulator


async def watch_until(stub: Any, activity: pb2.SimulatorActivity.ValueType) -> list[pb2.SimulatorState]:
    stream = stub.WatchReplay(pb2.WatchReplayRequest())
    seen: list[pb2.SimulatorState] = []
    async with asyncio.timeout(10):
        async for update in stream:
            kind = update.WhichOneof("update")
            assert (kind == "snapshot") == (not seen)
            seen.append(update.snapshot.simulator if kind == "snapshot" else update.change)
            if kind != "heartbeat" and seen[-1].activity == activity:
                break
    stream.cancel()
    return seen


async def test_random_walk_has_history_and_goes_on(simulator: Simulator) -> None:
    stub = await simulator.start(ticks_per_second=200.0, seed=7)
    first = await state(stub)
    assert (first.feed, first.activity) == (pb2.SIMULATOR_FEED_RANDOM_WALK, pb2.SIMULATOR_ACTIVITY_RUNNING)
    assert (first.speed, first.seed) == (200.0, 7)
    assert not first.HasField("records_total")
    assert first.symbol.startswith("NQ")
    assert first.records_written > 1_500
    async with asyncio.timeout(5):
        while (await state(stub)).records_written < first.records_written + 20:
            await asyncio.sleep(0.01)
    records = read_scid(Path(first.file))
    assert (np.diff(records["time_us"]) > 0).all()
    assert read_marker(simulator.paths.sierra_dir) is not None


async def test_pause_stops_and_resume_goes_on(simulator: Simulator) -> None:
    stub = await simulator.start(ticks_per_second=500.0)
    for _ in range(2):
        paused = (await stub.Pause(pb2.PauseRequest())).simulator
        assert paused.activity == pb2.SIMULATOR_ACTIVITY_PAUSED
    written = (await state(stub)).records_written
    await asyncio.sleep(0.05)
    assert (await state(stub)).records_written == written
    for _ in range(2):
        resumed = (await stub.Resume(pb2.ResumeRequest())).simulator
        assert resumed.activity == pb2.SIMULATOR_ACTIVITY_RUNNING
    async with asyncio.timeout(5):
        while (await state(stub)).records_written == written:
            await asyncio.sleep(0.005)


async def test_speed_is_changed_and_a_wrong_one_is_refused(simulator: Simulator) -> None:
    stub = await simulator.start()
    assert (await stub.SetFeed(pb2.SetFeedRequest(speed=25.0))).simulator.speed == 25.0
    for speed, field in ((0.0, "speed"), (20_000.0, "speed"), (-1.0, "speed")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SetFeed(pb2.SetFeedRequest(speed=speed))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        told = read(raised.value)
        assert told.violations[0].field == field
        if speed >= 0:
            assert told.metadata["seen"] == f"{speed:g}"
            assert told.metadata["allowed"] == "0.1 to 10000 ticks a second"
    assert (await state(stub)).speed == 25.0


async def test_watch_goes_on_behind_a_revision_and_beats_while_nothing_changes(simulator: Simulator) -> None:
    stub = await simulator.start(ticks_per_second=500.0)
    await stub.Pause(pb2.PauseRequest())
    answer = await stub.GetStatus(pb2.SierraSimulatorServiceGetStatusRequest())
    for _ in range(2):
        await stub.Pause(pb2.PauseRequest())
        await stub.SetFeed(pb2.SetFeedRequest(speed=500.0))
    watching = stub.WatchReplay(pb2.WatchReplayRequest(after_revision=answer.revision))
    async with asyncio.timeout(10):
        beat = await watching.read()
        assert (beat.WhichOneof("update"), beat.revision) == ("heartbeat", answer.revision)
        await stub.Resume(pb2.ResumeRequest())
        change = await watching.read()
    assert change.change.activity == pb2.SIMULATOR_ACTIVITY_RUNNING
    assert change.revision > answer.revision
    watching.cancel()
    for lost in (0, 5, change.revision + 1_000_000):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.WatchReplay(pb2.WatchReplayRequest(after_revision=lost)).read()
        assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert read(raised.value).reason == "ERROR_REASON_POSITION_LOST"


async def test_failure_is_told_with_its_reason(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(_writer: ScidWriter, _records: object) -> None:
        raise ScidError("No space left on device")

    stub = await simulator.start(ticks_per_second=500.0)
    monkeypatch.setattr(ScidWriter, "append", refusing)
    failed = (await watch_until(stub, pb2.SIMULATOR_ACTIVITY_FAILED))[-1]
    assert failed.reason == "No space left on device"


async def test_replay_at_full_speed_ends_with_the_recording(simulator: Simulator, tmp_path: Path) -> None:
    source = recording(tmp_path, 20_000)
    stub = await simulator.start(kind="replay", file=str(source), speed="max")
    last = (await watch_until(stub, pb2.SIMULATOR_ACTIVITY_ENDED))[-1]
    assert (last.records_written, last.records_total, last.symbol) == (20_000, 20_000, "MNQU21-CME")
    assert (last.speed, last.feed) == (0.0, pb2.SIMULATOR_FEED_REPLAY)
    assert not last.HasField("seed")
    assert last.event_time.ToNanoseconds() == (1_600_000_000 + 19_999) * 10**9
    assert Path(last.file).read_bytes() == source.read_bytes()


async def test_both_stubs_give_the_same_answer(simulator: Simulator, tmp_path: Path) -> None:
    source = recording(tmp_path, 10)
    stub = await simulator.start(kind="replay", file=str(source), speed="max")
    await watch_until(stub, pb2.SIMULATOR_ACTIVITY_ENDED)
    host, port = simulator.server.address.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        other = await dataclasses.SierraSimulatorServiceStub(channel).get_status(
            dataclasses.SierraSimulatorServiceGetStatusRequest()
        )
    assert bytes(other.simulator) == (await state(stub)).SerializeToString()


async def test_several_products_are_written_at_once_each_into_its_files(simulator: Simulator) -> None:
    stub = await simulator.start(roots=["NQ", "ES", "MNQ", "VIX"], ticks_per_second=200.0)
    first = await state(stub)
    assert [each.symbol[:-7] for each in first.symbols[:3]] == ["NQ", "ES", "MNQ"]
    assert first.symbols[3].symbol == "VIX-CGI"
    assert (first.symbol, first.file, first.speed) == (first.symbols[0].symbol, first.symbols[0].file, 200.0)

    async def all_grow() -> bool:
        grown = (await state(stub)).symbols
        return all(now.records_written > then.records_written for now, then in zip(grown, first.symbols, strict=True))

    await eventually(all_grow, "each symbol is written")
    assert (await stub.SetFeed(pb2.SetFeedRequest(speed=50.0))).simulator.speed == 50.0
    for each in (await state(stub)).symbols:
        assert len(read_scid(Path(each.file))) >= each.records_written
        assert bool(each.depth_file) == (each.symbol != "VIX-CGI")
        assert not each.depth_file or Path(each.depth_file).is_file()


async def test_faults_are_injected_listed_shown_and_cleared(simulator: Simulator) -> None:
    stub = await simulator.start(ticks_per_second=500.0)
    symbol = (await state(stub)).symbol
    gap = pb2.InjectFaultRequest(request_id="gap-1", kind=pb2.SIMULATOR_FAULT_KIND_FEED_GAP, symbol=symbol)
    made = (await stub.InjectFault(gap)).fault
    assert (made.request_id, made.kind, made.symbol, made.active) == ("gap-1", gap.kind, symbol, True)
    assert not made.HasField("end_time")
    assert made.begin_time.ToNanoseconds() > 0

    async def left_out() -> bool:
        return (await state(stub)).records_left_out > 10

    await eventually(left_out, "records are left out")
    (shown,) = (await state(stub)).faults
    assert shown.effect.endswith("records were left out")
    cut = pb2.InjectFaultRequest(request_id="cut", kind=pb2.SIMULATOR_FAULT_KIND_FILE_TRUNCATED)
    assert "records were taken from" in (await stub.InjectFault(cut)).fault.effect
    listed = (await stub.ListFaults(pb2.ListFaultsRequest())).faults
    assert [each.request_id for each in listed] == ["cut", "gap-1"]
    (ended,) = (await stub.ClearFaults(pb2.ClearFaultsRequest(request_id="gap-1"))).faults
    assert not ended.active
    assert ended.end_time.ToNanoseconds() >= ended.begin_time.ToNanoseconds()
    assert (await stub.ClearFaults(pb2.ClearFaultsRequest())).faults == []
    assert (await state(stub)).faults == []
    host, port = simulator.server.address.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        other = await dataclasses.SierraSimulatorServiceStub(channel).list_faults(dataclasses.ListFaultsRequest())
    again = (await stub.ListFaults(pb2.ListFaultsRequest())).faults
    assert [(each.request_id, each.effect) for each in other.faults] == [
        (each.request_id, each.effect) for each in again
    ]


async def test_a_fault_that_lasts_ends_by_itself(simulator: Simulator) -> None:
    stub = await simulator.start(ticks_per_second=100.0)
    request = pb2.InjectFaultRequest(request_id="s", kind=pb2.SIMULATOR_FAULT_KIND_FEED_SILENCE)
    request.duration.FromMilliseconds(50)
    made = (await stub.InjectFault(request)).fault
    assert made.end_time.ToNanoseconds() - made.begin_time.ToNanoseconds() == 50_000_000

    async def over() -> bool:
        return not (await state(stub)).faults

    await eventually(over, "it is over")


@pytest.mark.parametrize(
    ("values", "code", "reason", "words"),
    [
        ({"request_id": ""}, "INVALID_ARGUMENT", "INVALID_FIELD", "request_id"),
        ({"kind": 0}, "INVALID_ARGUMENT", "INVALID_FIELD", "kind"),
        ({"kind": 99}, "INVALID_ARGUMENT", "INVALID_FIELD", "kind"),
        ({"probability": 0.0}, "INVALID_ARGUMENT", "INVALID_FIELD", "probability"),
        ({"probability": 1.5}, "INVALID_ARGUMENT", "INVALID_FIELD", "probability"),
        (
            {"probability": 0.5},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "probability is 0.5: allowed is unset for FEED_GAP",
        ),
        (
            {"symbol": "YMZ26-CBOT"},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "symbol is YMZ26-CBOT: allowed is one that is written",
        ),
        ({"duration": duration_pb2.Duration(seconds=-1)}, "INVALID_ARGUMENT", "INVALID_FIELD", "duration"),
        ({"duration": duration_pb2.Duration(seconds=86_401)}, "INVALID_ARGUMENT", "INVALID_FIELD", "duration"),
        (
            {"kind": pb2.SIMULATOR_FAULT_KIND_DTC_REJECTS},
            "FAILED_PRECONDITION",
            "FAULT_NOT_POSSIBLE",
            "feed.dtc_port is not set",
        ),
        ({"request_id": "first"}, "ALREADY_EXISTS", "REQUEST_CONFLICT", "was used for another fault"),
    ],
)
async def test_bad_input_for_a_fault_is_refused_clearly(
    simulator: Simulator, values: dict[str, Any], code: str, reason: str, words: str
) -> None:
    stub = await simulator.start()
    silence = pb2.SIMULATOR_FAULT_KIND_FEED_SILENCE
    await stub.InjectFault(pb2.InjectFaultRequest(request_id="first", kind=silence))
    request = pb2.InjectFaultRequest(**{"request_id": "f", "kind": pb2.SIMULATOR_FAULT_KIND_FEED_GAP, **values})
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.InjectFault(request)
    told = read(raised.value)
    assert (raised.value.code().name, told.reason) == (code, f"ERROR_REASON_{reason}")
    assert words in str(told.message) or words in str(told.violations)
    assert len((await stub.ListFaults(pb2.ListFaultsRequest())).faults) == 1


async def test_an_unknown_fault_is_not_cleared(simulator: Simulator) -> None:
    stub = await simulator.start()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ClearFaults(pb2.ClearFaultsRequest(request_id="nobody"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    told = read(raised.value)
    assert (told.reason, told.metadata["request_id"]) == ("ERROR_REASON_FAULT_UNKNOWN", "nobody")


async def test_a_recording_is_played_several_times_without_its_gaps(simulator: Simulator, tmp_path: Path) -> None:
    source = recording(tmp_path, 1_000)
    gaps = [{"after_s": 100, "length_s": 200}]
    stub = await simulator.start(kind="replay", file=str(source), speed="max", loops=3, gaps=gaps)
    last = (await watch_until(stub, pb2.SIMULATOR_ACTIVITY_ENDED))[-1]
    assert (last.records_written, last.records_total, last.passes, last.records_left_out) == (2_400, 2_400, 3, 600)
    marker = read_marker(simulator.paths.sierra_dir)
    assert marker is not None
    assert marker.records_expected == {source.name: 2_400}
    assert (np.diff(read_scid(Path(last.file))["time_us"]) > 0).all()


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({"roots": ["NQ", "XX"]}, "feed.roots names 'XX'"),
        ({"roots": ["NQ", "NQ"]}, "each product may stand once"),
        ({"loops": 2}, 'only a recording is played again, with kind = "replay"'),
        ({"gaps": [{"after_s": 1, "length_s": 10, "every_s": 5}]}, "allowed is more than length_s (10)"),
        ({"gaps": [{"after_s": -1, "length_s": 10}]}, "feed.gaps.0.after_s"),
        ({"depth_levels": 51}, "feed.depth_levels"),
    ],
)
def test_a_wrong_feed_is_refused_in_words(feed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, environment={}, overrides={"feed": feed}).resolved(datetime.now(UTC))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"PK\x03\x04", "is not a .scid file"), (b"SCID", "truncated header: 4 of 56 bytes")],
)
async def test_recording_that_cannot_be_replayed_refuses_the_start(
    simulator: Simulator, tmp_path: Path, content: bytes, message: str
) -> None:
    source = tmp_path / "MNQU21-CME.scid"
    source.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as raised:
        await simulator.start(kind="replay", file=str(source), speed="max")
    assert str(source) in str(raised.value)
