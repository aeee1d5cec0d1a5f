"""Decides when an answer that comes in several messages is complete, and that nothing else is taken for a part of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.dtc.layout import Layout
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.tables.reference import ACCOUNT_BALANCE_REJECT, ACCOUNT_BALANCE_UPDATE
from minhos_mesh.dtc.tables.trading import (
    CURRENT_POSITIONS_REJECT,
    HISTORICAL_ORDER_FILL_RESPONSE,
    HISTORICAL_ORDER_FILLS_REJECT,
    OPEN_ORDERS_REJECT,
    ORDER_UPDATE,
    POSITION_UPDATE,
)

LARGEST_BATCH: Final = 100_000
"""Messages of the longest answer that is collected."""

_EMPTY: Final = {
    ORDER_UPDATE: "NoOrders",
    HISTORICAL_ORDER_FILL_RESPONSE: "NoOrderFills",
    POSITION_UPDATE: "NoPositions",
    ACCOUNT_BALANCE_UPDATE: "NoAccountBalances",
}
"""The member by which an answer says that it is empty."""

REJECTS: Final = {
    OPEN_ORDERS_REJECT: ORDER_UPDATE,
    HISTORICAL_ORDER_FILLS_REJECT: HISTORICAL_ORDER_FILL_RESPONSE,
    CURRENT_POSITIONS_REJECT: POSITION_UPDATE,
    ACCOUNT_BALANCE_REJECT: ACCOUNT_BALANCE_UPDATE,
}
"""The message that refuses a request, and the one that would have answered it."""


@dataclass(slots=True)
class Batch:
    """One request that waits for its answer."""

    layout: Layout
    request_id: int
    messages: list[Message] = field(default_factory=list)
    complete: bool = False
    refused: str | None = None
    """Why the server does not answer; None while it may."""

    def take(self, message: Message) -> bool:
        """Takes a message when it is a part of this answer; True when it was."""
        if message.layout in REJECTS and REJECTS[message.layout] is self.layout:
            if message.integer("RequestID") != self.request_id:
                return False
            self.refused = message.text("RejectText") or "no reason was given"
            self.complete = True
            return True
        if self.complete or message.layout is not self.layout or message.integer("RequestID") != self.request_id:
            return False
        empty = _EMPTY.get(self.layout)
        if empty is not None and message.flag(empty):
            self.complete = True
            return True
        self.messages.append(message)
        number, total = message.integer("MessageNumber"), message.integer(_total(self.layout))
        self.complete = number >= total or len(self.messages) >= LARGEST_BATCH
        return True


def _total(layout: Layout) -> str:
    return "TotalNumMessages" if layout is ORDER_UPDATE else "TotalNumberMessages"
