"""Decides which ticks every side of the benchmark of market data sends, and what its readers take of them."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from minhos_mesh.runtime.tick_layout import TICK, TICK_BYTES, WIRE, Tick, TickArray, new_ticks

__all__ = ["BATCH", "STEP_E9", "TICK_BYTES", "TWO", "Taken", "made", "stamp", "sums", "symbols"]

BATCH: Final = 16_384
"""Most ticks of one message, everywhere: as many as market data itself puts into one."""
STEP_E9: Final = 250_000_000
_ROOTS: Final = ("NQ", "ES", "MNQ", "MES")


def symbols(count: int) -> list[str]:
    """So many symbols with a price step of 0.25, at most 112."""
    names = [f"{root}{month}{year}-CME" for year in range(23, 30) for month in "HMUZ" for root in _ROOTS]
    return names[:count]


def made(count: int, first_ns: int = 0, seed: int = 7) -> TickArray:
    """Trades with a quote around them, a nanosecond apart from now on; they have no time of receipt."""
    random = np.random.default_rng(seed)
    ticks = new_ticks(count)
    ticks["event_time_ns"] = (first_ns or time.time_ns()) + np.arange(count)
    steps = 80_000 + random.integers(-2, 3, count).cumsum() % 4_000
    ticks["price_e9"] = ticks["bid_e9"] = steps * STEP_E9
    ticks["ask_e9"] = ticks["price_e9"] + STEP_E9
    ticks["size"] = random.integers(1, 9, count)
    ticks["bid_size"] = ticks["ask_size"] = 12
    ticks["flags"], ticks["kind"], ticks["side"] = 63, 1, 2
    return ticks


def stamp(ticks: TickArray, per_s: int, after_ns: int = 0) -> int:
    """Says in the event times when these were due: the last one now, those before it when a sender in time had sent them.

    None is before `after_ns`, the time of the one sent last. Returns that of the last of these.
    """
    now, count = time.time_ns(), len(ticks)
    if count == 1:
        ticks["event_time_ns"] = now
    else:
        due = now - np.arange(count - 1, -1, -1) * (1_000_000_000 // per_s)
        ticks["event_time_ns"] = np.maximum(due, after_ns)
    return now


def sums(ticks: TickArray) -> tuple[int, int]:
    """What a reader that lost nothing has added up: prices in steps, and sizes."""
    return int((ticks["price_e9"] // STEP_E9).sum()), int(ticks["size"].sum())


def _at(name: str) -> int:
    assert TICK.fields is not None, "a structured dtype has fields"
    return int(TICK.fields[name][1])


_TIME, _PRICE, _SIZE = _at("event_time_ns"), _at("price_e9"), _at("size")
TWO: Final = struct.Struct(f"<{_PRICE}xq{_SIZE - _PRICE - 8}xI")
"""Price and size of one tick as it lies on the wire: the cheapest way to read them."""
TIMED: Final = struct.Struct(f"<{_TIME}xq{_PRICE - _TIME - 8}xq{_SIZE - _PRICE - 8}xI")
"""Event time, price and size."""


@dataclass(slots=True)
class Taken:
    """What one reader has taken."""

    timed: bool = False
    count: int = 0
    messages: int = 0
    lost: int = 0
    first_ns: int = 0
    last_ns: int = 0
    price_steps: int = 0
    sizes: int = 0
    waits_ns: list[int] = field(default_factory=list)
    """From the source to here."""
    hops_ns: list[int] = field(default_factory=list)
    """From the stamp of receipt in market data to here."""

    def began(self) -> None:
        """A message came."""
        self.messages += 1
        if not self.first_ns:
            self.first_ns = time.perf_counter_ns()

    def array(self, ticks: TickArray) -> None:
        """Many ticks: their columns are read."""
        self.began()
        self.count += len(ticks)
        self.price_steps += int(ticks["price_e9"].sum()) // STEP_E9
        self.sizes += int(ticks["size"].sum())
        if self.timed:
            now = time.time_ns()
            self.waits_ns += (now - ticks["event_time_ns"]).tolist()
            self.hops_ns += (now - ticks["receive_time_ns"]).tolist()

    def objects(self, ticks: list[Tick]) -> None:
        """A few ticks as objects."""
        self.began()
        self.count += len(ticks)
        now = time.time_ns()
        for tick in ticks:
            self.price_steps += (tick.price_e9 or 0) // STEP_E9
            self.sizes += tick.size or 0
            if self.timed:
                self.waits_ns.append(now - tick.event_time_ns)
                self.hops_ns.append(now - tick.receive_time_ns)

    def wire(self, data: bytes, at: int = 0) -> None:
        """Ticks as bytes."""
        if len(data) - at == TICK_BYTES:
            self.one(data, at)
        else:
            self.array(np.frombuffer(data, TICK, (len(data) - at) // TICK_BYTES, at))

    def one(self, data: bytes, at: int = 0) -> None:
        """One tick as bytes."""
        self.began()
        self.count += 1
        sent, price, size = TIMED.unpack_from(data, at)
        if self.timed:
            self.waits_ns.append(time.time_ns() - sent)
        self.price_steps += price // STEP_E9
        self.sizes += size

    def told(self) -> dict[str, Any]:
        """The answer."""
        return {
            "count": self.count,
            "messages": self.messages,
            "lost": self.lost,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "sums": [self.price_steps, self.sizes],
            "waits_us": _shares(self.waits_ns),
            "hops_us": _shares(self.hops_ns),
        }


def _shares(waits_ns: list[int]) -> list[float] | None:
    """Half, ninety-nine of a hundred, and the longest, in microseconds."""
    if not waits_ns:
        return None
    ordered = sorted(waits_ns)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3 for share in (0.5, 0.99, 1.0)]


assert WIRE.itemsize == TICK_BYTES, "both are one tick"
