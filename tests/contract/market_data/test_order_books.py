"""Order books from their source to their readers, and what else gets the newest only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tests.contract.market_data.market_mesh import ES, NQ, RULES, SIMULATED, WALL_NS, Mesh, soon
from tests.waiting import eventually

from minhos_api.market.v1 import depth_pb2
from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_api.market.v1.market_data_ingest_service_pb2_grpc import MarketDataIngestServiceStub
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.market import (
    Heartbeat,
    MarketDepth,
    MarketKind,
    MarketUpdate,
    SlowReader,
    Snapshot,
)

STEP = RULES.tick_e9


@asynccontextmanager
async def source_of(mesh: Mesh, symbol: str = NQ, name: str = "depth", epoch: int = 3) -> AsyncIterator[DepthSource]:
    call: Any = mesh.clients.stub(MarketDataIngestServiceStub).IngestDepth()
    opened = ingest_pb2.IngestOpen(source=name, symbol=symbol, provenance=SIMULATED, epoch=epoch)
    await call.write(ingest_pb2.IngestDepthRequest(open=opened))
    answer = await soon(call.read())
    try:
        yield DepthSource(call, symbol, answer.opened.through_sequence)
    finally:
        call.cancel()


@dataclass
class DepthSource:
    """What tails a .depth file."""

    call: Any
    symbol: str
    opened_at: int

    async def send(self, sequence: int, levels: int = 2, best: int = 100) -> ingest_pb2.IngestDepthAck:
        await self.call.write(ingest_pb2.IngestDepthRequest(book=book(self.symbol, sequence, levels, best)))
        while True:
            answer = await soon(self.call.read())
            if answer.HasField("ack") and answer.ack.through_sequence >= sequence:
                ack: ingest_pb2.IngestDepthAck = answer.ack
                return ack


def book(symbol: str, sequence: int, levels: int = 2, best: int = 100) -> depth_pb2.Depth:
    made = depth_pb2.Depth(symbol=symbol, sequence=sequence, provenance=SIMULATED, epoch=3)
    made.event_time.FromNanoseconds(WALL_NS + sequence)
    for place in range(levels):
        made.bids.add(price_e9=(best - place) * STEP, size=5 + place, order_count=2)
        made.asks.add(price_e9=(best + 1 + place) * STEP, size=3 + place)
    return made


@asynccontextmanager
async def reading(mesh: Mesh, symbols: Sequence[str] = (NQ,), **how: Any) -> AsyncIterator[list[MarketUpdate]]:
    """What comes, as it comes."""
    seen: list[MarketUpdate] = []
    subscription = mesh.market.subscribe(symbols, {MarketKind.DEPTH}, **how)

    async def read() -> None:
        async for update in subscription:
            seen.append(update)  # noqa: PERF401 - each is looked at as it comes

    task = asyncio.create_task(read())
    try:
        yield seen
    finally:
        subscription.close()
        await soon(task)


def books(seen: Sequence[MarketUpdate]) -> list[MarketDepth]:
    return [update for update in seen if isinstance(update, MarketDepth)]


def is_a(kind: type, seen: list[MarketUpdate]) -> Callable[[], bool]:
    return lambda: bool(seen) and isinstance(seen[-1], kind)


async def test_a_reader_gets_the_book_in_its_snapshot_and_then_every_newer_one(mesh: Mesh) -> None:
    async with source_of(mesh) as source:
        await source.send(1)
        async with reading(mesh, policy=SlowReader.CONFLATE) as seen:
            await eventually(is_a(Snapshot, seen), "the snapshot")
            (snapshot,) = seen
            assert isinstance(snapshot, Snapshot)
            assert snapshot.depth is not None
            assert (snapshot.depth.sequence, snapshot.depth.epoch, snapshot.depth.provenance) == (1, 3, SIMULATED)
            assert [tuple(level) for level in snapshot.depth.bids] == [(100 * STEP, 5, 2), (99 * STEP, 6, 2)]
            assert [tuple(level) for level in snapshot.depth.asks] == [(101 * STEP, 3, None), (102 * STEP, 4, None)]
            assert (snapshot.depth.event_time_ns, snapshot.depth.receive_time_ns) == (WALL_NS + 1, WALL_NS)
            await source.send(2, levels=10, best=200)
            await eventually(lambda: bool(books(seen)), "the next book")
            (next_book,) = books(seen)
            assert (next_book.sequence, len(next_book.bids), next_book.asks[0].price_e9) == (2, 10, 201 * STEP)


async def test_a_reader_that_does_not_read_holds_nobody_up_and_ends_with_the_newest_book(mesh: Mesh) -> None:
    call: Any = mesh.provider.SubscribeMarketData()
    wanted = pb2.MarketSubscription(
        symbols=[NQ], kinds=[pb2.MARKET_DATA_KIND_DEPTH], slow_reader=pb2.SLOW_READER_CONFLATE
    )
    await call.write(pb2.SubscribeMarketDataRequest(subscribe=wanted))
    last = 1_000
    async with source_of(mesh) as source:
        for sequence in range(1, last):
            await source.call.write(ingest_pb2.IngestDepthRequest(book=book(NQ, sequence, 10)))
        await source.send(last, 10)
    seen: list[int] = []
    while not seen or seen[-1] < last:
        message = await soon(call.read())
        if message.HasField("depth"):
            seen.append(message.depth.sequence)
    assert seen == sorted(set(seen))
    call.cancel()


async def test_a_silent_reader_is_told_the_counters(mesh: Mesh) -> None:
    async with source_of(mesh) as source, reading(mesh) as seen:
        await eventually(is_a(Snapshot, seen), "the snapshot")
        await source.send(1)
        await eventually(is_a(MarketDepth, seen), "the first book")
        await source.send(10)
        await eventually(lambda: len(books(seen)) == 2, "the second book")

        def beaten() -> bool:
            mesh.clock.advance(1.0)
            return isinstance(seen[-1], Heartbeat)

        await eventually(beaten, "a heartbeat")
        heartbeat = seen[-1]
        assert isinstance(heartbeat, Heartbeat)
        assert (heartbeat.books_skipped, heartbeat.ticks_sent) == (8, 0)


async def test_a_bad_book_is_counted_by_its_reason_and_the_good_one_stays(mesh: Mesh) -> None:
    async with source_of(mesh) as source:
        assert (await source.send(1)).rejected == 0
        crossed = book(NQ, 2)
        crossed.asks[0].price_e9 = crossed.bids[0].price_e9
        await source.call.write(ingest_pb2.IngestDepthRequest(book=crossed))
        answer = await soon(source.call.read())
        assert (answer.ack.through_sequence, answer.ack.rejected) == (2, 1)
        told = await mesh.provider.GetMarketData(pb2.GetMarketDataRequest(with_depth=True))
        assert told.depth.sequence == 1
        assert not (await mesh.provider.GetMarketData(pb2.GetMarketDataRequest())).HasField("depth")
        everything = await mesh.provider.GetAllMarketData(pb2.GetAllMarketDataRequest())
        nq = next(symbol for symbol in everything.symbols if symbol.symbol == NQ)
        assert (nq.books_taken, dict(nq.books_rejected)) == (1, {"CROSSED": 1})


async def test_a_source_that_comes_back_goes_on_and_another_must_wait(mesh: Mesh) -> None:
    async with source_of(mesh) as source:
        await source.send(5)
        async with source_of(mesh) as again:
            assert again.opened_at == 5
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await soon(source.call.read()) is not grpc.aio.EOF:
                    pass
            assert errors.read(caught.value).reason == "ERROR_REASON_SOURCE_CONFLICT"
            await again.send(6)
            call: Any = mesh.clients.stub(MarketDataIngestServiceStub).IngestDepth()
            opened = ingest_pb2.IngestOpen(source="other", symbol=NQ, provenance=SIMULATED, epoch=9)
            await call.write(ingest_pb2.IngestDepthRequest(open=opened))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await soon(call.read())
            told = errors.read(caught.value)
            assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_SOURCE_CONFLICT")


def _open(symbol: str = ES) -> ingest_pb2.IngestDepthRequest:
    opened = ingest_pb2.IngestOpen(source="other", symbol=symbol, provenance=SIMULATED, epoch=9)
    return ingest_pb2.IngestDepthRequest(open=opened)


def _book(symbol: str = ES, levels: int = 2, **changes: Any) -> ingest_pb2.IngestDepthRequest:
    request = ingest_pb2.IngestDepthRequest(book=book(symbol, 1, levels))
    request.book.MergeFrom(depth_pb2.Depth(**({"epoch": 9} | changes)))
    return request


@pytest.mark.parametrize(
    ("messages", "reason", "says"),
    [
        ([_book()], "INVALID_FIELD", "allowed is `open` as the first message of IngestDepth"),
        ([_open(), _open()], "INVALID_FIELD", "allowed is `book` behind the first message of IngestDepth"),
        ([_open("CLZ26-NYM")], "SYMBOL_UNKNOWN", "is not configured"),
        ([_open(), _book(NQ)], "INVALID_FIELD", "allowed is ESZ26-CME, for which the stream was opened"),
        ([_open(), _book(levels=11)], "INVALID_FIELD", "bids"),
        ([_open(), _book(epoch=8)], "POSITION_MISMATCH", "book.epoch of ESZ26-CME is 8: allowed is 9, with which"),
        (
            [_open(), _book(provenance=1)],
            "POSITION_MISMATCH",
            "book.provenance of ESZ26-CME is LIVE: allowed is SIMULATED",
        ),
    ],
)
async def test_a_wrong_source_of_books_is_refused(
    mesh: Mesh, messages: list[ingest_pb2.IngestDepthRequest], reason: str, says: str
) -> None:
    call: Any = mesh.clients.stub(MarketDataIngestServiceStub).IngestDepth()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        for message in messages:
            await soon(call.write(message))
        while await soon(call.read()) is not grpc.aio.EOF:
            pass
    told = errors.read(caught.value)
    assert told.reason == f"ERROR_REASON_{reason}"
    assert says in told.message


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        ([], "no kinds, which means MARKET_DATA_KIND_TICKS"),
        ([1], "MARKET_DATA_KIND_TICKS"),
        ([3, 1], "MARKET_DATA_KIND_TICKS"),
        ([2], "MARKET_DATA_KIND_BARS"),
        ([4, 2], "MARKET_DATA_KIND_BARS"),
    ],
)
async def test_what_may_not_be_conflated_is_refused_with_field_and_kind(
    mesh: Mesh, kinds: list[Any], seen: str
) -> None:
    wanted = pb2.MarketSubscription(symbols=[NQ], kinds=kinds, slow_reader=pb2.SLOW_READER_CONFLATE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(mesh.provider.StreamMarketData(pb2.StreamMarketDataRequest(subscription=wanted)).read())
    told = errors.read(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
    assert told.message == (
        f"subscription.slow_reader is SLOW_READER_CONFLATE: beside {seen};"
        " allowed only where all kinds are MARKET_DATA_KIND_QUOTES or MARKET_DATA_KIND_DEPTH"
    )
    assert (told.metadata["field"], told.metadata["seen"]) == ("subscription.slow_reader", "SLOW_READER_CONFLATE")
