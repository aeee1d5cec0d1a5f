"""How an order book looks: ten levels of each side within 80 columns, and what is said where there is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1 import provenance_pb2
from minhos_api.market.v1.depth_pb2 import Depth, DepthLevel
from minhos_mesh.cli import depth, following
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.paths import MeshPaths

NQ, TICK, BEST = "NQZ26-CME", 250_000_000, 25_000_000_000_000


def book(levels: int = 10, *, orders: bool = True, size: int = 12, sequence: int = 7) -> Depth:
    def side(best_e9: int, step_e9: int) -> list[DepthLevel]:
        count = {"order_count": 3} if orders else {}
        return [DepthLevel(price_e9=best_e9 + at * step_e9, size=size, **count) for at in range(levels)]

    return Depth(
        symbol=NQ,
        bids=side(BEST, -TICK),
        asks=side(BEST + TICK, TICK),
        event_time=Timestamp(seconds=1_790_000_000),
        sequence=sequence,
        provenance=provenance_pb2.PROVENANCE_SIMULATED,
    )


def test_a_book_is_ten_lines_of_each_side_with_the_best_on_top() -> None:
    head, columns, *levels = depth.book_text(book()).splitlines()
    assert head == "NQZ26-CME  14:13:20.000 UTC  #7  spread 0.25  SIMULATED"
    assert columns.split() == ["ORDERS", "SIZE", "BID", "│", "ASK", "SIZE", "ORDERS"]
    assert levels[0].split() == ["3", "12", "25000.00", "│", "25000.25", "12", "3"]
    assert [line.split()[2] for line in levels] == [f"{25_000 - at * 0.25:.2f}" for at in range(10)]
    assert [line.split()[4] for line in levels] == [f"{25_000.25 + at * 0.25:.2f}" for at in range(10)]


def test_a_book_fits_eighty_columns_whatever_its_numbers() -> None:
    wide = book(size=2**31)
    for level in (*wide.bids, *wide.asks):
        level.price_e9, level.order_count = 9_999_999_999_999_999, 2**31 - 1
    text = depth.book_text(wide)
    assert len(text.splitlines()) == 12
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_absent_is_a_dash_and_never_a_zero() -> None:
    one_sided = book(2, orders=False)
    del one_sided.asks[:]
    one_sided.ClearField("event_time")
    head, _, first, second = depth.book_text(one_sided).splitlines()
    assert "spread -" in head
    assert "time not told" in head
    assert first.split() == ["-", "12", "25000.00", "│", "-"]
    assert second.split() == ["-", "12", "24999.75", "│"]
    assert depth.book_text(Depth(symbol=NQ)).splitlines()[2].split() == ["-", "│", "-"]


def test_colours_change_no_character() -> None:
    assert depth.coloured(book()).plain.rstrip("\n") == depth.book_text(book())


class Answers:
    """The clients of a market data service that streams what it is given."""

    def __init__(self, *answers: market_pb.StreamMarketDataResponse) -> None:
        self.answers = answers
        self.asked: list[market_pb.MarketSubscription] = []
        self._left: list[market_pb.StreamMarketDataResponse] = []

    def stub(self, _: Any) -> Answers:
        return self

    def StreamMarketData(self, request: market_pb.StreamMarketDataRequest) -> Answers:
        self.asked.append(request.subscription)
        self._left = list(self.answers)
        return self

    async def read(self) -> Any:
        return self._left.pop(0) if self._left else grpc.aio.EOF

    async def books(self, folder: Path, symbol: str) -> AsyncIterator[Depth]:
        clients: Any = self
        kept: Clients = clients
        async for found in depth.books(Link(MeshPaths(folder), "", kept), symbol):
            if found is not None:
                yield found


def came(**message: Any) -> market_pb.StreamMarketDataResponse:
    return market_pb.StreamMarketDataResponse(**message)


async def test_books_of_the_symbol_come_from_the_snapshot_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Answers(
        came(subscribed=market_pb.MarketSubscribed(symbol=NQ)),
        came(snapshot=market_pb.MarketSnapshot(symbol=NQ, depth=book())),
        came(heartbeat=market_pb.MarketHeartbeat()),
        came(depth=book(sequence=9)),
        came(depth=book(sequence=11)),
    )
    await depth.follow(stream.books(tmp_path, NQ), 2, as_json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["sequence"] for each in found] == ["7", "9"]
    assert len(found[0]["bids"]) == len(found[0]["asks"]) == 10
    assert list(stream.asked[0].symbols) == [NQ]
    await depth.follow(stream.books(tmp_path, NQ), None, as_json=False)
    assert capsys.readouterr().out.count("BID │ ASK") == 3


async def test_a_symbol_that_is_refused_is_told(tmp_path: Path) -> None:
    told = market_pb.MarketSubscribed(
        symbol="X", refused_reason="ERROR_REASON_SYMBOL_UNKNOWN", refused_message="symbol 'X' is not configured"
    )
    with pytest.raises(CommandFailed, match=r"symbol 'X' is not configured  \[SYMBOL_UNKNOWN\]"):
        await depth.follow(Answers(came(subscribed=told)).books(tmp_path, "X"), None, as_json=True)


async def test_no_book_for_long_says_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AWAITED_S", -1.0)
    beat = came(heartbeat=market_pb.MarketHeartbeat())
    await depth.follow(Answers(beat, beat).books(tmp_path, NQ), None, as_json=False)
    assert capsys.readouterr().err.count("no order book of NQZ26-CME has come yet") == 1
