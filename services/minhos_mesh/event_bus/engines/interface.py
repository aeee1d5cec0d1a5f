"""What the bus asks of whatever keeps its journal; every engine passes the same conformance tests.

Every method that waits raises StorageError (runtime.storage) when the store cannot be reached or refuses; nothing of
the refused call counts as done then, though a write may have reached the disk and the same call made again finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.domain.records import (
    Answer,
    Appended,
    Backup,
    Bounds,
    Change,
    ConsumerState,
    DeadLetter,
    DeadLetterQuery,
    EventQuery,
    NewEvent,
    Page,
    StoredEvent,
    Trimmed,
    TypeCount,
    TypeDefinition,
    TypeFiles,
)

Told = Callable[[Appended | Exception], None]
"""Is told what became of a batch: where it stands, or the error that `append` would raise. Must not raise."""


class Engine(Protocol):
    """An append-only journal that forgets only what `trim` removes, with the memory of its durable consumers.

    Sequences are contiguous from 1 and never given twice; only `trim` makes holes. Store times never go back.
    """

    # Writing events.

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> Appended:
        """Stores all or none, in this order with contiguous sequences, and returns once they are on disk.

        An id is known for at least as long as its event is held. An event whose id is known is not stored again and
        gives its first sequence (within the batch too); told differently it raises EventConflict, with every such event
        of the batch. `expected` says by subject which sequence the newest event of that subject has that is held, 0
        for none; it is looked at before the batch and only for subjects of which the batch holds an event that is not
        yet known, so that a repeated batch gives its first answer. Raises SequenceMismatch with every subject that
        stands elsewhere; conflicts of ids are told first.
        """

    def submit(self, events: Sequence[NewEvent], expected: Mapping[str, int], told: Told) -> None:
        """As `append`, and returns at once; `told` is called on the event loop, for batches that are stored in their order.

        When StorageError is told of a batch, it is told of everything that was submitted behind it before.
        """

    def on_append(self, listener: Callable[[], None]) -> None:
        """Calls the listener on the event loop after new events are on disk and can be read."""

    # Reading events.

    @property
    def bounds(self) -> Bounds:
        """Oldest and newest sequence held; with nothing held the oldest is the one behind the newest ever given."""

    @property
    def horizons(self) -> Mapping[str, int]:
        """By type the highest sequence that `trim` ever removed of it; types of which nothing was removed are left out.

        Survives a restart. A reader behind a horizon of a type that it wants has lost something.
        """

    def recent(self, after: int, limit: int) -> Sequence[StoredEvent] | None:
        """The next events behind a sequence, matching or not, when all of them are in memory; None when they must be read."""

    async def read(self, after: int, selection: Selection, limit: int) -> Page:
        """The next matching events behind a sequence, from disk; a page may be empty and yet move `through` on."""

    async def fetch(self, sequences: Sequence[int]) -> list[StoredEvent]:
        """These events in order of sequence, without those that are no longer held."""

    async def latest(self, selection: Selection, after: int, through: int, limit: int) -> Page:
        """Of the newest held event of each type and subject those that match, are behind `after` and not behind
        `through`, in order of sequence. A pair whose newest event is behind `through` is left out, since it comes by
        itself to whoever reads on from there. `through` of the page is that of the last event, or the given one at the end.
        """

    async def list_events(self, query: EventQuery) -> Page:
        """Stored events by filter; a page may hold fewer than its limit and yet not be the last."""

    async def first_stored_at(self, time_ns: int) -> int:
        """Sequence of the first held event stored at or after this time; the next one to come when there is none."""

    async def count(self, after: int, selection: Selection, through: int | None = None) -> int:
        """How many held events behind a sequence match; with `through` none behind that one."""

    async def type_counts(self) -> list[TypeCount]:
        """What was ever stored and is held of each type, by type; a type stays when nothing of it is held."""

    # Forgetting events.

    async def trim(self, through: Mapping[str, int], limit: int) -> Trimmed:
        """Removes the oldest events, at most `limit` of them: of each named type those with a sequence up to and including
        the given one, of other types none.

        Durable, and the horizons move with it, before it returns. `more` says whether there is more to remove under
        the same bounds. A crash in it may leave events removed whose horizon is told, never the other way round.
        """

    # Consumers and dead letters.

    async def load_consumers(self) -> list[ConsumerState]:
        """Every durable consumer that is remembered, by name."""

    async def save(self, change: Change) -> None:
        """Writes a change of what is remembered, all or none, and returns once it is on disk.

        A dead letter replaces that of the same consumer and sequence and keeps its number; numbers grow and are never
        given twice. A store without transactions writes dead letters, then consumers, then what is to be removed, then
        the answer: a crash between them may repeat a delivery and never loses one.
        """

    async def list_dead_letters(self, query: DeadLetterQuery) -> list[tuple[int, DeadLetter]]:
        """Dead letters with their numbers, in order of number."""

    async def count_dead_letters(self) -> dict[str, int]:
        """How many dead letters wait, by consumer; those that were requeued are not counted."""

    async def answer(self, request_id: str) -> Answer | None:
        """The answer that was saved for a request, for at least a day."""

    async def load_definitions(self) -> tuple[list[TypeDefinition], list[TypeFiles]]:
        """Every event type that was learned, by type and version, with the files that hold their payloads."""

    # Operating.

    async def backup(self, path: Path) -> Backup:
        """Writes everything to a new file that did not exist before, while publishing goes on.

        It holds one moment, is complete and on disk when this returns, and appears under its name only then. Raises
        FileExistsError, and StorageError when it cannot be written; nothing is left behind then.
        """
