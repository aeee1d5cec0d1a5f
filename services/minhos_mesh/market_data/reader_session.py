"""Decides what one stream of a reader may do, and what is due on it."""

from __future__ import annotations

import difflib
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from minhos_mesh.market_data.conversation import Conversation, MessageRefused
from minhos_mesh.market_data.domain.feed import SymbolFeed
from minhos_mesh.market_data.domain.reading import LosslessRefused, Position, PositionLost, SymbolReader, Wants
from minhos_mesh.market_data.live_feed import LiveFeed
from minhos_mesh.market_data.ports import Beat, Encoder, Subscribed
from minhos_mesh.runtime.clock import Clock

Find = Callable[[str], LiveFeed]


class SymbolUnknown(LookupError):
    """Expected: a symbol that this mesh is not configured for."""

    def __init__(self, symbol: str, known: Sequence[str]) -> None:
        self.symbol, self.known = symbol, ", ".join(known)
        near = difflib.get_close_matches(symbol.upper(), known, n=1, cutoff=0.4)
        self.nearest = near[0] if near else None
        hint = f"; was {self.nearest} meant?" if near else ""
        super().__init__(f"symbol {symbol!r} is not configured: known are {self.known}{hint}")


class ReaderSession(Conversation):
    """One reader's stream: any number of symbols, each at its own place."""

    def __init__(self, feeds: Mapping[str, LiveFeed], find: Find, clock: Clock, encoder: Encoder) -> None:
        super().__init__()
        self._feeds, self._find, self._clock, self._encoder = feeds, find, clock, encoder
        self._readers: dict[str, SymbolReader] = {}
        self._answers: deque[bytes] = deque()
        self._news: dict[str, None] = {}
        """Symbols of which something may be due; all others need not be looked at."""
        self._wakers: dict[str, Callable[[], None]] = {}
        self._earlier = Beat(0, (), 0, 0)
        """Counters of what is read no longer."""

    @property
    def symbols(self) -> list[str]:
        """Symbols that are subscribed to."""
        return list(self._readers)

    def subscribe(
        self,
        symbols: Sequence[str],
        wants: Wants,
        resume: Sequence[tuple[str, Position]],
        *,
        field: str,
        refused: Mapping[str, Exception] = MappingProxyType({}),
    ) -> None:
        """Begins to read, or reads otherwise from now on; each symbol is answered, refused or not. None means all.

        `refused` says, by canonical symbol, why the bars that are wanted cannot be told.

        Raises MessageRefused for a position of a symbol that is not among them, or that has one already; `field` is
        where the subscription stands in its request.
        """
        wanted = symbols or list(self._feeds)
        places = self._places([self._canonical(symbol) for symbol in wanted], resume, field)
        for symbol in wanted:
            self._answers.append(self._encoder.answer(self._subscribe(symbol, wants, places, refused)))
        self.wake()

    def _places(self, wanted: Sequence[str], resume: Sequence[tuple[str, Position]], field: str) -> dict[str, Position]:
        places: dict[str, Position] = {}
        for index, (symbol, position) in enumerate(resume):
            canonical = self._canonical(symbol)
            if canonical not in wanted or canonical in places:
                what = "a symbol of the subscription" if canonical not in wanted else "one position for each symbol"
                raise MessageRefused(f"{field}.resume_after[{index}].symbol", symbol, f"{what}: {', '.join(wanted)}")
            places[canonical] = position
        return places

    def _canonical(self, symbol: str) -> str:
        try:
            return self._find(symbol).feed.symbol
        except SymbolUnknown:
            return symbol

    def feeds_of(self, symbols: Sequence[str]) -> list[SymbolFeed]:
        """The feeds of those symbols that are known; of all when none is named."""
        canonical = dict.fromkeys(map(self._canonical, symbols or self._feeds))
        return [self._feeds[symbol].feed for symbol in canonical if symbol in self._feeds]

    def _subscribe(
        self, symbol: str, wants: Wants, resume: Mapping[str, Position], refused: Mapping[str, Exception]
    ) -> Subscribed:
        try:
            live = self._find(symbol)
        except SymbolUnknown as unknown:
            return Subscribed(symbol, unknown)
        feed = live.feed
        if feed.symbol in refused:
            return Subscribed(feed.symbol, refused[feed.symbol])
        oldest = newest = None
        if feed.epoch is not None and feed.sequence > 0:
            oldest, newest = Position(feed.epoch, feed.ring.oldest), Position(feed.epoch, feed.sequence)
        try:
            reader = SymbolReader(feed, wants, resume.get(feed.symbol))
        except (PositionLost, LosslessRefused) as refusal:
            if isinstance(refusal, PositionLost):
                oldest = Position(refusal.epoch, refusal.oldest)
            return Subscribed(feed.symbol, refusal, None, oldest, newest, feed.provenance)
        self._drop(feed.symbol)
        self._readers[feed.symbol] = reader
        told = self._wakers[feed.symbol] = functools.partial(self._told, feed.symbol)
        live.wakers.add(told)
        if wants.depth:
            live.depth.wakers.add(told)
        told()
        if wants.lossless:
            live.hold(reader)
        return Subscribed(feed.symbol, None, reader.position, oldest, newest, feed.provenance)

    def _told(self, symbol: str) -> None:
        self._news[symbol] = None
        self.wake()

    def unsubscribe(self, symbols: Sequence[str]) -> None:
        """Reads no more of these symbols; one that is not subscribed to is passed over."""
        for symbol in symbols:
            self._drop(self._canonical(symbol))

    def progress(self, symbol: str, position: Position) -> None:
        """The reader is done with all up to there."""
        reader = self._readers.get(self._canonical(symbol))
        if reader is not None:
            reader.progress(position)
            self._feeds[reader.feed.symbol].read_on()

    def _drop(self, symbol: str) -> None:
        reader = self._readers.pop(symbol, None)
        if reader is not None:
            self._earlier = self._counted(reader)
            live, told = self._feeds[symbol], self._wakers.pop(symbol)
            live.wakers.discard(told)
            live.depth.wakers.discard(told)
            live.release(reader)
            reader.close()

    def due(self) -> Awaitable[list[bytes]]:
        """The messages that are due, as soon as one is."""
        return self.until(self._collect)

    def _collect(self) -> list[bytes]:
        messages: list[bytes] = []
        if self._answers:
            messages.extend(self._answers)
            self._answers.clear()
        for symbol in tuple(self._news):
            reader = self._readers.get(symbol)
            if reader is None:
                del self._news[symbol]
                continue
            try:
                pieces = reader.take()
                if reader.up_to_date:
                    del self._news[symbol]
                messages.extend([self._encoder.piece(reader.feed, piece) for piece in pieces])
            except LosslessRefused as refusal:
                self._drop(symbol)
                messages.append(self._encoder.answer(Subscribed(symbol, refusal)))
            if reader.wants.lossless:
                self._feeds[symbol].read_on()
        if not messages and self._beat_due:
            messages.append(self._encoder.beat(self._beat()))
        self._beat_due = False
        return messages

    def _beat(self) -> Beat:
        readers = self._readers.values()
        newest = tuple(
            (reader.feed.symbol, Position(reader.feed.epoch, reader.feed.sequence))
            for reader in readers
            if reader.feed.epoch is not None
        )
        return replace(self._counted(*readers), wall_ns=self._clock.wall_ns(), newest=newest)

    def _counted(self, *readers: SymbolReader) -> Beat:
        """The counters with those of some readers."""
        earlier = self._earlier
        return Beat(
            0,
            (),
            earlier.sent + sum(reader.sent for reader in readers),
            earlier.missed + sum(reader.missed for reader in readers),
            earlier.quotes_skipped + sum(reader.quotes_skipped for reader in readers),
            earlier.books_skipped + sum(reader.books_skipped for reader in readers),
        )

    def close(self) -> None:
        """Reads no more of anything."""
        for symbol in list(self._readers):
            self._drop(symbol)
