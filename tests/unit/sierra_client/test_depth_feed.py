"""How order books of .depth files get to market data: whole ones only, the newest next, over every kind of trouble."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.waiting import eventually

from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client import depth_feed
from minhos_mesh.sierra_client.depth_feed import DepthFeed, keep_sending
from minhos_mesh.sierra_client.depth_tail import DepthLost, DepthTail, newest_depth_file
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.ports import IngestLost, IngestRefused, Opening
from minhos_mesh.sierra_client.wakeups import FolderWakeups
from minhos_mesh.sierra_files.depth import write_depth_header
from minhos_mesh.sierra_files.depth_book import BookView, DepthBook
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD, END_OF_BATCH, DepthCommand
from minhos_mesh.sierra_files.depth_writer import DepthWriter, depth_path
from minhos_mesh.sierra_files.header import ScidIncomplete, ScidMalformed, ScidMissing
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US
from minhos_mesh.sierra_files.marker import Marker, write_marker

NAME = "NQZ26-CME"
TICK = 250_000_000
START_US = EPOCH_SHIFT_US + 1_790_000_000_000_000
DAY_US = 86_400_000_000
Commands = np.ndarray[Any, Any]


def commands(*rows: tuple[DepthCommand, float, int], at_us: int = START_US) -> Commands:
    """One batch."""
    last = len(rows) - 1
    found = [
        (at_us, command, END_OF_BATCH if at == last else 0, 1, price, quantity, 0)
        for at, (command, price, quantity) in enumerate(rows)
    ]
    return np.array(found, DEPTH_RECORD)


def snapshot(bid: float = 100.0, quantity: int = 5, at_us: int = START_US) -> Commands:
    return commands(
        (DepthCommand.CLEAR_BOOK, 0, 0), (DepthCommand.ADD_BID, bid, quantity),
        (DepthCommand.ADD_ASK, bid + 0.25, quantity), at_us=at_us,
    )  # fmt: skip


def change(quantity: int, bid: float = 100.0, at_us: int = START_US) -> Commands:
    return commands((DepthCommand.MODIFY_BID, bid, quantity), at_us=at_us)


class FakeWay:
    def __init__(self, market: FakeMarket, opening: Opening) -> None:
        self.market, self.opening = market, opening

    async def send(self, book: BookView, sequence: int, receive_ns: int) -> None:
        if self.market.lost:
            raise IngestLost("market data is away")
        await self.market.gate.wait()
        self.market.taken.append((self.opening, sequence, book))


class FakeMarket:
    def __init__(self) -> None:
        self.taken: list[tuple[Opening, int, BookView]] = []
        self.lost = False
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def connect(self, opening: Opening) -> AsyncIterator[FakeWay]:
        if self.lost:
            raise IngestLost("market data is away")
        yield FakeWay(self, opening)

    def best(self) -> int | None:
        """Contracts at the best bid of the newest book taken."""
        return self.taken[-1][2].bids[0].quantity if self.taken else None


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder, self.market, self.tasks = folder, FakeMarket(), OwnedTasks()
        self.writer = DepthWriter(folder, NAME, keep_days=9)

    def start(self, provenance: Provenance = Provenance.SIMULATED) -> DepthFeed:
        self.wakeups = FolderWakeups(self.folder / "MarketDepthData", poll_s=0.005, safety_poll_s=0.005)
        self.wakeups.start()
        self.feed = DepthFeed(
            self.folder, NAME, NAME, TICK, provenance, wakeup=self.wakeups.wakeup(), ingest=self.market,
            clock=SystemClock(), randomness=random.Random(1), live_refused=lambda: "", pace_s=0.0,
        )  # fmt: skip
        self.tasks.start(self.feed.run(), "feed")
        return self.feed

    async def told(self, quantity: int) -> None:
        await eventually(lambda: self.market.best() == quantity, f"a book with {quantity} at its best")

    async def reason(self, words: str) -> None:
        await eventually(lambda: words in self.feed.status.reason, f"{words!r} is told")


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr("minhos_mesh.sierra_client.depth_feed.LOOK_S", 0.005)
    found = Running(tmp_path)
    yield found
    await found.tasks.close()
    found.wakeups.close()
    found.writer.close()


async def test_books_are_sent_as_they_are_written_with_rising_numbers(running: Running) -> None:
    feed = running.start()
    await running.reason(f"there is no .depth file of {NAME}")
    running.writer.append(snapshot())
    await running.told(5)
    for quantity in (6, 7, 8):
        running.writer.append(change(quantity))
        await running.told(quantity)
    assert [sequence for _, sequence, _ in running.market.taken] == [1, 2, 3, 4]
    opening, _, book = running.market.taken[-1]
    assert (opening.source, opening.symbol) == (f"sierra_client:{NAME}.2026-09-21.depth", NAME)
    assert book.time_ns == (START_US - EPOCH_SHIFT_US) * 1000
    assert (book.bids[0].price_e9, book.asks[0].price_e9) == (100 * 10**9, 100_250_000_000)
    await eventually(lambda: feed.status.books_sent == 4, "four are counted")
    assert (feed.status.books_read, feed.status.reason) == (4, "")


async def test_reading_begins_at_the_last_whole_book(running: Running) -> None:
    running.writer.append(
        np.concatenate([snapshot(), *[change(quantity) for quantity in range(1, 50)], snapshot(quantity=99)])
    )
    feed = running.start()
    await running.told(99)
    assert feed.status.books_read == 1


async def test_a_book_that_was_never_told_whole_is_not_sent(running: Running) -> None:
    running.writer.append(change(1))
    feed = running.start()
    await running.reason("the whole book is awaited")
    running.writer.append(change(2))
    running.writer.append(snapshot(quantity=3))
    await running.told(3)
    assert len(running.market.taken) == 1
    assert feed.status.books_read == 2


async def test_a_half_batch_and_a_half_command_wait_for_their_rest(running: Running) -> None:
    running.start()
    running.writer.append(snapshot())
    await running.told(5)
    path = running.writer.path
    assert path is not None
    rest = np.concatenate(
        [commands((DepthCommand.MODIFY_BID, 100.0, 7), (DepthCommand.MODIFY_ASK, 100.25, 8))]
    ).tobytes()
    with path.open("ab", buffering=0) as file:
        file.write(rest[:30])
        await asyncio.sleep(0.02)
        assert running.market.best() == 5
        file.write(rest[30:])
    await running.told(7)
    assert running.market.taken[-1][2].asks[0].quantity == 8


async def test_of_books_that_come_while_one_is_under_way_the_newest_is_sent(running: Running) -> None:
    running.start()
    running.writer.append(snapshot())
    await running.told(5)
    running.market.gate.clear()
    running.writer.append(change(6))
    await asyncio.sleep(0.02)
    for quantity in range(10, 60):
        running.writer.append(change(quantity))
    running.market.gate.set()
    await running.told(59)
    assert len(running.market.taken) == 3
    assert running.market.taken[-1][1] == 52


async def test_market_data_that_comes_back_is_told_the_newest_book(running: Running) -> None:
    running.start()
    running.writer.append(snapshot())
    await running.told(5)
    running.market.lost = True
    running.writer.append(change(6))
    await running.reason("market data is away")
    running.writer.append(change(7))
    running.market.lost = False
    await running.told(7)
    assert {opening.epoch for opening, _, _ in running.market.taken} == {running.market.taken[0][0].epoch}


async def test_the_next_day_is_another_generation_in_its_own_file(running: Running) -> None:
    running.start()
    running.writer.append(snapshot())
    await running.told(5)
    running.writer.append(snapshot(quantity=9, at_us=START_US + DAY_US))
    await running.told(9)
    first, last = running.market.taken[0][0], running.market.taken[-1][0]
    assert last.epoch > first.epoch
    assert last.source.endswith("2026-09-22.depth")
    assert running.market.taken[-1][1] == 1


@pytest.mark.parametrize("how", ["truncated", "replaced", "deleted"])
async def test_a_file_that_is_another_one_now_is_read_anew(running: Running, how: str) -> None:
    running.start()
    running.writer.append(np.concatenate([snapshot(), change(6)]))
    await running.told(6)
    path = running.writer.path
    assert path is not None
    fresh = path.with_suffix(".new")
    fresh.write_bytes(write_depth_header() + snapshot(quantity=11).tobytes())
    if how == "truncated":
        path.write_bytes(write_depth_header())
        await running.reason("the whole book is awaited")
        path.write_bytes(fresh.read_bytes())
    elif how == "deleted":
        path.unlink()
        await running.reason("there is no .depth file")
    if how != "truncated":
        fresh.replace(path)
    await running.told(11)
    assert running.market.taken[-1][0].epoch > running.market.taken[0][0].epoch


async def test_what_is_no_order_book_is_told_until_it_is_one(running: Running) -> None:
    path = depth_path(running.folder, NAME, date(2026, 9, 21))
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    running.start()
    await running.reason("is not a .depth file")
    path.write_bytes(write_depth_header() + snapshot(quantity=4).tobytes())
    await running.told(4)


async def test_delayed_beside_the_marker_of_a_simulator_is_refused(running: Running) -> None:
    write_marker(running.folder, Marker())
    running.writer.append(snapshot())
    running.start(Provenance.DELAYED)
    await running.reason("provenance DELAYED is declared")
    assert running.market.taken == []


def test_the_newest_day_of_a_symbol_is_found_among_others(tmp_path: Path) -> None:
    for name in (
        "NQZ26-CME.2026-11-20.depth",
        "NQZ26-CME.2026-11-23.depth",
        "NQZ26-CME.2026-11-24.tmp",
        "NQ.2026-12-01.depth",
    ):
        (tmp_path / name).touch()
    assert newest_depth_file(tmp_path, NAME) == tmp_path / "NQZ26-CME.2026-11-23.depth"
    assert newest_depth_file(tmp_path, "ES") is None
    assert newest_depth_file(tmp_path / "nowhere", NAME) is None


@pytest.mark.parametrize(
    ("content", "error"), [(None, ScidMissing), (b"", ScidIncomplete), (b"SCDD" + bytes(60), ScidMalformed)]
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "x.depth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match="x.depth"):
        DepthTail(path)


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_in_pieces_gives_the_book_of_the_whole(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)
    whole = np.concatenate(
        [snapshot(), *[change(drawn.randrange(1, 99), 100 - drawn.randrange(4) * 0.25) for _ in range(200)]]
    )
    data, path = whole.tobytes(), tmp_path / "x.depth"
    path.write_bytes(write_depth_header())
    tail, pieces, book = DepthTail(path), DepthBook(TICK), DepthBook(TICK)
    views: list[BookView] = []
    with path.open("ab", buffering=0) as file:
        at = 0
        while at < len(data):
            size = drawn.randrange(1, 200)
            file.write(data[at : at + size])
            at += size
            while len(records := tail.read()):
                views += pieces.views(records)
    assert views == list(book.views(whole))
    path.write_bytes(write_depth_header())
    with pytest.raises(DepthLost, match="truncated"):
        tail.read()
    tail.close()


class MarketInTurn:
    """Fails at each opening in the way that is next; then it opens."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    @asynccontextmanager
    async def connect(self, opening: Opening) -> AsyncIterator[FakeWay]:
        if self.failures:
            raise self.failures.pop(0)
        yield FakeWay(FakeMarket(), opening)


async def test_who_takes_no_books_is_asked_again_slowly_and_who_is_away_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    market = MarketInTurn(IngestLost("it is away"), IngestRefused("it is not wanted"), IngestLost("it is away"))
    waited: list[tuple[int, bool]] = []
    said: list[str] = []

    def pause_s(failures: int, randomness: random.Random, *, refused: bool) -> float:
        waited.append((failures, refused))
        return 0.0

    async def pumped(way: depth_feed.DepthWay) -> None:
        return

    monkeypatch.setattr(depth_feed, "ingest_pause_s", pause_s)
    opening = Opening("books", NAME, Provenance.SIMULATED, 1)
    await keep_sending(market, opening, pumped, sent=lambda: 0, say=said.append, randomness=random.Random(1))
    assert waited == [(1, False), (2, True), (3, False)]
    assert said == ["it is away", "it is not wanted", "it is away"]
