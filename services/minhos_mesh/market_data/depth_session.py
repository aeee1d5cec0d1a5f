"""Decides what one stream of a source of order books may do, and what is due on it."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.market_data.conversation import Conversation
from minhos_mesh.market_data.domain.depth import Book
from minhos_mesh.market_data.domain.feed import PositionMismatch
from minhos_mesh.market_data.domain.source import Provenance, Source
from minhos_mesh.market_data.live_depth import LiveDepth
from minhos_mesh.market_data.ports import Encoder
from minhos_mesh.market_data.sessions import MessageRefused

Find = Callable[[str], LiveDepth]


class DepthSession(Conversation):
    """One source's stream."""

    def __init__(self, find: Find, encoder: Encoder) -> None:
        super().__init__()
        self._find, self._encoder = find, encoder
        self._live: LiveDepth | None = None
        self._source: Source | None = None
        self._answered: int | None = None

    def open(self, symbol: str, source: Source) -> None:
        """Connects the source. Raises SymbolUnknown, SourceConflict, ProvenanceRefused."""
        if self._live is not None:
            raise MessageRefused("message", "`open`", "`book` behind the first message of IngestDepth")
        live = self._find(symbol)
        live.open(source, self)
        self._live, self._source = live, source
        self.wake()

    def take(self, symbol: str, provenance: int, epoch: int, book: Book) -> None:
        """Takes a book. Raises SourceConflict, PositionMismatch, and MessageRefused for one of another symbol."""
        live, source = self._live, self._source
        if live is None or source is None:
            raise MessageRefused("message", "`book`", "`open` as the first message of IngestDepth")
        if self._find(symbol) is not live:
            raise MessageRefused("book.symbol", repr(symbol), f"{live.feed.symbol}, for which the stream was opened")
        opened = "with which the stream was opened"
        if epoch != source.epoch:
            raise PositionMismatch(live.feed.symbol, "book.epoch", epoch, source.epoch, opened)
        if provenance != int(source.provenance):
            seen = Provenance(provenance).name if provenance in set(Provenance) else provenance
            raise PositionMismatch(live.feed.symbol, "book.provenance", seen, source.provenance.name, opened)
        live.take(book, self)
        self.wake()

    async def due(self) -> list[bytes]:
        """The messages that are due, as soon as one is; none once the source has said everything and knows it taken."""
        return await self.until(self._collect)

    def _collect(self) -> list[bytes]:
        if self._live is None:
            return []
        feed, beat_due, self._beat_due = self._live.feed, self._beat_due, False
        if self._answered is None:
            self._answered = feed.through
            return [self._encoder.depth_opened(feed.through)]
        if feed.through != self._answered:
            self._answered = feed.through
            return [self._encoder.depth_acknowledged(feed.through, sum(feed.rejected.values()))]
        return [self._encoder.depth_source_beat()] if beat_due else []

    def close(self) -> None:
        """Disconnects the source."""
        if self._live is not None:
            self._live.close(self)

    def _ends_when_heard(self) -> bool:
        return True
