"""Decides the order book around a simulated quote, as the commands that a .depth file tells it with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.sierra_files.depth_layout import END_OF_BATCH, DepthCommand

SNAPSHOT_EVERY_US: Final = 600_000_000
"""The whole book is told anew so often, as Sierra Chart does."""

_CONTRACTS_PER_ORDER: Final = 2


@dataclass(frozen=True, slots=True)
class DepthChange:
    """One command; the price in ticks."""

    command: DepthCommand
    flags: int
    price_ticks: int = 0
    quantity: int = 0
    num_orders: int = 0


@dataclass(slots=True)
class _Side:
    """One side of the book: quantity by price in ticks."""

    sign: int
    add: DepthCommand
    modify: DepthCommand
    delete: DepthCommand
    levels: dict[int, int] = field(default_factory=dict)


class DepthWalk:
    """A book that follows quotes; the same quotes and seed give the same book."""

    def __init__(self, seed: str, levels: int, shown: int) -> None:
        """`levels` of each side; `shown` contracts at the best price on average."""
        self._random = random.Random(seed)
        self._levels = levels
        self._shown = shown
        self._bids = _Side(-1, DepthCommand.ADD_BID, DepthCommand.MODIFY_BID, DepthCommand.DELETE_BID)
        self._asks = _Side(1, DepthCommand.ADD_ASK, DepthCommand.MODIFY_ASK, DepthCommand.DELETE_ASK)
        self._told_us: int | None = None

    def follow(self, time_us: int, bid_ticks: int, ask_ticks: int) -> list[DepthChange]:
        """Moves the book to a quote and gives the commands of that instant, the last of which ends the batch."""
        changes: list[DepthChange] = []
        for side, best in ((self._bids, bid_ticks), (self._asks, ask_ticks)):
            changes += self._deleted(side, best)
        for side, best in ((self._bids, bid_ticks), (self._asks, ask_ticks)):
            changes += self._filled(side, best)
        if self._told_us is None or time_us - self._told_us >= SNAPSHOT_EVERY_US:
            self._told_us = time_us
            changes = self._snapshot()
        last = changes[-1]
        changes[-1] = DepthChange(last.command, END_OF_BATCH, last.price_ticks, last.quantity, last.num_orders)
        return changes

    @property
    def bids(self) -> Mapping[int, int]:
        """Contracts by price in ticks."""
        return self._bids.levels

    @property
    def asks(self) -> Mapping[int, int]:
        """Contracts by price in ticks."""
        return self._asks.levels

    def begin_file(self) -> None:
        """The next commands begin with the whole book."""
        self._told_us = None

    def _deleted(self, side: _Side, best: int) -> list[DepthChange]:
        gone = [price for price in side.levels if not 0 <= (price - best) * side.sign < self._levels]
        for price in gone:
            del side.levels[price]
        return [DepthChange(side.delete, 0, price) for price in gone]

    def _filled(self, side: _Side, best: int) -> list[DepthChange]:
        found = []
        changed = {0, self._random.randrange(self._levels)} if self._random.random() < 0.5 else {0}
        for at in range(self._levels):
            price = best + at * side.sign
            if price < 1:
                break
            command = side.modify if price in side.levels else side.add
            if command is side.add or at in changed:
                side.levels[price] = self._quantity(at)
                found.append(_told(command, price, side.levels[price]))
        return found

    def _quantity(self, at: int) -> int:
        mean = self._shown * (1 + 0.35 * at)
        return 1 + int(self._random.expovariate(1.0) * (mean - 1) + 0.5)

    def _snapshot(self) -> list[DepthChange]:
        found = [DepthChange(DepthCommand.CLEAR_BOOK, 0)]
        for side in (self._bids, self._asks):
            best_first = sorted(side.levels, reverse=side.sign < 0)
            found += [_told(side.add, price, side.levels[price]) for price in best_first]
        return found


def _told(command: DepthCommand, price_ticks: int, quantity: int) -> DepthChange:
    return DepthChange(command, 0, price_ticks, quantity, -(-quantity // _CONTRACTS_PER_ORDER))
