"""SierraClientService as its clients see it, and what it sends to a market data that speaks plain protobuf."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from grpclib.client import Channel
from tests.contract.sierra.sierra_mesh import START_NS, SYMBOL, Mesh, config, eventually, made

from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_dataclasses.sierra import v1 as dataclasses
from minhos_mesh.runtime.errors import MeshError, read
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD, DepthCommand
from minhos_mesh.sierra_files.depth_writer import DepthWriter
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARKER_NAME
from minhos_mesh.sierra_files.marker import Marker, write_marker
from minhos_mesh.sierra_files.writer import ScidWriter


async def test_ticks_arrive_as_stock_protobuf_reads_them(mesh: Mesh) -> None:
    records = made(3)
    records["open"][1] = np.array([MARK_FIRST], "<u4").view("<f4")[0]
    records["high"][2] = 0.0
    ScidWriter.create(mesh.file, records).close()
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 3)
    first, marked, no_ask = mesh.market.newest
    flags = tick_pb2
    assert first.flags == sum(
        (flags.TICK_FLAG_HAS_PRICE, flags.TICK_FLAG_HAS_SIZE, flags.TICK_FLAG_HAS_BID, flags.TICK_FLAG_HAS_ASK)
    )
    assert (first.price_e9, first.bid_e9, first.ask_e9) == (23_500_250_000_000, 23_500_000_000_000, 23_500_250_000_000)
    assert (first.event_time_ns, first.size) == (START_NS, 2)
    assert (first.kind, first.side) == (tick_pb2.TICK_KIND_TRADE, tick_pb2.TRADE_SIDE_BUY)
    assert first.receive_time_ns > 0
    assert marked.flags & flags.TICK_FLAG_UNBUNDLED_FIRST
    assert not no_ask.flags & flags.TICK_FLAG_HAS_ASK
    (opened,) = mesh.market.opens
    assert (opened.source, opened.symbol) == (f"sierra_client:{SYMBOL}.scid", SYMBOL)
    assert opened.provenance == provenance_pb2.PROVENANCE_SIMULATED


async def test_status_says_what_is_tailed_and_both_stubs_agree(mesh: Mesh) -> None:
    ScidWriter.create(mesh.file, made(10)).close()
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 10)
    stream = mesh.stub.WatchStatus(pb2.WatchStatusRequest())
    async with asyncio.timeout(5):
        async for update in stream:
            status = update.snapshot.status if update.HasField("snapshot") else update.change
            if status.feeds and status.feeds[0].state == pb2.SIERRA_FEED_STATE_TAILING:
                break
    stream.cancel()
    feed = await mesh.feed()
    assert (feed.symbol, feed.file, feed.records_read, feed.records_acknowledged) == (SYMBOL, mesh.file.name, 10, 10)
    assert not feed.HasField("records_expected")
    assert feed.event_time.ToNanoseconds() == START_NS + 9_000_000
    assert feed.epoch == mesh.market.opens[0].epoch
    answer = (await mesh.stub.GetStatus(pb2.GetStatusRequest())).status
    assert (answer.folder, answer.ingest_connected) == (str(mesh.paths.sierra_dir), True)
    host, port = mesh.server.address.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        other = await dataclasses.SierraClientServiceStub(channel).get_status(dataclasses.GetStatusRequest())
    assert bytes(other.status) == answer.SerializeToString()


async def test_watch_goes_on_behind_a_revision_and_tells_counters_that_moved(mesh: Mesh) -> None:
    writer = ScidWriter.create(mesh.file, made(10))
    await mesh.start_client()
    while (await mesh.feed()).records_acknowledged != 10:
        await asyncio.sleep(0.001)
    first = mesh.stub.WatchStatus(pb2.WatchStatusRequest())
    async with asyncio.timeout(10):
        snapshot = await first.read()
        assert snapshot.snapshot.status.feeds[0].symbol == SYMBOL
        while (beat := await first.read()).WhichOneof("update") != "heartbeat":
            pass
        writer.append(made(5, 10))
        while (await mesh.feed()).records_acknowledged != 15:
            await asyncio.sleep(0.001)
        watching = mesh.stub.WatchStatus(pb2.WatchStatusRequest(after_revision=beat.revision))
        change = await watching.read()
    assert (change.WhichOneof("update"), change.change.feeds[0].records_read) == ("change", 15)
    assert change.revision > beat.revision >= snapshot.revision
    assert (await mesh.stub.GetStatus(pb2.GetStatusRequest())).revision >= change.revision
    for stream in (first, watching):
        stream.cancel()
    writer.close()
    for lost in (1, change.revision + 1_000_000):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await mesh.stub.WatchStatus(pb2.WatchStatusRequest(after_revision=lost)).read()
        assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert read(raised.value).reason == "ERROR_REASON_POSITION_LOST"


async def test_market_data_that_restarts_is_sent_all_again(mesh: Mesh) -> None:
    writer = ScidWriter.create(mesh.file, made(50))
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 50)
    await mesh.stop_market()
    await eventually(lambda: "MARKET_DATA_UNREACHABLE" in mesh.context.conditions.held())
    assert (await mesh.feed()).state == pb2.SIERRA_FEED_STATE_DISCONNECTED
    writer.append(made(5, 50))
    writer.close()
    await mesh.start_market()
    await eventually(lambda: len(mesh.market.newest) == 55)
    assert len({opened.epoch for opened in mesh.market.opens}) == 1
    assert mesh.context.conditions.held() == {}
    assert (await mesh.feed()).reconnects >= 1


async def test_stream_that_breaks_in_the_middle_loses_and_doubles_nothing(mesh: Mesh) -> None:
    mesh.market.break_after = 10_000
    ScidWriter.create(mesh.file, made(30_000)).close()
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 30_000)
    times = [tick.event_time_ns for tick in mesh.market.newest]
    assert times == [START_NS + at * 1_000_000 for at in range(30_000)]
    assert len(mesh.market.opens) == 2


async def test_client_that_restarts_sends_only_what_is_new(mesh: Mesh) -> None:
    writer = ScidWriter.create(mesh.file, made(20))
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 20)
    await mesh.stop_client()
    writer.append(made(4, 20))
    writer.close()
    await mesh.start_client()
    await eventually(lambda: len(mesh.market.newest) == 24)
    assert len(mesh.market.taken) == 1


async def test_replay_reaches_its_end_with_event_time_as_receive_time(mesh: Mesh) -> None:
    write_marker(mesh.paths.sierra_dir, Marker({mesh.file.name: 12}))
    ScidWriter.create(mesh.file, made(12)).close()
    await mesh.start_client(config(sierra_client={"provenance": "REPLAY"}))
    await eventually(lambda: mesh.market.ends == [12])
    assert all(tick.receive_time_ns == tick.event_time_ns for tick in mesh.market.newest)
    async with asyncio.timeout(5):
        while (await mesh.feed()).state != pb2.SIERRA_FEED_STATE_ENDED:
            await asyncio.sleep(0.001)
    feed = await mesh.feed()
    assert (feed.records_expected, feed.records_read, feed.records_acknowledged) == (12, 12, 12)
    assert feed.provenance == provenance_pb2.PROVENANCE_REPLAY


async def test_live_beside_a_marker_is_refused_with_the_reason(mesh: Mesh) -> None:
    write_marker(mesh.paths.sierra_dir, Marker())
    ScidWriter.create(mesh.file, made(1)).close()
    await mesh.start_client(config(sierra_client={"provenance": "LIVE"}))
    await eventually(lambda: "PROVENANCE_REFUSED" in mesh.context.conditions.held())
    assert MARKER_NAME in mesh.context.conditions.held()["PROVENANCE_REFUSED"]
    feed = await mesh.feed()
    assert feed.state == pb2.SIERRA_FEED_STATE_ERROR
    assert "provenance LIVE is declared" in feed.reason
    assert mesh.market.opens == []


async def test_refusal_of_market_data_is_told(mesh: Mesh) -> None:
    mesh.market.refuse = MeshError(
        grpc.StatusCode.NOT_FOUND, error_reason_pb2.ERROR_REASON_SYMBOL_UNKNOWN, f"{SYMBOL} is not configured"
    )
    ScidWriter.create(mesh.file, made(1)).close()
    await mesh.start_client()
    await eventually(lambda: "FEED_ERROR" in mesh.context.conditions.held())
    assert (await mesh.feed()).reason == f"market data refuses the source (NOT_FOUND): {SYMBOL} is not configured"


async def test_files_are_listed_in_pages(mesh: Mesh) -> None:
    ScidWriter.create(mesh.file, made(3)).close()
    (mesh.paths.sierra_dir / "ESZ26-CME.scid").write_bytes(b"PK\x03\x04")
    await mesh.start_client()
    first = await mesh.stub.ListFiles(pb2.ListFilesRequest(page_size=1))
    second = await mesh.stub.ListFiles(pb2.ListFilesRequest(page_size=1, page_token=first.next_page_token))
    assert [file.name for file in (*first.files, *second.files)] == ["ESZ26-CME.scid", mesh.file.name]
    assert "is not a .scid file" in first.files[0].error
    assert not first.files[0].HasField("records")
    assert (second.files[0].records, second.files[0].symbol, second.next_page_token) == (3, SYMBOL, "")
    assert second.files[0].first_time.ToNanoseconds() == START_NS
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mesh.stub.ListFiles(pb2.ListFilesRequest(page_size=-1))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert read(raised.value).violations[0].field == "page_size"
    for token in ("x", "ESZ26-CME.scid", first.next_page_token[:-2]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await mesh.stub.ListFiles(pb2.ListFilesRequest(page_token=token))
        assert read(raised.value).reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_the_order_book_beside_the_file_is_sent_as_stock_protobuf_reads_it(mesh: Mesh) -> None:
    rows = [(START_NS // 1000 + EPOCH_SHIFT_US, DepthCommand.CLEAR_BOOK, 0, 0, 0.0, 0, 0)]
    for at in range(12):
        rows.append((rows[0][0], DepthCommand.ADD_BID, 0, 2, 23_500.0 - at * 0.25, 10 + at, 0))
        rows.append((rows[0][0], DepthCommand.ADD_ASK, int(at == 11), 0, 23_500.25 + at * 0.25, 20 + at, 0))
    writer = DepthWriter(mesh.paths.sierra_dir, SYMBOL, keep_days=9)
    writer.append(np.array(rows, DEPTH_RECORD))
    writer.close()
    ScidWriter.create(mesh.file, made(1)).close()
    await mesh.start_client()
    await eventually(lambda: bool(mesh.market.books))
    book = mesh.market.books[0]
    assert (book.symbol, book.sequence, book.provenance) == (SYMBOL, 1, provenance_pb2.PROVENANCE_SIMULATED)
    assert [level.price_e9 for level in book.bids] == [23_500_000_000_000 - at * 250_000_000 for at in range(10)]
    assert [level.size for level in book.asks] == [20 + at for at in range(10)]
    assert (book.bids[0].order_count, book.asks[0].HasField("order_count")) == (2, False)
    assert book.event_time.ToNanoseconds() == START_NS
    assert book.receive_time.ToNanoseconds() > 0
    async with asyncio.timeout(5):
        while not (found := (await mesh.stub.GetStatus(pb2.GetStatusRequest())).status.books[0]).books_sent:
            await asyncio.sleep(0.001)
    assert (found.symbol, found.reason, found.books_read, found.commands_refused) == (SYMBOL, "", 1, 0)
    assert found.file == f"{SYMBOL}.2026-09-21.depth"
