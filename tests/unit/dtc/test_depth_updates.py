"""Order books over DTC: what the simulator tells in any form is what the client reads, and a book in doubt is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.dtc import depth_updates
from minhos_mesh.dtc.client_session import Refusal, permissions
from minhos_mesh.dtc.depth_updates import BookLevel, BookUpdate, DepthReader
from minhos_mesh.dtc.enums import Encoding, FeedStatus, FinalUpdate, LogonFlag
from minhos_mesh.dtc.layout import Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.stream import MessageStream, encode
from minhos_mesh.dtc.tables import depth as tables
from minhos_mesh.dtc.tables.market import MARKET_DATA_FEED_STATUS
from minhos_mesh.dtc.tables.session import LOGON_RESPONSE
from minhos_mesh.sierra_client.dtc_market import ASKED_AGAIN, MarketData
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook, changes, snapshot

TICK, P, SYMBOL, NS = 250_000_000, 23_500_000_000_000, "NQZ26-CME", 1_621_443_600_000_000_000
FORMS = [LogonFlag(0), LogonFlag.DEPTH_MILLISECONDS, LogonFlag.DEPTH_SNAPSHOT_FLOAT, LogonFlag.RECOMMENDED]
SIDES = st.dictionaries(st.integers(0, 30), st.integers(1, 5_000), max_size=14)
UPDATE = tables.MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS


def scale_of(_: str) -> PriceScale:
    return PriceScale(TICK)


def book(bids: dict[int, int], asks: dict[int, int], at: int = 0) -> ShownBook:
    """Contracts by ticks away from the middle."""
    return ShownBook(
        NS + at * 1_000_000_000,
        {P - ticks * TICK: quantity for ticks, quantity in bids.items()},
        {P + (ticks + 1) * TICK: quantity for ticks, quantity in asks.items()},
    )


def best(levels: dict[int, int], sign: int) -> tuple[BookLevel, ...]:
    chosen = sorted(levels.items(), key=lambda item: sign * item[0])[:10]
    return tuple(BookLevel(price, quantity, -(-quantity // 2)) for price, quantity in chosen)


def sent(messages: list[Message], encoding: Encoding) -> list[Message]:
    """Messages as they come out of the stream on the other side."""
    stream = MessageStream(encoding)
    stream.feed(b"".join(encode(message, encoding) for message in messages))
    found = []
    while (message := stream.read()) is not None:
        found.append(message)
    return found


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.BINARY, Encoding.BINARY_VARIABLE])
@pytest.mark.parametrize("flags", FORMS, ids=str)
@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_every_form_tells_the_book_of_the_server_and_only_whole_ones(
    encoding: Encoding, flags: LogonFlag, steps: list[tuple[dict[int, int], dict[int, int]]]
) -> None:
    reader, books = DepthReader({7: SYMBOL}), [book(*sides, at) for at, sides in enumerate(steps)]
    told = [reader.read(message, scale_of) for message in sent(snapshot(flags, 7, books[0]), encoding)]
    assert [each for each in told[:-1] if each is not None] == [], "a book in the middle of a batch is none"
    for before, after in zip([None, *books], books, strict=False):
        if before is not None:
            messages = sent(changes(flags, 7, before, after), encoding)
            told = [reader.read(message, scale_of) for message in messages] or told
        found = told[-1]
        assert isinstance(found, BookUpdate)
        assert (found.bids, found.asks) == (best(dict(after.bids), -1), best(dict(after.asks), 1))
    assert (reader.unreadable, reader.strangers, reader.doubtful) == (0, 0, set())


def level(**values: Value | None) -> Message:
    whole: dict[str, Value | None] = {
        "SymbolID": 7, "Side": 1, "Price": 23_500.0, "Quantity": 3.0, "UpdateType": 1, "FinalUpdateInBatch": 1,
    }  # fmt: skip
    return make(UPDATE, **{**whole, **values})


def known() -> DepthReader:
    reader = DepthReader({7: SYMBOL})
    told = [reader.read(each, scale_of) for each in snapshot(LogonFlag.RECOMMENDED, 7, book({0: 5}, {0: 4}))]
    assert told[-1] is not None
    return reader


def test_change_before_the_whole_book_says_nothing() -> None:
    reader = DepthReader({7: SYMBOL})
    assert reader.read(level(), scale_of) is None
    assert (reader.unreadable, reader.doubtful) == (0, set())


def test_batch_of_changes_is_one_book() -> None:
    reader = known()
    assert reader.read(level(Price=23_499.75, FinalUpdateInBatch=int(FinalUpdate.FALSE)), scale_of) is None
    found = reader.read(level(UpdateType=2, DateTime=NS // 1_000_000), scale_of)
    assert found == BookUpdate(SYMBOL, NS, (BookLevel(P - TICK, 3, 0),), (BookLevel(P + TICK, 4, 2),))


@pytest.mark.parametrize(
    "wrong",
    [{"Side": 0}, {"Price": 23_500.1}, {"Price": 1e12}, {"Quantity": 1.5}, {"Quantity": -1.0}, {"UpdateType": 0}],
)
def test_book_with_a_change_that_cannot_be_read_is_in_doubt_until_it_is_told_whole(wrong: dict[str, Value]) -> None:
    reader = known()
    assert reader.read(level(**wrong), scale_of) is None
    assert (reader.unreadable, reader.doubtful) == (1, {7})
    assert reader.read(level(), scale_of) is None, "what comes now is of a book that is not known"
    again = [reader.read(each, scale_of) for each in snapshot(LogonFlag(0), 7, book({1: 2}, {}))]
    assert again[-1] is not None
    assert (again[-1].bids, again[-1].asks) == ((BookLevel(P - TICK, 2, 1),), ())


def test_book_that_grows_without_end_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_updates, "LARGEST_BOOK", 20)
    reader = known()
    for ticks in range(1, 40):
        reader.read(level(Price=23_500.0 - ticks * 0.25), scale_of)
    assert reader.doubtful == {7}


def test_book_under_an_id_that_was_not_asked_for_is_counted() -> None:
    reader = known()
    assert reader.read(level(SymbolID=8), scale_of) is None
    assert reader.strangers == 1


def granted(**values: Value | None) -> MarketData:
    market = MarketData([SYMBOL], scale_of, depth=True)
    market.begin(permissions(make(LOGON_RESPONSE, MarketDataSupported=1, **values)))
    return market


def test_books_are_asked_for_beside_trades_and_anew_when_in_doubt_but_not_for_ever() -> None:
    market = MarketData([SYMBOL], scale_of, depth=True)
    asked = market.begin(permissions(make(LOGON_RESPONSE, MarketDataSupported=1, MarketDepthIsSupported=1)))
    assert [message.layout.name for message in asked] == ["MARKET_DATA_REQUEST", "MARKET_DEPTH_REQUEST"]
    assert (asked[1].integer("NumLevels"), asked[1].text("Symbol")) == (10, SYMBOL)
    answers = []
    for _ in range(ASKED_AGAIN + 5):
        told = [market.take(message)[0] for message in snapshot(LogonFlag.RECOMMENDED, 1, book({0: 5}, {0: 4}))]
        assert isinstance(told[-1], BookUpdate)
        _, again = market.take(level(SymbolID=1, Side=0))
        answers += again
    assert [message.layout.name for message in answers] == ["MARKET_DEPTH_REQUEST"] * ASKED_AGAIN


def test_book_that_is_refused_leaves_trades_and_is_not_asked_for_again() -> None:
    by_logon = granted(MarketDepthIsSupported=0)
    assert by_logon.refused_depth == {SYMBOL: "the logon grants no market depth"}
    by_symbol = granted(MarketDepthIsSupported=1)
    told = by_symbol.refuse(Refusal("DEPTH", 1, permitted=False, retry_s=0, text="not for you"))
    assert (told, by_symbol.refused, by_symbol.refused_depth) == ("", set(), {SYMBOL: "not for you"})


def test_books_are_forgotten_when_the_server_has_no_data_any_more() -> None:
    market = granted(MarketDepthIsSupported=1, ResubscribeWhenMarketDataFeedAvailable=1)
    for message in snapshot(LogonFlag.RECOMMENDED, 1, book({0: 5}, {0: 4})):
        market.take(message)
    market.take(make(MARKET_DATA_FEED_STATUS, Status=int(FeedStatus.UNAVAILABLE)))
    assert market.take(level(SymbolID=1))[0] is None
    _, asked = market.take(make(MARKET_DATA_FEED_STATUS, Status=int(FeedStatus.AVAILABLE)))
    assert [message.layout.name for message in asked] == ["MARKET_DATA_REQUEST", "MARKET_DEPTH_REQUEST"]
