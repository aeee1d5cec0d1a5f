"""Wires the Sierra client: store, way to market data, feeds, servicer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.storage import Database, Durability
from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_client.ingest import CONTRACT, GrpcIngest
from minhos_mesh.sierra_client.service import ClientSettings, SierraClient
from minhos_mesh.sierra_client.servicer import SierraClientServicer
from minhos_mesh.sierra_client.store import MIGRATIONS, SourceStore


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Builds the service; its feeds begin when the port is bound."""
    database = Database(
        context.paths.store_file(context.service),
        migrations=MIGRATIONS,
        durability=Durability.NORMAL,
        readers=1,
        guard=context.fence(),
    )
    async with database:
        client = SierraClient(
            settings_of(context.config, context.paths),
            store=SourceStore(database),
            ingest=GrpcIngest(context.clients.channel(CONTRACT)),
            clock=context.clock,
            tasks=context.tasks,
            on_problems=lambda problems: _hold(context.conditions, problems),
        )
        try:
            yield ServiceParts(servicers=[SierraClientServicer(client)], start=client.start)
        finally:
            client.close()


def settings_of(config: MeshConfig, paths: MeshPaths) -> ClientSettings:
    """What the configuration says about the client."""
    section = config.sierra_client
    return ClientSettings(
        folder=(section.folder or paths.sierra_dir).expanduser(),
        symbols=config.symbols(),
        provenance=Provenance[section.provenance],
        history_hours=section.history_hours,
        poll_s=section.poll_s,
        instruments=config.specs(),
    )


def _hold(conditions: Conditions, problems: Mapping[str, str]) -> None:
    for code in conditions.held():
        if code not in problems:
            conditions.clear(code)
    for code, reason in problems.items():
        conditions.set(code, reason)
