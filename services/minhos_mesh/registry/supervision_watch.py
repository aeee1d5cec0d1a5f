"""What a caller sees of a start or a stop: each change as it happens, until all is done or cannot be done."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final

from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.supervision_ports import Progress, ProgressPhase, StartFailed, StopFailed
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.keeper_protocol import ProcessExit

UNSEEN: Final = "ended while nobody watched"
"""How a process ended of whose end nobody was told, to complete "process 17 ..."."""

_SHOWN: dict[Phase, ProgressPhase] = {
    Phase.STOPPED: ProgressPhase.STOPPED,
    Phase.WAITING: ProgressPhase.WAITING,
    Phase.STARTING: ProgressPhase.STARTING,
    Phase.SERVING: ProgressPhase.READY,
    Phase.NOT_READY: ProgressPhase.FAILED,
    Phase.BACKOFF: ProgressPhase.WAITING,
    Phase.CRASH_LOOP: ProgressPhase.FAILED,
    Phase.ENDED: ProgressPhase.STOPPED,
    Phase.STOPPING: ProgressPhase.STOPPING,
}

_OF_OLD_PROCESS = (Phase.STARTING, Phase.SERVING, Phase.NOT_READY)
"""What a service that is being restarted shows while its old process has not been asked to end yet."""


class Watch:
    """Collects the changes of some units from the moment it is made."""

    def __init__(
        self, units: Sequence[Unit], unchanged: Collection[str], clock: Clock, obstacle: Callable[[str], str | None]
    ) -> None:
        self.units = {unit.name: unit for unit in units}
        self.unchanged = frozenset(unchanged)
        """Units that already were as the caller wants them."""
        self.obstacle = obstacle
        self._clock = clock
        self._began = clock.monotonic()
        self._changes: asyncio.Queue[Unit] = asyncio.Queue()
        self._shown = {unit.name: (unit.phase, unit.message) for unit in units}
        self._several = {unit.service for unit in units if unit.slot > 1}

    def note(self, unit: Unit) -> None:
        """Called with every new state of any unit; a change of what is not watched may still free a watched one."""
        self._changes.put_nowait(unit)

    def take(self, unit: Unit) -> Progress | None:
        """Takes in a change; the progress to show, or None when people would see no difference."""
        if unit.name not in self.units:
            return None
        self.units[unit.name] = unit
        if self._shown[unit.name] == (unit.phase, unit.message) or (unit.cycling and unit.phase in _OF_OLD_PROCESS):
            return None
        self._shown[unit.name] = (unit.phase, unit.message)
        return self.progress(unit, _shown(unit), explain(unit))

    def first(self) -> list[Progress]:
        """How each unit stands at the beginning."""
        return [self._first_of(unit) for unit in self.units.values()]

    def _first_of(self, unit: Unit) -> Progress:
        if unit.cycling:
            return self.progress(unit, ProgressPhase.STOPPING, f"process {unit.pid} is to end")
        phase = ProgressPhase.UNCHANGED if unit.name in self.unchanged else _shown(unit)
        return self.progress(unit, phase, explain(unit))

    def progress(self, unit: Unit, phase: ProgressPhase, message: str) -> Progress:
        """A progress that happens now."""
        which = f"instance {unit.slot}: " if unit.service in self._several else ""
        return Progress(unit.service, phase, f"{which}{message}", self._clock.monotonic() - self._began)

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
    """The state of a unit for people; with the end of its log when it has failed."""
    message = f"was not replaced and serves on as before: {unit.not_replaced}" if unit.not_replaced else unit.message
    if not (unit.failed or unit.not_replaced) or not unit.tail:
        return message
    return "\n".join((f"{message}; the end of its log:", *(f"  {line}" for line in unit.tail)))


async def watch_start(watch: Watch, limit: float) -> AsyncIterator[Progress]:
    """Yields until all watched units serve or will not; raises StartFailed if one will not."""
    pending = set(watch.units) - watch.unchanged
    for progress in watch.first():
        yield progress
    failed: dict[str, str] = {}
    while pending:
        change = await watch.next(limit)
        if change is None:
            for name in sorted(pending):
                failed[name] = f"{explain(watch.units[name])}, {limit:g} s after the call"
                yield watch.progress(watch.units[name], ProgressPhase.FAILED, failed[name])
            break
        shown = watch.take(change)
        if shown is not None:
            yield shown
        if change.name in pending and _start_is_over(change):
            pending.discard(change.name)
            if not _start_is_good(change):
                failed[change.name] = explain(change)
        for name in sorted(pending):
            if (obstacle := watch.obstacle(name)) is not None:
                pending.discard(name)
                failed[name] = obstacle
                yield watch.progress(watch.units[name], ProgressPhase.FAILED, obstacle)
    if failed:
        raise StartFailed(failed)


async def watch_stop(watch: Watch, limit: float) -> AsyncIterator[Progress]:
    """Yields until all watched units are stopped; raises StopFailed if one is still there after `limit` seconds."""
    pending = {name for name, unit in watch.units.items() if unit.phase is not Phase.STOPPED}
    names = list(watch.units)
    for name, progress in zip(names, watch.first(), strict=True):
        if name not in pending:
            yield progress
    while pending:
        change = await watch.next(limit)
        if change is None:
            raise StopFailed({name: explain(watch.units[name]) for name in sorted(pending)})
        shown = watch.take(change)
        if shown is not None:
            yield shown
        if change.name not in pending:
            continue
        if change.phase is Phase.STOPPED:
            pending.discard(change.name)
        elif change.wanted:
            pending.discard(change.name)
            yield watch.progress(change, ProgressPhase.UNCHANGED, "was asked to start again")


def _shown(unit: Unit) -> ProgressPhase:
    if unit.not_replaced:
        return ProgressPhase.FAILED
    if unit.replacing and unit.phase is Phase.SERVING:
        return ProgressPhase.STARTING
    if unit.phase is Phase.ENDED and unit.failed:
        return ProgressPhase.FAILED
    return _SHOWN[unit.phase]


def _start_is_over(unit: Unit) -> bool:
    """Whether a start has come to its end, good or bad."""
    if unit.cycling or unit.replacing:
        return False
    return unit.failed or unit.phase in (Phase.SERVING, Phase.ENDED) or not unit.wanted


def _start_is_good(unit: Unit) -> bool:
    return unit.phase in (Phase.SERVING, Phase.ENDED) and not unit.failed and not unit.not_replaced


def describe(exited: ProcessExit) -> str:
    """How a process ended, to complete "process 17 ..."."""
    if exited.signal is not None:
        try:
            return f"was ended by {signal.Signals(exited.signal).name}"
        except ValueError:
            return f"was ended by signal {exited.signal}"
    if exited.code is not None:
        return f"ended with code {exited.code}"
    return UNSEEN
