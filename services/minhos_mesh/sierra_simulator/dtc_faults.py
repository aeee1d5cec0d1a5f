"""Decides how the simulator's DTC server misbehaves when it is told to: drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass

from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.tables.trading import ORDER_UPDATE

LATE_S = 0.02
"""Seconds by which a message is late."""


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

    def __post_init__(self) -> None:
        """Raises ValueError for a rate that is none."""
        for name in ("drop_connection", "duplicate", "late", "silence", "unknown"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} is {rate}: allowed is 0 to 1")

    @property
    def any(self) -> bool:
        """True when something may go wrong."""
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
        self.counts = {"drop_connection": 0, "duplicate": 0, "late": 0, "silence": 0, "unknown": 0}
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

    def _happens(self, name: str) -> bool:
        rate: float = getattr(self.rates, name)
        hit = rate > 0 and self._random.random() < rate
        self.counts[name] += hit
        return hit
