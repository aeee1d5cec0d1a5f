"""Decides what one reader of one symbol gets next: everything in order, a told gap when it fell behind, or the source waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from minhos_mesh.market_data.domain.bar_lines import MINUTES, BarKey, BarLine
from minhos_mesh.market_data.domain.feed import Provenance, SymbolFeed
from minhos_mesh.runtime.bars import Bar

CHUNK_TICKS = 16_384
"""Most ticks of a batch. A reader that is further behind gets what came as one large batch, in the same bytes, or one that ends
at a multiple of it, so that such readers come to want the same ranges; one that is not gets what has come since, as all do."""


class PositionLost(Exception):
    """Expected: what follows the position is not held; sequences `oldest` to `newest` of `epoch` are."""

    def __init__(self, symbol: str, asked: Position, epoch: int, oldest: int, newest: int) -> None:
        self.epoch, self.oldest, self.newest = epoch, oldest, newest
        if asked.epoch not in {0, epoch}:
            what = f"epoch {asked.epoch} of {symbol} is not the one that is current: held are {oldest} to {newest} of {epoch}"
        elif asked.sequence > newest:
            what = f"sequence {asked.sequence} of {symbol} is ahead of the newest: held are {oldest} to {newest}"
        else:
            what = f"ticks of {symbol} after sequence {asked.sequence} are no longer held: the oldest held is {oldest}"
        super().__init__(f"{what}; take a snapshot, or resume after {oldest - 1} of epoch {epoch}")


class LosslessRefused(Exception):
    """Expected: only a replay can be held back for a reader."""

    def __init__(self, symbol: str, provenance: Provenance) -> None:
        super().__init__(
            f"LOSSLESS is refused for {symbol}, whose data is {provenance.name}: only REPLAY can be held back; use GAP"
        )


@dataclass(frozen=True, slots=True)
class Wants:
    """What a reader asked for of one symbol."""

    ticks: bool = True
    bars: bool = False
    quotes: bool = False
    depth: bool = False
    lossless: bool = False
    bars_back: int = 0
    bar_key: BarKey = MINUTES


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the ticks of a symbol; `epoch` 0 means the one that is current."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class EpochBegan:
    """The source began anew."""

    epoch: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Where the symbol stands, with up to `bars_back` closed bars."""

    bars_back: int
    bar_key: BarKey = MINUTES
    depth: bool = False
    """Whether the order book belongs to it."""


class TickRange(NamedTuple):
    """Ticks first..last of the feed."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Missed:
    """Ticks first..last that this reader will not get."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class QuoteDue:
    """The newest last values, which are those of tick `sequence`."""

    sequence: int


@dataclass(frozen=True, slots=True)
class DepthDue:
    """The newest order book, which is that of this generation and sequence."""

    epoch: int
    sequence: int


Piece = EpochBegan | SnapshotDue | TickRange | Missed | QuoteDue | DepthDue | Bar


class SymbolReader:
    """One reader's place in one feed. It costs nothing between two calls and never delays another reader."""

    def __init__(self, feed: SymbolFeed, wants: Wants, resume: Position | None) -> None:
        """Raises PositionLost when what follows `resume` is not held, LosslessRefused for data that is no replay.

        While nothing is held any position is waited for: a source that comes back brings the same sequences again.
        """
        self.feed, self.wants = feed, wants
        self.missed = 0
        """Ticks told as gaps."""
        self.sent = 0
        """Ticks given."""
        self.sequence = 0
        """The last tick given, told as missed, or known to the reader."""
        self.up_to_date = False
        """Whether nothing more was due when something was taken last."""
        self._read_through: int | None = None
        self._epoch = 0 if resume is None else resume.epoch
        self._entered = False
        self._next_bar = 0
        self._bars_behind = 0
        self._bars_told = 0
        """The tick that closed the last bar given."""
        self._quote_sequence = 0
        self._book_told = DepthDue(0, 0)
        self.quotes_skipped = 0
        """Changes of the last values that were passed over."""
        self.books_skipped = 0
        self._snapshot_due = resume is None
        self._ticks_alone = wants.ticks and not (wants.bars or wants.quotes or wants.depth)
        self._at_once = min(CHUNK_TICKS, feed.ring.capacity)
        self._refuse_lossless()
        if resume is not None:
            self._stand_behind(resume)
        elif feed.epoch is not None:
            self._epoch, self._entered = feed.epoch, True
            self.sequence = self._bars_told = feed.sequence
            self._next_bar = self._line.closed
        self._line.users.add(self)

    @property
    def _line(self) -> BarLine:
        return self.feed.lines[self.wants.bar_key]

    def close(self) -> None:
        """Reads no more."""
        self._line.users.discard(self)
        self.feed.give_up_lines()

    def _refuse_lossless(self) -> None:
        provenance = self.feed.provenance
        if self.wants.lossless and provenance is not None and provenance is not Provenance.REPLAY:
            raise LosslessRefused(self.feed.symbol, provenance)

    def _stand_behind(self, resume: Position) -> None:
        feed = self.feed
        self.sequence = self._bars_behind = self._bars_told = resume.sequence
        if feed.epoch is None or feed.sequence == 0:
            return
        oldest = feed.ring.oldest if self.wants.ticks else 1
        if self.wants.bars:
            oldest = max(oldest, self._line.lost_through + 1)
        held = oldest <= resume.sequence + 1 <= feed.sequence + 1
        if self._epoch not in {0, feed.epoch} or not held:
            raise PositionLost(feed.symbol, resume, feed.epoch, oldest, feed.sequence)
        self._epoch, self._entered = feed.epoch, True
        self._next_bar = self._line.number_after(resume.sequence)

    @property
    def position(self) -> Position | None:
        """Position behind which updates begin; None when neither side knows one."""
        return Position(self._epoch, self.sequence) if self._epoch else None

    @property
    def held_through(self) -> int:
        """The last sequence that need not be kept for this reader."""
        if self._epoch not in {0, self.feed.epoch}:
            return 0
        return self.sequence if self._read_through is None else min(self._read_through, self.sequence)

    def progress(self, position: Position) -> None:
        """The reader says how far it is done; positions of another epoch say nothing."""
        if position.epoch in {0, self._epoch}:
            self._read_through = position.sequence

    def take(self) -> list[Piece]:
        """What is due now: nothing when the reader is up to date. One range of ticks at the most.

        Raises LosslessRefused when the source began with data that is no replay.
        """
        newest, behind = self.feed.ring.newest, self.sequence
        count = newest - behind
        if (  # the usual case, without a detour: ticks came, they are held, and nothing else is due
            0 < count <= self._at_once
            and self._epoch == self.feed.epoch
            and self._entered
            and not self._snapshot_due
            and (self._ticks_alone or self._no_more_than_ticks())
        ):
            self.sequence = newest
            self.sent += count
            self.up_to_date = True
            return [TickRange(self._epoch, behind + 1, newest)]
        with_book = self._snapshot_due
        pieces = list(self._due())
        if self.wants.depth:
            pieces += self._depth(in_snapshot=with_book)
        self.up_to_date = not pieces
        return pieces

    def _no_more_than_ticks(self) -> bool:
        wants = self.wants
        if not wants.ticks or wants.quotes or wants.depth:
            return False
        return self._next_bar >= self._line.closed

    def _due(self) -> Iterator[Piece]:
        feed = self.feed
        if feed.epoch is not None and (feed.epoch != self._epoch or not self._entered):
            yield from self._enter(feed.epoch)
        if self._snapshot_due:
            self._snapshot_due = False
            self.sequence = self._quote_sequence = self._bars_told = feed.sequence
            self._next_bar = self._line.closed
            yield SnapshotDue(self.wants.bars_back, self.wants.bar_key, self.wants.depth)
        if feed.epoch is None:
            return
        if self.wants.ticks:
            yield from self._ticks(feed.epoch)
        else:
            self.sequence = max(self.sequence, feed.sequence)
        if self.wants.bars and self._line.closed > self._next_bar:
            yield from self._bars(feed.epoch)
        if self.wants.quotes and feed.sequence > self._quote_sequence:
            if self._quote_sequence:
                self.quotes_skipped += feed.sequence - self._quote_sequence - 1
            self._quote_sequence = feed.sequence
            yield QuoteDue(feed.sequence)

    def _depth(self, *, in_snapshot: bool) -> list[Piece]:
        """The newest book where it has not been told; with a snapshot it was."""
        depth, told = self.feed.depth, self._book_told
        if depth.book is None or told == (newest := DepthDue(depth.epoch, depth.book.sequence)):
            return []
        if told.epoch == newest.epoch:
            self.books_skipped += newest.sequence - told.sequence - 1
        self._book_told = newest
        return [] if in_snapshot else [newest]

    def _enter(self, epoch: int) -> Iterator[Piece]:
        known, self._epoch, self._entered = self._epoch, epoch, True
        self._refuse_lossless()
        if known not in {0, epoch} and self.feed.provenance is not None:
            self.sequence = self._bars_behind = self._bars_told = self._next_bar = self._quote_sequence = 0
            self._read_through = None
            yield EpochBegan(epoch, self.feed.provenance)

    def _ticks(self, epoch: int) -> Iterator[Piece]:
        newest, first = self.feed.sequence, self.sequence + 1
        if first > newest:
            return
        if first < self.feed.ring.oldest:
            resumed = max(self.feed.ring.oldest, newest - CHUNK_TICKS + 1)
            self.missed += resumed - first
            yield Missed(epoch, first, resumed - 1)
            first = resumed
        last = newest if newest - first < CHUNK_TICKS else self._end_behind(first)
        self.sequence = last
        self.sent += last - first + 1
        yield TickRange(epoch, first, last)

    def _end_behind(self, first: int) -> int:
        last = (first - 1) // CHUNK_TICKS * CHUNK_TICKS + CHUNK_TICKS
        for began, ended in self.feed.large:
            if first < began:
                return min(last, began - 1)
            if first <= ended < first + CHUNK_TICKS:
                return ended
        return last

    def _bars(self, epoch: int) -> Iterator[Piece]:
        line = self._line
        if self._next_bar < line.oldest:
            self._next_bar = line.oldest
            if self._bars_told < line.lost_through:
                yield Missed(epoch, self._bars_told + 1, line.lost_through)
        for bar in line.since(self._next_bar):
            if bar.closing_sequence > self.sequence:
                return
            self._next_bar += 1
            self._bars_told = bar.closing_sequence
            if bar.closing_sequence > self._bars_behind:
                yield bar
