"""Decides which instances are there: grants and ends leases, takes heartbeats, and notices who is gone, and how."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from minhos_mesh.registry.attachment import Attachment, Beat, Claim
from minhos_mesh.registry.domain.directory import SETTLE_SECONDS, Present, Rotation
from minhos_mesh.registry.domain.health import Serving, Silence
from minhos_mesh.registry.domain.leases import InstanceKey, Lease, LeaseBook, StaleToken, Standing
from minhos_mesh.registry.procfs import start_ticks
from minhos_mesh.registry.store import InstanceRecord, RegistryStore
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger

MAX_INSTANCES: Final = 256
"""Instances that may be attached at once."""
STALL_SECONDS: Final = 0.5
"""A sweep that comes later than this means that the registry stood still; nobody loses a lease for that."""
REMEMBERED_SECONDS: Final = 60.0
"""How long an instance that is gone is told of beside others that serve."""
LEAVING_SECONDS: Final = 5.0
"""How long an instance that said goodbye is told of when nobody sees its process end."""

_log = get_logger("registry.instances")


class TooManyInstances(Exception):
    """Expected of a broken or hostile client only: more instances attach than a mesh can have."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"{seen} instances are attached: allowed are {MAX_INSTANCES}")
        self.limit = "attached instances"
        self.seen = seen
        self.allowed = MAX_INSTANCES


class Listener(Protocol):
    """Who is told of what happens to instances."""

    def arrived(self, present: Present, claim: Claim | None) -> None:
        """An instance is there; `claim` is None for one that was taken back from an earlier life."""

    def departed(self, present: Present, in_order: bool, how: str) -> None:
        """An instance is gone."""

    def failed(self, service: str, text: str) -> None:
        """Something went wrong that a person should be able to see."""

    def changed(self) -> None:
        """Something is different: derive everything anew."""


class Instances:
    """All instances with their leases."""

    def __init__(self, store: RegistryStore, clock: Clock, lease_seconds: float, listener: Listener) -> None:
        self._store, self._clock, self._listener = store, clock, listener
        self._present: dict[InstanceKey, Present] = {}
        self._attachments: dict[InstanceKey, Attachment] = {}
        self._book = LeaseBook(time_to_live=lease_seconds)
        self._granting = asyncio.Lock()
        self._sweep_due: float | None = None

    @property
    def present(self) -> Mapping[InstanceKey, Present]:
        """All instances that are there or whose end is still told of."""
        return self._present

    @property
    def time_to_live(self) -> float:
        """Seconds without a heartbeat after which a lease runs out."""
        return self._book.time_to_live

    def of_service(self, service: str) -> tuple[Present, ...]:
        """The instances of one service, in order of their ids."""
        return tuple(p for key, p in sorted(self._present.items()) if key.service == service)

    # Coming.

    def remember_token(self, key: InstanceKey, token: int) -> None:
        """Takes the last token of an instance back from the store."""
        self._book = self._book.remember_token(key, token)

    def take_back(self, record: InstanceRecord) -> None:
        """Takes back an instance of an earlier life: it is left as it was until its lease runs out."""
        lease = Lease(record.lease_id, record.key, record.token, self._clock.monotonic())
        self._book = self._book.recover(lease)
        serving = Serving.SERVING if record.ever_ready else Serving.UNKNOWN
        present = self._present[record.key] = replace(_present_of(record), serving=serving)
        self._listener.arrived(present, None)

    def add_unleased(self, present: Present) -> None:
        """Adds an instance that is there for as long as this process: the registry itself."""
        self._present[present.key] = present
        self._listener.arrived(present, None)
        self._listener.changed()

    async def attach(self, claim: Claim) -> Attachment:
        """Grants a lease, on disk when it returns. Raises InstanceHeld, StaleToken or TooManyInstances."""
        key, lease_id = claim.key, secrets.token_hex(8)
        if len(self._attachments) >= MAX_INSTANCES and key not in self._attachments:
            raise TooManyInstances(len(self._attachments))
        async with self._granting:
            before = self._present.get(key)
            resumed = before is not None and not before.gone and before.token == claim.presented
            record = self._record(claim, lease_id, ever_ready=before is not None and resumed and before.ever_ready)
            token = await self._store.admit(record, lambda: self._check(claim))
            now = self._clock.monotonic()
            self._book, _lease = self._book.grant(
                key, lease_id=lease_id, token=token, presented=claim.presented, now=now
            )
            self._evict(key, StaleToken(key, "attached again", shown=token - 1, newest=token))
            attachment = self._attachments[key] = Attachment(key, lease_id, token)
            present = replace(_present_of(replace(record, token=token)), versions=claim.versions)
            if (
                before is not None and resumed
            ):  # what it said holds until it says otherwise: a new stream takes nothing away
                present = replace(present, serving=before.serving, conditions=before.conditions)
                present = replace(present, internal_errors=before.internal_errors)
            self._replace_gone(present)
        _log.info(
            "instance.attached", instance_key=str(key), address=present.address, fencing_token=token, resumed=resumed
        )
        self._listener.arrived(present, claim)
        self._listener.changed()
        return attachment

    def _record(self, claim: Claim, lease_id: str, *, ever_ready: bool) -> InstanceRecord:
        return InstanceRecord(
            key=claim.key,
            lease_id=lease_id,
            token=0,
            host=claim.host,
            port=claim.port,
            contracts=claim.contracts,
            version=claim.version,
            attached_ns=self._clock.wall_ns(),
            needs=claim.needs,
            pid=claim.pid,
            process_started=start_ticks(claim.pid) if claim.pid is not None else None,
            ever_ready=ever_ready,
        )

    def _check(self, claim: Claim) -> None:
        """Refuses what may not be granted. Called in the writer thread; reads one immutable book."""
        self._book.check_claim(claim.key, presented=claim.presented, now=self._clock.monotonic())

    def _replace_gone(self, present: Present) -> None:
        for key, other in list(self._present.items()):
            if key.service == present.key.service and other.gone:
                del self._present[key]
        self._present[present.key] = present

    # Being there.

    def beat(self, attachment: Attachment, beat: Beat) -> int:
        """Takes a heartbeat; returns when the lease ends, ns since the Unix epoch. Raises StaleToken."""
        now = self._clock.monotonic()
        self._book = self._book.renew(attachment.key, attachment.lease_id, attachment.token, now)
        before = self._present[attachment.key]
        if beat.internal_errors > before.internal_errors:
            count = beat.internal_errors - before.internal_errors
            self._listener.failed(attachment.key.service, f"{count} calls failed by a defect; its log has them")
        self.note(
            attachment.key,
            attachment.token,
            heartbeat_ns=self._clock.wall_ns(),
            silence=Silence.LIVE,
            silent_seconds=0.0,
            serving=Serving.SERVING if beat.serving else Serving.NOT_SERVING,
            conditions=beat.conditions,
            internal_errors=beat.internal_errors,
        )
        return self._clock.wall_ns() + int(self._book.time_to_live * 1e9)

    def note(self, key: InstanceKey, token: int, **changes: Any) -> None:
        """Takes in what was found out about an instance; ignored when it was replaced or is gone."""
        before = self._present.get(key)
        if before is None or before.token != token or before.gone:
            return
        now = self._clock.monotonic()
        after = replace(before, **changes)
        if after.says is Serving.SERVING:
            after = replace(after, not_serving_at=None)
        elif after.not_serving_at is None:
            after = replace(after, not_serving_at=now)
        self._present[key] = after
        if (after.facts(now), after.rotation()) != (before.facts(now), before.rotation()) or after.says != before.says:
            self._listener.changed()

    def let_in(self, key: InstanceKey, token: int) -> Present | None:
        """Notes that an instance may get calls; None when it was replaced or is gone."""
        present = self._present.get(key)
        if present is None or present.token != token or present.gone:
            return None
        self._present[key] = replace(present, ever_ready=True)
        return self._present[key]

    def command_drain(self, service: str, reason: str) -> int:
        """Tells all attached instances of a service to leave; returns how many there are."""
        return sum(
            1 for key, attachment in self._attachments.items() if key.service == service and attachment.drain(reason)
        )

    # Going.

    def goodbye(self, attachment: Attachment, reason: str) -> None:
        """An instance leaves in order: its endpoint is drained at once."""
        if self._attachments.get(attachment.key) is not attachment:
            return
        attachment.said_goodbye = True
        _log.info("instance.leaving", instance_key=str(attachment.key), reason=reason)
        present = self._present[attachment.key]
        self._present[attachment.key] = replace(present, leaving=True, gone_at=self._clock.monotonic())
        self._listener.changed()

    def detach(self, attachment: Attachment) -> None:
        """The stream of an instance has ended, with a goodbye or without."""
        if self._attachments.get(attachment.key) is not attachment:
            return
        del self._attachments[attachment.key]
        self._book = self._book.release(attachment.key, attachment.lease_id)
        if not attachment.said_goodbye:
            self._lose(attachment.key, Silence.LOST, "it lost its connection without saying goodbye")
        self._listener.changed()

    def process_ended(self, service: str, pid: int, how: str) -> None:
        """A process has ended: what it served is gone at once."""
        for present in self.of_service(service):
            if present.pid != pid or present.gone:
                continue
            if present.leaving:
                self._leave(present, how)
            else:
                now = self._clock.monotonic()
                self._present[present.key] = replace(present, exit_text=f"process {pid} {how}", gone_at=now)
                self._listener.departed(present, False, f"process {pid} {how}")
        self._listener.changed()

    def forget_gone(self, service: str) -> None:
        """A new process of a service was started: what became of those before it no longer counts."""
        for present in self.of_service(service):
            if present.gone:
                del self._present[present.key]
        self._listener.changed()

    def end_all(self) -> None:
        """Ends all streams; the instances serve on and come back to the next registry."""
        attachments, self._attachments = list(self._attachments.values()), {}
        for attachment in attachments:
            attachment.end(None)

    def _evict(self, key: InstanceKey, error: StaleToken) -> None:
        attachment = self._attachments.pop(key, None)
        if attachment is not None:
            attachment.end(error)

    def _lose(self, key: InstanceKey, silence: Silence, how: str, silent: float = 0.0) -> None:
        present = self._present.get(key)
        if present is None or present.gone:
            return
        now = self._clock.monotonic()
        self._present[key] = replace(present, silence=silence, silent_seconds=silent, gone_at=now)
        self._listener.departed(present, False, how)

    def _leave(self, present: Present, how: str) -> None:
        del self._present[present.key]
        self._listener.departed(present, True, how)

    # Time.

    def sweep(self) -> float | None:
        """Ends what has run out, and says when to look again on the monotonic clock; None when nothing is due."""
        now = self._clock.monotonic()
        if self._sweep_due is not None and now - self._sweep_due > STALL_SECONDS:
            _log.warning("registry.stalled", seconds=round(now - self._sweep_due, 2))
            self._book = self._book.forgive(now)
        self._book, expired = self._book.expire(now)
        for lease in expired:
            silent = now - lease.renewed
            self._lose(lease.key, Silence.EXPIRED, f"its lease ran out after {silent:.1f} s of silence", silent)
            self._evict(
                lease.key, StaleToken(lease.key, "let its lease run out", shown=lease.token, newest=lease.token)
            )
        for key, lease in self._book.leases.items():
            present = self._present.get(key)
            if present is not None and lease.standing(now) is Standing.LATE and present.silence is Silence.LIVE:
                self._present[key] = replace(present, silence=Silence.LATE, silent_seconds=now - lease.renewed)
        for present in list(self._present.values()):
            if present.gone_at is not None and self._forget_at(present) <= now:
                if present.gone:
                    del self._present[present.key]
                else:
                    self._leave(present, "it said goodbye")
        self._sweep_due = self._next_due(now)
        return self._sweep_due

    def _next_due(self, now: float) -> float | None:
        dues = [self._forget_at(present) for present in self._present.values() if present.gone_at is not None]
        dues += [p.not_serving_at + SETTLE_SECONDS for p in self._present.values() if p.not_serving_at is not None]
        change = self._book.next_change(now)
        return min((due for due in (*dues, change) if due is not None and now < due < float("inf")), default=None)

    def _forget_at(self, present: Present) -> float:
        gone_at = present.gone_at if present.gone_at is not None else float("inf")
        if not present.gone:
            return gone_at + LEAVING_SECONDS
        others = any(p.rotation() is Rotation.IN for p in self.of_service(present.key.service))
        return gone_at + REMEMBERED_SECONDS if others else float("inf")


def _present_of(record: InstanceRecord) -> Present:
    return Present(
        key=record.key,
        host=record.host,
        port=record.port,
        contracts=record.contracts,
        lease_id=record.lease_id,
        token=record.token,
        version=record.version,
        attached_ns=record.attached_ns,
        pid=record.pid,
        process_started=record.process_started,
        ever_ready=record.ever_ready,
    )


ArrivalListener = Callable[[Present, bool], None]
"""Told of each instance that comes (True) or goes (False)."""
