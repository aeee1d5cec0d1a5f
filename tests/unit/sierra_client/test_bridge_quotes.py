"""What is read of the bridge's JSON: the right price or none, whatever it sends. MINHOS_FUZZ makes the campaigns longer."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_client.bridge_changes import LastPrices
from minhos_mesh.sierra_client.bridge_orders import TradeStatus, judge_trade_status
from minhos_mesh.sierra_client.bridge_quotes import (
    BridgeQuote,
    Refusal,
    Refused,
    Told,
    quote_of_message,
    quotes_of_map,
    read_json,
    read_quote,
    read_symbols,
)

CASES = int(os.environ.get("MINHOS_FUZZ", "300"))
NQ, VIX = "NQZ26-CME", "VIX-CGI"
TICKS = {NQ: 250_000_000, VIX: 10_000_000, "YMZ26-CBOT": 1_000_000_000}

OF_PRICE_VERSION = (
    '{"symbol":"NQZ26-CME","timestamp":"2026-11-22T14:16:44.244706","price":23500.5,"volume":0,"bid":23500.5,"ask":23500.5,'
    '"high":23501.0,"low":23500.0,"open":23500.5,"source":"sierra_chart_scid","bid_size":null,"ask_size":null,'
    '"last_size":null,"vwap":null,"trades":null,"timestamp_us":null,"trade_side":null,"sequence":null,"precision":null}'
)
OF_LAST_PRICE_VERSION = (
    '{"symbol":"NQZ26-CME","last_price":23500.5,"bid":23500.25,"ask":23500.5,"volume":0,"timestamp":"...","high":23501.0,'
    '"low":23500.0,"open":-1.9990019654e37}'
)


def quote_of(text: str) -> BridgeQuote:
    return read_quote(read_json(text), TICKS)


def quoted(price: str, symbol: str = NQ) -> str:
    return f'{{"symbol":"{symbol}","price":{price}}}'


def refusal(text: str) -> Refusal:
    with pytest.raises(Refused) as raised:
        quote_of(text)
    return raised.value.refusal


def test_quotes_of_both_versions_give_the_price() -> None:
    assert quote_of(OF_PRICE_VERSION) == BridgeQuote(NQ, 23_500_500_000_000, None, None, "price")
    assert quote_of(OF_LAST_PRICE_VERSION) == BridgeQuote(
        NQ, 23_500_500_000_000, 23_500_250_000_000, 23_500_500_000_000, "last_price"
    )


def test_aliases_of_a_symbol_are_that_symbol() -> None:
    assert quote_of('{"symbol":"nqz26_cme","price":1.25}').symbol == NQ


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "BAD_JSON"), ("{", "BAD_JSON"), ("NaN", "BAD_JSON"), ("[" * 100_000, "BAD_JSON"),
        (quoted("NaN"), "BAD_JSON"), (quoted("-Infinity"), "BAD_JSON"), (quoted("1" * 5000), "BAD_JSON"),
        ('{"symbol":"NQZ26-CME","price":1,"price":2}', "BAD_JSON"),
        ("null", "NO_QUOTE"), ("[1]", "NO_QUOTE"), ("17", "NO_QUOTE"),
        ('{"price":23500}', "NO_SYMBOL"), ('{"symbol":7,"price":23500}', "NO_SYMBOL"),
        (quoted("23500", "x" * 1000), "NO_SYMBOL"), (quoted("23500", "?"), "NO_SYMBOL"),
        (quoted("6500", "ESZ26-CME"), "OTHER_SYMBOL"), (quoted("23500", "NQH27-CME"), "OTHER_SYMBOL"),
        ('{"symbol":"NQZ26-CME"}', "NO_PRICE"), (quoted("null"), "NO_PRICE"), (quoted("0.0"), "NO_PRICE"), (quoted("-1"), "NO_PRICE"),
        (quoted('"23500"'), "BAD_PRICE"), (quoted("true"), "BAD_PRICE"), (quoted("[23500]"), "BAD_PRICE"),
        (quoted("1e400"), "BAD_PRICE"), (quoted("1e-400"), "BAD_PRICE"), (quoted("1e999999999"), "BAD_PRICE"), (quoted("20000000"), "BAD_PRICE"),
        (quoted("-1.9990019654e37"), "BAD_PRICE"),
        (quoted("23500.1"), "OFF_TICK"), (quoted("0.1"), "OFF_TICK"), (quoted("9999999.37"), "OFF_TICK"), (quoted("9999999.25"), "OFF_TICK"),
        ('{"symbol":"NQZ26-CME","price":23500,"last_price":23500.25}', "CONTRADICTION"),
    ],
)  # fmt: skip
def test_what_is_no_price_beyond_doubt_is_refused(text: str, expected: str) -> None:
    assert refusal(text) == expected


@pytest.mark.parametrize(("ticks", "symbol"), [(1706, VIX), (94_002, NQ), (46_123, "YMZ26-CBOT"), (1, VIX)])
def test_a_price_that_was_single_precision_is_the_price_that_was_meant(ticks: int, symbol: str) -> None:
    price_e9 = ticks * TICKS[symbol]
    (widened,) = struct.unpack("<f", struct.pack("<f", price_e9 / 1e9))
    assert quote_of(quoted(repr(widened), symbol)).price_e9 == price_e9


@pytest.mark.parametrize(
    ("bid", "ask"),
    [
        ("23500.5", "23500.5"),
        ("23501", "23500"),
        ("null", "23501"),
        ("0", "23501"),
        ('"x"', "23501"),
        ("23500.1", "23501"),
    ],
)
def test_a_side_that_is_invented_or_unreadable_is_absent_with_its_pair(bid: str, ask: str) -> None:
    found = quote_of(f'{{"symbol":"NQZ26-CME","price":23500.5,"bid":{bid},"ask":{ask}}}')
    assert (found.price_e9, found.bid_e9, found.ask_e9) == (23_500_500_000_000, None, None)


@given(st.sampled_from(sorted(TICKS)), st.integers(1, 100_000), st.sampled_from(["price", "last_price"]), st.booleans())
@settings(max_examples=CASES)
def test_every_price_on_the_grid_comes_through_exactly(symbol: str, ticks: int, name: str, single: bool) -> None:
    price_e9 = ticks * TICKS[symbol]
    number: Any = price_e9 / 1e9
    if single:
        (number,) = struct.unpack("<f", struct.pack("<f", number))
    assert quote_of(json.dumps({"symbol": symbol, name: number})).price_e9 == price_e9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([NQ, VIX, "ESZ26-CME"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["symbol", "price", "last_price", "bid", "ask", "type", "data", "full_data", "error", NQ])
            | st.text(max_size=8),
            inner,
            max_size=8,
        )
    ),
    max_leaves=30,
)  # fmt: skip


def means(value: object, price_e9: int) -> bool:
    """Whether a number of the text means this price, to what single precision can hold."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    return abs(Fraction(value) - Fraction(price_e9, 10**9)) <= Fraction(price_e9, 10**9) / 2**22


def check(text: str | bytes) -> None:
    """Takes a text as each place takes it; what comes out is a price that stands in it."""
    try:
        value = read_json(text)
    except Refused:
        return
    candidates: list[object] = [value]
    with contextlib.suppress(Refused):
        candidates += quotes_of_map(value)
    with contextlib.suppress(Refused):
        candidates.append(quote_of_message(value)[1])
    for candidate in candidates:
        try:
            found = read_quote(candidate, TICKS)
        except Refused:
            continue
        assert isinstance(candidate, dict)
        assert found.price_e9 > 0
        assert found.price_e9 % TICKS[found.symbol] == 0
        assert means(candidate[found.dialect], found.price_e9)
        if found.bid_e9 is not None and found.ask_e9 is not None:
            assert found.bid_e9 < found.ask_e9
            assert means(candidate["bid"], found.bid_e9)
            assert means(candidate["ask"], found.ask_e9)


@given(JSON)
@settings(max_examples=CASES)
def test_any_json_gives_a_price_that_stands_in_it_or_none(value: object) -> None:
    check(json.dumps(value))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=CASES)
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    check(data)


@given(
    st.sampled_from([OF_PRICE_VERSION, OF_LAST_PRICE_VERSION]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4),
)
@settings(max_examples=CASES)
def test_damaged_quotes_give_a_price_that_stands_in_them_or_none(
    text: str, edits: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(text.encode())
    for place, cut, put in edits:
        at = place % (len(data) + 1)
        data[at : at + cut] = put
    check(bytes(data))


def test_maps_and_messages_are_taken_by_their_symbols() -> None:
    body = read_json(f'{{"NQZ26-CME":{{"price":1.25}},"VIX-CGI":{OF_PRICE_VERSION}}}')
    keyed, stranger = quotes_of_map(body)
    assert read_quote(keyed, TICKS).symbol == NQ
    assert stranger is None, "a quote of another symbol than its key is none"
    with pytest.raises(Refused, match="answers with an error"):
        quotes_of_map({"error": "x", "timestamp": "y"})
    assert quotes_of_map({}) == []
    assert quote_of_message({"type": "ping"}) == (Told.NOTHING, None)
    assert quote_of_message({"type": "heartbeat_ack"}) == (Told.NOTHING, None)
    assert quote_of_message({"type": "initial_state", "symbol": NQ, "data": {"price": 1}})[0] is Told.FIRST
    assert quote_of_message({"type": "market_data_delta", "symbol": VIX, "full_data": {"symbol": NQ}}) == (
        Told.CHANGE,
        None,
    )
    assert read_symbols({"symbols": [NQ, "?", 7, "vix_cgi"]}) == (NQ, VIX)


def test_a_price_is_a_tick_when_it_changed_since_a_recent_look() -> None:
    prices = LastPrices(5.0)
    at = [(23_500, 0.0, False), (23_500, 1.0, False), (23_501, 2.0, True), (23_501, 3.0, False), (23_502, 8.5, False), (23_503, 9.0, True)]  # fmt: skip
    for price, now_s, is_tick in at:
        assert prices.is_tick(BridgeQuote(NQ, price, None, None, "price"), now_s) is is_tick, (price, now_s)
    assert not prices.is_tick(BridgeQuote(VIX, 17, None, None, "price"), 9.0), "each symbol has its own"


@pytest.mark.parametrize(
    ("status", "body", "found", "words"),
    [
        (200, b'{"status":"FILLED","fill_price":18000.0}', TradeStatus.INVENTED, "FILLED at 18000.0, as every order"),
        (
            200,
            b'{"status":"FILLED","fill_price":23500.25}',
            TradeStatus.INVENTED,
            "FILLED at 23500.25: nothing it says",
        ),
        (200, b'{"status":"filled"}', TradeStatus.INVENTED, "filled: nothing it says of orders is believed"),
        (200, b'{"status":"UNKNOWN"}', TradeStatus.UNPROVEN, "no order goes through it"),
        (200, b'{"status":7}', TradeStatus.ABSENT, "it tells no status"),
        (200, b"[]", TradeStatus.ABSENT, "it tells no status"),
        (200, b"\xff", TradeStatus.ABSENT, "is no JSON"),
        (500, b"", TradeStatus.ABSENT, "HTTP 500"),
    ],
)
def test_word_of_an_order_is_never_believed(status: int, body: bytes, found: TradeStatus, words: str) -> None:
    judged, why = judge_trade_status(status, body)
    assert judged is found
    assert words in why
