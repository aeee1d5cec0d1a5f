"""Decides what is true of the mesh now: derives health, routes and views from services and instances, and tells all readers.

Everything runs on one event loop. Each change ends in `changed`, which derives everything anew from what is known;
nothing else ever changes what is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.registry.attach_limits import AttachLimits, Bounds
from minhos_mesh.registry.attachment import Attachment, Claim
from minhos_mesh.registry.contract_gate import ContractGate
from minhos_mesh.registry.derived import Derived, Routes
from minhos_mesh.registry.domain.contract_gate import ContractShape
from minhos_mesh.registry.domain.directory import (
    ROUTE_GRACE_SECONDS,
    Known,
    Present,
    Rotation,
)
from minhos_mesh.registry.domain.health import (
    Assessment,
    Requirement,
    Serving,
    State,
    may_serve,
)
from minhos_mesh.registry.domain.history import HealthChange, find_changes
from minhos_mesh.registry.domain.leases import InstanceKey, StaleToken
from minhos_mesh.registry.domain.resources import ResourceUse
from minhos_mesh.registry.domain.routes import RouteRule
from minhos_mesh.registry.domain.routing import RoutingView
from minhos_mesh.registry.facts import FactMakers
from minhos_mesh.registry.instances import ArrivalListener, Instances
from minhos_mesh.registry.outbox import Outbox
from minhos_mesh.registry.plan import ServiceSpec
from minhos_mesh.registry.readiness import ReadinessBoard
from minhos_mesh.registry.restart_counts import RestartCounts
from minhos_mesh.registry.shared_contracts import SharedContracts
from minhos_mesh.registry.store import Departure, Desired, InstanceRecord, RegistryStore
from minhos_mesh.registry.strangers import Strangers
from minhos_mesh.registry.turns import Turns
from minhos_mesh.registry.views import ServiceUnknown, ServiceView, view_of
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.tasks import OwnedTasks
from minhos_mesh.runtime.watch import RevisionLog, first_revision

KEPT_ERRORS: Final = 10
"""Errors told of each service."""
LEAVE_SECONDS: Final = 0.5
"""How long an instance that leaves waits for a discovery client that does not answer."""
TAKE_IN_SECONDS: Final = 0.02
"""A client answers a push before it acts on it; calls that it sends in between still arrive."""

DERIVE_PAUSE: Final = 3.0
"""Deriving is followed by a pause so many times as long, should there be more to derive."""
MAX_DERIVE_PAUSE_SECONDS: Final = 0.1

_log = get_logger("registry")


class Registry:
    """Knows which service runs where, how it is, and where its callers go."""

    def __init__(
        self,
        *,
        store: RegistryStore,
        outbox: Outbox,
        clock: Clock,
        contracts: Mapping[str, ContractShape],
        gate: ContractGate,
        specs: Sequence[ServiceSpec],
        facts: FactMakers,
        publish: Callable[[RoutingView], None],
        board: ReadinessBoard,
        tasks: OwnedTasks,
        settled: Callable[[float], Awaitable[bool]],
        lease_seconds: float,
        own_service: str,
        routes: Callable[[], Mapping[str, RouteRule]] = dict,
        bounds: Bounds | None = None,
        shapes: Callable[[ContractSet], Mapping[str, ContractShape]] = lambda _built: {},
    ) -> None:
        """`settled` waits until all discovery clients have taken in what was published, for so many seconds at the
        most. `own_service` is the registry's own name: it runs for as long as anybody can ask. `routes` gives the
        routes that hold, by contract; `shapes` the contracts of a descriptor set.
        """
        self._store, self._outbox, self._clock = store, outbox, clock
        self._settled, self._routes = settled, routes
        self._facts, self._publish, self._board, self._tasks = facts, publish, board, tasks
        self._contracts, self._gate = dict(contracts), gate
        self._shared, self._shapes = SharedContracts(store.documents), shapes
        self._mesh_contracts = frozenset(contracts)
        self._known = {spec.name: Known(spec.name, tuple(sorted(spec.serves)), spec.needs) for spec in specs}
        self._own_service = own_service
        self._known[own_service] = replace(self._known.get(own_service, Known(own_service)), wanted=True)
        self.instances = Instances(store, clock, lease_seconds, self)
        self.limits = AttachLimits(
            clock, [*(spec.name for spec in specs), own_service], self.instances, bounds or Bounds()
        )
        self._configured = {spec.name: tuple(n for n in spec.needs if n.provider is not None) for spec in specs}
        self._strangers = Strangers(self.instances.of_service, self.is_planned)
        self.turns = Turns(self.instances.of_service, board)
        self._assessed: Mapping[str, Assessment] = {}
        self._since: dict[str, int] = {}
        self._errors: dict[str, deque[str]] = {}
        self._letting_in: set[tuple[InstanceKey, int]] = set()
        self._derived = Derived(self.instances.of_service)
        self._routes_told = Routes()
        self._views: dict[str, ServiceView] = {}
        self._wake = asyncio.Event()
        self._stale, self._derive_from = False, 0.0
        self.edition = 0
        """Grows with everything that may change what is told, heartbeats and measurements left aside."""
        self._arrival_listeners: list[ArrivalListener] = []
        self._restarts = RestartCounts(store, tasks.start, own_service)
        self.uses: Mapping[int, ResourceUse] = {}
        """What processes use, by process id; whoever looks at them puts its own view here."""
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

    @property
    def own_service(self) -> str:
        """Name of the service that this is."""
        return self._own_service

    def is_planned(self, service: str) -> bool:
        """Whether the configuration asks for a service, so that it is told of also while nothing of it runs."""
        return service in self._configured or service == self._own_service

    def on_arrival(self, listener: ArrivalListener) -> None:
        """Calls `listener` with each instance that comes (True) or goes (False)."""
        self._arrival_listeners.append(listener)

    async def list_changes(
        self,
        service: str | None,
        *,
        since_ns: int | None,
        until_ns: int | None,
        before_revision: int | None,
        limit: int,
    ) -> tuple[HealthChange, ...]:
        """Changes of health of one service or of all, the newest first, from one time until before another. Raises ServiceUnknown."""
        if service is not None:
            self.view(service)
        return await self._store.list_changes(
            service=service, since_ns=since_ns, until_ns=until_ns, before_revision=before_revision, limit=limit
        )

    # Living.

    async def recover(self, still_there: Callable[[InstanceRecord], Awaitable[bool]]) -> None:
        """Takes back what an earlier life left, without the instances whose process is certainly gone.

        Nothing is told yet: that begins with `add_unleased`, so that a restart is no change of anybody's health.
        """
        self._derive_from = float("inf")
        state = await self._store.load()
        here = {held.key.service for held in (*state.instances, *(held.record for held in state.elsewhere))}
        for service in state.services:
            planned = self.is_planned(service.service)
            if not planned and service.service not in here:
                await self._store.forget_service(service.service)  # nothing of it is left, and nothing could start it
                continue
            known = self._known.get(service.service, Known(service.service))
            if not known.contracts:
                known = replace(known, contracts=service.contracts, needs=service.needs)
            wanted = None if service.desired is None or not planned else service.desired is Desired.RUNNING
            self._known[service.service] = replace(known, wanted=wanted)
        for key, token in state.tokens:
            self.instances.remember_token(key, token)
        first = max(self.health.newest, *(change.revision for change in state.latest), 0)
        self.health = RevisionLog(first)
        self._assessed = {change.service: change.after for change in state.latest}
        self._since = {change.service: change.time_ns for change in state.latest}
        own, counts = self._own_service, await self._store.restarts()
        self._known[own] = replace(self._known[own], restarts=self._restarts.take_back(counts))
        there = await asyncio.gather(*(still_there(record) for record in state.instances))
        for record, alive in zip(state.instances, there, strict=True):
            if alive:
                self.instances.take_back(record)
            else:
                _log.warning("instance.gone_meanwhile", instance_key=str(record.key))
                await self._store.remove(record.key, record.token)
                self._strangers.departed(record.key.service, self._clock.monotonic(), in_order=True)
        for held in state.elsewhere:
            self.instances.seen_elsewhere(held)
        if not state.members:
            await self._shared.forget_but({present.built for present in self.instances.present.values()})
        self._derive_from = 0.0

    def add_unleased(self, present: Present) -> None:
        """Adds an instance that needs no lease, the registry's own or a process that is only watched; tells from now on."""
        self.instances.add_unleased(present)
        started = self._facts.started(present, self._clock.wall_ns())
        self._tasks.start(self._outbox.add([started]), "registry-started")

    async def attach(self, claim: Claim) -> Attachment:
        """Admits an instance, one that must own its service alone when the one before it has let go. Raises ContractViolation, NoRoomForDescriptors, InstanceHeld or StaleToken."""
        if claim.key.service not in self._known and (old := self.limits.to_forget(self._known)) is not None:
            self._forget_service(old)
        with self.limits.entering(claim.key, self._known):
            self._gate.check(claim)
            async with self.turns.turn(claim):
                self._gate.check(claim)  # who waited for its turn meets dependents that came meanwhile
                attachment = await self.instances.attach(claim, await self._shared.share(claim.built))
        self._gate.joined(claim)
        if ahead := self._gate.ahead_of(claim.key):
            what, served = ahead[0].violation, ", ".join(ahead[0].consumers)
            self.failed(claim.key.service, f"{claim.key.instance_id} was built with more than {served} serves: {what}")
            _log.warning("instance.ahead", instance_key=str(claim.key), differences=len(ahead), first=str(what))
            self.changed()
        return attachment

    def _forget_service(self, service: str) -> None:
        """A service that nobody planned and that is not there any more is told of no longer."""
        _log.info("service.forgotten", target=service)
        self.instances.forget_gone(service)
        self._assessed = {name: told for name, told in self._assessed.items() if name != service}
        for held in (self._known, self._views, self._errors, self._since):
            held.pop(service, None)
        self._forget_contracts()
        self._tasks.start(self._store.forget_service(service), "registry-forget")

    def _forget_contracts(self) -> None:
        """Contracts that only strangers served, who serve them no more, are known no more."""
        served = {name for known in self._known.values() for name in known.contracts} | self._mesh_contracts
        self._contracts = {name: shape for name, shape in self._contracts.items() if name in served}

    async def leave(self, attachment: Attachment, reason: str) -> None:
        """An instance leaves in order. Returns when its callers know, so that it can stop serving without losing a call."""
        self.instances.goodbye(attachment, reason)
        self._gate.left(attachment.key)
        if self._stale:
            self._derive()
        if not await self._settled(LEAVE_SECONDS):
            _log.warning("leaving.not_known_everywhere", instance_key=str(attachment.key))
        await asyncio.sleep(TAKE_IN_SECONDS)

    def note_service(self, service: str, *, anew: bool = False, **changes: Any) -> None:
        """Takes in what the supervisor knows of a service; `anew` when somebody stops or restarts it on purpose."""
        before = self._known.get(service, Known(service))
        if "needs" in changes:
            changes["needs"] = (*self._configured.get(service, ()), *changes["needs"])
        if "restarts" in changes:
            changes["restarts"] = self._restarts.total(service, changes["restarts"], anew=anew)
        after = replace(before, **changes)
        if after == before:
            return
        if after.trouble is not None and after.trouble != before.trouble:
            self.failed(service, after.trouble.text)
        self._known[service] = after
        self.changed()

    async def keep_time(self) -> None:
        """Ends leases that run out, for as long as the registry lives."""
        due: float | None = self._clock.monotonic()
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            swept = self.instances.sweep()
            if (due is not None and now >= due) or (self._stale and now >= self._derive_from):
                self._derive()
            for service in self._strangers.take_due(now) if not self._stale else ():
                self._forget_service(service)
            stale = self._derive_from if self._stale else None
            forget = None if self._stale else self._strangers.next_due()
            dues = [due for due in (swept, stale, forget, *self._route_dues()) if due is not None]
            due = min(dues, default=None)
            waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
            if due is not None:
                waiting.append(asyncio.ensure_future(self._clock.sleep_until(due)))
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for future in waiting:
                    future.cancel()

    async def end_in_order(self) -> None:
        """Notes on disk that this life ends because it was asked to."""
        await self._restarts.end_in_order()

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
            needs = (*self._configured.get(service, ()), *claim.needs)
            self._known[service] = replace(known, contracts=claim.contracts, needs=needs, lost_at=None)
            new = {name: shape for name, shape in claim.offered.items() if name in claim.contracts}
            self._contracts = {**new, **self._contracts}
            if not set(known.contracts) <= set(claim.contracts):
                self._forget_contracts()
        elif not known.contracts:
            self._known[service] = replace(known, contracts=present.contracts)
        for listener in self._arrival_listeners if not present.holder else ():
            listener(present, True)
        if claim is None and present.built:
            self._tasks.start(self._learn(present), "registry-learn")

    async def _learn(self, present: Present) -> None:
        """Finds out what an instance was built with that said so to another registry, or in an earlier life of this one."""
        built = await self._shared.read(present.built)
        now = self.instances.present.get(present.key)
        if built is None or now is None or now.token != present.token or now.gone:
            return
        self._gate.knows(present.key, present.contracts, self._known[present.key.service].needs, built)
        missing = {name: shape for name, shape in self._shapes(built).items() if name in present.contracts}
        if not missing.keys() <= self._contracts.keys():
            self._contracts = {**missing, **self._contracts}
            self.changed()

    def moved(self, present: Present) -> None:
        """An instance is at another registry of the mesh from now on, which looks at it."""
        _log.info("instance.moved", instance_key=str(present.key))
        for listener in self._arrival_listeners:
            listener(present, False)

    def departed(self, present: Present, in_order: bool, how: str) -> None:
        """An instance is gone."""
        key = present.key
        self._gate.left(key)
        _log.info("instance.gone", instance_key=str(key), in_order=in_order, how=how)
        if not in_order:
            self.failed(key.service, f"{key.instance_id}: {how}")
            self._known[key.service] = replace(self._known[key.service], lost_at=self._clock.monotonic())
        self._strangers.departed(key.service, self._clock.monotonic(), in_order=in_order)
        for listener in self._arrival_listeners:
            listener(present, False)
        if not present.holder:
            self._tasks.start(self._forget(present, in_order, how), "registry-forget")

    def failed(self, service: str, text: str) -> None:
        """Something went wrong that a person should be able to see."""
        when = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._errors.setdefault(service, deque(maxlen=KEPT_ERRORS)).appendleft(f"{when} UTC: {text}")

    def changed(self, *, at_once: bool = False) -> None:
        """Derives everything anew, and looks at the clock again.

        While much changes at once, deriving takes at most a share of the time: what changes meanwhile is derived together,
        unless it is wanted at once.
        """
        self._stale = True
        self.edition += 1
        if at_once or self._clock.monotonic() >= self._derive_from:
            self._derive()
        self._wake.set()

    async def _forget(self, present: Present, in_order: bool, how: str) -> None:
        await self._store.remove(present.key, present.token, Departure(in_order, how))
        if present.ever_ready:
            await self._outbox.add([self._facts.stopped(present, in_order, how, self._clock.wall_ns())])

    # Deriving.

    def _derive(self) -> None:
        now = self._clock.monotonic()
        self._stale = False
        looked = self._derived.look(self._known, self.instances.take_touched(now), now)
        needs, assessed = self._derived.needs, self._derived.assess()
        states = {name: assessment.state for name, assessment in assessed.items()}
        self._note_changes(assessed)
        self._let_in(needs, states)
        self._update_views(looked, needs, states)
        routing = self._routes_told.look(self._derived, self._contracts, self._known, self._routes(), now)
        if routing is not None:
            self._publish(routing)
        self.turns.look()
        for name in looked:
            self._board.serving_are(name, self._derived.serving.get(name, frozenset()))
        end = self._clock.monotonic()
        self._derive_from = end + min((end - now) * DERIVE_PAUSE, MAX_DERIVE_PAUSE_SECONDS)

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
            self._tasks.start(self._store.append_changes(changes, facts), "registry-history")

    def _let_in(self, needs: Mapping[str, tuple[Requirement, ...]], states: Mapping[str, State]) -> None:
        """Instances that serve for the first time get calls once what they require serves and that is on disk."""
        for present in self.instances.new_ones():
            key = present.key
            if present.gone or present.leaving or present.holder or present.says is not Serving.SERVING:
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
        looked: set[str],
        needs: Mapping[str, tuple[Requirement, ...]],
        states: Mapping[str, State],
    ) -> None:
        views: dict[str, ServiceView] = {}
        for name, known in sorted(self._known.items()):
            errors, since = tuple(self._errors.get(name, ())), self._since.get(name)
            there, assessment = self._derived.instances[name], self._assessed[name]
            before = self._views.get(name)
            if (
                before is not None
                and name not in looked
                and before.same(assessment, needs.get(name, ()), states, errors)
            ):
                views[name] = before
                continue
            view = view_of(known, there, assessment, needs.get(name, ()), states, errors, since)
            views[name] = view
            if before is None or before.visible() != view.visible():
                self.changes.append(view)
        self._views = views

    def _fresh(self, view: ServiceView) -> ServiceView:
        """The view with the newest heartbeats and measurements, which are no changes of their own."""
        instances = self.instances.of_service(view.known.name)
        return replace(view, instances=instances, uses=self.uses, now=self._clock.monotonic())

    def _all_contracts(self) -> set[str]:
        return {*self._contracts, *(c for known in self._known.values() for c in known.contracts)}

    def _route_dues(self) -> list[float]:
        now = self._clock.monotonic()
        dues = [known.lost_at + ROUTE_GRACE_SECONDS for known in self._known.values() if known.lost_at is not None]
        return [due for due in dues if due > now]
