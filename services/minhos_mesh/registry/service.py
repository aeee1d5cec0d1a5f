"""Decides what is true of the mesh now: derives health, routes and views from services and instances, and tells all readers.

Everything runs on one event loop. Each change ends in `changed`, which derives everything anew from what is known;
nothing else ever changes what is told.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from minhos_mesh.registry.attachment import Attachment, Claim
from minhos_mesh.registry.domain.contract_gate import ContractShape, check_offer
from minhos_mesh.registry.domain.directory import (
    ROUTE_GRACE_SECONDS,
    Known,
    Present,
    Rotation,
    requirements,
    service_facts,
)
from minhos_mesh.registry.domain.health import (
    Assessment,
    Requirement,
    Serving,
    State,
    assess_mesh,
    may_serve,
)
from minhos_mesh.registry.domain.history import HealthChange, find_changes
from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.domain.routing import RoutingView, routing_view
from minhos_mesh.registry.instances import ArrivalListener, Instances
from minhos_mesh.registry.outbox import Fact, Outbox, add_facts
from minhos_mesh.registry.plan import ServiceSpec
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.store import Desired, InstanceRecord, RegistryStore
from minhos_mesh.registry.views import ServiceView, view_of
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.runtime.watch import RevisionLog, first_revision

KEPT_ERRORS: Final = 10
"""Errors told of each service."""
LEAVE_SECONDS: Final = 0.5
"""How long an instance that leaves waits for a discovery client that does not answer."""
TAKE_IN_SECONDS: Final = 0.02
"""A client answers a push before it acts on it; calls that it sends in between still arrive."""

_log = get_logger("registry")


class ServiceUnknown(LookupError):
    """Expected: neither a service nor a contract has this name."""

    def __init__(self, service: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(service, known, n=1)
        self.service = service
        self.nearest = near[0] if near else None
        self.known = ", ".join(sorted(set(known)))
        hint = f"; was {near[0]} meant?" if near else ""
        super().__init__(f"there is no service {service!r}{hint}; known: {self.known}")


@dataclass(frozen=True, slots=True)
class FactMakers:
    """How facts are put into messages; given from outside, since this module knows no messages."""

    health: Callable[[HealthChange], Sequence[Fact]]
    started: Callable[[Present, int], Fact]
    stopped: Callable[[Present, bool, str, int], Fact]


class Registry:
    """Knows which service runs where, how it is, and where its callers go."""

    def __init__(
        self,
        *,
        store: RegistryStore,
        outbox: Outbox,
        clock: Clock,
        contracts: Mapping[str, ContractShape],
        specs: Sequence[ServiceSpec],
        facts: FactMakers,
        publish: Callable[[RoutingView], None],
        board: ReadinessBoard,
        tasks: OwnedTasks,
        settled: Callable[[float], Awaitable[bool]],
        lease_seconds: float,
        own_service: str,
    ) -> None:
        """`settled` waits until all discovery clients have taken in what was published, for so many seconds at the
        most. `own_service` is the registry's own name: it runs for as long as anybody can ask.
        """
        self._store, self._outbox, self._clock = store, outbox, clock
        self._settled = settled
        self._facts, self._publish, self._board, self._tasks = facts, publish, board, tasks
        self._contracts = dict(contracts)
        self._known = {spec.name: Known(spec.name, tuple(sorted(spec.serves)), spec.needs) for spec in specs}
        self._known[own_service] = replace(self._known.get(own_service, Known(own_service)), wanted=True)
        self.instances = Instances(store, clock, lease_seconds, self)
        self._assessed: Mapping[str, Assessment] = {}
        self._since: dict[str, int] = {}
        self._errors: dict[str, deque[str]] = {}
        self._letting_in: set[tuple[InstanceKey, int]] = set()
        self._routing: RoutingView | None = None
        self._views: dict[str, ServiceView] = {}
        self._wake = asyncio.Event()
        self._arrival_listeners: list[ArrivalListener] = []
        self.changes: RevisionLog[ServiceView] = RevisionLog(first_revision(clock))
        self.health: RevisionLog[HealthChange] = RevisionLog(first_revision(clock))

    # Reading.

    def views(self) -> Mapping[str, ServiceView]:
        """All services by name, in alphabetical order."""
        return {name: self._fresh(view) for name, view in self._views.items()}

    def view(self, service: str) -> ServiceView:
        """One service. Raises ServiceUnknown."""
        if service not in self._views:
            raise ServiceUnknown(service, list(self._views))
        return self._fresh(self._views[service])

    def resolve(self, name: str) -> tuple[Present, ...]:
        """The instances of a contract or service, those in rotation first. Raises ServiceUnknown.

        `name` is the full or the short name of a contract, or the name of a service.
        """
        contracts = {c for c in self._all_contracts() if name in (c, c.rpartition(".")[2])}
        if not contracts and name not in self._known:
            raise ServiceUnknown(name, [*self._known, *(c.rpartition(".")[2] for c in self._all_contracts())])
        found = [
            p
            for p in self.instances.present.values()
            if not p.gone and (p.key.service == name or not contracts.isdisjoint(p.contracts))
        ]
        return tuple(sorted(found, key=lambda p: (p.rotation() is not Rotation.IN, p.key)))

    def contracts(self) -> Mapping[str, ContractShape]:
        """All contracts that are known, as the mesh understands them."""
        return self._contracts

    def on_arrival(self, listener: ArrivalListener) -> None:
        """Calls `listener` with each instance that comes (True) or goes (False)."""
        self._arrival_listeners.append(listener)

    async def list_changes(
        self, service: str | None, since_ns: int | None, before_revision: int | None, limit: int
    ) -> tuple[HealthChange, ...]:
        """Changes of health, the newest first. Raises ServiceUnknown."""
        if service is not None:
            self.view(service)
        return await self._store.list_changes(
            service=service, since_ns=since_ns, before_revision=before_revision, limit=limit
        )

    # Living.

    async def recover(self, still_there: Callable[[InstanceRecord], Awaitable[bool]]) -> None:
        """Takes back what an earlier life left, without the instances whose process is certainly gone.

        Nothing is told yet: that begins with `add_self`, so that a restart is no change of anybody's health.
        """
        state = await self._store.load()
        for service in state.services:
            known = self._known.get(service.service, Known(service.service))
            if not known.contracts:
                known = replace(known, contracts=service.contracts, needs=service.needs)
            wanted = None if service.desired is None else service.desired is Desired.RUNNING
            self._known[service.service] = replace(known, wanted=wanted)
        for key, token in state.tokens:
            self.instances.remember_token(key, token)
        first = max(self.health.newest, *(change.revision for change in state.latest), 0)
        self.health = RevisionLog(first)
        self._assessed = {change.service: change.after for change in state.latest}
        self._since = {change.service: change.time_ns for change in state.latest}
        there = await asyncio.gather(*(still_there(record) for record in state.instances))
        for record, alive in zip(state.instances, there, strict=True):
            if alive:
                self.instances.take_back(record)
            else:
                _log.warning("instance.gone_meanwhile", instance_key=str(record.key))
                await self._store.remove(record.key, record.token)

    def add_self(self, present: Present) -> None:
        """Adds the registry's own instance, and tells from now on what is known."""
        self.instances.add_unleased(present)
        started = self._facts.started(present, self._clock.wall_ns())
        self._tasks.start(self._outbox.add([started]), "registry-started")

    async def attach(self, claim: Claim) -> Attachment:
        """Admits an instance. Raises ContractViolation, InstanceHeld or StaleToken."""
        check_offer(self._contracts, claim.offered, claim.contracts)
        return await self.instances.attach(claim)

    async def leave(self, attachment: Attachment, reason: str) -> None:
        """An instance leaves in order. Returns when its callers know, so that it can stop serving without losing a call."""
        self.instances.goodbye(attachment, reason)
        if not await self._settled(LEAVE_SECONDS):
            _log.warning("leaving.not_known_everywhere", instance_key=str(attachment.key))
        await asyncio.sleep(TAKE_IN_SECONDS)

    def note_service(self, service: str, **changes: Any) -> None:
        """Takes in what the supervisor knows of a service."""
        before = self._known.get(service, Known(service))
        after = replace(before, **changes)
        if after == before:
            return
        if after.trouble is not None and after.trouble != before.trouble:
            self.failed(service, after.trouble.text)
        self._known[service] = after
        self.changed()

    async def keep_time(self) -> None:
        """Ends leases that run out, for as long as the registry lives."""
        while True:
            self._wake.clear()
            due = self.instances.sweep()
            self._derive()
            dues = [due for due in (due, *self._route_dues()) if due is not None]
            waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
            if dues:
                waiting.append(asyncio.ensure_future(self._clock.sleep_until(min(dues))))
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for future in waiting:
                    future.cancel()

    def close(self) -> None:
        """Ends all readers and streams."""
        self.changes.close()
        self.health.close()
        self.instances.end_all()

    # What instances tell; see instances.Listener.

    def arrived(self, present: Present, claim: Claim | None) -> None:
        """An instance is there."""
        service = present.key.service
        known = self._known.get(service, Known(service))
        if claim is not None:
            self._known[service] = replace(known, contracts=claim.contracts, needs=claim.needs, lost_at=None)
            new = {name: shape for name, shape in claim.offered.items() if name in claim.contracts}
            self._contracts = {**new, **self._contracts}
        elif not known.contracts:
            self._known[service] = replace(known, contracts=present.contracts)
        for listener in self._arrival_listeners:
            listener(present, True)

    def departed(self, present: Present, in_order: bool, how: str) -> None:
        """An instance is gone."""
        key = present.key
        _log.info("instance.gone", instance_key=str(key), in_order=in_order, how=how)
        if not in_order:
            self.failed(key.service, f"{key.instance_id}: {how}")
            self._known[key.service] = replace(self._known[key.service], lost_at=self._clock.monotonic())
        for listener in self._arrival_listeners:
            listener(present, False)
        self._tasks.start(self._forget(present, in_order, how), "registry-forget")

    def failed(self, service: str, text: str) -> None:
        """Something went wrong that a person should be able to see."""
        when = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._errors.setdefault(service, deque(maxlen=KEPT_ERRORS)).appendleft(f"{when} UTC: {text}")

    def changed(self) -> None:
        """Derives everything anew, and looks at the clock again."""
        self._derive()
        self._wake.set()

    async def _forget(self, present: Present, in_order: bool, how: str) -> None:
        await self._store.remove(present.key, present.token)
        if present.ever_ready:
            await self._outbox.add([self._facts.stopped(present, in_order, how, self._clock.wall_ns())])

    # Deriving.

    def _derive(self) -> None:
        now = self._clock.monotonic()
        present = self.instances.present
        needs = requirements(self._known)
        by_service = {name: self.instances.of_service(name) for name in self._known}
        facts = {name: service_facts(known, by_service[name], now) for name, known in self._known.items()}
        assessed = assess_mesh(facts, needs)
        states = {name: assessment.state for name, assessment in assessed.items()}
        self._note_changes(assessed)
        self._let_in(needs, states)
        self._update_views(by_service, needs, states)
        routing = routing_view(self._contracts, list(self._known.values()), present.values(), now)
        if routing != self._routing:
            self._routing = routing
            self._publish(routing)
        self._board.replace({key for key, p in present.items() if p.rotation() is Rotation.IN})

    def _note_changes(self, assessed: Mapping[str, Assessment]) -> None:
        changes = find_changes(self._assessed, assessed, revision=self.health.newest, time_ns=self._clock.wall_ns())
        self._assessed = {**self._assessed, **assessed}
        for change in changes:
            self.health.append(change)
            if change.before is not change.after.state:
                self._since[change.service] = change.time_ns
            worse = change.after.state in (State.UNHEALTHY, State.DEGRADED)
            reasons = [reason.text for reason in change.after.reasons]
            states = {"before": change.before.value, "after": change.after.state.value}
            (_log.warning if worse else _log.info)("health.changed", target=change.service, reasons=reasons, **states)
        if changes:
            facts = [fact for change in changes for fact in self._facts.health(change)]
            self._tasks.start(self._store.append_changes(changes, _adding(facts)), "registry-history")

    def _let_in(self, needs: Mapping[str, tuple[Requirement, ...]], states: Mapping[str, State]) -> None:
        """Instances that serve for the first time get calls once what they require serves and that is on disk."""
        for key, present in self.instances.present.items():
            if present.ever_ready or present.gone or present.leaving or present.says is not Serving.SERVING:
                continue
            if (key, present.token) in self._letting_in or not may_serve(needs.get(key.service, ()), states):
                continue
            self._letting_in.add((key, present.token))
            self._tasks.start(self._admit(key, present.token), "registry-let-in")

    async def _admit(self, key: InstanceKey, token: int) -> None:
        try:
            await self._store.mark_ready(key, token)
        except StaleToken:
            return  # it was replaced or left meanwhile; its successor is let in by itself
        finally:
            self._letting_in.discard((key, token))
        present = self.instances.let_in(key, token)
        if present is not None:
            self.changed()
            await self._outbox.add([self._facts.started(present, self._clock.wall_ns())])

    def _update_views(
        self,
        by_service: Mapping[str, tuple[Present, ...]],
        needs: Mapping[str, tuple[Requirement, ...]],
        states: Mapping[str, State],
    ) -> None:
        views: dict[str, ServiceView] = {}
        for name, known in sorted(self._known.items()):
            errors, since = tuple(self._errors.get(name, ())), self._since.get(name)
            view = view_of(known, by_service[name], self._assessed[name], needs.get(name, ()), states, errors, since)
            views[name] = view
            before = self._views.get(name)
            if before is None or before.visible() != view.visible():
                self.changes.append(view)
        self._views = views

    def _fresh(self, view: ServiceView) -> ServiceView:
        """The view with the newest heartbeats and measurements, which are no changes of their own."""
        return replace(view, instances=self.instances.of_service(view.known.name))

    def _all_contracts(self) -> set[str]:
        return {*self._contracts, *(c for known in self._known.values() for c in known.contracts)}

    def _route_dues(self) -> list[float]:
        now = self._clock.monotonic()
        dues = [known.lost_at + ROUTE_GRACE_SECONDS for known in self._known.values() if known.lost_at is not None]
        return [due for due in dues if due > now]


def _adding(facts: Sequence[Fact]) -> Callable[[Connection], None]:
    return lambda connection: add_facts(connection, facts)
