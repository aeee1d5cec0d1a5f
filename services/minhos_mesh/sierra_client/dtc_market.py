"""Decides which market data is asked of a DTC server, and that a refusal ends the asking until the next connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from minhos_mesh.dtc import requests
from minhos_mesh.dtc.client_session import Permissions, Refusal
from minhos_mesh.dtc.depth_updates import LEVELS, BookUpdate, DepthReader
from minhos_mesh.dtc.enums import FeedStatus
from minhos_mesh.dtc.market_updates import MarketReader, MarketUpdate
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.tables.market import MARKET_DATA_FEED_STATUS

ASKED_AGAIN: Final = 10
"""How often a book in doubt is asked for anew over one connection."""


class MarketData:
    """The market data of one connection."""

    def __init__(self, symbols: Sequence[str], scale_of: Callable[[str], PriceScale], *, depth: bool = False) -> None:
        """`symbols` are asked for under the ids 1, 2, 3 and so on; with `depth` also their order books."""
        self.reader = MarketReader(dict(enumerate(symbols, start=1)))
        self.books = DepthReader(self.reader.symbols if depth else {})
        self.refused_depth: dict[str, str] = {}
        """Symbols of which the server serves no order book, with its words."""
        self._asked_again: Counter[int] = Counter()
        self.refused: set[str] = set()
        """Symbols of which the server serves no data."""
        self.available = True
        """False while the server says that it receives none itself."""
        self._resubscribes = False
        self._scale_of = scale_of

    def begin(self, permissions: Permissions | None) -> list[Message]:
        """The requests of a fresh connection; none where the logon has refused market data."""
        if permissions is None or not permissions.market_data:
            self.refused |= set(self.reader.symbols.values())
            return []
        if not permissions.depth:
            self.refused_depth = dict.fromkeys(self.books.symbols.values(), "the logon grants no market depth")
        self._resubscribes = permissions.resubscribe
        return self._requests()

    def take(self, message: Message) -> tuple[MarketUpdate | BookUpdate | None, list[Message]]:
        """What a message says about the market, and what is to be asked because of it."""
        if message.layout is MARKET_DATA_FEED_STATUS:
            before, self.available = self.available, message.integer("Status") != FeedStatus.UNAVAILABLE
            again = self.available and not before and self._resubscribes
            if not self.available:
                self.books.forget()
            return None, self._requests() if again else []
        book = self.books.read(message, self._scale_of)
        if book is not None or self.books.doubtful:
            return book, self._ask_again()
        return self.reader.read(message, self._scale_of), []

    def _ask_again(self) -> list[Message]:
        """Asks for books anew that are in doubt, so often that a server that tells nonsense ends it."""
        doubtful, self.books.doubtful = self.books.doubtful, set()
        self._asked_again.update(doubtful)
        again = [number for number in sorted(doubtful) if self._asked_again[number] <= ASKED_AGAIN]
        return [requests.subscribe_depth(number, self.books.symbols[number], LEVELS) for number in again]

    def refuse(self, refusal: Refusal) -> str:
        """Notes a refusal of market data and gives its symbol; empty for one that is about something else."""
        if refusal.kind == "DEPTH" and refusal.key in self.books.symbols:
            self.refused_depth[self.books.symbols[refusal.key]] = refusal.text
        symbol = self.reader.symbols.get(refusal.key, "") if refusal.kind == "MARKET_DATA" else ""
        if symbol:
            self.refused.add(symbol)
        return symbol

    def _requests(self) -> list[Message]:
        wanted = self.reader.symbols.items()
        asked = [requests.subscribe(number, symbol) for number, symbol in wanted if symbol not in self.refused]
        books = [item for item in self.books.symbols.items() if item[1] not in {*self.refused, *self.refused_depth}]
        return [*asked, *(requests.subscribe_depth(number, symbol, LEVELS) for number, symbol in books)]
