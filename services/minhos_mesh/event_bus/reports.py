"""What the bus tells about itself: consumers, readers, types, and what is held."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.event_bus.consumers import RunningConsumer
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import Bounds, Pause, StoredEvent, TypeCount
from minhos_mesh.event_bus.readers import EphemeralReader, SlowReaderPolicy
from minhos_mesh.event_bus.service import EventBus


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One connected member."""

    name: str
    in_flight: int
    credit: int


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """Where one durable consumer stands; `lag` counts matching events that are not acknowledged."""

    name: str
    selection: Selection
    position: int
    lag: int
    oldest: StoredEvent | None
    in_flight: int
    delivered: int
    redelivered: int
    failed: int
    dead_letters: int
    """How many ever."""
    waiting_letters: int
    requeued: int
    max_attempts: int
    ack_deadline_ns: int
    members: tuple[MemberReport, ...]
    pause: Pause | None
    taken: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class ReaderReport:
    """One ephemeral reader."""

    selection: Selection
    delivered: int
    skipped: int
    lag: int
    latest_per_subject: bool
    credit: int


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What retention did since the bus started, and whom it waits for."""

    removed: int = 0
    checked_ns: int | None = None
    held_back_by: tuple[str, ...] = ()
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What the bus has done: stored since the journal began, the rest since it started."""

    types: tuple[TypeCount, ...]
    consumers: tuple[ConsumerReport, ...]
    readers: tuple[ReaderReport, ...]
    bounds: Bounds
    delivered: int
    refused: dict[str, int]
    failed: int
    retention: RetentionReport
    started_ns: int


async def stats(bus: EventBus, retention: RetentionReport) -> Stats:
    """What was published, delivered and failed, and where everybody stands."""
    return Stats(
        types=tuple(await bus.engine.type_counts()),
        consumers=tuple(await consumer_reports(bus, sorted(bus.consumers))),
        readers=tuple(_reader(bus, reader) for reader in bus.readers),
        bounds=bus.engine.bounds,
        delivered=bus.counts.delivered,
        refused=dict(bus.counts.refused),
        failed=bus.counts.failed_of_deleted + sum(each.machine.failed for each in bus.consumers.values()),
        retention=retention,
        started_ns=bus.started_ns,
    )


async def consumer_reports(bus: EventBus, names: list[str]) -> list[ConsumerReport]:
    """The reports of these consumers; one that is deleted meanwhile is left out."""
    waiting = await bus.engine.count_dead_letters()
    found = [bus.consumers[name] for name in names if name in bus.consumers]
    return [await _consumer(bus, consumer, waiting.get(consumer.name, 0)) for consumer in found]


async def _consumer(bus: EventBus, consumer: RunningConsumer, waiting_letters: int) -> ConsumerReport:
    machine = consumer.machine
    selection = machine.state.selection
    behind = await bus.lag.behind(consumer)
    oldest = machine.oldest_unsettled()
    if oldest is None and behind:
        oldest = await consumer.next_wanted()
    held, letters = machine.held()
    return ConsumerReport(
        name=consumer.name,
        selection=selection,
        position=machine.position,
        lag=len(held) + len(letters) + behind,
        oldest=oldest,
        in_flight=machine.in_flight,
        delivered=machine.delivered,
        redelivered=machine.redelivered,
        failed=machine.failed,
        dead_letters=machine.dead_count,
        waiting_letters=waiting_letters,
        requeued=len(letters),
        max_attempts=machine.state.max_attempts,
        ack_deadline_ns=machine.state.ack_deadline_ns,
        members=tuple(
            MemberReport(name, len(member.in_flight), member.credit) for name, member in machine.members.items()
        ),
        pause=machine.pause,
        taken=machine.lost_count,
        created_ns=machine.state.created_ns,
    )


def _reader(bus: EventBus, reader: EphemeralReader) -> ReaderReport:
    return ReaderReport(
        selection=reader.selection,
        delivered=reader.delivered,
        skipped=reader.skipped,
        lag=max(0, bus.engine.bounds.newest - reader.position),
        latest_per_subject=reader.policy is SlowReaderPolicy.LATEST_PER_SUBJECT,
        credit=reader.credit,
    )
