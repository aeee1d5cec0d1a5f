"""How a durable consumer runs: fed from the journal, asked by its members, driven by commits, answers and one timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from minhos_mesh.event_bus.domain.consumer import Consumer, Delivery
from minhos_mesh.event_bus.domain.errors import ConsumerConflict
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import ConsumerState, StoredEvent
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.readers import BATCH_EVENTS, Output, batch_length, wait_for
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.storage import StorageError

_LOG: Final = logging.getLogger(__name__)

FLUSH_DELAY_S: Final = 0.02
"""An acknowledgement is on disk after this at the latest; a bus killed before delivers the event once more."""


RETRY_DELAY_S: Final = 0.5
"""How long to wait before a failed reading or writing is tried again."""


class ConsumerMemory:
    """Writes down what the consumers remember: all changes of a moment in one write, one write at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed: dict[str, RunningConsumer] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[bool] | None = None

    def note(self, consumer: RunningConsumer) -> None:
        """Takes note that the consumer changed; it is written down soon."""
        self._changed[consumer.name] = consumer
        self._set_timer(FLUSH_DELAY_S)

    async def flush(self) -> bool:
        """Returns once everything noted so far is on disk; false when it could not be written."""
        while self._changed or self._writing is not None:
            if self._writing is None:
                self._start()
            if self._writing is not None and not await asyncio.shield(self._writing):
                return False
        return True

    def close(self) -> None:
        """Ends the waiting for the next moment; what is noted and not flushed stays unwritten."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, delay_s: float) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writing = asyncio.create_task(self._write(), name="event_bus-consumer-memory")

    async def _write(self) -> bool:
        changed, self._changed = self._changed, {}
        letters = {consumer: consumer.machine.take_dead() for consumer in changed.values()}
        dead = [letter for some in letters.values() for letter in some]
        try:
            await self._engine.save_consumers([consumer.machine.remembered() for consumer in letters], dead)
        except StorageError as error:
            _LOG.error("what the consumers remember could not be written and is kept: %s", error)
            for consumer, some in letters.items():
                consumer.machine.put_back_dead(some)
            self._changed = changed | self._changed
            return False
        else:
            return True
        finally:
            self._writing = None
            if self._changed:
                self._set_timer(RETRY_DELAY_S)


class RunningConsumer:
    """One durable consumer with its connected members."""

    def __init__(
        self, state: ConsumerState, held: Sequence[StoredEvent], engine: Engine, clock: Clock, memory: ConsumerMemory
    ) -> None:
        self.name = state.name
        self.readers: dict[str, MemberReader] = {}
        self._engine = engine
        self._clock = clock
        self._memory = memory
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._build(state, held)

    def _build(self, state: ConsumerState, held: Sequence[StoredEvent]) -> None:
        self.machine = Consumer(state, self._clock.wall_ns)
        failures = dict(state.unsettled)
        for event in held:
            if state.selection.matches(event.type, event.subject):
                self.machine.offer(event, failures.get(event.sequence, ()))

    def adopt(self, state: ConsumerState, *, replace_selection: bool) -> None:
        """Takes over new limits while nobody is connected, and a new selection when that is asked for.

        Raises ConsumerConflict for another selection that may not be taken over.
        """
        current = self.machine.remembered()
        if current.selection != state.selection and (self.readers or not replace_selection):
            raise _other_selection(self.name, current.selection, connected=bool(self.readers))
        if self.readers:
            return
        before = self.machine
        self._build(
            replace(
                current,
                selection=state.selection,
                max_attempts=state.max_attempts,
                ack_deadline_ns=state.ack_deadline_ns,
            ),
            before.held(),
        )
        self.machine.go_on_from(before)

    def join(self, member: str, credit: int) -> MemberReader:
        """Connects a member. Raises ConsumerConflict when one of that name is connected."""
        self.machine.join(member)
        self.machine.grant(member, credit)
        reader = self.readers[member] = MemberReader(self, member, self.machine.position, self._engine.bounds.newest)
        self.step()
        return reader

    def now_ns(self) -> int:
        """Monotonic time as the state machine takes it."""
        return int(self._clock.monotonic() * 1e9)

    def step(self) -> None:
        """Does everything that can be done now; called after a commit, after an answer and when time is due."""
        if not self.readers:
            return
        self._refill()
        for delivery in self.machine.take(self.now_ns()):
            self.readers[delivery.member].push(delivery)
        self._set_timer()

    def note_change(self) -> None:
        """Has the consumer written down, and goes on."""
        self._memory.note(self)
        self.step()

    def leave(self, member: str, *, clean: bool) -> None:
        """Disconnects a member; what was out at it goes to others."""
        del self.readers[member]
        self.machine.leave(member, self.now_ns(), clean=clean)
        self.note_change()

    async def close(self) -> None:
        """Stops its timer and its reading."""
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._memory.note(self)

    def _refill(self) -> None:
        while self._reading is None and (room := self.machine.room) > 0:
            recent = self._engine.recent(self.machine.position, min(room, BATCH_EVENTS))
            if recent is None:
                self._reading = asyncio.create_task(self._read(room), name=f"event_bus-read-{self.name}")
                return
            if not recent:
                return
            self._offer(recent, recent[-1].sequence)

    async def _read(self, room: int) -> None:
        try:
            page = await self._engine.read(self.machine.position, self.machine.state.selection, room)
        except StorageError as error:
            _LOG.error("consumer %s cannot read on from the journal: %s", self.name, error)
            self._retry = asyncio.get_running_loop().call_later(RETRY_DELAY_S, self.step)
        else:
            self._offer(page.events, page.through)
            asyncio.get_running_loop().call_soon(self.step)
        finally:
            self._reading = None

    def _offer(self, events: Sequence[StoredEvent], through: int) -> None:
        selection = self.machine.state.selection
        for event in events:
            if selection.matches(event.type, event.subject):
                self.machine.offer(event)
        self.machine.advance(through)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.machine.wake_at()
        if wake_at is not None:
            delay = max(0.0, wake_at / 1e9 - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.note_change()


def _other_selection(name: str, known: Selection, *, connected: bool) -> ConsumerConflict:
    types = ", ".join(known.types) or "all"
    subject = "" if known.subject is None else f" of subject {known.subject!r}"
    cure = "its members must leave first" if connected else "ask for the same, or set replace_selection"
    text = f"consumer {name} is {'open' if connected else 'remembered'} with other patterns: {types}{subject}; {cure}"
    return ConsumerConflict(text, name, types=types, subject=known.subject)


class MemberReader:
    """One member of a durable consumer, see Reader."""

    def __init__(self, consumer: RunningConsumer, member: str, after_sequence: int, newest_sequence: int) -> None:
        self.after_sequence = after_sequence
        self.newest_sequence = newest_sequence
        self._consumer = consumer
        self._member = member
        self._outbox: dict[int, Delivery] = {}
        self._wakeup = asyncio.Event()
        self._interrupted = False

    def push(self, delivery: Delivery) -> None:
        """Takes what is to be sent."""
        self._outbox[delivery.event.sequence] = delivery
        self._wakeup.set()

    def grant(self, credit: int) -> None:
        """See Reader."""
        self._consumer.machine.grant(self._member, credit)
        self._consumer.step()

    def ack(self, sequences: Sequence[int]) -> None:
        """See Reader."""
        now_ns = self._consumer.now_ns()
        for sequence in sequences:
            self._consumer.machine.ack(self._member, sequence, now_ns)
        self._consumer.note_change()

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """See Reader."""
        self._consumer.machine.nack(self._member, sequence, error, self._consumer.now_ns(), delay_ns)
        self._consumer.note_change()

    async def next_output(self, timeout_s: float) -> Output | None:
        """See Reader."""
        self._wakeup.clear()
        if not self._outbox and not self._interrupted:
            await wait_for(self._wakeup, timeout_s)
        return self._pack() if self._outbox else None

    def interrupt(self) -> None:
        """See Reader."""
        self._interrupted = True
        self._retire()
        self._consumer.step()
        self._wakeup.set()

    def _retire(self) -> None:
        unsent, self._outbox = self._outbox, {}
        self._consumer.machine.retire(self._member, unsent)

    def _pack(self) -> Output:
        """Takes one message's worth; what is out of one subject goes in one message, see the state machine."""
        machine = self._consumer.machine
        waiting = sorted(self._outbox)
        out = [self._outbox[sequence] for sequence in waiting if machine.is_out(self._member, sequence)]
        if len(out) < len(waiting):
            machine.grant(self._member, len(waiting) - len(out))
        count = batch_length([delivery.event for delivery in out], BATCH_EVENTS)
        subjects = {delivery.event.subject for delivery in out[:count]}
        packed = [delivery for delivery in out if delivery.event.subject in subjects]
        taken = {delivery.event.sequence for delivery in packed}
        self._outbox = {d.event.sequence: d for d in out if d.event.sequence not in taken}
        return Output(tuple((delivery.event, delivery.attempt) for delivery in packed))

    def close(self, *, clean: bool) -> None:
        """See Reader."""
        self._retire()
        self._consumer.leave(self._member, clean=clean)
