"""Wires the connection to a DTC server: its orders on disk, its market data, and what the rest of the client sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from minhos_mesh.dtc.client_session import ClientSettings
from minhos_mesh.dtc.enums import Encoding, TradeMode
from minhos_mesh.dtc.ledger import OrderLedger
from minhos_mesh.runtime.config import ConfigError, MeshConfig
from minhos_mesh.runtime.config_sections import DtcSection
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.storage import Database
from minhos_mesh.runtime.symbols import parse_symbol
from minhos_mesh.sierra_client import dtc_view
from minhos_mesh.sierra_client.depth_feed import DepthPort, DepthStatus
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.dtc_connection import DtcConnection
from minhos_mesh.sierra_client.dtc_data import FOLDER, DataSettings, DtcMarketData
from minhos_mesh.sierra_client.dtc_depth import DtcDepth
from minhos_mesh.sierra_client.dtc_settings import ConnectionSettings
from minhos_mesh.sierra_client.dtc_status import DtcState
from minhos_mesh.sierra_client.dtc_view import DtcView
from minhos_mesh.sierra_client.feed import FeedStatus
from minhos_mesh.sierra_client.ports import IngestPort
from minhos_mesh.sierra_client.store import SourceStore
from minhos_mesh.sierra_client.venue.core import VenueCore
from minhos_mesh.sierra_client.venue.service import DtcVenue
from minhos_mesh.sierra_client.venue.store import MIGRATIONS
from minhos_mesh.sierra_client.venue.views import VenueSettings
from minhos_mesh.venue.domain.orders import OrderState

STORE = "sierra_orders"
"""Name of the database of the orders, which survives a loss of power; that of the files need not."""

_ENCODINGS = {
    "json": Encoding.JSON,
    "binary": Encoding.BINARY,
    "binary_variable": Encoding.BINARY_VARIABLE,
}
_PROVENANCES = {Provenance.LIVE: 1, Provenance.DELAYED: 2, Provenance.REPLAY: 3, Provenance.SIMULATED: 4}


class DtcSource:
    """The connection of one client; orders go through `venue`."""

    def __init__(
        self,
        core: VenueCore,
        connection: DtcConnection,
        data: DtcMarketData,
        *,
        trades: bool,
        start: Callable[..., asyncio.Task[None]],
    ) -> None:
        """`trades` where orders of the mesh go here."""
        self.core, self.data, self.trades = core, data, trades
        self.venue = DtcVenue(core)
        self.connection = connection
        self.on_change: Callable[[], None] = lambda: None
        self.fall_back: Callable[[str], None] = lambda _: None
        self.depth_fall_back: Callable[[str], None] = lambda _: None
        self._start = start
        core.on_change = self._changed
        core.on_market_update = data.take
        data.on_change = self._tell
        data.fall_back = self._follow_file
        data.live_refused = self.live_refused
        if data.depth is not None:
            data.depth.live_refused = self.live_refused
            data.depth.fall_back = self._follow_depth

    def start(self) -> None:
        """Connects, and goes on for ever."""
        self.data.start()
        self._start(self._watch_disk(), "orders on disk")
        self._start(self.connection.run(), "DTC")

    def close(self) -> None:
        """Gives files back; the tasks must have ended."""
        self.venue.close()
        self.data.close()

    def feeds(self) -> list[FeedStatus]:
        """How far what came over DTC has gone to market data."""
        return self.data.feeds()

    def books(self) -> Sequence[DepthStatus]:
        """What is known of the order books that come over DTC."""
        depth = self.data.depth
        return () if depth is None else [each for each in depth.status() if each.symbol not in self.data.refused]

    def problems(self) -> dict[str, str]:
        """What is wrong, a sentence by code."""
        found = self.core.problems(trades=self.trades)
        unknown = self._unknown_symbols()
        if unknown:
            server = self.core.status.permissions
            named = f" ({server.server_name})" if server is not None else ""
            found[dtc_view.SYMBOL_UNKNOWN] = (
                f"the DTC server at {self.core.status.address}{named} does not know {', '.join(unknown)}"
            )
        refused = dict(self.data.refused)
        if self.data.depth is not None:
            refused |= {f"{symbol}, market depth": text for symbol, text in self.data.depth.refused.items()}
        if refused:
            told = "; ".join(f"{symbol}: {text}" for symbol, text in sorted(refused.items()))
            found[dtc_view.DATA_NOT_PERMITTED] = (
                f"the server does not permit market data, files are read instead: {told}"
            )
        return found

    def _unknown_symbols(self) -> list[str]:
        """Symbols of which something is wanted and that the server does not know, with how they were asked for."""
        names = self.core.settings.names
        wanted = set(self.data.settings.ticks_e9) | (set(self.core.settings.specs) if self.trades else set())
        if self.data.settings.provenance is Provenance.LIVE:
            wanted = set(names)
        unknown = [symbol for symbol in sorted(wanted) if names[symbol] in self.core.status.unknown_symbols]
        return [f"{symbol}, asked for as {names[symbol]}" if names[symbol] != symbol else symbol for symbol in unknown]

    def view(self) -> DtcView:
        """The connection now."""
        status, granted = self.core.status, self.core.status.permissions
        unknown = sum(record.state is OrderState.UNKNOWN for record in self.core.book.open_orders())
        return DtcView(
            address=self.connection.status.address,
            state=status.state.value,
            reason="" if status.state is DtcState.READY else status.reason,
            since_ns=status.since_ns,
            encoding=status.encoding.name,
            server=granted.server_name if granted else "",
            account=status.account,
            simulated=granted.simulated if granted else False,
            trading_permitted=granted.trading if granted else None,
            connects=status.connects,
            settled=status.settled,
            unknown_orders=unknown,
            data=self.data.view(),
            unknown_symbols=tuple(self.core.canonical.get(name, name) for name in status.unknown_symbols),
            live_refused=self._live_refused(),
        )

    def live_refused(self, symbol: str) -> str:
        """Why ticks of a symbol cannot count as LIVE, one sentence; empty when they can."""
        refused = self._live_refused()
        if not refused and self.core.settings.names.get(symbol) in self.core.status.unknown_symbols:
            return f"the DTC server at {self.core.status.address} does not know {symbol}: it is not the one that writes its file"
        return refused

    def _live_refused(self) -> str:
        status = self.core.status
        if status.permissions is None:
            return f"LIVE needs a logon to the DTC server at {status.address}, and there was none yet: {status.reason}"
        if status.permissions.simulated:
            return f"the DTC server at {status.address} is a simulator ({status.permissions.server_name})"
        return ""

    def _changed(self) -> None:
        status = self.core.status
        if status.permissions is not None and not status.permissions.market_data:
            self.data.refuse_all("the logon grants no market data")
        self.data.refuse(status.not_permitted)
        self.data.refuse_depth(status.depth_not_permitted)
        self.on_change()

    def _tell(self) -> None:
        self.on_change()

    def _follow_file(self, symbol: str) -> None:
        self.fall_back(symbol)

    def _follow_depth(self, symbol: str) -> None:
        self.depth_fall_back(symbol)

    async def _watch_disk(self) -> None:
        """Fails when the disk did, so that the process ends and starts again from what is on it."""
        await self.core.failed


@asynccontextmanager
async def dtc_source(
    context: ServiceContext,
    *,
    store: SourceStore,
    ingest: IngestPort,
    depth_ingest: DepthPort | None,
    file_price_of: Callable[[str], int | None],
) -> AsyncIterator[DtcSource]:
    """Builds the connection that the configuration asks for; it begins with start(). Raises ConfigError, StorageError.

    `depth_ingest` takes order books; None where none are asked for.
    `file_price_of` gives the newest price of a symbol that was read of its file.
    """
    config, paths = context.config, context.paths
    async with Database(paths.store_file(STORE), migrations=MIGRATIONS, guard=context.fence()) as database:
        settings = venue_settings(config)
        wanted, clock, tasks = data_settings(config, paths), context.clock, context.tasks
        depth = None
        if depth_ingest is not None:
            depth = DtcDepth(tuple(wanted.ticks_e9), wanted.provenance, ingest=depth_ingest, clock=clock, tasks=tasks)
        data = DtcMarketData(wanted, store=store, ingest=ingest, clock=clock, tasks=tasks, depth=depth)

        def reference_of(symbol: str) -> int | None:
            return data.last_price_e9(symbol) or file_price_of(symbol)

        core = VenueCore(settings, database, context.clock, start=context.tasks.start, reference_of=reference_of)
        canonical = {name: symbol for symbol, name in settings.names.items()}
        connection = DtcConnection(
            replace(connection_settings(config), depth=depth is not None),
            OrderLedger(await core.recover()),
            clock=context.clock,
            journal=core,
            watcher=core,
            reference_of=lambda name: reference_of(canonical.get(name, name)),
        )
        core.use(connection)
        trades = config.engine.venue == context.service
        source = DtcSource(core, connection, data, trades=trades, start=context.tasks.start)
        try:
            yield source
        finally:
            source.close()
            core.failed.cancel()


def symbol_names(config: MeshConfig) -> dict[str, str]:
    """The server's own name of each symbol of the mesh, by canonical symbol."""
    return {symbol: name_of(symbol, config.dtc) for symbol in config.symbols()}


def name_of(symbol: str, section: DtcSection) -> str:
    """How the data service behind the server writes a canonical symbol."""
    parsed = parse_symbol(symbol)
    return section.symbol.format(contract=parsed.contract, exchange=parsed.exchange)


def venue_settings(config: MeshConfig) -> VenueSettings:
    """What may be traded."""
    specs = {symbol: config.spec(symbol) for symbol in config.symbols()}
    return VenueSettings(
        specs={symbol: spec for symbol, spec in specs.items() if spec.tradeable},
        names=symbol_names(config),
        commission_e9=config.dtc.commission,
        provenance=_PROVENANCES[Provenance[config.sierra_client.provenance]],
        account_is_simulated=config.dtc.account_is_simulated,
        account_is_ours=config.dtc.account_is_ours,
        formerly=config.dtc.formerly,
    )


def data_settings(config: MeshConfig, paths: MeshPaths) -> DataSettings:
    """Which market data is asked for."""
    names = symbol_names(config)
    return DataSettings(
        ticks_e9={symbol: config.spec(symbol).tick_e9 for symbol in config.dtc.market_data},
        names=names,
        folder=paths.data_dir / FOLDER,
        provenance=Provenance[config.sierra_client.provenance],
        history_ns=int(config.sierra_client.history_hours * 3_600_000_000_000),
    )


def connection_settings(config: MeshConfig) -> ConnectionSettings:
    """Where the server is. Raises ConfigError for a password that cannot be read."""
    section, names = config.dtc, symbol_names(config)
    if section.port is None:
        raise ConfigError("dtc.port is missing: the port of a DTC server is needed, mostly 11099")
    return ConnectionSettings(
        host=section.host,
        port=section.port,
        session=ClientSettings(
            encoding=_ENCODINGS[section.encoding],
            ask_encoding=section.ask_encoding,
            heartbeat_s=section.heartbeat_s,
            username=section.username,
            password=password_of(section.password_file),
            trade_account=section.trade_account,
            trade_mode=TradeMode.SIMULATED if section.account_is_simulated else TradeMode.UNSET,
        ),
        ticks_e9={name: config.spec(symbol).tick_e9 for symbol, name in names.items()},
        market_data=tuple(names[symbol] for symbol in section.market_data),
        account_is_ours=section.account_is_ours,
    )


def password_of(file: Path | None) -> str:
    """First line of a file, without its end. Raises ConfigError."""
    if file is None:
        return ""
    try:
        return file.expanduser().read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"dtc.password_file is {str(file)!r}, which cannot be read: {error}") from None
