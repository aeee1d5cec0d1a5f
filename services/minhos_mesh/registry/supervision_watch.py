"""What a caller sees of a start or a stop: each change as it happens, until all is done or cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.supervision_ports import Progress, ProgressPhase, StartFailed, StopFailed
from minhos_mesh.runtime.clock import Clock

_SHOWN: dict[Phase, ProgressPhase] = {
    Phase.STOPPED: ProgressPhase.STOPPED,
    Phase.WAITING: ProgressPhase.WAITING,
    Phase.STARTING: ProgressPhase.STARTING,
    Phase.SERVING: ProgressPhase.READY,
    Phase.NOT_READY: ProgressPhase.FAILED,
    Phase.BACKOFF: ProgressPhase.WAITING,
    Phase.CRASH_LOOP: ProgressPhase.FAILED,
    Phase.STOPPING: ProgressPhase.STOPPING,
}

_OF_OLD_PROCESS = (Phase.STARTING, Phase.SERVING, Phase.NOT_READY)
"""What a service that is being restarted shows while its old process has not been asked to end yet."""


class Watch:
    """Collects the changes of some services from the moment it is made."""

    def __init__(
        self, units: Sequence[Unit], unchanged: Collection[str], clock: Clock, obstacle: Callable[[str], str | None]
    ) -> None:
        self.units = {unit.service: unit for unit in units}
        self.unchanged = frozenset(unchanged)
        """Services that already were as the caller wants them."""
        self.obstacle = obstacle
        self._clock = clock
        self._began = clock.monotonic()
        self._changes: asyncio.Queue[Unit] = asyncio.Queue()
        self._shown = {unit.service: (unit.phase, unit.message) for unit in units}

    def note(self, unit: Unit) -> None:
        """Called with every new state of any service; a change of what is not watched may still free a watched one."""
        self._changes.put_nowait(unit)

    def take(self, unit: Unit) -> Progress | None:
        """Takes in a change; the progress to show, or None when people would see no difference."""
        if unit.service not in self.units:
            return None
        self.units[unit.service] = unit
        if self._shown[unit.service] == (unit.phase, unit.message) or (unit.cycling and unit.phase in _OF_OLD_PROCESS):
            return None
        self._shown[unit.service] = (unit.phase, unit.message)
        return self.progress(unit.service, _SHOWN[unit.phase], explain(unit))

    def first(self) -> list[Progress]:
        """How each service stands at the beginning."""
        return [self._first_of(unit) for unit in self.units.values()]

    def _first_of(self, unit: Unit) -> Progress:
        if unit.cycling:
            return self.progress(unit.service, ProgressPhase.STOPPING, f"process {unit.pid} is to end")
        phase = ProgressPhase.UNCHANGED if unit.service in self.unchanged else _SHOWN[unit.phase]
        return self.progress(unit.service, phase, explain(unit))

    def progress(self, service: str, phase: ProgressPhase, message: str) -> Progress:
        """A progress that happens now."""
        return Progress(service, phase, message, self._clock.monotonic() - self._began)

    async def next(self, limit: float) -> Unit | None:
        """The next change; None when the call is older than `limit` seconds."""
        change = asyncio.ensure_future(self._changes.get())
        end = asyncio.ensure_future(self._clock.sleep_until(self._began + limit))
        try:
            await asyncio.wait((change, end), return_when=asyncio.FIRST_COMPLETED)
            return change.result() if change.done() else None
        finally:
            change.cancel()
            end.cancel()


def explain(unit: Unit) -> str:
    """The state of a service for people; with the end of its log when it has failed."""
    if not unit.failed or not unit.tail:
        return unit.message
    return "\n".join((f"{unit.message}; the end of its log:", *(f"  {line}" for line in unit.tail)))


async def watch_start(watch: Watch, limit: float) -> AsyncIterator[Progress]:
    """Yields until all watched services serve or will not; raises StartFailed if one will not."""
    pending = set(watch.units) - watch.unchanged
    for progress in watch.first():
        yield progress
    failed: dict[str, str] = {}
    while pending:
        change = await watch.next(limit)
        if change is None:
            for service in sorted(pending):
                failed[service] = f"{explain(watch.units[service])}, {limit:g} s after the call"
                yield watch.progress(service, ProgressPhase.FAILED, failed[service])
            break
        shown = watch.take(change)
        if shown is not None:
            yield shown
        if change.service in pending and _start_is_over(change):
            pending.discard(change.service)
            if change.phase is not Phase.SERVING:
                failed[change.service] = explain(change)
        for service in sorted(pending):
            if (obstacle := watch.obstacle(service)) is not None:
                pending.discard(service)
                failed[service] = obstacle
                yield watch.progress(service, ProgressPhase.FAILED, obstacle)
    if failed:
        raise StartFailed(failed)


async def watch_stop(watch: Watch, limit: float) -> AsyncIterator[Progress]:
    """Yields until all watched services are stopped; raises StopFailed if one is still there after `limit` seconds."""
    pending = {service for service, unit in watch.units.items() if unit.phase is not Phase.STOPPED}
    for progress in watch.first():
        if progress.service not in pending:
            yield progress
    while pending:
        change = await watch.next(limit)
        if change is None:
            raise StopFailed({service: explain(watch.units[service]) for service in sorted(pending)})
        shown = watch.take(change)
        if shown is not None:
            yield shown
        if change.service not in pending:
            continue
        if change.phase is Phase.STOPPED:
            pending.discard(change.service)
        elif change.wanted:
            pending.discard(change.service)
            yield watch.progress(change.service, ProgressPhase.UNCHANGED, "was asked to start again")


def _start_is_over(unit: Unit) -> bool:
    """Whether a start has come to its end, good or bad."""
    return not unit.cycling and (unit.failed or unit.phase is Phase.SERVING or not unit.wanted)
