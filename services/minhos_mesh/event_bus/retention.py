"""How old events are forgotten: in the background, in small steps, told in the log, in the statistics and as conditions."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from minhos_mesh.event_bus.domain.records import TypeCount
from minhos_mesh.event_bus.domain.retention import Limits, Marks, Need, Step, floors, steps, waits_for
from minhos_mesh.event_bus.reports import RetentionReport
from minhos_mesh.event_bus.service import EventBus
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import StorageError

_LOG: Final = get_logger("event_bus.retention")

ROUND_S: Final = 10.0
"""How often the journal is looked at."""

PAUSE_S: Final = 0.01
"""Between two steps, so that publishing goes on."""

HELD_BACK: Final = "EVENTS_HELD_BACK"
"""A durable consumer has not acknowledged events that are beyond the limits; they are kept for it."""

TAKEN: Final = "EVENTS_TAKEN"
"""Events were removed that a durable consumer had not acknowledged."""


class Retention:
    """Forgets what is beyond the limits. `run` is its background task, `round` one look at everything."""

    def __init__(self, bus: EventBus, limits: Limits, clock: Clock, conditions: Conditions) -> None:
        self._bus = bus
        self._limits = limits
        self._clock = clock
        self._conditions = conditions
        self._removed = 0
        self._taken = 0
        self._checked_ns: int | None = None
        self._held_back: tuple[str, ...] = ()
        self._seen = deque([(-math.inf, 0), (clock.monotonic(), bus.bounds.newest)])
        """When which event was the newest, on the clock that nobody sets; what was before the start counts from the start."""

    def report(self) -> RetentionReport:
        """What it did since the bus started, and whom it waits for."""
        return RetentionReport(self._removed, self._checked_ns, self._held_back, self._taken)

    async def run(self) -> None:
        """Looks at the journal again and again until cancelled."""
        while True:
            try:
                await self.round()
            except StorageError as error:
                _LOG.error("retention.failed", because=str(error))
            await self._clock.sleep_until(self._clock.monotonic() + ROUND_S)

    async def round(self) -> None:
        """Removes everything that may go now, then tells who holds the rest back. Raises StorageError."""
        removed, freed = 0, 0
        while True:
            counts = await self._bus.engine.type_counts()
            needs, marks = self._needs(), await self._marks()
            gone, size = 0, 0
            for step in steps(counts, self._limits, marks, floors(counts, needs)):
                count, its_bytes = await self._take(step)
                gone, size = gone + count, size + its_bytes
                await asyncio.sleep(PAUSE_S)
            removed, freed = removed + gone, freed + size
            if not gone:
                break
        if removed:
            _LOG.info("retention.removed", events=removed, bytes=freed, oldest=self._bus.bounds.oldest)
        self._checked_ns = self._clock.wall_ns()
        self._tell(counts, marks, needs)

    async def _take(self, step: Step) -> tuple[int, int]:
        """Removes once, and has everybody told who misses something by it.

        What consumers have settled is on disk before: an acknowledgement or dead letter that a crash would undo needs its
        event again.
        """
        needs = self._needs()
        if not await self._bus.memory.flush() and not step.takes_unacked:
            return 0, 0
        async with self._bus.gate.removing():
            floor = {} if step.takes_unacked else self._first_needed(step, needs)
            through = {name: min(last, floor.get(name, last + 1) - 1) for name, last in step.through.items()}
            done = await self._bus.engine.trim(through, step.events)
            taken = self._bus.note_removed(done.removed)
        self._removed += len(done.removed)
        if taken:
            self._taken += taken
            _LOG.error("retention.taken", events=taken, of=self._takes())
        return len(done.removed), done.bytes

    def _first_needed(self, step: Step, needs: Sequence[Need]) -> dict[str, int]:
        """Asked again when nobody reads: a consumer may have come since the step was made."""
        types = [TypeCount(name, 0, 0, 0, 0) for name in step.through]
        return floors(types, [*needs, *self._needs()])

    def _needs(self) -> list[Need]:
        """What each durable consumer has not acknowledged."""
        found: list[Need] = []
        for name, consumer in self._bus.consumers.items():
            machine = consumer.machine
            oldest = machine.oldest_unsettled()
            first = machine.position + 1 if oldest is None else oldest.sequence
            found.append(Need(name, machine.state.selection.types, first))
        return found

    async def _marks(self) -> Marks:
        now, limits, engine = self._clock.wall_ns(), self._limits, self._bus.engine
        aged = unacked = 0
        if limits.max_age_ns is not None:
            aged = await engine.first_stored_at(now - limits.max_age_ns)
        if limits.unacked_max_age_ns is not None:
            unacked = await engine.first_stored_at(now - limits.unacked_max_age_ns)
        young = min(await engine.first_stored_at(now - limits.keep_ns), self._young())
        return Marks(aged, unacked, young, engine.bounds.oldest)

    def _young(self) -> int:
        """The first event that is too young to go even if the wall clock was set forward, while the bus runs or before."""
        now, keep_s = self._clock.monotonic(), self._limits.keep_ns / 1e9
        self._seen.append((now, self._bus.bounds.newest))
        while len(self._seen) > 1 and self._seen[1][0] <= now - keep_s:
            self._seen.popleft()
        return self._seen[0][1] + 1

    def _tell(self, counts: Sequence[TypeCount], marks: Marks, needs: Sequence[Need]) -> None:
        held_back = tuple(waits_for(counts, self._limits, marks, needs))
        if held_back != self._held_back:
            _LOG.warning("retention.held_back", consumers=", ".join(held_back) or "nobody")
        self._held_back = held_back
        if held_back:
            who = ", ".join(held_back)
            self._conditions.set(HELD_BACK, f"events beyond the limits are kept for what {who} has not acknowledged")
        else:
            self._conditions.clear(HELD_BACK)
        takes = self._takes()
        if takes:
            self._conditions.set(TAKEN, f"removed before they were acknowledged, and not yet told: {takes}")
        else:
            self._conditions.clear(TAKEN)

    def _takes(self) -> str:
        """The consumers that were taken events from and have not gone on since they were told."""
        lost = ((name, each.machine.lost) for name, each in sorted(self._bus.consumers.items()))
        return ", ".join(f"{name} {gap.count} events up to {gap.last}" for name, gap in lost if gap is not None)
