"""How the bus works: what is stored and when, who reads what, and what is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from minhos_mesh.event_bus.consumers import ConsumerMemory, RunningConsumer
from minhos_mesh.event_bus.domain.errors import PositionLost
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Appended,
    Bounds,
    ConsumerState,
    EventQuery,
    NewEvent,
    StoredEvent,
    TypeCount,
)
from minhos_mesh.event_bus.domain.redelivery import DEFAULT_ACK_DEADLINE_NS, DEFAULT_MAX_ATTEMPTS
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.readers import EphemeralReader, Reader, SlowReaderPolicy
from minhos_mesh.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins: the first of these that is set, else from now on."""

    beginning: bool = False
    after_sequence: int | None = None
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Durable:
    """How a durable reader is remembered; None stands for the default of the bus."""

    name: str
    member: str
    max_attempts: int | None = None
    ack_deadline_ns: int | None = None
    replace_selection: bool = False
    """Whether another selection than the remembered one is taken over."""


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """Where one durable consumer stands; `lag` counts matching events that are not acknowledged."""

    name: str
    types: tuple[str, ...]
    members: int
    lag: int
    oldest: StoredEvent | None
    in_flight: int
    redelivered: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What the bus has done: stored since the journal began, the rest since it started."""

    types: tuple[TypeCount, ...]
    consumers: tuple[ConsumerReport, ...]
    bounds: Bounds
    delivered: int
    refused: int
    failed: int
    ephemeral_readers: int


@dataclass(slots=True)
class _Counts:
    delivered: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class EventBus:
    """The bus over one engine. Use as an async context manager; leaving writes down what consumers remember."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._memory = ConsumerMemory(engine)
        self._consumers: dict[str, RunningConsumer] = {}
        self._ephemeral: set[EphemeralReader] = set()
        self._opening = asyncio.Lock()
        self._counts = _Counts()

    async def __aenter__(self) -> Self:
        for state in await self._engine.load_consumers():
            await self._run_consumer(state)
        self._engine.on_append(self._on_append)
        return self

    async def __aexit__(self, *_: object) -> None:
        for consumer in self._consumers.values():
            await consumer.close()
        await self._memory.flush()
        self._memory.close()

    async def publish(self, events: Sequence[NewEvent]) -> Appended:
        """Stores all or none; returns once they are on disk. Raises EventConflict, StorageError."""
        return await self._engine.append(events)

    def note_refused(self, event_type: str) -> None:
        """Counts an event that was refused before it came here."""
        self._counts.refused[event_type] += 1

    def note_delivered(self, count: int) -> None:
        """Counts events that were sent to a reader."""
        self._counts.delivered += count

    @property
    def bounds(self) -> Bounds:
        """Oldest and newest sequence held."""
        return self._engine.bounds

    async def open_ephemeral(self, selection: Selection, start: Start, credit: int, policy: SlowReaderPolicy) -> Reader:
        """Opens a subscription that is not remembered. Raises PositionLost."""
        after = await self._position(start)
        reader = EphemeralReader(self._engine, selection, policy, after, credit)
        self._ephemeral.add(reader)
        return reader

    async def open_durable(self, selection: Selection, start: Start, credit: int, durable: Durable) -> Reader:
        """Opens or goes on with a remembered subscription, once its beginning is on disk.

        Raises ConsumerConflict, and PositionLost for a new one.
        """
        async with self._opening:
            state = ConsumerState(
                name=durable.name,
                selection=selection,
                max_attempts=durable.max_attempts or DEFAULT_MAX_ATTEMPTS,
                ack_deadline_ns=durable.ack_deadline_ns or DEFAULT_ACK_DEADLINE_NS,
                position=0,
            )
            consumer = self._consumers.get(durable.name)
            if consumer is None:
                state = replace(state, position=await self._position(start))
                await self._engine.save_consumers([state], [])
                consumer = await self._run_consumer(state)
            else:
                consumer.adopt(state, replace_selection=durable.replace_selection)
            return consumer.join(durable.member, credit)

    def close_reader(self, reader: Reader, *, clean: bool) -> None:
        """Ends a subscription."""
        if isinstance(reader, EphemeralReader):
            self._ephemeral.discard(reader)
        reader.close(clean=clean)

    async def list_events(self, query: EventQuery) -> tuple[list[StoredEvent], int | None]:
        """One page of stored events, and where the next page goes on; None when this was the last."""
        events: list[StoredEvent] = []
        low, high = query.after_sequence, query.before_sequence
        while True:
            page = await self._engine.list_events(
                replace(query, after_sequence=low, before_sequence=high, limit=query.limit - len(events))
            )
            events += page.events
            bounds = self._engine.bounds
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

    async def stats(self) -> Stats:
        """What was published, delivered and failed, and where the consumers stand."""
        return Stats(
            types=tuple(await self._engine.type_counts()),
            consumers=tuple([await self._report(self._consumers[name]) for name in sorted(self._consumers)]),
            bounds=self._engine.bounds,
            delivered=self._counts.delivered,
            refused=self._counts.refused.total(),
            failed=sum(consumer.machine.failed for consumer in self._consumers.values()),
            ephemeral_readers=len(self._ephemeral),
        )

    def _on_append(self) -> None:
        for consumer in self._consumers.values():
            consumer.step()
        for reader in self._ephemeral:
            reader.wakeup.set()

    async def _position(self, start: Start) -> int:
        """Sequence behind which a subscription with this start begins."""
        bounds = self._engine.bounds
        if start.beginning:
            return bounds.oldest - 1
        if start.after_sequence is not None:
            if not bounds.oldest - 1 <= start.after_sequence <= bounds.newest:
                raise PositionLost(start.after_sequence, bounds.oldest, bounds.newest)
            return start.after_sequence
        if start.time_ns is not None:
            return await self._engine.first_stored_at(start.time_ns) - 1
        return bounds.newest

    async def _run_consumer(self, state: ConsumerState) -> RunningConsumer:
        held = await self._engine.fetch([sequence for sequence, _ in state.unsettled])
        consumer = RunningConsumer(state, held, self._engine, self._clock, self._memory)
        self._consumers[state.name] = consumer
        return consumer

    async def _report(self, consumer: RunningConsumer) -> ConsumerReport:
        machine = consumer.machine
        selection = machine.state.selection
        behind = await self._engine.count(machine.position, selection)
        oldest = machine.oldest_unsettled()
        if oldest is None and behind:
            page = await self._engine.read(machine.position, selection, 1)
            oldest = page.events[0] if page.events else None
        return ConsumerReport(
            name=consumer.name,
            types=selection.types,
            members=len(consumer.readers),
            lag=machine.unsettled + behind,
            oldest=oldest,
            in_flight=machine.in_flight,
            redelivered=machine.redelivered,
            dead_letters=machine.dead_count,
        )
