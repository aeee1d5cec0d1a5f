"""Decides what the commands of a .depth file make of an order book, in exact prices, and which of them say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.depth_layout import END_OF_BATCH, DepthCommand
from minhos_mesh.sierra_files.ticks import exact_prices, times_ns

LARGEST_BOOK = 10_000
"""Levels of one side; a command for one more is left out and counted."""


@dataclass(frozen=True, slots=True)
class Level:
    """One price of one side."""

    price_e9: int
    quantity: int
    num_orders: int


@dataclass(frozen=True, slots=True)
class BookView:
    """The book as it was at the end of a batch."""

    time_ns: int | None
    bids: tuple[Level, ...]
    """The highest first."""
    asks: tuple[Level, ...]
    """The lowest first."""


@dataclass(slots=True)
class DepthBook:
    """A book that is built from commands; before the first clear it is not known whole."""

    tick_e9: int
    bids: dict[int, Level] = field(default_factory=dict)
    asks: dict[int, Level] = field(default_factory=dict)
    cleared: bool = False
    """True once a clear was seen, from which on the book is whole."""
    refused: int = 0
    """Commands that are none, or whose price is none; they change nothing."""

    def views(self, records: NDArray[np.void], levels: int = 10) -> Iterator[BookView]:
        """Applies commands in order and gives the book behind each batch, with at most `levels` on each side."""
        prices, present, _ = exact_prices(records["price"], self.tick_e9)
        time, timed = times_ns(records["time_us"])
        columns = zip(
            records["command"].tolist(),
            records["flags"].tolist(),
            records["quantity"].tolist(),
            records["num_orders"].tolist(),
            prices.tolist(),
            present.tolist(),
            time.tolist(),
            timed.tolist(),
            strict=True,
        )
        for command, flags, quantity, orders, price_e9, valid, time_ns, has_time in columns:
            self._apply(command, Level(price_e9, quantity, orders), valid)
            if flags & END_OF_BATCH:
                yield self.view(time_ns if has_time else None, levels)

    def view(self, time_ns: int | None, levels: int = 10) -> BookView:
        """The book as it is."""
        bids = sorted(self.bids.values(), key=lambda level: -level.price_e9)[:levels]
        asks = sorted(self.asks.values(), key=lambda level: level.price_e9)[:levels]
        return BookView(time_ns, tuple(bids), tuple(asks))

    def _apply(self, command: int, level: Level, valid: bool) -> None:
        if command == DepthCommand.NONE:
            return
        if command == DepthCommand.CLEAR_BOOK:
            self.bids.clear()
            self.asks.clear()
            self.cleared = True
            return
        if command > DepthCommand.DELETE_ASK or not valid:
            self.refused += 1
            return
        side = self.asks if command % 2 else self.bids
        if command >= DepthCommand.DELETE_BID or level.quantity == 0:
            side.pop(level.price_e9, None)
        elif level.price_e9 in side or len(side) < LARGEST_BOOK:
            side[level.price_e9] = level
        else:
            self.refused += 1
