"""Decides what one stream of a source of ticks, or of order books, may do, and what is due on it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from minhos_mesh.market_data.conversation import Conversation, MessageRefused
from minhos_mesh.market_data.domain.depth import Book, DepthFeed
from minhos_mesh.market_data.domain.feed import Ingested, PositionMismatch, SymbolFeed
from minhos_mesh.market_data.domain.source import Provenance, Source
from minhos_mesh.market_data.live_depth import LiveDepth
from minhos_mesh.market_data.live_feed import LiveFeed
from minhos_mesh.market_data.ports import Encoder, Owner
from minhos_mesh.runtime.ticks import TickBatchView

ACKNOWLEDGED_RECORDS = 32_768
ACKNOWLEDGED_BATCHES = 8
ACKNOWLEDGED_S = 0.005
"""A source is answered when so many records have come since the last answer, so many batches, or so long after the
first of fewer.

An answer for each batch would cost both sides more than the batch itself when it holds one tick.
"""


class Fed(Protocol):
    """What of a symbol a source feeds."""

    @property
    def feed(self) -> SymbolFeed | DepthFeed:
        """What is known of it."""

    def open(self, source: Source, owner: Owner) -> int:
        """Connects a source."""

    def close(self, owner: Owner) -> None:
        """Disconnects it."""


F = TypeVar("F", bound=Fed)


class _SourceConversation(Conversation, Generic[F]):
    """The stream of one source for one symbol: opened once, and what follows belongs to what it was opened for."""

    CALL: ClassVar[str]
    BROUGHT: ClassVar[str]
    """Name of the field in which it brings something."""
    FOLLOWING: ClassVar[str]
    """What may follow behind `open`."""

    def __init__(self, find: Callable[[str], F], encoder: Encoder) -> None:
        super().__init__()
        self._find, self._encoder = find, encoder
        self._live: F | None = None
        self._source: Source | None = None
        self._answered: int | None = None
        """Up to where it was told last that all is taken."""
        self._unanswered = 0
        """Batches since, where they count."""

    @property
    def live(self) -> F:
        """What it feeds. Raises MessageRefused before `open`."""
        if self._live is None:
            raise MessageRefused("message", self.FOLLOWING, f"`open` as the first message of {self.CALL}")
        return self._live

    def open(self, symbol: str, source: Source) -> None:
        """Connects the source. Raises SymbolUnknown, SourceConflict, ProvenanceRefused."""
        if self._live is not None:
            raise MessageRefused("message", "`open`", f"{self.FOLLOWING} behind the first message of {self.CALL}")
        live = self._find(symbol)
        live.open(source, self)
        self._live, self._source = live, source
        self.wake()

    def _fed(self, symbol: str, epoch: int, provenance: int) -> F:
        """What is fed. Raises PositionMismatch, and MessageRefused for a message that belongs to something else."""
        live, source = self.live, self._source
        if source is None or (symbol != live.feed.symbol and self._find(symbol) is not live):
            opened = f"{live.feed.symbol}, for which the stream was opened"
            raise MessageRefused(f"{self.BROUGHT}.symbol", repr(symbol), opened)
        opened = "with which the stream was opened"
        if epoch != source.epoch:
            raise PositionMismatch(live.feed.symbol, f"{self.BROUGHT}.epoch", epoch, source.epoch, opened)
        if provenance != source.provenance:
            seen = Provenance(provenance).name if provenance in set(Provenance) else provenance
            name = source.provenance.name
            raise PositionMismatch(live.feed.symbol, f"{self.BROUGHT}.provenance", seen, name, opened)
        return live

    def due(self) -> Awaitable[list[bytes]]:
        """The messages that are due, as soon as one is; none once the source has said everything and knows it taken."""
        return self.until(self._collect)

    def _collect(self) -> list[bytes]:
        live, beat_due, self._beat_due = self._live, self._beat_due, False
        if live is None:
            return []
        through, told = self._through(live), self._answered
        if told is None:
            self._answered = through
            return [self._opened(through)]
        if through != told or self._unanswered:
            self._answered, self._unanswered = through, 0
            return [self._acknowledged(live)]
        return [self._beat()] if beat_due else []

    @abstractmethod
    def _through(self, live: F) -> int:
        """Up to where all is taken."""

    @abstractmethod
    def _opened(self, through: int) -> bytes:
        """Where the source is to begin: behind this."""

    @abstractmethod
    def _acknowledged(self, live: F) -> bytes:
        """What was taken."""

    @abstractmethod
    def _beat(self) -> bytes:
        """A sign of life."""

    def close(self) -> None:
        """Disconnects the source."""
        if self._live is not None:
            self._live.close(self)

    def _ends_when_heard(self) -> bool:
        return True


class SourceSession(_SourceConversation[LiveFeed]):
    """One source's stream of ticks."""

    CALL, BROUGHT, FOLLOWING = "IngestTicks", "batch", "`batch` or `end`"

    def __init__(self, find: Callable[[str], LiveFeed], encoder: Encoder) -> None:
        super().__init__(find, encoder)
        self._answering: asyncio.TimerHandle | None = None
        self._unanswered_since_s = 0.0
        self._usual: tuple[str, int, int] | None = None
        """Symbol, epoch and provenance of batches that belong here."""

    async def take(self, batch: TickBatchView) -> None:
        """Takes a batch. Raises PositionMismatch, SourceConflict, and MessageRefused for one of another symbol."""
        live = self._fed(batch.symbol, batch.epoch, batch.provenance)
        taken = await live.ingest(batch.ticks, batch.first_sequence, self)
        self._took(live, batch, taken)

    def take_alone(self, batch: TickBatchView) -> bool:
        """Takes a batch of one tick at once; False when it has to be taken as others are. Raises as `take` does."""
        if (row := batch.row) is None:
            return False
        said = batch.symbol, batch.epoch, batch.provenance
        if said != self._usual:
            self._fed(*said)
            self._usual = said
        live = self.live
        taken = live.ingest_one(row, batch.wire, batch.first_sequence, self)
        if taken is None:
            return False
        self._took(live, batch, taken)
        return True

    def _took(self, live: LiveFeed, batch: TickBatchView, taken: Ingested | None) -> None:
        if taken is not None and taken.first_sequence == batch.first_sequence and (taken.as_given or taken.stamped):
            self._encoder.came(live.feed, batch, taken.stamped)
        self._unanswered += 1
        if self._unanswered == 1:
            self._unanswered_since_s = asyncio.get_running_loop().time()
        if (
            self._answered is None
            or self._unanswered >= ACKNOWLEDGED_BATCHES
            or live.feed.position - self._answered >= ACKNOWLEDGED_RECORDS
        ):
            self.wake()
        elif self._answering is None:
            self._answer_in(ACKNOWLEDGED_S)

    def _answer_in(self, left_s: float) -> None:
        self._answering = asyncio.get_running_loop().call_later(left_s, self._answer)

    def _answer(self) -> None:
        self._answering = None
        left_s = self._unanswered_since_s + ACKNOWLEDGED_S - asyncio.get_running_loop().time()
        if self._unanswered and left_s > 0:  # it was answered meanwhile, and these came behind that
            self._answer_in(left_s)
        elif self._unanswered:
            self.wake()

    def end(self) -> None:
        """No more records will come."""
        self.live.ended = True
        self.wake()

    def _through(self, live: LiveFeed) -> int:
        return live.feed.position

    def _opened(self, through: int) -> bytes:
        return self._encoder.opened(through)

    def _acknowledged(self, live: LiveFeed) -> bytes:
        feed = live.feed
        return self._encoder.acknowledged(feed.position, feed.sequence, sum(feed.rejected.values()))

    def _beat(self) -> bytes:
        return self._encoder.source_beat()

    def close(self) -> None:
        """Disconnects the source."""
        if self._answering is not None:
            self._answering.cancel()
        super().close()


class DepthSession(_SourceConversation[LiveDepth]):
    """One source's stream of order books."""

    CALL, BROUGHT, FOLLOWING = "IngestDepth", "book", "`book`"

    def take(self, symbol: str, provenance: int, epoch: int, book: Book) -> None:
        """Takes a book. Raises SourceConflict, PositionMismatch, and MessageRefused for one of another symbol."""
        self._fed(symbol, epoch, provenance).take(book, self)
        self.wake()

    def _through(self, live: LiveDepth) -> int:
        return live.feed.through

    def _opened(self, through: int) -> bytes:
        return self._encoder.depth_opened(through)

    def _acknowledged(self, live: LiveDepth) -> bytes:
        return self._encoder.depth_acknowledged(live.feed.through, sum(live.feed.rejected.values()))

    def _beat(self) -> bytes:
        return self._encoder.depth_source_beat()
