"""What the bus asks of whatever keeps its journal; every engine passes the same conformance tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Appended,
    Bounds,
    ConsumerState,
    DeadLetter,
    EventQuery,
    NewEvent,
    Page,
    StoredEvent,
    TypeCount,
)


class Engine(Protocol):
    """An append-only journal with the memory of its durable consumers."""

    async def append(self, events: Sequence[NewEvent]) -> Appended:
        """Stores all or none and returns once they are on disk; an id that is stored gives its first sequence."""

    def on_append(self, listener: Callable[[], None]) -> None:
        """Calls the listener on the event loop after new events are on disk and can be read."""

    @property
    def bounds(self) -> Bounds:
        """Oldest and newest sequence held."""

    def recent(self, after: int, limit: int) -> Sequence[StoredEvent] | None:
        """The next events behind a sequence, matching or not, when they are in memory; None when they must be read."""

    async def read(self, after: int, selection: Selection, limit: int) -> Page:
        """The next matching events behind a sequence, from disk; a page may be empty and yet move `through` on."""

    async def fetch(self, sequences: Sequence[int]) -> list[StoredEvent]:
        """These events in order of sequence, without those that are no longer held."""

    async def list_events(self, query: EventQuery) -> Page:
        """Stored events by filter; a page may hold fewer than its limit and yet not be the last."""

    async def first_stored_at(self, time_ns: int) -> int:
        """Sequence of the first event stored at or after this time; the next one to come when there is none."""

    async def count(self, after: int, selection: Selection) -> int:
        """How many events behind a sequence match."""

    async def type_counts(self) -> list[TypeCount]:
        """How many events of each type were ever stored, by type."""

    async def load_consumers(self) -> list[ConsumerState]:
        """Every durable consumer that is remembered."""

    async def save_consumers(self, states: Sequence[ConsumerState], dead: Sequence[DeadLetter]) -> None:
        """Remembers consumers and their new dead letters, all or none."""

    async def list_dead_letters(self, consumer: str | None, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """Dead letters with their numbers, in order of number, behind the given one."""
