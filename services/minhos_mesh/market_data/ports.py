"""What market data asks of the rooms around it: an encoder of what readers get, and a way to tell last values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from minhos_mesh.market_data.domain.feed import LastQuote, Provenance, SymbolFeed
from minhos_mesh.market_data.domain.reading import Piece, Position
from minhos_mesh.runtime.ticks import TickBatchView


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Answer to a subscription of one symbol."""

    symbol: str
    refusal: Exception | None = None
    """SymbolUnknown, PositionLost, LosslessRefused, BarsNotKnown or BarsUnavailable; None when it stands."""
    position: Position | None = None
    """Position behind which updates begin."""
    oldest: Position | None = None
    """Oldest tick still held."""
    newest: Position | None = None
    """Newest tick held."""
    provenance: Provenance | None = None
    """Where the ticks held come from."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of one stream."""

    wall_ns: int
    newest: tuple[tuple[str, Position], ...]
    """Newest position of each symbol subscribed to."""
    sent: int
    missed: int
    quotes_skipped: int = 0
    books_skipped: int = 0


class Owner(Protocol):
    """The stream of a source."""

    def fail(self, failure: Exception) -> None:
        """Ends it with an error."""


class Encoder(Protocol):
    """Turns what is due into the bytes of one message. It must read the feed before it returns."""

    def piece(self, feed: SymbolFeed, piece: Piece) -> bytes:
        """One piece of a symbol's feed."""

    def came(self, feed: SymbolFeed, batch: TickBatchView, stamped: bytes = b"") -> None:
        """A batch whose records became ticks just as they came, under the sequences that were their positions.

        `stamped` is its only tick as it is kept, where that got its time of receipt here.
        """

    def answer(self, answer: Subscribed) -> bytes:
        """An answer to a subscription."""

    def beat(self, beat: Beat) -> bytes:
        """A sign of life for a reader."""

    def opened(self, position: int) -> bytes:
        """Where a source is to begin: behind this position."""

    def acknowledged(self, position: int, sequence: int, rejected: int) -> bytes:
        """What was taken from a source."""

    def source_beat(self) -> bytes:
        """A sign of life for a source."""

    def depth_opened(self, through: int) -> bytes:
        """Up to which book a source of books is known."""

    def depth_acknowledged(self, through: int, rejected: int) -> bytes:
        """What was taken from it."""

    def depth_source_beat(self) -> bytes:
        """A sign of life for it."""


class Announcer(Protocol):
    """Tells last values to the mesh; what could not be told is not told later."""

    async def announce(self, quotes: Sequence[LastQuote]) -> None:
        """Tells the quotes, one event each."""
