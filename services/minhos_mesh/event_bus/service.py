"""How the bus works: what is stored and when, who reads what, and what is counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from minhos_mesh.event_bus.consumers import ConsumerMemory, RunningConsumer, lost_through
from minhos_mesh.event_bus.domain.errors import PositionLost
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Appended,
    Bounds,
    Change,
    ConsumerState,
    EventQuery,
    NewEvent,
    RemovedEvent,
    StoredEvent,
)
from minhos_mesh.event_bus.domain.redelivery import DEFAULT_ACK_DEADLINE_NS, DEFAULT_MAX_ATTEMPTS
from minhos_mesh.event_bus.engines.interface import Engine, Told
from minhos_mesh.event_bus.event_types import EventTypes
from minhos_mesh.event_bus.gate import Gate
from minhos_mesh.event_bus.lag import Lag
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.event_bus.readers import Beginning, EphemeralReader, Reader, SlowReaderPolicy
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions

_LOG: Final = logging.getLogger(__name__)

MAX_PAGE_BYTES: Final = 2 * 1024 * 1024
"""Encoded events of one page; with one event more it still fits into what every client takes."""
_READ_AT_ONCE: Final = 100

CONSUMERS_AHEAD: Final = "CONSUMERS_AHEAD"
"""The journal ends before what its consumers had: the disk, or whatever keeps it, lost what was acknowledged."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins: the first of these that is set, else from now on."""

    beginning: bool = False
    after_sequence: int | None = None
    time_ns: int | None = None
    latest_per_subject: bool = False
    field: str = "start.after_sequence"
    """Where `after_sequence` stands in what was asked."""


@dataclass(frozen=True, slots=True)
class Durable:
    """How a durable reader is remembered; None stands for the default of the bus."""

    name: str
    member: str
    max_attempts: int | None = None
    ack_deadline_ns: int | None = None
    replace_selection: bool = False
    """Whether another selection than the remembered one is taken over."""


@dataclass(slots=True)
class Counts:
    """What was delivered and refused since the bus started."""

    delivered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed_of_deleted: int = 0


class EventBus:
    """The bus over one engine. Use as an async context manager; leaving writes down what consumers remember."""

    def __init__(
        self, engine: Engine, clock: Clock, conditions: Conditions | None = None, types: EventTypes | None = None
    ) -> None:
        self.engine = engine
        self.types = types or EventTypes(Payloads(), engine, None, clock)
        self.gate = Gate()
        self.memory = ConsumerMemory(engine)
        self.consumers: dict[str, RunningConsumer] = {}
        self.readers: dict[EphemeralReader, None] = {}
        self.lag = Lag(engine, self.gate, self.consumers)
        self.counts = Counts()
        self.started_ns = clock.wall_ns()
        """Since when it is counted what is not written down."""
        self.changing = asyncio.Lock()
        """Held while it is changed which consumers there are, and where they stand."""
        self._clock = clock
        self._conditions = conditions or Conditions()

    async def __aenter__(self) -> Self:
        await self.types.load()
        for state in await self.engine.load_consumers():
            await self._run_consumer(state)
        self._look_for_a_lost_tail()
        self.engine.on_append(self._on_append)
        self.lag.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lag.close()
        for consumer in self.consumers.values():
            await consumer.close()
        await self.memory.flush()
        self.memory.close()

    async def publish(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> Appended:
        """Stores all or none; returns once they are on disk. Raises EventConflict, SequenceMismatch, StorageError."""
        return await self.engine.append(events, expected)

    def submit(self, events: Sequence[NewEvent], expected: Mapping[str, int], told: Told) -> None:
        """As `publish`, and returns at once; see Engine."""
        self.engine.submit(events, expected, told)

    def note_refused(self, event_type: str) -> None:
        """Counts an event that was refused before it came here."""
        if len(self.counts.refused) < 1000 or event_type in self.counts.refused:
            self.counts.refused[event_type] += 1
        else:
            self.counts.refused["other"] += 1

    def note_delivered(self, count: int) -> None:
        """Counts events that were sent to a reader."""
        self.counts.delivered += count

    def note_removed(self, removed: Sequence[RemovedEvent]) -> int:
        """Tells everyone what is gone from the journal; gives how many events durable consumers lose by it."""
        self.lag.catch_up()
        for reader in self.readers:
            reader.note_removed(removed)
        return sum(consumer.note_removed(removed) for consumer in self.consumers.values())

    @property
    def bounds(self) -> Bounds:
        """Oldest and newest sequence held."""
        return self.engine.bounds

    async def open_ephemeral(self, selection: Selection, start: Start, credit: int, policy: SlowReaderPolicy) -> Reader:
        """Opens a subscription that is not remembered. Raises PositionLost."""
        async with self.gate.reading():
            beginning = await self.position(selection, start)
            reader = EphemeralReader(self.engine, self.gate, selection, policy, beginning, credit)
            self.readers[reader] = None
        return reader

    async def open_durable(self, selection: Selection, start: Start, credit: int, durable: Durable) -> Reader:
        """Opens or goes on with a remembered subscription, once its beginning is on disk.

        Raises ConsumerConflict, and PositionLost for a new one.
        """
        async with self.changing:
            state = ConsumerState(
                name=durable.name,
                selection=selection,
                max_attempts=durable.max_attempts or DEFAULT_MAX_ATTEMPTS,
                ack_deadline_ns=durable.ack_deadline_ns or DEFAULT_ACK_DEADLINE_NS,
                position=0,
                created_ns=self._clock.wall_ns(),
            )
            consumer = self.consumers.get(durable.name)
            if consumer is None:
                consumer = await self._create(state, start)
            else:
                consumer.adopt(state, replace_selection=durable.replace_selection)
            self.lag.count(consumer.name)
            return consumer.join(durable.member, credit)

    def close_reader(self, reader: Reader, *, clean: bool) -> None:
        """Ends a subscription."""
        if isinstance(reader, EphemeralReader):
            self.readers.pop(reader, None)
        reader.close(clean=clean)

    async def list_events(self, query: EventQuery) -> tuple[list[StoredEvent], int | None]:
        """One page of stored events, and where the next page goes on; None when this was the last. A page ends at its limit,
        or with the event that makes it larger than MAX_PAGE_BYTES.
        """
        events: list[StoredEvent] = []
        held = 0
        low, high = query.after_sequence, query.before_sequence
        while True:
            page = await self.engine.list_events(
                replace(
                    query,
                    after_sequence=low,
                    before_sequence=high,
                    limit=min(query.limit - len(events), _READ_AT_ONCE),
                )
            )
            for event in page.events:
                if held > MAX_PAGE_BYTES:
                    return events, events[-1].sequence
                events.append(event)
                held += len(event.envelope)
            bounds = self.engine.bounds
            if query.ascending:
                low = page.through
                ended = low >= bounds.newest or (high is not None and low >= high - 1)
            else:
                high = page.through
                ended = high <= max(low + 1, bounds.oldest)
            if ended:
                return events, None
            if len(events) >= query.limit:
                return events, page.through

    async def position(self, selection: Selection, start: Start) -> Beginning:
        """Where a subscription with this start begins. Raises PositionLost."""
        bounds = self.engine.bounds
        if start.beginning:
            return Beginning(bounds.oldest - 1)
        if start.latest_per_subject:
            return Beginning(0, bounds.newest)
        if start.after_sequence is not None:
            gone = lost_through(self.engine, selection)
            if not gone <= start.after_sequence <= bounds.newest:
                raise PositionLost(start.field, start.after_sequence, max(gone + 1, bounds.oldest), bounds.newest)
            return Beginning(start.after_sequence)
        if start.time_ns is not None:
            return Beginning(await self.engine.first_stored_at(start.time_ns) - 1)
        return Beginning(bounds.newest)

    def _on_append(self) -> None:
        self.lag.look()
        for consumer in self.consumers.values():
            consumer.step()
        for reader in self.readers:
            if reader.credit:  # else it is woken when it has some again, and costs nothing until then
                reader.wakeup.set()

    async def _create(self, state: ConsumerState, start: Start) -> RunningConsumer:
        """Remembers a new consumer. Nothing is removed before it is here, so that it misses nothing unseen."""
        async with self.gate.reading():
            beginning = await self.position(state.selection, start)
            state = replace(
                state,
                position=beginning.after,
                snapshot_through=beginning.snapshot_through,
                accounted_through=max(self.engine.horizons.values(), default=0),
            )
            await self.engine.save(Change(consumers=[state]))
            return await self._run_consumer(state)

    async def _run_consumer(self, state: ConsumerState) -> RunningConsumer:
        consumer = RunningConsumer(state, self.engine, self.gate, self._clock, self.memory)
        await consumer.recover()
        self.consumers[state.name] = consumer
        return consumer

    def _look_for_a_lost_tail(self) -> None:
        ahead = {name: each.ahead for name, each in self.consumers.items() if each.ahead is not None}
        if not ahead:
            return
        newest = self.engine.bounds.newest
        who = ", ".join(f"{name} had {position}" for name, position in sorted(ahead.items()))
        text = f"the journal ends with event {newest}, but {who}: what lies between is lost"
        _LOG.error("%s", text)
        self._conditions.set(CONSUMERS_AHEAD, text)
