from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data import bootstrap
from minhos_mesh.market_data.announcer import BusAnnouncer
from minhos_mesh.market_data.domain.feed import LastQuote
from minhos_mesh.market_data.service import NO_TICKS, REPLAY_WAITS, MarketDataService, Settings
from minhos_mesh.market_data.servicer import ERRORS, MarketDataIngestServicer, MarketDataProviderServicer
from minhos_mesh.market_data.translate import StreamEncoder
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import ManualClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.event_envelope import check_event, make_event
from minhos_mesh.runtime.events import EventClient
from minhos_mesh.runtime.market import (
    FROM_START,
    BarClosed,
    EpochChanged,
    Gap,
    Heartbeat,
    MarketClient,
    MarketKind,
    MarketQuote,
    MarketSubscription,
    MarketUpdate,
    Position,
    SlowReader,
    Snapshot,
    SubscriptionRefused,
    TickBatchView,
)
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field

NQ, ES = "NQZ26-CME", "ESZ26-CME"
INGEST = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER = "minhos_api.market.v1.MarketDataProviderService"
REPLAY, SIMULATED = provenance_pb2.PROVENANCE_REPLAY, provenance_pb2.PROVENANCE_SIMULATED
RULES = Rules(tick_e9=250_000_000)
WALL_NS = 1_790_000_000_000_000_000
FIRST_NS = WALL_NS - 86_400_000_000_000


def ticks_of(count: int, after: int = 0, apart_ns: int = 1_000_000) -> TickArray:
    """Trades of 1 contract whose price tells their position: 0.25 x (position % 1000 + 1)."""
    ticks = new_ticks(count)
    places = np.arange(after, after + count)
    ticks["event_time_ns"] = FIRST_NS + places * apart_ns
    ticks["receive_time_ns"] = ticks["event_time_ns"]
    ticks["price_e9"] = (places % 1000 + 1) * 250_000_000
    ticks["size"], ticks["flags"], ticks["kind"], ticks["side"] = 1, 3, 1, 1
    return ticks


@dataclass
class Mesh:
    """A market data service on a port, and the ways to it."""

    service: MarketDataService
    server: MeshServer
    clients: Clients
    clock: ManualClock
    conditions: Conditions
    encoder: StreamEncoder

    @property
    def provider(self) -> Any:
        return self.clients.stub(MarketDataProviderServiceStub)

    @property
    def market(self) -> MarketClient:
        return MarketClient(self.clients)

    @asynccontextmanager
    async def source(
        self,
        name: str = "walk",
        symbol: str = NQ,
        provenance: provenance_pb2.Provenance.ValueType = SIMULATED,
        epoch: int = 7,
    ) -> AsyncIterator[Source]:
        call = self.clients.channel(INGEST).stream_stream(
            f"/{INGEST}/IngestTicks",
            request_serializer=bytes_or_message,
            response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
        )()
        opened = ingest_pb2.IngestOpen(source=name, symbol=symbol, provenance=provenance, epoch=epoch)
        await call.write(ingest_pb2.IngestTicksRequest(open=opened))
        answer = await soon(call.read())
        source = Source(call, symbol, int(provenance), epoch, answer.opened.through_position)
        try:
            yield source
        finally:
            call.cancel()


@dataclass
class Source:
    """What the Sierra client is to market data."""

    call: Any
    symbol: str
    provenance: int
    epoch: int
    opened_at: int
    ack: ingest_pb2.IngestAck = field(default_factory=ingest_pb2.IngestAck)

    async def send(self, ticks: TickArray, position: int) -> None:
        await self.call.write(in_field(1, encode_batch(self.symbol, self.provenance, self.epoch, position, ticks)))

    async def through(self, position: int) -> ingest_pb2.IngestAck:
        while self.ack.through_position < position:
            answer = await soon(self.call.read())
            if answer.HasField("ack"):
                self.ack = answer.ack
        return self.ack

    async def feed(self, count: int, after: int = 0, apart_ns: int = 1_000_000) -> ingest_pb2.IngestAck:
        await self.send(ticks_of(count, after, apart_ns), after + 1)
        return await self.through(after + count)


async def soon(work: Any, seconds: float = 10.0) -> Any:
    async with asyncio.timeout(seconds):
        return await work


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    symbols: Sequence[str] = (NQ, ES), ring_ticks: int = 65_536, replay_readers: int = 1, port: int = 0
) -> AsyncIterator[Mesh]:
    clock, conditions = ManualClock(WALL_NS), Conditions()
    encoder = StreamEncoder(clock.monotonic)
    settings = Settings(
        dict.fromkeys(symbols, RULES), symbols[0], ring_ticks, replay_readers=replay_readers, grace_s=3.0
    )
    service = MarketDataService(settings, clock, conditions, encoder)
    servicers = [MarketDataProviderServicer(service), MarketDataIngestServicer(service)]
    async with MeshServer(servicers, errors=ERRORS, port=port) as server:
        clients = Clients({INGEST: server.address, PROVIDER: server.address})
        house = asyncio.create_task(service.keep_house())
        try:
            yield Mesh(service, server, clients, clock, conditions, encoder)
        finally:
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)
            await clients.close()
            service.close()


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with serving() as made:
        yield made


async def take(subscription: MarketSubscription, enough: Callable[[list[MarketUpdate]], bool]) -> list[MarketUpdate]:
    updates: list[MarketUpdate] = []

    async def reading() -> None:
        async for update in subscription:
            updates.append(update)
            if enough(updates):
                return

    await soon(reading())
    return updates


def sequences(updates: Sequence[MarketUpdate]) -> list[int]:
    batches = [update for update in updates if isinstance(update, TickBatchView)]
    return [number for batch in batches for number in range(batch.first_sequence, batch.last_sequence + 1)]


def ticks_up_to(last: int) -> Callable[[list[MarketUpdate]], bool]:
    return lambda updates: isinstance(updates[-1], TickBatchView) and updates[-1].last_sequence >= last


# --- questions -----------------------------------------------------------------------------------------------------


async def test_symbol_unset_means_the_primary_and_no_tick_yet_means_no_quote(mesh: Mesh) -> None:
    answer = await mesh.provider.GetMarketData(pb2.GetMarketDataRequest())
    assert (answer.symbol, answer.HasField("quote"), answer.HasField("bar")) == (NQ, False, False)
    answer = await mesh.provider.GetMarketData(pb2.GetMarketDataRequest(symbol="esz26_cme"))
    assert answer.symbol == ES
    assert await mesh.market.quote() is None


@pytest.mark.parametrize(
    ("symbol", "code", "reason", "says"),
    [
        (
            "CLZ26-NYM",
            grpc.StatusCode.NOT_FOUND,
            "ERROR_REASON_SYMBOL_UNKNOWN",
            "'CLZ26-NYM' is not configured: known are ESZ26",
        ),
        ("x", grpc.StatusCode.NOT_FOUND, "ERROR_REASON_SYMBOL_UNKNOWN", "known are"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD", "symbol"),
        ("NQ Z26", grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD", "symbol"),
    ],
)
async def test_wrong_symbol_is_refused(mesh: Mesh, symbol: str, code: grpc.StatusCode, reason: str, says: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.provider.GetMarketData(pb2.GetMarketDataRequest(symbol=symbol))
    told = errors.read(caught.value)
    assert (told.code, told.reason) == (code, reason)
    assert says in told.message
    if reason == "ERROR_REASON_SYMBOL_UNKNOWN":
        assert (told.metadata["symbol"], told.metadata["known"]) == (symbol, f"{ES}, {NQ}")


async def test_an_unknown_symbol_is_answered_with_the_nearest_one(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.provider.GetMarketData(pb2.GetMarketDataRequest(symbol="NQH27-CME"))
    told = errors.read(caught.value)
    assert told.metadata["nearest"] == NQ
    assert f"was {NQ} meant?" in told.message


async def test_last_values_counters_and_open_bar_are_told(mesh: Mesh) -> None:
    async with mesh.source() as source:
        ticks = ticks_of(5, apart_ns=30_000_000_000)
        ticks["size"][2] = 0
        await source.send(ticks, 1)
        ack = await source.through(5)
        assert (ack.through_position, ack.through_sequence, ack.rejected) == (5, 4, 1)
        all_of_them = await mesh.provider.GetAllMarketData(pb2.GetAllMarketDataRequest())
        es, nq = all_of_them.symbols
        assert (es.symbol, es.HasField("quote"), es.source) == (ES, False, "")
        assert (nq.records_read, nq.ticks_sequenced, dict(nq.rejected)) == (5, 4, {"ZERO_SIZE": 1})
        assert (nq.source, nq.bars_closed) == ("walk", 2)
        answer = await mesh.provider.GetMarketData(pb2.GetMarketDataRequest())
        assert (answer.quote.last_price_e9, answer.quote.sequence, answer.quote.epoch) == (1_250_000_000, 4, 7)
        assert not answer.quote.HasField("bid_e9")
        assert (answer.bar.trade_count, answer.bar.closed, answer.bar.last_sequence) == (1, False, 4)
        quote = await mesh.market.quote(NQ)
        assert quote is not None
        assert (quote.last_price_e9, quote.bid_e9, quote.volume) == (1_250_000_000, None, 4)


# --- sources -------------------------------------------------------------------------------------------------------


async def _refused(mesh: Mesh, *messages: bytes | ingest_pb2.IngestTicksRequest) -> errors.CallError:
    call = mesh.clients.channel(INGEST).stream_stream(
        f"/{INGEST}/IngestTicks",
        request_serializer=bytes_or_message,
        response_deserializer=ingest_pb2.IngestTicksResponse.FromString,
    )()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        for message in messages:
            await soon(call.write(message))
        while await soon(call.read()) is not grpc.aio.EOF:
            pass
    return errors.read(caught.value)


def _open(**changes: Any) -> ingest_pb2.IngestTicksRequest:
    values: dict[str, Any] = {"source": "other", "symbol": ES, "provenance": SIMULATED, "epoch": 9} | changes
    return ingest_pb2.IngestTicksRequest(open=ingest_pb2.IngestOpen(**values))


def _batch(symbol: str = ES, epoch: int = 9, position: int = 1, provenance: int = 4) -> bytes:
    return in_field(1, encode_batch(symbol, provenance, epoch, position, ticks_of(3)))


BAD_STREAMS: list[tuple[str, list[Any], str, str]] = [
    ("batch first", [_batch()], "INVALID_FIELD", "allowed is `open` as the first message of IngestTicks"),
    ("open twice", [_open(), _open()], "INVALID_FIELD", "allowed is `batch` or `end` behind the first message"),
    ("unknown symbol", [_open(symbol="CLZ26-NYM")], "SYMBOL_UNKNOWN", "is not configured"),
    ("no epoch", [_open(epoch=0)], "INVALID_FIELD", "epoch"),
    ("no provenance", [_open(provenance=0)], "INVALID_FIELD", "provenance"),
    (
        "second source",
        [_open(symbol=NQ)],
        "SOURCE_CONFLICT",
        "NQZ26-CME is fed by walk (epoch 7): other (epoch 9) must wait",
    ),
    ("second epoch", [_open(symbol=NQ, source="walk", epoch=8)], "SOURCE_CONFLICT", "walk (epoch 8) must wait"),
    ("other source, same epoch", [_open(symbol=NQ, epoch=7)], "SOURCE_CONFLICT", "other (epoch 7) must wait"),
    (
        "other symbol",
        [_open(), _batch(symbol=NQ)],
        "INVALID_FIELD",
        "allowed is ESZ26-CME, for which the stream was opened",
    ),
    (
        "other epoch",
        [_open(), _batch(epoch=8)],
        "POSITION_MISMATCH",
        "batch.epoch of ESZ26-CME is 8: allowed is 9, with which",
    ),
    (
        "other provenance",
        [_open(), _batch(provenance=1)],
        "POSITION_MISMATCH",
        "batch.provenance of ESZ26-CME is LIVE: allowed is SIMULATED",
    ),
    (
        "records left out",
        [_open(), _batch(), _batch(position=9)],
        "POSITION_MISMATCH",
        "batch.first_sequence of ESZ26-CME is 9: allowed is at most 4",
    ),
    ("position 0", [_open(), _batch(position=0)], "POSITION_MISMATCH", "count from 1"),
    ("no batch at all", [_open(), in_field(1, b"\xff\xff\xff")], "INVALID_FIELD", "no batch of ticks"),
    ("torn batch", [_open(), in_field(1, _batch()[5:-7])], "INVALID_FIELD", "no batch of ticks"),
]


@pytest.mark.parametrize(
    ("messages", "reason", "says"), [row[1:] for row in BAD_STREAMS], ids=[row[0] for row in BAD_STREAMS]
)
async def test_wrong_source_is_refused_and_the_others_are_not_disturbed(
    mesh: Mesh, messages: list[Any], reason: str, says: str
) -> None:
    async with mesh.source() as source:
        await source.feed(2)
        told = await _refused(mesh, *messages)
        assert told.reason == f"ERROR_REASON_{reason}"
        assert says in told.message
        if reason in {"INVALID_FIELD", "POSITION_MISMATCH"} and told.metadata.get("field", "").startswith(("b", "m")):
            assert {"field", "seen", "allowed"} <= set(told.metadata)
        if reason == "SOURCE_CONFLICT":
            assert (told.metadata["symbol"], told.metadata["held"], told.metadata["held_epoch"]) == (NQ, "walk", "7")
        assert (await source.feed(2, 2)).through_sequence == 4


async def test_a_changed_provenance_needs_a_new_epoch(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(2)
    told = await _refused(mesh, _open(source="walk", symbol=NQ, epoch=7, provenance=provenance_pb2.PROVENANCE_LIVE))
    assert told.reason == "ERROR_REASON_PROVENANCE_REFUSED"


async def test_a_source_that_comes_back_goes_on_and_what_it_sends_twice_counts_once(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(10)
    async with mesh.source() as again:
        assert again.opened_at == 10
        await again.send(ticks_of(8, 5), 6)
        ack = await again.through(13)
        assert (ack.through_sequence, ack.rejected) == (13, 0)


async def test_a_new_stream_of_the_same_source_takes_the_place_of_a_dead_one(mesh: Mesh) -> None:
    async with mesh.source() as half_open:
        await half_open.feed(3)
        async with mesh.source() as source:
            assert source.opened_at == 3
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await soon(half_open.call.read()) is not grpc.aio.EOF:
                    pass
            told = errors.read(caught.value)
            assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_SOURCE_CONFLICT")
            assert "another stream, which took the place of this one" in told.message
            assert (await source.feed(3, 3)).through_sequence == 6


async def test_another_epoch_of_a_source_is_taken_once_its_stream_has_ended(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(3)
    await until(lambda: mesh.service.find(NQ).owner is None)
    async with mesh.source(epoch=8) as renewed:
        assert renewed.opened_at == 0
        assert (await renewed.feed(2)).through_sequence == 2


async def test_a_source_that_leaves_fields_unset_is_read_by_protobuf(mesh: Mesh) -> None:
    async with mesh.source() as source:
        batch = tick_pb2.TickBatch(symbol=NQ, provenance=SIMULATED, epoch=7, first_sequence=1)
        for place in range(4):
            batch.ticks.add(
                event_time_ns=FIRST_NS + place, price_e9=250_000_000, flags=1, kind=tick_pb2.TICK_KIND_TRADE
            )
        await source.call.write(ingest_pb2.IngestTicksRequest(batch=batch))
        assert (await source.through(4)).through_sequence == 4
        quote = await mesh.market.quote()
        assert quote is not None
        assert (quote.last_price_e9, quote.last_size) == (250_000_000, None)


async def test_a_source_that_ended_gets_its_last_answer_and_the_stream_ends(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.send(ticks_of(4), 1)
        await source.call.write(ingest_pb2.IngestTicksRequest(end=ingest_pb2.IngestEnd(through_position=4)))
        await source.call.done_writing()
        assert (await source.through(4)).through_position == 4
        assert await soon(source.call.read()) is grpc.aio.EOF


# --- readers -------------------------------------------------------------------------------------------------------


async def test_snapshot_then_updates_without_a_hole(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.market.subscribe([NQ], bars_back=2) as reading:
        await source.feed(10, apart_ns=30_000_000_000)
        updates = asyncio.create_task(take(reading, ticks_up_to(30)))
        await until(lambda: mesh.service.subscribers(NQ) == 1 and bool(reading.positions))
        for place in range(10, 30):
            await source.feed(1, place, 30_000_000_000)
        got = await updates
        snapshot = got[0]
        assert isinstance(snapshot, Snapshot)
        assert snapshot.position == Position(7, 10)
        assert [bar.last_sequence for bar in snapshot.bars] == [6, 8]
        assert snapshot.open_bar is not None
        assert sequences(got) == list(range(11, 31))
        (first, *_) = [update for update in got if isinstance(update, TickBatchView)]
        assert first.objects()[0].price_e9 == 11 * 250_000_000
        assert (first.symbol, first.provenance, first.epoch) == (NQ, SIMULATED, 7)


async def test_a_source_that_sends_again_what_was_taken_is_answered_too(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(30)
        for _ in range(2):
            await source.send(ticks_of(20), 1)
            answer = await soon(source.call.read())
            assert (answer.ack.through_position, answer.ack.through_sequence) == (30, 30)


async def test_a_batch_is_encoded_by_its_source_and_all_readers_get_the_same_bytes(mesh: Mesh) -> None:
    call: Any = mesh.clients.channel(PROVIDER).stream_stream(
        f"/{PROVIDER}/SubscribeMarketData",
        request_serializer=pb2.SubscribeMarketDataRequest.SerializeToString,
        response_deserializer=None,
    )
    calls = [call() for _ in range(4)]
    for reader in calls:
        await reader.write(pb2.SubscribeMarketDataRequest(subscribe=pb2.MarketSubscription(symbols=[NQ])))
        for _ in range(2):  # the answer and the snapshot
            await soon(reader.read())
    async with mesh.source() as source:
        for place in (0, 50, 51):
            await source.feed(50 if place == 0 else 1 if place == 50 else 700, place)
            seen = {await soon(reader.read()) for reader in calls}
            assert len(seen) == 1
            batch = pb2.SubscribeMarketDataResponse.FromString(seen.pop()).ticks
            assert batch.first_sequence == place + 1
            assert batch.tick_count == len(batch.ticks)
    assert mesh.encoder.batches_encoded == 0  # the bytes in which it came are those in which it goes
    for reader in calls:
        reader.cancel()


async def test_a_reader_that_does_not_read_delays_nobody_and_is_told_what_it_missed() -> None:
    async with serving(ring_ticks=32_768) as mesh, mesh.source() as source:
        slow: Any = mesh.clients.channel(PROVIDER).stream_stream(
            f"/{PROVIDER}/SubscribeMarketData",
            request_serializer=pb2.SubscribeMarketDataRequest.SerializeToString,
            response_deserializer=pb2.SubscribeMarketDataResponse.FromString,
        )()
        await slow.write(pb2.SubscribeMarketDataRequest(subscribe=pb2.MarketSubscription(symbols=[NQ])))
        fast = mesh.market.subscribe([NQ], resume={NQ: FROM_START})
        total = 30 * 16_384
        updates = asyncio.create_task(take(fast, ticks_up_to(total)))
        await until(lambda: mesh.service.subscribers(NQ) == 2)
        for place in range(0, total, 16_384):
            await source.feed(16_384, place)
            await until(lambda place=place: fast.positions[NQ].sequence == place + 16_384)  # type: ignore[misc]  # mypy cannot type a default
        assert sequences(await updates) == list(range(1, total + 1))
        seen, missed = 0, 0
        while seen + missed < total:
            message = await soon(slow.read())
            if message.HasField("ticks"):
                assert message.ticks.first_sequence == seen + missed + 1
                seen += len(message.ticks.ticks)
            elif message.HasField("gap"):
                assert message.gap.first_sequence == seen + missed + 1
                missed += message.gap.last_sequence - message.gap.first_sequence + 1
        assert missed > 0
        assert seen + missed == total
        slow.cancel()


async def test_a_replay_waits_for_its_lossless_readers_and_loses_nothing() -> None:
    async with serving(ring_ticks=1_024, replay_readers=2) as mesh, mesh.source(provenance=REPLAY) as source:
        feeding = asyncio.create_task(source.feed(10_000))
        feed = mesh.service.find(NQ).feed
        await until(lambda: feed.sequence == 1_024)
        mesh.service.look_for_readers()
        says = f"the replay waits: {NQ} at sequence 1024 for 2 more lossless readers"
        assert mesh.conditions.held() == {REPLAY_WAITS: says}
        one = asyncio.create_task(
            take(mesh.market.subscribe(policy=SlowReader.LOSSLESS, resume={NQ: FROM_START}), ticks_up_to(10_000))
        )
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        assert feed.sequence == 1_024
        held = mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume={NQ: FROM_START})
        first = await take(held, ticks_up_to(1_024))
        held.close()
        assert sequences(first) == list(range(1, 1_025))
        two = asyncio.create_task(
            take(mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume=held.positions), ticks_up_to(10_000))
        )
        assert (await soon(feeding)).through_sequence == 10_000
        assert sequences(await one) == list(range(1, 10_001))
        mesh.service.look_for_readers()
        assert not mesh.conditions.held()
        assert sequences(await two) == list(range(1_025, 10_001))


async def test_a_lossless_reader_that_says_how_far_it_is_done_is_waited_for() -> None:
    async with serving(ring_ticks=1_024) as mesh, mesh.source(provenance=REPLAY) as source:
        live = mesh.service.find(NQ)
        reading = mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS, resume={NQ: FROM_START})
        updates = asyncio.create_task(take(reading, ticks_up_to(3_000)))
        await source.feed(100)
        await until(lambda: reading.positions[NQ].sequence == 100)
        await reading.progress(NQ, 10)
        await until(lambda: live.room() == 1_024 - 90)
        feeding = asyncio.create_task(source.feed(2_900, 100))
        await until(lambda: reading.positions[NQ].sequence == 1_034)
        assert live.room() == 0
        await reading.progress(NQ, 1_034)
        await until(lambda: reading.positions[NQ].sequence == 2_058)
        assert live.room() == 0
        await reading.progress(NQ, 2_058)
        assert (await soon(feeding)).through_sequence == 3_000
        assert sequences(await updates) == list(range(1, 3_001))


async def test_lossless_is_refused_for_what_is_no_replay(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(1)
        with pytest.raises(
            SubscriptionRefused, match="LOSSLESS is refused for NQZ26-CME, whose data is SIMULATED"
        ) as caught:
            await take(mesh.market.subscribe([NQ], policy=SlowReader.LOSSLESS), lambda _: False)
        assert caught.value.reason == "ERROR_REASON_PROVENANCE_REFUSED"


async def test_an_unknown_symbol_is_refused_in_its_answer_and_the_others_are_read(mesh: Mesh) -> None:
    request = pb2.StreamMarketDataRequest(subscription=pb2.MarketSubscription(symbols=["CLZ26-NYM", NQ]))
    call = mesh.provider.StreamMarketData(request)
    one, two = await soon(call.read()), await soon(call.read())
    assert one.subscribed.refused_reason == "ERROR_REASON_SYMBOL_UNKNOWN"
    assert "known are" in one.subscribed.refused_message
    assert (two.subscribed.symbol, two.subscribed.refused_reason) == (NQ, "")
    assert (await soon(call.read())).snapshot.symbol == NQ
    call.cancel()


async def test_resume_that_is_no_longer_held_is_answered_with_the_oldest_and_told_as_a_gap() -> None:
    async with serving(ring_ticks=1_024) as mesh, mesh.source() as source:
        await source.feed(5_000)
        resume = [pb2.MarketPosition(symbol=NQ, epoch=7, sequence=100)]
        call = mesh.provider.StreamMarketData(
            pb2.StreamMarketDataRequest(subscription=pb2.MarketSubscription(symbols=[NQ], resume_after=resume))
        )
        answer = (await soon(call.read())).subscribed
        assert answer.refused_reason == "ERROR_REASON_POSITION_LOST"
        assert answer.oldest.sequence == 5_000 - 1_023
        call.cancel()
        updates = await take(mesh.market.subscribe([NQ], resume={NQ: Position(7, 100)}), ticks_up_to(5_000))
        assert updates[0] == Gap(NQ, 7, 101, 5_000 - 1_024)
        assert sequences(updates) == list(range(5_000 - 1_023, 5_001))


async def test_resume_ahead_of_what_is_held_or_in_another_epoch_is_lost(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(9)
        for epoch, sequence in ((7, 49_999_999), (7, 10), (1, 0), (1, 5), (0, 10)):
            resume = [pb2.MarketPosition(symbol=NQ, epoch=epoch, sequence=sequence)]
            subscription = pb2.MarketSubscription(symbols=[NQ], resume_after=resume)
            call = mesh.provider.StreamMarketData(pb2.StreamMarketDataRequest(subscription=subscription))
            answer = (await soon(call.read())).subscribed
            call.cancel()
            assert answer.refused_reason == "ERROR_REASON_POSITION_LOST"
            assert (answer.oldest.epoch, answer.oldest.sequence, answer.newest.sequence) == (7, 1, 9)
            assert (answer.provenance, answer.HasField("position")) == (SIMULATED, False)


async def test_a_reader_of_a_former_epoch_is_told_of_the_current_one_and_reads_it_whole(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(9)
        updates = await take(mesh.market.subscribe([NQ], resume={NQ: Position(1, 5_000)}), ticks_up_to(9))
    assert updates[0] == EpochChanged(NQ, 7, int(SIMULATED))
    assert sequences(updates) == list(range(1, 10))


async def test_a_reader_ahead_of_a_source_that_catches_up_repeats_nothing_and_misses_nothing(mesh: Mesh) -> None:
    async with mesh.source() as source:
        await source.feed(50, apart_ns=10_000_000_000)
        kinds = {MarketKind.TICKS, MarketKind.BARS}
        reading = mesh.market.subscribe([NQ], kinds, resume={NQ: Position(7, 100)})
        updates = asyncio.create_task(take(reading, ticks_up_to(140)))
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        for place in range(50, 140, 10):
            await source.feed(10, place, 10_000_000_000)
        got = await updates
    assert sequences(got) == list(range(101, 141))
    assert not [update for update in got if isinstance(update, Gap | EpochChanged)]
    bars = [update for update in got if isinstance(update, BarClosed)]
    assert all(bar.closing_sequence > 100 for bar in bars)
    assert all(one.bar.last_sequence + 1 == two.bar.first_sequence for one, two in itertools.pairwise(bars))


@pytest.mark.parametrize(
    ("symbols", "resume", "seen"), [([NQ], [ES], ES), ([], [NQ, "CLZ26-NYM"], "CLZ26-NYM"), ([NQ], [NQ, NQ], NQ)]
)
async def test_resume_of_a_symbol_that_is_not_subscribed_to_is_refused(
    mesh: Mesh, symbols: list[str], resume: list[str], seen: str
) -> None:
    places = [pb2.MarketPosition(symbol=symbol) for symbol in resume]
    subscription = pb2.MarketSubscription(symbols=symbols, resume_after=places)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(mesh.provider.StreamMarketData(pb2.StreamMarketDataRequest(subscription=subscription)).read())
    told = errors.read(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
    assert (told.metadata["field"], told.metadata["seen"]) == (
        f"subscription.resume_after[{len(resume) - 1}].symbol",
        seen,
    )
    assert told.violations[0].field == told.metadata["field"]


async def test_a_subscription_changes_on_the_way(mesh: Mesh) -> None:
    async with mesh.source() as nq, mesh.source(symbol=ES) as es, mesh.market.subscribe([NQ]) as reading:
        seen: list[MarketUpdate] = []

        async def read() -> None:
            async for update in reading:
                seen.append(update)  # noqa: PERF401 - each is looked at as it comes

        task = asyncio.create_task(read())
        await until(lambda: len(seen) == 1)
        await nq.feed(3)
        await until(lambda: sequences(seen) == [1, 2, 3])
        await reading.add([ES])
        await until(lambda: isinstance(seen[-1], Snapshot) and seen[-1].symbol == ES)
        await reading.remove([NQ])
        await until(lambda: mesh.service.subscribers(NQ) == 0)
        await nq.feed(3, 3)
        await es.feed(2)
        await until(lambda: isinstance(seen[-1], TickBatchView) and seen[-1].symbol == ES)
        assert [batch.symbol for batch in seen if isinstance(batch, TickBatchView)] == [NQ, ES]
        reading.close()
        await soon(task)


async def test_quotes_alone_are_the_newest_ones(mesh: Mesh) -> None:
    async with mesh.source() as source:
        reading = mesh.market.subscribe([NQ], {MarketKind.QUOTES})
        updates = asyncio.create_task(
            take(reading, lambda got: isinstance(got[-1], MarketQuote) and got[-1].sequence == 900)
        )
        await until(lambda: mesh.service.subscribers(NQ) == 1)
        await source.send(ticks_of(400), 1)
        await source.send(ticks_of(500, 400), 401)
        quotes = [update for update in await updates if isinstance(update, MarketQuote)]
        assert len(quotes) <= 2
        assert quotes[-1].last_price_e9 == 900 * 250_000_000


async def test_bars_alone_come_when_they_close(mesh: Mesh) -> None:
    async with mesh.source() as source:
        reading = mesh.market.subscribe([NQ], {MarketKind.BARS}, resume={NQ: FROM_START})
        updates = asyncio.create_task(take(reading, lambda got: len(got) == 4))
        await source.feed(9, apart_ns=30_000_000_000)
        bars = [update for update in await updates if isinstance(update, BarClosed)]
        assert [bar.closing_sequence for bar in bars] == [3, 5, 7, 9]
        assert [bar.bar.trades for bar in bars] == [2, 2, 2, 2]
        again = await take(
            mesh.market.subscribe([NQ], {MarketKind.BARS}, resume={NQ: Position(7, 5)}), lambda got: len(got) == 2
        )
        assert [bar.closing_sequence for bar in again if isinstance(bar, BarClosed)] == [7, 9]


async def test_a_new_epoch_is_told_before_its_ticks(mesh: Mesh) -> None:
    reading = mesh.market.subscribe([NQ])
    updates = asyncio.create_task(take(reading, lambda got: sequences(got) == [1, 2, 3, 1, 2]))
    await until(lambda: mesh.service.subscribers(NQ) == 1)
    async with mesh.source() as source:
        await source.feed(3)
        await until(lambda: reading.positions.get(NQ) == Position(7, 3))
    async with mesh.source(epoch=8) as source:
        assert source.opened_at == 0
        await source.feed(2)
    kinds = [type(update) for update in await updates]
    assert kinds == [Snapshot, TickBatchView, EpochChanged, TickBatchView]


async def test_a_silent_stream_gives_signs_of_life_with_counters(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.market.subscribe([NQ]) as reading:
        updates = asyncio.create_task(take(reading, lambda got: isinstance(got[-1], Heartbeat)))
        await until(lambda: bool(reading.positions))
        await source.feed(5)
        await until(lambda: reading.positions[NQ].sequence == 5)
        beats = 0
        while not updates.done():
            mesh.clock.advance(1.0)
            beats += 1
            await asyncio.sleep(0.01)
        assert beats <= 10
        heartbeat = (await updates)[-1]
        assert isinstance(heartbeat, Heartbeat)
        assert (heartbeat.ticks_sent, heartbeat.ticks_missed, dict(heartbeat.newest)) == (5, 0, {NQ: Position(7, 5)})
        assert (await soon(source.call.read())).HasField("heartbeat")


async def test_first_message_of_a_reader_must_subscribe(mesh: Mesh) -> None:
    call = mesh.provider.SubscribeMarketData()
    gone = pb2.MarketUnsubscription(symbols=[NQ])
    await call.write(pb2.SubscribeMarketDataRequest(unsubscribe=gone))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call.read())
    told = errors.read(caught.value)
    assert "allowed is `subscribe` as the first message of SubscribeMarketData" in told.message
    assert (told.metadata["field"], told.metadata["seen"]) == ("message", "`unsubscribe`")


async def test_readers_that_leave_are_forgotten(mesh: Mesh) -> None:
    for _ in range(3):
        async with mesh.market.subscribe([NQ]) as reading:
            await take(reading, lambda got: isinstance(got[0], Snapshot))
    await until(lambda: mesh.service.subscribers(NQ) == 0)


async def test_a_subscription_outlives_its_server_without_a_double_or_a_hole() -> None:
    async with serving() as first:
        port = first.server.port
        clients = Clients({PROVIDER: f"127.0.0.1:{port}"})
        reading = MarketClient(clients).subscribe([NQ], {MarketKind.TICKS, MarketKind.BARS})
        updates = asyncio.create_task(take(reading, ticks_up_to(500)))
        async with first.source() as source:
            await until(lambda: bool(reading.positions))
            for place in range(0, 200, 40):
                await source.feed(40, place, 10_000_000_000)
            await until(lambda: reading.positions[NQ].sequence == 200)
    async with serving(port=port) as second, second.source() as source:
        assert source.opened_at == 0
        await until(lambda: second.service.subscribers(NQ) == 1)
        for place in range(0, 500, 50):
            await source.feed(50, place, 10_000_000_000)
        got = await updates
    await clients.close()
    assert reading.reconnects >= 1
    assert sequences(got) == list(range(1, 501))
    bars = [update.bar for update in got if isinstance(update, BarClosed)]
    assert all(one.last_sequence + 1 == two.first_sequence for one, two in itertools.pairwise(bars))
    assert bars[0].first_sequence == 1
    assert not [update for update in got if isinstance(update, Gap | EpochChanged)]


# --- beside the ticks ----------------------------------------------------------------------------------------------


@dataclass
class Told:
    """An announcer that remembers."""

    quotes: list[tuple[str, int]] = field(default_factory=list)

    async def announce(self, quotes: Sequence[LastQuote]) -> None:
        self.quotes += [(quote.symbol, quote.values.sequence) for quote in quotes]


async def test_last_values_are_announced_once_a_second_at_the_most_and_not_in_a_replay(mesh: Mesh) -> None:
    told = Told()
    task = asyncio.create_task(mesh.service.announce(told))
    async with mesh.source() as source, mesh.source(symbol=ES, provenance=REPLAY) as replay:
        await replay.feed(3)
        for place in range(5):
            await source.feed(1, place)
        assert told.quotes == []
        for _ in range(3):
            mesh.clock.advance(1.0)
            await asyncio.sleep(0.01)
        await source.feed(2, 5)
        mesh.clock.advance(1.0)
        await until(lambda: len(told.quotes) == 2)
    assert told.quotes == [(NQ, 5), (NQ, 7)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_no_tick_for_too_long_is_a_condition_and_a_tick_ends_it(mesh: Mesh) -> None:
    async with mesh.source() as source, mesh.source(symbol=ES, provenance=REPLAY) as replay:
        await source.feed(1)
        await replay.feed(1)
        mesh.service.look_for_ticks()
        mesh.clock.advance(299.0)
        mesh.service.look_for_ticks()
        assert not mesh.conditions.held()
        mesh.clock.advance(1.0)
        mesh.service.look_for_ticks()
        assert mesh.conditions.held() == {NO_TICKS: "no tick of NQZ26-CME for 300 s in an open session"}
        await source.feed(1, 1)
        mesh.service.look_for_ticks()
        assert not mesh.conditions.held()


async def test_what_is_built_serves_its_contracts_whole(tmp_path: Path) -> None:
    config = load(None, environment={"MINHOS_MARKET_DATA__SYMBOLS": f"{NQ},{ES}"}).resolved(datetime.now(UTC))
    nobody = {"minhos_api.events.v1.EventBusService": "127.0.0.1:1"}
    context = ServiceContext("market_data", "market_data-1", config, MeshPaths(tmp_path), Clients(nobody))
    async with bootstrap.build(context) as parts:
        async with MeshServer(parts.servicers, errors=parts.errors) as server:
            await parts.start()
            others = [f"minhos_api.market.v1.{name}Service" for name in ("History", "Instrument")]
            assert sorted(server.contracts) == sorted([PROVIDER, INGEST, *others])
            clients = Clients({PROVIDER: server.address})
            answer = await clients.stub(MarketDataProviderServiceStub).GetAllMarketData(pb2.GetAllMarketDataRequest())
            assert [symbol.symbol for symbol in answer.symbols] == [ES, NQ]
            await clients.close()
        await context.tasks.close()
    await context.clients.close()


async def test_announced_quotes_are_events_of_the_catalogue() -> None:
    sent: list[event_pb2.Event] = []

    class Events:
        def event(self, payload: Any, *, subject: str, time_ns: int) -> event_pb2.Event:
            return make_event(payload, subject=subject, source="market_data", time_ns=time_ns)

        async def publish(self, events: Sequence[event_pb2.Event], *, timeout_s: float | None) -> list[int]:
            for event in events:
                check_event(event)
            sent.extend(events)
            return list(range(len(sent)))

    async with serving() as mesh, mesh.source() as source:
        await source.feed(3)
        quote = mesh.service.find(NQ).feed.quote
        assert quote is not None
        await BusAnnouncer(cast("EventClient", Events())).announce([quote])
    (event,) = sent
    assert (event.type, event.subject) == ("market_data.updated", NQ)
    assert event.event_time.ToNanoseconds() == FIRST_NS + 2_000_000
