"""Decides which instances are there: grants and ends leases, takes heartbeats, and notices who is gone, and how."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from minhos_mesh.registry.attachment import Attachment, Beat, Claim
from minhos_mesh.registry.domain.directory import SETTLE_SECONDS, Present, Rotation
from minhos_mesh.registry.domain.health import Serving, Silence
from minhos_mesh.registry.domain.leases import InstanceHeld, InstanceKey, Lease, LeaseBook, StaleToken
from minhos_mesh.registry.procfs import start_ticks, started_ns
from minhos_mesh.registry.store import Departure, HeldElsewhere, InstanceRecord, InstanceReport, RegistryStore
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger

MAX_INSTANCES: Final = 4_096
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
        """An instance is gone, from this registry or, when it has another holder, from there."""

    def moved(self, present: Present) -> None:
        """An instance is at another registry from now on."""

    def failed(self, service: str, text: str) -> None:
        """Something went wrong that a person should be able to see."""

    def changed(self) -> None:
        """Something is different: derive everything anew."""


class Instances:
    """All instances with their leases."""

    def __init__(self, store: RegistryStore, clock: Clock, lease_seconds: float, listener: Listener) -> None:
        self._store, self._clock, self._listener = store, clock, listener
        self._present: dict[InstanceKey, Present] = {}
        self._services: dict[str, dict[InstanceKey, Present]] = {}
        self._unsettled: set[InstanceKey] = set()
        self._new: set[InstanceKey] = set()
        self._touched: set[str] = set()
        self._attachments: dict[InstanceKey, Attachment] = {}
        self._book = LeaseBook(time_to_live=lease_seconds)
        self._granting: WeakValueDictionary[InstanceKey, asyncio.Lock] = WeakValueDictionary()
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
        return tuple(present for _key, present in sorted(self._services.get(service, {}).items()))

    def take_touched(self, now: float) -> set[str]:
        """The services of which something is different since the last call, or is by the mere course of time."""
        touched, self._touched = self._touched, set()
        for present in [self._present[key] for key in self._unsettled]:
            if present.not_serving_at is None:
                continue
            touched.add(present.key.service)
            if present.gone_at is None and now - present.not_serving_at >= SETTLE_SECONDS:
                self._unsettled.discard(present.key)
        return touched

    def new_ones(self) -> tuple[Present, ...]:
        """Instances that have never had calls."""
        return tuple(self._present[key] for key in self._new)

    def living(self) -> int:
        """How many instances are there, those at other registries among them."""
        return len(self._present) - sum(self._present[key].gone for key in self._unsettled)

    def _set(self, present: Present) -> None:
        """The only place that changes or adds an instance; keeps what is known of services and dues beside it."""
        key = present.key
        self._refresh(present)
        self._touched.add(key.service)
        (self._new.discard if present.ever_ready else self._new.add)(key)
        if present.gone_at is not None or present.not_serving_at is not None:
            self._unsettled.add(key)
        else:
            self._unsettled.discard(key)

    def _refresh(self, present: Present) -> None:
        """Puts an instance in the place of itself, when nothing differs that anything is derived from."""
        self._present[present.key] = present
        self._services.setdefault(present.key.service, {})[present.key] = present

    def _drop(self, key: InstanceKey) -> None:
        self._unsettled.discard(key)
        self._new.discard(key)
        self._touched.add(key.service)
        if self._present.pop(key, None) is not None:
            of_service = self._services[key.service]
            del of_service[key]
            if not of_service:
                del self._services[key.service]

    # Coming.

    def remember_token(self, key: InstanceKey, token: int) -> None:
        """Takes the last token of an instance back from the store."""
        self._book.remember_token(key, token)

    def take_back(self, record: InstanceRecord) -> None:
        """Takes back an instance of an earlier life: it is left as it was until its lease runs out."""
        lease = Lease(record.lease_id, record.key, record.token, self._clock.monotonic())
        self._book.recover(lease)
        serving = Serving.SERVING if record.ever_ready else Serving.UNKNOWN
        present = replace(_present_of(record), serving=serving)
        self._set(present)
        self._listener.arrived(present, None)

    def add_unleased(self, present: Present) -> None:
        """Adds an instance that is there for as long as this process: the registry itself."""
        self._set(present)
        self._listener.arrived(present, None)
        self._listener.changed()

    async def attach(self, claim: Claim, built: str = "") -> Attachment:
        """Grants a lease, on disk when it returns. Raises InstanceHeld, StaleToken or TooManyInstances."""
        key, lease_id = claim.key, secrets.token_hex(8)
        if len(self._attachments) >= MAX_INSTANCES and key not in self._attachments:
            raise TooManyInstances(len(self._attachments))
        granting = self._granting.get(key) or self._granting.setdefault(key, asyncio.Lock())
        async with granting:
            before = self._present.get(key)
            resumed = before is not None and not before.gone and before.token == claim.presented
            record = self._record(
                claim, lease_id, built, ever_ready=before is not None and resumed and before.ever_ready
            )
            token = await self._store.admit(record, lambda: self._check(claim))
            now = self._clock.monotonic()
            self._book.grant(key, lease_id=lease_id, token=token, presented=claim.presented, now=now)
            self._evict(key, StaleToken(key, "attached again", shown=token - 1, newest=token))
            attachment = self._attachments[key] = Attachment(key, lease_id, token)
            present = _present_of(replace(record, token=token))
            if (
                before is not None and resumed
            ):  # what it said holds until it says otherwise: a new stream takes nothing away
                present = replace(present, serving=before.serving, conditions=before.conditions)
                present = replace(present, internal_errors=before.internal_errors)
            self._replace_gone(present)
            self._report(present)
        _log.info(
            "instance.attached", instance_key=str(key), address=present.address, fencing_token=token, resumed=resumed
        )
        self._listener.arrived(present, claim)
        self._listener.changed()
        return attachment

    def _record(self, claim: Claim, lease_id: str, built: str, *, ever_ready: bool) -> InstanceRecord:
        return InstanceRecord(
            key=claim.key,
            lease_id=lease_id,
            token=claim.store_token,
            host=claim.host,
            port=claim.port,
            contracts=claim.contracts,
            version=claim.version,
            attached_ns=self._clock.wall_ns(),
            needs=claim.needs,
            pid=claim.pid,
            process_started=start_ticks(claim.pid) if claim.pid is not None else None,
            ever_ready=ever_ready,
            zone=claim.zone,
            priority=claim.priority,
            versions=claim.versions,
            built=built,
        )

    def _check(self, claim: Claim) -> None:
        """Refuses what may not be granted. May be called in the writer thread: each look is at one entry, and no two
        claims of one instance are under way.
        """
        self._book.check_claim(claim.key, presented=claim.presented, now=self._clock.monotonic())
        present = self._present.get(claim.key)
        if present is not None and present.holder and not present.gone and claim.presented is None:
            raise InstanceHeld(claim.key, present.token)

    def _replace_gone(self, present: Present) -> None:
        for key, other in list(self._services.get(present.key.service, {}).items()):
            if other.gone:
                self._drop(key)
        self._set(present)

    def _report(self, present: Present) -> None:
        """Tells the other registries of the mesh what matters to their clients."""
        if present.holder or present.gone or not present.lease_id:
            return
        late, failures = present.silence is Silence.LATE, present.check_failures
        told = InstanceReport(present.says, late, present.leaving, failures, present.conditions)
        self._store.report(present.key, present.token, told)

    # At other registries of the mesh.

    def seen_elsewhere(self, held: HeldElsewhere) -> None:
        """An instance attached at another registry, or is different there: what it held here is over."""
        record, told, key = held.record, held.report, held.record.key
        before = self._present.get(key)
        if before is not None and before.token > record.token:
            return
        self._book.remember_token(key, record.token)
        self._evict(key, StaleToken(key, "attached elsewhere", shown=record.token - 1, newest=record.token))
        self._release(key)
        present = replace(
            _present_of(record),
            holder=held.holder,
            serving=told.serving,
            silence=Silence.LATE if told.late else Silence.LIVE,
            leaving=told.leaving,
            conditions=told.conditions,
            check_failures=told.check_failures,
        )
        if before is None or before.token != record.token or not before.holder:
            if before is not None and not before.holder:
                self._listener.moved(before)
            self._replace_gone(present)
            self._listener.arrived(present, None)
        else:
            self._set(present)
        self._listener.changed()

    def gone_elsewhere(self, key: InstanceKey, token: int, departure: Departure) -> None:
        """An instance left another registry, or one that inherited it from here gave it up."""
        present = self._present.get(key)
        if present is None or present.token != token or present.gone:
            return
        self._evict(key, StaleToken(key, "was given up by another registry", shown=token, newest=token))
        self._release(key)
        present = replace(present, holder=present.holder or "another registry")
        if departure.in_order:
            self._drop(key)
        else:
            self._set(replace(present, silence=Silence.LOST, gone_at=self._clock.monotonic()))
        self._listener.departed(present, departure.in_order, departure.how)
        self._listener.changed()

    def inherit(self, record: InstanceRecord) -> None:
        """The registry of an instance is gone: it stays as it was for the time of a lease, and may come back anywhere."""
        before = self._present.get(record.key)
        self._book.recover(Lease(record.lease_id, record.key, record.token, self._clock.monotonic()))
        present = _present_of(record)
        if before is not None and before.token == record.token:
            present = replace(before, holder="")
        self._set(present)
        self._listener.arrived(present, None)
        self._listener.changed()

    def _release(self, key: InstanceKey) -> None:
        lease = self._book.leases.get(key)
        if lease is not None:
            self._book.release(key, lease.lease_id)

    # Being there.

    def beat(self, attachment: Attachment, beat: Beat) -> int:
        """Takes a heartbeat; returns when the lease ends, ns since the Unix epoch. Raises StaleToken."""
        key, now = attachment.key, self._clock.monotonic()
        self._book.renew(key, attachment.lease_id, attachment.token, now)
        before = self._present[key]
        if beat.internal_errors > before.internal_errors:
            count = beat.internal_errors - before.internal_errors
            self._listener.failed(key.service, f"{count} calls failed by a defect; its log has them")
        serving = Serving.SERVING if beat.serving else Serving.NOT_SERVING
        wall_ns = self._clock.wall_ns()
        counts: dict[str, Any] = {
            "heartbeat_ns": wall_ns,
            "internal_errors": beat.internal_errors,
            "calls_in_flight": beat.calls_in_flight,
        }
        as_before = (serving, beat.conditions, Silence.LIVE) == (before.serving, before.conditions, before.silence)
        if as_before and before.token == attachment.token and not before.gone:
            self._refresh(replace(before, **counts))
        else:
            changes = {"silence": Silence.LIVE, "silent_seconds": 0.0, "serving": serving}
            self.note(key, attachment.token, conditions=beat.conditions, **changes, **counts)
        return wall_ns + int(self._book.time_to_live * 1e9)

    def note(self, key: InstanceKey, token: int, **changes: Any) -> None:
        """Takes in what was found out about an instance; ignored when it was replaced or is gone."""
        before = self._present.get(key)
        if before is None or before.token != token or before.gone or before.holder:
            return
        now = self._clock.monotonic()
        after = replace(before, **changes)
        if after.says is Serving.SERVING:
            after = replace(after, not_serving_at=None)
        elif after.not_serving_at is None:
            after = replace(after, not_serving_at=now)
        self._set(after)
        if (after.facts(now), after.rotation()) != (before.facts(now), before.rotation()) or after.says != before.says:
            self._report(after)
            self._listener.changed()

    def let_in(self, key: InstanceKey, token: int) -> Present | None:
        """Notes that an instance may get calls; None when it was replaced or is gone."""
        present = self._present.get(key)
        if present is None or present.token != token or present.gone:
            return None
        self._set(replace(present, ever_ready=True))
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
        present = replace(self._present[attachment.key], leaving=True, gone_at=self._clock.monotonic())
        self._set(present)
        self._report(present)
        self._listener.changed()

    def detach(self, attachment: Attachment) -> None:
        """The stream of an instance has ended, with a goodbye or without."""
        if self._attachments.get(attachment.key) is not attachment:
            return
        del self._attachments[attachment.key]
        self._book.release(attachment.key, attachment.lease_id)
        if not attachment.said_goodbye:
            self._lose(attachment.key, Silence.LOST, "it lost its connection without saying goodbye")
        self._listener.changed()

    def process_ended(self, service: str, pid: int, how: str) -> None:
        """A process has ended: what it served is gone at once."""
        for present in self.of_service(service):
            if present.pid != pid or present.gone or present.holder:
                continue
            if present.leaving:
                self._leave(present, how)
            else:
                now = self._clock.monotonic()
                self._set(replace(present, exit_text=f"process {pid} {how}", gone_at=now))
                self._listener.departed(present, False, f"process {pid} {how}")
        self._listener.changed()

    def forget_gone(self, service: str) -> None:
        """A new process of a service was started: what became of those before it no longer counts."""
        for present in self.of_service(service):
            if present.gone:
                self._drop(present.key)
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
        self._set(replace(present, silence=silence, silent_seconds=silent, gone_at=now))
        self._listener.departed(present, False, how)

    def _leave(self, present: Present, how: str) -> None:
        self._drop(present.key)
        self._listener.departed(present, True, how)

    # Time.

    def sweep(self) -> float | None:
        """Ends what has run out, and says when to look again on the monotonic clock; None when nothing is due."""
        now = self._clock.monotonic()
        if self._sweep_due is not None and now - self._sweep_due > STALL_SECONDS:
            _log.warning("registry.stalled", seconds=round(now - self._sweep_due, 2))
            self._book.forgive(now)
        moved = False
        for lease in self._book.expire(now):
            moved = True
            silent = now - lease.renewed
            self._lose(lease.key, Silence.EXPIRED, f"its lease ran out after {silent:.1f} s of silence", silent)
            self._evict(
                lease.key, StaleToken(lease.key, "let its lease run out", shown=lease.token, newest=lease.token)
            )
        for lease in self._book.late(now):
            present = self._present.get(lease.key)
            if present is not None and present.silence is Silence.LIVE:
                moved = True
                self._set(replace(present, silence=Silence.LATE, silent_seconds=now - lease.renewed))
                self._report(self._present[lease.key])
        for present in [self._present[key] for key in self._unsettled]:
            if present.gone_at is not None and self._forget_at(present) <= now:
                moved = True
                if present.gone:
                    self._drop(present.key)
                else:
                    self._leave(present, "it said goodbye")
        if moved:
            self._listener.changed()
        self._sweep_due = self._next_due(now)
        return self._sweep_due

    def _next_due(self, now: float) -> float | None:
        unsettled = [self._present[key] for key in self._unsettled]
        dues = [self._forget_at(present) for present in unsettled if present.gone_at is not None]
        dues += [p.not_serving_at + SETTLE_SECONDS for p in unsettled if p.not_serving_at is not None]
        change = self._book.next_change(now)
        return min((due for due in (*dues, change) if due is not None and now < due < float("inf")), default=None)

    def _forget_at(self, present: Present) -> float:
        gone_at = present.gone_at if present.gone_at is not None else float("inf")
        if not present.gone:
            return gone_at + LEAVING_SECONDS
        others = any(p.rotation() is Rotation.IN for p in self._services.get(present.key.service, {}).values())
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
        started_ns=None if record.process_started is None else started_ns(record.process_started),
        ever_ready=record.ever_ready,
        zone=record.zone,
        priority=record.priority,
        versions=record.versions,
        built=record.built,
    )


ArrivalListener = Callable[[Present, bool], None]
"""Told of each instance that comes (True) or goes (False)."""
