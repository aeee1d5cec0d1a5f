"""Decides how a registry writes what becomes of its own instances to etcd: the newest only, many at once, until taken.

Each write holds only while the token of the instance is the one that this registry granted, so that a registry that
was cut off can change nothing that another one has taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.store import Departure, HeldElsewhere, InstanceReport, StoreRefused, StoreUnavailable
from minhos_mesh.registry.stores import etcd_layout as layout
from minhos_mesh.registry.stores import etcd_messages as wire
from minhos_mesh.registry.stores.etcd_client import EtcdClient
from minhos_mesh.registry.stores.etcd_mirror import Mirror
from minhos_mesh.runtime.log import get_logger

AT_ONCE: Final = 32
"""Writes that are under way together."""
RETRY_S: Final = 0.25
"""Pause while etcd does not answer."""
FORGET_TOKENS_S: Final = 86_400
"""How long the token of an instance that is gone is remembered."""
RENEW_FORGETTING_S: Final = 3_600
"""How long one lease serves for forgetting."""

_log = get_logger("registry.etcd")


@dataclass(slots=True)
class _Own:
    held: HeldElsewhere
    attached: bool
    dirty: bool = False
    taken: asyncio.Future[None] | None = None
    departure: Departure | None = None
    removed: asyncio.Future[bool] | None = None


class OwnInstances:
    """The instances that this registry holds, and what etcd must still be told of them."""

    def __init__(self, client: EtcdClient, keys: layout.Layout, mirror: Mirror) -> None:
        self._client, self._keys, self._mirror = client, keys, mirror
        self._own: dict[InstanceKey, _Own] = {}
        self._wake = asyncio.Event()
        self._forgetting: tuple[int, float] | None = None
        self._running = False

    def __len__(self) -> int:
        return len(self._own)

    def holds(self, key: InstanceKey, token: int) -> bool:
        """Whether this registry holds the instance under this token, and has not let go of it."""
        own = self._own.get(key)
        return own is not None and own.held.record.token == token and own.departure is None

    def attached(self, key: InstanceKey, token: int) -> bool:
        """Whether the instance came to this registry itself, which then knows more of it than one that inherited it."""
        return self.holds(key, token) and self._own[key].attached

    def add(self, held: HeldElsewhere, *, attached: bool) -> None:
        """It was granted, or else inherited."""
        self.drop(held.record.key, None)
        self._own[held.record.key] = _Own(held, attached)

    def drop(self, key: InstanceKey, newest: int | None) -> None:
        """Another one holds it, under the token `newest`."""
        own = self._own.pop(key, None)
        if own is None:
            return
        shown = own.held.record.token
        if own.taken is not None and not own.taken.done():
            text = f"is not held under token {shown}"
            own.taken.set_exception(StaleToken(key, text, shown=shown, newest=newest or 0))
        if own.removed is not None and not own.removed.done():
            own.removed.set_result(False)

    def touch(self, key: InstanceKey) -> None:
        """Writes an instance again as it is."""
        own = self._own.get(key)
        if own is not None:
            own.dirty = True
            self._wake.set()

    def report(self, key: InstanceKey, token: int, report: InstanceReport) -> None:
        """The newest report counts."""
        own = self._own.get(key)
        if own is not None and own.held.record.token == token and own.held.report != report:
            own.held = replace(own.held, report=report)
            self.touch(key)

    async def mark_ready(self, key: InstanceKey, token: int) -> None:
        """Waits until etcd has it. Raises StaleToken."""
        own = self._own.get(key)
        if own is None or own.held.record.token != token or own.departure is not None:
            newest = self._mirror.tokens.get(key, 0)
            raise StaleToken(key, f"is not held under token {token}", shown=token, newest=newest)
        own.held = replace(own.held, record=replace(own.held.record, ever_ready=True))
        if own.taken is None or own.taken.done():
            own.taken = asyncio.get_running_loop().create_future()
        self.touch(key)
        await asyncio.shield(own.taken)

    async def remove(self, key: InstanceKey, token: int, departure: Departure) -> bool:
        """Waits until etcd has it."""
        own = self._own.get(key)
        if own is None or own.held.record.token != token:
            return False
        if own.removed is None:
            own.departure, own.removed = departure, asyncio.get_running_loop().create_future()
        if not self._running:
            await self._write_removal(key, own, departure)
        self.touch(key)
        return await asyncio.shield(own.removed)

    async def run(self, on_trouble: Callable[[str | None], None]) -> None:
        """Writes what is to be written, for as long as the registry lives."""
        self._running = True
        while True:
            self._wake.clear()
            due = [key for key, own in self._own.items() if own.dirty][:AT_ONCE]
            if not due:
                await self._wake.wait()
                continue
            told = await asyncio.gather(*(self._write(key, self._own[key]) for key in due))
            if any(told):
                on_trouble(next(text for text in told if text))
                await asyncio.sleep(RETRY_S)

    async def _write(self, key: InstanceKey, own: _Own) -> str | None:
        """Writes one instance; says what went wrong."""
        own.dirty = False
        try:
            if own.departure is None:
                await self._write_report(key, own)
            else:
                await self._write_removal(key, own, own.departure)
        except (StoreUnavailable, StoreRefused) as error:
            own.dirty = True
            return str(error)
        return None

    async def _write_report(self, key: InstanceKey, own: _Own) -> None:
        taken, own.taken = own.taken, None
        value = layout.instance_value(own.held, floor=None)
        granted = wire.unchanged(self._keys.token(key), self._mirror.token_revisions.get(key, 0))
        try:
            answer = await self._client.call(
                wire.TXN, compare=[granted], success=[wire.put(self._keys.instance(key), value)]
            )
        except (StoreUnavailable, StoreRefused):
            own.taken = _joined(own.taken, taken)
            raise
        if answer.succeeded:
            if self._own.get(key) is own:
                self._mirror.wrote({self._keys.instance(key): value}, answer.header.revision)
            if taken is not None and not taken.done():
                taken.set_result(None)
            return
        own.taken = _joined(own.taken, taken)
        _log.info("etcd.replaced", instance_key=str(key), fencing_token=own.held.record.token)
        if self._own.get(key) is own:
            self.drop(key, self._mirror.tokens.get(key))

    async def _write_removal(self, key: InstanceKey, own: _Own, departure: Departure) -> None:
        token_key, token = self._keys.token(key), own.held.record.token
        value = layout.departed_value(token, departure)
        answer = await self._client.call(
            wire.TXN,
            compare=[wire.unchanged(token_key, self._mirror.token_revisions.get(key, 0))],
            success=[
                wire.put(token_key, value, await self._forgetting_lease()),
                wire.delete(self._keys.instance(key)),
            ],
            failure=[wire.read(token_key)],
        )
        removed = bool(answer.succeeded)
        if removed:
            self._mirror.wrote({token_key: value}, answer.header.revision)
        else:  # an answer was lost on its way, and the removal was asked for again
            found = answer.responses[0].response_range.kvs
            removed = bool(found) and found[0].value == value
        if self._own.get(key) is own:
            del self._own[key]
        if own.removed is not None and not own.removed.done():
            own.removed.set_result(removed)

    async def _forgetting_lease(self) -> int:
        now = asyncio.get_running_loop().time()
        if self._forgetting is None or now - self._forgetting[1] > RENEW_FORGETTING_S:
            granted = await self._client.call(wire.GRANT, ttl=FORGET_TOKENS_S)
            self._forgetting = (granted.id, now)
        return self._forgetting[0]


def _joined(newer: asyncio.Future[None] | None, older: asyncio.Future[None] | None) -> asyncio.Future[None] | None:
    """One future for both who wait."""
    if newer is None or older is None:
        return newer or older

    def pass_on(done: asyncio.Future[None]) -> None:
        if older.done():
            return
        error = None if done.cancelled() else done.exception()
        if error is not None:
            older.set_exception(error)
        else:
            older.set_result(None)

    newer.add_done_callback(pass_on)
    return newer
