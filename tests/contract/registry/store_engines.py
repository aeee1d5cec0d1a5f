"""Engines of the registry's store for tests: opened, killed, opened again, several registries over one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.contract.registry.etcd_server import EtcdServer

from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.outbox import Outbox
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import (
    Departure,
    HeldElsewhere,
    InstanceRecord,
    Member,
)
from minhos_mesh.registry.stores.etcd import EtcdStore
from minhos_mesh.registry.stores.etcd_client import EtcdClient
from minhos_mesh.registry.stores.sqlite import MIGRATIONS, SqliteStore
from minhos_mesh.runtime.storage import Database

KEY = InstanceKey("risk_manager", "risk_manager-1")
RECORD = InstanceRecord(
    key=KEY,
    lease_id="l1",
    token=0,
    host="127.0.0.1",
    port=4000,
    contracts=("minhos_api.risk.v1.RiskManagerService",),
    version="0.1.0",
    attached_ns=5,
    needs=(Need("minhos_api.events.v1.EventBusService"), Need("minhos_api.venue.v1.VenueService", True, "paper_venue")),
    pid=12,
    process_started=99,
    zone="east",
    priority=2,
    versions={"python": "3.11"},
    built="0123",
)
DEADLINE_S = 10.0
leases = itertools.count(1)


def record(name: str = "risk_manager-1", **fields: Any) -> InstanceRecord:
    """A claim under a lease of its own, as each attach makes one."""
    key = InstanceKey("risk_manager", name)
    return replace(RECORD, key=key, lease_id=f"lease-{next(leases)}", **fields)


def allow() -> None:
    """Refuses nobody."""


def is_gone(opened: Opened, key: InstanceKey) -> bool:
    return key not in opened.heard.held


def is_ready(opened: Opened) -> bool:
    held = opened.heard.held.get(KEY)
    return held is not None and held.record.ever_ready


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.005)
    return found


@dataclass
class Heard:
    """Neighbours that write down what they are told."""

    held: dict[InstanceKey, HeldElsewhere] = field(default_factory=dict)
    went: dict[InstanceKey, tuple[int, Departure]] = field(default_factory=dict)
    heirs: dict[InstanceKey, InstanceRecord] = field(default_factory=dict)
    services: dict[str, tuple[tuple[str, ...], tuple[Need, ...]]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    troubles: list[str | None] = field(default_factory=list)
    order: list[tuple[str, str, int]] = field(default_factory=list)

    def seen(self, instance: HeldElsewhere) -> None:
        self.held[instance.record.key] = instance
        self.order.append(("seen", instance.record.key.instance_id, instance.record.token))

    def gone(self, key: InstanceKey, token: int, departure: Departure) -> None:
        self.held.pop(key, None)
        self.went[key] = (token, departure)
        self.order.append(("gone", key.instance_id, token))

    def inherited(self, record: InstanceRecord) -> None:
        self.held.pop(record.key, None)
        self.heirs[record.key] = record

    def service_known(self, service: str, contracts: tuple[str, ...], needs: tuple[Need, ...]) -> None:
        self.services[service] = (contracts, needs)

    def members_changed(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)

    def store_trouble(self, text: str | None) -> None:
        self.troubles.append(text)


@dataclass
class Opened:
    store: Any
    outbox: Outbox
    heard: Heard
    stop: Callable[[], Any]
    """Ends it without a farewell, as a kill does."""
    following: asyncio.Task[None]

    async def pause(self) -> None:
        """Hears nothing any more."""
        self.following.cancel()
        results = await asyncio.gather(self.following, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError | None), results

    def resume(self) -> None:
        self.following = asyncio.create_task(self.store.follow(self.heard))


class Engine:
    """Opens stores over one engine; each name is one registry with a data folder of its own."""

    shared = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = AsyncExitStack()

    def make(self, database: Database) -> Any:
        return SqliteStore(database)

    async def open(self, name: str = "one") -> Opened:
        stack = AsyncExitStack()
        database = await stack.enter_async_context(Database(self.folder / f"{name}.db", migrations=MIGRATIONS))
        self._stack.push_async_callback(stack.aclose)
        store, heard = self.make(database), Heard()
        if isinstance(store, EtcdStore):
            stack.push_async_callback(store._client.close)
        store.state = await store.load()
        following = asyncio.create_task(store.follow(heard))
        opened = Opened(store, Outbox(database), heard, stack.aclose, following)
        stack.push_async_callback(opened.pause)
        await store.announce(f"address-of-{name}")
        return opened

    async def close(self) -> None:
        await self._stack.aclose()


class OnEtcd(Engine):
    """The same in etcd."""

    shared = True

    def __init__(self, folder: Path, server: EtcdServer) -> None:
        super().__init__(folder)
        self.server = server
        self.endpoints = [server.endpoint]
        self.ttl_s = 2

    def make(self, database: Database) -> Any:
        return EtcdStore(database, EtcdClient(self.endpoints, timeout_s=2.0), "test/mesh", ttl_s=self.ttl_s)
