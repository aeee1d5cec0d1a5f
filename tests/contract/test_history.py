"""History by its contracts: gaps are fetched exactly, bars equal a batch computation, and what was recorded outlives the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.waiting import eventually

from minhos_api.market.v1 import history_service_pb2 as pb2
from minhos_api.market.v1 import instrument_service_pb2 as instruments_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_api.market.v1.history_service_pb2_grpc import HistoryServiceStub
from minhos_api.market.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.market_data import bootstrap, history_workers
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import bars_of
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.history import HistoryClient, NotHeld
from minhos_mesh.runtime.market import FROM_START, Gap, MarketClient, SlowReader
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import TickBatchView, bytes_or_message, encode_batch, in_field, view_of

NQ = "NQZ26-CME"
INGEST, HISTORY, INSTRUMENT, PROVIDER = (
    f"minhos_api.market.v1.{name}Service"
    for name in ("MarketDataIngest", "History", "Instrument", "MarketDataProvider")
)
NOW = datetime(2026, 11, 16, 15, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 1_000_000_000
SECOND_NS = 1_000_000_000
RING = 1_024
EPOCH = 7


def ticks_of(count: int, apart_ns: int = 7 * SECOND_NS) -> TickArray:
    """Trades up to about now; the price tells the position."""
    ticks, places = new_ticks(count), np.arange(count)
    ticks["event_time_ns"] = NOW_NS - (count - places) * apart_ns
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = (places % 997 + 1) * 250_000_000
    ticks["size"], ticks["side"] = places % 5 + 1, places % 3
    ticks["flags"], ticks["kind"] = 3, 1
    return ticks


@dataclass
class Served:
    """Market data whole, and the ways to it."""

    clients: Clients
    places: HistoryPlaces

    @property
    def history(self) -> Any:
        return self.clients.stub(HistoryServiceStub)

    @property
    def instruments(self) -> Any:
        return self.clients.stub(InstrumentServiceStub)

    async def feed(self, ticks: TickArray, epoch: int = EPOCH) -> None:
        method = f"/{INGEST}/IngestTicks"
        read = ingest_pb2.IngestTicksResponse.FromString
        call: Any = self.clients.channel(INGEST).stream_stream(method, bytes_or_message, read)()
        simulated = provenance_pb2.PROVENANCE_SIMULATED
        opened = ingest_pb2.IngestOpen(source="walk", symbol=NQ, provenance=simulated, epoch=epoch)
        async with asyncio.timeout(20):
            await call.write(ingest_pb2.IngestTicksRequest(open=opened))
            at = (await call.read()).opened.through_position
            for begin in range(at, len(ticks), 500):
                batch = encode_batch(NQ, simulated, epoch, begin + 1, ticks[begin : begin + 500])
                await call.write(in_field(1, batch))
            while at < len(ticks):
                answer = await call.read()
                at = max(at, answer.ack.through_position)
        call.cancel()

    async def stream(self, **request: Any) -> list[pb2.StreamHistoryResponse]:
        async with asyncio.timeout(20):
            return [message async for message in self.history.StreamHistory(pb2.StreamHistoryRequest(**request))]


@asynccontextmanager
async def served(folder: Path, **overrides: Any) -> AsyncIterator[Served]:
    settings = {"market_data": {"symbols": [NQ], "ring_ticks": RING, **overrides}}
    context = ServiceContext(
        "market_data", "market_data-1", load(None, environment={}, overrides=settings).resolved(NOW),
        MeshPaths(folder), Clients({}), ManualClock(NOW_NS),
    )  # fmt: skip
    async with bootstrap.build(context) as parts, MeshServer(parts.servicers, errors=parts.errors) as server:
        clients = Clients(dict.fromkeys((INGEST, HISTORY, INSTRUMENT, PROVIDER), server.address))
        try:
            yield Served(clients, HistoryPlaces(context.paths.history_dir))
        finally:
            await clients.close()
            await context.tasks.close()
            await context.clients.close()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as mesh:
        await mesh.feed(ticks_of(5_000))
        yield mesh


def times_of(messages: list[pb2.StreamHistoryResponse]) -> list[tuple[int, int]]:
    """Sequence and event time of every tick, of unbroken batches."""
    told = []
    for message in messages:
        if message.HasField("ticks"):
            view = view_of(message.ticks)
            assert (view.symbol, view.provenance, view.epoch) == (NQ, provenance_pb2.PROVENANCE_SIMULATED, EPOCH)
            told += [(view.first_sequence + n, int(at)) for n, at in enumerate(view.ticks["event_time_ns"].tolist())]
    return told


def expected(first: int, last: int, ticks: TickArray | None = None) -> list[tuple[int, int]]:
    whole = ticks_of(5_000) if ticks is None else ticks
    return [(n + 1, int(at)) for n, at in enumerate(whole["event_time_ns"].tolist())][first - 1 : last]


def sequences(first: int, last: int, epoch: int = EPOCH) -> dict[str, Any]:
    return {"sequences": pb2.SequenceRange(epoch=epoch, first_sequence=first, last_sequence=last)}


def at(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // SECOND_NS, nanos=time_ns % SECOND_NS)


async def refused(call: Any) -> errors.CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return errors.read(caught.value)


async def test_a_gap_is_fetched_exactly_wherever_its_ticks_are(mesh: Served) -> None:
    for first, last in ((1, 5_000), (1, 1), (17, 900), (3_900, 4_100), (4_990, 5_000)):
        messages = await mesh.stream(**sequences(first, last))
        assert times_of(messages) == expected(first, last)
        assert messages[-1].end == pb2.HistoryEnd(
            ticks_sent=last - first + 1, last=pb2.HistoryPosition(epoch=EPOCH, sequence=last)
        )


async def test_what_is_not_held_of_a_range_is_told_in_its_place(mesh: Served) -> None:
    messages = await mesh.stream(**sequences(4_999, 5_010))
    assert times_of(messages) == expected(4_999, 5_000)
    assert [message.gap for message in messages if message.HasField("gap")] == [
        pb2.HistoryGap(epoch=EPOCH, first_sequence=5_001, last_sequence=5_010)
    ]
    assert messages[-1].end.ticks_missing == 10
    lost = await refused(mesh.stream(**sequences(1, 10, epoch=99)))
    assert (lost.code, lost.reason) == (grpc.StatusCode.OUT_OF_RANGE, "ERROR_REASON_POSITION_LOST")
    assert lost.metadata == {"asked": "epoch 99", "oldest": "1 of epoch 7", "newest": "5000 of epoch 7"}


async def test_the_client_of_python_gives_a_range_as_arrays_and_what_is_not_held(mesh: Served) -> None:
    client, places = HistoryClient(mesh.clients), []
    async for piece in client.sequences(NQ, EPOCH, 3_000, 5_007):
        if isinstance(piece, TickBatchView):
            places += list(zip(range(piece.first_sequence, 9_999), piece.ticks["event_time_ns"].tolist(), strict=False))
        else:
            assert piece == NotHeld(NQ, EPOCH, 5_001, 5_007)
    assert places == expected(3_000, 5_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [piece async for piece in client.sequences(NQ, 99, 1, 2)]
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


class LiveReader:
    """A reader of live ticks that stops reading for a while and fetches what it was told it missed, and nothing else."""

    def __init__(self, clients: Clients) -> None:
        self._live = MarketClient(clients).subscribe([NQ], policy=SlowReader.GAP, resume={NQ: FROM_START})
        self._history = HistoryClient(clients)
        self.reads = asyncio.Event()
        self.reads.set()
        self.through = 0
        self.live: list[TickBatchView] = []
        self.fetched: list[TickBatchView] = []
        self.gaps: list[tuple[int, int]] = []

    async def read(self, through: int) -> None:
        async with self._live:
            async for update in self._live:
                if isinstance(update, TickBatchView):
                    self.live.append(update)
                    self.through = update.last_sequence
                elif isinstance(update, Gap):
                    self.gaps.append((update.first_sequence, update.last_sequence))
                    self.through = update.last_sequence
                if self.through >= through:
                    return
                await self.reads.wait()

    async def fetch(self) -> None:
        for first, last in self.gaps:
            at = first
            async for piece in self._history.sequences(NQ, EPOCH, first, last):
                assert isinstance(piece, TickBatchView), f"told as missed and not held: {piece}"
                assert piece.first_sequence == at
                self.fetched.append(piece)
                at = piece.last_sequence + 1
            assert at == last + 1, "all of the range, and nothing beyond it"


async def test_a_live_reader_that_fell_behind_fetches_exactly_what_it_was_told_it_missed(tmp_path: Path) -> None:
    whole, step = ticks_of(160_000, SECOND_NS // 10), 40_000
    async with served(tmp_path) as mesh:
        reader = LiveReader(mesh.clients)
        reading = asyncio.create_task(reader.read(len(whole)))
        await mesh.feed(whole[:3_000])
        await eventually(lambda: reader.through == 3_000, "it reads as the ticks come")
        assert reader.gaps == []
        reader.reads.clear()
        for end in range(step, len(whole) + 1, step):
            await mesh.feed(whole[:end])  # far more than all buffers between the two, and than what is held in memory
        reader.reads.set()
        async with asyncio.timeout(30):
            await reading
            await reader.fetch()
    assert reader.gaps, "it was held up for too short a time"
    missed = sum(last - first + 1 for first, last in reader.gaps)
    assert sum(len(piece) for piece in reader.fetched) == missed
    pieces = sorted([*reader.live, *reader.fetched], key=lambda piece: piece.first_sequence)
    assert [piece.first_sequence for piece in pieces] == [1, *(piece.last_sequence + 1 for piece in pieces[:-1])]
    found = np.concatenate([piece.ticks for piece in pieces])
    for name in ("event_time_ns", "receive_time_ns", "price_e9", "size", "side", "flags", "kind"):
        assert (found[name] == whole[name]).all(), name


async def test_a_span_of_time_is_resumed_behind_any_tick(mesh: Served) -> None:
    begin, end = expected(2_000, 2_000)[0][1], expected(4_500, 4_500)[0][1]
    span: dict[str, Any] = {"start_time": at(begin), "end_time": at(end)}
    assert times_of(await mesh.stream(times=pb2.TimeRange(**span))) == expected(2_000, 4_499)
    assert times_of(await mesh.stream(times=pb2.TimeRange())) == expected(1, 5_000)
    for sequence in (2_000, 3_333, 4_499):
        behind = pb2.HistoryPosition(epoch=EPOCH, sequence=sequence)
        rest = await mesh.stream(times=pb2.TimeRange(**span, after_position=behind))
        assert times_of(rest) == expected(sequence + 1, 4_499)
    elsewhere = pb2.TimeRange(after_position=pb2.HistoryPosition(epoch=3, sequence=1))
    lost = await refused(mesh.stream(times=elsewhere))
    assert (lost.code, lost.reason) == (grpc.StatusCode.OUT_OF_RANGE, "ERROR_REASON_POSITION_LOST")


async def test_what_was_recorded_outlives_the_service_and_is_recorded_once(tmp_path: Path) -> None:
    ticks = ticks_of(5_000)
    async with served(tmp_path) as mesh:
        await mesh.feed(ticks[:3_000])
    async with served(tmp_path) as mesh:
        assert len(times_of(await mesh.stream(**sequences(1, 3_000)))) == 3_000
        await mesh.feed(ticks[:4_000])
        workers = history_workers.HistoryWorkers(mesh.places.root)
        async with workers.asking("pack", keep_days=0) as told:
            (packed,) = [each async for each in told]
        assert not isinstance(packed, history_workers.TicksRead)
        assert (packed["added"], packed["known"]) == (3_000, 0)
        await workers.close()
        assert times_of(await mesh.stream(**sequences(1, 4_000))) == expected(1, 4_000, ticks)
        await mesh.feed(ticks)
        listed = await mesh.history.ListHistory(pb2.ListHistoryRequest())
        assert sum(day.ticks for day in listed.days) == 5_000
        assert {day.symbol for day in listed.days} == {NQ}
    async with served(tmp_path) as mesh:
        await mesh.feed(ticks)
        assert times_of(await mesh.stream(times=pb2.TimeRange())) == expected(1, 5_000)


@pytest.mark.parametrize("span", ["5m", "7h", "1d", "100t", "777v"])
async def test_bars_equal_a_batch_computation_whatever_the_page(tmp_path: Path, span: str) -> None:
    whole = ticks_of(5_000, 61 * SECOND_NS)
    async with served(tmp_path) as mesh:
        await mesh.feed(whole)
        await check_bars(mesh, whole, span)


async def check_bars(mesh: Served, whole: TickArray, span: str) -> None:
    wanted = parse_span(span)
    made = bars_of(whole, wanted)
    assert len({bar.trading_day for bar in made}) == 4
    request = pb2.GetBarsRequest(span=pb2.BarSpan(**{str(wanted.measure): wanted.size}), page_size=10_000)
    one = await mesh.history.GetBars(request)
    assert (one.symbol, one.sessions, one.next_page_token) == (NQ, pb2.SESSION_RULE_ALWAYS_OPEN, "")
    assert [
        (bar.trading_day, bar.open_time.ToNanoseconds(), bar.close_time.ToNanoseconds(), bar.open_e9, bar.high_e9,
         bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trade_count, bar.first.sequence,
         bar.last.sequence, bar.closed)
        for bar in one.bars
    ] == [
        (bar.trading_day.isoformat(), bar.open_time_ns, bar.close_time_ns, bar.open_e9, bar.high_e9,
         bar.low_e9, bar.close_e9, bar.volume, bar.bid_volume, bar.ask_volume, bar.trades, bar.first_sequence,
         bar.last_sequence, bar.closed)
        for bar in made
    ]  # fmt: skip
    request.page_size, paged = max(1, len(made) // 3), []
    while True:
        page = await mesh.history.GetBars(request)
        paged += list(page.bars)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert paged == list(one.bars)


async def test_only_bars_that_begin_in_the_time_asked_for_are_told(mesh: Served) -> None:
    every = (await mesh.history.GetBars(pb2.GetBarsRequest())).bars
    start, end = every[10].open_time, every[20].open_time
    found = (await mesh.history.GetBars(pb2.GetBarsRequest(start_time=start, end_time=end))).bars
    assert list(found) == list(every[10:20])


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb2.GetBarsRequest(symbol="ESZ26-CME"), grpc.StatusCode.NOT_FOUND, "HISTORY_NOT_HELD"),
        (pb2.GetBarsRequest(provenance=provenance_pb2.PROVENANCE_LIVE), grpc.StatusCode.NOT_FOUND, "HISTORY_NOT_HELD"),
        (pb2.GetBarsRequest(symbol="ZZZ"), grpc.StatusCode.NOT_FOUND, "HISTORY_NOT_HELD"),
        (pb2.GetBarsRequest(start_time=at(5), end_time=at(5)), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (pb2.GetBarsRequest(span=pb2.BarSpan()), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (pb2.GetBarsRequest(span=pb2.BarSpan(seconds=86_401)), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (pb2.GetBarsRequest(page_token="x"), grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"),
    ],
)
async def test_a_wrong_question_is_refused(
    tmp_path: Path, request_: pb2.GetBarsRequest, code: grpc.StatusCode, reason: str
) -> None:
    async with served(tmp_path) as mesh:
        await mesh.feed(ticks_of(10))
        error = await refused(mesh.history.GetBars(request_))
    assert (error.code, error.reason) == (code, f"ERROR_REASON_{reason}")


async def test_a_reader_that_leaves_early_leaves_nothing_behind_and_too_many_are_refused(mesh: Served) -> None:
    request = pb2.StreamHistoryRequest(times=pb2.TimeRange())
    calls = [mesh.history.StreamHistory(request) for _ in range(history_workers.MOST)]
    for call in calls:
        assert (await asyncio.wait_for(call.read(), 20)).HasField("ticks")
    for call in calls:
        call.cancel()
    seen, again = set(), list[pb2.StreamHistoryResponse]()
    async with asyncio.timeout(20):
        while True:
            try:
                again = await mesh.stream(times=pb2.TimeRange())
            except grpc.aio.AioRpcError as error:
                seen.add(errors.read(error).reason)
                await asyncio.sleep(0.05)
            else:
                break
    assert len(times_of(again)) == 5_000
    assert seen <= {"ERROR_REASON_LIMIT_REACHED"}


async def test_a_file_that_is_broken_is_named(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh:
        await mesh.feed(ticks_of(10))
        (mesh.places.ticks / "provenance=SIMULATED" / f"symbol={NQ}" / "day=2026-11-01").mkdir(parents=True)
        broken = mesh.places.ticks / "provenance=SIMULATED" / f"symbol={NQ}" / "day=2026-11-01" / "ticks.parquet"
        broken.write_bytes(b"not Parquet at all")
        error = await refused(mesh.history.GetBars(pb2.GetBarsRequest()))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_FILE_INVALID")
    assert str(broken) in error.message


async def test_nothing_is_recorded_of_what_is_not_wanted_and_memory_answers_alone(tmp_path: Path) -> None:
    async with served(tmp_path, record=["LIVE"]) as mesh:
        await mesh.feed(ticks_of(2_000))
        assert times_of(await mesh.stream(**sequences(1_900, 2_000))) == expected(1_900, 2_000, ticks_of(2_000))
        messages = await mesh.stream(**sequences(1, 2_000))
        assert messages[-1].end.ticks_missing == 2_000 - RING
        assert not mesh.places.root.exists() or mesh.places.series() == []


async def test_a_product_means_the_contract_of_the_time(mesh: Served) -> None:
    now = await mesh.instruments.ResolveSymbol(instruments_pb2.ResolveSymbolRequest(symbol="nq"))
    assert (now.symbol, now.by_rule, now.roll.next_symbol) == ("NQZ26-CME", True, "NQH27-CME")
    then = at(int(datetime(2025, 9, 9, tzinfo=UTC).timestamp()) * SECOND_NS)
    asked = instruments_pb2.ResolveSymbolRequest(symbol="NQ-CME", at_time=then)
    assert (await mesh.instruments.ResolveSymbol(asked)).symbol == "NQZ25-CME"
    index = await mesh.instruments.ResolveSymbol(instruments_pb2.ResolveSymbolRequest(symbol="VIX"))
    assert (index.symbol, index.HasField("roll")) == ("VIX-CGI", False)


async def test_the_rollover_of_the_primary_symbol_is_told(mesh: Served) -> None:
    told = await mesh.instruments.GetRollover(instruments_pb2.GetRolloverRequest())
    assert [roll.symbol for roll in told.rolls] == ["NQZ26-CME", "NQH27-CME", "NQM27-CME", "NQU27-CME"]
    assert told.rolls[0].roll_time.ToDatetime() == datetime(2026, 12, 8)  # noqa: DTZ001 - as protobuf gives it
    assert (told.days_left, told.alert_days, told.rolls[0].former_roll_time.ToDatetime().day) == (22, 30, 5)
    assert told.rolls[1].current_time == told.rolls[0].roll_time


async def test_instruments_are_listed_in_pages_and_an_unknown_one_is_refused(mesh: Served) -> None:
    listed = await mesh.instruments.ListInstruments(instruments_pb2.ListInstrumentsRequest(page_size=4))
    token = listed.next_page_token
    rest = await mesh.instruments.ListInstruments(instruments_pb2.ListInstrumentsRequest(page_size=4, page_token=token))
    found = {each.root: each for each in (*listed.instruments, *rest.instruments)}
    assert list(found) == ["ES", "MES", "MNQ", "NQ", "RTY", "VIX", "YM"]
    assert (found["NQ"].tick_e9, found["NQ"].multiplier, found["NQ"].calendar) == (250_000_000, 20, "CMES")
    assert (found["VIX"].tradeable, found["VIX"].calendar, found["VIX"].current_symbol) == (False, "", "VIX-CGI")
    one = await mesh.instruments.GetInstrument(instruments_pb2.GetInstrumentRequest(symbol="NQH27-CME"))
    assert one.instrument == found["NQ"]
    error = await refused(mesh.instruments.GetInstrument(instruments_pb2.GetInstrumentRequest(symbol="NP")))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_INSTRUMENT_UNKNOWN")
    assert error.metadata["nearest"] == "NQ"
