from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.contract.market_data.market_mesh import (
    ES,
    FIRST_NS,
    INGEST,
    NQ,
    SIMULATED,
    Mesh,
    soon,
    ticks_of,
    until,
)

from minhos_api.market.v1 import market_data_ingest_service_pb2 as ingest_pb2
from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.ticks import bytes_or_message, encode_batch, in_field


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
