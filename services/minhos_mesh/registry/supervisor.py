"""How the mesh is brought up, kept up and taken down: every service in the order of the plan, through the keeper.

Each service has one task that does what `domain.supervision` says next. Calls change what is wanted and then only watch,
so that a caller who goes away changes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from minhos_mesh.registry.domain import supervision
from minhos_mesh.registry.domain.supervision import Act, Phase, SupervisionPolicy, Unit
from minhos_mesh.registry.plan import Plan
from minhos_mesh.registry.supervision_gates import Gates
from minhos_mesh.registry.supervision_ports import (
    Launch,
    Logs,
    NotSupervised,
    Processes,
    Progress,
    Readiness,
    Wishes,
)
from minhos_mesh.registry.supervision_watch import Watch, watch_start, watch_stop
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.keeper_client import KeeperError, KeeperRefused
from minhos_mesh.runtime.keeper_protocol import ProcessExit, ProcessInfo, SpawnRequest
from minhos_mesh.runtime.log import get_logger

_FOLLOWER: Final = "supervisor"
_RETRY_S: Final = 1.0
_UNSEEN: Final = "ended while nobody watched"

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
        launches: Mapping[str, Launch] | None = None,
        external: Collection[str] = ("registry",),
        new_id: Callable[[str], str] = lambda service: f"{service}-{secrets.token_hex(4)}",
        on_change: Callable[[Unit], None] = lambda unit: None,
    ) -> None:
        """Services in `external` belong to the plan and are not started here; they count as serving.

        `on_change` is called on the event loop with every new state of a unit.
        """
        self._plan = plan
        self._processes = processes
        self._readiness = readiness
        self._wishes = wishes
        self._logs = logs
        self._clock = clock
        self._policy = policy or SupervisionPolicy()
        self._launches = launches or {}
        self._external = frozenset(external)
        self._new_id = new_id
        self._on_change = on_change
        names = [name for name in plan.services if name not in self._external]
        self._units = {name: Unit(name) for name in names}
        self._gates = Gates(plan, self._external, readiness, self._units)
        self._wakes = {name: asyncio.Event() for name in names}
        self._deadlines: dict[str, float] = {}
        self._watches: set[Watch] = set()
        self._spawning: set[str] = set()
        self._early: dict[str, ProcessExit] = {}
        self._reconciled = False
        self._wished: dict[str, bool] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._wished = dict(await self._wishes.load())
        with suppress(KeeperError):
            await self._reconcile()
        for name, unit in self._units.items():
            if self._wished.get(name):
                self._put(supervision.want(unit, waits_for=self._gates.waits_for(name)))
        self._unsubscribe = self._readiness.subscribe(self._wake_all)
        self._tasks = [asyncio.create_task(self._follow(), name="supervisor-follow")]
        self._tasks += [asyncio.create_task(self._drive(name), name=f"supervise-{name}") for name in self._units]
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
        """All supervised services in the order of their start."""
        return tuple(self._units.values())

    def unit(self, service: str) -> Unit:
        """One supervised service. Raises plan.UnknownService or NotSupervised."""
        self._check(service)
        return self._units[service]

    async def start_all(self, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Starts everything; each service once all it requires serves. Ends when all serve.

        `ready_deadline` is the time in seconds that each start may take. Raises StartFailed after the last progress.
        """
        async for progress in self._start(frozenset(self._units), ready_deadline):
            yield progress

    async def start(self, service: str, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Starts one service and what it requires. Raises UnknownService, NotSupervised, StartFailed."""
        self._check(service)
        async for progress in self._start(self._plan.with_required(service) - self._external, ready_deadline):
            yield progress

    async def restart(self, service: str, ready_deadline: float | None = None) -> AsyncIterator[Progress]:
        """Stops one service in order and starts it again; nothing else is touched. Raises as `start`."""
        self._check(service)
        await self._wish({service: True})
        self._set_deadlines({service}, ready_deadline)
        self._put(supervision.cycle(self._units[service], waits_for=self._gates.waits_for(service)))
        limit = self._limit(ready_deadline, levels=2) + self._policy.stop_deadline
        with self._watching({service}) as watch:
            async for progress in watch_start(watch, limit):
                yield progress

    async def stop(self, service: str) -> AsyncIterator[Progress]:
        """Stops one service and keeps it stopped; its dependents stay. Raises UnknownService, NotSupervised, StopFailed."""
        self._check(service)
        async for progress in self._stop(frozenset({service})):
            yield progress

    async def stop_all(self) -> AsyncIterator[Progress]:
        """Stops everything, dependents before what they need; nothing is restarted afterwards. Raises StopFailed."""
        async for progress in self._stop(frozenset(self._units)):
            yield progress

    def condemn(self, service: str, reason: str) -> None:
        """Kills a service that does not react any more, so that it is started again. Raises as `unit`."""
        unit = self.unit(service)
        if unit.has_process and unit.wanted:
            self._put(supervision.condemned(unit, reason, self._clock.monotonic()))

    # How calls are carried out.

    async def _start(self, services: frozenset[str], ready_deadline: float | None) -> AsyncIterator[Progress]:
        await self._wish(dict.fromkeys(services, True))
        self._set_deadlines(services, ready_deadline)
        already = [name for name in services if self._units[name].phase is Phase.SERVING and self._units[name].wanted]
        for name in services:
            self._begin(name)
        with self._watching(services, unchanged=already) as watch:
            async for progress in watch_start(watch, self._limit(ready_deadline, levels=len(self._plan.levels))):
                yield progress

    def _begin(self, service: str) -> None:
        unit = supervision.want(self._units[service], waits_for=self._gates.waits_for(service))
        if unit.phase is Phase.NOT_READY and unit.pid is not None and unit.instance_id is not None:
            unit = self._spawned(unit, unit.instance_id, unit.pid)
        self._put(unit)

    async def _stop(self, services: frozenset[str]) -> AsyncIterator[Progress]:
        await self._wish(dict.fromkeys(services, False))
        already = [name for name in services if self._units[name].phase is Phase.STOPPED]
        for name in services:
            self._put(supervision.unwant(self._units[name]))
        one = self._policy.stop_deadline + 3 * self._policy.kill_again_after
        with self._watching(services, unchanged=already) as watch:
            async for progress in watch_stop(watch, one * len(self._plan.levels)):
                yield progress

    @contextmanager
    def _watching(self, services: Collection[str], unchanged: Collection[str] = ()) -> Iterator[Watch]:
        ordered = [name for name in self._plan.services if name in services]
        watch = Watch([self._units[name] for name in ordered], unchanged, self._clock, self._gates.obstacle)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def _wish(self, wished: Mapping[str, bool]) -> None:
        await self._wishes.keep(wished)
        self._wished.update(wished)

    def _set_deadlines(self, services: Collection[str], ready_deadline: float | None) -> None:
        for name in services:
            self._deadlines[name] = self._policy.ready_deadline if ready_deadline is None else ready_deadline

    def _limit(self, ready_deadline: float | None, *, levels: int) -> float:
        """After so many seconds a start is given up even if nobody has failed."""
        return (self._policy.ready_deadline if ready_deadline is None else ready_deadline) * (levels + 1)

    def _check(self, service: str) -> None:
        self._plan.check(service)
        if service in self._external:
            raise NotSupervised(service)

    # One task for each service.

    async def _drive(self, service: str) -> None:
        while True:
            try:
                await self._turn(service, self._wakes[service])
            except Exception:  # noqa: BLE001 - a service must not lose its supervision to a bug: it is said, and tried again
                _log.exception("supervision_failed", target=service)
                await self._clock.sleep_until(self._clock.monotonic() + _RETRY_S)

    async def _turn(self, service: str, wake: asyncio.Event) -> None:
        wake.clear()
        await self._notice(service)
        step = supervision.next_step(
            self._units[service],
            may_start=self._gates.may_start(service),
            may_stop=self._gates.may_stop(service),
            now=self._clock.monotonic(),
        )
        if step.act is None:
            await self._pause(wake, step.until)
        elif step.act is Act.SPAWN:
            await self._spawn(service)
        else:
            await self._end(service, step.act)

    async def _notice(self, service: str) -> None:
        """Takes note that a starting service serves, or that its time is up."""
        unit = self._units[service]
        if unit.phase not in (Phase.STARTING, Phase.NOT_READY):
            return
        if self._readiness.is_serving(service, unit.instance_id):
            self._put(supervision.serving(unit, self._clock.monotonic()))
        elif unit.ready_by is not None and self._clock.monotonic() >= unit.ready_by:
            tail = await self._logs.tail(service)
            if self._units[service] is unit:
                self._put(supervision.late(unit, self._ready_deadline(service), tail))

    async def _spawn(self, service: str) -> None:
        try:
            if not self._reconciled:
                await self._reconcile()
            unit = self._units[service]
            if unit.has_process or not unit.wanted:
                return
            instance_id = unit.instance_id or self._new_id(service)
            self._units[service] = replace(unit, instance_id=instance_id)
            launch = self._launches.get(service, Launch())
            self._logs.mark(service)
            self._spawning.add(service)
            info = await self._processes.spawn(
                SpawnRequest(service, instance_id, argv=launch.argv, environment=launch.environment)
            )
        except KeeperError as error:
            self._not_spawned(service, error)
        else:
            self._put(self._spawned(self._units[service], info.instance_id, info.pid))
            early = self._early.pop(instance_id, None)
            if early is not None and early.pid == info.pid:
                await self._on_exit(early)
        finally:
            self._spawning.discard(service)

    def _spawned(self, unit: Unit, instance_id: str, pid: int) -> Unit:
        return supervision.spawned(unit, instance_id, pid, self._clock.monotonic(), self._ready_deadline(unit.service))

    def _ready_deadline(self, service: str) -> float:
        return self._deadlines.get(service, self._policy.ready_deadline)

    def _not_spawned(self, service: str, error: KeeperError) -> None:
        unit = self._units[service]
        if isinstance(error, KeeperRefused):
            unit = replace(unit, instance_id=None)
        else:
            self._reconciled = False
        if not unit.wanted:
            return
        self._put(supervision.not_spawned(unit, str(error), self._clock.monotonic(), self._policy))

    async def _end(self, service: str, act: Act) -> None:
        unit = self._units[service]
        number = signal.SIGKILL if act is Act.KILL else signal.SIGTERM
        try:
            await self._processes.signal(unit.instance_id or "", number)
        except KeeperRefused as error:
            if error.code == "NOT_FOUND" and self._units[service] is unit:
                await self._gone(service, _UNSEEN)
                return
        except KeeperError as error:
            self._reconciled = False
            _log.warning("signal_not_sent", target=service, error=str(error))
            await self._pause(self._wakes[service], self._clock.monotonic() + _RETRY_S)
            return
        if self._units[service].pid != unit.pid:
            return
        now = self._clock.monotonic()
        after = supervision.killed if act is Act.KILL else supervision.terminated
        self._put(after(self._units[service], now, self._policy))

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
        unit = self._units.get(exited.service)
        if unit is None or unit.instance_id != exited.instance_id:
            return
        if unit.pid == exited.pid:
            await self._gone(exited.service, describe(exited))
        elif not unit.has_process:
            self._early[exited.instance_id] = exited

    async def _gone(self, service: str, how: str) -> None:
        pid = self._units[service].pid
        tail = await self._logs.tail(service)
        unit = self._units[service]
        if unit.pid == pid:
            self._put(supervision.ended(unit, how, tail, self._clock.monotonic(), self._policy))

    async def _reconcile(self) -> None:
        """Compares what is known with what runs: takes over what runs, and buries what does not."""
        known = dict(self._units)
        state = await self._processes.list()
        running = {info.instance_id for info in state.processes}
        for service, unit in known.items():
            if unit.has_process and unit.instance_id not in running and self._units[service].pid == unit.pid:
                await self._gone(service, _UNSEEN)
        for info in state.processes:
            if info.service in self._units and not info.root:
                await self._take_over(info)
        self._reconciled = True

    async def _take_over(self, info: ProcessInfo) -> None:
        unit = self._units[info.service]
        if info.service in self._spawning or (unit.instance_id == info.instance_id and unit.has_process):
            return
        if unit.has_process:
            _log.warning("second_process_ended", target=info.service, instance_id=info.instance_id, pid=info.pid)
            with suppress(KeeperRefused):
                await self._processes.signal(info.instance_id, signal.SIGTERM)
            return
        # A running service of which no wish is known is wanted: the wishes were lost, not taken back.
        wanted = replace(unit, wanted=self._wished.get(info.service, True))
        self._put(self._spawned(wanted, info.instance_id, info.pid))

    # Changes.

    def _put(self, unit: Unit) -> None:
        before = self._units[unit.service]
        if unit == before:
            return
        self._units[unit.service] = unit
        if (unit.phase, unit.message) != (before.phase, before.message):
            _log.info("supervision", target=unit.service, phase=unit.phase.value, message=unit.message)
        self._on_change(unit)
        for watch in self._watches:
            watch.note(unit)
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wakes.values():
            wake.set()


def describe(exited: ProcessExit) -> str:
    """How a process ended, to complete "process 17 ..."."""
    if exited.signal is not None:
        try:
            return f"was ended by {signal.Signals(exited.signal).name}"
        except ValueError:
            return f"was ended by signal {exited.signal}"
    if exited.code is not None:
        return f"ended with code {exited.code}"
    return _UNSEEN
