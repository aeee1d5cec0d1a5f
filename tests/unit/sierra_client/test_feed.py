from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.depth_feed import DepthStatus
from minhos_mesh.sierra_client.domain import FeedState, Provenance
from minhos_mesh.sierra_client.dtc_view import DtcView
from minhos_mesh.sierra_client.feed import CHUNK, WINDOW
from minhos_mesh.sierra_client.ports import IngestLost, IngestRefused
from minhos_mesh.sierra_client.service import ClientSettings, SierraClient
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_files.header import write_header
from minhos_mesh.sierra_files.layout import MARKER_NAME, Records
from minhos_mesh.sierra_files.marker import Marker, write_marker
from minhos_mesh.sierra_files.ticks import tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter

if TYPE_CHECKING:
    from tests.unit.sierra_client.conftest import FakeMarketData

    from minhos_mesh.sierra_client.feed import FeedStatus

Made = Callable[..., Records]
Eventually = Callable[..., Awaitable[None]]
SYMBOL = "NQZ26-CME"


def times(records: Records) -> list[int]:
    return [int(time) for time in tick_columns(records, 250_000_000).time_ns]


class LoggedOn:
    """A connection to a DTC server, as far as files are concerned."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.fall_back: Callable[[str], None] = lambda _: None
        self.depth_fall_back: Callable[[str], None] = lambda _: None
        self.refused = ""

    def start(self) -> None:
        self.on_change()

    def close(self) -> None:
        self.refused = "closed"

    def feeds(self) -> list[FeedStatus]:
        return []

    def books(self) -> list[DepthStatus]:
        return []

    def problems(self) -> dict[str, str]:
        return {}

    def view(self) -> DtcView:
        return DtcView(
            address="127.0.0.1:11099", state="READY", reason="", since_ns=0, encoding="JSON", server="SierraChart",
            account="A1", simulated=False, trading_permitted=True, connects=1, settled=1, unknown_orders=0, data=(),
            unknown_symbols=(), live_refused=self.refused,
        )  # fmt: skip

    def live_refused(self, symbol: str) -> str:
        return f"{symbol}: {self.refused}" if self.refused else ""


class Running:
    """A client that can be killed and started again over the same store and folder."""

    def __init__(self, settings: ClientSettings, store: SourceStore, market: FakeMarketData) -> None:
        self.settings, self._store, self._market = settings, store, market
        self.problems: dict[str, str] = {}
        self.dtc: LoggedOn | None = LoggedOn()

    async def start(self) -> None:
        self.tasks = OwnedTasks()
        self.client = SierraClient(
            self.settings,
            store=self._store,
            ingest=self._market,
            clock=SystemClock(),
            tasks=self.tasks,
            randomness=random.Random(1),
            on_problems=lambda problems: setattr(self, "problems", dict(problems)),
            dtc=self.dtc,
        )
        await self.client.start()

    async def stop(self) -> None:
        await self.tasks.close()
        self.client.close()

    @property
    def path(self) -> Path:
        return self.settings.folder / f"{SYMBOL}.scid"

    @property
    def feed(self) -> FeedStatus:
        (feed,) = self.client.status().feeds
        return feed


@asynccontextmanager
async def started(running: Running) -> AsyncIterator[Running]:
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(params=[True, False], ids=["inotify", "polling"])
async def running(
    request: pytest.FixtureRequest, tmp_path: Path, store: SourceStore, market: FakeMarketData
) -> AsyncIterator[Running]:
    settings = ClientSettings(tmp_path / "sierra", (SYMBOL,), poll_s=0.005, use_inotify=request.param)
    async with started(Running(settings, store, market)) as found:
        yield found


@pytest.fixture
def path(running: Running) -> Path:
    return running.path


async def test_file_that_appears_later_is_read_and_tailed(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    await eventually(lambda: "does not exist" in running.feed.reason)
    assert running.client.status().feeds[0].state is FeedState.WAITING_FOR_FILE
    assert "FILE_MISSING" in running.problems
    writer = ScidWriter.create(path, made(5))
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    for first in range(5, 60, 5):
        writer.append(made(5, first))
        await asyncio.sleep(0)
    await eventually(lambda: running.feed.records_acknowledged == 60)
    assert market.newest == times(made(60))
    assert running.problems == {}
    writer.close()


async def test_file_that_is_being_created_byte_by_byte_is_waited_for(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = write_header() + made(2).tobytes()
    for size in (0, 20, 56, 70, len(content)):
        path.write_bytes(content[:size])
        await asyncio.sleep(0.002)
    await eventually(lambda: market.newest == times(made(2)))


async def test_wrong_file_is_an_error_until_it_is_right(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK\x03\x04" * 40)
    await eventually(lambda: running.feed.state is FeedState.ERROR)
    assert "is not a .scid file: it begins with b'PK" in running.problems["FEED_ERROR"]
    ScidWriter.create(path, made(3)).close()
    await eventually(lambda: market.newest == times(made(3)))


async def test_market_data_that_restarts_gets_all_again_under_the_same_epoch(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    writer = ScidWriter.create(path, made(30))
    await eventually(lambda: market.newest == times(made(30)))
    market.restart()
    writer.append(made(5, 30))
    await eventually(lambda: market.newest == times(made(35)))
    assert len({opening.epoch for opening in market.openings}) == 1
    assert running.feed.reconnects == 1
    writer.close()


async def test_client_that_is_killed_goes_on_where_market_data_stands(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    writer = ScidWriter.create(path, made(30))
    await eventually(lambda: market.newest == times(made(30)))
    await running.stop()
    writer.append(made(12, 30))
    await running.start()
    await eventually(lambda: market.newest == times(made(42)))
    assert len(market.taken) == 1
    assert running.feed.epoch == next(iter(market.taken))
    writer.close()


async def test_replaced_and_truncated_files_are_new_generations(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    ScidWriter.create(path, made(30)).close()
    await eventually(lambda: market.newest == times(made(30)))
    ScidWriter.create(path, made(4, 100)).close()
    await eventually(lambda: market.newest == times(made(4, 100)))
    os.truncate(path, 56 + 2 * 40)
    await eventually(lambda: market.newest == times(made(2, 100)))
    epochs = list(market.taken)
    assert epochs == sorted(epochs)
    assert len(epochs) == 3


async def test_file_truncated_while_the_client_was_dead_is_a_new_generation(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    ScidWriter.create(path, made(30)).close()
    await eventually(lambda: market.newest == times(made(30)))
    await running.stop()
    os.truncate(path, 56 + 7 * 40)
    await running.start()
    await eventually(lambda: market.newest == times(made(7)))
    assert len(market.taken) == 2


async def test_unreachable_market_data_is_tried_for_ever_and_said(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    market.refuse = IngestLost("market data cannot be reached")
    ScidWriter.create(path, made(3)).close()
    await eventually(lambda: running.feed.reconnects >= 3)
    assert running.feed.state is FeedState.DISCONNECTED
    assert running.problems == {"MARKET_DATA_UNREACHABLE": "market data cannot be reached"}
    assert not running.client.status().ingest_connected
    market.refuse = None
    await eventually(lambda: market.newest == times(made(3)))
    await eventually(lambda: running.problems == {})


async def test_refusal_is_an_error_with_its_reason(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    market.refuse = IngestRefused("NQZ26-CME is not configured")
    ScidWriter.create(path, made(3)).close()
    await eventually(lambda: running.feed.state is FeedState.ERROR)
    assert running.feed.reason == "NQZ26-CME is not configured"


async def test_unacknowledged_records_are_bounded_by_the_window(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    market.silent = True
    ScidWriter.create(path, made(WINDOW + 3 * CHUNK)).close()
    await eventually(lambda: len(market.newest) == WINDOW)
    await asyncio.sleep(0.02)
    assert len(market.newest) == WINDOW
    market.silent = False
    market.links[-1].acknowledge(WINDOW)
    await eventually(lambda: len(market.newest) == WINDOW + 3 * CHUNK)


async def test_replay_ends_when_all_expected_records_are_acknowledged(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    await running.stop()
    running.settings = replace(running.settings, provenance=Provenance.REPLAY)
    write_marker(path.parent, Marker({path.name: 20}))
    writer = ScidWriter.create(path, made(15))
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert running.feed.records_expected == 20
    writer.append(made(5, 15))
    await eventually(lambda: running.feed.state is FeedState.ENDED)
    assert market.links[-1].ended == 20
    assert running.feed.records_read == running.feed.records_acknowledged == 20
    assert set(market.receive_times) == {None}
    assert running.problems == {}
    market.restart()
    await eventually(lambda: market.newest == times(made(20)) and running.feed.state is FeedState.ENDED)
    writer.close()


async def test_live_is_refused_beside_the_simulators_marker(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    await running.stop()
    running.settings = replace(running.settings, provenance=Provenance.LIVE)
    write_marker(path.parent, Marker())
    ScidWriter.create(path, made(3)).close()
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.ERROR)
    assert f"provenance LIVE is declared, and {MARKER_NAME}" in running.feed.reason
    assert running.problems == {"PROVENANCE_REFUSED": running.feed.reason}
    assert market.openings == []
    path.parent.joinpath(MARKER_NAME).unlink()
    await eventually(lambda: running.feed.state is not FeedState.ERROR)
    assert running.problems == {}


async def test_live_waits_for_a_logon_to_the_server_that_is_no_simulator(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    await running.stop()
    running.settings, running.dtc = replace(running.settings, provenance=Provenance.LIVE), None
    ScidWriter.create(path, made(3)).close()
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.ERROR)
    assert "needs a logon to the DTC server" in running.feed.reason
    assert list(running.problems) == ["PROVENANCE_REFUSED"], "no server is named: none will ever say it"
    await running.stop()
    running.dtc = LoggedOn()
    running.dtc.refused = "the DTC server is a simulator"
    await running.start()
    await eventually(lambda: f"{SYMBOL}: the DTC server is a simulator" in running.feed.reason)
    assert list(running.problems) == ["FEED_ERROR"], "the server may be another at the next logon"
    assert market.openings == []
    running.dtc.refused = ""
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert market.openings[0].provenance is Provenance.LIVE


async def test_live_file_is_read_from_recent_history_and_again_from_the_same_base(
    running: Running, path: Path, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    await running.stop()
    count, hours_each = 200_000, 0.001 / 3600
    running.settings = replace(
        running.settings, provenance=Provenance.LIVE, history_hours=(count - 1 - 39.5) * hours_each
    )
    ScidWriter.create(path, made(count)).close()
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    first = market.newest[0]
    assert first == times(made(1, 40))[0], "counted back from the newest record"
    await running.stop()
    market.taken.clear()
    running.settings = replace(running.settings, history_hours=0.0)
    await running.start()
    await eventually(lambda: running.feed.state is FeedState.TAILING)
    assert market.newest[0] == first


async def test_unknown_root_and_odd_names_are_said_and_the_others_followed(
    tmp_path: Path, store: SourceStore, market: FakeMarketData, made: Made, eventually: Eventually
) -> None:
    running = Running(ClientSettings(tmp_path, (), poll_s=0.005), store, market)
    await running.start()
    for name in ("NQZ26-CME", "XXZ26-CME", "notes"):
        ScidWriter.create(tmp_path / f"{name}.scid", made(3)).close()
    await eventually(lambda: len(running.client.status().feeds) == 3)
    await eventually(lambda: market.newest == times(made(3)))
    reasons = {feed.file: feed.reason for feed in running.client.status().feeds}
    assert "instrument 'XX' is unknown" in reasons["XXZ26-CME.scid"]
    assert "is not understood" in reasons["notes.scid"]
    await running.stop()
