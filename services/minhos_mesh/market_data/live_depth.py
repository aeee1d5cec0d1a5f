"""Decides who brings the order books of a symbol, and who is told of a new one."""

from __future__ import annotations

from collections.abc import Callable

from minhos_mesh.market_data.domain.depth import Book, DepthFeed
from minhos_mesh.market_data.domain.source import Source
from minhos_mesh.market_data.one_source import OneSource
from minhos_mesh.market_data.ports import Owner


class LiveDepth(OneSource):
    """The order book of one symbol while the service runs: its one source and its readers."""

    def __init__(self, feed: DepthFeed) -> None:
        super().__init__(feed.symbol)
        self.feed = feed
        self.wakers: set[Callable[[], None]] = set()

    def open(self, source: Source, owner: Owner) -> int:
        """Connects a source; returns the sequence up to which its books are known.

        A new stream of the same source and epoch takes the place of the old one, which ends with SourceConflict. Raises
        SourceConflict while another source or epoch is connected, ProvenanceRefused as the feed does.
        """
        self._refuse_another(self.feed.source, source)
        through = self.feed.open(source)
        self._seat(source, owner)
        return through

    def take(self, book: Book, owner: Owner) -> None:
        """Takes a book and tells the readers. Raises SourceConflict when another stream has taken the place of this one."""
        if self.owner is not owner and self.feed.source is not None:
            raise self._replaced(self.feed.source)
        if self.feed.take(book):
            for wake in self.wakers:
                wake()
