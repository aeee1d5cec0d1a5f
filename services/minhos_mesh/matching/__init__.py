"""Decides how orders meet quotes and trades: one pure matcher for the paper venue, the simulator and backtests."""

from __future__ import annotations

from minhos_mesh.matching.book import MatchingBook
from minhos_mesh.matching.events import Event, Fill, OrderUpdate, UpdateKind
from minhos_mesh.matching.market import Quote, Trade
from minhos_mesh.matching.order import (
    Order,
    OrderType,
    Phase,
    Side,
    TimeInForce,
    Violation,
    WorkingOrder,
    check_order,
)
from minhos_mesh.matching.position import Position, apply_fill, round_half_even
from minhos_mesh.matching.rules import MatchingRules, OrderInvalid, OrderUnknown
from minhos_mesh.matching.session import prices_due, session_open, trading_day

__all__ = [
    "Event",
    "Fill",
    "MatchingBook",
    "MatchingRules",
    "Order",
    "OrderInvalid",
    "OrderType",
    "OrderUnknown",
    "OrderUpdate",
    "Phase",
    "Position",
    "Quote",
    "Side",
    "TimeInForce",
    "Trade",
    "UpdateKind",
    "Violation",
    "WorkingOrder",
    "apply_fill",
    "check_order",
    "prices_due",
    "round_half_even",
    "session_open",
    "trading_day",
]
