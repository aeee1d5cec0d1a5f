"""Wires the Sierra client: store, way to market data, feeds, servicer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.errors import ErrorTable
from minhos_mesh.runtime.memory import READER_BYTES, keep_freed_memory
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.storage import Database, Durability
from minhos_mesh.sierra_client.bridge_source import BridgeSource
from minhos_mesh.sierra_client.bridge_translate import bridge_settings
from minhos_mesh.sierra_client.depth_feed import DepthPart
from minhos_mesh.sierra_client.depth_ingest import GrpcDepthIngest
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.ingest import CONTRACT, GrpcIngest
from minhos_mesh.sierra_client.service import ClientSettings, SierraClient
from minhos_mesh.sierra_client.servicer import SierraClientServicer
from minhos_mesh.sierra_client.store import MIGRATIONS, SourceStore


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the service; its feeds begin when the port is bound."""
    keep_freed_memory(READER_BYTES)
    database = Database(
        context.paths.store_file(context.service),
        migrations=MIGRATIONS,
        durability=Durability.NORMAL,
        readers=1,
        guard=context.fence(),
    )
    async with database, AsyncExitStack() as stack:
        store, ingest = SourceStore(database), GrpcIngest(context.clients.channel(CONTRACT))
        bridge = bridge_settings(context.config, context.paths)
        dtc = None
        servicers: list[object] = []
        errors: ErrorTable = {}
        if context.config.dtc.port is not None:
            # Imported here: a process without a DTC server needs none of it in its memory.
            from minhos_mesh.sierra_client.venue.wiring import dtc_source
            from minhos_mesh.venue.error_table import ERRORS
            from minhos_mesh.venue.servicer import VenueServicer

            def file_price_of(symbol: str) -> int | None:
                return client.last_price_e9(symbol)

            books = GrpcDepthIngest(context.clients.channel(CONTRACT)) if wants_depth(context) else None
            made = dtc_source(context, store=store, ingest=ingest, depth_ingest=books, file_price_of=file_price_of)
            dtc = await stack.enter_async_context(made)
            if dtc.trades:
                servicers, errors = [VenueServicer(dtc.venue)], ERRORS
        client = SierraClient(
            settings_of(context.config, context.paths),
            store=store,
            ingest=ingest,
            clock=context.clock,
            tasks=context.tasks,
            on_problems=lambda problems: _hold(context.conditions, problems),
            bridge=None
            if bridge is None
            else BridgeSource(bridge, store=store, ingest=ingest, clock=context.clock, tasks=context.tasks),
            dtc=dtc,
            depth=depth_part(context),
        )
        stack.callback(client.close)

        async def drain() -> None:
            if dtc is not None:
                dtc.venue.close()

        yield ServiceParts(
            servicers=[SierraClientServicer(client), *servicers], errors=errors, start=client.start, drain=drain
        )


def depth_part(context: ServiceContext) -> DepthPart | None:
    """What follows the order books of the files; None where they are not to be followed, or files are replayed."""
    section = context.config.sierra_client
    if not wants_depth(context):
        return None
    return DepthPart(
        (section.folder or context.paths.sierra_dir).expanduser(),
        Provenance[section.provenance],
        ingest=GrpcDepthIngest(context.clients.channel(CONTRACT)),
        clock=context.clock,
        tasks=context.tasks,
        use_inotify=section.inotify,
    )


def wants_depth(context: ServiceContext) -> bool:
    """Whether order books are sent; those of a recording are not."""
    return context.config.sierra_client.depth and not context.config.replay()


def settings_of(config: MeshConfig, paths: MeshPaths) -> ClientSettings:
    """What the configuration says about the client."""
    section = config.sierra_client
    elsewhere = {*config.bridge_symbols(), *(config.dtc.market_data if config.dtc.port is not None else ())}
    return ClientSettings(
        folder=(section.folder or paths.sierra_dir).expanduser(),
        symbols=tuple(symbol for symbol in config.symbols() if symbol not in elsewhere),
        follow_all=not elsewhere,
        provenance=Provenance[section.provenance],
        history_hours=section.history_hours,
        poll_s=section.poll_s,
        use_inotify=section.inotify,
        instruments=config.specs(),
    )


def _hold(conditions: Conditions, problems: Mapping[str, str]) -> None:
    for code in conditions.held():
        if code not in problems:
            conditions.clear(code)
    for code, reason in problems.items():
        conditions.set(code, reason)
