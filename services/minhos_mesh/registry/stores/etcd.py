"""Decides how registries on several machines keep one truth in etcd: fencing by revision, leases, a watch that resumes.

Each registry is a member that keeps one etcd lease alive; instances name the member that holds them, so that a mesh at
rest writes nothing, however many instances there are. A fencing token is the revision of the transaction that grants it
(plus a floor, should etcd have been set up anew), so that two registries never grant the same one. When the lease of a
member runs out, exactly one of the others inherits each of its instances and gives it the time of a lease to come back.
etcd's own locks are not used: nothing here depends on a lease still being held when a write arrives, since every write
states as its condition what must still be true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.plan import Need
from minhos_mesh.registry.store import (
    IN_ORDER,
    Departure,
    HeldElsewhere,
    InstanceRecord,
    InstanceReport,
    Member,
    Neighbours,
    ServiceRecord,
    StoredState,
    StoreRefused,
    StoreUnavailable,
)
from minhos_mesh.registry.stores import etcd_layout as layout
from minhos_mesh.registry.stores import etcd_messages as wire
from minhos_mesh.registry.stores.etcd_client import Compacted, EtcdClient
from minhos_mesh.registry.stores.etcd_documents import EtcdDocuments
from minhos_mesh.registry.stores.etcd_mirror import Mirror
from minhos_mesh.registry.stores.etcd_writer import OwnInstances
from minhos_mesh.registry.stores.local import LocalTables, latest_changes
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Database

MEMBER_TTL_S: Final = 5
"""How long a registry may be silent before others inherit its instances; long enough for it to be started again."""
ADMIT_ATTEMPTS: Final = 8
CAUGHT_UP_S: Final = 2.0
"""How long a change that etcd has may take until the watch shows it."""
RETRY_S: Final = 0.2
"""Pause before a broken watch or lease is opened again."""

_log = get_logger("registry.etcd")


class EtcdStore(LocalTables):
    """A RegistryStore in etcd; what belongs to this machine stays in its SQLite file."""

    def __init__(self, database: Database, client: EtcdClient, prefix: str, *, ttl_s: int = MEMBER_TTL_S) -> None:
        """All registries of one mesh have the same prefix."""
        super().__init__(database)
        self._client, self._ttl_s = client, ttl_s
        self._keys = layout.Layout(prefix.strip("/").encode() + b"/")
        self._mirror = Mirror(self._keys)
        self._own = OwnInstances(client, self._keys, self._mirror)
        self.documents = EtcdDocuments(client, self._keys)
        self._neighbours: Neighbours | None = None
        self._member, self._address, self._lease = "", "", 0
        self._moved = asyncio.Event()
        self._orphaned = asyncio.Event()
        self._granted_one = asyncio.Event()
        self._newest = 0
        self._trouble: str | None = None

    # Starting and ending.

    async def load(self) -> StoredState:
        """Joins the registries of the mesh and reads everything as of one revision. Raises StoreUnavailable or StoreRefused."""
        self._member = await self.identity()
        await self._raise_floor(await self.last_token())
        await self._join()
        revision, pairs = await self._client.read_all(self._keys.prefix)
        self._mirror.take(pairs, revision, self)  # only documents have listeners yet
        await self._inherit_orphans()
        mine = [held for held in self._mirror.instances.values() if held.holder == self._member]
        for held in mine:
            self._own.add(held, attached=False)
        wishes = await self.wishes()
        told = {h.record.key.service: (h.record.contracts, h.record.needs) for h in self._mirror.instances.values()}
        told |= self._mirror.services
        services = {name: ServiceRecord(name, wishes.get(name), *each) for name, each in told.items()}
        alone = {name: ServiceRecord(name, wish) for name, wish in wishes.items() if name not in services}
        return StoredState(
            instances=tuple(held.record for held in mine),
            tokens=tuple(self._mirror.tokens.items()),
            services=(*services.values(), *alone.values()),
            latest=await self._database.read(latest_changes),
            elsewhere=tuple(h for h in self._mirror.instances.values() if h.holder != self._member),
            members=self._others(),
        )

    async def announce(self, address: str) -> None:
        """Tells the other registries where instances can attach here."""
        self._address = address
        await self._write_member()

    async def follow(self, neighbours: Neighbours) -> None:
        """Keeps this registry a member of the mesh and tells what the others do, until it is cancelled."""
        self._neighbours = neighbours
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_member(), name="etcd-lease")
            group.create_task(self._watch(), name="etcd-watch")
            group.create_task(self._own.run(self._note_trouble), name="etcd-writer")
            group.create_task(self._inherit(), name="etcd-inherit")
            group.create_task(self._note_tokens(), name="etcd-tokens")

    async def close(self) -> None:
        """Leaves the mesh at once when nothing is attached here; otherwise the lease runs out, should nobody come back."""
        if self._lease and not len(self._own):
            try:
                await self._client.call(wire.REVOKE, 0.5, id=self._lease)
            except (StoreUnavailable, StoreRefused):
                _log.info("etcd.lease_left", seconds=self._ttl_s)
        await self._client.close()

    async def _raise_floor(self, above: int) -> None:
        """Sees to it that tokens are above one that was granted before, whatever became of etcd since."""
        while True:
            answer = await self._client.call(wire.RANGE, key=self._keys.floor)
            found = answer.kvs[0] if answer.kvs else wire.KeyValue(key=self._keys.floor, value=b"0")
            needed = max(int(found.value), above - answer.header.revision)
            if found.mod_revision and needed == int(found.value):
                self._mirror.put(found, None)
                return
            await self._client.call(
                wire.TXN,
                compare=[wire.unchanged(self._keys.floor, found.mod_revision)],
                success=[wire.put(self._keys.floor, str(needed).encode())],
            )

    # Being a member.

    async def _join(self) -> None:
        granted = await self._client.call(wire.GRANT, ttl=self._ttl_s)
        self._lease = int(granted.id)
        await self._write_member()

    async def _write_member(self) -> None:
        value = layout.member_value(self._address)
        await self._client.call(wire.TXN, success=[wire.put(self._keys.member(self._member), value, self._lease)])

    async def _stay_member(self) -> None:
        while True:
            try:
                await self._client.keep_alive(self._lease, self._ttl_s / 4, lambda: self._note_trouble(None))
                _log.warning("etcd.lease_lost", member=self._member)
                await self._join()
            except (StoreUnavailable, StoreRefused) as error:
                self._note_trouble(str(error))
                await asyncio.sleep(RETRY_S)

    def _note_trouble(self, text: str | None) -> None:
        if (text is None) == (self._trouble is None):
            return
        self._trouble = text
        if text is None:
            _log.info("etcd.answers_again", endpoint=self._client.endpoint)
        else:
            _log.warning("etcd.trouble", text=text)
        if self._neighbours is not None:
            self._neighbours.store_trouble(text)

    def _others(self) -> tuple[Member, ...]:
        return tuple(m for _, m in sorted(self._mirror.members.items()) if m.name != self._member)

    # Watching.

    async def _watch(self) -> None:
        while True:
            try:
                async with self._client.watch(self._keys.prefix, self._mirror.revision + 1) as responses:
                    async for response in responses:
                        self._mirror.apply(response.events, self)
                        if not response.events:
                            self._mirror.revision = max(self._mirror.revision, response.header.revision)
                        self._tell_moved()
            except Compacted as error:
                _log.warning("etcd.compacted", text=str(error))
                await self._read_again()
            except StoreUnavailable as error:
                self._note_trouble(str(error))
                await asyncio.sleep(RETRY_S)

    async def _read_again(self) -> None:
        try:
            revision, pairs = await self._client.read_all(self._keys.prefix)
        except (StoreUnavailable, StoreRefused) as error:
            self._note_trouble(str(error))
            await asyncio.sleep(RETRY_S)
            return
        self._mirror.take(pairs, revision, self)
        self._tell_moved()

    def _tell_moved(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _caught_up(self, key: InstanceKey, revision: int) -> None:
        """Waits until the mirror has the token of an instance as of a revision."""
        try:
            async with asyncio.timeout(CAUGHT_UP_S):
                while self._mirror.token_revisions.get(key, 0) < revision and self._mirror.revision < revision:
                    await self._moved.wait()
        except TimeoutError:
            raise StoreUnavailable(f"etcd has a newer owner of {key}, and its watch does not show it") from None

    # What the mirror saw; see Witness.

    def instance_written(self, held: HeldElsewhere) -> None:
        """Another registry holds it, or this one does."""
        record = held.record
        if held.holder == self._member or self._neighbours is None:
            return
        if self._own.attached(record.key, record.token):
            self._own.touch(record.key)  # inherited from here while this registry was cut off: it is still attached
            return
        self._own.drop(record.key, record.token)
        self._neighbours.seen(held)
        if held.holder not in self._mirror.members:
            self._orphaned.set()

    def instance_deleted(self, last: HeldElsewhere, departure: Departure) -> None:
        """It left another registry, or was removed by one that inherited it."""
        key, token = last.record.key, last.record.token
        if self._neighbours is None or (last.holder == self._member and not self._own.holds(key, token)):
            return
        self._own.drop(key, self._mirror.tokens.get(key))
        self._neighbours.gone(key, token, departure)

    def member_written(self, member: Member) -> None:
        """A registry lives."""
        if self._neighbours is not None:
            self._neighbours.members_changed(self._others())

    def member_deleted(self, name: str) -> None:
        """A registry is gone."""
        if name == self._member:
            return
        _log.warning("etcd.member_gone", member=name)
        self._orphaned.set()
        if self._neighbours is not None:
            self._neighbours.members_changed(self._others())

    def service_written(self, service: str, contracts: tuple[str, ...], needs: tuple[Need, ...]) -> None:
        """A service serves and needs this."""
        if self._neighbours is not None:
            self._neighbours.service_known(service, contracts, needs)

    def document_written(self, pair: Any) -> None:
        """A document was written."""
        self.documents.written(pair)

    def document_deleted(self, pair: Any) -> None:
        """A document was deleted."""
        self.documents.deleted(pair)

    # Inheriting.

    async def _inherit(self) -> None:
        while True:
            await self._orphaned.wait()
            self._orphaned.clear()
            try:
                await self._inherit_orphans()
            except (StoreUnavailable, StoreRefused) as error:
                self._note_trouble(str(error))
                self._orphaned.set()
                await asyncio.sleep(RETRY_S)

    async def _inherit_orphans(self) -> None:
        """Takes over what no living registry holds, as far as no other was faster."""
        mirror, count = self._mirror, 0
        for orphan in mirror.orphans(but=self._member):
            key, held = orphan.record.key, replace(orphan, holder=self._member)
            if mirror.instances.get(key) is not orphan:
                continue
            instance, value = self._keys.instance(key), layout.instance_value(held, floor=None)
            answer = await self._client.call(
                wire.TXN,
                compare=[
                    wire.unchanged(self._keys.token(key), mirror.token_revisions.get(key, 0)),
                    wire.unchanged(instance, mirror.revision_of(instance)),
                    wire.unchanged(self._keys.member(orphan.holder), 0),
                ],
                success=[wire.put(instance, value)],
            )
            if not answer.succeeded:
                continue
            mirror.wrote({instance: value}, answer.header.revision)
            now = mirror.instances.get(key)
            if now is None or (now.holder, now.record.token) != (self._member, held.record.token):
                continue  # it has come to another registry meanwhile
            count += 1
            self._own.add(held, attached=False)
            if self._neighbours is not None:
                self._neighbours.inherited(held.record)
        if count:
            _log.info("etcd.inherited", instances=count)

    # Instances.

    async def admit(self, record: InstanceRecord, allowed: Callable[[], None]) -> int:
        """Keeps a new owner of an instance and returns its token: the revision of this write, above the floor."""
        key, mirror = record.key, self._mirror
        token_key, instance_key = self._keys.token(key), self._keys.instance(key)
        held = layout.unreported(record, self._member)
        for _attempt in range(ADMIT_ATTEMPTS):
            if mirror.floor + mirror.revision < record.token:
                await self._raise_floor(record.token)
            allowed()
            values = {
                token_key: layout.granted_value(mirror.floor),
                instance_key: layout.instance_value(held, floor=mirror.floor),
            }
            if mirror.services.get(key.service) != (record.contracts, record.needs):
                values[self._keys.service(key.service)] = layout.service_value(record.contracts, record.needs)
            answer = await self._client.call(
                wire.TXN,
                compare=[
                    wire.unchanged(token_key, mirror.token_revisions.get(key, 0)),
                    wire.unchanged(self._keys.floor, mirror.floor_revision),
                    wire.hangs_on(self._keys.member(self._member), self._lease),
                ],
                success=[wire.put(name, value) for name, value in values.items()],
                failure=[wire.read(k) for k in (token_key, instance_key, self._keys.floor)],
            )
            if answer.succeeded:
                return self._granted(held, values, answer.header.revision)
            before, there, floor = (r.response_range.kvs for r in answer.responses)
            if (
                there
                and layout.read_instance(key, there[0].value, there[0].mod_revision).record.lease_id == record.lease_id
            ):
                return self._granted(held, values, there[0].mod_revision)  # its answer was lost, it was asked for again
            for pair in floor:
                mirror.put(pair, None)
            await self._lost_race(key, before[0].mod_revision if before else 0)
        raise StoreUnavailable(f"{key} was taken over too often while it was admitted")

    def _granted(self, held: HeldElsewhere, values: dict[bytes, bytes], revision: int) -> int:
        token = self._mirror.floor + revision
        self._mirror.wrote(values, revision)
        self._own.add(layout.with_token(held, token), attached=True)
        self._newest = max(self._newest, token)
        self._granted_one.set()
        return token

    async def _note_tokens(self) -> None:
        """Keeps the newest token on this machine too, so that an etcd that is set up anew cannot grant it again."""
        while True:
            await self._granted_one.wait()
            self._granted_one.clear()
            await self.note_token(self._newest)

    async def _lost_race(self, key: InstanceKey, revision: int) -> None:
        """Something of what the grant was made for has changed: waits until this registry knows it too."""
        if revision != self._mirror.token_revisions.get(key, 0):
            await self._caught_up(key, revision)
        else:
            await asyncio.sleep(RETRY_S / 2)  # the lease of this member has run out and is being taken anew

    async def forget_service(self, service: str) -> None:
        """Forgets a service here, and in the mesh unless an instance of it is attached anywhere."""
        await super().forget_service(service)
        key, mirror = self._keys.service(service), self._mirror
        if not (known := mirror.revision_of(key)):
            return
        answer = await self._client.call(
            wire.TXN,
            compare=[wire.unchanged(key, known), wire.empty(self._keys.instances_of(service))],
            success=[wire.delete(key)],
        )
        if answer.succeeded:
            mirror.delete(wire.KeyValue(key=key, mod_revision=answer.header.revision), None)

    async def mark_ready(self, key: InstanceKey, token: int) -> None:
        """Remembers that an instance has been ready once. Raises StaleToken when its owner was replaced."""
        await self._own.mark_ready(key, token)

    def report(self, key: InstanceKey, token: int, report: InstanceReport) -> None:
        """Tells the other registries how an instance is, soon."""
        self._own.report(key, token, report)

    async def remove(self, key: InstanceKey, token: int, departure: Departure = IN_ORDER) -> bool:
        """Forgets an instance, unless it is held under another token by now; says whether it was there."""
        return await self._own.remove(key, token, departure)


async def open_etcd(database: Database, endpoints: Sequence[str], prefix: str, *, timeout_s: float) -> EtcdStore:
    """A store on an etcd that answers. Raises StoreUnavailable naming the endpoints that were tried."""
    client = EtcdClient(endpoints, timeout_s=timeout_s)
    try:
        status = await client.call(wire.STATUS)
    except (StoreUnavailable, StoreRefused):
        await client.close()
        raise
    _log.info("etcd.connected", endpoint=client.endpoint, version=status.version)
    return EtcdStore(database, client, prefix)
