"""Decides what the bridge's word about an order is worth: it is never believed, and where it is seen to invent, that is told.

Known versions answer every question about any order with FILLED at 18000, also about one that nobody sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from minhos_mesh.sierra_client.bridge_quotes import Refused, read_json

INVENTED_PRICE: Final = Decimal(18_000)
"""The price of every fill that known versions invent."""


class TradeStatus(enum.Enum):
    """What was found when the bridge was asked about an order that was never sent."""

    NOT_ASKED = "NOT_ASKED"
    INVENTED = "INVENTED"
    ABSENT = "ABSENT"
    UNPROVEN = "UNPROVEN"


def judge_trade_status(http_status: int, body: bytes) -> tuple[TradeStatus, str]:
    """What the answer about an order that was never sent shows, and the same in one sentence."""
    if http_status != 200:
        return TradeStatus.ABSENT, f"asked about an order that was never sent, it answers HTTP {http_status}"
    try:
        answer = read_json(body)
    except Refused as refused:
        return TradeStatus.ABSENT, str(refused)
    status = answer.get("status") if isinstance(answer, Mapping) else None
    if not isinstance(status, str):
        return TradeStatus.ABSENT, "asked about an order that was never sent, it tells no status"
    if status.upper() not in {"FILLED", "SUBMITTED", "PARTIALLY_FILLED", "WORKING"}:
        return TradeStatus.UNPROVEN, f"it calls an order that was never sent {status[:40]}; no order goes through it"
    price = answer.get("fill_price")
    at = f" at {price}" if isinstance(price, int | Decimal) and -(10**9) < price < 10**9 else ""
    known = ", as every order" if at and price == INVENTED_PRICE else ""
    return (
        TradeStatus.INVENTED,
        f"it calls an order that was never sent {status[:40]}{at}{known}: nothing it says of orders is believed",
    )
