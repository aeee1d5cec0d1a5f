"""Decides what a book tells: fills and changes of state, each with the cumulative quantity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from minhos_mesh.matching.order import Side


class UpdateKind(Enum):
    """What happened to an order."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    TRIGGERED = "TRIGGERED"
    REPLACED = "REPLACED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderUpdate:
    """A change of an order that is not a fill."""

    order_id: str
    kind: UpdateKind
    reason: str
    """A word in capitals for machines, empty when the kind says it all."""
    quantity: int
    cumulative_quantity: int
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Contracts that changed hands for one order at one price."""

    order_id: str
    side: Side
    price_e9: int
    quantity: int
    cumulative_quantity: int
    leaves_quantity: int
    commission_e9: int
    maker: bool
    """True when the order rested and somebody else took it."""
    time_ns: int


Event = OrderUpdate | Fill
