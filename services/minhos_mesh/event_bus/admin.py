"""How the bus is operated: consumers paused, reset and forgotten, dead letters delivered again or removed, backups made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from minhos_mesh.event_bus.consumers import RunningConsumer
from minhos_mesh.event_bus.domain.errors import (
    ConsumerUnknown,
    DeadLetterUnknown,
    InvalidField,
    RequestConflict,
    StateConflict,
)
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Backup,
    Change,
    DeadLetter,
    DeadLetterQuery,
    LetterKey,
    Pause,
    TypeCount,
)
from minhos_mesh.event_bus.reports import ConsumerReport, Stats, consumer_reports, stats
from minhos_mesh.event_bus.retention import Retention
from minhos_mesh.event_bus.service import EventBus, Start
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger

_LOG: Final = get_logger("event_bus.admin")

MOST_LETTERS: Final = 10_000
"""Dead letters that one request requeues or removes."""

_LETTERS_PER_CHANGE: Final = 200

EditEvent = Callable[[bytes], bytes]
"""Makes the envelope of an event with another payload. Raises MeshError."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a change and by which id; `mark` tells the content."""

    request_id: str
    mark: str
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Letters:
    """Which dead letters are meant: by their numbers, or all of a query."""

    numbers: tuple[int, ...] | None
    query: DeadLetterQuery


@dataclass(frozen=True, slots=True)
class Handled:
    """How many dead letters were requeued or removed, and how many of the kind still wait."""

    count: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A consumer after its reset, where it was, and how many events are passed over."""

    consumer: ConsumerReport
    previous: int
    passed_over: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a backup is, and how long it took."""

    path: Path
    backup: Backup
    seconds: float


class EventAdmin:
    """Changes what a bus remembers. Every change is logged with who asked for it."""

    def __init__(self, bus: EventBus, retention: Retention, clock: Clock, backup_dir: Path) -> None:
        self._bus = bus
        self._retention = retention
        self._clock = clock
        self._backup_dir = backup_dir

    # Looking.

    async def stats(self) -> Stats:
        """What was published, delivered, failed and removed."""
        return await stats(self._bus, self._retention.report())

    async def types(self) -> list[TypeCount]:
        """What is stored of each type."""
        return await self._bus.engine.type_counts()

    async def consumers(self, name: str, after: str, limit: int) -> tuple[list[ConsumerReport], str | None]:
        """Consumers by name, and behind which name the next page begins. Raises ConsumerUnknown."""
        if name:
            return [await self._report(self._consumer(name))], None
        names = [each for each in sorted(self._bus.consumers) if each > after]
        found = await consumer_reports(self._bus, names[:limit])
        return found, names[limit - 1] if len(names) > limit else None

    async def dead_letters(self, query: DeadLetterQuery) -> list[tuple[int, DeadLetter]]:
        """Dead letters with their numbers. Raises DeadLetterUnknown when one is asked for that there is not."""
        found = await self._bus.engine.list_dead_letters(query)
        if query.numbers and not found:
            raise DeadLetterUnknown(query.numbers[0])
        return found

    async def waiting_letters(self) -> int:
        """How many dead letters wait."""
        return sum((await self._bus.engine.count_dead_letters()).values())

    # Consumers.

    async def pause(self, name: str, actor: str, reason: str) -> ConsumerReport:
        """Delivers nothing more to a consumer. Raises ConsumerUnknown."""
        async with self._bus.changing:
            consumer = self._consumer(name)
            if consumer.machine.pause is None:
                pause = Pause(reason, self._clock.wall_ns())
                await self._save_state(consumer, pause)
                _LOG.warning("consumer.paused", consumer=name, actor=actor, reason=reason)
            return await self._report(consumer)

    async def resume(self, name: str, actor: str) -> ConsumerReport:
        """Delivers to a consumer again. Raises ConsumerUnknown."""
        async with self._bus.changing:
            consumer = self._consumer(name)
            if consumer.machine.pause is not None:
                await self._save_state(consumer, None)
                _LOG.warning("consumer.resumed", consumer=name, actor=actor)
            return await self._report(consumer)

    async def reset(self, request: Request, name: str, start: Start, encode: Callable[[Reset], bytes]) -> Reset | bytes:
        """Has a consumer go on from another position. Raises ConsumerUnknown, PositionLost, RequestConflict."""
        async with self._bus.changing:
            if (before := await self._answered(request)) is not None:
                return before
            consumer = self._consumer(name)
            async with self._bus.gate.reading():
                selection = consumer.machine.state.selection
                beginning = await self._bus.position(selection, start)
                previous = consumer.machine.position
                ahead = 0
                if beginning.after > previous:
                    ahead = await self._bus.engine.count(previous, selection) - await self._bus.engine.count(
                        beginning.after, selection
                    )
                passed = await consumer.reset(beginning.after)
                await self._bus.memory.flush()
                back = await self._letters_back(name)
                result = Reset(await self._report(consumer), previous, passed + ahead)
                answer = self._answer(request, encode(result))
                state = consumer.machine.remembered()
                await self._bus.engine.save(Change(consumers=[state], dead=back, answer=answer))
            consumer.step()
        _LOG.warning(
            "consumer.reset",
            consumer=name,
            previous=previous,
            position=beginning.after,
            passed_over=result.passed_over,
            actor=request.actor,
            reason=request.reason,
        )
        return result

    async def delete(
        self, request: Request, name: str, encode: Callable[[ConsumerReport], bytes]
    ) -> ConsumerReport | bytes:
        """Forgets a consumer. Raises ConsumerUnknown, StateConflict, RequestConflict."""
        async with self._bus.changing:
            if (before := await self._answered(request)) is not None:
                return before
            consumer = self._consumer(name)
            if consumer.readers:
                members = ", ".join(sorted(consumer.readers))
                raise StateConflict(f"delete consumer {name}", f"members are connected: {members}", "stop them first")
            report = await self._report(consumer)
            await consumer.close()
            await self._bus.memory.flush()
            back = await self._letters_back(name)
            answer = self._answer(request, encode(report))
            await self._bus.engine.save(Change(dead=back, removed_consumers=[name], answer=answer))
            del self._bus.consumers[name]
            self._bus.counts.failed_of_deleted += consumer.machine.failed
        _LOG.warning("consumer.deleted", consumer=name, lag=report.lag, actor=request.actor, reason=request.reason)
        return report

    # Dead letters.

    async def requeue(
        self,
        request: Request,
        which: Letters,
        to_consumer: str,
        edit: EditEvent | None,
        encode: Callable[[Handled], bytes],
    ) -> Handled | bytes:
        """Delivers dead letters again. Raises ConsumerUnknown, DeadLetterUnknown, StateConflict, RequestConflict."""
        async with self._bus.changing:
            if (before := await self._answered(request)) is not None:
                return before
            if edit is not None and (which.numbers is None or len(which.numbers) != 1):
                raise InvalidField("payload", "set", "only with exactly one number")
            letters, remaining = await self._letters(which)
            for number, letter in letters:
                self._require_takes(number, letter, to_consumer or letter.consumer)
            for place in range(0, len(letters), _LETTERS_PER_CHANGE):
                await self._requeue(letters[place : place + _LETTERS_PER_CHANGE], to_consumer, edit)
            return await self._finish(request, Handled(len(letters), remaining), encode, "dead_letters.requeued")

    async def remove(self, request: Request, which: Letters, encode: Callable[[Handled], bytes]) -> Handled | bytes:
        """Removes dead letters for good. Raises DeadLetterUnknown, RequestConflict."""
        async with self._bus.changing:
            if (before := await self._answered(request)) is not None:
                return before
            letters, remaining = await self._letters(which)
            for place in range(0, len(letters), _LETTERS_PER_CHANGE):
                some = letters[place : place + _LETTERS_PER_CHANGE]
                keys = [LetterKey(letter.consumer, letter.event.sequence) for _, letter in some]
                await self._bus.engine.save(Change(removed_letters=keys))
            return await self._finish(request, Handled(len(letters), remaining), encode, "dead_letters.removed")

    # The journal.

    async def backup(self, request: Request, file_name: str, encode: Callable[[Saved], bytes]) -> Saved | bytes:
        """Writes a copy of the journal. Raises StateConflict, RequestConflict, StorageError."""
        if (before := await self._answered(request)) is not None:
            return before
        path = self._backup_dir / (file_name or self._file_name())
        started = self._clock.monotonic()
        await self._bus.memory.flush()
        try:
            self._backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            backup = await self._bus.engine.backup(path)
        except FileExistsError:
            raise StateConflict(f"back up to {path}", "there is a file of that name") from None
        saved = Saved(path, backup, self._clock.monotonic() - started)
        await self._bus.engine.save(Change(answer=self._answer(request, encode(saved))))
        _LOG.info("journal.backed_up", path=str(path), bytes=backup.bytes, newest=backup.newest, actor=request.actor)
        return saved

    # Inside.

    def _consumer(self, name: str) -> RunningConsumer:
        consumer = self._bus.consumers.get(name)
        if consumer is None:
            known = sorted(self._bus.consumers)
            near = difflib.get_close_matches(name, known, n=1)
            raise ConsumerUnknown(name, near[0] if near else None, known)
        return consumer

    async def _report(self, consumer: RunningConsumer) -> ConsumerReport:
        (report,) = await consumer_reports(self._bus, [consumer.name])
        return report

    async def _save_state(self, consumer: RunningConsumer, pause: Pause | None) -> None:
        await self._bus.engine.save(Change(consumers=[replace(consumer.machine.remembered(), pause=pause)]))
        consumer.pause(pause)

    async def _letters_back(self, consumer: str) -> list[DeadLetter]:
        """Every letter of a consumer that is being delivered again, as one that waits."""
        query = DeadLetterQuery(consumer=consumer, is_requeued=True, limit=1_000_000)
        return [replace(letter, is_requeued=False) for _, letter in await self._bus.engine.list_dead_letters(query)]

    async def _letters(self, which: Letters) -> tuple[list[tuple[int, DeadLetter]], int]:
        """The letters that are meant, and how many more there are. Raises DeadLetterUnknown."""
        await self._bus.memory.flush()
        if which.numbers is not None:
            query = DeadLetterQuery(numbers=which.numbers, limit=len(which.numbers))
            found = await self._bus.engine.list_dead_letters(query)
            for number in sorted(set(which.numbers) - {number for number, _ in found}):
                raise DeadLetterUnknown(number)
            return found, 0
        found = await self._bus.engine.list_dead_letters(replace(which.query, limit=MOST_LETTERS + 1))
        return found[:MOST_LETTERS], len(found) - len(found[:MOST_LETTERS])

    def _require_takes(self, number: int, letter: DeadLetter, name: str) -> None:
        consumer = self._consumer(name)
        machine, event = consumer.machine, letter.event
        wanted = f"requeue dead letter {number} to consumer {name}"
        if name != letter.consumer and not machine.state.selection.matches(event.type, event.subject):
            raise StateConflict(wanted, f"it does not read {event.type} of subject {event.subject!r}")
        if event.sequence > machine.position:
            raise StateConflict(
                wanted, f"it is at event {machine.position} and will come to {event.sequence} by itself"
            )
        if machine.holds(event.sequence):
            raise StateConflict(wanted, f"it holds event {event.sequence}, which is not acknowledged yet")

    async def _requeue(
        self, letters: Sequence[tuple[int, DeadLetter]], to_consumer: str, edit: EditEvent | None
    ) -> None:
        queued: dict[str, list[tuple[int, DeadLetter]]] = {}
        removed: list[LetterKey] = []
        for number, letter in letters:
            name = to_consumer or letter.consumer
            if name != letter.consumer:
                removed.append(LetterKey(letter.consumer, letter.event.sequence))
            changed = replace(letter, consumer=name, is_requeued=True)
            if edit is not None:
                event = letter.event._replace(envelope=edit(letter.event.envelope))
                changed = replace(changed, event=event, is_edited=True)
            queued.setdefault(name, []).append((number, changed))
        dead = [letter for some in queued.values() for _, letter in some]
        await self._bus.engine.save(Change(dead=dead, removed_letters=removed))
        for name, some in queued.items():
            self._consumer(name).requeue(some)

    async def _finish(
        self, request: Request, handled: Handled, encode: Callable[[Handled], bytes], event: str
    ) -> Handled:
        await self._bus.engine.save(Change(answer=self._answer(request, encode(handled))))
        _LOG.warning(event, count=handled.count, actor=request.actor, reason=request.reason)
        return handled

    async def _answered(self, request: Request) -> bytes | None:
        answer = await self._bus.engine.answer(request.request_id)
        if answer is None:
            return None
        if answer.mark != request.mark:
            raise RequestConflict(request.request_id)
        return answer.response

    def _answer(self, request: Request, response: bytes) -> Answer:
        return Answer(request.request_id, request.mark, response, self._clock.wall_ns())

    def _file_name(self) -> str:
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        return f"event_bus-{now:%Y%m%dT%H%M%S}-{self._bus.bounds.newest}.db"
