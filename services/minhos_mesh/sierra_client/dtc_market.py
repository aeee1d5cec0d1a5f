"""Decides which market data is asked of a DTC server, and that a refusal ends the asking until the next connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minhos_mesh.dtc import requests
from minhos_mesh.dtc.client_session import Permissions, Refusal
from minhos_mesh.dtc.enums import FeedStatus
from minhos_mesh.dtc.market_updates import MarketReader, MarketUpdate
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.tables.market import MARKET_DATA_FEED_STATUS


class MarketData:
    """The market data of one connection."""

    def __init__(self, symbols: Sequence[str], scale_of: Callable[[str], PriceScale]) -> None:
        """`symbols` are asked for under the ids 1, 2, 3 and so on."""
        self.reader = MarketReader(dict(enumerate(symbols, start=1)))
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
        self._resubscribes = permissions.resubscribe
        return self._requests()

    def take(self, message: Message) -> tuple[MarketUpdate | None, list[Message]]:
        """What a message says about the market, and what is to be asked because of it."""
        if message.layout is MARKET_DATA_FEED_STATUS:
            before, self.available = self.available, message.integer("Status") != FeedStatus.UNAVAILABLE
            again = self.available and not before and self._resubscribes
            return None, self._requests() if again else []
        return self.reader.read(message, self._scale_of), []

    def refuse(self, refusal: Refusal) -> str:
        """Notes a refusal of market data and gives its symbol; empty for one that is about something else."""
        symbol = self.reader.symbols.get(refusal.key, "") if refusal.kind == "MARKET_DATA" else ""
        if symbol:
            self.refused.add(symbol)
        return symbol

    def _requests(self) -> list[Message]:
        wanted = self.reader.symbols.items()
        return [requests.subscribe(number, symbol) for number, symbol in wanted if symbol not in self.refused]
