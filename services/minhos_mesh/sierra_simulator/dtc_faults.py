"""Decides how the simulator's DTC server misbehaves when it is told to: drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.tables.trading import ORDER_UPDATE
from minhos_mesh.matching import Quote

LATE_S = 0.02
"""Seconds by which a message is late."""

COUNTED = ("drop_connection", "duplicate", "late", "silence", "unknown", "reject", "thin", "hushed")
"""What is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """How often what goes wrong, each from 0 (never) to 1 (always), per message about an order."""

    drop_connection: float = 0.0
    """The connection is cut before the message is sent; the client misses it."""
    duplicate: float = 0.0
    """The message is sent twice."""
    late: float = 0.0
    """The message is held back for LATE_S, while others pass it."""
    silence: float = 0.0
    """The server says nothing more on this connection, not even a heartbeat."""
    unknown: float = 0.0
    """A message of a type that nobody knows goes before it."""
    reject: float = 0.0
    """A new order is rejected, per order."""
    late_s: float = LATE_S
    """Seconds by which a late message is late."""
    thin: bool = False
    """Every quote shows one contract on each side."""
    hushed: bool = False
    """The server says nothing on any connection."""

    def __post_init__(self) -> None:
        """Raises ValueError for a rate that is none."""
        for name in ("drop_connection", "duplicate", "late", "silence", "unknown", "reject"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} is {rate}: allowed is 0 to 1")

    @property
    def any(self) -> bool:
        """True when something may go wrong with a message about an order."""
        return any((self.drop_connection, self.duplicate, self.late, self.silence, self.unknown))


@dataclass(frozen=True, slots=True)
class Faulty:
    """What becomes of messages that were to be sent."""

    messages: tuple[Message, ...]
    cut: bool = False
    """The connection is to be cut behind them."""
    silent: bool = False
    """Nothing more is to be sent behind them."""
    strange: int = 0
    """Messages of an unknown type to be sent before them."""
    late: tuple[Message, ...] = ()
    """Messages to be sent LATE_S later."""


class Faults:
    """The faults of one server; one connection after the other draws from the same numbers."""

    def __init__(self, rates: FaultRates, seed: int = 1) -> None:
        self.rates = rates
        self.counts = dict.fromkeys(COUNTED, 0)
        self._random = random.Random(seed)

    def change(self, messages: list[Message]) -> Faulty:
        """What is sent instead of some messages; only what tells of orders unasked is touched."""
        sent: list[Message] = []
        late: list[Message] = []
        strange = 0
        for message in messages:
            if message.layout is not ORDER_UPDATE or message.integer("RequestID"):
                sent.append(message)
                continue
            if self._happens("drop_connection"):
                return Faulty(tuple(sent), cut=True, strange=strange, late=tuple(late))
            if self._happens("silence"):
                return Faulty(tuple(sent), silent=True, strange=strange, late=tuple(late))
            strange += self._happens("unknown")
            if self._happens("late"):
                late.append(message)
                continue
            sent.append(message)
            if self._happens("duplicate"):
                sent.append(message)
        return Faulty(tuple(sent), strange=strange, late=tuple(late))

    def rejects(self) -> bool:
        """Whether a new order is to be rejected."""
        return self._happens("reject")

    def thinned(self, quote: Quote) -> Quote:
        """The quote as it is shown."""
        if not self.rates.thin:
            return quote
        self.counts["thin"] += 1
        return replace(quote, bid_size=1, ask_size=1)

    def _happens(self, name: str) -> bool:
        rate: float = getattr(self.rates, name)
        hit = rate > 0 and self._random.random() < rate
        self.counts[name] += hit
        return hit
