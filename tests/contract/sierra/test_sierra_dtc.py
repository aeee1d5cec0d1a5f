"""The Sierra client over a DTC server: whose data comes which way, what may count as LIVE, and what is told of all that."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from tests.contract.sierra.dtc_server import REAL, TICK, P, Server, reaches, status_of, write_file
from tests.contract.sierra.sierra_mesh import SYMBOL, Mesh, config
from tests.waiting import eventually

from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_dataclasses.sierra import v1 as dataclasses
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.runtime.config import ConfigError
from minhos_mesh.sierra_files.marker import Marker, write_marker
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings


async def test_market_data_that_the_server_grants_comes_as_ticks_and_goes_on_after_a_restart(
    mesh: Mesh, server: Server
) -> None:
    await server.start()
    write_file(mesh)
    await mesh.start_client(server.config())
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)

    async def granted() -> bool:
        (data,) = (await status_of(mesh)).dtc.market_data
        return data.state == pb2.SIERRA_DTC_DATA_STATE_GRANTED

    await eventually(granted, "the snapshot shows that data is granted")
    server.trade(1, 3)
    server.trade(2, 1)
    await eventually(lambda: len(mesh.market.newest) == 2, "two ticks")
    first, second = mesh.market.newest
    assert (first.price_e9, first.bid_e9, first.ask_e9, first.size) == (P + TICK, P, P + TICK, 3)
    assert (first.kind, first.side) == (tick_pb2.TICK_KIND_TRADE, tick_pb2.TRADE_SIDE_BUY)
    assert first.event_time_ns < second.event_time_ns <= time.time_ns()
    (opened,) = mesh.market.opens
    assert opened.source == f"sierra_client:dtc/{SYMBOL}.scid"
    (data,) = (await status_of(mesh)).dtc.market_data
    assert (data.symbol, data.state, data.ticks) == (SYMBOL, pb2.SIERRA_DTC_DATA_STATE_GRANTED, 2)
    await mesh.stop_client()
    await mesh.start_client(server.config())
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    server.trade(3, 1)
    await eventually(lambda: len(mesh.market.newest) == 3, "the tick after the restart")
    assert len(mesh.market.taken) == 1, "it is the same generation"


def book(quantity: int) -> ShownBook:
    now = time.time_ns()
    return ShownBook(now, {P - each * TICK: quantity for each in range(12)}, {P + TICK: quantity})


async def test_order_book_that_the_server_grants_comes_whole_and_goes_on_after_a_cut(
    mesh: Mesh, server: Server
) -> None:
    await server.start()
    server.dtc.show_book(SYMBOL, book(1))
    await mesh.start_client(server.config())
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    await eventually(lambda: mesh.market.books, "the book as it stood")
    first = mesh.market.books[0]
    assert (first.symbol, first.provenance) == (SYMBOL, provenance_pb2.PROVENANCE_SIMULATED)
    assert [(level.price_e9, level.size, level.order_count) for level in first.bids] == [
        (P - each * TICK, 1, 1) for each in range(10)
    ]
    assert [(level.price_e9, level.size) for level in first.asks] == [(P + TICK, 1)]
    server.dtc.show_book(SYMBOL, book(2))
    await eventually(lambda: mesh.market.books[-1].bids[0].size == 2, "its change")
    server.dtc.cut_all()
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    server.dtc.show_book(SYMBOL, book(3))
    await eventually(lambda: mesh.market.books[-1].bids[0].size == 3, "the book behind the cut")
    assert len({each.epoch for each in mesh.market.books}) == 1
    numbers = [each.sequence for each in mesh.market.books]
    assert numbers == sorted(set(numbers))
    (told,) = (await status_of(mesh)).books
    assert (told.symbol, told.file, told.reason) == (SYMBOL, "dtc", "")
    assert told.books_sent >= 3
    await eventually(lambda: mesh.context.conditions.held() == {}, "nothing is wrong")


async def test_order_book_that_is_not_permitted_is_told_while_trades_go_on_and_comes_from_the_depth_file(
    mesh: Mesh, server: Server
) -> None:
    await server.start(DtcServerSettings(session=ServerSettings(depth=False)))
    await mesh.start_client(server.config())
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    words = f"{SYMBOL}, market depth: the logon grants no market depth"
    refused = f"the server does not permit market data, files are read instead: {words}"
    await eventually(lambda: mesh.context.conditions.held() == {"DTC_DATA_NOT_PERMITTED": refused}, "the refusal")
    server.trade(1, 3)
    await eventually(lambda: len(mesh.market.newest) == 1, "the trade")
    status = await status_of(mesh)
    (data,), (told,) = status.dtc.market_data, status.books
    assert data.state == pb2.SIERRA_DTC_DATA_STATE_GRANTED
    assert told.reason == f"there is no .depth file of {SYMBOL}"
    server.dtc.show_book(SYMBOL, book(1))
    assert mesh.market.books == []


@pytest.mark.parametrize("way", ["symbol", "logon"])
async def test_data_that_is_not_permitted_is_a_state_with_the_servers_words_and_comes_from_the_file(
    mesh: Mesh, server: Server, way: str
) -> None:
    refused = frozenset({"CME"}) if way == "symbol" else frozenset[str]()
    await server.start(
        DtcServerSettings(refused_exchanges=refused, session=ServerSettings(market_data=way == "symbol"))
    )
    write_file(mesh)
    await mesh.start_client(server.config())
    await eventually(lambda: len(mesh.market.newest) == 3, "the records of the file")
    status = await status_of(mesh)
    (data,) = status.dtc.market_data
    assert data.state == pb2.SIERRA_DTC_DATA_STATE_NOT_PERMITTED
    assert "permitted" in data.reason or "grants no market data" in data.reason
    assert [feed.state for feed in status.feeds] == [pb2.SIERRA_FEED_STATE_TAILING]
    held = mesh.context.conditions.held()
    assert list(held) == ["DTC_DATA_NOT_PERMITTED"]
    assert SYMBOL in held["DTC_DATA_NOT_PERMITTED"]
    server.trade(1, 1)
    server.dtc.cut_all()
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    assert len({opened.source for opened in mesh.market.opens}) == 1, "asked once, and not in a loop"


async def test_live_is_believed_once_the_server_that_is_no_simulator_has_let_us_in(mesh: Mesh, server: Server) -> None:
    await server.start(DtcServerSettings(session=REAL))
    port = server.dtc.port
    await server.dtc.close()
    write_file(mesh)
    await mesh.start_client(config(dtc={"port": port}, sierra_client={"poll_s": 0.01, "provenance": "LIVE"}))
    await eventually(lambda: "FEED_ERROR" in mesh.context.conditions.held(), "LIVE waits")
    assert "LIVE needs a logon" in (await status_of(mesh)).dtc.live_refused
    assert mesh.market.opens == []
    await server.start(DtcServerSettings(session=REAL), port)
    await eventually(lambda: len(mesh.market.newest) == 3, "the records of the file")
    assert mesh.market.opens[0].provenance == provenance_pb2.PROVENANCE_LIVE
    assert (await status_of(mesh)).dtc.live_refused == ""
    assert mesh.context.conditions.held() == {}


@pytest.mark.parametrize("why", ["simulator", "marker", "symbol"])
async def test_live_is_never_believed_of_a_simulator_or_of_a_server_that_does_not_know_the_symbol(
    mesh: Mesh, server: Server, why: str
) -> None:
    await server.start(DtcServerSettings(session=ServerSettings() if why == "simulator" else REAL))
    if why == "marker":
        write_marker(mesh.paths.sierra_dir, Marker())
    write_file(mesh)
    dtc = {"symbol": "{contract}X-{exchange}"} if why == "symbol" else {}
    await mesh.start_client(server.config(data=False, client={"provenance": "LIVE"}, **dtc))
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    words = {"simulator": "is a simulator", "marker": "marks the folder", "symbol": "does not know"}
    code = "FEED_ERROR" if why == "symbol" else "PROVENANCE_REFUSED"  # the server may come to know a symbol
    await eventually(lambda: words[why] in mesh.context.conditions.held().get(code, ""), "LIVE is refused in words")
    assert mesh.market.opens == []


async def test_status_tells_the_connection_and_both_stubs_agree(mesh: Mesh, server: Server) -> None:
    await server.start()
    await mesh.start_client(server.config(data=False, encoding="binary"))
    dtc = await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
    assert (dtc.address, dtc.encoding, dtc.account) == (f"127.0.0.1:{server.dtc.port}", "BINARY", "Sim1")
    assert (dtc.simulated, dtc.trading_permitted, dtc.connects, dtc.settled) == (True, True, 1, 1)
    assert (dtc.reason, dtc.unknown_orders, list(dtc.unknown_symbols)) == ("", 0, [])
    host, _, number = mesh.server.address.rpartition(":")
    async with Channel(host, int(number)) as channel:
        other = await dataclasses.SierraClientServiceStub(channel).get_status(dataclasses.GetStatusRequest())
    assert pb2.SierraStatus.FromString(bytes(other.status)).dtc == dtc
    await server.dtc.close()
    away = await reaches(mesh, pb2.SIERRA_DTC_STATE_WAITING)
    assert "the next attempt" in away.reason
    assert "DTC_AWAY" in mesh.context.conditions.held()


async def test_connection_without_a_venue_serves_no_orders_and_misses_no_permission_to_trade(
    mesh: Mesh, server: Server
) -> None:
    await server.start(DtcServerSettings(session=ServerSettings(trading=False)))
    write_file(mesh)
    await mesh.start_client(server.config(data=False))
    dtc = await reaches(mesh, pb2.SIERRA_DTC_STATE_NOT_PERMITTED)
    assert "Allow Trading" in dtc.reason
    await eventually(lambda: mesh.context.conditions.held() == {}, "that is no fault")
    assert not [name for name in mesh.server.contracts if "VenueService" in name]


async def test_venue_that_may_not_trade_says_what_to_tick(mesh: Mesh, server: Server) -> None:
    await server.start(DtcServerSettings(session=ServerSettings(trading=False)))
    write_file(mesh)
    sections: dict[str, Any] = {"dtc": {"port": server.dtc.port}, "engine": {"venue": "sierra_client"}}
    await mesh.start_client(config(**sections))
    await eventually(lambda: "DTC_TRADING_REFUSED" in mesh.context.conditions.held(), "the refusal")
    assert [name for name in mesh.server.contracts if "VenueService" in name]


async def test_password_file_that_is_not_there_is_named(mesh: Mesh, server: Server, tmp_path: Path) -> None:
    await server.start(DtcServerSettings(session=ServerSettings(username="me", password="secret")))
    with pytest.raises(ConfigError, match=r"dtc\.password_file is .*nowhere"):
        await mesh.start_client(server.config(password_file=str(tmp_path / "nowhere")))
    await mesh.stop_client()
    (tmp_path / "password").write_text("secret\n")
    given = server.config(username="me", password_file=str(tmp_path / "password"))
    assert "secret" not in given.model_dump_json()
    await mesh.start_client(given)
    await reaches(mesh, pb2.SIERRA_DTC_STATE_READY)
