"""How the mesh is brought up, kept up and taken down: every service in the order of the plan, through the keeper.

Each instance of a service has one task that does what `domain.supervision` says next. Calls change what is wanted and then
only watch, so that a caller who goes away changes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from minhos_mesh.registry.domain import supervision
from minhos_mesh.registry.domain.supervision import Act, Next, Phase, SupervisionPolicy, Unit
from minhos_mesh.registry.plan import Plan
from minhos_mesh.registry.supervision_admission import Admission
from minhos_mesh.registry.supervision_gates import Gates
from minhos_mesh.registry.supervision_ports import (
    Launch,
    Launches,
    Logs,
    NotReplaceable,
    Processes,
    Progress,
    Readiness,
    Wishes,
)
from minhos_mesh.registry.supervision_table import UnitTable
from minhos_mesh.registry.supervision_watch import UNSEEN, describe, watch_start, watch_stop
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.keeper_client import KeeperError, KeeperRefused
from minhos_mesh.runtime.keeper_protocol import ProcessExit, ProcessInfo, SpawnRequest
from minhos_mesh.runtime.log import get_logger

_FOLLOWER: Final = "supervisor"
_RETRY_S: Final = 1.0

_log = get_logger("registry.supervisor")


class Supervisor:
    """Keeps the services of one mesh as they are wanted. Use as `async with Supervisor(...)`.

    Entering takes over what already runs and starts what is wanted and does not; leaving ends no process.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        processes: Processes,
        readiness: Readiness,
        wishes: Wishes,
        logs: Logs,
        clock: Clock,
        policy: SupervisionPolicy | None = None,
        policies: Mapping[str, SupervisionPolicy] | None = None,
        instances: Mapping[str, int] | None = None,
        launches: Launches = lambda _service, _instance_id: Launch(),
        external: Collection[str] = ("registry",),
        attached: Callable[[str], bool] = lambda _service: False,
        new_id: Callable[[str], str] = lambda place: f"{place}-{secrets.token_hex(4)}",
        on_change: Callable[[Unit], None] = lambda unit: None,
    ) -> None:
        """Services in `external` belong to the plan and are not started here; they count as serving.

        `policies` and `instances` name the services that differ from `policy` and from one instance. `on_change` is
        called on the event loop with every new state of a unit.
        """
        self._plan, self._processes, self._readiness = plan, processes, readiness
        self._wishes, self._logs, self._clock = wishes, logs, clock
        self._default = policy or SupervisionPolicy()
        self._policies = dict(policies or {})
        self._launches, self._new_id = launches, new_id
        self._external = frozenset(external)
        counts = instances or {}
        units = [
            Unit(name, slot, counts.get(name, 1))
            for name in plan.services
            if name not in self._external
            for slot in range(1, counts.get(name, 1) + 1)
        ]
        self._table = UnitTable(units, clock, on_change)
        self._services = frozenset(unit.service for unit in units)
        self._admission = Admission(plan, self._external, processes, attached)
        self._gates = Gates(plan, self._external, readiness, self._table.all)
        self._deadlines: dict[str, float] = {}
        self._spawning: set[str] = set()
        self._early: dict[str, ProcessExit] = {}
        self._reconciled = False
        self._wished: dict[str, bool] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._wished = dict(await self._wishes.load())
        with suppress(KeeperError):
            await self._reconcile()
        for unit in self.units():
            if self._wished.get(unit.service):
                self._put(supervision.want(unit, waits_for=self._gates.waits_for(unit.service)))
        self._unsubscribe = self._readiness.subscribe(self._table.wake_all)
        self._tasks = [asyncio.create_task(self._follow(), name="supervisor-follow")]
        self._tasks += [asyncio.create_task(self._drive(name), name=f"supervise-{name}") for name in self._table.all]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What may be asked.

    @property
    def plan(self) -> Plan:
        """The order that is followed."""
        return self._plan

    def units(self) -> tuple[Unit, ...]:
        """All supervised processes in the order of their start."""
        return tuple(self._table.all.values())

    def unit(self, service: str) -> Unit:
        """The first instance of a supervised service. Raises plan.UnknownService or NotSupervised."""
        self._admission.check(service)
        return self._table[service]

    def policy_of(self, service: str) -> SupervisionPolicy:
        """How a service is supervised."""
        return self._policies.get(service, self._default)

    def instances_with_process(self, service: str) -> frozenset[str]:
        """The instances of a service whose process runs, as far as is known; those that are to replace one, too."""
        found = [unit.instance_ids for unit in self.units() if unit.service == service]
        return frozenset[str]().union(*found)

    async def start_all(self, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Starts everything; each service once all it requires serves. Ends when all serve.

        `ready_deadline` is the time in seconds that each start may take. Raises StartFailed after the last progress.
        """
        async for progress in self._start(self._services, ready_deadline):
            yield progress

    async def start(self, service: str, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Starts one service and what it requires. Raises as `Admission.admit`, and StartFailed."""
        await self._admission.admit(service)
        async for progress in self._start(self._plan.with_required(service) - self._external, ready_deadline):
            yield progress

    async def restart(self, service: str, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Puts new processes in the place of those of one service; nothing else is touched. Raises as `start`,
        and NotReplaceable when what serves now would be followed by nothing that can serve.

        What happens in between is up to its policy: where a process can be replaced without a failed call, it is.
        """
        await self._admission.admit(service)
        if self._readiness.is_serving(service) and (awaited := self._gates.awaited(service)):
            raise NotReplaceable(service, awaited)
        await self._wish({service: True})
        self._set_deadlines({service}, ready_deadline)
        policy, names = self.policy_of(service), self._table.of({service})
        for name in names:
            self._put(supervision.renew(self._table[name], policy, waits_for=self._gates.waits_for(service)))
        limit = self._limit({service}, ready_deadline, levels=2) + policy.stop_deadline
        with self._table.watching(names, (), self._gates.obstacle) as watch:
            async for progress in watch_start(watch, limit):
                yield progress

    async def stop(self, service: str) -> AsyncIterator[Progress]:
        """Stops one service and keeps it stopped; its dependents stay. Raises as `Admission.admit`, and StopFailed."""
        await self._admission.admit(service)
        async for progress in self._stop(frozenset({service})):
            yield progress

    async def stop_all(self) -> AsyncIterator[Progress]:
        """Stops everything, dependents before what they need; nothing is restarted afterwards. Raises StopFailed."""
        async for progress in self._stop(self._services):
            yield progress

    def condemn(self, name: str, reason: str) -> None:
        """Kills the process of a unit that does not react any more, so that it is started again."""
        unit = self._table[name]
        if unit.has_process and unit.wanted:
            self._put(supervision.condemned(unit, reason, self._clock.monotonic()))

    # How calls are carried out.

    async def _start(self, services: frozenset[str], ready_deadline: float | None) -> AsyncIterator[Progress]:
        await self._wish(dict.fromkeys(services, True))
        self._set_deadlines(services, ready_deadline)
        names = self._table.of(services)
        already = [name for name in names if self._table[name].phase is Phase.SERVING and self._table[name].wanted]
        for name in names:
            self._begin(self._table[name])
        limit = self._limit(services, ready_deadline, levels=len(self._plan.levels))
        with self._table.watching(names, already, self._gates.obstacle) as watch:
            async for progress in watch_start(watch, limit):
                yield progress

    def _begin(self, unit: Unit) -> None:
        unit = supervision.want(unit, waits_for=self._gates.waits_for(unit.service))
        if unit.phase is Phase.NOT_READY and unit.pid is not None and unit.instance_id is not None:
            unit = self._spawned(unit, unit.instance_id, unit.pid)
        self._put(unit)

    async def _stop(self, services: frozenset[str]) -> AsyncIterator[Progress]:
        await self._wish(dict.fromkeys(services, False))
        names = self._table.of(services)
        already = [name for name in names if self._table[name].phase is Phase.STOPPED]
        for name in names:
            self._put(supervision.unwant(self._table[name]))
        policies = [self.policy_of(service) for service in services] or [self._default]
        one = max(policy.stop_deadline + 3 * policy.kill_again_after for policy in policies)
        with self._table.watching(names, already, self._gates.obstacle) as watch:
            async for progress in watch_stop(watch, one * len(self._plan.levels)):
                yield progress

    async def _wish(self, wished: Mapping[str, bool]) -> None:
        await self._wishes.keep(wished)
        self._wished.update(wished)

    def _set_deadlines(self, services: Collection[str], ready_deadline: float | None) -> None:
        for name in services:
            self._deadlines[name] = self.policy_of(name).ready_deadline if ready_deadline is None else ready_deadline

    def _limit(self, services: Collection[str], ready_deadline: float | None, *, levels: int) -> float:
        """After so many seconds a start is given up even if nobody has failed."""
        longest = max((self.policy_of(name).ready_deadline for name in services), default=0.0)
        return (longest if ready_deadline is None else ready_deadline) * (levels + 1)

    # One task for each unit.

    async def _drive(self, name: str) -> None:
        while True:
            try:
                await self._turn(name, self._table.wake(name))
            except Exception:  # noqa: BLE001 - a service must not lose its supervision to a bug: it is said, and tried again
                _log.exception("supervision_failed", target=name)
                await self._clock.sleep_until(self._clock.monotonic() + _RETRY_S)

    async def _turn(self, name: str, wake: asyncio.Event) -> None:
        wake.clear()
        await self._notice(name)
        unit = self._table[name]
        step = supervision.next_step(
            unit,
            may_start=self._gates.may_start(unit.service),
            may_stop=self._gates.may_stop(unit.service),
            now=self._clock.monotonic(),
        )
        match step.act:
            case None:
                await self._pause(wake, self._look_again(unit, step.until))
            case Act.SPAWN:
                await self._spawn(name)
            case Act.SPAWN_NEXT:
                await self._spawn_next(name)
            case Act.KILL_NEXT:
                await self._end_next(name)
            case Act.TERMINATE | Act.KILL:
                await self._end(name, step.act)

    def _look_again(self, unit: Unit, until: float | None) -> float | None:
        """What is only watched comes to serve by living on, of which nobody tells."""
        lived = self._lives_until(unit)
        return min((due for due in (until, lived) if due is not None), default=None)

    def _lives_until(self, unit: Unit) -> float | None:
        policy = self.policy_of(unit.service)
        if policy.watched_only is None or unit.phase is not Phase.STARTING or unit.ready_by is None:
            return None
        return unit.ready_by - self._ready_deadline(unit.service) + policy.watched_only

    async def _notice(self, name: str) -> None:
        """Takes note that a starting process serves, or that its time is up, and that a successor is ready."""
        unit, now = self._table[name], self._clock.monotonic()
        if unit.next is not None and not unit.next.ready and self._next_is_ready(unit.service, unit.next):
            self._put(supervision.next_ready(unit))
            return
        if unit.phase not in (Phase.STARTING, Phase.NOT_READY):
            return
        lived = self._lives_until(unit)
        if self._readiness.is_serving(unit.service, unit.instance_id) or (lived is not None and now >= lived):
            self._put(supervision.serving(unit, now))
        elif unit.ready_by is not None and now >= unit.ready_by:
            tail = await self._logs.tail(unit.service, unit.instance_id)
            if self._table[name] is unit:
                self._put(supervision.late(unit, self._ready_deadline(unit.service), tail))

    def _next_is_ready(self, service: str, following: Next) -> bool:
        """Whether it serves, or waits for nothing but the end of the old one: it says by itself which of the two it needs."""
        key = (service, following.instance_id)
        return self._readiness.stands_by(*key) or self._readiness.is_serving(*key)

    async def _spawn(self, name: str) -> None:
        unit = self._table[name]
        try:
            if not self._reconciled:
                await self._reconcile()
            unit = self._table[name]
            if unit.has_process or not unit.wanted:
                return
            instance_id = unit.instance_id or self._new_id(unit.place)
            self._table.replace_quietly(replace(unit, instance_id=instance_id))
            self._logs.mark(unit.service)
            info = await self._start_process(unit.service, instance_id)
        except KeeperError as error:
            self._not_spawned(name, error)
        else:
            self._put(self._spawned(self._table[name], info.instance_id, info.pid))
            await self._hear_early(info)

    async def _spawn_next(self, name: str) -> None:
        """Starts the process that is to replace the present one."""
        unit = self._table[name]
        instance_id = self._new_id(unit.place)
        self._logs.mark(unit.service)
        try:
            info = await self._start_process(unit.service, instance_id)
        except KeeperError as error:
            self._put(supervision.next_failed(self._table[name], f"a new process could not be started: {error}", ()))
            return
        now, deadline = self._clock.monotonic(), self._ready_deadline(unit.service)
        self._put(supervision.next_spawned(self._table[name], instance_id, info.pid, now, deadline))
        await self._hear_early(info)

    async def _start_process(self, service: str, instance_id: str) -> ProcessInfo:
        launch = self._launches(service, instance_id)
        request = SpawnRequest(service, instance_id, argv=launch.argv, environment=launch.environment)
        self._spawning.add(instance_id)
        try:
            return await self._processes.spawn(request)
        finally:
            self._spawning.discard(instance_id)

    async def _hear_early(self, info: ProcessInfo) -> None:
        """Takes in an end that was told of before the start was."""
        early = self._early.pop(info.instance_id, None)
        if early is not None and early.pid == info.pid:
            await self._on_exit(early)

    def _spawned(self, unit: Unit, instance_id: str, pid: int) -> Unit:
        return supervision.spawned(unit, instance_id, pid, self._clock.monotonic(), self._ready_deadline(unit.service))

    def _ready_deadline(self, service: str) -> float:
        return self._deadlines.get(service, self.policy_of(service).ready_deadline)

    def _not_spawned(self, name: str, error: KeeperError) -> None:
        unit = self._table[name]
        if isinstance(error, KeeperRefused):
            unit = replace(unit, instance_id=None)
        else:
            self._reconciled = False
        if not unit.wanted:
            return
        policy = self.policy_of(unit.service)
        self._put(supervision.not_spawned(unit, str(error), self._clock.monotonic(), policy))

    async def _end(self, name: str, act: Act) -> None:
        unit = self._table[name]
        number = signal.SIGKILL if act is Act.KILL else signal.SIGTERM
        try:
            await self._processes.signal(unit.instance_id or "", number)
        except KeeperRefused as error:
            if error.code == "NOT_FOUND" and self._table[name] is unit:
                await self._gone(name, UNSEEN)
                return
        except KeeperError as error:
            await self._keeper_is_away(name, error)
            return
        if self._table[name].pid != unit.pid:
            return
        now = self._clock.monotonic()
        after = supervision.killed if act is Act.KILL else supervision.terminated
        self._put(after(self._table[name], now, self.policy_of(unit.service)))

    async def _end_next(self, name: str) -> None:
        """Ends the process that was to replace the present one and is late or no longer wanted; it owns nothing yet."""
        unit = self._table[name]
        if unit.next is None:
            return
        try:
            await self._processes.signal(unit.next.instance_id, signal.SIGKILL)
        except KeeperRefused as error:
            _log.info("next_was_gone", target=name, error=str(error))
        except KeeperError as error:
            await self._keeper_is_away(name, error)
            return
        deadline = self._ready_deadline(unit.service)
        await self._next_gone(name, unit.next, f"was not ready {deadline:g} s after its start and was killed")

    async def _keeper_is_away(self, name: str, error: KeeperError) -> None:
        self._reconciled = False
        _log.warning("signal_not_sent", target=name, error=str(error))
        await self._pause(self._table.wake(name), self._clock.monotonic() + _RETRY_S)

    async def _pause(self, wake: asyncio.Event, until: float | None) -> None:
        """Waits until something happens or the time has come."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(wake.wait())]
        if until is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep_until(until)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in waits:
                waiting.cancel()

    # What the keeper tells.

    async def _follow(self) -> None:
        """Takes in exits for as long as the registry lives; a keeper that went away is waited for."""
        while True:
            try:
                await self._reconcile()
                async for exited in self._processes.follow(_FOLLOWER):
                    await self._on_exit(exited)
            except KeeperError as error:
                self._reconciled = False
                _log.warning("keeper_away", error=str(error))
            except Exception:  # noqa: BLE001 - exits must not go unheard because of a bug: it is said, and tried again
                _log.exception("following_failed")
            await self._clock.sleep_until(self._clock.monotonic() + _RETRY_S)

    async def _on_exit(self, exited: ProcessExit) -> None:
        unit = self._table.with_instance(exited.service, exited.instance_id)
        if unit is None:
            if exited.instance_id in self._spawning:
                self._early[exited.instance_id] = exited
        elif unit.next is not None and unit.next.instance_id == exited.instance_id:
            await self._next_gone(unit.name, unit.next, describe(exited))
        elif unit.pid == exited.pid:
            await self._gone(unit.name, describe(exited), exited.code)
        elif not unit.has_process:
            self._early[exited.instance_id] = exited

    async def _gone(self, name: str, how: str, code: int | None = None) -> None:
        before = self._table[name]
        tail = await self._logs.tail(before.service, before.instance_id)
        unit = self._table[name]
        if unit.pid == before.pid:
            policy = self.policy_of(unit.service)
            self._put(supervision.ended(unit, how, tail, self._clock.monotonic(), policy, code=code))

    async def _next_gone(self, name: str, following: Next, how: str) -> None:
        tail = await self._logs.tail(self._table[name].service, following.instance_id)
        unit = self._table[name]
        if unit.next is not None and unit.next.instance_id == following.instance_id:
            self._put(supervision.next_failed(unit, f"new process {following.pid} {how}", tail))
        elif unit.pid == following.pid:  # it took over in this very moment
            await self._gone(name, how)

    async def _reconcile(self) -> None:
        """Compares what is known with what runs: takes over what runs, and buries what does not."""
        known = dict(self._table.all)
        state = await self._processes.list()
        running = {info.instance_id for info in state.processes}
        for name, unit in known.items():
            if unit.next is not None and unit.next.instance_id not in running:
                await self._next_gone(name, unit.next, UNSEEN)
            if unit.has_process and unit.instance_id not in running and self._table[name].pid == unit.pid:
                await self._gone(name, UNSEEN)
        for info in sorted(state.processes, key=lambda info: -info.started_ns):
            if info.service in self._services and not info.root:
                await self._take_over(info)
        self._reconciled = True

    async def _take_over(self, info: ProcessInfo) -> None:
        """Takes in a process that runs and is not known; of more processes than there should be, the newest stay.

        An older one is what the newest was to replace when the registry was interrupted in a planned restart.
        """
        known = self._table.with_instance(info.service, info.instance_id)
        if info.instance_id in self._spawning or (known is not None and info.instance_id in known.instance_ids):
            return
        free = [self._table[name] for name in self._table.of({info.service}) if not self._table[name].has_process]
        if not free:
            _log.warning("spare_process_ended", target=info.service, instance_id=info.instance_id, pid=info.pid)
            with suppress(KeeperRefused):
                await self._processes.signal(info.instance_id, signal.SIGTERM)
            return
        its_own = [unit for unit in free if info.instance_id.startswith(f"{unit.place}-")]
        unit = known if known is not None else (its_own or free)[0]
        # A running service of which no wish is known is wanted: the wishes were lost, not taken back.
        wanted = replace(unit, wanted=self._wished.get(info.service, True))
        self._put(self._spawned(wanted, info.instance_id, info.pid))

    def _put(self, unit: Unit) -> None:
        self._table.put(unit)
