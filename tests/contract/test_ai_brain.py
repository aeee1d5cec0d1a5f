"""AIBrainService as its clients see it, and what it makes of market data and of the event bus."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import grpc
import numpy as np
import pytest
from grpclib.client import Channel

from minhos_api.brain.v1 import ai_brain_service_pb2 as pb2
from minhos_api.brain.v1 import brain_events_pb2, signal_pb2
from minhos_api.brain.v1.ai_brain_service_pb2_grpc import AIBrainServiceStub
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_dataclasses.brain import v1 as dataclasses
from minhos_mesh.ai_brain.bootstrap import build
from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.ai_brain.journal import CONDITION, SignalJournal
from minhos_mesh.ai_brain.service import Brain, Fact
from minhos_mesh.ai_brain.servicer import ERRORS, AIBrainServicer
from minhos_mesh.ai_brain.translate import signal_to_proto
from minhos_mesh.event_bus.bootstrap import build as build_bus
from minhos_mesh.market_data.bootstrap import build as build_market
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.event_envelope import make_event
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field

NQ, ES = "NQZ26-CME", "ESZ26-CME"
BRAIN = "minhos_api.brain.v1.AIBrainService"
BUS = "minhos_api.events.v1.EventBusService"
INGEST = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER = "minhos_api.market.v1.MarketDataProviderService"
SIMULATED, REPLAY = provenance_pb2.PROVENANCE_SIMULATED, provenance_pb2.PROVENANCE_REPLAY
NOW_NS = 1_795_300_000_000_000_000
TICK_E9 = 250_000_000
SHORT = {"fast_bars": 2, "slow_bars": 4, "rsi_bars": 3, "volatility_bars": 3, "volume_bars": 3}


def walked(count: int, seed: int = 2, until_ns: int = NOW_NS, drift: float = 0.0) -> TickArray:
    """A seeded walk with a trade each two seconds on average, whose last trade is at `until_ns`."""
    random = np.random.default_rng(seed)
    after = np.cumsum(random.integers(1, 4_000_000, count)) * 1_000
    ticks = new_ticks(count)
    ticks["event_time_ns"] = ticks["receive_time_ns"] = until_ns - after[-1] + after
    ticks["price_e9"] = (94_000 + np.rint(np.cumsum(random.normal(drift, 3.0, count))).astype(np.int64)) * TICK_E9
    ticks["bid_e9"], ticks["ask_e9"] = ticks["price_e9"] - TICK_E9, ticks["price_e9"]
    ticks["size"], ticks["flags"], ticks["kind"], ticks["side"] = random.integers(1, 9, count), 15, 1, 1
    return ticks


async def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.002)


# --- the contract over a brain that is fed by hand -----------------------------------------------------------------


class Silent:
    """Tells nobody."""

    async def tell(self, facts: Sequence[Fact]) -> None:
        assert facts


def brain_of(clock: ManualClock, *, replay: bool = False, periods: Periods | None = None) -> Brain[signal_pb2.Signal]:
    return Brain(
        {NQ: TICK_E9, ES: TICK_E9},
        primary=NQ,
        periods=periods or Periods(fast=2, slow=4, rsi=3, volatility=3, volume=3, pattern=4),
        thresholds=(0.5, 0.75),
        max_price_age_s=60.0,
        replay=replay,
        clock=clock,
        teller=Silent(),
        say=signal_to_proto,
    )


class Served:
    """A brain on a port."""

    def __init__(self, brain: Brain[signal_pb2.Signal], clock: ManualClock, address: str, clients: Clients) -> None:
        self.brain, self.clock, self.address = brain, clock, address
        self.stub: Any = clients.stub(AIBrainServiceStub)

    async def feed(self, count: int, symbol: str = NQ, **walk: Any) -> list[str]:
        """Ids of the signals that are held afterwards, the oldest first."""
        await self.brain.add(symbol, 7, REPLAY if self.brain._replay else SIMULATED, walked(count, **walk), 1)
        return [signal.signal_id for signal in self.brain.held]


@contextlib.asynccontextmanager
async def serving(*, replay: bool = True, periods: Periods | None = None) -> AsyncIterator[Served]:
    clock = ManualClock(NOW_NS)
    brain = brain_of(clock, replay=replay, periods=periods)
    async with MeshServer([AIBrainServicer(brain)], errors=ERRORS) as server:
        clients = Clients({BRAIN: server.address})
        try:
            yield Served(brain, clock, server.address, clients)
        finally:
            brain.signals.close()
            await clients.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


async def refused(call: Any) -> errors.CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return errors.read(caught.value)


BAD = [
    ("AnalyzeMarket", pb2.AnalyzeMarketRequest(symbol="CLZ26-NYM"), "NOT_FOUND", "SYMBOL_UNKNOWN", "known are ESZ26"),
    ("AnalyzeMarket", pb2.AnalyzeMarketRequest(symbol=""), "INVALID_ARGUMENT", "INVALID_FIELD", "symbol"),
    ("AnalyzeMarket", pb2.AnalyzeMarketRequest(symbol="N Q"), "INVALID_ARGUMENT", "INVALID_FIELD", "symbol"),
    ("AnalyzeMarket", pb2.AnalyzeMarketRequest(), "FAILED_PRECONDITION", "DATA_INSUFFICIENT", "has 0 closed bars"),
    ("GenerateSignal", pb2.GenerateSignalRequest(symbol="x"), "NOT_FOUND", "SYMBOL_UNKNOWN", "'x' is not configured"),
    ("GenerateSignal", pb2.GenerateSignalRequest(symbol=ES), "FAILED_PRECONDITION", "DATA_INSUFFICIENT", "needed"),
    ("GenerateSignal", pb2.GenerateSignalRequest(symbol="a" * 33), "INVALID_ARGUMENT", "INVALID_FIELD", "symbol"),
    ("GetCurrentSignal", pb2.GetCurrentSignalRequest(symbol="x"), "NOT_FOUND", "SYMBOL_UNKNOWN", "known are"),
    ("ListSignals", pb2.ListSignalsRequest(page_size=-1), "INVALID_ARGUMENT", "INVALID_FIELD", "page_size"),
    ("ListSignals", pb2.ListSignalsRequest(page_token="no"), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "begin again"),
    ("ListSignals", pb2.ListSignalsRequest(page_token="n" * 201), "INVALID_ARGUMENT", "INVALID_FIELD", "page_token"),
]


@pytest.mark.parametrize(("method", "request_", "code", "reason", "says"), BAD)
async def test_bad_requests_are_refused_with_code_and_reason(
    served: Served, method: str, request_: Any, code: str, reason: str, says: str
) -> None:
    told = await refused(getattr(served.stub, method)(request_))
    assert (told.code.name, told.reason) == (code, f"ERROR_REASON_{reason}")
    assert says in told.message


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb2.WatchSignalsRequest(symbols=["x"]), "NOT_FOUND", "ERROR_REASON_SYMBOL_UNKNOWN"),
        (pb2.WatchSignalsRequest(after_revision=5), "OUT_OF_RANGE", "ERROR_REASON_POSITION_LOST"),
        (pb2.WatchSignalsRequest(after_revision=2**62), "OUT_OF_RANGE", "ERROR_REASON_POSITION_LOST"),
    ],
)
async def test_a_watch_that_cannot_begin_is_refused(served: Served, request_: Any, code: str, reason: str) -> None:
    told = await refused(served.stub.WatchSignals(request_).read())
    assert (told.code.name, told.reason) == (code, reason)


async def test_a_stale_price_gives_no_signal_and_says_its_age() -> None:
    async with serving(replay=False) as served:
        await served.feed(3_000)
        await served.stub.GenerateSignal(pb2.GenerateSignalRequest())
        served.clock.advance(61)
        for call in (
            served.stub.GenerateSignal(pb2.GenerateSignalRequest()),
            served.stub.AnalyzeMarket(pb2.AnalyzeMarketRequest()),
        ):
            told = await refused(call)
            assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "ERROR_REASON_DATA_INSUFFICIENT")
            assert told.message == f"the newest price of {NQ} is 61.0 s old: at most 60 s is allowed"
            assert told.metadata["age_s"] == "61.0"


async def test_a_generated_signal_is_whole_and_is_not_published(served: Served) -> None:
    ids = await served.feed(3_000)
    signal = (await served.stub.GenerateSignal(pb2.GenerateSignalRequest())).signal
    assert (signal.symbol, signal.through_sequence, signal.quote.sequence, signal.quote.epoch) == (NQ, 3_000, 3_000, 7)
    assert signal.decision_time.ToNanoseconds() == NOW_NS
    assert signal.quote.provenance == REPLAY
    assert {reason.analysis for reason in signal.reasons} == set(range(1, 6))
    assert [abs(r.score) for r in signal.reasons] == sorted((abs(r.score) for r in signal.reasons), reverse=True)
    assert all(reason.message and reason.code and reason.values for reason in signal.reasons)
    assert [held.signal_id for held in served.brain.held] == ids
    analysis = (await served.stub.AnalyzeMarket(pb2.AnalyzeMarketRequest(symbol=NQ))).analysis
    assert analysis.score == pytest.approx(sum(finding.score for finding in analysis.findings))
    assert analysis.support_e9 < analysis.quote.last_price_e9 or not analysis.HasField("support_e9")


async def test_the_current_signal_is_the_newest_told_one_and_unset_before_the_first(served: Served) -> None:
    answer = await served.stub.GetCurrentSignal(pb2.GetCurrentSignalRequest())
    assert not answer.HasField("signal")
    ids = await served.feed(3_000)
    answer = await served.stub.GetCurrentSignal(pb2.GetCurrentSignalRequest(symbol=NQ))
    assert answer.signal.signal_id == ids[-1]
    assert answer.signal.action in {signal_pb2.SIGNAL_ACTION_BUY, signal_pb2.SIGNAL_ACTION_SELL}
    assert not (await served.stub.GetCurrentSignal(pb2.GetCurrentSignalRequest(symbol=ES))).HasField("signal")


async def test_pages_hold_every_signal_once_the_newest_first_while_new_ones_come(served: Served) -> None:
    ids = await served.feed(6_000)
    assert len(ids) > 12
    request, listed = pb2.ListSignalsRequest(page_size=5), []
    while True:
        answer = await served.stub.ListSignals(request)
        assert len(answer.signals) <= 5
        listed += [signal.signal_id for signal in answer.signals]
        request.page_token = answer.next_page_token
        if len(listed) == 5:
            await served.feed(3_000, ES, seed=5)
        if not request.page_token:
            break
    assert listed == ids[::-1]
    only = await served.stub.ListSignals(pb2.ListSignalsRequest(symbol=ES, page_size=100_000))
    assert {signal.symbol for signal in only.signals} == {ES}
    assert only.next_page_token == ""


async def test_a_page_token_is_good_for_its_own_symbol_only(served: Served) -> None:
    await served.feed(6_000)
    token = (await served.stub.ListSignals(pb2.ListSignalsRequest(page_size=1))).next_page_token
    told = await refused(served.stub.ListSignals(pb2.ListSignalsRequest(symbol=NQ, page_token=token)))
    assert told.reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_counters_say_how_far_the_brain_has_come(served: Served) -> None:
    ids = await served.feed(3_000)
    served.brain.gap(NQ)
    es, nq = (await served.stub.ListSignals(pb2.ListSignalsRequest(page_size=1))).progress
    assert (es.symbol, es.through_sequence, es.HasField("event_time")) == (ES, 0, False)
    assert (nq.symbol, nq.epoch, nq.through_sequence, nq.ticks_delivered, nq.gaps) == (NQ, 7, 3_000, 3_000, 1)
    assert (nq.signals, nq.told_sequence, nq.event_time.ToNanoseconds()) == (len(ids), 3_000, NOW_NS)
    assert nq.bars == served.brain.bars(NQ) > 50


async def read(call: Any, count: int) -> list[pb2.WatchSignalsResponse]:
    async with asyncio.timeout(10):
        return [await call.read() for _ in range(count)]


async def test_a_watch_begins_with_the_newest_of_each_symbol_and_goes_on_with_each_signal(served: Served) -> None:
    nq = await served.feed(3_000)
    both = await served.feed(3_000, ES)
    call = served.stub.WatchSignals(pb2.WatchSignalsRequest())
    (first,) = await read(call, 1)
    assert [signal.signal_id for signal in first.snapshot.signals] == [both[-1], nq[-1]]
    assert first.revision == served.brain.signals.newest
    assert (await served.stub.ListSignals(pb2.ListSignalsRequest())).revision == first.revision
    assert (await served.stub.GetCurrentSignal(pb2.GetCurrentSignalRequest())).revision == first.revision
    await served.brain.add(NQ, 8, REPLAY, walked(3_000), 1)
    new = [signal.signal_id for signal in served.brain.held][len(both) :]
    told = await read(call, len(new))
    assert [message.signal.signal_id for message in told] == new
    assert [message.revision for message in told] == list(range(first.revision + 1, first.revision + 1 + len(new)))
    call.cancel()


async def test_a_watch_resumes_behind_a_revision_without_a_double_or_a_gap(served: Served) -> None:
    ids = await served.feed(6_000)
    after = served.brain.signals.newest - 4
    call = served.stub.WatchSignals(pb2.WatchSignalsRequest(after_revision=after))
    told = await read(call, 4)
    assert [(message.signal.signal_id, message.revision - after) for message in told] == [
        (signal_id, index + 1) for index, signal_id in enumerate(ids[-4:])
    ]
    call.cancel()


async def test_a_watch_of_one_symbol_is_told_of_no_other(served: Served) -> None:
    call = served.stub.WatchSignals(pb2.WatchSignalsRequest(symbols=[ES]))
    (first,) = await read(call, 1)
    assert list(first.snapshot.signals) == []
    reading = asyncio.create_task(read(call, 1))
    await served.feed(3_000)
    await asyncio.sleep(0)
    await served.feed(3_000, ES)
    (message,) = await reading
    assert message.signal.symbol == ES
    call.cancel()


async def test_the_dataclass_client_reads_the_same_signal(served: Served) -> None:
    ids = await served.feed(3_000)
    host, port = served.address.split(":")
    async with Channel(host, int(port)) as channel:
        stub = dataclasses.AiBrainServiceStub(channel)
        answer = await stub.get_current_signal(dataclasses.GetCurrentSignalRequest(symbol=NQ))
        listed = await stub.list_signals(dataclasses.ListSignalsRequest(page_size=2))
    assert answer.signal.signal_id == ids[-1]
    assert [signal.signal_id for signal in listed.signals] == ids[:-3:-1]
    mine = (await served.stub.GetCurrentSignal(pb2.GetCurrentSignalRequest(symbol=NQ))).signal
    assert signal_pb2.Signal.FromString(bytes(answer.signal)) == mine


# --- the whole service beside a real bus and real market data ------------------------------------------------------


class Mesh:
    """An event bus and market data on ports, and brains that come and go."""

    def __init__(self, folder: Path, config: MeshConfig) -> None:
        self.folder, self.config = folder, config
        self.clock = ManualClock(NOW_NS)
        self._targets: dict[str, str] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.serve("event_bus", build_bus, BUS)
        await self.serve("market_data", build_market, INGEST, PROVIDER)
        self.clients = Clients(self._targets)
        self._stack.push_async_callback(self.clients.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def serve(self, name: str, build_service: Any, *contracts: str) -> None:
        context = self.context(name)
        self._stack.push_async_callback(context.clients.close)
        parts = await self._stack.enter_async_context(build_service(context))
        server = await self._stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        self._stack.push_async_callback(context.tasks.close)
        self._stack.callback(context.stopping.set)
        await parts.start()
        self._targets.update(dict.fromkeys(contracts, server.address))

    def context(self, name: str) -> ServiceContext:
        paths = MeshPaths(self.folder)
        paths.create()
        return ServiceContext(name, f"{name}-1", self.config, paths, Clients(self._targets), clock=self.clock)

    @contextlib.asynccontextmanager
    async def brain(self) -> AsyncIterator[tuple[Any, ServiceContext]]:
        context = self.context("ai_brain")
        async with build(context) as parts, MeshServer(parts.servicers, errors=parts.errors) as server:
            await parts.start()
            clients = Clients({BRAIN: server.address})
            yield clients.stub(AIBrainServiceStub), context
            await clients.close()
            await context.tasks.close()
        await context.clients.close()

    async def feed(self, ticks: TickArray, provenance: int = SIMULATED, epoch: int = 7) -> None:
        call: Any = self.clients.channel(INGEST).stream_stream(
            f"/{INGEST}/IngestTicks",
            request_serializer=bytes_or_message,
            response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
        )()
        opened = ingest_pb2.IngestOpen(
            source="walk", symbol=NQ, provenance=provenance_pb2.Provenance.ValueType(provenance), epoch=epoch
        )
        await call.write(ingest_pb2.IngestTicksRequest(open=opened))
        through = (await call.read()).opened.through_position
        await call.write(in_field(1, encode_batch(NQ, provenance, epoch, through + 1, ticks)))
        async with asyncio.timeout(10):
            while (await call.read()).ack.through_position < through + len(ticks):
                pass
        call.cancel()

    async def told(self) -> list[event_pb2.Event]:
        stub: Any = self.clients.stub(EventBusServiceStub)
        asked = bus_pb2.ListEventsRequest(types=["ai.signal_generated"], ascending=True, page_size=1_000)
        return list((await stub.ListEvents(asked)).events)


def config(provenance: str) -> MeshConfig:
    overrides = {
        "market_data": {"symbols": [NQ]},
        "sierra_client": {"provenance": provenance},
        "brain": SHORT,
    }
    return load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with Mesh(tmp_path, config("SIMULATED")) as made:
        yield made


async def listed(stub: Any) -> list[str]:
    answer = await stub.ListSignals(pb2.ListSignalsRequest(page_size=1_000))
    return [signal.signal_id for signal in reversed(answer.signals)]


async def through(stub: Any, sequence: int) -> None:
    async with asyncio.timeout(10):
        while (await stub.ListSignals(pb2.ListSignalsRequest())).progress[0].told_sequence < sequence:
            await asyncio.sleep(0.005)


async def test_a_brain_primed_from_bars_tells_at_its_first_look_and_never_twice(mesh: Mesh) -> None:
    ticks = walked(2_001, drift=1.0)
    await mesh.feed(ticks[:2_000])
    async with mesh.brain() as (stub, _):
        assert await listed(stub) == []
        await mesh.feed(ticks[2_000:])
        await through(stub, 2_001)
        (event,) = await mesh.told()
        assert event.subject == NQ
        assert event.event_time.ToNanoseconds() == NOW_NS
        assert await listed(stub) == [f"{NQ}:7:2001"] == [event.correlation_id]
    more = walked(20, seed=8, until_ns=NOW_NS + 30_000_000_000, drift=1.0)
    more["event_time_ns"] = np.maximum(more["event_time_ns"], NOW_NS)
    more["price_e9"] += ticks["price_e9"][-1] - more["price_e9"][0]
    async with mesh.brain() as (stub, _):
        assert await listed(stub) == [f"{NQ}:7:2001"]
        assert (await stub.GetCurrentSignal(pb2.GetCurrentSignalRequest())).signal.signal_id == f"{NQ}:7:2001"
        await mesh.feed(more)
        await through(stub, 2_021)
        new = [event.correlation_id for event in await mesh.told()][1:]
        assert await listed(stub) == [f"{NQ}:7:2001", *new]
        signals = (await stub.ListSignals(pb2.ListSignalsRequest())).signals
        repeated = [now for now, before in itertools.pairwise(signals) if _stands(before, now)]
        assert repeated == []


def _stands(before: signal_pb2.Signal, now: signal_pb2.Signal) -> bool:
    return before.action == now.action and (before.confidence >= 0.75) >= (now.confidence >= 0.75)


async def test_a_replay_after_a_restart_leaves_each_signal_on_the_bus_once(tmp_path: Path) -> None:
    async with Mesh(tmp_path, config("REPLAY")) as mesh:
        async with mesh.brain() as (stub, _):
            await mesh.feed(walked(6_000), REPLAY)
            await through(stub, 6_000)
            first = await listed(stub)
        async with mesh.brain() as (stub, _):
            await through(stub, 6_000)
            assert await listed(stub) == first
        told = [event.correlation_id for event in await mesh.told()]
        assert len(first) > 12
        assert told == first


class Away(grpc.aio.AioRpcError):
    """What a bus that is away answers."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "the bus is away")


class BusThatComesBack:
    """The way to a bus whose first answer is that it is away."""

    def __init__(self, events: Sequence[event_pb2.Event]) -> None:
        self.events, self.asked = events, 0
        self.back = asyncio.Event()

    def stub(self, _kind: object) -> BusThatComesBack:
        return self

    async def ListEvents(self, _request: bus_pb2.ListEventsRequest) -> bus_pb2.ListEventsResponse:
        self.asked += 1
        if self.asked == 1:
            raise Away
        await self.back.wait()
        return bus_pb2.ListEventsResponse(events=self.events)


async def test_a_bus_that_cannot_be_read_makes_the_brain_degraded_until_it_can(served: Served, mesh: Mesh) -> None:
    ids = await served.feed(3_000)
    events = [
        make_event(brain_events_pb2.SignalGenerated(signal=signal), subject=NQ, source="ai_brain", time_ns=NOW_NS)
        for signal in reversed(served.brain.held)
    ]
    context, bus = mesh.context("ai_brain"), BusThatComesBack(events)
    context.clients = cast("Clients", bus)
    fresh = brain_of(ManualClock(NOW_NS))
    reading = context.tasks.start(SignalJournal(context, fresh, (0.5, 0.75)).recall(), "recall")
    await eventually(lambda: bus.asked == 2)
    assert "cannot be read from the event bus: the bus is away" in context.conditions.held()[CONDITION]
    assert not fresh.held
    bus.back.set()
    await reading
    assert CONDITION not in context.conditions.held()
    assert [signal.signal_id for signal in fresh.held] == ids
