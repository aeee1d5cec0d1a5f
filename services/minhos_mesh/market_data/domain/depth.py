"""Decides which order books are taken, and which one is the newest: each replaces the one before, whatever was passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from minhos_mesh.market_data.domain.source import Source, goes_on

LEVELS = 10
"""Most levels of one side."""


class BookReason(StrEnum):
    """Why a book was refused; when several hold, the first in this order counts."""

    NON_POSITIVE = "NON_POSITIVE"
    OFF_TICK = "OFF_TICK"
    UNSORTED = "UNSORTED"
    CROSSED = "CROSSED"


@dataclass(frozen=True, slots=True)
class Level:
    """One price of one side: 1e-9 units, contracts, orders where the source says."""

    price_e9: int
    size: int
    orders: int | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """A whole order book: times in ns since the epoch, absent is None."""

    sequence: int
    event_time_ns: int | None
    receive_time_ns: int
    bids: tuple[Level, ...]
    """The highest first."""
    asks: tuple[Level, ...]
    """The lowest first."""


def reason_against(book: Book, tick_e9: int) -> BookReason | None:
    """Why a book is refused; None when it is a good one. Prices are to be multiples of `tick_e9`."""
    levels = (*book.bids, *book.asks)
    if any(level.price_e9 <= 0 or level.size <= 0 for level in levels):
        return BookReason.NON_POSITIVE
    if any(level.price_e9 % tick_e9 for level in levels):
        return BookReason.OFF_TICK
    if not _rising(book.asks) or not _rising(book.bids[::-1]):
        return BookReason.UNSORTED
    if book.bids and book.asks and book.bids[0].price_e9 >= book.asks[0].price_e9:
        return BookReason.CROSSED
    return None


def _rising(levels: Sequence[Level]) -> bool:
    return all(one.price_e9 < two.price_e9 for one, two in pairwise(levels))


class DepthFeed:
    """The newest order book of one symbol. Books taken and refused are counted within the epoch of their source."""

    def __init__(self, symbol: str, tick_e9: int) -> None:
        self.symbol = symbol
        self.source: Source | None = None
        self.book: Book | None = None
        self.through = 0
        """Sequence up to which books were taken, passed over or refused."""
        self.taken = 0
        self.rejected: dict[BookReason, int] = {}
        self._tick_e9 = tick_e9

    @property
    def epoch(self) -> int:
        """Generation of the source of books; 0 before there was one."""
        return 0 if self.source is None else self.source.epoch

    def open(self, source: Source) -> int:
        """Takes a source; returns the sequence up to which its books are known. Another generation begins anew.

        Raises ProvenanceRefused and SourceConflict as `goes_on` does.
        """
        if goes_on(self.symbol, self.source, source):
            return self.through
        self.source, self.book = source, None
        self.through = self.taken = 0
        self.rejected = {}
        return 0

    def take(self, book: Book) -> bool:
        """Takes a book; False when it changes nothing: it is no newer than the one held, or refused and counted."""
        if book.sequence <= self.through:
            return False
        self.through = book.sequence
        reason = reason_against(book, self._tick_e9)
        if reason is not None:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
            return False
        self.taken += 1
        self.book = book
        return True
