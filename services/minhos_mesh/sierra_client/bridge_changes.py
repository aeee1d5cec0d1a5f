"""Decides which quotes of the bridge are ticks: a change of price whose time is known, since the bridge tells none."""

from __future__ import annotations

from dataclasses import dataclass, field

from minhos_mesh.sierra_client.bridge_quotes import BridgeQuote


@dataclass(slots=True)
class LastPrices:
    """The last price of each symbol, and when the bridge was last seen to hold it."""

    known_for_s: float
    """A change counts when the price before it was seen at most so long ago, so that its time is right to this."""
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def is_tick(self, quote: BridgeQuote, now_s: float) -> bool:
        """Takes a quote; true when it is a trade that happened since the last look.

        The bridge repeats its last price for ever, and what it holds when a connection opens may be days old. So a first
        price, and one that changed while nobody looked, only say from where to go on.
        """
        before = self._seen.get(quote.symbol)
        self._seen[quote.symbol] = (quote.price_e9, now_s)
        if before is None:
            return False
        price_e9, seen_s = before
        return quote.price_e9 != price_e9 and now_s - seen_s <= self.known_for_s
