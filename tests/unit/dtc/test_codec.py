from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.dtc.binary import decode_fixed, decode_variable, encode_fixed, encode_variable
from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.errors import MessageMalformed, MessageUnencodable
from minhos_mesh.dtc.layout import FLOAT32_MAX, FLOAT64_MAX, Layout, Member, Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.stream import SUPPORTED, MessageStream, encode
from minhos_mesh.dtc.tables import ALL
from minhos_mesh.dtc.tables.history import HISTORICAL_PRICE_DATA_RECORD_RESPONSE
from minhos_mesh.dtc.tables.market import MARKET_DATA_SNAPSHOT, MARKET_DATA_UPDATE_BID_ASK_COMPACT
from minhos_mesh.dtc.tables.reference import ACCOUNT_BALANCE_UPDATE, SECURITY_DEFINITION_RESPONSE
from minhos_mesh.dtc.tables.session import ENCODING_REQUEST, HEARTBEAT, LOGON_REQUEST
from minhos_mesh.dtc.tables.trading import CANCEL_ORDER, ORDER_UPDATE, POSITION_UPDATE, SUBMIT_NEW_SINGLE_ORDER
from minhos_mesh.dtc.text import decode_json, encode_json, parse_json

IDS = [layout.name for layout in ALL]


def number(member: Member) -> st.SearchStrategy[Value | None]:
    if member.floating:
        width = 32 if member.code == "f" else 64
        finite = st.floats(-(2.0**100), 2.0**100, width=32) if width == 32 else st.floats(-3e38, 3e38)
        return st.one_of(st.none(), finite)
    bits = 8 * struct.calcsize(member.code)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if member.code.islower() else (0, 2**bits - 1)
    if member.default is None:
        high -= 1
    return st.integers(low, high)


def text(member: Member) -> st.SearchStrategy[str]:
    plain = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.text(plain, max_size=member.size - 1).filter(lambda found: len(found.encode()) < member.size)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    layout = draw(st.sampled_from(ALL))
    chosen = draw(st.sets(st.sampled_from(layout.members), max_size=6))
    return make(layout, **{m.name: draw(text(m) if m.text else number(m)) for m in chosen})


@pytest.mark.parametrize("layout", ALL, ids=IDS)
def test_bytes_are_exact_with_all_members_and_with_none(golden: dict[str, dict[str, Any]], layout: Layout) -> None:
    entry = golden[layout.name]
    full, empty = make(layout, **entry["values"]), make(layout)
    assert encode_fixed(full) == entry["fixed"]
    assert encode_fixed(empty) == entry["empty"]
    assert decode_fixed(layout, entry["fixed"]) == full
    assert decode_fixed(layout, entry["empty"]) == empty
    if "variable" in entry:
        assert encode_variable(full) == entry["variable"]
        assert encode_variable(empty) == entry["variable_empty"]
        assert decode_variable(layout, entry["variable"]) == full
        assert decode_variable(layout, entry["variable_empty"]) == empty
    else:
        assert encode_variable(full) == entry["fixed"]


@pytest.mark.parametrize("layout", ALL, ids=IDS)
def test_json_has_the_type_first_and_every_member_by_its_name(
    golden: dict[str, dict[str, Any]], layout: Layout
) -> None:
    values = golden[layout.name]["values"]
    data = encode_json(make(layout, **values))
    found = json.loads(data.removesuffix(b"\0"))
    assert data.endswith(b"}\0")
    assert next(iter(found)) == "Type"
    assert found == {"Type": layout.type, **values}
    assert decode_json(layout, found) == make(layout, **values)


@given(messages(), st.sampled_from(sorted(SUPPORTED)))
@settings(max_examples=400)
def test_every_message_comes_back_equal_in_every_encoding(message: Message, encoding: Encoding) -> None:
    stream = MessageStream(encoding)
    stream.feed(encode(message, encoding))
    assert stream.read() == message
    assert stream.buffered == 0


def test_handshake_bytes_are_those_that_independent_clients_send() -> None:
    asked = make(ENCODING_REQUEST, ProtocolVersion=8, Encoding=2, ProtocolType="DTC")
    assert encode_fixed(asked).hex() == "10000600080000000200000044544300"
    assert encode_variable(asked) == encode_fixed(asked)


@pytest.mark.parametrize(
    ("layout", "old_size", "kept", "lost"),
    [
        (LOGON_REQUEST, 280, "ClientName", "MarketDataTransmissionInterval"),
        (SUBMIT_NEW_SINGLE_ORDER, 264, "MaxShowQuantity", "Price1AsString"),
        (CANCEL_ORDER, 68, "ClientOrderID", "TradeAccount"),
        (ORDER_UPDATE, 688, "LatestTransactionDateTime", "Username"),
        (POSITION_UPDATE, 200, "EntryDateTime", "OpenProfitLoss"),
        (ACCOUNT_BALANCE_UPDATE, 216, "TransactionIdentifier", "DailyNetLossLimit"),
        (SECURITY_DEFINITION_RESPONSE, 348, "OpenInterest", "RolloverDate"),
    ],
    ids=lambda value: value.name if isinstance(value, Layout) else str(value),
)
def test_shorter_message_of_an_older_version_leaves_later_members_at_their_default(
    golden: dict[str, dict[str, Any]], layout: Layout, old_size: int, kept: str, lost: str
) -> None:
    entry = golden[layout.name]
    whole, short = decode_fixed(layout, entry["fixed"]), decode_fixed(layout, entry["fixed"][:old_size])
    assert short.value(kept) == whole.value(kept) == entry["values"][kept]
    assert short.value(lost) == layout.member(lost).default


def test_longer_message_of_a_later_version_is_read_as_far_as_it_is_known(golden: dict[str, dict[str, Any]]) -> None:
    entry = golden["ORDER_UPDATE"]
    assert decode_fixed(ORDER_UPDATE, entry["fixed"] + b"later") == make(ORDER_UPDATE, **entry["values"])


def test_strings_with_variable_length_may_lie_anywhere_in_the_message() -> None:
    data = bytearray(18) + b"XY\0SERVER\0OURS\0"
    struct.pack_into("<HHH", data, 0, len(data), 203, 18)
    for offset, at, length in ((6, 21, 7), (10, 28, 5), (14, 18, 3)):
        struct.pack_into("<HH", data, offset, at, length)
    found = decode_variable(CANCEL_ORDER, bytes(data))
    assert found == make(CANCEL_ORDER, ServerOrderID="SERVER", ClientOrderID="OURS", TradeAccount="XY")


@pytest.mark.parametrize(("at", "length"), [(30, 100), (0, 3), (65_535, 65_535), (18, 5000)])
def test_string_outside_of_its_message_is_refused(at: int, length: int) -> None:
    data = bytearray(40)
    struct.pack_into("<HHHHH", data, 0, 40, 203, 18, at, length)
    with pytest.raises(MessageMalformed, match="CANCEL_ORDER.ServerOrderID lies outside"):
        decode_variable(CANCEL_ORDER, bytes(data))


def test_unset_is_none_in_every_encoding_and_left_out_of_json() -> None:
    snapshot = decode_fixed(MARKET_DATA_SNAPSHOT, encode_fixed(make(MARKET_DATA_SNAPSHOT, BidPrice=23500.25)))
    assert (snapshot.number("BidPrice"), snapshot.number("AskPrice")) == (23500.25, None)
    assert "AskPrice" not in json.loads(encode_json(snapshot)[:-1])
    assert snapshot.value("OpenInterest") is None
    quote = decode_fixed(MARKET_DATA_UPDATE_BID_ASK_COMPACT, encode_fixed(make(MARKET_DATA_UPDATE_BID_ASK_COMPACT)))
    assert quote.number("BidPrice") is None


@pytest.mark.parametrize("sign", [FLOAT64_MAX, -FLOAT64_MAX, FLOAT32_MAX, float("inf"), float("-inf"), float("nan")])
def test_a_number_that_stands_for_nothing_is_unset_even_where_the_default_is_zero(sign: float) -> None:
    data = bytearray(encode_fixed(make(POSITION_UPDATE, AveragePrice=1.0)))
    struct.pack_into("<d", data, 104, sign)
    found = decode_fixed(POSITION_UPDATE, bytes(data))
    assert found.number("AveragePrice") is None
    assert decode_fixed(POSITION_UPDATE, encode_fixed(found)) == found
    assert decode_json(POSITION_UPDATE, parse_json(encode_json(found)[:-1])) == found


def test_json_numbers_may_come_with_or_without_a_point() -> None:
    raw = b'{"Type":301,"OrderStatus":4.0,"OrderQuantity":2,"LastFillDateTime":1621443600123.75,"NoOrders":true}'
    found = decode_json(ORDER_UPDATE, parse_json(raw))
    assert found.integer("OrderStatus") == 4
    assert found.number("OrderQuantity") == 2.0
    assert found.integer("LastFillDateTime") == 1_621_443_600_123
    assert found.flag("NoOrders")


def test_other_names_of_a_member_are_read() -> None:
    found = decode_json(LOGON_REQUEST, {"Type": 1, "Unused1": 2})
    assert found.integer("TradeMode") == 2
    record = decode_json(HISTORICAL_PRICE_DATA_RECORD_RESPONSE, {"Type": 803, "OpenInterest": 7})
    assert record.integer("NumTrades") == 7


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"Type":301,"OrderStatus":"4"}', "ORDER_UPDATE.OrderStatus cannot be '4'"),
        (b'{"Type":301,"OrderStatus":4.5}', "ORDER_UPDATE.OrderStatus cannot be '4.5'"),
        (b'{"Type":301,"OrderStatus":99999999999}', "ORDER_UPDATE.OrderStatus cannot be"),
        (b'{"Type":301,"Price1":[1]}', "ORDER_UPDATE.Price1 cannot be"),
        (b'{"Type":301,"Symbol":7}', "ORDER_UPDATE.Symbol cannot be '7'"),
        (b'{"Type":301,"ServerOrderID":"a\\u0000b"}', "ORDER_UPDATE.ServerOrderID cannot be"),
        (b'{"Type":301,"ServerOrderID":"\\ud800"}', "ORDER_UPDATE.ServerOrderID cannot be"),
    ],
)
def test_wrong_kind_of_value_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(MessageMalformed, match=message):
        decode_json(ORDER_UPDATE, parse_json(raw))


def test_id_that_is_too_long_is_refused_and_a_text_for_people_is_cut() -> None:
    with pytest.raises(MessageUnencodable, match="CANCEL_ORDER.ClientOrderID has 32 bytes, allowed are 31"):
        encode_fixed(make(CANCEL_ORDER, ClientOrderID="x" * 32))
    cut = decode_fixed(ORDER_UPDATE, encode_fixed(make(ORDER_UPDATE, InfoText="ä" * 60)))
    assert cut.text("InfoText") == "ä" * 47


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OrderStatus", 2**31),
        ("OrderStatus", 1.5),
        ("OrderStatus", None),
        ("Symbol", 1),
        ("Price1", "x"),
        ("Price1", 1e39),
    ],
)
def test_value_that_a_member_cannot_carry_is_refused(name: str, value: Value | None) -> None:
    with pytest.raises(MessageUnencodable, match=f"ORDER_UPDATE.{name} cannot be"):
        make(ORDER_UPDATE, **{name: value})


@pytest.mark.parametrize("encoding", sorted(SUPPORTED))
def test_text_with_a_nul_is_never_written(encoding: Encoding) -> None:
    with pytest.raises(MessageUnencodable, match="NUL"):
        encode(make(CANCEL_ORDER, ClientOrderID="a\0b"), encoding)


@pytest.mark.parametrize("encoding", [Encoding.JSON_COMPACT, Encoding.PROTOBUF])
def test_encoding_that_is_not_spoken_is_refused(encoding: Encoding) -> None:
    with pytest.raises(MessageUnencodable, match=encoding.name):
        encode(make(HEARTBEAT), encoding)


def test_bytes_that_are_no_utf8_are_read_one_by_one() -> None:
    data = bytearray(encode_fixed(make(CANCEL_ORDER)))
    data[68:72] = b"K\xf6ln"
    assert decode_fixed(CANCEL_ORDER, bytes(data)).text("TradeAccount") == "Köln"


def test_a_message_shows_no_password() -> None:
    shown = str(make(LOGON_REQUEST, Username="me", Password="secret"))
    assert "me" in shown
    assert "secret" not in shown


def test_members_are_read_as_what_they_are() -> None:
    message = make(ORDER_UPDATE, Symbol="NQZ26-CME", OrderStatus=4)
    with pytest.raises(TypeError, match="Symbol is no whole number"):
        message.integer("Symbol")
    with pytest.raises(TypeError, match="OrderStatus is no string"):
        message.text("OrderStatus")
    with pytest.raises(TypeError, match="Symbol is no number"):
        message.number("Symbol")
