"""Decides what a change that the supervisor saw means for the health of a service."""

from __future__ import annotations

from minhos_mesh.registry.domain.health import Cause, Reason
from minhos_mesh.registry.domain.supervision import Phase, Unit
from minhos_mesh.registry.service import Registry

_TROUBLE = {
    Phase.BACKOFF: Cause.PROCESS_EXITED,
    Phase.CRASH_LOOP: Cause.CRASH_LOOP,
    Phase.NOT_READY: Cause.START_TIMEOUT,
}


class UnitNotes:
    """Tells the registry what happens to supervised processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._pids: dict[str, int] = {}

    def note(self, unit: Unit) -> None:
        """Takes in one change; the end of a process takes its endpoint away at once."""
        before = self._pids.pop(unit.service, None)
        if unit.pid is not None:
            self._pids[unit.service] = unit.pid
        if before is not None and before != unit.pid:
            self._registry.instances.process_ended(unit.service, before, unit.last_end or "ended")
        if unit.pid is not None and before is None:
            self._registry.instances.forget_gone(unit.service)
        restarts_as_asked = unit.phase is Phase.BACKOFF and not unit.failures
        cause = None if restarts_as_asked else _TROUBLE.get(unit.phase)
        self._registry.note_service(
            unit.service,
            wanted=unit.wanted,
            restarts=unit.restarts,
            stopping=unit.phase is Phase.STOPPING,
            trouble=None if cause is None else Reason(cause, "", unit.message),
        )
