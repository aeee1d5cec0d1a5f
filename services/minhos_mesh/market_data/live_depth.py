"""Decides who brings the order books of a symbol, and who is told of a new one."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.market_data.domain.depth import Book, DepthFeed
from minhos_mesh.market_data.domain.source import Source, SourceConflict
from minhos_mesh.market_data.ports import Owner


class LiveDepth:
    """The order book of one symbol while the service runs: its one source and its readers."""

    def __init__(self, feed: DepthFeed) -> None:
        self.feed = feed
        self.owner: Owner | None = None
        """The session of the source that is connected."""
        self.wakers: set[Callable[[], None]] = set()

    def open(self, source: Source, owner: Owner) -> int:
        """Connects a source; returns the sequence up to which its books are known.

        A new stream of the same source and epoch takes the place of the old one, which ends with SourceConflict. Raises
        SourceConflict while another source or epoch is connected, ProvenanceRefused as the feed does.
        """
        held, former = self.feed.source, self.owner
        if former is not None and held is not None and (held.name, held.epoch) != (source.name, source.epoch):
            raise SourceConflict(self.feed.symbol, source, held, "must wait until the stream of that one ends")
        through = self.feed.open(source)
        self.owner = owner
        if former is not None:
            former.fail(self._replaced(source))
        return through

    def _replaced(self, source: Source) -> SourceConflict:
        return SourceConflict(self.feed.symbol, source, source, "has another stream, which took the place of this one")

    def close(self, owner: Owner) -> None:
        """Disconnects a source, unless another stream has taken its place."""
        if self.owner is owner:
            self.owner = None

    def take(self, book: Book, owner: Owner) -> None:
        """Takes a book and tells the readers. Raises SourceConflict when another stream has taken the place of this one."""
        if self.owner is not owner and self.feed.source is not None:
            raise self._replaced(self.feed.source)
        if self.feed.take(book):
            for wake in self.wakers:
                wake()
