"""Decides what a person may say of an order that is UNKNOWN, and which fills that makes."""

from __future__ import annotations

from typing import Final

from minhos_mesh.dtc.order_state import SETTLED, TrackedOrder
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.reports import FillReport
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.sierra_client.venue.domain import OrderRecord
from minhos_mesh.venue.domain.errors import InvalidField, OrderDone
from minhos_mesh.venue.domain.orders import Outcome, Settlement, check_price

SETTLED_AS: Final = {
    Outcome.FILLED: Tracked.CANCELED,
    Outcome.CANCELED: Tracked.CANCELED,
    Outcome.NEVER_ARRIVED: Tracked.REJECTED,
}
"""Where an order stands afterwards, unless fills have completed it."""
CLOCKS_NS: Final = 60_000_000_000
"""How far the clock that a person read may be off."""


def check_settlement(
    settlement: Settlement,
    record: OrderRecord,
    tracked: TrackedOrder,
    spec: InstrumentSpec | None,
    reference_e9: int | None,
    now_ns: int,
) -> None:
    """Refuses what cannot have become of an order. Raises OrderDone, InvalidField, MoneyError."""
    answered = bool(tracked.server_order_ids or tracked.fills)
    if settlement.outcome is Outcome.NEVER_ARRIVED and answered:
        because = "the server has answered it before, so it did arrive"
        raise OrderDone(record.client_order_id, record.state.name, "settle it as never arrived", because)
    if settlement.quantity > record.leaves_quantity:
        allowed = f"at most {record.leaves_quantity}, which the venue has not told as filled"
        raise InvalidField("filled.fills", f"{settlement.quantity} contracts", allowed)
    if settlement.quantity < tracked.missing_quantity:
        allowed = f"at least {tracked.missing_quantity}, which the server counts as filled and has told nothing of"
        raise InvalidField("filled.fills", f"{settlement.quantity} contracts", allowed)
    for index, fill in enumerate(settlement.fills):
        field = f"filled.fills[{index}]"
        if spec is not None:
            check_price(fill.price_e9, f"{field}.price_e9", spec, reference_e9)
        earliest_ns, latest_ns = record.create_ns - CLOCKS_NS, now_ns + CLOCKS_NS
        if fill.time_ns is not None and not earliest_ns <= fill.time_ns <= latest_ns:
            raise InvalidField(f"{field}.fill_time", f"{fill.time_ns} ns", "a time between the order and now")


def settled_fills(settlement: Settlement, tracked: TrackedOrder, now_ns: int) -> tuple[FillReport, ...]:
    """The fills as if the server had told them, under ids of their own."""
    return tuple(
        FillReport(
            execution_id=f"{SETTLED}{settlement.request_id}:{number}",
            server_order_id=tracked.server_order_id,
            symbol=tracked.symbol,
            side=tracked.side,
            quantity=fill.quantity,
            price_e9=fill.price_e9,
            on_grid=True,
            time_ns=now_ns if fill.time_ns is None else fill.time_ns,
        )
        for number, fill in enumerate(settlement.fills, start=1)
    )
