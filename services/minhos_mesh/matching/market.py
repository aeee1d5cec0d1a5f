"""Decides what the matcher needs to know of the market at an instant."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.matching.order import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best prices shown at an instant; a side that nobody quotes is None, a size that is not shown is None."""

    time_ns: int
    bid_e9: int | None = None
    ask_e9: int | None = None
    bid_size: int | None = None
    ask_size: int | None = None

    def opposite(self, side: Side) -> tuple[int | None, int | None]:
        """Return price and size that an order of `side` would take."""
        return (self.ask_e9, self.ask_size) if side is Side.BUY else (self.bid_e9, self.bid_size)

    def own(self, side: Side) -> tuple[int | None, int | None]:
        """Return price and size of the best resting orders on the side of `side`."""
        return (self.bid_e9, self.bid_size) if side is Side.BUY else (self.ask_e9, self.ask_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A trade that took place between others."""

    time_ns: int
    price_e9: int
    size: int
    aggressor: Side | None = None
    """Who took: BUY lifted an offer, SELL hit a bid; None when the source does not say."""
