"""Decides what a change that the supervisor saw means for the health of a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Cause, Reason, Serving
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.procfs import start_ticks, started_ns
from minhos_mesh.registry.service import Registry
from minhos_mesh.runtime.clock import SystemClock

_TROUBLE: Final = {
    Phase.BACKOFF: Cause.PROCESS_EXITED,
    Phase.CRASH_LOOP: Cause.CRASH_LOOP,
    Phase.NOT_READY: Cause.START_TIMEOUT,
    Phase.ENDED: Cause.PROCESS_EXITED,
}
_WORST_FIRST: Final = (Cause.CRASH_LOOP, Cause.START_TIMEOUT, Cause.PROCESS_EXITED)


class UnitNotes:
    """Tells the registry what happens to supervised processes."""

    def __init__(self, registry: Registry, watched_only: Callable[[str], bool] = lambda _service: False) -> None:
        """`watched_only` says of which services nobody but the keeper knows whether they run."""
        self._registry, self._watched_only = registry, watched_only
        self._pids: dict[str, dict[int, str]] = {}
        self._units: dict[str, dict[str, Unit]] = {}

    def note(self, unit: Unit) -> None:
        """Takes in one change; the end of a process takes its endpoint away at once."""
        before, now = self._pids.get(unit.name, {}), _pids_of(unit)
        self._pids[unit.name] = now
        for pid in before.keys() - now.keys():
            self._registry.instances.process_ended(unit.service, pid, unit.last_end or "ended")
        if now and not before:
            self._registry.instances.forget_gone(unit.service)
        if self._watched_only(unit.service):
            self._show(unit)
        units = self._units.setdefault(unit.service, {})
        units[unit.name] = unit
        self._tell(unit, list(units.values()))

    def _tell(self, changed: Unit, units: list[Unit]) -> None:
        """What holds for the service with all its instances."""
        troubles = [trouble for unit in units if (trouble := _trouble(unit)) is not None]
        self._registry.note_service(
            changed.service,
            anew=changed.cycling or changed.replacing or not changed.wanted,
            wanted=any(unit.wanted and (unit.phase is not Phase.ENDED or unit.failed) for unit in units),
            wanted_instances=max(1, sum(unit.wanted and unit.phase is not Phase.ENDED for unit in units)),
            restarts=sum(unit.restarts for unit in units),
            stopping=any(unit.phase is Phase.STOPPING for unit in units),
            trouble=min(troubles, key=lambda trouble: _WORST_FIRST.index(trouble.cause), default=None),
        )

    def _show(self, unit: Unit) -> None:
        """An instance that tells nothing of itself is there while its process is."""
        if unit.instance_id is None or unit.pid is None:
            return
        key = InstanceKey(unit.service, unit.instance_id)
        if unit.phase is Phase.SERVING:
            if key not in self._registry.instances.present:
                self._registry.add_unleased(_watched(key, unit.pid))
        elif unit.phase is Phase.STOPPING:
            self._registry.instances.note(key, 0, leaving=True)


def _pids_of(unit: Unit) -> dict[int, str]:
    found = {} if unit.pid is None else {unit.pid: unit.instance_id or ""}
    if unit.next is not None:
        found[unit.next.pid] = unit.next.instance_id
    return found


def _trouble(unit: Unit) -> Reason | None:
    cause = _TROUBLE.get(unit.phase)
    restarts_as_asked = unit.phase is Phase.BACKOFF and not unit.failures
    ended_as_meant = unit.phase is Phase.ENDED and not unit.failed
    if cause is None or not unit.wanted or restarts_as_asked or ended_as_meant:
        return None
    which = "" if unit.slot == 1 else f"instance {unit.slot}: "
    last_words = f"; it said last: {unit.tail[-1]}" if unit.tail and cause is not Cause.PROCESS_EXITED else ""
    return Reason(cause, "", f"{which}{unit.message}{last_words}")


def _watched(key: InstanceKey, pid: int) -> Present:
    """A process that has no address and no lease: what is known of it is that it runs."""
    ticks = start_ticks(pid)
    return Present(
        key=key,
        host="",
        port=0,
        contracts=(),
        lease_id="",
        token=0,
        version="",
        attached_ns=SystemClock().wall_ns(),
        pid=pid,
        process_started=ticks,
        started_ns=None if ticks is None else started_ns(ticks),
        serving=Serving.SERVING,
        ever_ready=True,
    )
