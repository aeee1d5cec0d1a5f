"""Decides what a quote has to give: which prices and sizes an order finds, and that nothing is taken twice."""

from __future__ import annotations

from collections.abc import Iterator

from minhos_mesh.matching.market import Quote
from minhos_mesh.matching.order import Order, Side
from minhos_mesh.matching.rules import MatchingRules


class Liquidity:
    """What is left of the latest quote; a new quote brings its whole size again."""

    def __init__(self, tick_e9: int, rules: MatchingRules) -> None:
        self._tick_e9 = tick_e9
        self._rules = rules
        self._taken = {Side.BUY: 0, Side.SELL: 0}
        self.quote: Quote | None = None

    def show(self, quote: Quote) -> None:
        """Replace the latest quote."""
        self.quote = quote
        self._taken[Side.BUY] = self._taken[Side.SELL] = 0

    def fresh_quote(self, now_ns: int) -> Quote | None:
        """Return the latest quote unless it is older than the limit at `now_ns`."""
        quote = self.quote
        if quote is None or now_ns - quote.time_ns > self._rules.max_quote_age_ns:
            return None
        return quote

    def shown_size(self, size: int | None) -> int:
        """Return the size to reckon with at a quoted price."""
        return self._rules.size_when_not_shown if size is None else max(size, 0)

    def offers(self, order: Order, limit_e9: int | None, now_ns: int) -> Iterator[tuple[int, int]]:
        """Give (raw price, contracts left) that the order reaches, best first, without slippage; nothing on a stale quote."""
        quote = self.fresh_quote(now_ns)
        best, size = quote.opposite(order.side) if quote is not None else (None, None)
        shown = self.shown_size(size)
        if best is None or shown == 0:
            return
        sign = int(order.side)
        taken = self._taken[order.side]
        for level in range(taken // shown, self._rules.walk_ticks + 1):
            price = best + sign * level * self._tick_e9
            if limit_e9 is not None and sign * price > sign * limit_e9:
                return
            yield price, min(shown, (level + 1) * shown - taken)

    def reachable(self, order: Order, limit_e9: int | None, now_ns: int) -> int:
        """Return how many contracts the order could take at once."""
        return sum(quantity for _, quantity in self.offers(order, limit_e9, now_ns))

    def take(self, side: Side, quantity: int) -> None:
        """Mark contracts as gone, best price first."""
        self._taken[side] += quantity

    def slipped(self, order: Order, price_e9: int, limit_e9: int | None) -> int:
        """Return what a taker pays for `price_e9`: slippage against it, never beyond its limit."""
        sign = int(order.side)
        paid = price_e9 + sign * self._rules.slippage_ticks * self._tick_e9
        if limit_e9 is not None and sign * paid > sign * limit_e9:
            return limit_e9
        return paid
