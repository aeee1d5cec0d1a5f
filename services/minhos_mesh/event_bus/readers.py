"""What one open subscription gets next: the readers that are not remembered, and what all readers share."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from minhos_mesh.event_bus.domain.latest import Gap, LatestPerSubject
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import StoredEvent
from minhos_mesh.event_bus.engines.interface import Engine

BATCH_EVENTS: Final = 256
BATCH_BYTES: Final = 512 * 1024


class SlowReaderPolicy(enum.Enum):
    """What an ephemeral reader gets that is slower than the events."""

    KEEP_ALL_WITH_GAP = enum.auto()
    LATEST_PER_SUBJECT = enum.auto()


@dataclass(frozen=True, slots=True)
class Output:
    """What goes to a reader next; the gap lies before the events."""

    events: tuple[tuple[StoredEvent, int], ...] = ()
    gap: Gap | None = None


class Reader(Protocol):
    """One open subscription."""

    after_sequence: int
    newest_sequence: int

    def grant(self, credit: int) -> None:
        """Lets that many more events be sent."""

    def ack(self, sequences: Sequence[int]) -> None:
        """Settles events. Raises NotDelivered."""

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """Notes a failed attempt. Raises NotDelivered."""

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
        self, engine: Engine, selection: Selection, policy: SlowReaderPolicy, after_sequence: int, credit: int
    ) -> None:
        self.after_sequence = after_sequence
        self.newest_sequence = engine.bounds.newest
        self.delivered = 0
        self.skipped = 0
        self.wakeup = asyncio.Event()
        self._engine = engine
        self._selection = selection
        self._latest = LatestPerSubject() if policy is SlowReaderPolicy.LATEST_PER_SUBJECT else None
        self._position = after_sequence
        self._credit = credit
        self._interrupted = False

    def grant(self, credit: int) -> None:
        """See Reader."""
        self._credit += credit
        self.wakeup.set()

    def ack(self, sequences: Sequence[int]) -> None:
        """Nothing is remembered, so nothing is settled."""

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """Nothing is remembered, so nothing is tried again."""

    def interrupt(self) -> None:
        """See Reader."""
        self._interrupted = True
        self.wakeup.set()

    def close(self, *, clean: bool) -> None:
        """Nothing is held for it."""

    async def next_output(self, timeout_s: float) -> Output | None:
        """See Reader."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self.wakeup.clear()
            output = await self._pull() if self._credit else None
            if output is not None:
                self._credit -= len(output.events)
                self.delivered += len(output.events)
                self.skipped += output.gap.skipped if output.gap else 0
                return output
            if self._interrupted or not await wait_for(self.wakeup, deadline - asyncio.get_running_loop().time()):
                return None

    async def _pull(self) -> Output | None:
        lost = self._lost()
        if lost is not None:
            return Output(gap=lost)
        if self._latest is not None:
            return await self._pull_latest(self._latest)
        while self._position < self._engine.bounds.newest:
            events, through = await self._matching(min(self._credit, BATCH_EVENTS))
            count = batch_length(events, self._credit)
            self._position = through if count == len(events) else events[count - 1].sequence
            if count:
                return Output(tuple((event, 1) for event in events[:count]))
        return None

    async def _pull_latest(self, latest: LatestPerSubject) -> Output | None:
        while self._position < self._engine.bounds.newest:
            events, self._position = await self._matching(1000)
            latest.offer(events)
        if not latest:
            return None
        events, gap = latest.take(min(self._credit, BATCH_EVENTS))
        return Output(tuple((event, 1) for event in events), gap)

    async def _matching(self, limit: int) -> tuple[list[StoredEvent], int]:
        recent = self._engine.recent(self._position, limit)
        if recent is None:
            page = await self._engine.read(self._position, self._selection, limit)
            return list(page.events), page.through
        through = recent[-1].sequence if recent else self._position
        return [event for event in recent if self._selection.matches(event.type, event.subject)], through

    def _lost(self) -> Gap | None:
        oldest = self._engine.bounds.oldest
        if self._position + 1 >= oldest:
            return None
        gap = Gap(self._position + 1, oldest - 1, 0)
        self._position = oldest - 1
        return gap
