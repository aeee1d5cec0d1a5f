"""Decides how it is known how many events a consumer has still to come to: counted once, then kept by what comes and goes.

Counting a million events on disk takes most of a second; adding what is appended costs next to nothing, since the newest
events are in memory and all consumers share one look at them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from minhos_mesh.event_bus.consumers import RunningConsumer
from minhos_mesh.event_bus.domain.patterns import Selection, matches_any
from minhos_mesh.event_bus.domain.records import StoredEvent
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.gate import Gate
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import StorageError

_LOG: Final = get_logger("event_bus.lag")

LOOK_EVERY: Final = 1_024
"""Appended events after which they are looked at; far fewer than are kept in memory."""

PIECE: Final = 100_000
"""Sequences that are counted in one go, so that nobody waits for it who removes."""


class Lag:
    """Counts for all consumers of a bus. Call `look` when something was appended, `count` for one that is new; `close` at the end."""

    def __init__(self, engine: Engine, gate: Gate, consumers: Mapping[str, RunningConsumer]) -> None:
        self._engine, self._gate, self._consumers = engine, gate, consumers
        self._through = engine.bounds.newest
        self._counting: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Begins to count for everybody, so that nobody has to wait who asks later."""
        self._through = self._engine.bounds.newest
        for name in self._consumers:
            self.count(name)

    async def close(self) -> None:
        """Ends what is being counted."""
        tasks = list(self._counting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Takes note of what was appended, when it is enough to be worth a look."""
        if self._engine.bounds.newest - self._through >= LOOK_EVERY:
            self.catch_up()

    def catch_up(self) -> None:
        """Takes note of everything that was appended. What is in memory no longer makes everybody count anew when asked."""
        newest = self._engine.bounds.newest
        if newest <= self._through:
            return
        events = self._engine.recent(self._through, newest - self._through)
        self._through = newest
        if events is None or not events or events[-1].sequence != newest:
            for consumer in self._consumers.values():
                consumer.behind.forget()
                self.count(consumer.name)
            return
        by_type = Counter(event.type for event in events)
        for consumer in self._consumers.values():
            consumer.behind.came(_matching(consumer.machine.state.selection, events, by_type))

    async def behind(self, consumer: RunningConsumer) -> int:
        """How many events that it wants lie behind where it reads. Raises StorageError."""
        for _ in range(3):
            self.catch_up()
            if consumer.behind.known:
                return consumer.behind.value
            await asyncio.shield(self._counted(consumer.name))
        return await self._engine.count(consumer.reached, consumer.machine.state.selection)

    def count(self, name: str) -> None:
        """Begins to count for a consumer of which the number is not known."""
        if not self._consumers[name].behind.known:
            self._counted(name)

    def _counted(self, name: str) -> asyncio.Task[None]:
        if name not in self._counting:
            task = self._counting[name] = asyncio.create_task(self._count_one(name), name=f"event_bus-lag-{name}")
            task.add_done_callback(lambda _: self._counting.pop(name, None))
        return self._counting[name]

    async def _count_one(self, name: str) -> None:
        """Counts on disk what is there now, in pieces; what comes and goes meanwhile is taken into account."""
        self.catch_up()
        consumer, through = self._consumers.get(name), self._through
        if consumer is None:
            return
        behind, counted = consumer.behind, consumer.reached
        begun = behind.begin(through)
        while counted < through:
            async with self._gate.reading():
                low = max(counted, consumer.reached)
                counted = min(low + PIECE, through)
                behind.count_through(counted)
                try:
                    found = await self._engine.count(low, consumer.machine.state.selection, counted)
                except StorageError as error:
                    _LOG.error("lag.not_counted", consumer=name, because=str(error))
                    return
                if behind.round != begun:
                    return
                behind.came(found)
        behind.end()


def _matching(selection: Selection, events: Sequence[StoredEvent], by_type: Mapping[str, int]) -> int:
    if selection.subject is None:
        return sum(count for name, count in by_type.items() if matches_any(selection.types, name))
    return _of_subject(selection, events)


def _of_subject(selection: Selection, events: Iterable[StoredEvent]) -> int:
    return sum(selection.matches(event.type, event.subject) for event in events)
