"""How a durable consumer runs: fed from the journal, asked by its members, driven by commits, answers and one timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from minhos_mesh.event_bus.domain.behind import Behind
from minhos_mesh.event_bus.domain.consumer import Consumer, Delivery
from minhos_mesh.event_bus.domain.errors import ConsumerConflict
from minhos_mesh.event_bus.domain.latest import Gap, GapCause
from minhos_mesh.event_bus.domain.patterns import Selection, matches_any
from minhos_mesh.event_bus.domain.records import (
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    Failure,
    Lost,
    Pause,
    RemovedEvent,
    StoredEvent,
)
from minhos_mesh.event_bus.engines.interface import Engine
from minhos_mesh.event_bus.gate import Gate
from minhos_mesh.event_bus.readers import BATCH_EVENTS, Outgoing, Output, batch_length, wait_for
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.fault_points import reached
from minhos_mesh.runtime.storage import StorageError

_LOG: Final = logging.getLogger(__name__)

FLUSH_DELAY_S: Final = 0.02
"""How long after an acknowledgement it is written down, when nothing was written shortly before."""

PAUSE_S: Final = 0.1
"""How long after such a write the next one begins at the earliest. An acknowledgement is on disk after this and the time that
two writes take, at the latest; a bus killed before delivers the event once more."""

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
        for _ in range(2):  # what is being written, and what was noted since that began; others may note more for ever
            if self._writing is None:
                if not self._changed:
                    return True
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
        letters = {consumer: consumer.machine.take_letters() for consumer in changed.values()}
        change = Change(
            consumers=[consumer.machine.remembered() for consumer in letters],
            dead=[letter for dead, _ in letters.values() for letter in dead],
            removed_letters=[key for _, undead in letters.values() for key in undead],
        )
        pause_s = PAUSE_S
        try:
            await self._engine.save(change)
        except StorageError as error:
            pause_s = RETRY_DELAY_S
            _LOG.error("what the consumers remember could not be written and is kept: %s", error)
            for consumer, some in letters.items():
                consumer.machine.put_back_letters(*some)
            self._changed = changed | self._changed
            return False
        else:
            return True
        finally:
            self._writing = None
            if self._changed:
                self._set_timer(pause_s)


class RunningConsumer:
    """One durable consumer with its connected members."""

    def __init__(self, state: ConsumerState, engine: Engine, gate: Gate, clock: Clock, memory: ConsumerMemory) -> None:
        self.name = state.name
        self.readers: dict[str, MemberReader] = {}
        self.machine = Consumer(state, clock.wall_ns)
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._memory = memory
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ns = 0
        self._retry: asyncio.TimerHandle | None = None
        self.ahead: int | None = None
        """Position that it had when the journal turned out to end before it."""
        self.behind = Behind()
        """How many events lie behind where it reads."""
        self._next: StoredEvent | None = None
        self._letters_from: int | None = None
        """Number behind which requeued letters may wait that are not held; None when none does."""

    @property
    def reached(self) -> int:
        """Sequence behind which it reads on."""
        return max(self.machine.position, self.machine.snapshot_through)

    async def next_wanted(self) -> StoredEvent | None:
        """The first event behind where it reads; looked for once while it stays there. Raises StorageError."""
        after = self.reached
        if self._next is not None and self._next.sequence > after:
            return self._next
        self._next = None
        while self._next is None and after < self._engine.bounds.newest:
            page = await self._engine.read(after, self.machine.state.selection, 1)
            self._next, after = (page.events[0] if page.events else None), page.through
        return self._next

    async def recover(self) -> None:
        """Takes up what was not acknowledged when the bus ended, and finds out what is gone.

        A consumer that is ahead of the journal, whose end is lost then, goes back to it: what comes next is new to it.
        """
        state = self.machine.state
        newest = self._engine.bounds.newest
        if state.position > newest:
            self.ahead = state.position
            self.machine.position = newest
            self.machine.note_lost(Lost(newest + 1, state.position, 0))
        failures = dict(state.unsettled)
        query = DeadLetterQuery(consumer=self.name, is_requeued=True, limit=1_000_000)
        letters = {letter.event.sequence: letter for _, letter in await self._engine.list_dead_letters(query)}
        wanted = [sequence for sequence in failures if sequence not in letters]
        held = await self._engine.fetch(wanted)
        self._offer_held(held, [letters[sequence] for sequence in failures if sequence in letters], failures)
        gone = sorted(set(wanted) - {event.sequence for event in held})
        horizon, had = lost_through(self._engine, state.selection), max(state.position, state.accounted_through)
        if horizon > max(had, state.snapshot_through):
            self.machine.note_lost(Lost(had + 1, horizon, 0))
        if gone:
            self.machine.note_lost(Lost(gone[0], gone[-1], len(gone)))
        self._letters_from = 0

    def _offer_held(
        self, held: Sequence[StoredEvent], letters: Sequence[DeadLetter], failures: dict[int, tuple[Failure, ...]]
    ) -> None:
        selection = self.machine.state.selection
        for event in held:
            if selection.matches(event.type, event.subject):
                self.machine.offer(event, failures.get(event.sequence, ()))
        for letter in letters:
            self.machine.offer_again(letter, failures.get(letter.event.sequence, ()))

    def requeue(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        """Delivers dead letters again: at once as far as there is room, the rest is read when there is."""
        for number, letter in letters:
            if self.machine.room <= 0:
                self._letters_from = number - 1 if self._letters_from is None else min(self._letters_from, number - 1)
                break
            self.machine.offer_again(letter)
        self.step()

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
        wanted = replace(
            current,
            selection=state.selection,
            max_attempts=state.max_attempts,
            ack_deadline_ns=state.ack_deadline_ns,
        )
        self.machine = Consumer(wanted, self._clock.wall_ns)
        self._forget_count()
        self._offer_held(*before.held(), dict(current.unsettled))
        self.machine.go_on_from(before)

    def join(self, member: str, credit: int) -> MemberReader:
        """Connects a member. Raises ConsumerConflict when one of that name is connected."""
        self.machine.join(member)
        self.machine.grant(member, credit)
        reader = self.readers[member] = MemberReader(self, member, self.machine.position, self._engine.bounds.newest)
        reader.tell_lost(self.machine.lost)
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
        machine = self.machine
        failed = machine.failed
        for delivery in machine.take(self.now_ns()):
            self.readers[delivery.member].push(delivery)
        if machine.failed != failed:  # a deadline has passed
            self._memory.note(self)
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

    def pause(self, pause: Pause | None) -> None:
        """Delivers nothing more, or again when None."""
        self.machine.pause = pause
        self.step()

    async def reset(self, position: int) -> int:
        """Goes on from another position; gives how many events that were held are passed over."""
        await self._stop_reading()
        passed = self.machine.reset(position)
        self._forget_count()
        self._letters_from = None
        self.machine.accounted_through = max(self._engine.horizons.values(), default=0)
        return passed

    def note_removed(self, removed: Sequence[RemovedEvent]) -> int:
        """Takes note of what is gone from the journal; gives how many events the consumer loses by it."""
        reached, selection = self.reached, self.machine.state.selection
        for event in removed:
            if event.sequence > reached and selection.matches(event.type, event.subject):
                self.behind.gone(event.sequence)
        self._next = None
        lost = self.machine.note_removed(removed)
        if lost is None:
            return 0
        for reader in self.readers.values():
            reader.tell_lost(self.machine.lost)
        self.note_change()
        return lost.count

    def note_told(self, lost: Lost) -> None:
        """Takes note that a reader went on after it was told what it does not get."""
        self.machine.forget_lost(lost)

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    async def close(self) -> None:
        """Stops its timer and its reading."""
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        await self._stop_reading()
        self._memory.note(self)

    def _refill(self) -> None:
        machine = self.machine
        while self._reading is None and (room := machine.room) > 0:
            snapshot = machine.position < machine.snapshot_through
            recent = None
            if self._letters_from is None and not snapshot:
                recent = self._engine.recent(machine.position, min(room, BATCH_EVENTS))
            if recent is None:
                self._reading = asyncio.create_task(self._read(room), name=f"event_bus-read-{self.name}")
                return
            if not recent:
                return
            self._offer(recent, recent[-1].sequence)

    async def _read(self, room: int) -> None:
        try:
            async with self._gate.reading():
                await self._read_more(room)
            asyncio.get_running_loop().call_soon(self.step)
        except StorageError as error:
            _LOG.error("consumer %s cannot read on from the journal: %s", self.name, error)
            self._retry = asyncio.get_running_loop().call_later(RETRY_DELAY_S, self.step)
        finally:
            self._reading = None

    async def _read_more(self, room: int) -> None:
        machine = self.machine
        if self._letters_from is not None:
            after, self._letters_from = self._letters_from, None
            await self._read_letters(after, room)
            return
        if machine.position < machine.snapshot_through:
            through = machine.snapshot_through
            page = await self._engine.latest(machine.state.selection, machine.position, through, room)
        else:
            page = await self._engine.read(machine.position, machine.state.selection, room)
        if machine is self.machine:  # else it was replaced meanwhile, by one with another selection perhaps
            self._offer(page.events, page.through)

    async def _read_letters(self, after: int, room: int) -> None:
        """Reads what was requeued and found no room."""
        query = DeadLetterQuery(consumer=self.name, is_requeued=True, after_number=after, limit=room)
        try:
            letters = await self._engine.list_dead_letters(query)
        except StorageError:
            self._letters_from = after
            raise
        for _, letter in letters:
            self.machine.offer_again(letter)
        if len(letters) == room and self._letters_from is None:
            self._letters_from = letters[-1][0]

    def _offer(self, events: Sequence[StoredEvent], through: int) -> None:
        selection, reached = self.machine.state.selection, self.reached
        for event in events:
            if selection.matches(event.type, event.subject):
                self.machine.offer(event)
                if event.sequence > reached:
                    self.behind.gone(event.sequence)
        self.machine.advance(through)

    def _forget_count(self) -> None:
        self.behind.forget()
        self._next = None

    def _set_timer(self) -> None:
        wake_at = self.machine.wake_at()
        if self._timer is not None:
            if wake_at == self._timer_at_ns:
                return
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            self._timer_at_ns = wake_at
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


def lost_through(engine: Engine, selection: Selection) -> int:
    """The highest sequence of which events that are wanted may have been removed; 0 when none was."""
    wanted = (horizon for name, horizon in engine.horizons.items() if matches_any(selection.types, name))
    return max(wanted, default=0)


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
        self._lost: Lost | None = None
        self._told: Lost | None = None

    def tell_lost(self, lost: Lost | None) -> None:
        """Has the reader told, before anything else, what it does not get."""
        self._lost = lost
        self._wakeup.set()

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
        if self._told is not None:
            self._consumer.note_told(self._told)
            self._told = None
        self._consumer.note_change()

    def nack(self, sequence: int, error: str, delay_ns: int | None) -> None:
        """See Reader."""
        self._consumer.machine.nack(self._member, sequence, error, self._consumer.now_ns(), delay_ns)
        self._consumer.note_change()

    def extend(self, sequences: Sequence[int]) -> None:
        """See Reader."""
        now_ns = self._consumer.now_ns()
        for sequence in sequences:
            self._consumer.machine.extend(self._member, sequence, now_ns)
        self._consumer.step()

    async def next_output(self, timeout_s: float) -> Output | None:
        """See Reader."""
        self._wakeup.clear()
        if not self._outbox and not self._interrupted and self._lost is None:
            await wait_for(self._wakeup, timeout_s)
        if self._lost is not None:
            lost, self._lost, self._told = self._lost, None, self._lost
            return Output(gap=Gap(lost.first, lost.last, lost.count, GapCause.RETENTION))
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
        if out and out[0].attempt > 1:
            reached("redelivery.before_send")
        subjects = {delivery.event.subject for delivery in out[:count]}
        packed = [delivery for delivery in out if delivery.event.subject in subjects]
        taken = {delivery.event.sequence for delivery in packed}
        self._outbox = {d.event.sequence: d for d in out if d.event.sequence not in taken}
        return Output(tuple(Outgoing(each.event, each.attempt, each.requeued) for each in packed))

    def close(self, *, clean: bool) -> None:
        """See Reader."""
        self._retire()
        self._consumer.leave(self._member, clean=clean)
