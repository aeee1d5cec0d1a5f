"""Decides when a process that lives but does not react any more is given up, so that a new one can take its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.supervision import Unit
from minhos_mesh.runtime.clock import Clock

LOOK_S: Final = 1.0
"""How often it is looked; the deadline is longer than that."""


class Units(Protocol):
    """The part of the supervisor that this needs."""

    def units(self) -> tuple[Unit, ...]:
        """Every supervised service."""
        ...

    def condemn(self, name: str, reason: str) -> None:
        """Kills the process of a unit, so that it is started again."""
        ...


class Liveness:
    """Watches for instances whose lease has run out while their process lives.

    Leaving the rotation happens at once and elsewhere; this is about the process, which may hold a store that its
    successor needs.
    """

    def __init__(
        self,
        instances: Callable[[str], Iterable[Present]],
        units: Units,
        clock: Clock,
        *,
        deadline_s: Callable[[str], float],
    ) -> None:
        """`instances` gives what is known of a service's instances, gone ones among them; `deadline_s` how long it may be silent."""
        self._instances, self._units, self._clock, self._deadline_s = instances, units, clock, deadline_s

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_S)
            self.look()

    def look(self) -> None:
        """Condemns what has been silent for too long."""
        now = self._clock.monotonic()
        for unit in self._units.units():
            if unit.wanted and unit.has_process and unit.kill_at is None:
                silent = self._silent_s(unit, now)
                if silent is not None and silent > self._deadline_s(unit.service):
                    reason = f"process {unit.pid} has been silent for {silent:.0f} s and is killed"
                    self._units.condemn(unit.name, reason)

    def _silent_s(self, unit: Unit, now: float) -> float | None:
        for present in self._instances(unit.service):
            if present.key.instance_id == unit.instance_id and present.gone_at is not None:
                return now - present.gone_at if present.silence in (Silence.EXPIRED, Silence.LOST) else None
        return None
