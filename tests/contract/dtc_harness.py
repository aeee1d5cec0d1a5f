"""A simulator's DTC server and the venue of the Sierra client over it, in one process, both of which can be killed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.contract.venue_conformance import TICK, P
from tests.waiting import eventually

from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub
from minhos_mesh.dtc.ledger import OrderLedger
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.config import MeshConfig, load
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.storage import Database
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.sierra_client.dtc_connection import DtcConnection
from minhos_mesh.sierra_client.venue.core import VenueCore
from minhos_mesh.sierra_client.venue.service import DtcVenue
from minhos_mesh.sierra_client.venue.store import MIGRATIONS
from minhos_mesh.sierra_client.venue.wiring import connection_settings, venue_settings
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_faults import FaultRates, Faults
from minhos_mesh.sierra_simulator.dtc_file import OrderFile
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings
from minhos_mesh.venue.error_table import ERRORS
from minhos_mesh.venue.servicer import VenueServicer

CONTRACT = "minhos_api.venue.v1.VenueService"
SYMBOL = "NQZ26-CME"


def config_of(port: int, encoding: str, **dtc: Any) -> MeshConfig:
    overrides = {
        "market_data": {"symbols": [SYMBOL]},
        "engine": {"venue": "sierra_client"},
        "dtc": {"port": port, "encoding": encoding, "account_is_ours": True, **dtc},
    }
    return load(None, environment={}, overrides=overrides).resolved(datetime(2026, 11, 20, tzinfo=UTC))


class DtcHarness:
    """A simulator's DTC server that lives, and a venue over it that can be killed, on a folder."""

    symbol = SYMBOL

    def __init__(self, folder: Path, encoding: str = "json", settings: DtcServerSettings | None = None) -> None:
        self.clock = SystemClock()
        self.encoding = encoding
        self.faults = Faults(FaultRates())
        self.heartbeat_s = 5
        self.dtc: dict[str, Any] = {}
        self._folder = folder
        self._settings = settings or DtcServerSettings()
        self._stack = contextlib.AsyncExitStack()
        self.server: DtcServer
        self.core: VenueCore
        self.connection: DtcConnection
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        return self._stub

    async def serve(self, port: int = 0) -> None:
        """Start the simulator's server with the orders that an earlier life has left in its file."""
        file = OrderFile(self._folder / "server.db")
        exchange = SimulatedExchange(replace(self._settings, port=port), [SYMBOL])
        exchange.restore(file.load())
        self.server = DtcServer(exchange, clock=self.clock, folder=self._folder, faults=self.faults, file=file)
        await self.server.start()

    async def kill_server(self) -> None:
        """End the server as a crash would and start it again on its file."""
        port = self.server.port
        self.server.cut_all()
        await self.server.close()
        await self.serve(port)

    async def start(self) -> None:
        """Start the venue; returns once it takes orders."""
        await self.begin()
        await eventually(self.core.can_send, "the venue takes orders")

    async def begin(self, port: int | None = None) -> None:
        """Start the venue, whether it reaches the server or not."""
        config = config_of(port or self.server.port, self.encoding, **self.dtc)
        database = await self._stack.enter_async_context(Database(self._folder / "orders.db", migrations=MIGRATIONS))
        tasks = OwnedTasks()
        self._stack.push_async_callback(tasks.close)
        core = VenueCore(venue_settings(config), database, self.clock, start=tasks.start, reference_of=lambda _: P)
        settings = connection_settings(config)
        settings = replace(
            settings,
            session=replace(settings.session, heartbeat_s=self.heartbeat_s),
            first_wait_s=0.01,
            longest_wait_s=0.05,
            on_the_way_ns=300_000_000,
        )
        ledger = OrderLedger(await core.recover())
        connection = DtcConnection(
            settings, ledger, clock=self.clock, journal=core, watcher=core, reference_of=lambda _: P
        )
        core.use(connection)
        self.connection = connection
        venue = DtcVenue(core)
        server = await self._stack.enter_async_context(MeshServer([VenueServicer(venue)], errors=ERRORS))
        clients = Clients({CONTRACT: server.address})
        self._stack.push_async_callback(clients.close)
        self._stack.callback(venue.close)
        self._stub = clients.stub(VenueServiceStub)
        self.core = core
        tasks.start(connection.run(), "DTC")

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()

    async def kill(self) -> None:
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await self.stop()
        await self.server.close()

    def show_market(self, bid: int, ask: int, size: int = 5) -> None:
        """Show a quote to the server's book."""
        quote = Quote(
            time_ns=self.clock.wall_ns(), bid_e9=P + bid * TICK, ask_e9=P + ask * TICK, bid_size=size, ask_size=size
        )
        self.server.show(SYMBOL, quote, None)

    async def show(self, bid: int, ask: int, *, size: int = 5) -> None:
        self.show_market(bid, ask, size)
        await self.quiet()

    async def trade(self, price: int, size: int) -> None:
        trade = Trade(time_ns=self.clock.wall_ns(), price_e9=P + price * TICK, size=size, aggressor=Side.BUY)
        self.server.show(SYMBOL, None, trade)
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until the venue has told everything that the server has done."""

        def told() -> bool:
            if any(each.state is Tracked.SUBMITTED for each in self.connection.ledger.alive()):
                return False
            ours = sum(record.fills for record in self.core.book.orders.values())
            open_there = {each.client_order_id for each in self.server.exchange.open_orders()}
            open_here = {record.asked.dtc_id for record in self.core.book.open_orders()}
            return ours == len(self.server.exchange.fills) and open_here == open_there and self.core.account.current

        await eventually(told, "the venue knows what the server knows")


@contextlib.asynccontextmanager
async def on_a_shared_account(folder: Path) -> AsyncIterator[DtcHarness]:
    """A venue on an account where others trade too, so that fills of no known order tell nothing."""
    harness = DtcHarness(folder)
    harness.dtc = {"account_is_ours": False}
    await harness.serve()
    await harness.start()
    await harness.show(0, 1)
    yield harness
    await harness.close()
