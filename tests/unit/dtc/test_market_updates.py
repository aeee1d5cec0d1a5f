from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.dtc.binary import decode_fixed, encode_fixed
from minhos_mesh.dtc.client_session import Refusal, permissions
from minhos_mesh.dtc.enums import BuySell, FeedStatus, UnbundledTrade
from minhos_mesh.dtc.layout import Layout, Value
from minhos_mesh.dtc.market_updates import MarketReader, MarketUpdate, QuoteUpdate, TradeUpdate
from minhos_mesh.dtc.message import make
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.tables import market as tables
from minhos_mesh.dtc.tables.session import HEARTBEAT, LOGON_RESPONSE
from minhos_mesh.sierra_client.dtc_market import MarketData

QUARTER = 250_000_000
SYMBOL = "NQZ26-CME"
SECOND = 1_621_443_600
NS = SECOND * 1_000_000_000


def scale_of(symbol: str) -> PriceScale:
    return PriceScale(QUARTER)


def read(layout: Layout, reader: MarketReader | None = None, **values: Value | None) -> MarketUpdate | None:
    message = decode_fixed(layout, encode_fixed(make(layout, SymbolID=7, **values)))
    return (reader or MarketReader({7: SYMBOL})).read(message, scale_of)


@pytest.mark.parametrize(
    ("layout", "time", "size"),
    [
        (tables.MARKET_DATA_UPDATE_TRADE, SECOND + 0.25, 3.0),
        (tables.MARKET_DATA_UPDATE_TRADE_COMPACT, SECOND, 3.0),
        (tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR, SECOND + 0.25, 3),
        (tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2, SECOND * 1_000_000 + 250_000, 3),
    ],
    ids=lambda value: value.name if isinstance(value, Layout) else "",
)
def test_every_form_of_a_trade_says_the_same(layout: Layout, time: Value, size: Value) -> None:
    found = read(layout, Price=23_500.25, Volume=size, DateTime=time, AtBidOrAsk=1)
    whole = layout is tables.MARKET_DATA_UPDATE_TRADE_COMPACT
    assert found == TradeUpdate(
        symbol=SYMBOL, time_ns=NS if whole else NS + 250_000_000, price_e9=23_500_250_000_000, on_grid=True, size=3,
        aggressor=BuySell.SELL, unbundled=UnbundledTrade.NONE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "time", "size"),
    [
        (tables.MARKET_DATA_UPDATE_BID_ASK, SECOND, 3.0),
        (tables.MARKET_DATA_UPDATE_BID_ASK_COMPACT, SECOND, 3.0),
        (tables.MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS, SECOND * 1_000_000, 3.0),
    ],
    ids=lambda value: value.name if isinstance(value, Layout) else "",
)
def test_every_form_of_a_quote_says_the_same(layout: Layout, time: Value, size: Value) -> None:
    found = read(layout, BidPrice=23_500.0, AskPrice=23_500.25, BidQuantity=size, AskQuantity=size, DateTime=time)
    assert found == QuoteUpdate(
        symbol=SYMBOL, time_ns=NS, bid_e9=23_500_000_000_000, ask_e9=23_500_250_000_000, bid_size=3, ask_size=3
    )


def test_what_has_no_time_is_of_the_time_of_what_came_before() -> None:
    reader = MarketReader({7: SYMBOL})
    first = read(tables.MARKET_DATA_UPDATE_TRADE_NO_TIMESTAMP, reader, Price=100.0, Volume=1)
    read(tables.MARKET_DATA_UPDATE_TRADE_COMPACT, reader, Price=100.0, Volume=1.0, DateTime=SECOND)
    later = read(tables.MARKET_DATA_UPDATE_BID_ASK_NO_TIMESTAMP, reader, BidPrice=100.0, BidQuantity=2)
    assert first is not None
    assert later is not None
    assert (first.time_ns, later.time_ns) == (None, NS)


def test_side_that_is_not_quoted_is_absent() -> None:
    found = read(tables.MARKET_DATA_UPDATE_BID_ASK_COMPACT, BidPrice=100.0, BidQuantity=2.0, DateTime=SECOND)
    assert isinstance(found, QuoteUpdate)
    assert (found.bid_e9, found.bid_size, found.ask_e9, found.ask_size) == (100_000_000_000, 2, None, None)


def test_snapshot_is_a_quote_and_never_a_trade() -> None:
    found = read(tables.MARKET_DATA_SNAPSHOT, BidPrice=100.0, LastTradePrice=99.0, LastTradeVolume=5.0)
    assert isinstance(found, QuoteUpdate)
    assert (found.bid_e9, found.bid_size, found.ask_e9) == (100_000_000_000, None, None)


def test_last_price_without_a_volume_is_a_price_without_a_size() -> None:
    layout = tables.MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT
    for volume in (0.0, None):
        assert read(layout, LastTradePrice=23_500.25, LastTradeVolume=volume, LastTradeDateTime=SECOND + 0.25) == TradeUpdate(
            symbol=SYMBOL, time_ns=NS + 250_000_000, price_e9=23_500_250_000_000, on_grid=True, size=None,
            aggressor=BuySell.UNSET, unbundled=UnbundledTrade.NONE,
        )  # fmt: skip


def test_last_price_with_a_volume_repeats_a_trade_and_is_none() -> None:
    reader = MarketReader({7: SYMBOL})
    layout = tables.MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT
    assert read(layout, reader, LastTradePrice=100.0, LastTradeVolume=3.0, LastTradeDateTime=SECOND) is None
    assert read(layout, reader, LastTradeVolume=0.0) is None
    assert reader.unreadable == 0
    assert read(layout, reader, LastTradePrice=1e12) is None
    assert reader.unreadable == 1


def test_trade_of_no_contracts_is_a_price_without_a_size() -> None:
    found = read(tables.MARKET_DATA_UPDATE_TRADE_COMPACT, Price=100.0, Volume=0.0, DateTime=SECOND)
    assert isinstance(found, TradeUpdate)
    assert (found.price_e9, found.size) == (100_000_000_000, None)


def test_mark_of_an_unbundled_trade_is_kept() -> None:
    layout = tables.MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2
    found = read(layout, Price=100.0, Volume=1, DateTime=SECOND * 1_000_000, UnbundledTradeIndicator=2)
    assert isinstance(found, TradeUpdate)
    assert found.unbundled is UnbundledTrade.LAST


def test_what_was_never_asked_for_or_cannot_be_read_is_counted_and_left_out() -> None:
    reader = MarketReader({1: SYMBOL})
    assert read(tables.MARKET_DATA_UPDATE_TRADE, reader, Price=100.0) is None
    reader.symbols[7] = SYMBOL
    for values in (
        {"Price": 1e12},
        {"Price": None},
        {"Price": 100.0, "Volume": 0.5},
        {"Price": 100.0, "DateTime": -5.0},
    ):
        assert read(tables.MARKET_DATA_UPDATE_TRADE, reader, **values) is None
    assert reader.read(make(HEARTBEAT), scale_of) is None
    assert (reader.strangers, reader.unreadable) == (1, 4)


@given(st.binary(min_size=36, max_size=36))
def test_any_bytes_of_a_trade_are_a_price_that_is_in_them_or_nothing(body: bytes) -> None:
    data = struct.pack("<HH", 40, 107) + body
    message = decode_fixed(tables.MARKET_DATA_UPDATE_TRADE, data)
    reader = MarketReader({message.integer("SymbolID"): SYMBOL})
    found = reader.read(message, scale_of)
    raw = struct.unpack_from("<d", data, 16)[0]
    if isinstance(found, TradeUpdate):
        assert abs(found.price_e9 / 1e9 - raw) <= 0.0126
    else:
        assert reader.unreadable == 1


def test_refused_symbol_is_not_asked_for_again_when_the_feed_comes_back() -> None:
    data = MarketData(["A", "B"], scale_of)
    granted = permissions(make(LOGON_RESPONSE, Result=1, ResubscribeWhenMarketDataFeedAvailable=1))
    assert [message.text("Symbol") for message in data.begin(granted)] == ["A", "B"]
    assert data.refuse(Refusal("MARKET_DATA", 1, False, 0, "no")) == "A"
    assert data.refuse(Refusal("HISTORY", 1, False, 0, "no")) == ""
    down = make(tables.MARKET_DATA_FEED_STATUS, Status=int(FeedStatus.UNAVAILABLE))
    up = make(tables.MARKET_DATA_FEED_STATUS, Status=int(FeedStatus.AVAILABLE))
    assert data.take(up) == (None, [])
    assert data.take(down) == (None, [])
    assert not data.available
    assert [message.text("Symbol") for message in data.take(up)[1]] == ["B"]


def test_server_that_grants_no_market_data_is_not_asked() -> None:
    data = MarketData(["A"], scale_of)
    assert data.begin(permissions(make(LOGON_RESPONSE, Result=1, MarketDataSupported=0))) == []
    assert data.refused == {"A"}
