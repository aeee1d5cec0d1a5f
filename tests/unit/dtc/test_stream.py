from __future__ import annotations

import os
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.errors import DtcError, FramingLost
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.stream import JSON_LIMIT, OTHER_TYPES, SUPPORTED, TYPES_COUNTED, MessageStream, encode
from minhos_mesh.dtc.tables import ALL
from minhos_mesh.dtc.tables.session import ENCODING_RESPONSE, HEARTBEAT, LOGOFF, LOGON_RESPONSE
from minhos_mesh.dtc.tables.trading import ORDER_UPDATE, POSITION_UPDATE

SAMPLE = [
    make(LOGON_RESPONSE, ProtocolVersion=8, Result=1, ServerName="a server"),
    make(HEARTBEAT, CurrentDateTime=1_621_443_600),
    make(ORDER_UPDATE, ServerOrderID="77", OrderStatus=7, LastFillPrice=23500.25, InfoText="filled"),
    make(POSITION_UPDATE, Symbol="NQZ26-CME", Quantity=-2.0),
    make(LOGOFF, Reason="closing"),
]

FUZZ_CASES = 6_000 * int(os.environ.get("MINHOS_FUZZ_TIMES", "1"))


def all_of(stream: MessageStream) -> list[Message]:
    found = []
    while (message := stream.read()) is not None:
        found.append(message)
    return found


@given(st.sampled_from(sorted(SUPPORTED)), st.lists(st.integers(0, 4), max_size=12), st.data())
@settings(max_examples=150)
def test_a_stream_split_anywhere_gives_the_same_messages(
    encoding: Encoding, picked: list[int], data: st.DataObject
) -> None:
    expected = [SAMPLE[index] for index in picked]
    whole = b"".join(encode(message, encoding) for message in expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    stream = MessageStream(encoding)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        stream.feed(whole[start:end])
        found += all_of(stream)
    assert found == expected
    assert (stream.buffered, stream.counts.messages) == (0, len(expected))


@pytest.mark.parametrize("encoding", sorted(SUPPORTED))
def test_byte_after_byte_gives_the_same_messages(encoding: Encoding) -> None:
    stream = MessageStream(encoding)
    found = []
    for byte in b"".join(encode(message, encoding) for message in SAMPLE):
        stream.feed(bytes([byte]))
        found += all_of(stream)
    assert found == SAMPLE


@given(st.integers(0, 200), st.sampled_from(sorted(SUPPORTED)))
@settings(max_examples=100)
def test_the_encoding_changes_between_two_messages_even_inside_one_piece(cut: int, encoding: Encoding) -> None:
    whole = encode(make(ENCODING_RESPONSE, Encoding=int(encoding)), Encoding.BINARY)
    whole += b"".join(encode(message, encoding) for message in SAMPLE)
    stream = MessageStream()
    found: list[Message] = []
    for piece in (whole[:cut], whole[cut:]):
        stream.feed(piece)
        while (message := stream.read()) is not None:
            if message.layout is ENCODING_RESPONSE:
                stream.encoding = Encoding(message.integer("Encoding"))
            else:
                found.append(message)
    assert found == SAMPLE


@pytest.mark.parametrize("encoding", sorted(SUPPORTED))
def test_messages_of_unknown_types_are_left_out_and_counted(encoding: Encoding) -> None:
    if encoding is Encoding.JSON:
        strange = b'{"Type":10100,"Anything":[1,{"a":null}]}\0{"Type":-5}\0'
    else:
        strange = struct.pack("<HH4s", 8, 10_100, b"abcd") + struct.pack("<HH", 4, 64_000)
    stream = MessageStream(encoding)
    stream.feed(strange + encode(SAMPLE[1], encoding) + strange)
    assert all_of(stream) == [SAMPLE[1]]
    assert stream.counts.unknown[10_100] == 2
    assert stream.counts.unknown.total() == 4
    assert stream.counts.malformed == 0


def test_the_count_of_unknown_types_is_bounded() -> None:
    stream = MessageStream()
    stream.feed(b"".join(struct.pack("<HH", 4, number) for number in range(20_000, 21_000)))
    assert all_of(stream) == []
    assert len(stream.counts.unknown) == TYPES_COUNTED + 1
    assert stream.counts.unknown[OTHER_TYPES] == 1_000 - TYPES_COUNTED


@pytest.mark.parametrize(
    "broken",
    [b"", b" ", b"[]", b"7", b"{", b'{"Type":}', b'{"Type":"3"}', b'{"Type":true}', b'{"Type":3,"CurrentDateTime":"now"}',
     b"[" * 5_000, b'{"a":' * 5_000, b"\xff\xfe", b'{"Type":3,"CurrentDateTime":' + b"9" * 5_000 + b"}"],
    ids=lambda broken: repr(broken[:20]),
)  # fmt: skip
def test_json_that_cannot_be_read_is_left_out_and_the_stream_goes_on(broken: bytes) -> None:
    stream = MessageStream(Encoding.JSON)
    stream.feed(broken + b"\0" + encode(SAMPLE[1], Encoding.JSON))
    assert all_of(stream) == [SAMPLE[1]]
    assert stream.counts.malformed == 1
    assert stream.counts.last_problem


def test_json_without_an_end_is_given_up_before_it_fills_the_memory() -> None:
    stream = MessageStream(Encoding.JSON)
    piece = b"x" * 4096
    with pytest.raises(FramingLost, match=f"no end within {JSON_LIMIT} bytes"):
        for _ in range(1_000):
            stream.feed(piece)
            stream.read()
            assert stream.buffered <= JSON_LIMIT + len(piece)
    assert stream.buffered == 0
    with pytest.raises(FramingLost):
        stream.read()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_binary_size_below_a_header_ends_the_stream_by_name(size: int) -> None:
    stream = MessageStream()
    stream.feed(struct.pack("<HH", size, 3))
    with pytest.raises(FramingLost, match=f"a message of {size} bytes"):
        stream.read()


def test_json_is_recognised_by_its_first_byte() -> None:
    stream = MessageStream()
    assert not stream.looks_like_json()
    stream.feed(b'{"Type":3}\0')
    assert stream.looks_like_json()


def test_any_bytes_give_messages_or_a_named_end_within_bounded_memory() -> None:
    """Random bytes, and valid streams with flipped, dropped, doubled and moved bytes, in every encoding."""
    source = random.Random(20261122)
    outcomes = {"messages": 0, "malformed": 0, "unknown": 0, "lost": 0}
    for case in range(FUZZ_CASES):
        encoding = sorted(SUPPORTED)[case % 3]
        data = source.randbytes(source.randrange(200)) if case % 4 == 0 else mutated(source, encoding)
        stream = MessageStream(encoding)
        try:
            for at in range(0, len(data), 37):
                stream.feed(data[at : at + 37])
                for message in all_of(stream):
                    assert str(message)
                    assert encode_again(message)
                assert stream.buffered <= max(JSON_LIMIT, 0x10000) + 37
        except FramingLost:
            outcomes["lost"] += 1
        outcomes["messages"] += stream.counts.messages
        outcomes["malformed"] += stream.counts.malformed
        outcomes["unknown"] += stream.counts.unknown.total()
    assert all(outcomes.values()), outcomes


def encode_again(message: Message) -> bool:
    """What was read can be written again, but for texts that are longer than the fixed encoding allows."""
    try:
        return all(encode(message, encoding) for encoding in SUPPORTED)
    except DtcError:
        return any(isinstance(value, str) for value in message.values.values())


def mutated(source: random.Random, encoding: Encoding) -> bytes:
    chosen = [make(source.choice(ALL)), *source.choices(SAMPLE, k=2)]
    data = bytearray(b"".join(encode(message, encoding) for message in chosen))
    for _ in range(source.randrange(1, 6)):
        at = source.randrange(len(data))
        match source.randrange(4):
            case 0:
                data[at] = source.randrange(256)
            case 1:
                del data[at : at + source.randrange(1, 9)]
            case 2:
                data[at:at] = data[at : at + source.randrange(1, 9)]
            case _:
                data[at] ^= 1 << source.randrange(8)
        if not data:
            return b""
    return bytes(data)
