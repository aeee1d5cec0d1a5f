"""Decides what a durable consumer's members get: each event at least once, in order per subject, again until acknowledged.

Events of one subject go out in runs: a run goes to one member, and nothing more of that subject goes out before
the whole run is acknowledged. When one of a run fails, the rest of the run is withdrawn and goes out again behind it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.event_bus.domain.errors import ConsumerConflict, LimitReached, NotDelivered
from minhos_mesh.event_bus.domain.given import RecentlyGiven
from minhos_mesh.event_bus.domain.records import (
    ConsumerState,
    DeadLetter,
    Failure,
    LetterKey,
    Lost,
    RemovedEvent,
    StoredEvent,
)
from minhos_mesh.event_bus.domain.redelivery import RedeliveryPolicy

WINDOW: Final = 1024
"""Events a consumer looks ahead: held in memory and not yet acknowledged."""

LONGEST_RUN: Final = 32
"""Events of one subject that may be out at once."""

LARGEST_RUN_BYTES: Final = 256 * 1024
"""As LONGEST_RUN, in bytes; a single larger event goes alone."""

MOST_CREDIT: Final = 1_000_000
"""Events that a reader may have asked for and not been sent."""


@dataclass(slots=True)
class Entry:
    """One event that is not settled."""

    event: StoredEvent
    failures: list[Failure]
    deliveries: int = 0
    not_before_ns: int = 0
    letter: DeadLetter | None = None
    """The dead letter that it is delivered again from."""


@dataclass(slots=True)
class Lane:
    """The unsettled events of one subject in order; the first `out` of them are at `member`."""

    entries: deque[Entry] = field(default_factory=deque)
    out: int = 0
    member: str = ""
    deadline_ns: int = 0
    queued: bool = False


@dataclass(slots=True)
class Member:
    """One connected reader: how many more events it takes, and the sequences that are out at it in order."""

    credit: int = 0
    is_leaving: bool = False
    in_flight: dict[int, Lane] = field(default_factory=dict)
    given: RecentlyGiven = field(default_factory=RecentlyGiven)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one member; `attempt` counts from 1."""

    member: str
    event: StoredEvent
    attempt: int
    requeued: bool = False


class Consumer:
    """The state machine of one durable consumer. Monotonic times (`now_ns`) drive it, wall times go into failures."""

    def __init__(self, state: ConsumerState, wall_ns: Callable[[], int]) -> None:
        self.state = state
        self.policy = RedeliveryPolicy(state.max_attempts)
        self.position = state.position
        self.members: dict[str, Member] = {}
        self.redelivered = state.redelivered
        self.dead_count = state.dead_letters
        self.failed = 0
        self.delivered = 0
        self.late = 0
        self.pause = state.pause
        self.lost = state.lost
        self.lost_count = state.lost_count
        self.snapshot_through = state.snapshot_through
        self.accounted_through = state.accounted_through
        self._wall_ns = wall_ns
        self._entries: dict[int, Entry] = {}
        self._lanes: dict[str, Lane] = {}
        self._ready: list[tuple[int, str]] = []
        self._timers: list[tuple[int, str]] = []
        self._timer_at: dict[str, int] = {}
        self._dead: list[DeadLetter] = []
        self._undead: list[LetterKey] = []

    # What comes from the journal.

    @property
    def room(self) -> int:
        """How many more events it can hold."""
        return WINDOW - len(self._entries)

    def offer(self, event: StoredEvent, failures: tuple[Failure, ...] = ()) -> None:
        """Takes the next matching event of the journal, in order of sequence."""
        if event.sequence in self._entries:
            return  # being delivered again already
        entry = Entry(event, list(failures), deliveries=len(failures))
        self._entries[event.sequence] = entry
        lane = self._lanes.setdefault(event.subject, Lane())
        lane.entries.append(entry)
        self.position = max(self.position, event.sequence)
        self._queue(event.subject, lane)

    def offer_again(self, letter: DeadLetter, failures: tuple[Failure, ...] = ()) -> None:
        """Takes a dead letter that was requeued; `failures` are those since then."""
        sequence, subject = letter.event.sequence, letter.event.subject
        if sequence in self._entries:
            return
        self._entries[sequence] = Entry(letter.event, list(failures), deliveries=len(failures), letter=letter)
        lane = self._lanes.setdefault(subject, Lane())
        lane.entries.append(self._entries[sequence])
        self._queue(subject, lane)

    def advance(self, through: int) -> None:
        """Notes that the journal was looked through up to here."""
        self.position = max(self.position, through)

    def note_removed(self, removed: Iterable[RemovedEvent]) -> Lost | None:
        """Takes note that events are gone from the journal; gives what this consumer loses by it.

        Of those it holds it lets go: after a restart nobody could deliver them. What is out may still be handled, its
        acknowledgement comes late.
        """
        lost: list[int] = []
        for event in removed:
            self.accounted_through = max(self.accounted_through, event.sequence)
            entry = self._entries.get(event.sequence)
            if entry is not None and entry.letter is None:
                self._let_go(entry)
                lost.append(event.sequence)
            elif event.sequence > max(self.position, self.snapshot_through) and self.state.selection.matches(
                event.type, event.subject
            ):
                lost.append(event.sequence)
        if not lost:
            return None
        return self.note_lost(Lost(lost[0], lost[-1], len(lost)))

    def note_lost(self, lost: Lost) -> Lost:
        """Remembers that events never come, until a reader was told."""
        before = self.lost
        self.lost_count += lost.count
        if before is None:
            self.lost = lost
        else:
            self.lost = Lost(min(before.first, lost.first), max(before.last, lost.last), before.count + lost.count)
        return lost

    def forget_lost(self, told: Lost) -> None:
        """A reader was told and went on."""
        if self.lost == told:
            self.lost = None

    # What comes from members.

    def join(self, name: str) -> None:
        """Adds a member without credit. Raises ConsumerConflict when it is connected already."""
        if name in self.members:
            raise ConsumerConflict(
                f"durable.member: {name} of consumer {self.state.name} is connected already", self.state.name, name
            )
        self.members[name] = Member()

    def grant(self, name: str, credit: int) -> None:
        """Lets that many more events go to the member. Raises LimitReached."""
        total = self.members[name].credit + credit
        if total > MOST_CREDIT:
            raise LimitReached("unused credit of a reader", total, MOST_CREDIT)
        self.members[name].credit = total

    def retire(self, name: str, unsent: Iterable[int]) -> None:
        """Gives a member nothing more; what was meant for it and not sent goes to others and counts as no attempt."""
        member = self.members[name]
        member.is_leaving = True
        for sequence in unsent:
            lane = member.in_flight.get(sequence)
            if lane is not None:
                self._withdraw(lane, self._index_of(lane, sequence))

    def leave(self, name: str, now_ns: int, *, clean: bool) -> None:
        """Takes a member away; what was out at it goes to others.

        One that vanished is taken to have failed at the oldest event it held, so that an event which kills its
        readers ends as a dead letter; one that left cleanly failed at nothing.
        """
        member = self.members.pop(name)
        blamed = not clean
        for sequence, lane in list(member.in_flight.items()):
            if self._is_out(lane, sequence, name):
                if blamed and lane.entries[0].event.sequence == sequence:
                    self._fail(lane, Failure(self._wall_ns(), name, "the reader vanished"), now_ns)
                    blamed = False
                else:
                    self._withdraw(lane, 0)

    def ack(self, name: str, sequence: int, now_ns: int) -> None:
        """Settles an event. One that was withdrawn or settled meanwhile is counted as late.

        Raises NotDelivered for a sequence that this member was never given.
        """
        lane = self.members[name].in_flight.pop(sequence, None)
        if lane is None:
            self._note_late(name, sequence)
            return
        index = self._index_of(lane, sequence)
        entry = lane.entries[index]
        if entry.letter is not None:
            self._undead.append(LetterKey(self.state.name, sequence))
        del lane.entries[index]
        del self._entries[entry.event.sequence]
        lane.out -= 1
        if lane.out and index == 0:
            self._arm(lane, now_ns)
        self._after_settling(entry.event.subject, lane)

    def nack(self, name: str, sequence: int, error: str, now_ns: int, delay_ns: int | None = None) -> None:
        """Notes a failed attempt: the event goes out again after the schedule's delay, or the given one, or is dead."""
        lane = self.members[name].in_flight.get(sequence)
        if lane is None:
            self._note_late(name, sequence)
            return
        self._fail(lane, Failure(self._wall_ns(), name, error), now_ns, self._index_of(lane, sequence), delay_ns)

    def extend(self, name: str, sequence: int, now_ns: int) -> None:
        """Begins the deadline of an event, and of what is out with it, anew. Raises NotDelivered."""
        lane = self.members[name].in_flight.get(sequence)
        if lane is None:
            self._note_late(name, sequence)
            return
        self._arm(lane, now_ns)

    def reset(self, position: int) -> int:
        """Goes on from another position with nothing held. Gives how many held events below it are passed over thereby."""
        entries = list(self._entries.values())
        passed = sum(entry.letter is None and entry.event.sequence <= position for entry in entries)
        for entry in entries:
            self._let_go(entry)
        self.position, self.snapshot_through = position, 0
        return passed

    # What goes out.

    def take(self, now_ns: int) -> list[Delivery]:
        """Gives what may go out now: per subject to one member, to the member with the least in flight."""
        self._run_timers(now_ns)
        deliveries: list[Delivery] = []
        while self.pause is None and self._ready and (name := self._freest()) is not None:
            _, subject = heapq.heappop(self._ready)
            lane = self._lanes.get(subject)
            if lane is None:
                continue
            lane.queued = False
            if lane.out or not lane.entries:
                continue
            if lane.entries[0].not_before_ns > now_ns:
                self._schedule(subject, lane.entries[0].not_before_ns)
                continue
            deliveries += self._send(name, lane, now_ns)
        deliveries.sort(key=lambda delivery: delivery.event.sequence)
        return deliveries

    def wake_at(self) -> int | None:
        """When `take` has something to do by time alone; None when only a message can change anything."""
        return self._timers[0][0] if self._timers else None

    # What is remembered.

    def remembered(self) -> ConsumerState:
        """The state as it is to be written down."""
        return ConsumerState(
            name=self.state.name,
            selection=self.state.selection,
            max_attempts=self.state.max_attempts,
            ack_deadline_ns=self.state.ack_deadline_ns,
            position=self.position,
            unsettled=tuple((sequence, tuple(entry.failures)) for sequence, entry in self._entries.items()),
            redelivered=self.redelivered,
            dead_letters=self.dead_count,
            pause=self.pause,
            lost=self.lost,
            lost_count=self.lost_count,
            created_ns=self.state.created_ns,
            snapshot_through=self.snapshot_through if self.position < self.snapshot_through else 0,
            accounted_through=self.accounted_through,
        )

    def is_out(self, name: str, sequence: int) -> bool:
        """Says whether the event is out at that member and not withdrawn."""
        return sequence in self.members[name].in_flight

    def put_back_letters(self, dead: list[DeadLetter], undead: list[LetterKey]) -> None:
        """Takes back what could not be written down."""
        self._dead = dead + self._dead
        self._undead = undead + self._undead

    def take_letters(self) -> tuple[list[DeadLetter], list[LetterKey]]:
        """Gives the dead letters since the last call, and those that were handled after all, to be written down together
        with `remembered`.
        """
        dead, self._dead = self._dead, []
        undead, self._undead = self._undead, []
        return dead, undead

    def go_on_from(self, before: Consumer) -> None:
        """Takes over what a state machine has besides its state: letters not yet written down, and its counts."""
        self._dead, self._undead = before.take_letters()
        self.failed, self.delivered, self.late = before.failed, before.delivered, before.late

    @property
    def unsettled(self) -> int:
        """Events held and not acknowledged."""
        return len(self._entries)

    @property
    def in_flight(self) -> int:
        """Events out at members."""
        return sum(lane.out for lane in self._lanes.values())

    def held(self) -> tuple[list[StoredEvent], list[DeadLetter]]:
        """Every event held and not acknowledged, in order: those of the journal, and requeued letters."""
        entries = self._entries.values()
        return (
            [entry.event for entry in entries if entry.letter is None],
            [entry.letter for entry in entries if entry.letter is not None],
        )

    def holds(self, sequence: int) -> bool:
        """Whether the event is held and not acknowledged."""
        return sequence in self._entries

    def oldest_unsettled(self) -> StoredEvent | None:
        """The oldest event of the journal that is held and not acknowledged."""
        return next((entry.event for entry in self._entries.values() if entry.letter is None), None)

    # Inside.

    def _freest(self) -> str | None:
        free = [
            (len(member.in_flight), name)
            for name, member in self.members.items()
            if member.credit > 0 and not member.is_leaving
        ]
        return min(free)[1] if free else None

    def _send(self, name: str, lane: Lane, now_ns: int) -> list[Delivery]:
        member = self.members[name]
        run: list[Delivery] = []
        size = 0
        for entry in lane.entries:
            size += len(entry.event.envelope)
            if not member.credit or len(run) == LONGEST_RUN or entry.not_before_ns > now_ns:
                break
            if run and size > LARGEST_RUN_BYTES:
                break
            entry.deliveries += 1
            self.redelivered += entry.deliveries > 1
            member.credit -= 1
            member.in_flight[entry.event.sequence] = lane
            member.given.add(entry.event.sequence)
            run.append(Delivery(name, entry.event, len(entry.failures) + 1, entry.letter is not None))
        lane.out, lane.member = len(run), name
        self.delivered += len(run)
        self._arm(lane, now_ns)
        return run

    def _arm(self, lane: Lane, now_ns: int) -> None:
        lane.deadline_ns = now_ns + self.state.ack_deadline_ns
        self._schedule(lane.entries[0].event.subject, lane.deadline_ns)

    def _schedule(self, subject: str, at_ns: int) -> None:
        """Sees to it that the subject is looked at then; one timer per subject, the earliest."""
        if at_ns < self._timer_at.get(subject, at_ns + 1):
            self._timer_at[subject] = at_ns
            heapq.heappush(self._timers, (at_ns, subject))

    def _run_timers(self, now_ns: int) -> None:
        while self._timers and self._timers[0][0] <= now_ns:
            at_ns, subject = heapq.heappop(self._timers)
            if self._timer_at.get(subject) != at_ns:
                continue
            del self._timer_at[subject]
            lane = self._lanes.get(subject)
            if lane is None:
                continue
            if not lane.out:
                self._queue(subject, lane)
            elif lane.deadline_ns > now_ns:
                self._schedule(subject, lane.deadline_ns)
            else:
                seconds = self.state.ack_deadline_ns / 1e9
                self._fail(lane, Failure(self._wall_ns(), lane.member, f"no answer within {seconds:g} s"), now_ns)

    def _fail(self, lane: Lane, failure: Failure, now_ns: int, index: int = 0, delay_ns: int | None = None) -> None:
        entry = lane.entries[index]
        self._withdraw(lane, index)
        self.failed += 1
        entry.failures.append(failure)
        if self.policy.is_exhausted(len(entry.failures)):
            del lane.entries[index]
            del self._entries[entry.event.sequence]
            self.dead_count += 1
            self._dead.append(self._letter(entry, failure.time_ns))
        else:
            delay = self.policy.delay_ns(len(entry.failures)) if delay_ns is None else delay_ns
            entry.not_before_ns = now_ns + delay
        self._after_settling(entry.event.subject, lane)

    def _letter(self, entry: Entry, time_ns: int) -> DeadLetter:
        earlier = () if entry.letter is None else entry.letter.failures
        edited = entry.letter is not None and entry.letter.is_edited
        return DeadLetter(self.state.name, entry.event, (*earlier, *entry.failures), time_ns, is_edited=edited)

    def _let_go(self, entry: Entry) -> None:
        """Takes an event away without its being settled."""
        lane = self._lanes[entry.event.subject]
        index = lane.entries.index(entry)
        self._withdraw(lane, index)
        del lane.entries[index]
        del self._entries[entry.event.sequence]
        self._after_settling(entry.event.subject, lane)

    def _withdraw(self, lane: Lane, index: int) -> None:
        """Takes back what is out from `index` on; what is before it stays out."""
        member = self.members.get(lane.member)
        for position in range(index, lane.out):
            if member is not None:
                member.in_flight.pop(lane.entries[position].event.sequence, None)
        lane.out = min(lane.out, index)
        self._after_settling(lane.entries[0].event.subject, lane)

    def _after_settling(self, subject: str, lane: Lane) -> None:
        if lane.out:
            return
        if lane.entries:
            self._queue(subject, lane)
        else:
            self._lanes.pop(subject, None)

    def _queue(self, subject: str, lane: Lane) -> None:
        if not lane.queued and not lane.out:
            lane.queued = True
            heapq.heappush(self._ready, (lane.entries[0].event.sequence, subject))

    def _is_out(self, lane: Lane, sequence: int, name: str) -> bool:
        return lane.member == name and any(
            lane.entries[position].event.sequence == sequence for position in range(lane.out)
        )

    @staticmethod
    def _index_of(lane: Lane, sequence: int) -> int:
        return next(index for index in range(lane.out) if lane.entries[index].event.sequence == sequence)

    def _note_late(self, name: str, sequence: int) -> None:
        if sequence not in self.members[name].given:
            raise NotDelivered(sequence)
        self.late += 1
