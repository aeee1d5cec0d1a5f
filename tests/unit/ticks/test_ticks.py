from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from minhos_api.market.v1 import market_data_provider_service_pb2 as provider_pb2
from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_mesh.runtime.tick_layout import (
    FIELDS,
    TICK,
    TICK_BYTES,
    WIRE,
    TickArray,
    TickFlag,
    TickKind,
    Trades,
    TradeSide,
    is_laid_out,
    new_ticks,
    ticks_from,
    wire_of,
)
from minhos_mesh.runtime.ticks import (
    LayoutMismatch,
    MalformedBatch,
    TickBatchView,
    batch_in_field,
    bytes_or_message,
    check_layout,
    decode_batch,
    encode_batch,
    encode_wire,
    in_field,
    message_or_batch,
)

_I64 = st.integers(-(2**63), 2**63 - 1)
_U32 = st.integers(0, 2**32 - 1)
_ROW = st.tuples(_I64, _I64, _I64, _I64, _I64, _U32, _U32, _U32, _U32, st.integers(0, 127), st.integers(0, 127))
_READ = message_or_batch(1, provider_pb2.SubscribeMarketDataResponse.FromString)


def _array(rows: Sequence[tuple[int, ...]]) -> TickArray:
    ticks = new_ticks(len(rows))
    for column, (name, _, _) in enumerate(FIELDS):
        ticks[name] = [row[column] for row in rows]
    return ticks


def _message(rows: Sequence[tuple[int, ...]], symbol: str = "NQZ26-CME") -> tick_pb2.TickBatch:
    message = tick_pb2.TickBatch(
        symbol=symbol,
        provenance=provenance_pb2.PROVENANCE_SIMULATED,
        epoch=2**64 - 1,
        first_sequence=41,
        tick_count=len(rows),
    )
    for row in rows:
        tick = message.ticks.add()
        for (name, _, _), value in zip(FIELDS, row, strict=True):
            setattr(tick, name, value)
    return message


def _values(ticks: TickArray) -> list[tuple[int, ...]]:
    return [tuple(int(tick[name]) for name, _, _ in FIELDS) for tick in ticks]


@given(rows=st.lists(_ROW, max_size=12))
def test_written_bytes_are_those_of_protobuf_and_both_read_the_same(rows: list[tuple[int, ...]]) -> None:
    message = _message(rows)
    data = encode_batch("NQZ26-CME", 4, 2**64 - 1, 41, _array(rows))
    assert data == message.SerializeToString(deterministic=True)
    view = decode_batch(data)
    assert _values(view.ticks) == rows
    assert (view.symbol, view.provenance, view.epoch, view.first_sequence) == ("NQZ26-CME", 4, 2**64 - 1, 41)
    assert (len(view), view.last_sequence) == (len(rows), 40 + len(rows))


@given(
    rows=st.lists(_ROW, min_size=1, max_size=12), index=st.integers(0, 11), name=st.sampled_from([f[0] for f in FIELDS])
)
def test_a_field_left_unset_is_legal_and_read_as_zero(rows: list[tuple[int, ...]], index: int, name: str) -> None:
    message = _message(rows)
    message.ticks[index % len(rows)].ClearField(name)  # type: ignore[arg-type]  # any field of the table
    values = [dict(zip([field[0] for field in FIELDS], row, strict=True)) for row in rows]
    values[index % len(rows)][name] = 0
    view = decode_batch(message.SerializeToString())
    assert _values(view.ticks) == [tuple(row.values()) for row in values]


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_batch_or_malformed(data: bytes) -> None:
    try:
        view = decode_batch(data)
    except MalformedBatch:
        return
    assert len(view) >= 0


@given(rows=st.lists(_ROW, min_size=1, max_size=6), at=st.integers(0), byte=st.integers(0, 255), cut=st.integers(0, 80))
def test_a_damaged_batch_reads_as_protobuf_reads_it_or_is_malformed(
    rows: list[tuple[int, ...]], at: int, byte: int, cut: int
) -> None:
    data = bytearray(_message(rows).SerializeToString())
    data[at % len(data)] = byte
    damaged = bytes(data[: len(data) - cut % 80])
    try:
        view = decode_batch(damaged)
    except MalformedBatch:
        return
    message = tick_pb2.TickBatch.FromString(damaged)
    assert len(view) == len(message.ticks)
    assert view.ticks["price_e9"].tolist() == [tick.price_e9 for tick in message.ticks]
    assert (view.symbol, view.epoch) == (message.symbol, message.epoch)


def test_a_tick_alone_in_which_any_bit_is_another_reads_as_protobuf_reads_it_or_is_malformed() -> None:
    data = in_field(1, encode_batch("NQZ26-CME", 3, 5, 9, _array([(7,) * 9 + (1, 2)])))
    read = message_or_batch(1, provider_pb2.SubscribeMarketDataResponse.FromString)
    read(data)
    assert isinstance(known := read(data), TickBatchView)
    assert known.in_field(1) is data, "from the second on it is read without a copy"
    for bit in range(8 * len(data)):
        damaged = (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")
        try:
            view = read(damaged)
        except (MalformedBatch, DecodeError):
            continue
        batch = provider_pb2.SubscribeMarketDataResponse.FromString(damaged).ticks
        if isinstance(view, TickBatchView):
            assert (view.symbol, view.epoch, view.provenance) == (batch.symbol, batch.epoch, batch.provenance)
            assert (view.first_sequence, len(view)) == (batch.first_sequence, len(batch.ticks))
            assert not batch.HasField("tick_count") or batch.tick_count == len(batch.ticks)
            expected = [tuple(getattr(tick, name) for name, _, _ in FIELDS) for tick in batch.ticks]
            enums = {9, 10}
            expected = [tuple(v if i not in enums or v < 128 else 0 for i, v in enumerate(row)) for row in expected]
            assert _values(view.ticks) == expected
            assert view.row in (None, *expected)
        else:
            assert not batch.ticks


def test_ticks_before_the_other_fields_are_read_too() -> None:
    message = _message([(1,) * 11] * 3)
    head = _message([])
    head.tick_count = 3
    body = tick_pb2.TickBatch(ticks=message.ticks).SerializeToString()
    assert _values(decode_batch(body + head.SerializeToString()).ticks) == [(1,) * 11] * 3


def test_a_count_that_does_not_agree_is_malformed() -> None:
    message = _message([(1,) * 11] * 3)
    message.tick_count = 4
    with pytest.raises(MalformedBatch, match="says tick_count 4 but holds 3 ticks"):
        decode_batch(message.SerializeToString())


def test_a_long_enum_value_is_no_kind_at_all() -> None:
    message = _message([(1,) * 11] * 3)
    message.ticks[1].kind = 300  # type: ignore[assignment]  # an open enum may carry any number
    assert decode_batch(message.SerializeToString()).ticks["kind"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40, 5000])
def test_the_envelope_of_a_batch_is_read_as_a_view_and_others_as_messages(count: int) -> None:
    rows = [(1,) * 11] * count
    data = in_field(1, encode_batch("NQZ26-CME", 3, 5, 1, _array(rows)))
    assert provider_pb2.SubscribeMarketDataResponse.FromString(data).SerializeToString() == data
    view = _READ(data)
    assert isinstance(view, TickBatchView)
    assert len(view) == count
    heartbeat = provider_pb2.SubscribeMarketDataResponse(heartbeat=provider_pb2.MarketHeartbeat(ticks_sent=3))
    read = _READ(heartbeat.SerializeToString())
    assert isinstance(read, provider_pb2.SubscribeMarketDataResponse)
    assert read.heartbeat.ticks_sent == 3
    assert bytes_or_message(heartbeat) == heartbeat.SerializeToString()
    assert bytes_or_message(data) is data


def test_arrays_of_any_layout_with_these_fields_are_written() -> None:
    packed = np.zeros(3, np.dtype([(name, TICK[name]) for name, _, _ in FIELDS]))
    packed["price_e9"] = [1, 2, 3]
    bare = np.zeros(3, TICK)
    bare["price_e9"] = [1, 2, 3]
    tagged = np.zeros(3, WIRE)
    tagged["price_e9"] = [1, 2, 3]
    expected = encode_batch("A-B", 1, 1, 1, _array([(0, 0, price, *[0] * 8) for price in (1, 2, 3)]))
    for ticks in (packed, bare, tagged):
        assert encode_batch("A-B", 1, 1, 1, ticks) == expected
    assert encode_batch("A-B", 1, 1, 1, _array([(0, 0, price, *[0] * 8) for price in (1, 9, 2, 9, 3)])[::2]) == expected


def test_objects_give_absent_values_as_none() -> None:
    flags = TickFlag.HAS_PRICE | TickFlag.HAS_SIZE | TickFlag.UNBUNDLED_FIRST
    view = decode_batch(encode_batch("A-B", 1, 1, 9, _array([(5, 6, 7, 8, 9, 10, 11, 12, int(flags), 1, 2)])))
    (tick,) = view.objects()
    assert (tick.sequence, tick.price_e9, tick.size, tick.kind, tick.side) == (9, 7, 10, TickKind.TRADE, TradeSide.SELL)
    assert (tick.bid_e9, tick.ask_e9, tick.bid_size, tick.ask_size) == (None, None, None, None)


def test_a_batch_is_cut_behind_a_sequence() -> None:
    view = decode_batch(encode_batch("A-B", 1, 1, 9, _array([(n,) * 11 for n in range(1, 5)])))
    assert [len(view.after(n)) for n in (0, 8, 9, 12, 99)] == [4, 4, 3, 0, 0]
    assert view.after(10).first_sequence == 11
    assert [tick.sequence for tick in view.after(10).objects()] == [11, 12]


def test_the_layout_is_that_of_the_contract() -> None:
    assert TICK_BYTES == 71
    check_layout(tick_pb2.Tick.DESCRIPTOR, tick_pb2.TickBatch.DESCRIPTOR)
    with pytest.raises(LayoutMismatch):
        check_layout(tick_pb2.TickBatch.DESCRIPTOR, tick_pb2.TickBatch.DESCRIPTOR)
    for ours, contract in ((TickKind, tick_pb2.TickKind), (TradeSide, tick_pb2.TradeSide)):
        prefix = "TICK_KIND_" if ours is TickKind else "TRADE_SIDE_"
        assert {prefix + member.name: member.value for member in ours} == dict(contract.items())
    assert {"TICK_FLAG_" + str(flag.name): flag.value for flag in TickFlag} == {
        name: value for name, value in tick_pb2.TickFlag.items() if value
    }


@given(count=st.sampled_from([3, 1_023, 1_024, 1_025, 2_500]), place=st.integers(0, 2_499), at=st.integers(0, 70))
def test_a_large_batch_is_no_array_as_soon_as_one_tag_is_another(count: int, place: int, at: int) -> None:
    ticks = new_ticks(count)
    wire = bytearray(ticks.tobytes())
    at += place % count * TICK_BYTES
    wire[at] ^= 0x80
    values = {column for name, _, kind in FIELDS if kind != "enum" for column in _columns(name)}
    assert is_laid_out(bytes(wire), 0, count) == (at % TICK_BYTES in values)
    assert is_laid_out(b"xyz" + ticks.tobytes(), 3, count)


def _columns(name: str) -> range:
    assert TICK.fields is not None
    begin = int(TICK.fields[name][1])
    return range(begin, begin + TICK[name].itemsize)


@pytest.mark.parametrize("count", [1, 2, 5_000])
def test_a_batch_of_parts_is_the_batch_of_the_whole(count: int) -> None:
    wire = new_ticks(count).tobytes()
    whole = in_field(1, encode_wire("A-B", 1, 7, 3, wire))
    cut = memoryview(wire)
    assert batch_in_field(1, "A-B", 1, 7, 3, wire) == whole
    assert batch_in_field(1, "A-B", 1, 7, 3, cut[:TICK_BYTES], cut[TICK_BYTES:]) == whole


@pytest.mark.parametrize("count", [1, 2, 40])
def test_batches_of_several_symbols_and_generations_in_one_stream_are_each_read_as_they_are(count: int) -> None:
    array = _array([(7,) * 11] * count)
    for sequence in (1, 100, 200):
        for symbol in ("NQZ26-CME", "ESZ26-CME", "VIX"):
            for epoch in (5, 6):
                data = in_field(1, encode_batch(symbol, 3, epoch, sequence, array))
                view = _READ(data)
                assert isinstance(view, TickBatchView)
                assert (view.symbol, view.epoch, view.provenance) == (symbol, epoch, 3)
                assert (view.first_sequence, view.last_sequence) == (sequence, sequence + count - 1)
                assert view.objects() == decode_batch(encode_batch(symbol, 3, epoch, sequence, array)).objects()
                assert view.ticks.tobytes() == array.tobytes()
                assert view.in_field(1) in (data, None)
                assert view.in_field(2) is None


@pytest.mark.parametrize("at", range(2, 109))
def test_one_tick_is_no_record_as_soon_as_one_byte_of_its_layout_is_another(at: int) -> None:
    data = in_field(1, encode_batch("NQZ26-CME", 3, 5, 1, _array([(1,) * 11])))
    _READ(data)
    assert len(data) == 109
    damaged = bytearray(data)
    damaged[at] ^= 128
    try:
        wanted = provider_pb2.SubscribeMarketDataResponse.FromString(bytes(damaged)).ticks
        view = _READ(bytes(damaged))
    except (MalformedBatch, DecodeError):
        return
    assert isinstance(view, TickBatchView)
    assert (view.symbol, view.epoch, view.first_sequence) == (wanted.symbol, wanted.epoch, wanted.first_sequence)
    for array, tick in zip(view.ticks, wanted.ticks, strict=True):
        told = {name: getattr(tick, name) for name, _, _ in FIELDS}
        told |= {name: 0 for name, _, kind in FIELDS if kind == "enum" and told[name] > 127}
        assert {name: int(array[name]) for name in told} == told


def test_columns_of_trades_are_those_of_the_ticks() -> None:
    ticks = _array([(index, 2 * index, 3, 4 + index, 5, 6 + index, 7, 8, 15, 1, index % 3) for index in range(1, 50)])
    trades = Trades.of(ticks[3:20])
    assert trades is not None
    assert trades.event_time_ns.tolist() == ticks["event_time_ns"][3:20].tolist()
    assert trades.receive_time_ns.tolist() == ticks["receive_time_ns"][3:20].tolist()
    assert trades.prices_e9.tolist() == [ticks[name][3:20].tolist() for name in ("price_e9", "bid_e9", "ask_e9")]
    assert trades.size.tolist() == ticks["size"][3:20].tolist()
    assert trades.side.tolist() == ticks["side"][3:20].tolist()
    for name, value in (("flags", 14), ("kind", 2)):
        other = ticks.copy().view(ticks.dtype)
        other[name][30] = value
        assert Trades.of(other) is None
    assert Trades.of(ticks[::2]) is None
    assert Trades.of(ticks[:0]) is None


def test_the_bytes_of_ticks_are_given_without_a_copy_where_they_lie_together() -> None:
    ticks = _array([(index,) * 11 for index in range(1, 9)])
    assert wire_of(ticks) == ticks.tobytes()
    assert np.shares_memory(np.frombuffer(wire_of(ticks), np.uint8), ticks)
    assert wire_of(ticks[2:3]) == ticks[2:3].tobytes()
    assert wire_of(ticks[::2]) == ticks_from(ticks[::2]).tobytes()
