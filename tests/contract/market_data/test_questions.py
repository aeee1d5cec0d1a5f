from __future__ import annotations

import grpc
import pytest
from tests.contract.market_data.market_mesh import (
    ES,
    NQ,
    Mesh,
    ticks_of,
)

from minhos_api.market.v1 import market_data_provider_service_pb2 as pb2
from minhos_mesh.runtime import errors


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
