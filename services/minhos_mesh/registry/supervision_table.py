"""Holds the units of a supervisor and tells everyone concerned of each change, in the order in which they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from minhos_mesh.registry.domain.supervision import Unit
from minhos_mesh.registry.supervision_watch import Watch
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger

_log = get_logger("registry.supervisor")


class UnitTable:
    """All units by name, the events that wake their tasks, and the calls that watch them."""

    def __init__(self, units: Collection[Unit], clock: Clock, on_change: Callable[[Unit], None]) -> None:
        """`on_change` is called with every new state of a unit."""
        self._units = {unit.name: unit for unit in units}
        self._clock, self._on_change = clock, on_change
        self._wakes = {name: asyncio.Event() for name in self._units}
        self._watches: set[Watch] = set()

    @property
    def all(self) -> Mapping[str, Unit]:
        """Every unit by its name, as it is now."""
        return self._units

    def __getitem__(self, name: str) -> Unit:
        return self._units[name]

    def of(self, services: Collection[str]) -> list[str]:
        """The names of the units of some services."""
        return [name for name, unit in self._units.items() if unit.service in services]

    def with_instance(self, service: str, instance_id: str) -> Unit | None:
        """The unit that has an instance as its process or as the one to come."""
        for unit in self._units.values():
            following = unit.next.instance_id if unit.next is not None else None
            if unit.service == service and instance_id in (unit.instance_id, following):
                return unit
        return None

    def put(self, unit: Unit) -> None:
        """Takes in a new state of a unit."""
        before = self._units[unit.name]
        if unit == before:
            return
        self._units[unit.name] = unit
        if (unit.phase, unit.message) != (before.phase, before.message):
            _log.info("supervision", target=unit.name, phase=unit.phase.value, message=unit.message)
        self._on_change(unit)
        for watch in self._watches:
            watch.note(unit)
        self.wake_all()

    def replace_quietly(self, unit: Unit) -> None:
        """Takes in a state that is nobody's business yet."""
        self._units[unit.name] = unit

    def wake(self, name: str) -> asyncio.Event:
        """Set whenever the task of a unit should look again."""
        return self._wakes[name]

    def wake_all(self) -> None:
        """Lets every task look again."""
        for wake in self._wakes.values():
            wake.set()

    @contextmanager
    def watching(
        self, names: Collection[str], unchanged: Collection[str], obstacle: Callable[[str], str | None]
    ) -> Iterator[Watch]:
        """A watch over some units, in their order, from now on."""
        watch = Watch([self._units[name] for name in names], unchanged, self._clock, obstacle)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
