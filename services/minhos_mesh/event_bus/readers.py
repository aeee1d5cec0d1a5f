"""What one open subscription gets next: the readers that are not remembered, and what all readers share."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from minhos_mesh.event_bus.domain.consumer import MOST_CREDIT
from minhos_mesh.event_bus.domain.errors import LimitReached
from minhos_mesh.event_bus.domain.latest import Gap, GapCause, LatestPerSubject
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import RemovedEvent, StoredEvent
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.gate import Gate

BATCH_EVENTS: Final = 256
BATCH_BYTES: Final = 512 * 1024


class SlowReaderPolicy(enum.Enum):
    """What an ephemeral reader gets that is slower than the events."""

    KEEP_ALL_WITH_GAP = enum.auto()
    LATEST_PER_SUBJECT = enum.auto()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way to a reader; `attempt` counts from 1."""

    event: StoredEvent
    attempt: int = 1
    requeued: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """What goes to a reader next; the gap lies before the events."""

    events: tuple[Outgoing, ...] = ()
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a subscription begins: behind a sequence; up to `snapshot_through` only with the newest per type and subject."""

    after: int
    snapshot_through: int = 0


class Reader(Protocol):
    """One open subscription."""

    after_sequence: int
    newest_sequence: int

    def grant(self, credit: int) -> None:
        """Lets that many more events be sent. Raises LimitReached."""

    def ack(self, sequences: Sequence[int]) -> None:
        """Settles events. Raises NotDelivered."""

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """Notes a failed attempt. Raises NotDelivered."""

    def extend(self, sequences: Sequence[int]) -> None:
        """Begins the deadlines of events anew. Raises NotDelivered."""

    async def next_output(self, timeout_s: float) -> Output | None:
        """What goes out next, as soon as there is something; None when there was nothing for so long."""

    def interrupt(self) -> None:
        """Gives the reader nothing more that is to be settled; `next_output` returns at once when it has nothing."""

    def close(self, *, clean: bool) -> None:
        """Ends the subscription; `clean` when the reader said goodbye and did not vanish."""


async def wait_for(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits until the event is set, at most so long; says whether it was."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False


def batch_length(events: Sequence[StoredEvent], limit: int) -> int:
    """How many of these events fit into one message to a reader: at least one, if there is one."""
    size = 0
    for count, event in enumerate(events[: min(limit, BATCH_EVENTS)]):
        size += len(event.envelope)
        if size > BATCH_BYTES and count:
            return count
    return min(len(events), limit, BATCH_EVENTS)


class EphemeralReader:
    """A reader that is not remembered: it pulls from the journal as fast as its credit lets it."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        selection: Selection,
        policy: SlowReaderPolicy,
        beginning: Beginning,
        credit: int,
    ) -> None:
        self.after_sequence = beginning.after
        self.newest_sequence = max(engine.bounds.newest, beginning.snapshot_through)
        self.selection = selection
        self.policy = policy
        self.position = beginning.after
        self.credit = credit
        self.delivered = 0
        self.skipped = 0
        self.wakeup = asyncio.Event()
        self._engine = engine
        self._gate = gate
        self._latest = LatestPerSubject() if policy is SlowReaderPolicy.LATEST_PER_SUBJECT else None
        self._snapshot_through = beginning.snapshot_through
        self._removed: Gap | None = None
        self._interrupted = False

    def grant(self, credit: int) -> None:
        """See Reader."""
        if self.credit + credit > MOST_CREDIT:
            raise LimitReached("unused credit of a reader", self.credit + credit, MOST_CREDIT)
        self.credit += credit
        self.wakeup.set()

    def ack(self, sequences: Sequence[int]) -> None:
        """Nothing is remembered, so nothing is settled."""

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """Nothing is remembered, so nothing is tried again."""

    def extend(self, sequences: Sequence[int]) -> None:
        """Nothing is remembered, so nothing has a deadline."""

    def interrupt(self) -> None:
        """See Reader."""
        self._interrupted = True
        self.wakeup.set()

    def close(self, *, clean: bool) -> None:
        """Nothing is held for it."""

    def note_removed(self, removed: Iterable[RemovedEvent]) -> None:
        """Takes note that events are gone from the journal; what it has not come to yet is told it as a gap."""
        reached = max(self.position, self._snapshot_through)
        lost = [e.sequence for e in removed if e.sequence > reached and self.selection.matches(e.type, e.subject)]
        if lost:
            gap = Gap(lost[0], lost[-1], len(lost), GapCause.RETENTION)
            self._removed = gap if self._removed is None else self._removed.joined(gap)
            self.wakeup.set()

    async def next_output(self, timeout_s: float) -> Output | None:
        """See Reader."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self.wakeup.clear()
            output = await self._pull() if self.credit else None
            if output is not None:
                self.credit -= len(output.events)
                self.delivered += len(output.events)
                self.skipped += output.gap.skipped if output.gap else 0
                return output
            if self._interrupted or not await wait_for(self.wakeup, deadline - asyncio.get_running_loop().time()):
                return None

    async def _pull(self) -> Output | None:
        if self._removed is not None:
            gap, self._removed = self._removed, None
            return Output(gap=gap)
        if self._latest is not None:
            return await self._pull_latest(self._latest)
        while self.position < self._engine.bounds.newest:
            events = await self._next(min(self.credit, BATCH_EVENTS), whole=False)
            if events:
                return Output(tuple(Outgoing(event) for event in events))
        return None

    async def _pull_latest(self, latest: LatestPerSubject) -> Output | None:
        while self.position < self._engine.bounds.newest:
            latest.offer(await self._next(1000, whole=True))
        if not latest:
            return None
        events, gap = latest.take(min(self.credit, BATCH_EVENTS))
        return Output(tuple(Outgoing(event) for event in events), gap)

    async def _next(self, limit: int, *, whole: bool) -> Sequence[StoredEvent]:
        """The next matching events, from memory or disk; the position moves on before any more can be removed."""
        recent = self._engine.recent(self.position, limit) if self.position >= self._snapshot_through else None
        if recent is not None:
            through = recent[-1].sequence if recent else self.position
            matching = [event for event in recent if self.selection.matches(event.type, event.subject)]
            return self._advance(matching, through, whole=whole)
        async with self._gate.reading():
            if self.position < self._snapshot_through:
                page = await self._engine.latest(self.selection, self.position, self._snapshot_through, limit)
            else:
                page = await self._engine.read(self.position, self.selection, limit)
            return self._advance(page.events, page.through, whole=whole)

    def _advance(self, events: Sequence[StoredEvent], through: int, *, whole: bool) -> Sequence[StoredEvent]:
        count = len(events) if whole else batch_length(events, BATCH_EVENTS)
        self.position = through if count == len(events) else events[count - 1].sequence
        return events[:count]
