"""Decides what the last values of a symbol are: each value from the newest tick that carries it, absent until one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minhos_mesh.runtime.tick_layout import VALUES, Row, TickArray, TickFlag, TickKind, Trades

_TRADE, _SIZE = int(TickKind.TRADE), int(TickFlag.HAS_SIZE)


@dataclass(slots=True)
class LastValues:
    """Last values of one symbol: prices in 1e-9 units, sizes and volume in contracts, times in ns since the epoch."""

    last_price_e9: int | None = None
    last_size: int | None = None
    bid_e9: int | None = None
    ask_e9: int | None = None
    bid_size: int | None = None
    ask_size: int | None = None
    event_time_ns: int = 0
    """When the newest of these values happened; 0 before the first tick."""
    sequence: int = 0
    """The tick that brought it; 0 before the first."""
    volume: int = 0
    """Contracts traded since the epoch began."""

    def add(self, ticks: TickArray, last_sequence: int, trades: Trades | None = None) -> None:
        """Takes accepted ticks, of which the last one has `last_sequence`; `trades` are their columns where they are known."""
        if trades is None:
            self._add_many(ticks)
            self.sequence = last_sequence
        else:  # they all carry the same, so the last one says everything
            self.add_one(VALUES.unpack(ticks[-1:].tobytes()), last_sequence)
            self.volume += int(trades.size[:-1].sum(dtype=np.int64))

    def add_one(self, row: Row, sequence: int) -> None:
        """Takes one accepted tick."""
        time_ns, _, price, bid, ask, size, bid_size, ask_size, flags, kind, _ = row
        self.sequence = sequence
        self.event_time_ns = time_ns
        if kind == _TRADE:
            self.last_price_e9 = price
            self.last_size = size if flags & _SIZE else None
            self.volume += self.last_size or 0
        if flags & 4:
            self.bid_e9 = bid
            self.bid_size = bid_size if flags & 16 else None
        if flags & 8:
            self.ask_e9 = ask
            self.ask_size = ask_size if flags & 32 else None

    def _add_many(self, ticks: TickArray) -> None:
        flags, kinds = ticks["flags"], ticks["kind"]
        self.event_time_ns = int(ticks["event_time_ns"][-1])
        if kinds[-1] == _TRADE or (kinds == _TRADE).any():
            last = ticks[_newest(kinds, _TRADE)]
            self.last_price_e9 = int(last["price_e9"])
            self.last_size = int(last["size"]) if last["flags"] & _SIZE else None
            sized = (kinds == _TRADE) & ((flags & _SIZE) != 0)
            self.volume += int(ticks["size"].sum(dtype=np.int64, where=sized))
        if flags[-1] & 4 or (flags & 4).any():
            last = ticks[_newest(flags & 4, 4)]
            self.bid_e9 = int(last["bid_e9"])
            self.bid_size = int(last["bid_size"]) if last["flags"] & 16 else None
        if flags[-1] & 8 or (flags & 8).any():
            last = ticks[_newest(flags & 8, 8)]
            self.ask_e9 = int(last["ask_e9"])
            self.ask_size = int(last["ask_size"]) if last["flags"] & 32 else None


def _newest(values: npt.NDArray[Any], wanted: int) -> int:
    """Index of the last one that is as wanted; there is one."""
    return -1 if values[-1] == wanted else int(np.flatnonzero(values == wanted)[-1])
