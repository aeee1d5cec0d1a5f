"""Decides how the trades of a .scid file lie in memory as ticks of the mesh."""

from __future__ import annotations

import numpy as np

from minhos_mesh.runtime.tick_layout import TickArray, TickKind, TradeSide, new_ticks
from minhos_mesh.sierra_files.ticks import BUY, CONTRACT_FLAGS, SELL, TickColumns


def as_ticks(columns: TickColumns, receive_ns: int | None) -> TickArray:
    """The same as an array of ticks; `receive_ns` None: each was received at its event time."""
    ticks = new_ticks(len(columns))
    ticks["event_time_ns"] = columns.time_ns
    ticks["receive_time_ns"] = columns.time_ns if receive_ns is None else receive_ns
    ticks["price_e9"] = columns.price_e9
    ticks["bid_e9"] = columns.bid_e9
    ticks["ask_e9"] = columns.ask_e9
    ticks["size"] = columns.size
    for absent in ("bid_size", "ask_size"):
        ticks[absent] = 0
    ticks["flags"] = columns.flags & CONTRACT_FLAGS
    ticks["kind"] = TickKind.TRADE
    bought, sold = (columns.flags & BUY) != 0, (columns.flags & SELL) != 0
    ticks["side"] = np.where(bought, TradeSide.BUY, np.where(sold, TradeSide.SELL, TradeSide.UNSPECIFIED))
    return ticks
